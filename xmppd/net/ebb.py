"""Giving memory back to the system when many connections have gone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from xmppd.allocator import trim

log = logging.getLogger(__name__)

MANY = 100
STILL = 5
COMING = 64
"""They are coming back while one of so many of those who left does so between two looks."""
AGAIN = 3


class Ebb:
    """Looks at the number of connections from time to time.

    `release` is called once the number has halved, by `MANY` at least, and for `STILL` looks nobody has left
    and few have come: it takes milliseconds, and the newcomers of a reconnect storm would need again what was
    known of them. It is called again `AGAIN` looks later, for then what they left to be written is written.
    """

    __slots__ = ("_again", "_last", "_most", "_release", "_still")

    def __init__(self, release: Callable[[], None] = trim) -> None:
        self._release = release
        self._most = 0
        self._last = 0
        self._still = 0
        self._again = 0

    def look(self, connections: int) -> None:
        """Compare with what was; call it at a steady pace."""
        self._most = max(self._most, connections)
        gone = self._most - connections
        is_still = 0 <= connections - self._last <= gone // COMING
        self._still = self._still + 1 if is_still else 0
        self._last = connections
        if self._still >= STILL and gone >= MANY and connections <= gone:
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
