"""Accounts that have another address now: the rows that say so, and what this node remembers of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Final
from urllib.parse import quote

from xmppd.core.origin import Origin
from xmppd.core.sessions import Session
from xmppd.errors import StanzaError
from xmppd.store.person import Person
from xmppd.store.table import Row, Store, Table
from xmppd.xml.stanza import Stanza

MOVED: Final = Table(
    "account_moved",
    partition=("account",),
    columns={
        "new": "text",
        "state": "text",
        "at": "timestamp",
        "by": "text",
        "created": "timestamp",
        "changed": "int",
        "until": "timestamp",
        "round": "int",
        "due": "timestamp",
        "receipt": "text",
    },
    person=Person("account", mentions={"new": "deleted"}, stays=True),
)
"""`account` is the old address. `state` is begun (rows are moving, nobody has either name), live (the new one
is an account, contacts are being told), late (all is done, and looked for what came late: at `due`, for the
time `round`) or done. `changed` marks the new account while it is no more than reserved.
"""
MOST: Final = 100_000
"""Of so many this node remembers the new address."""
LEAST_SECONDS: Final = 7 * 86_400.0
"""How long a row stays at least: the work goes by it."""


class Moved:
    """The rows, and `known`: the new address of each old one."""

    def __init__(self, store: Store, now: Callable[[], float]) -> None:
        self.known: dict[str, str] = {}
        self._store = store
        self._now = now

    async def get(self, account: str) -> Row | None:
        """What became of an address."""
        return await self._store.get(MOVED, (account,))

    async def put(self, row: Row) -> None:
        """Write a whole row."""
        life = max(row["until"], row["at"] + LEAST_SECONDS) - self._now()
        await self._store.put(MOVED, row, ttl=max(1.0, life))

    async def every(self) -> AsyncIterator[Row]:
        """All rows."""
        page: bytes | None = None
        while True:
            found = await self._store.scan_all(MOVED, page=page)
            for row in found.rows:
                yield row
            if (page := found.next) is None:
                return

    def note(self, account: str, new: str) -> None:
        """Remember a new address, which is an old one no more, nor are those that led to the old one."""
        self.known.pop(new, None)
        for other, known in self.known.items():
            if known == account:
                self.known[other] = new
        if len(self.known) < MOST:
            self.known[account] = new

    def redirect(self, origin: Origin, stanza: Stanza, error: StanzaError) -> StanzaError:
        """What refuses a stanza to an account that is not there: contacts of one that was renamed are told
        its address (RFC 6120 8.3.3.5; XEP-0283, Contact receives subscription request), and nobody else is.
        """
        new = self.known.get((stanza.to or "").partition("/")[0]) if self.known else None
        if new is None or not isinstance(origin, Session):
            return error
        roster = origin.live.roster
        if roster is None or (new not in roster.following and new not in roster.followers):
            return error
        return StanzaError("gone", "This account has another address.", content=uri_of(new))


def uri_of(account: str) -> str:
    """The URI of an account (RFC 5122)."""
    local, _, domain = account.rpartition("@")
    return f"xmpp:{quote(local, safe='')}@{domain}"
