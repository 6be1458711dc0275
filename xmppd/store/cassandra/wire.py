"""Connections of the driver that leave its thread alone: what is asked is sent by who asks.

The driver has its thread send. That takes some rounds of the thread's loop for each request, each of them
with a wait for the interpreter's lock, which our loop holds. It wakes the thread for each deadline, too, and
reads 4 KiB at a time. And it loses a header that comes in two pieces.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import Any

from cassandra.connection import Timer
from cassandra.io import libevreactor
from cassandra.io.libevreactor import LibevConnection

BUFFER = 1 << 15
"""Bytes that are read and written at once: a page of messages is less."""


class Wire(LibevConnection):  # type: ignore[misc]
    """Sends at once where nothing waits to be sent; over TLS as the driver does, for that is not made for two
    threads.
    """

    in_buffer_size = out_buffer_size = BUFFER

    def __init__(self, *args: Any, **more: Any) -> None:
        self._sending = Lock()
        super().__init__(*args, **more)

    def push(self, data: bytes) -> None:
        """Send, or have the driver's thread send what the socket does not take now."""
        if self.ssl_context is None and not self.deque and self._sending.acquire(blocking=False):
            try:
                if not self.deque:
                    if data := self._rest_of(data):
                        # What others have queued meanwhile comes behind the rest.
                        with self._deque_lock:
                            self.deque.appendleft(data)
                        libevreactor._global_loop.notify()
                    return
            finally:
                self._sending.release()
        super().push(data)

    def _rest_of(self, data: bytes) -> bytes:
        """Send; what could not be sent. If the connection is broken the driver's thread finds that out."""
        try:
            return data[self._socket.send(data) :]
        except OSError:
            return data

    def handle_write(self, watcher: Any, revents: int, errno: int | None = None) -> None:
        """The socket takes more; called by the driver's thread."""
        with self._sending:
            super().handle_write(watcher, revents, errno)

    def _process_segment_buffer(self) -> None:
        """Take a segment out of what was read. Where less than its header has come the driver forgets that,
        takes what follows for a header, and gives the connection up (`CRC mismatch on header`).
        """
        held = self._io_buffer
        if held.readable_io_bytes() < self._segment_codec.header_length_with_crc:
            held._segment_consumed = False
            held.io_buffer.seek(0)  # from here on is kept
        else:
            super()._process_segment_buffer()

    @classmethod
    def create_timer(cls, timeout: float, callback: Callable[[], None]) -> Timer:
        """Have something called by the driver's thread in so many seconds, which is woken only if it would
        sleep for longer: where it is seen asleep while it is about to, its next event is soon enough.
        """
        timer, loop = Timer(timeout, callback), libevreactor._global_loop
        loop._timers.add_timer(timer)
        due = loop._timers.next_timeout
        if due is None or not time.time() < due <= timer.end:
            loop.notify()
        return timer
