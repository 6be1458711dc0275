"""The commands about who sees whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol

from xmppd.admin.builtin import Account, account_of
from xmppd.admin.commands import command
from xmppd.jid import Jid


class Presence(Protocol):
    """What `presence` commands need. Accounts are bare JIDs; AccountUnknown."""

    async def shown(self, account: str) -> Sequence[Mapping[str, Any]]:
        """A row for each contact: who sees whom, and whether he is online."""

    async def reasons(self, viewer: str, owner: str) -> Sequence[Mapping[str, Any]]:
        """What it takes for the one to see the other, in the order in which it is looked at, each with
        whether it is so.
        """


class PresenceCommands:
    """`presence ...`: who is shown to whom, and why not."""

    def __init__(self, presence: Presence) -> None:
        self.presence = presence

    @command("Show who sees an account, and whom it sees", name="presence show", reads=True)
    async def show(self, account: Account) -> list[dict[str, Any]]:
        """One row for each contact with a subscription in either direction."""
        return [dict(row) for row in await self.presence.shown(account_of(account))]

    @command("Say why an account is seen online by another one, or is not", name="presence why", reads=True)
    async def why(
        self, owner: Annotated[Jid, "who is seen"], viewer: Annotated[Jid, "by whom"]
    ) -> list[dict[str, Any]]:
        """One row for each thing that it takes; where all are so, he is seen."""
        return [dict(row) for row in await self.presence.reasons(account_of(viewer), account_of(owner))]
