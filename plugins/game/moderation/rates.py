"""How often an account, and an address, may do what: a bucket of tokens for each, on each node, kept as the
moment at which it is full again. What was
taken on one node counts on the others a moment later, where it may matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from xmppd.plugin import Lru

REMEMBERED: Final = 20_000
"""Buckets of one verb, of accounts and of addresses; who did nothing for the longest time begins anew."""
MOST_OWED: Final = 16
"""By how many bursts somebody may be in debt for what he did elsewhere."""
ROUNDED: Final = 1e-6
"""Seconds by which sums may be wrong."""
TOLD: Final = 2_000
"""Of so many keys other nodes are told at once."""


class Rule(NamedTuple):
    """`burst` at once, and `per_second` afterwards; 0: no limit. An address may do `share` times as much."""

    per_second: float
    burst: int
    share: float


class Counted:
    """How much an account or an address has done: at `due` all that it did is forgotten, each time once more
    takes it `step` seconds on, and it may not be more than `slack` seconds away. Who is asked often looks at
    these by himself. Of it other nodes are to be told that so much was `taken`, by this `key`.
    """

    __slots__ = ("due", "key", "most", "slack", "step", "taken")

    def __init__(self, key: str, per_second: float, burst: int) -> None:
        self.key = key
        self.due = 0.0
        self.step = 1.0 / per_second if per_second else 0.0
        self.slack = (burst - 1) * self.step + ROUNDED if per_second else math.inf
        self.most = (1 + MOST_OWED) * burst * self.step
        self.taken = 0

    def wait(self, now: float) -> float:
        """Seconds until once more is allowed; 0.0: it is."""
        over = max(self.due, now) - now - self.slack
        return max(0.0, over)

    def add(self, count: int, now: float) -> None:
        """It was done so often, allowed or not."""
        self.due = min(max(self.due, now) + count * self.step, now + self.most)


FREE: Final = Counted("", 0.0, 0)
"""Of what nobody counts."""


class Meter:
    """What an account (`own`) does of one verb from one address (`network`), at hand for a moment. `is_told`:
    other nodes are to know of it.
    """

    __slots__ = ("_is_split", "_tell", "is_told", "network", "own")

    def __init__(
        self,
        own: Counted,
        network: Counted,
        tell: Callable[[Counted], None] | None,
        *,
        is_split: bool,
    ) -> None:
        self.own = own
        self.network = network
        self._tell = tell
        self._is_split = is_split
        self.is_told = tell is not None and (is_split or network is not FREE)

    def wait(self, now: float) -> float:
        """Seconds until once more is allowed; 0.0: it is."""
        return max(self.own.wait(now), self.network.wait(now))

    def take(self, now: float) -> float:
        """Once more: 0.0, or the seconds until it is allowed."""
        if wait := self.wait(now):
            return wait
        self.own.add(1, now)
        self.network.add(1, now)
        if self.is_told:
            self.tell()
        return 0.0

    def tell(self) -> None:
        """Have other nodes know of once more."""
        if self._tell is not None:
            if self._is_split:
                self._tell(self.own)
            if self.network is not FREE:
                self._tell(self.network)


UNCOUNTED: Final = Meter(FREE, FREE, None, is_split=False)


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
            return UNCOUNTED
        own = self._bucket(verb, account, rule)
        of_network = self._bucket(verb, f"@{network}", rule) if network else FREE
        return Meter(own, of_network, None if is_alone else self._tell, is_split=is_told)

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
                self._bucket(verb, who, rule).add(count, self._clock())

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
            share = rule.share if is_network else 1.0
            bucket = Counted(f"{verb} {who}", rule.per_second * share, int(rule.burst * share))
            buckets.put(who, bucket)
        return bucket

    def _tell(self, bucket: Counted) -> None:
        if not bucket.taken:
            if (not self._news and not self._on_news()) or len(self._news) >= TOLD:
                return
            self._news.append(bucket)
        bucket.taken += 1
