"""How often an account, and an address, may do what: a bucket of tokens for each, on each node. What was
taken on one node counts on the others a moment later, where it may matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from xmppd.plugin import Lru, TokenBucket

REMEMBERED: Final = 100_000
"""Buckets of one verb; who did nothing for the longest time begins anew."""
TOLD: Final = 2_000
"""Of so many keys other nodes are told at once."""


class Rule(NamedTuple):
    """`burst` at once, and `per_second` afterwards; 0: no limit. An address may do `share` times as much."""

    per_second: float
    burst: int
    share: float


class Rates:
    """`on_news` is called when the first thing was taken that others are to know, and says whether there are
    others.
    """

    def __init__(
        self, rules: Mapping[str, Rule], clock: Callable[[], float], on_news: Callable[[], bool]
    ) -> None:
        self.news: dict[str, int] = {}
        self._rules = rules
        self._clock = clock
        self._on_news = on_news
        self._buckets: Lru[str, TokenBucket] = Lru(REMEMBERED)

    def take(self, verb: str, account: str, network: str = "", *, is_told: bool = False) -> float:
        """One more: 0.0, or the seconds until it is allowed. Of an account that acts on several nodes it
        `is_told`.
        """
        rule = self._rules.get(verb)
        if rule is None or not rule.per_second:
            return 0.0
        key = f"{verb} {account}"
        wait = self._bucket(key, rule, 1.0).take()
        if wait:
            return wait
        if is_told:
            self._tell(key)
        if network:
            key = f"{verb} @{network}"
            wait = self._bucket(key, rule, rule.share).take()
            self._tell(key)
        return wait

    def heard(self, news: Mapping[str, int]) -> None:
        """So much was taken on another node."""
        for key, count in news.items():
            verb, _, who = key.partition(" ")
            if (rule := self._rules.get(verb)) is not None and rule.per_second:
                self._bucket(key, rule, rule.share if who.startswith("@") else 1.0).owe(count)

    def said(self) -> dict[str, int]:
        """What others are to know, once."""
        news, self.news = self.news, {}
        return news

    def _bucket(self, key: str, rule: Rule, share: float) -> TokenBucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = TokenBucket(rule.per_second * share, int(rule.burst * share), self._clock)
            self._buckets.put(key, bucket)
        return bucket

    def _tell(self, key: str) -> None:
        if not self.news and not self._on_news():
            return
        if key in self.news or len(self.news) < TOLD:
            self.news[key] = self.news.get(key, 0) + 1
