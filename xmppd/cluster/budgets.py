"""What rosters may have in a day is counted by all nodes, whichever it is done on."""

from __future__ import annotations

from collections.abc import Callable

from xmppd.cluster.member import Member
from xmppd.cluster.mesh import Mesh
from xmppd.cluster.records import Spent
from xmppd.core.roster.budget import DailyBudget


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

    def take(self, member: Member, record: Spent) -> None:
        """It counts here, too."""
        self._budgets[record.is_logged].heard(record.account, record.is_own, self._now())
