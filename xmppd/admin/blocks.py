"""The commands about block lists, against the small port they need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol

from xmppd.admin.builtin import Account, account_of
from xmppd.admin.commands import command
from xmppd.errors import CommandError
from xmppd.jid import Jid

Address = Annotated[Jid, "an account, a domain, or either with a resource"]


class Blocks(Protocol):
    """What `block` commands need. Accounts are bare JIDs as normalised text, addresses any JIDs; rows are
    plain data. What cannot be done is an XmppdError with a sentence for the operator.
    """

    async def show(self, account: str) -> Sequence[Mapping[str, Any]]:
        """The addresses that an account has blocked."""

    async def add(self, account: str, address: str) -> bool:
        """Block one more; whether it was not blocked."""

    async def remove(self, account: str, address: str) -> bool:
        """Block one no more; whether it was blocked."""


class BlockCommands:
    """`block ...`: whom accounts have blocked, whether or not a server runs."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks

    @command("Show whom an account has blocked", name="block list", reads=True, offline=True)
    async def show(self, account: Account) -> list[dict[str, Any]]:
        """One row for each address."""
        return [dict(row) for row in await self.blocks.show(account_of(account))]

    @command("Block an address for an account", name="block add", offline=True)
    async def add(self, account: Account, address: Address) -> dict[str, str]:
        """Its clients see that as if one of them had done it."""
        owner = account_of(account)
        done = "blocked" if await self.blocks.add(owner, address.full) else "unchanged"
        return {"account": owner, done: address.full}

    @command("Take an address off the block list of an account", name="block remove", offline=True)
    async def remove(self, account: Account, address: Address) -> dict[str, str]:
        """Its clients see that as if one of them had done it."""
        owner = account_of(account)
        if not await self.blocks.remove(owner, address.full):
            raise CommandError(f"{owner} has not blocked {address.full}")
        return {"account": owner, "unblocked": address.full}
