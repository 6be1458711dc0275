"""Accounts, sessions, presence and the store as commands of operators want them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final

from xmppd.admin.bulk import Wanted
from xmppd.core.accounts import AccountExists, Accounts, AccountUnknown
from xmppd.core.blocks import Blocks
from xmppd.core.fates import Fates
from xmppd.core.friendships import Friendships
from xmppd.core.roster.rosters import Roster
from xmppd.core.sessions import Session, Sessions
from xmppd.core.tokens import ClientTokens, kept_in
from xmppd.core.visibility import Visibility
from xmppd.errors import StreamError, XmppdError
from xmppd.everywhere import Everywhere
from xmppd.loglevels import Levels, logger_of
from xmppd.moments import utc_stamp
from xmppd.server import Server
from xmppd.store.table import Store, Table

UNKNOWN: Final = "unknown"
"""Of a message that a node knows nothing of: it was delivered, or is older, or never came there."""


class AccountOffice:
    """Accounts as `user` commands want them: what they do reaches sessions and belongings too."""

    def __init__(self, accounts: Accounts, server: Server) -> None:
        self.create = accounts.create
        self.exists = server.account_exists
        self.set_password = accounts.set_password
        self.enable = accounts.enable
        self.disable = accounts.disable
        self.info = accounts.info
        self.list = accounts.list
        self.remove = server.remove_account


class BulkOffice:
    """Many accounts as `user add-many` wants them made."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    async def make(self, wanted: Sequence[Wanted], *, skip_existing: bool) -> Sequence[str]:
        """Make some accounts at once; for each why it was refused, "" where it was not."""
        return await asyncio.gather(*(self._make(one, skip_existing=skip_existing) for one in wanted))

    async def _make(self, wanted: Wanted, *, skip_existing: bool) -> str:
        try:
            if wanted.password is None:
                await self._accounts.provision(wanted.account)
            else:
                await self._accounts.create(wanted.account, wanted.password)
        except AccountExists as error:
            return "" if skip_existing else str(error)
        except XmppdError as error:
            return str(error) or type(error).__name__
        return ""


