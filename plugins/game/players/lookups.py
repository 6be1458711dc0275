"""How often somebody may ask who has a name: counted in the store, so that it is the same on all nodes."""

from __future__ import annotations

import asyncio
import math
import secrets
from typing import Final
from weakref import WeakValueDictionary

from xmppd.plugin import Element, Lru, StanzaError, Table, element

RETRY: Final = "{urn:xmppd:moderation:0}retry"
ATTEMPTS: Final = 32
PARTS: Final = 10
"""A node takes a tenth of what is allowed at a time, and counts that by itself; what it does not need of it
is lost to the others in that window.
"""
REMEMBERED: Final = 20_000


def too_often(seconds: float, text: str) -> StanzaError:
    """What tells a client to wait so long."""
    return StanzaError("policy-violation", text, type="wait", detail=hint(seconds))


def hint(seconds: float) -> Element:
    """How long to wait."""
    return element(RETRY, {"seconds": str(max(1, math.ceil(seconds)))})


class Budget:
    """`most` in each `seconds` for each of those who ask. The `table` has a row for each by one column, with
    `window`, `count` and `mark`.
    """

    def __init__(self, table: Table, most: int, seconds: float) -> None:
        self._table = table
        self._most = most
        self._seconds = seconds
        self._part = max(1, most // PARTS)
        self._taken: Lru[str, tuple[int, int]] = Lru(REMEMBERED)
        """The window for which so many are left of what was taken."""
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def spend(self, who: str, now: float) -> float:
        """Count one more of somebody's in the time that it is; 0, or in how many seconds he may again."""
        window = int(now // self._seconds)
        if self._has_left(who, window):
            return 0.0
        lock = self._locks.get(who)
        if lock is None:
            lock = self._locks[who] = asyncio.Lock()
        async with lock:  # of many who come at once one takes for all
            if self._has_left(who, window):
                return 0.0
            taken = await self._take(who, window)
            if not taken:
                return (window + 1) * self._seconds - now
            self._taken.put(who, (window, taken - 1))
            return 0.0

    def _has_left(self, who: str, window: int) -> bool:
        """Whether there is one left of what was taken, which is one less then."""
        of, left = self._taken.get(who) or (window, 0)
        if of != window or not left:
            return False
        self._taken.put(who, (window, left - 1))
        return True

    async def _take(self, who: str, window: int) -> int:
        """Take some, as many as there are; 0: none are left."""
        table = self._table
        for _ in range(ATTEMPTS):
            row = await table.get(who)
            count = row["count"] if row is not None and row["window"] == window else 0
            taken = min(self._part, self._most - count)
            if taken <= 0:
                break
            spent = {
                table.declaration.partition[0]: who,
                "window": window,
                "count": count + taken,
                "mark": secrets.randbits(62),
            }
            expect = None if row is None else {"mark": row["mark"]}
            if await table.put_if(spent, expect, ttl=2 * self._seconds + 60):
                return taken
        return 0

    def forget(self, who: str) -> None:
        """Whoever has the name next has asked nothing yet."""
        self._taken.drop(who)
