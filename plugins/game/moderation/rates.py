"""How often an account, and an address, may do what: a bucket of tokens for each, on each node. What was
taken on one node counts on the others a moment later, where it may matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from xmppd.plugin import Lru, TokenBucket

REMEMBERED: Final = 20_000
"""Buckets of one verb, of accounts and of addresses; who did nothing for the longest time begins anew."""
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
        self._of_accounts: dict[str, Lru[str, TokenBucket]] = {verb: Lru(REMEMBERED) for verb in rules}
        self._of_networks: dict[str, Lru[str, TokenBucket]] = {verb: Lru(REMEMBERED) for verb in rules}

    def take(self, verb: str, account: str, network: str = "", *, is_told: bool = False) -> float:
        """One more: 0.0, or the seconds until it is allowed. Of an account that acts on several nodes it
        `is_told`.
        """
        rule = self._rules.get(verb)
        if rule is None or not rule.per_second:
            return 0.0
        buckets = self._of_accounts[verb]
        wait = (buckets.get(account) or self._made(buckets, account, rule, 1.0)).take()
        if wait:
            return wait
        if is_told:
            self._tell(verb, account)
        if network:
            buckets = self._of_networks[verb]
            wait = (buckets.get(network) or self._made(buckets, network, rule, rule.share)).take()
            self._tell(verb, network, "@")
        return wait

    def heard(self, news: Mapping[str, int]) -> None:
        """So much was taken on another node."""
        for key, count in news.items():
            verb, _, who = key.partition(" ")
            if (rule := self._rules.get(verb)) is None or not rule.per_second:
                continue
            is_network = who.startswith("@")
            name = who.removeprefix("@")
            buckets = (self._of_networks if is_network else self._of_accounts)[verb]
            bucket = buckets.get(name) or self._made(buckets, name, rule, rule.share if is_network else 1.0)
            bucket.owe(count)

    def said(self) -> dict[str, int]:
        """What others are to know, once."""
        news, self.news = self.news, {}
        return news

    def _made(self, buckets: Lru[str, TokenBucket], name: str, rule: Rule, share: float) -> TokenBucket:
        bucket = TokenBucket(rule.per_second * share, int(rule.burst * share), self._clock)
        buckets.put(name, bucket)
        return bucket

    def _tell(self, verb: str, who: str, sign: str = "") -> None:
        if not self.news and not self._on_news():
            return
        key = f"{verb} {sign}{who}"
        if key in self.news or len(self.news) < TOLD:
            self.news[key] = self.news.get(key, 0) + 1
