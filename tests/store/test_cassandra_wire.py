"""Connections of Cassandra's driver that send by themselves: nothing is mixed up, whoever sends what."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from io import BytesIO
from typing import Any

import pytest
from cassandra.connection import _ConnectionIOBuffer
from cassandra.io import libevreactor
from cassandra.segment import SegmentCodec

from xmppd.store.cassandra.wire import Wire

CODEC = SegmentCodec()


class Socket:
    """Takes some bytes at a time, or none."""

    def __init__(self, seed: int) -> None:
        self.taken = bytearray()
        self._chance = random.Random(seed)

    def send(self, data: bytes) -> int:
        size = self._chance.choice([0, 1, 3, len(data), len(data)])
        if not size:
            raise BlockingIOError(11, "again")
        time.sleep(0)  # others have their turn, as with the lock that a system call gives up
        self.taken += data[:size]
        return min(size, len(data))


class Loop:
    """The driver's loop as far as it is told something."""

    def __init__(self) -> None:
        self.notified = 0
        self._timers: Any = self
        self.timers: list[Any] = []
        self.next_timeout: float | None = None
        self.add_timer = self.timers.append

    def notify(self) -> None:
        self.notified += 1


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    loop = Loop()
    monkeypatch.setattr(libevreactor, "_global_loop", loop)
    return loop


def wire(seed: int = 0, *, tls: Any = None) -> Any:
    """A connection without all that is not asked here."""
    wire = Wire.__new__(Wire)
    wire._sending, wire._deque_lock, wire.deque = threading.Lock(), threading.Lock(), deque()
    wire._socket, wire.ssl_context, wire._socket_writable = Socket(seed), tls, True
    return wire


def written(wire: Any) -> bytes:
    while wire.deque:
        wire.handle_write(None, 0)
    return bytes(wire._socket.taken)


@pytest.mark.parametrize("seed", range(20))
def test_what_several_threads_send_stays_whole(seed: int, loop: Loop) -> None:
    one, is_over = wire(seed), threading.Event()

    def push(name: bytes) -> None:
        for number in range(50):
            one.push(b"<%b%d>" % (name, number))

    def drive() -> None:
        while not is_over.is_set():
            one.handle_write(None, 0)

    driver = threading.Thread(target=drive)
    driver.start()
    threads = [threading.Thread(target=push, args=(name,)) for name in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    is_over.set()
    driver.join()
    found = written(one)
    for name in (b"a", b"b"):
        expected = [b"<%b%d>" % (name, number) for number in range(50)]
        assert [part + b">" for part in found.split(b">") if part[1:2] == name] == expected


def test_what_the_socket_does_not_take_is_told_to_the_drivers_thread(loop: Loop) -> None:
    for seed in range(30):
        one, before = wire(seed), loop.notified
        one.push(b"hello")
        assert loop.notified - before == bool(one.deque)
        assert written(one) == b"hello"


def test_over_tls_only_the_drivers_thread_sends(loop: Loop) -> None:
    one = wire(tls=object())
    one.push(b"hello")
    assert list(one.deque) == [b"hello"] and not one._socket.taken and loop.notified == 1


def test_a_deadline_wakes_the_drivers_thread_if_it_would_sleep_for_longer(loop: Loop) -> None:
    now = time.time()
    for due, wakes in ((None, True), (now + 60, True), (now + 1, False), (now - 1, True)):
        loop.next_timeout, before = due, loop.notified
        timer = Wire.create_timer(5, lambda: None)
        assert loop.timers[-1] is timer and timer.end == pytest.approx(now + 5, abs=1)
        assert loop.notified - before == wakes


# reading


class Frame:
    """A header of a frame, as far as a connection asks it."""

    def __init__(self, end_pos: int) -> None:
        self.body_offset, self.end_pos = 9, end_pos


def reading(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[bytes]]:
    """A connection that has agreed on segments with checksums (version 5), and the bodies it reads."""
    one, bodies = wire(), list[bytes]()
    one._io_buffer = _ConnectionIOBuffer(one)
    one._is_checksumming_enabled, one._segment_codec = True, CODEC
    one._io_buffer.set_checksumming_buffer()
    one._current_frame = None

    def read_header(self: Any) -> int:
        held = self._io_buffer.cql_frame_buffer.getvalue()
        if len(held) >= 9:
            self._current_frame = Frame(9 + int.from_bytes(held[5:9], "big"))
        return len(held)

    monkeypatch.setattr(Wire, "_read_frame_header", read_header)
    monkeypatch.setattr(Wire, "process_msg", lambda self, frame, body: bodies.append(body))
    monkeypatch.setattr(Wire, "defunct", lambda self, error: bodies.append(repr(error).encode()))
    return one, bodies


@pytest.mark.parametrize("size", range(1, 24))
def test_answers_arrive_in_pieces_of_any_size(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Three bytes of a segment's header are seldom the last ones that have come, but on a real net they are.
    one, bodies = reading(monkeypatch)
    sent, data = [b"first", b"", b"third" * 9, b"4"], BytesIO()
    for body in sent:
        CODEC.encode(data, bytes(5) + len(body).to_bytes(4, "big") + body)
    whole = data.getvalue()
    for start in range(0, len(whole), size):
        one._io_buffer.io_buffer.write(whole[start : start + size])
        one.process_io_buffer()
    assert bodies == sent
