"""A change of an item that is wanted, until it is made or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from xmppd.core.intents import Intent
from xmppd.core.roster.change import Change
from xmppd.core.roster.counts import RosterCounts
from xmppd.core.roster.item import RosterItem

Edit = Callable[[RosterItem | None], RosterItem | None]
"""Makes the new item (None: none) of the old one; it may be called several times."""
Intend = Callable[[str, str, RosterItem | None, RosterItem | None], Intent | None]
"""(account, contact, old, new): what is to be written of a change before it is made; None: nothing."""


@dataclass(slots=True)
class Wish:
    """No new attempt after `end`. `made`: the item before and after a write that may have happened."""

    contact: str
    edit: Edit
    by: str
    what: str
    end: float
    made: tuple[RosterItem | None, RosterItem | None] | None = None
    most: RosterCounts | None = None
    _intent: Intent | None = None

    async def foresee(self, intent: Intent | None, version: int, newer: int) -> None:
        """Have an attempt to make the version `newer` of `version` written down first; the one before was in
        vain. StoreError.
        """
        if self._intent is not None:
            self._intent.drop()
        self._intent = intent
        if intent is not None:
            await intent.begin({"before": version, "version": newer})

    def made_of(self, change: Change) -> None:
        """It is made, and told by who asked for it, unless it was so before."""
        if self._intent is not None and change.old == change.new:
            self._intent.drop()

    def doubt(self) -> None:
        """Nobody knows what became of the last attempt, if there was one."""
        if self._intent is not None:
            self._intent.doubt()
