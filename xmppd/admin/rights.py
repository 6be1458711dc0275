"""The commands about what is kept of a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Protocol

from xmppd.admin.builtin import Account, account_of
from xmppd.admin.commands import Caller, Download, command
from xmppd.jid import Jid

ZIP: Final = "application/zip"


class Rights(Protocol):
    """What these commands need. Accounts are bare JIDs; AccountUnknown."""

    async def export(self, account: str) -> Download:
        """All that is kept of a person, as a file."""

    async def erase(self, account: str, by: Caller) -> Mapping[str, Any]:
        """Erase an account everywhere; what is done, which may go on."""

    async def receipt(self, account: str) -> Mapping[str, Any]:
        """What became of that."""

    async def rename(self, old: str, new: str, by: Caller, *, is_undone: bool) -> Mapping[str, Any]:
        """Give an account another address, or its old one back; what is done, which may go on."""

    async def renamed(self) -> Sequence[Mapping[str, Any]]:
        """A row for each address that leads to another one."""


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
        downloads=ZIP,
    )
    async def export(self, account: Account) -> Download:
        """Every table, with a schema and counts; secrets are described, not given."""
        return await self.rights.export(account_of(account))

    @command(
        "Erase an account everywhere, and keep a receipt without its name",
        name="account erase",
        offline=True,
        confirm="Erase {account} everywhere, so that nothing brings it back?",
        masks=True,
    )
    async def erase(self, account: Account, by: Caller) -> dict[str, Any]:
        """There is no way back. What takes long goes on behind this; a repeat waits for it, too."""
        return dict(await self.rights.erase(account_of(account), by))

    @command(
        "Show what became of the erasure of an account",
        name="account receipt",
        reads=True,
        offline=True,
    )
    async def receipt(self, account: Account) -> dict[str, Any]:
        """How many rows of each table were deleted or changed, and when."""
        return dict(await self.rights.receipt(account_of(account)))

    @command(
        "Give an account another address, with all it has; its contacts follow",
        name="account rename",
        offline=True,
        confirm="Rename {old} to {new}? Its sessions end.",
    )
    async def rename(
        self,
        old: Annotated[Jid, "its address"],
        new: Annotated[Jid, "the new one, which nobody has"],
        by: Caller,
        *,
        undo: Annotated[bool, "give it the old one back"] = False,
    ) -> dict[str, Any]:
        """What takes long goes on behind this; a repeat waits for it, too."""
        return dict(await self.rights.rename(account_of(old), account_of(new), by, is_undone=undo))

    @command(
        "List accounts that were renamed, and whose old addresses still lead to them",
        name="account renamed",
        reads=True,
        offline=True,
    )
    async def renamed(self) -> list[dict[str, Any]]:
        """One row for each old address."""
        return [dict(row) for row in await self.rights.renamed()]
