"""Commands about sessions, on whatever node they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Annotated, Any, Final, Protocol

from xmppd.admin.builtin import account_of
from xmppd.admin.commands import USAGE, command, page
from xmppd.admin.pages import text_of, token_of
from xmppd.errors import CommandError
from xmppd.jid import Jid

MOST_SESSIONS = 10_000
"""In one page."""

STATES: Final = ("available", "unavailable", "detached")
"""It has sent presence; it has not, or took it back; its client is not connected and may resume it."""


@dataclass(frozen=True, slots=True)
class Sought:
    """Which sessions are listed: those for which all of this is so. `account`: of this one; `address`: their
    client's is in this network; `client`: these letters, large or small, are in what is known of its
    software; `node`: they are there; `state`: one of STATES; `older` and `idle`: they began, and their client
    sent something last, at least so many seconds ago. "" and 0 are so for all.
    """

    account: str = ""
    address: str = ""
    client: str = ""
    node: str = ""
    state: str = ""
    older: int = 0
    idle: int = 0


class Sessions(Protocol):
    """What `session` commands need. Where there are several nodes each row says of which it is (`node`), and
    one with a `problem` stands for a node that did not answer.
    """

    async def page(
        self, sought: Sought, most: int, after: bytes | None
    ) -> tuple[list[Mapping[str, Any]], bytes | None]:
        """A row for each of these sessions, at most so many, and the token to go on with; CommandError."""

    async def show(self, account: str, resource: str) -> list[Mapping[str, Any]]:
        """One row with all that is known of a session; none where there is no such."""

    async def message(self, account: str, resource: str, message: Message) -> list[Mapping[str, Any]]:
        """Send to a session, or with resource "" to the account; a row for each session that is sent it. None
        where there is nobody to take it; CommandError when it is refused.
        """

    async def kick(self, account: str, resource: str) -> list[Mapping[str, Any]]:
        """End a session, or with resource "" all of the account; a row for each that was ended."""


@dataclass(frozen=True, slots=True)
class Message:
    """What a domain says to its own, as `headline` or as `chat` (RFC 6121 5.2.2)."""

    type: str
    subject: str
    text: str


class SessionCommands:
    """`session ...`: who is logged in."""

    def __init__(self, sessions: Sessions) -> None:
        self.sessions = sessions

    @command("List sessions", name="session list", reads=True, paged=True)
    async def every(
        self,
        account: Annotated[Jid | None, "only those of this account"] = None,
        *,
        address: Annotated[str, "only those of clients at this address, or in this network"] = "",
        client: Annotated[str, "only those with this in the name of software, device, resource or caps"] = "",
        node: Annotated[str, "only those of this node"] = "",
        state: Annotated[str, "only those that are available, unavailable or detached"] = "",
        older: Annotated[int, "only those that began so many seconds ago, or before"] = 0,
        idle: Annotated[int, "only those of whose client nothing came for so many seconds"] = 0,
        most: Annotated[int, "at most so many in one page"] = 1000,
        after: Annotated[str, "go on where a run was interrupted: the token that it named"] = "",
    ) -> dict[str, Any]:
        """One row for each, of all nodes. `priority` is empty for one that is not available."""
        if not 0 < most <= MOST_SESSIONS:
            raise _wrong("most", f"must be 1 to {MOST_SESSIONS}")
        if state not in ("", *STATES):
            raise _wrong("state", f"must be one of {', '.join(STATES)}")
        for name, seconds in (("older", older), ("idle", idle)):
            if seconds < 0:
                raise _wrong(name, "must not be negative")
        whose = "" if account is None else account_of(account)
        sought = Sought(whose, _network(address), client, node, state, older, idle)
        rows, token = await self.sessions.page(sought, most, token_of(after))
        count = sum("session" in row for row in rows)
        return page(rows, {"sessions": count}, after=text_of(token))

    @command("Show all that is known of one session", name="session show", reads=True)
    async def show(
        self, address: Annotated[Jid, "a session: account and resource (name@domain/resource)"]
    ) -> dict[str, Any]:
        """Nothing that somebody wrote: no text of presence, no message."""
        if not address.local or not address.resource:
            message = f"{address} is not the address of a session (name@domain/resource)"
            raise CommandError(message, USAGE)
        rows = await self.sessions.show(address.bare, address.resource)
        return dict(_found(address, rows, "session")[0])

    @command("Send a message from the domain to a session, or to an account", name="session message")
    async def message(
        self,
        address: Annotated[Jid, "an account, or with its resource one session"],
        text: Annotated[str, "what to say"],
        *,
        subject: Annotated[str, "above that"] = "",
        chat: Annotated[bool, "as a chat, which archives keep; else as a headline"] = False,
    ) -> list[dict[str, Any]]:
        """One row for each session that is sent it; nothing is kept for who is not there."""
        _check_account(address)
        message = Message("chat" if chat else "headline", subject, text)
        rows = await self.sessions.message(address.bare, address.resource or "", message)
        if not rows:
            why = "is not logged in" if address.resource else "has no session that takes messages"
            raise CommandError(f"{address} {why}")
        return [dict(row) for row in rows]

    @command("End a session, or all of an account", name="session kick")
    async def kick(
        self, address: Annotated[Jid, "an account, or with its resource one session"]
    ) -> list[dict[str, Any]]:
        """Its client is sent `policy-violation`, and may come again."""
        _check_account(address)
        rows = await self.sessions.kick(address.bare, address.resource or "")
        _found(address, rows, "ended")
        return [dict(row) for row in rows]


def _check_account(address: Jid) -> None:
    if not address.local:
        raise CommandError(f"{address} is not the address of an account (name@domain)", USAGE)


def _found(address: Jid, rows: list[Mapping[str, Any]], key: str) -> list[Mapping[str, Any]]:
    """Those rows that have the key; CommandError when there are none, which names nodes that were silent."""
    found = [row for row in rows if key in row]
    if found:
        return found
    silent = "".join(f"; {row['node']}: {row['problem']}" for row in rows if "problem" in row)
    raise CommandError(f"{address} is not logged in{silent}")


def _network(text: str) -> str:
    try:
        return str(ip_network(text, strict=False)) if text else ""
    except ValueError:
        raise _wrong("address", f"{text!r} is no IP address and no network") from None


def _wrong(field: str, what: str) -> CommandError:
    return CommandError(f"{field} {what}", USAGE, field=field, rule="parameter")
