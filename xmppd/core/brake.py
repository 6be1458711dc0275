"""Slows down who guesses passwords, over all their connections, and nobody else."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import NamedTuple

from xmppd.core.network import network_of

ENTRIES = 50_000
"""How many networks, and accounts tried from one, are remembered; the one that failed last stays longest."""

NEWS = 1000
"""Of how many entries it is told at once what was counted; what is counted of more is not told."""


@dataclass(frozen=True, slots=True)
class BrakeRules:
    """Failures of one account from one network, and of any from one network, that cost nothing (0: none ever
    does). After those the answers to it come a second apart, then 2, 4 and so on up to `longest` seconds,
    until nothing failed for `forget` seconds. Peers in `exempt` are not slowed down, nor what has no address.
    """

    per_account: int = 3
    per_network: int = 20
    longest: float = 10.0
    forget: float = 900.0
    exempt: tuple[IPv4Network | IPv6Network, ...] = ()


class _Failures:
    __slots__ = ("count", "free_at", "last")

    def __init__(self) -> None:
        self.count = 0
        self.last = 0.0
        self.free_at = 0.0


Key = tuple[str, str]
"""Network, and account or ""."""


class Counted(NamedTuple):
    """What a node counted of one entry: whether it was forgotten because somebody logged in, and behind that
    so many failures, less those that were none, and answers that take so many seconds.
    """

    network: str
    account: str
    is_forgotten: bool
    failures: int
    seconds: float


class Brake:
    """What failed lately, by network and by (account, network). An account as such is never slowed down: its
    owner, elsewhere, does not notice who guesses. `clock` gives seconds that never jump.

    Where there are other nodes `on_news` is called when something was counted that they should know.
    """

    def __init__(self, rules: BrakeRules, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: OrderedDict[Key, _Failures] = OrderedDict()
        self._news: dict[Key, Counted] = {}
        self.on_news: Callable[[], None] | None = None
        self.apply(rules)

    def apply(self, rules: BrakeRules) -> None:
        """Take over new rules."""
        self.rules = rules
        self._is_exempt = lru_cache(maxsize=1024)(self._look_up)

    def __len__(self) -> int:
        return len(self._entries)

    def failed(self, peer: str, account: str) -> None:
        """Somebody did not prove to be `account` ("": nobody in particular)."""
        if self._is_exempt(peer):
            return
        now = self._clock()
        network = network_of(peer)
        for key in {(network, ""), (network, account)}:
            self._count(key, 1, now)
            self._note(key, failures=1)

    def forgive(self, peer: str, count: int) -> None:
        """So many failures of a peer's network, of the last minute, turned out to be no guesses."""
        key = network_of(peer), ""
        if self._recent(key, now := self._clock()) is not None:
            self._forgive(key, count, now)
            self._note(key, is_forgotten=key not in self._entries, failures=-count)

    def succeeded(self, peer: str, account: str) -> None:
        """Somebody did; what the network did to other accounts, or in sum, is not forgotten for that."""
        key = network_of(peer), account
        if account and self._entries.pop(key, None) is not None:
            self._note(key, is_forgotten=True)

    def wait(self, peer: str, account: str) -> float:
        """Seconds until an attempt of this peer may be answered. Each answer has a moment of its own, so more
        connections are not more answers; more than `longest` means that it may not be answered at all.
        """
        if not self._entries:
            return 0.0
        now = self._clock()
        network = network_of(peer)
        due = [
            (key, entry, delay)
            for key in {(network, ""), (network, account)}
            if (entry := self._recent(key, now)) is not None and (delay := self._delay(key, entry))
        ]
        moment = max((entry.free_at for _, entry, _ in due), default=now)
        is_answered = moment - now <= self.rules.longest
        for key, entry, delay in due:
            begin = max(moment, now) if is_answered else now  # who is not answered takes nobody's turn
            self._put_off(key, entry, begin + delay, now)
        return max(moment - now, 0.0)

    def _put_off(self, key: Key, entry: _Failures, until: float, now: float) -> None:
        before = max(entry.free_at, now)
        if until > before:
            entry.free_at = until
            self._note(key, seconds=until - before)

    def _count(self, key: Key, failures: int, now: float) -> None:
        entry = self._recent(key, now) or _Failures()
        entry.count += failures
        entry.last = now
        self._entries[key] = entry
        self._entries.move_to_end(key)
        while len(self._entries) > ENTRIES:
            self._entries.popitem(last=False)

    def _forgive(self, key: Key, count: int, now: float) -> None:
        entry = self._recent(key, now)
        if entry is not None:
            entry.count -= count
            if entry.count <= 0:
                del self._entries[key]

    # several nodes

    def _note(self, key: Key, *, is_forgotten: bool = False, failures: int = 0, seconds: float = 0.0) -> None:
        """The others should know."""
        if self.on_news is None:
            return
        if not self._news:
            self.on_news()
        if is_forgotten:
            self._news[key] = Counted(*key, True, 0, 0.0)  # whatever was counted before
        elif (old := self._news.get(key)) is not None or len(self._news) < NEWS:
            old = old or Counted(*key, False, 0, 0.0)
            self._news[key] = Counted(*key, old.is_forgotten, old.failures + failures, old.seconds + seconds)

    def take_news(self) -> Sequence[Counted]:
        """What was counted since this was last asked for."""
        news, self._news = [*self._news.values()], {}
        return news

    def heard(self, news: Sequence[Counted]) -> None:
        """What another node counted counts here, too."""
        now = self._clock()
        for network, account, is_forgotten, failures, seconds in news:
            key = network, account
            if is_forgotten:
                self._entries.pop(key, None)
            if failures > 0:
                self._count(key, failures, now)
            elif failures < 0:
                self._forgive(key, -failures, now)
            entry = self._recent(key, now)
            if entry is not None and seconds:
                entry.free_at = max(entry.free_at, now) + seconds

    def known(self) -> Iterator[tuple[Counted, float]]:
        """All that is counted, and how many seconds ago it was last."""
        now = self._clock()
        for key in [*self._entries]:
            entry = self._recent(key, now)
            if entry is not None:
                yield Counted(*key, False, entry.count, max(entry.free_at - now, 0.0)), now - entry.last

    def learn(self, counted: Counted, age: float) -> None:
        """What another node counted before this one was there, or heard it: it may be known here in part."""
        key, now = (counted.network, counted.account), self._clock()
        entry = self._recent(key, now)
        if entry is None:
            self._count(key, 0, now)
            entry = self._entries[key]
            entry.last = now - age
        entry.count = max(entry.count, counted.failures)
        entry.last = max(entry.last, now - age)
        entry.free_at = max(entry.free_at, now + counted.seconds)

    def _recent(self, key: Key, now: float) -> _Failures | None:
        entry = self._entries.get(key)
        if entry is not None and now - entry.last > self.rules.forget:
            del self._entries[key]
            return None
        return entry

    def _delay(self, key: Key, entry: _Failures) -> float:
        free = self.rules.per_account if key[1] else self.rules.per_network
        excess = entry.count - free
        if not free or excess <= 0:
            return 0.0
        return min(self.rules.longest, float(1 << min(excess - 1, 30)))

    def _look_up(self, peer: str) -> bool:
        try:
            address = ip_address(peer.partition("%")[0])
        except ValueError:
            return True
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self.rules.exempt)
