"""Connections of Cassandra's driver on our loop: what is sent and read stays whole, however it comes."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from io import BytesIO
from ssl import SSLWantReadError
from typing import Any

import pytest
import pytest_asyncio
from cassandra import OperationTimedOut
from cassandra.connection import ConnectionShutdown, CrcMismatchException, ProtocolError
from cassandra.segment import SegmentCodec, compute_crc24

from xmppd.store.cassandra.wire import Alarm, Segments, Wire, crc24, wires_on

pytestmark = pytest.mark.asyncio

CODEC = SegmentCodec()
"""As the driver has it."""


class Connected:
    """A connection that has agreed on segments with checksums, the other end of it, and what it has read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, tls: bool = False) -> None:
        self.bodies: list[bytes] = []
        here, self.there = socket.socketpair()
        self.there.setblocking(False)
        self.wires = wires_on(asyncio.get_running_loop())

        def connect(wire: Any) -> None:
            wire._socket = Tls(here) if tls else here
            wire.ssl_context = object() if tls else None

        monkeypatch.setattr(self.wires, "_connect_socket", connect)
        monkeypatch.setattr(self.wires, "_send_options_message", lambda wire: None)
        monkeypatch.setattr(self.wires, "process_msg", lambda wire, _, body: self.heard(wire, body))
        self.wire = self.wires()
        self.wire._enable_checksumming()

    def heard(self, wire: Any, body: bytes) -> None:
        wire.msg_received = True
        self.bodies.append(body)

    async def come(self, count: int) -> None:
        """Wait until so much was read."""
        async with asyncio.timeout(10):
            while len(self.bodies) < count and not self.wire.is_closed:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.001)

    async def sent(self, size: int) -> bytes:
        """What the other end is given."""
        data = b""
        async with asyncio.timeout(10):
            while len(data) < size:
                data += await asyncio.get_running_loop().sock_recv(self.there, 1 << 16)
        return data


class Tls:
    """A socket that has read more than it gives, as one with TLS, of which the system says nothing."""

    def __init__(self, inner: socket.socket) -> None:
        self._inner = inner
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def recv_into(self, room: memoryview) -> int:
        try:
            self._held += self._inner.recv(1 << 16)
        except BlockingIOError:
            if not self._held:
                raise SSLWantReadError from None
        some, self._held = self._held[:5], self._held[5:]
        room[: len(some)] = some
        return len(some)

    def pending(self) -> int:
        return len(self._held)


@pytest_asyncio.fixture
async def connected(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Connected]:
    one = Connected(monkeypatch)
    yield one
    one.wire.close()
    one.there.close()


def envelopes(*bodies: bytes) -> bytes:
    return b"".join([b"\x85\0\0\1\x08" + len(body).to_bytes(4, "big") + body for body in bodies])


def segments(*envelopes: bytes) -> bytes:
    data = BytesIO()
    for each in envelopes:
        CODEC.encode(data, each)
    return data.getvalue()


# segments


async def test_checksums_and_segments_are_those_of_the_protocol() -> None:
    chance = random.Random(1)
    for word in (0, 1, 0x1FFFF, 0x3FFFF, *(chance.getrandbits(18) for _ in range(200))):
        assert crc24(word) == compute_crc24(word, 3)
    for size in (9, 100, 131_071, 131_072, 400_000):
        ours, message = BytesIO(), chance.randbytes(size)
        Segments.encode(ours, message)
        assert ours.getvalue() == segments(message)


@pytest.mark.parametrize("size", [*range(1, 26), 1000, 70_000])
async def test_answers_arrive_in_pieces_of_any_size(size: int, connected: Connected) -> None:
    long = b"long" * 10_000 if size < 1000 else b"long" * 100_000  # one segment, and four
    sent = [b"first", b"", b"third" * 9, b"4", long, b"last"]
    data = segments(envelopes(*sent[:2]), *map(envelopes, sent[2:]))
    for start in range(0, len(data), size):
        connected.wire._take(memoryview(data)[start : start + size])
    assert connected.bodies == sent


