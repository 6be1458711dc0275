"""Whom accounts have blocked (XEP-0191): the rows, and what this node knows of them.

An account *bars* an address that is in its block list. The list of an account with sessions here is with
them (`LiveAccount.blocks`), so that who bars nobody is seen by one attribute; lists of other accounts are
read when they are needed, and remembered for a while.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from typing import Final

from xmppd import ns
from xmppd.core.accounts import Accounts
from xmppd.core.barred import NOBODY, barred, bars
from xmppd.core.begun import begun
from xmppd.core.changes import Changes
from xmppd.core.hidden import Hidden
from xmppd.core.sessions import Session, Sessions
from xmppd.errors import JidError, StanzaError
from xmppd.jid import Jid
from xmppd.store.person import Person
from xmppd.store.table import Delete, Put, Row, Store, Table
from xmppd.stream.lru import Lru
from xmppd.xml.stanza import Stanza

BLOCKS = Table(
    "blocks",
    partition=("account",),
    cluster=("address",),
    columns={"since": "timestamp"},
    person=Person("account", mentions={"address": "deleted"}),
)

CACHED: Final = 100_000
"""Of how many accounts it is remembered that they bar nobody."""
CACHED_LISTS: Final = 1_000
"""The lists of how many accounts without a session here are remembered."""

BLOCKED: Final = f"{{{ns.BLOCKING_ERRORS}}}blocked"


class Blocks:
    """The block list of each account; addresses are JIDs in normal form, of any kind. `hidden` are those that
    look offline to some.
    """

    def __init__(self, store: Store, sessions: Sessions, accounts: Accounts) -> None:
        self.hidden = Hidden(sessions.accounts)
        self.moving = accounts.moving
        self._store = store
        self._live = sessions.accounts
        self._accounts = accounts
        self._changes = Changes()
        self._barring_nobody: Lru[str, frozenset[str]] = Lru(CACHED)
        self._lists: Lru[str, frozenset[str]] = Lru(CACHED_LISTS)

    # the rows

    async def of(self, account: str) -> list[str]:
        """The addresses, sorted."""
        return [row["address"] for row in await self.rows(account)]

    async def rows(self, account: str) -> Sequence[Row]:
        """The same with `since`, when each was blocked, in seconds since the epoch."""
        return (await self._store.scan(BLOCKS, (account,))).rows

    async def of_many(self, accounts: Sequence[str]) -> list[list[str]]:
        """The addresses that each has blocked, sorted."""
        found = await self._store.scan_many(BLOCKS, accounts)
        return [[row["address"] for row in rows] for rows in found]

    async def write(
        self, account: str, *, blocked: Iterable[str], unblocked: Iterable[str], since: float
    ) -> None:
        """Block some addresses, which were not, and others no more."""
        writes: list[Put | Delete] = [Delete((address,)) for address in sorted(unblocked)]
        writes += [Put({"address": address, "since": since}) for address in sorted(blocked)]
        if writes:
            await self._store.batch(BLOCKS, (account,), writes)

    async def delete(self, account: str) -> None:
        """The list goes with its account."""
        await self._store.delete(BLOCKS, (account,))

    # what is known

    @property
    def cached(self) -> int:
        """Of how many accounts without a session here it is known whom they bar, or that they bar nobody."""
        return len(self._barring_nobody) + len(self._lists)

    def known(self, account: str) -> frozenset[str] | None:
        """The list of an account, None where it has to be read first (`load`)."""
        live = self._live.get(account)
        if live is not None:
            return live.blocks
        return self.remembered(account)

    def remembered(self, account: str) -> frozenset[str] | None:
        """The list of an account that has no session here yet; None where it has to be read first."""
        found = self._barring_nobody.get(account)
        return found if found is not None else self._lists.get(account)

    def load(self, account: str) -> frozenset[str] | Awaitable[frozenset[str]]:
        """The list of an account. Nothing is read or kept where there is none of that name."""
        known = self.known(account)
        return known if known is not None else begun(self._load(account))

    async def _load(self, account: str) -> frozenset[str]:
        exists = self._accounts.exists(account)
        if not (exists if isinstance(exists, bool) else await exists):
            return NOBODY
        return await self.read(account)

    async def read(self, account: str) -> frozenset[str]:
        """The list as it is in the store, not older than what this node has heard of by now."""
        while True:
            mark = self._changes.mark
            found = barred(await self.of(account))
            if not self._changes.since(account, mark):
                break
        self._remember(account, found)
        return found

    async def learn(self, accounts: Sequence[str]) -> None:
        """Know the lists of some accounts, read together where they have to be."""
        unknown = [account for account in accounts if self.known(account) is None]
        if not unknown:
            return
        mark = self._changes.mark
        for account, addresses in zip(unknown, await self.of_many(unknown), strict=True):
            if self._changes.since(account, mark):
                await self.read(account)
            else:
                self._remember(account, barred(addresses))

    def _remember(self, account: str, found: frozenset[str]) -> None:
        (self._lists if found else self._barring_nobody).put(account, found)
        (self._barring_nobody if found else self._lists).drop(account)

    def doubt(self, account: str) -> bool:
        """The list of an account is another one now: what is remembered of it, and what is being read, counts
        no more. Whether anything was remembered.
        """
        self._changes.note(account)
        was_known = self.remembered(account) is not None
        self._barring_nobody.drop(account)
        self._lists.drop(account)
        return was_known

    def doubt_all(self) -> None:
        """The same of every account."""
        self._changes.note_all()
        self.release()

    def release(self) -> None:
        """Give up the memory of what can be read again."""
        self._barring_nobody.clear()
        self._lists.clear()

    # what it means

    def bars(self, account: str, other: str) -> bool:
        """Whether an account, by what is known here, bars an address in normal form."""
        addresses = self.known(account)
        return bool(addresses) and bars(account, addresses or NOBODY, other)

    def has_between(self, viewer: str, owner: str) -> bool:
        """Whether one of these bars the other, by what is known here: `viewer` an account, `owner` one as
        well or a session (its full JID). A viewer on another node is left to that: it knows first.
        """
        live = self._live.get(viewer)
        if live is not None and live.blocks and live.bars(owner):
            return True
        return self.bars(owner.partition("/")[0], viewer)

    async def will_bar(self, account: str, other: str) -> bool:
        """The same as `bars`, when the list is known."""
        if self.known(account) is None:
            loading = self.load(account)
            addresses = loading if isinstance(loading, frozenset) else await loading
            return bars(account, addresses, other)
        return self.bars(account, other)

    def check_sent(self, session: Session, stanza: Stanza) -> None:
        """What a session sends to somebody whom its account bars is not routed: StanzaError not-acceptable
        (XEP-0191 3.3).
        """
        try:
            to = Jid.parse(stanza.to or session.account).full
        except JidError:
            return  # it is refused for that
        if session.live.bars(to):
            raise StanzaError("not-acceptable", type="cancel", detail=BLOCKED)
