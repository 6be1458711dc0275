"""Gives memory back to the system when many connections have gone.

The C library keeps what is freed for the next one who needs it: after 1,000 TLS sessions 19 of 27 MiB.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import sys
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

MANY = 100
AGAIN = 3


def collect() -> None:
    """Free what the interpreter keeps for itself: one object left keeps a whole arena (1 MiB) in use.

    A full collection empties its free lists. Its cache of attribute look-ups holds up to 4,096 names; each
    parser of ElementTree looks for `doctype` by a string of its own.
    """
    gc.collect()
    forget_names = getattr(sys, "_clear_type_cache", None)
    if forget_names is not None:
        forget_names()


def trim() -> None:
    """Return the free pages of the C library's heap to the system; nothing happens where it cannot (musl)."""
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if release is not None:
        release(ctypes.c_size_t(0))


class _MallInfo(ctypes.Structure):
    """`struct mallinfo2` of glibc."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


def heap() -> dict[str, int]:
    """What lives in memory: blocks of the interpreter; bytes of the C library in use, and freed but kept (0
    where it does not tell).
    """
    ask = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if ask is None:
        return {"blocks": sys.getallocatedblocks(), "malloc_used": 0, "malloc_free": 0}
    ask.restype = _MallInfo
    told = ask()
    used = told.uordblks + told.hblkhd
    return {"blocks": sys.getallocatedblocks(), "malloc_used": used, "malloc_free": told.fordblks}


class Ebb:
    """Looks at the number of connections from time to time.

    `release` is called once the number has halved, by `MANY` at least, and falls no more: it takes
    milliseconds, and the newcomers of a reconnect storm would need the memory again. It is called again
    `AGAIN` looks later, for then what they left to be written is written.
    """

    __slots__ = ("_again", "_last", "_most", "_release")

    def __init__(self, release: Callable[[], None] = trim) -> None:
        self._release = release
        self._most = 0
        self._last = 0
        self._again = 0

    def look(self, connections: int) -> None:
        """Compare with what was; call it at a steady pace."""
        is_falling = connections < self._last
        self._last = connections
        self._most = max(self._most, connections)
        gone = self._most - connections
        if not is_falling and gone >= MANY and connections <= gone:
            self._most = connections
            self._again = AGAIN
            self._give_back(gone, connections)
        elif self._again:
            self._again -= 1
            if not self._again:
                self._give_back(0, connections)

    def _give_back(self, gone: int, connections: int) -> None:
        began = time.perf_counter()
        self._release()
        milliseconds = round((time.perf_counter() - began) * 1000, 1)
        log.info("memory-returned", extra={"gone": gone, "connections": connections, "ms": milliseconds})