class TokenOffice:
    """Tokens of clients as `token` commands want them: who loses one loses the sessions as well."""

    def __init__(
        self,
        tokens: ClientTokens,
        accounts: Accounts,
        sessions: Sessions,
        end: Callable[[Session, StreamError | None], None],
        everywhere: Everywhere,
    ) -> None:
        self._tokens = tokens
        self._accounts = accounts
        self._sessions = sessions
        self._end = end
        self._everywhere = everywhere
        everywhere.serve("token revoke", self._end_here)

    async def of(self, account: str) -> Sequence[Mapping[str, Any]]:
        """A row for each client that has a token."""
        await self._accounts.info(account)
        return [_token_row(row) for row in await self._tokens.of(account)]

    async def revoke(self, account: str, client: str) -> Sequence[Mapping[str, Any]]:
        """Let tokens count no more, and then end the sessions of their clients on all nodes."""
        await self._accounts.info(account)
        revoked = await self._tokens.revoke(account, client)
        if not revoked:
            return []
        arguments = {"account": account, "clients": revoked}
        ended = await self._everywhere.rows("token revoke", arguments, account)
        return [*({"revoked": client} for client in revoked), *ended]

    async def _end_here(self, arguments: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        clients = frozenset(arguments["clients"])
        found = [
            session
            for session in self._sessions.of(arguments["account"])
            if session.login.agent is not None and session.login.agent.id in clients
        ]
        for session in found:
            self._end(session, StreamError("reset", "Log in again: an operator revoked the client's token."))
        return [{"ended": session.full} for session in found]


def _token_row(row: Mapping[str, Any]) -> Mapping[str, Any]:
    kept = kept_in(row["fresh"]) or kept_in(row["current"])
    assert kept is not None, "a client that has a token"
    return {
        "client": row["client"],
        "software": row["software"],
        "device": row["device"],
        "mechanism": kept.mechanism,
        "issued": utc_stamp(kept.issued),
        "expires": utc_stamp(kept.expires),
    }


class StoreOffice:
    """The store as `store` commands want it. `tables` gives what has to be there."""

    def __init__(self, store: Store, tables: Callable[[], Sequence[Table]]) -> None:
        self.info = store.info
        self._store = store
        self._tables = tables

    async def missing(self) -> Sequence[str]:
        """What is declared and not there."""
        return await self._store.missing(self._tables())

    async def migrate(self) -> Sequence[str]:
        """Make what is missing."""
        return await self._store.migrate(self._tables())


class FriendOffice:
    """Friendships as `roster befriend` and its like want them."""

    def __init__(self, friends: Friendships) -> None:
        self.befriend = friends.befriend
        self.part = friends.part

    async def befriend_all(self, pairs: Sequence[tuple[str, str]]) -> Sequence[str]:
        """Befriend pairs at once; for each why it was refused, "" where it was not."""
        return await asyncio.gather(*(_refusal(self.befriend(*pair)) for pair in pairs))

    async def part_all(self, pairs: Sequence[tuple[str, str]]) -> Sequence[str]:
        """Part pairs at once, in the same way."""
        return await asyncio.gather(*(_refusal(self.part(*pair)) for pair in pairs))


async def _refusal(deed: Awaitable[None]) -> str:
    try:
        await deed
    except XmppdError as error:
        return str(error)
    return ""


class MessageOffice:
    """What became of messages, as `message` commands want it. `recalled` gives those of an account that stand
    in its archive by these ids.
    """

    def __init__(
        self,
        fates: Fates,
        everywhere: Everywhere,
        recalled: Callable[[str, Sequence[str]], Awaitable[Mapping[str, bytes]]],
        domains: Collection[str],
    ) -> None:
        self._fates = fates
        self._everywhere = everywhere
        self._recalled = recalled
        self._domains = domains
        everywhere.serve("message fates", self._fates_here)

    async def fates(self, id: str, sender: str, to: str) -> Sequence[Mapping[str, Any]]:
        """See `xmppd.admin.messages`."""
        arguments = {"id": id, "sender": sender, "to": to}
        rows = await self._everywhere.rows("message fates", arguments)
        known = [row for row in rows if "at" in row and row["fate"] != UNKNOWN]
        archived = [row for account in (sender, to) if (row := await self._archived(id, account)) is not None]
        rest = [row for row in rows if row not in known]
        return [*sorted(known, key=lambda row: row["at"]), *archived, *rest]

    async def _archived(self, id: str, address: str) -> Mapping[str, Any] | None:
        account = address.partition("/")[0]
        if "@" not in account or account.rpartition("@")[2] not in self._domains:
            return None
        if not await self._recalled(account, (id,)):
            return None
        return {"fate": "archived", "rule": "archive", "reason": f"it stands in the archive of {account}"}

    async def _fates_here(self, arguments: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        found = self._fates.of(arguments["id"], arguments["sender"], arguments["to"])
        if not found:
            since = utc_stamp(self._fates.since)
            return [{"at": since, "fate": UNKNOWN, "reason": "this node knows of nothing since then"}]
        return [
            {
                "at": utc_stamp(fate.at, to="milliseconds"),
                "fate": fate.fate,
                "rule": fate.rule,
                "reason": fate.reason,
                "type": fate.type,
                "sender": fate.sender,
                "to": fate.to,
            }
            for fate in found
        ]


class LogOffice:
    """Levels of the log on this node and others, as `log` commands want them."""

    def __init__(self, levels: Levels, everywhere: Everywhere) -> None:
        self._levels = levels
        self._everywhere = everywhere
        everywhere.serve("log level", self._set_here)
        everywhere.serve("log reset", self._reset_here)
        everywhere.serve("log levels", self._levels_here)

    async def set(self, module: str, level: str, minutes: int, node: str) -> Sequence[Mapping[str, Any]]:
        """See `xmppd.admin.logs`."""
        logger_of(module)
        return await self._on(node, "log level", {"about": [module, level, minutes]})

    async def reset(self, module: str, node: str) -> Sequence[Mapping[str, Any]]:
        """See `xmppd.admin.logs`."""
        return await self._on(node, "log reset", {"module": module})

    async def levels(self) -> Sequence[Mapping[str, Any]]:
        """See `xmppd.admin.logs`."""
        return await self._on("", "log levels", {})

    async def _on(self, node: str, name: str, arguments: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        if not node:
            return await self._everywhere.rows(name, arguments)
        return [{"node": node, **row} for row in await self._everywhere.ask(node, name, arguments)]

    async def _set_here(self, arguments: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        return [_level_row(row) for row in self._levels.set(*arguments["about"])]

    async def _reset_here(self, arguments: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        return self._levels.reset(arguments["module"])

    async def _levels_here(self, arguments: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        return [_level_row(row) for row in self._levels.rows()]


def _level_row(row: Mapping[str, Any]) -> Mapping[str, Any]:
    return {**row, "until": utc_stamp(row["until"])}


class PresenceOffice:
    """Who sees whom, as `presence` commands want it: by the rules that presence itself goes by."""

    def __init__(self, sessions: Sessions, visibility: Visibility, blocks: Blocks) -> None:
        self._sessions = sessions
        self._visibility = visibility
        self._blocks = blocks

    async def shown(self, account: str) -> Sequence[Mapping[str, Any]]:
        """A row for each contact with a subscription."""
        roster = await self._roster(account)
        return [
            {
                "contact": contact,
                "sees_account": roster.is_follower(contact) and self._visibility.allows(contact, account),
                "is_seen": roster.is_following(contact) and self._visibility.allows(account, contact),
                "online": self._is_available(contact),
            }
            for contact in sorted({*roster.followers, *roster.following})
        ]

    async def reasons(self, viewer: str, owner: str) -> Sequence[Mapping[str, Any]]:
        """The first that is not so is why."""
        theirs, ours = await self._roster(owner), await self._roster(viewer)
        barred = await self._blocks.will_bar(owner, viewer), await self._blocks.will_bar(viewer, owner)
        is_hidden = self._visibility.hidden.has(owner, viewer)
        rules = (
            ("online", f"{owner} has an available session", self._is_available(owner)),
            ("watching", f"{viewer} has an available session", self._is_available(viewer)),
            ("granted", f"the roster of {owner} lets {viewer} see", theirs.is_follower(viewer)),
            ("subscribed", f"the roster of {viewer} asks for that", ours.is_following(owner)),
            ("not-blocked-by-owner", f"{owner} has not blocked {viewer}", not barred[0]),
            ("not-blocked-by-viewer", f"{viewer} has not blocked {owner}", not barred[1]),
            ("allowed", "no plugin forbids it", self._visibility.permits(viewer, owner) or any(barred)),
            ("not-hidden", f"{owner} does not appear offline to {viewer}", not is_hidden),
        )
        return [{"rule": rule, "needed": needed, "is_so": is_so} for rule, needed, is_so in rules]

    def _is_available(self, account: str) -> bool:
        live = self._sessions.accounts.get(account)
        return bool(live is not None and live.available) or self._sessions.cluster.is_available(account)

    async def _roster(self, account: str) -> Roster:
        roster = await self._visibility.roster(account)
        if roster is None:
            raise AccountUnknown(account)
        return roster
