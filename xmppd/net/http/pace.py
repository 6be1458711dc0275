"""How many requests there may be of one caller."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from xmppd.net.pace import TokenBucket
from xmppd.parts.http import HttpError
from xmppd.stream.lru import Lru

REMEMBERED: Final = 10_000
"""Callers; who was not heard of for the longest time is forgotten, and may begin anew."""


class Pace:
    """`rate` requests a second of each caller (0: no limit), and up to `burst` at once after a pause."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._buckets: Lru[str, TokenBucket] = Lru(REMEMBERED)

    def take(self, who: str) -> None:
        """One more; HttpError 429 when it is too early."""
        if not self._rate:
            return
        bucket = self._buckets.get(who)
        if bucket is None:
            bucket = TokenBucket(self._rate, self._burst, self._clock)
            self._buckets.put(who, bucket)
        wait = bucket.take()
        if wait:
            headers = {"Retry-After": str(math.ceil(wait))}
            raise HttpError(429, "There are too many requests.", headers=headers, rule="rate")