async def test_before_both_agree_on_segments_there_are_none(connected: Connected) -> None:
    connected.wire._is_checksumming_enabled = False
    data = envelopes(b"supported", b"ready")
    for start in range(0, len(data), 4):
        connected.wire._take(memoryview(data)[start : start + 4])
    connected.wire._enable_checksumming()
    connected.wire._take(memoryview(segments(envelopes(b"rows"))))
    assert connected.bodies == [b"supported", b"ready", b"rows"]


DAMAGES: list[tuple[Callable[[bytearray], object], type[Exception]]] = [
    (lambda data: data.__setitem__(1, data[1] ^ 1), CrcMismatchException),
    (lambda data: data.__setitem__(4, data[4] ^ 1), CrcMismatchException),
    (lambda data: data.__setitem__(-6, data[-6] ^ 1), CrcMismatchException),
    (lambda data: data.__setitem__(-1, data[-1] ^ 1), CrcMismatchException),
]


@pytest.mark.parametrize(("damage", "kind"), DAMAGES)
async def test_what_was_damaged_is_not_believed(
    damage: Callable[[bytearray], object], kind: type[Exception], connected: Connected
) -> None:
    data = bytearray(segments(envelopes(b"an answer")))
    damage(data)
    connected.there.send(data)
    await connected.come(1)
    assert connected.wire.is_defunct and isinstance(connected.wire.last_error, kind)
    assert not connected.bodies


@pytest.mark.parametrize("data", [b"HTTP/1.1 400 Bad Request\r\n", b"\x85\0\0\1\x08\xff\xff\xff\xff"])
async def test_what_speaks_another_protocol_is_given_up(data: bytes, connected: Connected) -> None:
    connected.wire._is_checksumming_enabled = False
    connected.there.send(data)
    await connected.come(1)
    assert isinstance(connected.wire.last_error, ProtocolError)


# reading and sending


