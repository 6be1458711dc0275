"""What a node changed and Redis, with it the other nodes, has not heard of."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

DEBTS = 10_000
"""Names remembered; beyond that everything counts as changed."""


class Debts:
    """Accounts whose rosters, or who themselves, were changed without the others being told.

    `recent_seconds`: what was written for so long before a failure is in doubt with it. `overflows`: how
    often more was owed than is remembered; while it is not 0 everything counts as changed.
    """

    def __init__(self, recent_seconds: float, clock: Callable[[], float]) -> None:
        self.overflows = 0
        self._rosters: dict[str, None] = {}
        self._accounts: dict[str, None] = {}
        self._recent: OrderedDict[str, float] = OrderedDict()
        self._recent_seconds = recent_seconds
        self._clock = clock

    def __len__(self) -> int:
        return len(self._rosters) + len(self._accounts) + (self.overflows > 0)

    def began(self, account: str) -> None:
        """The roster is being written now."""
        now = self._clock()
        recent = self._recent
        recent[account] = now
        recent.move_to_end(account)
        while len(recent) > DEBTS or recent[next(iter(recent))] < now - self._recent_seconds:
            recent.popitem(last=False)

    def owe(self, account: str) -> None:
        """The roster was changed, or may be."""
        self._rosters[account] = None
        if len(self._rosters) > DEBTS:
            self.overflows += 1
            self._rosters.clear()

    def owe_account(self, account: str) -> None:
        """The account was changed."""
        self._accounts[account] = None
        if len(self._accounts) > DEBTS:
            self.overflows += 1
            self._accounts.clear()

    def owe_recent(self) -> None:
        """Whatever was written lately may have got lost there."""
        oldest = self._clock() - self._recent_seconds
        for account, since in self._recent.items():
            if since >= oldest:
                self.owe(account)
        self._recent.clear()

    def take(self, count: int) -> tuple[list[str], list[str]] | None:
        """Some of what is owed, no longer owed then; None when there is nothing."""
        rosters = [account for account, _ in zip(self._rosters, range(count), strict=False)]
        accounts = [account for account, _ in zip(self._accounts, range(count), strict=False)]
        for account in rosters:
            del self._rosters[account]
        for account in accounts:
            del self._accounts[account]
        return (rosters, accounts) if rosters or accounts else None

    def take_back(self, rosters: list[str], accounts: list[str]) -> None:
        """These are owed still."""
        for account in rosters:
            self.owe(account)
        for account in accounts:
            self.owe_account(account)

    def told_of_everything(self, overflows: int) -> None:
        """Others were told that everything may have changed, which began when there were so many overflows;
        later ones may have come too late for that.
        """
        self.overflows -= overflows
