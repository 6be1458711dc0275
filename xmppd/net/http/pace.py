"""How many requests there may be of one caller."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

from xmppd.parts.http import HttpError
from xmppd.stream.bucket import TokenBucket
from xmppd.stream.lru import Lru

REMEMBERED: Final = 10_000
"""Callers; who was not heard of for the longest time is forgotten, and may begin anew."""
TOLD: Final = 1_000
"""Of them other nodes are told at once; what others took counts on the node where they did."""


class Pace:
    """`rate` requests a second of each caller (0: no limit), and up to `burst` at once after a pause. What
    was taken here since it was asked last stands in `news` for other nodes, if there is an `on_news`: that is
    called when the first comes.
    """

    def __init__(
        self,
        rate: float,
        burst: int,
        clock: Callable[[], float],
        on_news: Callable[[], None] | None = None,
    ) -> None:
        self.on_news = on_news
        self.news: dict[str, int] = {}
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._buckets: Lru[str, TokenBucket] = Lru(REMEMBERED)

    def take(self, who: str) -> None:
        """One more; HttpError 429 when it is too early."""
        if not self._rate:
            return
        wait = self._bucket(who).take()
        if wait:
            headers = {"Retry-After": str(math.ceil(wait))}
            raise HttpError(429, "There are too many requests.", headers=headers, rule="rate")
        if self.on_news is None:
            return
        if not self.news:
            self.on_news()
        if who in self.news or len(self.news) < TOLD:
            self.news[who] = self.news.get(who, 0) + 1

    def heard(self, news: Mapping[str, int]) -> None:
        """So many were taken on another node."""
        if self._rate:
            for who, count in news.items():
                self._bucket(who).owe(count)

    def _bucket(self, who: str) -> TokenBucket:
        bucket = self._buckets.get(who)
        if bucket is None:
            bucket = TokenBucket(self._rate, self._burst, self._clock)
            self._buckets.put(who, bucket)
        return bucket