@pytest.mark.parametrize("tls", [False, True])
async def test_all_that_has_come_is_read(tls: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Connected(monkeypatch, tls=tls)
    await asyncio.sleep(0)
    for number in range(3):
        one.there.send(segments(*(envelopes(b"%d" % each) for each in range(number, number + 20))))
        await one.come(20 * (number + 1))
    assert one.bodies == [b"%d" % each for number in range(3) for each in range(number, number + 20)]
    one.wire.close()


async def test_whoever_hangs_up_is_gone_at_once(connected: Connected) -> None:
    failed: list[Exception] = []
    connected.wire._requests = {1: (failed.append, None, None)}
    connected.there.close()
    await connected.come(1)
    assert isinstance(connected.wire.last_error, ConnectionShutdown) and len(failed) == 1
    assert connected.wire.connected_event.is_set()
    assert connected.wire._socket.fileno() == -1


@pytest.mark.parametrize("answers", [True, False])
async def test_who_did_not_answer_in_time_is_alive_if_it_was_not_read(
    answers: bool, connected: Connected
) -> None:
    await asyncio.sleep(0.01)
    connected.wire.msg_received = False
    late = OperationTimedOut("no heartbeat")
    finding = threading.Thread(target=connected.wire.defunct, args=(late,))
    finding.start()
    if answers:
        connected.there.send(segments(envelopes(b"alive")))
    time.sleep(0.05)  # noqa: ASYNC251 - the loop stands still
    await asyncio.to_thread(finding.join)
    assert connected.wire.is_defunct is not answers
    assert connected.bodies == [b"alive"] * answers


async def test_what_is_sent_in_one_turn_goes_together(connected: Connected) -> None:
    asked = [b"a" * 10, b"b" * 20, b"c" * 30]
    for each in asked:
        connected.wire.push(each)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert connected.there.recv(1 << 16) == b"".join(asked)


async def test_what_the_socket_does_not_take_comes_later_and_in_order(connected: Connected) -> None:
    chance = random.Random(2)
    asked = [chance.randbytes(300_000) for _ in range(8)]
    for each in asked:
        connected.wire.push(each)
        await asyncio.sleep(0)
    assert connected.wire._is_clogged
    assert await connected.sent(2_400_000) == b"".join(asked)
    connected.wire.push(b"more")
    assert await connected.sent(4) == b"more"
    assert not connected.wire._is_clogged


async def test_what_threads_send_stays_whole(connected: Connected) -> None:
    names = b"abc"

    def push(name: int) -> None:
        for number in range(200):
            connected.wire.push(b"<%c%03d>" % (name, number))

    threads = [threading.Thread(target=push, args=(name,)) for name in names[1:]]
    for thread in threads:
        thread.start()
    for number in range(200):
        connected.wire.push(b"<%c%03d>" % (names[0], number))
        await asyncio.sleep(0)
    for thread in threads:
        await asyncio.to_thread(thread.join)
    found = await connected.sent(3 * 200 * 6)
    for name in names:
        expected = [b"<%c%03d>" % (name, number) for number in range(200)]
        assert [part + b">" for part in found.split(b">") if part[1:2] == b"%c" % name] == expected


async def test_threads_close_it_as_well(connected: Connected) -> None:
    failed: list[Exception] = []
    connected.wire._requests = {1: (failed.append, None, None)}
    await asyncio.to_thread(connected.wire.close)
    await asyncio.sleep(0.01)
    assert connected.wire._socket.fileno() == -1 and len(failed) == 1
    connected.wire.close()
    assert connected.there.recv(1) == b""


async def test_where_the_loop_is_over_it_is_closed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect() -> Connected:
        return Connected(monkeypatch)

    one = await asyncio.to_thread(lambda: asyncio.run(connect()))
    one.wire.push(b"nobody sends this")
    one.wire.create_timer(1, lambda: None).cancel()
    one.wire.close()
    assert one.wire._socket.fileno() == -1


# deadlines


async def test_alarms_ring_unless_they_are_cancelled_by_whatever_thread() -> None:
    rang: list[str] = []
    wires: type[Wire] = wires_on(asyncio.get_running_loop())
    soon, later = 0.02, 1.0
    here = [wires.create_timer(seconds, lambda: rang.append("here")) for seconds in (later, soon)]
    there: list[Alarm] = []

    def begin() -> None:
        there.extend(
            wires.create_timer(seconds, lambda: rang.append("there")) for seconds in (later, later, soon)
        )
        here[0].cancel()
        there[0].cancel()

    await asyncio.to_thread(begin)
    there[1].cancel()
    await asyncio.sleep(later + 0.1)
    assert sorted(rang) == ["here", "there"]


async def test_a_deadline_that_is_late_lets_what_has_come_be_read_first(connected: Connected) -> None:
    heard: list[int] = []
    await asyncio.sleep(0.01)
    connected.wires.create_timer(0.01, lambda: heard.append(len(connected.bodies)))
    connected.there.send(segments(envelopes(b"in time")))
    time.sleep(0.2)  # noqa: ASYNC251 - the loop stands still
    await asyncio.sleep(0.2)
    assert heard == [1]


async def test_nobody_waits_for_a_loop_that_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = asyncio.new_event_loop()
    wires = wires_on(ended)
    pairs = [socket.socketpair(), socket.socketpair()]
    left = iter(pairs)
    monkeypatch.setattr(wires, "_connect_socket", lambda wire: setattr(wire, "_socket", next(left)[0]))
    monkeypatch.setattr(wires, "is_here", classmethod(lambda cls: False))
    monkeypatch.setattr(wires, "_send_options_message", lambda wire: None)
    wire = wires()
    failed: list[Exception] = []
    wire._requests[1] = (failed.append, None, None)
    ended.close()
    wire.push(b"asks")
    assert wire.is_closed and [type(error) for error in failed] == [ConnectionShutdown]
    assert wire.connected_event.is_set() and isinstance(wire.last_error, ConnectionShutdown)
    with pytest.raises(ConnectionShutdown, match="has ended"):
        wires()
    for _, there in pairs:
        there.close()
