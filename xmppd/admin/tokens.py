"""Commands about the tokens by which clients log in again (XEP-0484)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol

from xmppd.admin.builtin import Account, account_of
from xmppd.admin.commands import command
from xmppd.errors import CommandError


class Tokens(Protocol):
    """What `token` commands need."""

    async def of(self, account: str) -> Sequence[Mapping[str, Any]]:
        """A row for each client of an account that has a token; XmppdError where there is no such account."""

    async def revoke(self, account: str, client: str) -> Sequence[Mapping[str, Any]]:
        """Let the tokens of a client ("": of all) count no more, and end its sessions; a row for each token,
        and for each session.
        """


class TokenCommands:
    """`token ...`: which programs may come again without a password."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens

    @command("List the clients of an account that have a token", name="token list", reads=True, offline=True)
    async def every(self, account: Account) -> list[dict[str, Any]]:
        """One row for each; what it says of itself is not proved."""
        return [dict(row) for row in await self.tokens.of(account_of(account))]

    @command("Let the tokens of an account's clients count no more", name="token revoke", offline=True)
    async def revoke(
        self,
        account: Account,
        client: Annotated[str, "only of this one, as `token list` names it"] = "",
    ) -> list[dict[str, Any]]:
        """Their sessions end; they need the password to come again."""
        name = account_of(account)
        rows = [dict(row) for row in await self.tokens.revoke(name, client.lower())]
        if not rows:
            whose = f"the client {client} of {name}" if client else name
            raise CommandError(f"{whose} has no token")
        return rows
