"""The commands about what is kept of a person."""

from __future__ import annotations

from typing import Protocol

from xmppd.admin.builtin import Account, account_of
from xmppd.admin.commands import Download, command


class Rights(Protocol):
    """What these commands need. Accounts are bare JIDs; AccountUnknown."""

    async def export(self, account: str) -> Download:
        """All that is kept of a person, as a file."""


class RightsCommands:
    """`account ...`, whether or not a server runs."""

    def __init__(self, rights: Rights) -> None:
        self.rights = rights

    @command(
        "Give all that is kept of a person, as a zip of JSON",
        name="account export",
        offline=True,
        reads=True,
        guarded=True,
        downloads=True,
    )
    async def export(self, account: Account) -> Download:
        """Every table, with a schema and counts; secrets are described, not given."""
        return await self.rights.export(account_of(account))
