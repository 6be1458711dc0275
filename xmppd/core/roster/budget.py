"""What may be done in the name of one account in a day, as this process has counted, and others told it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from xmppd.stream.lru import Lru

DAY = 86_400.0

ACCOUNTS = 4096
"""How many accounts are counted at once; of those the one not heard of for longest is forgotten."""
OWN_A_DAY = 2000
OTHERS_A_DAY = 1000
"""How many new items of one roster all nodes take in a day: from its owner (as many as a roster may have,
if that is more), and from others by what they send. An item that goes leaves a mark in Cassandra, as a rule
for ten days, and a read passes over 100,000 of them at most.
"""


class DailyBudget:
    """So much a day for what an account does itself, and so much for what others cause in its place.
    `on_spent` is told of the account, and whether it did it itself.
    """

    def __init__(self, own: int, others: int) -> None:
        self._bounds = {True: own, False: others}
        self._spent: Lru[tuple[str, bool], tuple[float, int]] = Lru(ACCOUNTS)
        self.on_spent: Callable[[str, bool], None] | None = None

    def has_room(self, account: str, by: str, at: float) -> bool:
        """Whether `by` (a full or bare JID, or a word) may do it once more `at` seconds since the epoch."""
        is_own = _is_own(account, by)
        return self._spent_today((account, is_own), at)[1] < self._bounds[is_own]

    def spend(self, account: str, by: str, at: float) -> None:
        """Count what was done."""
        is_own = _is_own(account, by)
        self.heard(account, is_own, at)
        if self.on_spent is not None:
            self.on_spent(account, is_own)

    def heard(self, account: str, is_own: bool, at: float) -> None:
        """Count what was done, here or on another node."""
        since, spent = self._spent_today((account, is_own), at)
        self._spent.put((account, is_own), (since, spent + 1))

    def known(self) -> Iterator[tuple[str, bool, float, int]]:
        """All that is counted: account, whether it did it itself, since when, how much."""
        for (account, is_own), (since, spent) in self._spent.items():
            yield account, is_own, since, spent

    def learn(self, account: str, is_own: bool, since: float, spent: int) -> None:
        """Another node has counted so much since then."""
        here = self._spent.get((account, is_own))
        if here is None or here[0] + DAY <= since:
            self._spent.put((account, is_own), (since, spent))
        elif since + DAY > here[0]:
            self._spent.put((account, is_own), (min(since, here[0]), max(spent, here[1])))

    def _spent_today(self, payer: tuple[str, bool], at: float) -> tuple[float, int]:
        since, spent = self._spent.get(payer) or (at, 0)
        return (since, spent) if since <= at < since + DAY else (at, 0)


def _is_own(account: str, by: str) -> bool:
    return by.partition("/")[0] == account
