"""Connections of Cassandra's driver on the loop of who asks: no answer changes threads on its way.

The driver would read, send and keep time in a thread of its own, which waits for the interpreter's lock that
the loop holds, as the loop then waits for it. Here threads of the driver only make connections, close them
and look whether they are alive; what that takes they have the loop do. Segments and envelopes (the native
protocol, version 5, section 2) are taken apart here, too: the driver copies each five times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import BytesIO
from math import inf
from ssl import SSLWantReadError, SSLWantWriteError
from struct import Struct
from threading import Event, get_ident
from typing import Any, ClassVar, Protocol
from zlib import crc32

from cassandra import OperationTimedOut, ProtocolVersion
from cassandra.connection import Connection, ConnectionShutdown, CrcMismatchException, ProtocolError, _Frame
from cassandra.segment import CRC24_INIT, CRC24_POLY, CRC32_INITIAL, Segment

BUFFER = 1 << 16
"""Bytes that are read at once: a page of messages is less."""

PATIENCE_SECONDS = 10.0
"""How long a thread that has heard nothing of a node waits for the loop to look whether it was the loop that
stood still.
"""
LOOK_SECONDS = 0.25
"""How long it then waits for the answer."""
LATE_SECONDS = 0.05
"""A deadline that rings later than so waits as long for what has come meanwhile."""

_ENVELOPE = Struct(">BBhBi")
"""What an envelope begins with: version, flags, stream, opcode, and the length of the rest."""
_HEADER, _TRAILER = 6, 4
"""Bytes of a segment before its payload and behind it."""
_MOST: int = Segment.MAX_PAYLOAD_LENGTH
_WHOLE = _MOST + 1
"""The bit of a segment that has whole envelopes."""

RESULT = 0x08
"""The opcode of an answer that is no error."""

_LATER = (BlockingIOError, SSLWantReadError, SSLWantWriteError)
"""What a socket says that takes or has nothing now."""


class Taker(Protocol):
    """Who takes an answer, whole as it came."""

    def take(self, envelope: memoryview) -> bool:
        """Whether it could be taken; otherwise the driver has to."""


class Wire(Connection):  # type: ignore[misc]  # the driver has no types
    """One connection; its class is made by `wires_on`."""

    is_closed: bool
    loop: ClassVar[asyncio.AbstractEventLoop]
    thread: ClassVar[int]
    _room: ClassVar[memoryview]

    def __init__(self, *args: Any, **more: Any) -> None:
        """Connect, which blocks: by a thread of the driver."""
        super().__init__(*args, **more)
        self._unsent: list[bytes] = []
        self._fresh: list[bytes] = []
        self.straight: dict[int, Taker] = {}
        """Who takes the answers of streams that he was given."""
        self._rest = memoryview(b"")
        self._is_due = self._is_clogged = False
        self._segments, self._envelopes = Pieces(), Pieces()
        self._connect_socket()
        self._socket.setblocking(False)
        self._descriptor = self._socket.fileno()
        if not self.on_loop(self._begin):
            self.close()
            raise ConnectionShutdown(f"The loop that would read from {self.endpoint} has ended")
        self._send_options_message()

    @classmethod
    def is_here(cls) -> bool:
        """Whether this is the thread of the loop."""
        return get_ident() == cls.thread

    @classmethod
    def on_loop(cls, do: Callable[..., object], *args: Any) -> bool:
        """Have something done by the loop soon; False if it is closed."""
        try:
            cls.loop.call_soon_threadsafe(do, *args)
        except RuntimeError:
            return False
        return True

    def _begin(self) -> None:
        if not self.is_closed:
            self.loop.add_reader(self._descriptor, self._read)

    def close(self) -> None:
        """End it, by whatever thread; what was asked and has no answer fails."""
        with self.lock:
            was_closed, self.is_closed = self.is_closed, True
        if was_closed:
            return
        if self.loop.is_closed():
            self._socket.close()
        elif self.is_here():
            self._end()
        elif not self.on_loop(self._end):
            self._socket.close()
        if not self.is_defunct:
            error = ConnectionShutdown(f"Connection to {self.endpoint} was closed")
            self.error_all_requests(error)
            if not self.connected_event.is_set():  # who makes it waits for that
                self.last_error = error
                self.connected_event.set()

    def _end(self) -> None:
        """The loop looks at it no more."""
        self.loop.remove_reader(self._descriptor)
        self.loop.remove_writer(self._descriptor)
        self._socket.close()

    def defunct(self, error: Exception) -> object:
        """Give it up. Where a thread of the driver finds that it did not answer in time, perhaps it was our
        loop that stood still: then it may have been asked just now.
        """
        if isinstance(error, OperationTimedOut) and not self.is_here():
            looked = Event()
            if self.on_loop(self._look, error, looked) and looked.wait(PATIENCE_SECONDS):
                return None
        return super().defunct(error)

    def _look(self, error: Exception, looked: Event, *, is_last: bool = False) -> None:
        self._read()
        if not (self.msg_received or is_last):  # since it was asked
            self.loop.call_later(LOOK_SECONDS, partial(self._look, error, looked, is_last=True))
            return
        if not self.msg_received:
            super().defunct(error)
        looked.set()

    # sending

    def push(self, data: bytes) -> None:
        """Send something at the end of this turn of the loop, with all else that is sent in it."""
        if not self.is_here():
            if not self.on_loop(self.push, data):
                self.close()  # or who waits for the answer would wait for ever
            return
        self._unsent.append(data)
        self._send_soon()

    def push_envelope(self, envelope: bytes) -> None:
        """The same of an envelope, by the thread of the loop: those of one turn share segments."""
        self._fresh.append(envelope)
        self._send_soon()

    def _send_soon(self) -> None:
        if not (self._is_due or self._is_clogged):
            self._is_due = True
            self.loop.call_soon(self._send)

    def _send(self) -> None:
        """Send what there is, as far as the socket takes it; the rest when it takes more."""
        self._is_due = False
        if self.is_closed:
            return
        try:
            if self._fresh:
                self._unsent += Segments.of(self._fresh)
                self._fresh.clear()
            while self._rest or self._unsent:
                if not self._rest:
                    self._rest = memoryview(b"".join(self._unsent))
                    self._unsent.clear()
                self._rest = self._rest[self._socket.send(self._rest) :]
        except _LATER:
            if not self._is_clogged:
                self._is_clogged = True
                self.loop.add_writer(self._descriptor, self._send)
        except OSError as error:
            self.defunct(error)
        else:
            if self._is_clogged:
                self._is_clogged = False
                self.loop.remove_writer(self._descriptor)

    # reading

    def _read(self) -> None:
        """Take what has come. Of TLS the loop does not see what was read already and is not decrypted."""
        is_more = True
        while is_more and not self.is_closed:
            try:
                count = self._socket.recv_into(self._room)
            except _LATER:
                return
            except OSError as error:
                self.defunct(error)
                return
            if not count:
                self.defunct(ConnectionShutdown(f"{self.endpoint} has closed the connection"))
                return
            try:
                self._take(self._room[:count])
            except Exception as error:  # noqa: BLE001 - what it says cannot be understood any more
                self.defunct(error)
            is_more = self.ssl_context is not None and self._socket.pending() > 0

    def _take(self, data: memoryview) -> None:
        if not self._is_checksumming_enabled:  # until both have agreed on it there are bare envelopes
            self._take_envelopes(data)
            return
        for segment in self._segments.cut(data, _length_of_segment):
            payload = segment[_HEADER:-_TRAILER]
            if crc32(payload, CRC32_INITIAL) != int.from_bytes(segment[-_TRAILER:], "little"):
                raise CrcMismatchException("CRC mismatch on payload", self.endpoint)
            self._take_envelopes(payload)

    def _take_envelopes(self, data: memoryview) -> None:
        for envelope in self._envelopes.cut(data, _length_of_envelope):
            if self.is_closed:
                return
            version, flags, stream, opcode, length = _ENVELOPE.unpack_from(envelope)
            if (taker := self.straight.pop(stream, None)) is not None and opcode == RESULT and not flags:
                self.msg_received = True
                if taker.take(envelope):
                    continue
            start = _ENVELOPE.size
            frame = _Frame(version & 0x7F, flags, stream, opcode, start, start + length)
            self.process_msg(frame, bytes(envelope[start:]))

    def release(self, stream: int, pool: Any) -> None:
        """A stream has its answer, which was taken: it is free for another request."""
        del self._requests[stream]
        with self.lock:
            self.request_ids.append(stream)
            if not self.orphaned_threshold_reached:
                self.in_flight -= 1
                return
        pool.return_connection(self)  # it may have been the last one

    @property
    def has_segments(self) -> bool:
        """Whether both have agreed on segments."""
        return bool(self._is_checksumming_enabled)

    def _enable_checksumming(self) -> None:
        """Both have agreed on segments."""
        self._is_checksumming_enabled = True
        self._segment_codec = Segments

    @classmethod
    def create_timer(cls, timeout: float, callback: Callable[[], None]) -> Alarm:
        """Have something called by the loop in so many seconds."""
        return Alarm(cls, timeout, callback)


class Pieces:
    """Cuts what comes into pieces that tell their lengths, without a copy of those that come whole."""

    __slots__ = ("_held", "_wanted")

    def __init__(self) -> None:
        self._held = bytearray()
        self._wanted = 0

    def cut(self, data: memoryview, length_of: Callable[[memoryview], int]) -> Iterator[memoryview]:
        """The pieces that are there with these bytes. `length_of` tells the length of what begins so, or how
        much has to be there first.
        """
        if self._held:
            self._held += data
            if len(self._held) < self._wanted:
                return
            data, self._held = memoryview(self._held), bytearray()
        while data:
            length = length_of(data)
            if length > len(data):
                self._wanted = length
                self._held += data
                return
            yield data[:length]
            data = data[length:]


def _length_of_segment(data: memoryview) -> int:
    if len(data) < _HEADER:
        return _HEADER
    word = int.from_bytes(data[:3], "little")
    if crc24(word) != int.from_bytes(data[3:_HEADER], "little"):
        raise CrcMismatchException("CRC mismatch on header")
    return _HEADER + (word & _MOST) + _TRAILER


def _length_of_envelope(data: memoryview) -> int:
    if len(data) < _ENVELOPE.size:
        return _ENVELOPE.size
    if data[0] & 0x7F not in ProtocolVersion.SUPPORTED_VERSIONS:
        raise ProtocolError(f"It speaks no version of the protocol that is known ({data[0] & 0x7F})")
    length = int.from_bytes(data[5 : _ENVELOPE.size], "big", signed=True)
    if length < 0:
        raise ProtocolError(f"An answer has the length {length}")
    return _ENVELOPE.size + length


class Segments:
    """Makes segments, in the place of the driver's codec."""

    @staticmethod
    def encode(buffer: BytesIO, message: bytes) -> None:
        """Write an envelope as one segment, or as several if it is long."""
        whole = _WHOLE if len(message) <= _MOST else 0
        for start in range(0, len(message), _MOST):
            payload = message[start : start + _MOST]
            word = len(payload) | whole
            buffer.write((word | crc24(word) << 24).to_bytes(_HEADER, "little"))
            buffer.write(payload)
            buffer.write(crc32(payload, CRC32_INITIAL).to_bytes(_TRAILER, "little"))

    @staticmethod
    def of(envelopes: Sequence[bytes]) -> list[bytes]:
        """Segments with these envelopes, as many of them in each as go in whole."""
        data = BytesIO()
        some: list[bytes] = []
        size = 0
        for envelope in envelopes:
            if some and size + len(envelope) > _MOST:
                Segments.encode(data, b"".join(some))
                some, size = [], 0
            some.append(envelope)
            size += len(envelope)
        Segments.encode(data, b"".join(some))
        return [data.getvalue()]


