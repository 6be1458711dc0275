"""What rosters may have in a day is counted by all nodes, whichever it is done on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from xmppd.cluster.member import Member
from xmppd.cluster.mesh import Mesh
from xmppd.cluster.records import Spent
from xmppd.core.roster.budget import DailyBudget

STEP: Final = 64
"""How much is told before others have their turn."""


class SharedBudgets:
    """Tells other nodes of each new item and each entry of a log, and has those counted that they tell."""

    def __init__(
        self, mesh: Mesh, additions: DailyBudget, log_budget: DailyBudget, now: Callable[[], float]
    ) -> None:
        self._mesh = mesh
        self._budgets = {False: additions, True: log_budget}
        self._now = now
        additions.on_spent = lambda account, is_own: self._tell(Spent(account, False, is_own))
        log_budget.on_spent = lambda account, is_own: self._tell(Spent(account, True, is_own))

    def _tell(self, record: Spent) -> None:
        self._mesh.send_all(record, len(record.account) + 16)

    def share(self, member: Member) -> Iterator[None]:
        """Tell a node that came all that is counted here, step by step."""
        for is_logged, budget in self._budgets.items():
            for number, (account, is_own, since, spent) in enumerate(budget.known(), 1):
                self._mesh.send(member, Spent(account, is_logged, is_own, spent, since), len(account) + 32)
                if number % STEP == 0:
                    yield

    def take(self, member: Member, record: Spent) -> None:
        """It counts here, too."""
        budget = self._budgets[record.is_logged]
        if record.all:
            budget.learn(record.account, record.is_own, record.since, record.all)
        else:
            budget.heard(record.account, record.is_own, self._now())
