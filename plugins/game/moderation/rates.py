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


class Counted(TokenBucket):
    """One of which so many tokens were `taken` that other nodes are to know of, by this `key`."""

    __slots__ = ("key", "taken")

    def __init__(self, key: str, rule: Rule, share: float, clock: Callable[[], float]) -> None:
        super().__init__(rule.per_second * share, int(rule.burst * share), clock)
        self.key = key
        self.taken = 0


class Meter:
    """What an account does of one verb from one address: its buckets, at hand for a moment. `tell` is told of
    what was taken: of the account's where it `is_told`.
    """

    __slots__ = ("_is_told", "_of_network", "_own", "_tell")

    def __init__(
        self,
        own: Counted | None,
        of_network: Counted | None,
        tell: Callable[[Counted], None] | None,
        *,
        is_told: bool,
    ) -> None:
        self._own = own
        self._of_network = of_network
        self._tell = tell
        self._is_told = is_told

    def take(self, now: float) -> float:
        """One more: 0.0, or the seconds until it is allowed."""
        own, of_network = self._own, self._of_network
        if own is None:
            return 0.0
        if wait := own.take(now):
            return wait
        wait = of_network.take(now) if of_network is not None else 0.0
        if (tell := self._tell) is not None:
            if self._is_told:
                tell(own)
            if of_network is not None:
                tell(of_network)
        return wait


FREE: Final = Meter(None, None, None, is_told=False)
"""Of what nobody counts."""


class Rates:
    """`on_news` is called when the first thing was taken that others are to know, and says whether there are
    others.
    """

    def __init__(
        self, rules: Mapping[str, Rule], clock: Callable[[], float], on_news: Callable[[], bool]
    ) -> None:
        self._news: list[Counted] = []
        self._rules = rules
        self._clock = clock
        self._on_news = on_news
        self._of_accounts: dict[str, Lru[str, Counted]] = {verb: Lru(REMEMBERED) for verb in rules}
        self._of_networks: dict[str, Lru[str, Counted]] = {verb: Lru(REMEMBERED) for verb in rules}

    def meter(
        self, verb: str, account: str, network: str = "", *, is_told: bool = False, is_alone: bool = False
    ) -> Meter:
        """The buckets of an account and its network, at hand for a moment: they may be forgotten here. Of an
        account that acts on several nodes it `is_told`, and where there are no others (`is_alone`) nothing.
        """
        rule = self._rules.get(verb)
        if rule is None or not rule.per_second:
            return FREE
        own = self._bucket(verb, account, rule)
        of_network = self._bucket(verb, f"@{network}", rule) if network else None
        return Meter(own, of_network, None if is_alone else self._tell, is_told=is_told)

    def take(self, verb: str, account: str, network: str = "", *, is_told: bool = False) -> float:
        """One more: 0.0, or the seconds until it is allowed. Of an account that acts on several nodes it
        `is_told`.
        """
        return self.meter(verb, account, network, is_told=is_told).take(self._clock())

    def heard(self, news: Mapping[str, int]) -> None:
        """So much was taken on another node."""
        for key, count in news.items():
            verb, _, who = key.partition(" ")
            rule = self._rules.get(verb)
            if rule is not None and rule.per_second:
                self._bucket(verb, who, rule).owe(count)

    def said(self) -> dict[str, int]:
        """What others are to know, once."""
        buckets, self._news = self._news, []
        news = {bucket.key: bucket.taken for bucket in buckets}
        for bucket in buckets:
            bucket.taken = 0
        return news

    def _bucket(self, verb: str, who: str, rule: Rule) -> Counted:
        """That of an account, or of a network behind an @."""
        is_network = who.startswith("@")
        buckets = (self._of_networks if is_network else self._of_accounts)[verb]
        bucket = buckets.get(who)
        if bucket is None:
            bucket = Counted(f"{verb} {who}", rule, rule.share if is_network else 1.0, self._clock)
            buckets.put(who, bucket)
        return bucket

    def _tell(self, bucket: Counted) -> None:
        if not bucket.taken:
            if (not self._news and not self._on_news()) or len(self._news) >= TOLD:
                return
            self._news.append(bucket)
        bucket.taken += 1
