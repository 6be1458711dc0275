"""Commands about the tokens by which the machines of a game call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol

from xmppd.admin.commands import Caller, command


class ApiTokens(Protocol):
    """What `api-token` commands need."""

    async def every(self) -> Sequence[Mapping[str, Any]]:
        """A row for each token."""

    async def add(self, name: str, scopes: Sequence[str], days: int, by: Caller) -> Mapping[str, Any]:
        """Make one that ends after so many days (0: never), with its text; CommandError."""

    async def revoke(self, name: str) -> Sequence[Mapping[str, Any]]:
        """Let one count no more; CommandError."""


class ApiTokenCommands:
    """`api-token ...`: who may call by HTTP."""

    def __init__(self, tokens: ApiTokens) -> None:
        self.tokens = tokens

    @command("List the tokens for HTTP", name="api-token list", reads=True, offline=True)
    async def every(self) -> list[dict[str, Any]]:
        """One row for each, those of the configuration included; never their texts."""
        return [dict(row) for row in await self.tokens.every()]

    @command("Make a token for HTTP, which is shown once", name="api-token add", offline=True, once=True)
    async def add(
        self,
        by: Caller,
        name: Annotated[str, "who will have it, such as matchmaker"],
        *,
        scope: Annotated[list[str], "what it may do, such as roster:read; may be given several times"],
        days: Annotated[int, "how long; 0: until it is revoked"] = 90,
    ) -> dict[str, Any]:
        """Only its SHA-256 is kept. Nobody gives away more than he may himself."""
        return dict(await self.tokens.add(name, scope, days, by))

    @command("Let a token for HTTP count no more, on all nodes", name="api-token revoke", offline=True)
    async def revoke(self, name: Annotated[str, "whose"]) -> list[dict[str, Any]]:
        """At once; on a node that cannot be told, within seconds."""
        return [dict(row) for row in await self.tokens.revoke(name)]
