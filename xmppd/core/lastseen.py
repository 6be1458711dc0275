"""The last thing an account said when it left, for those who ask while it is away (RFC 6121 4.3.2, 4.5.2)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import lru_cache
from typing import Any

from xmppd import ns
from xmppd.core.roster.rosters import Roster, Rosters
from xmppd.core.sessions import Broadcast, Session, Sessions
from xmppd.core.visibility import Visibility
from xmppd.errors import StoreError
from xmppd.jid import Jid
from xmppd.moments import utc_stamp
from xmppd.store.person import Person
from xmppd.store.table import Row, Store, Table, Value
from xmppd.stream.lru import Lru
from xmppd.xml import build
from xmppd.xml.stanza import Stanza

LAST_PRESENCE = Table(
    "last_presence",
    partition=("account",),
    columns={"head": "blob", "tail": "blob", "at": "timestamp"},
    ttl=90 * 86400.0,
    person=Person("account"),
)
CACHE_ENTRIES = 100_000
SHOWN_AT_ONCE = 50
"""Of how many contacts the last words are read in one go."""
ROSTERS_AT_ONCE = 32
"""How many rosters are read at once to see who may be shown last words, for all sessions together: those who
log in wait for rosters too.
"""
MAX_BYTES = 4096
"""The longest last words that are kept: a cache full of them takes 400 MB."""

SILENCE = Broadcast(b"", b"")
"""What an account said that left without a word."""


class LastSeen:
    """Keeps last unavailable presence that had something to say, and shows it to contacts who log in
    later. `hold` says whether there is an account to keep it for (see `Accounts.hold`).
    """

    def __init__(
        self,
        store: Store,
        sessions: Sessions,
        rosters: Rosters,
        visibility: Visibility,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        now: Callable[[], float],
        hold: Callable[[str], AbstractAsyncContextManager[bool]],
    ) -> None:
        self._store = store
        self._hold = hold
        self._sessions = sessions
        self._rosters = rosters
        self._visibility = visibility
        self._spawn = spawn
        self._now = now
        self._known: Lru[str, Broadcast] = Lru(CACHE_ENTRIES)
        self._writing: set[str] = set()
        self._due: dict[str, dict[str, Value] | None] = {}
        self._doubtful: set[str] = set()
        self._drops = 0
        self._rooms = asyncio.Semaphore(ROSTERS_AT_ONCE)

    @property
    def cached(self) -> int:
        """How many accounts' last words are in memory."""
        return len(self._known)

    def remember(self, account: str, unavailable: Broadcast) -> None:
        """Keep what the account said when its last resource left; SILENCE forgets what it said before. Of one
        that looks offline to anybody that stays which was said before.
        """
        if account in self._visibility.hidden:
            return
        if unavailable is SILENCE or len(unavailable.tail) > MAX_BYTES:
            if self._known.get(account) is not SILENCE:
                self._known.put(account, SILENCE)
                self._store_later(account, None)
            return
        at = self._now()
        tail = build.insert_child(unavailable.tail, "presence", delay(account, at))
        self._known.put(account, Broadcast(unavailable.head, tail))
        row: dict[str, Value] = {"account": account, "head": unavailable.head, "tail": tail, "at": at}
        self._store_later(account, row)

    def _store_later(self, account: str, row: dict[str, Value] | None) -> None:
        self._due[account] = row
        if account not in self._writing:
            self._writing.add(account)
            self._spawn(self._write(account))

    async def _write(self, account: str) -> None:
        """Write what the account said last, and behind it what it says meanwhile: of two writes under way
        either may be the one that stays.
        """
        failed: StoreError | None = None
        try:
            while account in self._due:
                try:
                    await self._write_one(account, self._due.pop(account))
                except StoreError as error:  # whether it is there is seen by reading, here and elsewhere
                    self._drops += 1
                    self._doubtful.add(account)
                    failed = error
                self._sessions.cluster.parted(account)
        finally:
            self._writing.remove(account)
            self._due.pop(account, None)
            if account in self._doubtful:
                self._doubtful.remove(account)
                self._known.drop(account)
        if failed is not None:
            raise failed

    async def _write_one(self, account: str, row: dict[str, Value] | None) -> None:
        async with self._hold(account) as exists:
            if not exists:
                self._known.drop(account)
            elif row is None:
                await self._store.delete(LAST_PRESENCE, (account,))
            else:
                await self._store.put(LAST_PRESENCE, row)

    def release(self) -> None:
        """Give up the memory of what can be read again: all but what is still being written."""
        self._known.retain(self._writing)

    def overtaken(self, account: str = "") -> None:
        """The account, or any, may have said something else on another node: what is stored counts, as soon
        as nothing of that is being written here.
        """
        self._drops += 1
        if not account:
            self.release()
            self._doubtful.update(self._writing)
        elif account in self._writing:
            self._doubtful.add(account)
        else:
            self._known.drop(account)

    def show(self, session: Session, contacts: Sequence[str]) -> None:
        """Send a session the last words of those contacts who are away and let its account see them."""
        wanted = [contact for contact in contacts if self._known.get(contact) is not SILENCE]
        if wanted:
            self._spawn(self._show(session, wanted))

    async def _show(self, session: Session, contacts: list[str]) -> None:
        for start in range(0, len(contacts), SHOWN_AT_ONCE):
            if session.presence is None:
                return
            await self._show_some(session, contacts[start : start + SHOWN_AT_ONCE])
            await asyncio.sleep(0)  # others have their turn: what is at hand was waited for by nobody

    async def _show_some(self, session: Session, contacts: list[str]) -> None:
        words = await self._words(contacts)
        # Few have said anything, so few rosters are read, side by side.
        due = [contact for contact in contacts if words[contact] is not SILENCE]
        rosters = await asyncio.gather(*map(self._roster, due))
        await self._visibility.blocks.learn(due)
        shown = session.give(self._shown(session, dict(zip(due, rosters, strict=True)), words))
        if shown is not None:
            await shown

    def _shown(
        self, session: Session, rosters: Mapping[str, Roster], words: Mapping[str, Broadcast]
    ) -> Iterator[bytes]:
        """The last words of those who are away still when the client takes them."""
        for contact, roster in rosters.items():
            last = self._known.get(contact) or words[contact]  # it may have come and gone meanwhile
            is_follower = roster.is_follower(session.account)
            may_see = is_follower and self._visibility.permits(session.account, contact)
            if may_see and self._is_due(session, contact) and last is not SILENCE:
                yield last.head + session.live.to_stamp + last.tail

    async def _words(self, accounts: Sequence[str]) -> dict[str, Broadcast]:
        known = {account: self._known.get(account) for account in accounts}
        if unknown := [account for account, last in known.items() if last is None]:
            drops = self._drops
            rows = await self._store.get_many(LAST_PRESENCE, unknown)
            learnt = [self._learn(account, row, drops) for account, row in zip(unknown, rows, strict=True)]
            known.update(zip(unknown, learnt, strict=True))
        return {account: last for account, last in known.items() if last is not None}

    async def _roster(self, account: str) -> Roster:
        if (cached := self._rosters.cached(account)) is not None:
            return cached
        async with self._rooms:
            loading = self._rosters.load(account)
            return loading if isinstance(loading, Roster) else await loading

    async def words(self, to: Jid) -> Broadcast:
        """What to tell who asks for an account or resource that is away, and may know (RFC 6121 4.3.2)."""
        last = self._known.get(to.bare) or await self._load(to.bare)
        if last is SILENCE or to.resource:
            return Broadcast(build.start_tag("presence", {"type": "unavailable", "from": to.full}), b"/>")
        return last

    async def forget(self, account: str) -> None:
        """The account is gone, and nobody inherits its words."""
        self._known.drop(account)
        await self._store.delete(LAST_PRESENCE, (account,))
        self._sessions.cluster.parted(account)

    def _is_due(self, session: Session, contact: str) -> bool:
        """Whether the session still wants to know, and the contact is still away, or looks so."""
        is_away = not self._sessions.is_available(contact)
        return session.presence is not None and (
            is_away or self._visibility.hidden.has(contact, session.account)
        )

    async def _load(self, account: str) -> Broadcast:
        drops = self._drops
        return self._learn(account, await self._store.get(LAST_PRESENCE, (account,)), drops)

    def _learn(self, account: str, row: Row | None, drops: int) -> Broadcast:
        """What a row says that was asked for after so many drops: it may be older than the last ones."""
        last = self._known.get(account)  # said while the store was asked
        if last is None:
            last = SILENCE if row is None else Broadcast(row["head"], row["tail"])
            if drops == self._drops:
                self._known.put(account, last)
        return last


def delay(sender: str, at: float) -> bytes:
    """A <delay/> stamp (XEP-0203) by `sender` for a moment in seconds since the epoch."""
    return _delay(sender, int(at * 1000))


def stamped(message: Stanza, sender: str, at: float) -> bytes:
    """A message with such a stamp, unless it has one by `sender`: that was made here when it was kept or left
    over before, for nobody else can make one (`Intake`).
    """
    name = f"{{{ns.DELAY}}}delay"
    if ns.DELAY.encode() in message.raw and any(
        one.get("from") == sender for one in message.xml.findall(name)
    ):
        return message.raw
    return build.insert_child(message.raw, "message", delay(sender, at))


@lru_cache(8)
def _delay(sender: str, at: int) -> bytes:
    """The same for milliseconds: many stamps are of one moment."""
    seconds, milliseconds = divmod(at, 1000)
    return build.delay(sender, f"{_whole_seconds(seconds)}.{milliseconds:03}Z")


@lru_cache(8)
def _whole_seconds(at: int) -> str:
    return utc_stamp(at).removesuffix("Z")
