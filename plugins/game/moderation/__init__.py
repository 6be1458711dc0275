"""Rules for what is said: texts held against lists and expressions, sanctions, reports with evidence, rates,
and a queue for moderators.
"""

from __future__ import annotations

from typing import ClassVar

from xmppd import hooks
from xmppd.plugin import ACCOUNT, SERVER

from .cases import Cases
from .config import ModerationConfig
from .sanctions import NS


class Moderation(Cases):
    """Each of its parts is in a module of its own: `Sanctions`, `Hearing`, `Cases`."""

    Config = ModerationConfig
    features: ClassVar = {SERVER: (NS,), ACCOUNT: (NS,)}

    @hooks.account_moved
    def moved(self, old: str, new: str) -> None:
        """Nothing that is remembered here is of either any more."""
        super().moved(old, new)
        for account in (old, new):
            self.memory.forget(account)

    @hooks.account_removed
    async def forget(self, account: str) -> None:
        """Whoever has the name next has said and done nothing."""
        self.memory.forget(account)
        await super().forget(account)
