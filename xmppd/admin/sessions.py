"""Commands about sessions, on whatever node they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Protocol

from xmppd.admin.builtin import account_of
from xmppd.admin.commands import USAGE, command
from xmppd.errors import CommandError
from xmppd.jid import Jid

MOST_SESSIONS = 10_000
"""Of each node, in one list."""


class Sessions(Protocol):
    """What `session` commands need. Where there are several nodes each row says of which it is (`node`), and
    one with a `problem` stands for a node that did not answer.
    """

    async def every(self, account: str, most: int) -> list[Mapping[str, Any]]:
        """A row for each session of an account ("": of all), at most so many of each node."""

    async def kick(self, account: str, resource: str) -> list[Mapping[str, Any]]:
        """End a session, or with resource "" all of the account; a row for each that was ended."""


class SessionCommands:
    """`session ...`: who is logged in."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions

    @command("List sessions", name="session list", reads=True)
    async def every(
        self,
        account: Annotated[Jid | None, "only those of this account"] = None,
        *,
        most: Annotated[int, "at most so many of each node"] = 1000,
    ) -> list[dict[str, Any]]:
        """One row for each, of all nodes. `priority` is empty for one that is not available."""
        if not 0 < most <= MOST_SESSIONS:
            raise CommandError(f"most must be 1 to {MOST_SESSIONS}", USAGE)
        rows = await self.sessions.every("" if account is None else account_of(account), most)
        return [dict(row) for row in rows]

    @command("End a session, or all of an account", name="session kick")
    async def kick(
        self, address: Annotated[Jid, "an account, or with its resource one session"]
    ) -> list[dict[str, Any]]:
        """Its client is sent `policy-violation`, and may come again."""
        if not address.local:
            raise CommandError(f"{address} is not the address of an account (name@domain)", USAGE)
        rows = [dict(row) for row in await self.sessions.kick(address.bare, address.resource or "")]
        if not rows:
            raise CommandError(f"{address} is not logged in")
        return rows
