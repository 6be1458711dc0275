"""Gives memory back to the system when many connections have gone.

The C library keeps what is freed for the next one who needs it: after 1,000 TLS sessions 19 of 27 MiB.
"""

from __future__ import annotations

import ctypes
import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

MANY = 100


def trim() -> None:
    """Return the free pages of the C library's heap to the system; nothing happens where it cannot (musl)."""
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if release is not None:
        release(ctypes.c_size_t(0))


class Ebb:
    """Looks at the number of connections from time to time.

    `release` is called once the number has halved, by `MANY` at least, and falls no more: it takes
    milliseconds, and the newcomers of a reconnect storm would need the memory again.
    """

    __slots__ = ("_last", "_most", "_release")

    def __init__(self, release: Callable[[], None] = trim) -> None:
        self._release = release
        self._most = 0
        self._last = 0

    def look(self, connections: int) -> None:
        """Compare with what was; call it at a steady pace."""
        is_falling = connections < self._last
        self._last = connections
        self._most = max(self._most, connections)
        gone = self._most - connections
        if is_falling or gone < MANY or connections > gone:
            return
        self._most = connections
        began = time.perf_counter()
        self._release()
        milliseconds = round((time.perf_counter() - began) * 1000, 1)
        log.info("memory-returned", extra={"gone": gone, "connections": connections, "ms": milliseconds})