def crc24(word: int) -> int:
    """The checksum of the three bytes with which a segment begins."""
    table, crc = _CRC24, int(CRC24_INIT)
    crc = (crc << 8 & 0xFFFFFF) ^ table[crc >> 16 ^ word & 0xFF]
    crc = (crc << 8 & 0xFFFFFF) ^ table[crc >> 16 ^ word >> 8 & 0xFF]
    return (crc << 8 & 0xFFFFFF) ^ table[crc >> 16 ^ word >> 16]


def _of_byte(byte: int) -> int:
    crc: int = byte << 16
    for _ in range(8):
        crc <<= 1
        if crc & 0x1000000:
            crc ^= int(CRC24_POLY)
    return crc


_CRC24 = [*map(_of_byte, range(256))]


class Alarm:
    """What is called in some seconds unless it is cancelled, by whatever thread. Where the loop stood still,
    what has come meanwhile is read first.
    """

    __slots__ = ("_callback", "_due", "_handle", "_is_over", "_wires")

    def __init__(self, wires: type[Wire], seconds: float, callback: Callable[[], None]) -> None:
        self._wires = wires
        self._callback = callback
        self._is_over = False
        self._handle: asyncio.TimerHandle | None = None
        if wires.is_here():
            self._begin(seconds)
        else:
            wires.on_loop(self._begin, seconds)

    def _begin(self, seconds: float) -> None:
        if not self._is_over:
            loop = self._wires.loop
            self._due = loop.time() + seconds
            self._handle = loop.call_later(seconds, self._ring)

    def _ring(self) -> None:
        if self._wires.loop.time() - self._due > LATE_SECONDS:
            self._due = inf
            self._handle = self._wires.loop.call_later(LATE_SECONDS, self._ring)
        else:
            self._callback()

    def cancel(self) -> None:
        """It is not called any more."""
        self._is_over = True
        if self._wires.is_here():
            self._end()
        else:
            self._wires.on_loop(self._end)

    def _end(self) -> None:
        if self._handle is not None:
            self._handle.cancel()


def wires_on(loop: asyncio.AbstractEventLoop) -> type[Wire]:
    """The class of connections on this loop, which runs in this thread."""
    here = {"loop": loop, "thread": get_ident(), "_room": memoryview(bytearray(BUFFER))}
    return type("WireHere", (Wire,), here)
