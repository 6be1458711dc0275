"""Frames on a stream of bytes: each behind its length, four bytes, the highest first."""

from __future__ import annotations

from xmppd.errors import TrunkError

LONGEST_FRAME = (16 << 20) + (64 << 10)
"""Bytes of a frame: one record as large as any stanza may be, and what stands around it."""

_LENGTH = 4


def framed(frame: bytes) -> bytes:
    """The frame as it goes out."""
    return len(frame).to_bytes(_LENGTH, "big") + frame


class Frames:
    """Cuts what comes in any pieces into frames of at most `bound` bytes. No more is kept of an
    unfinished one than has come of it.
    """

    __slots__ = ("_bound", "_held", "_wanted")

    def __init__(self, bound: int = LONGEST_FRAME) -> None:
        self._bound = bound
        self._held = bytearray()
        self._wanted = _LENGTH

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are whole now; TrunkError for one that is too long, and then nothing more
        is told.
        """
        if self._held:
            self._held += data
            if len(self._held) < self._wanted:
                return []
            data = bytes(self._held)
            self._held.clear()
        found = []
        start, end = 0, len(data)
        self._wanted = _LENGTH
        while end - start >= _LENGTH:
            size = int.from_bytes(data[start : start + _LENGTH], "big")
            if size > self._bound:
                raise TrunkError(f"a frame of {size} bytes is announced, {self._bound} are allowed")
            behind = start + _LENGTH + size
            if behind > end:
                self._wanted = behind - start
                break
            found.append(data[start + _LENGTH : behind])
            start = behind
        if start < end:
            self._held += memoryview(data)[start:]
        return found
