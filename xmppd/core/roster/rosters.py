"""Rosters that last (RFC 6121 2): loaded once, changed by compare-and-set on the version that 2.6 shows.

An account's roster is one partition of `ROSTER`. Whoever changes it writes the row, the next version and an
entry of the log (`xmppd.core.roster.log`) in one batch, on condition that the version is still the one that
was read; so writers in several processes are linear.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from weakref import WeakValueDictionary
from xml.etree.ElementTree import Element

from xmppd.core.begun import begun
from xmppd.core.roster.budget import DAY, OTHERS_A_DAY, OWN_A_DAY, DailyBudget
from xmppd.core.roster.cache import Roster, RosterBuilder, RosterCache, UnknownItem
from xmppd.core.roster.change import Change, Received, Sent, SubscriptionChange, is_richer, seen
from xmppd.core.roster.counts import RosterCounts, check_counts
from xmppd.core.roster.delta import lag
from xmppd.core.roster.item import ITEM, LOG, ROSTER, RosterItem, item_key, item_of, row_of
from xmppd.core.roster.log import ENTRIES_A_DAY, LogEntry, entry_of, version_name
from xmppd.core.roster.request import RemoveRequest, SetRequest, check_names, check_request, parse_set
from xmppd.core.roster.rewriting import EditAll, Packed, Rewrite
from xmppd.core.roster.slices import in_slices
from xmppd.core.roster.subscription import Inbound, Kind, Outbound
from xmppd.core.roster.tier import RosterTier
from xmppd.core.roster.wish import Edit, Intend, Wish
from xmppd.errors import StanzaError, StoreConflict, StoreError, StoreTimeout, StoreUnavailable
from xmppd.store.table import Delete, Put, Row, Store
from xmppd.stream.lru import Lru
from xmppd.xml.roster import roster_query

__all__ = [
    "ROSTER",
    "Change",
    "Edit",
    "LogEntry",
    "NoRoster",
    "RemoveRequest",
    "Roster",
    "RosterItem",
    "Rosters",
    "SetRequest",
    "SubscriptionChange",
    "check_request",
]

_ATTEMPTS = 32
"""How often a change is tried against writers in other processes; those of this one wait for each other."""

_READS = 3
"""How often a roster is read when it was changed elsewhere each time meanwhile."""

_LOAD_PAGE = 256
"""Rows of a roster read at once: those of nearly every roster."""

_LOG_PAGE = 200
"""Entries of the log read at once by tools."""

_RETRY_SECONDS = 4.0
"""How long after its beginning a change of unknown outcome is looked at and, if need be, made again. Nodes
that change one roster at once leave each other such outcomes soon; a store that is gone takes longer.
"""

RESULTS = 64
MAX_RESULT_BYTES = 65_536
"""How many answers to roster gets are kept ready, and how long they may be: for clients that ask again."""


class NoRoster(StanzaError):
    """There is no account to keep the roster: it is an anonymous one, or being removed."""


class Rosters:
    """All rosters, in the store and in memory.

    `max_items` and `max_bytes` bound what a roster shows, `max_requests` the subscription requests that wait
    in it, `max_groups` the groups of an item, `max_name_bytes` a name and a group, `cache_bytes` all rosters
    kept in memory here (sessions may hold more). Changes are logged for `log_days` (0: not at all). `tier` is
    a cache that other nodes share. `hold` says whether there is an account to change a roster of (see
    `Accounts.hold`). `now` gives seconds since the epoch. `on_loaded` is told of every roster read from
    elsewhere than memory, `on_unsure` of every account whose roster may have been changed and must be loaded
    to know.
    """

    def __init__(
        self,
        store: Store,
        *,
        max_items: int = 1000,
        max_bytes: int = 262_144,
        max_requests: int = 200,
        max_groups: int = 10,
        max_name_bytes: int = 1023,
        cache_bytes: int = 64 << 20,
        log_days: float = 90,
        tier: RosterTier | None = None,
        hold: Callable[[str], AbstractAsyncContextManager[bool]] = lambda account: nullcontext(True),
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._hold = hold
        self._tier = tier
        self.on_loaded: Callable[[Roster], None] | None = None
        self.on_unsure: Callable[[str], None] | None = None
        self.intend: Intend | None = None
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._max_requests = max_requests
        self._max_groups = max_groups
        self._max_name_bytes = max_name_bytes
        self._now = now
        self._log_seconds = log_days * DAY
        self.log_budget = DailyBudget(ENTRIES_A_DAY, ENTRIES_A_DAY)
        self.additions = DailyBudget(max(OWN_A_DAY, max_items), OTHERS_A_DAY)
        self._cache = RosterCache(cache_bytes)
        self._results: Lru[str, tuple[Roster, bytes]] = Lru(RESULTS)
        self._loading: dict[str, asyncio.Future[Roster | None]] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._unsure: set[str] = set()

    # reading

    @property
    def cache(self) -> Mapping[str, int]:
        """How much is kept in memory, and how many rosters need a look because a write timed out."""
        return {
            "rosters": len(self._cache),
            "roster_bytes": self._cache.bytes,
            "rosters_unsure": len(self._unsure),
        }

    def cached(self, account: str) -> Roster | None:
        """The account's roster if it is in memory."""
        return self._cache.get(account)

    @property
    def is_told(self) -> bool:
        """Whether other nodes' changes are heard of, so that a roster that was loaded is the newest one."""
        return self._tier is None or self._tier.cache.is_heard

    def load(self, account: str) -> Roster | Awaitable[Roster]:
        """The account's roster (an empty one if nothing was ever written), at once if it is in memory or the
        store has it at hand.
        """
        return self._cache.get(account) or begun(self._load(account))

    async def get_item(self, account: str, contact: str) -> RosterItem | None:
        """One item as the store has it, hidden ones included."""
        row = await self._store.get(ROSTER, item_key(account, contact))
        return None if row is None else item_of(row)

    async def items(self, account: str) -> list[RosterItem]:
        """All items as the store has them, hidden ones included, by contact."""
        found: list[RosterItem] = []
        async for rows in in_slices(await self._rows(account)):
            found += map(item_of, rows)
        return found

    async def packed(self, accounts: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
        """The version of each of some rosters, and its items as they are packed (`value_of`), by contact."""
        found = await self._store.scan_many(ROSTER, accounts, start=(ITEM,), end=(ITEM,))
        return await asyncio.gather(*map(self._packed, accounts, found))

    async def _packed(self, account: str, rows: Sequence[Row]) -> tuple[int, dict[str, str]]:
        if rows and rows[0]["version"] != rows[-1]["version"]:  # it was changed meanwhile
            rows = await self._rows(account)
        version, rows = await self._dated(account, rows)
        return version, {row["name"]: row["value"] for row in rows}

    async def log(self, account: str, *, after: int = 0, limit: int | None = None) -> list[LogEntry]:
        """The log's entries of versions above `after`, oldest first; the first `limit` of them."""
        start = (LOG, version_name(after + 1))
        page = await self._store.scan(ROSTER, (account,), start=start, end=(LOG,), limit=limit)
        return [entry_of(row) for row in page.rows]

    async def log_backwards(self, account: str) -> AsyncGenerator[LogEntry, None]:
        """The log's entries, newest first, read by pages: who has seen enough stops."""
        page: bytes | None = None
        while True:
            found = await self._store.scan(
                ROSTER, (account,), start=(LOG,), end=(LOG,), limit=_LOG_PAGE, reverse=True, page=page
            )
            for row in found.rows:
                yield entry_of(row)
            if (page := found.next) is None:
                return

    def forget(self, account: str) -> None:
        """Drop the roster from memory: somebody else may have changed it."""
        self._cache.drop(account)
        self._loading.pop(account, None)

    def forget_all(self) -> None:
        """Drop all rosters from memory, and keep none that is being read now."""
        self._cache.clear()
        self._loading.clear()

    def release(self) -> None:
        """Give up the memory of all rosters that no session holds."""
        self._cache.clear()
        self._results.clear()

    async def _load(self, account: str, *, fresh: bool = False) -> Roster:
        """Read the roster, or wait for whoever is reading it already; `fresh`: from the store, now."""
        while not fresh and (other := self._loading.get(account)) is not None:
            read = await asyncio.shield(other)
            newest = self._cache.get(account) or read
            if newest is not None:
                return newest
        mine: asyncio.Future[Roster | None] = asyncio.get_running_loop().create_future()
        self._loading[account] = mine
        try:
            roster, may_keep = await self._read_newest(account, mine, fresh=fresh)
        except StoreError as error:
            mine.set_exception(error)
            mine.exception()  # nobody may be waiting
            raise
        else:
            if may_keep:
                roster = self._cache.keep(roster)
            if self.on_loaded is not None:
                self.on_loaded(roster)
            mine.set_result(roster)
            return roster
        finally:
            if self._loading.get(account) is mine:
                del self._loading[account]
            if not mine.done():
                mine.set_result(None)  # cancelled: the next one in the queue reads

    async def _read_newest(
        self, account: str, mine: asyncio.Future[Roster | None], *, fresh: bool
    ) -> tuple[Roster, bool]:
        """Read again when `forget` was called meanwhile: who loads the roster now heard nothing of why."""
        for _ in range(_READS):
            roster, may_keep = await self._read(account, fresh=fresh)
            if self._loading.get(account) is mine:
                return roster, may_keep
            self._loading.setdefault(account, mine)
        return roster, False

    async def _read(self, account: str, *, fresh: bool) -> tuple[Roster, bool]:
        """The roster, and whether it may be kept in memory."""
        if self._tier is None:
            return await self._fetch(account), True
        return await self._tier.load(account, self._fetch, fresh=fresh)

    async def _fetch(self, account: str) -> Roster:
        if account in self._unsure:
            await self._settle(account)
        version, rows = await self._dated(account, await self._rows(account))
        if not rows:
            return Roster(account, version)
        builder = RosterBuilder(account)
        async for some in in_slices(rows):
            builder.add(some)
        return builder.done(version)

    async def _dated(self, account: str, rows: Sequence[Row]) -> tuple[int, Sequence[Row]]:
        """The version of what was read, which each row shows. Where there is none it has to be asked for, and
        then the rows are read behind it: so they may be newer than the version, which whoever changes them
        finds out, or hears of; and are never older, which nobody would.
        """
        version = 0
        if not rows and (version := await self.version(account)):
            rows = await self._rows(account)
        return (rows[0]["version"] or 0) if rows else version, rows

    async def _rows(self, account: str) -> Sequence[Row]:
        """The rows of all items at one version, read a few at a time: others have their turn where there are
        many. The log is another range of the partition and costs them nothing.
        """
        scan = functools.partial(self._store.scan, ROSTER, (account,), start=(ITEM,), end=(ITEM,))
        for _ in range(_READS):
            page = await scan(limit=_LOAD_PAGE)
            rows = page.rows
            while page.next is not None:
                await asyncio.sleep(0)
                page = await scan(limit=_LOAD_PAGE, page=page.next)
                rows += page.rows
            if not rows or rows[0]["version"] == rows[-1]["version"]:
                return rows
        return (await scan()).rows  # in one go: somebody changes it all the while

    async def version(self, account: str) -> int:
        """The version that stands in the store; 0: nothing was ever written."""
        static = await self._store.get_static(ROSTER, (account,))
        return int(static["version"] or 0) if static is not None else 0

    # changing

    async def change(
        self,
        account: str,
        contact: str,
        edit: Edit,
        *,
        by: str = "",
        what: str = "set",
        most: RosterCounts | None = None,
    ) -> Change:
        """Replace one item by what `edit` makes of it, durably. The one read-modify-write of rosters.

        The log says that `by` (by default the account) did `what`; see `LogEntry`.

        Changes of one account come back in the order of their versions: push before awaiting anything else.
        StanzaError resource-constraint when the roster is full, or has `most` of a kind; NoRoster without
        such an account; StoreConflict if others never stop.
        """
        async with self._hold(account) as exists, self._lock(account):
            if not exists:
                raise NoRoster("not-allowed", "There is no account that could keep contacts.")
            wish = Wish(contact, edit, by or account, what, time.monotonic() + _RETRY_SECONDS, most=most)
            roster = self._cache.get(account)
            try:
                for attempt in range(_ATTEMPTS):
                    roster = roster or await self._load(account, fresh=attempt > 0)
                    change = await self._try(roster, wish, is_first=attempt == 0)
                    if change is not None:
                        wish.made_of(change)
                        return change
                    self.forget(account)
                    roster = None
            except BaseException:
                wish.doubt()
                raise
        wish.doubt()
        raise StoreConflict(f"roster of {account}")

    async def rewrite(self, account: str, edit: EditAll, *, by: str, what: str) -> Rewrite:
        """Replace all items by what `edit` makes of them, durably, without a word to anybody: the log says
        that it happened, so that every client is given its whole roster, and no limit is asked. The account
        need not exist. In pieces: who is interrupted does it again.
        """
        entry = LogEntry(0, 0, 0.0, by, what, "", None, None, is_whole=False)
        async with self._lock(account):
            for _ in range(_ATTEMPTS):
                version, old = await self._packed(account, await self._rows(account))
                rewrite = Rewrite(old, edit(old), version)
                put = functools.partial(self._put, account)
                made = await rewrite.write(put, entry, self._now, self._log_seconds)
                self.forget(account)
                if made is not None:
                    return rewrite._replace(version=made)
        raise StoreConflict(f"roster of {account}")

    async def check(self, account: str, contact: str, edit: Edit) -> None:
        """StanzaError as `change` would raise it now; nothing is changed."""
        roster = self._cache.get(account) or await self._load(account)
        old = await self.get_item(account, contact)
        new = edit(old)
        if new != old:
            self._check_room(roster, old, new)

    async def foresee(self, account: str, contact: str, kind: Kind) -> Outbound:
        """What `outbound_subscription` would do now; StanzaError as it would raise it. Nothing is changed."""
        edit = Sent(contact, kind)
        await self.check(account, contact, edit)
        return edit.step

    async def lay(self, account: str, items: Packed, *, by: str, what: str) -> int:
        """Write the roster of an account that does not exist yet and never had one: nothing is read, and
        nobody is asked. The version made.
        """
        entry = LogEntry(0, 0, 0.0, by, what, "", None, None, is_whole=False)
        put = functools.partial(self._put, account, blind=True)
        made = await Rewrite({}, items, 0).write(put, entry, self._now, self._log_seconds)
        self.forget(account)
        return made or 0

    def _lock(self, account: str) -> asyncio.Lock:
        lock = self._locks.get(account)
        if lock is None:
            lock = self._locks[account] = asyncio.Lock()
        return lock

    async def _try(self, roster: Roster, wish: Wish, *, is_first: bool) -> Change | None:
        """One attempt; None when it has to be made again, on the roster as it is now."""
        contact = wish.contact
        step = self._step_by_memory(roster, wish) if is_first else None
        if step is None:
            row = await self._store.get(ROSTER, item_key(roster.account, contact))
            if row is not None and (row["version"] or 0) != roster.version:
                return None
            old = None if row is None else item_of(row)
            if wish.made is not None and wish.made[1] == old:
                return Change(contact, *wish.made, roster)
            new = wish.edit(old)
            if new == old:
                return Change(contact, old, new, roster)
            self._check(roster, old, new, wish)
        else:
            old, new = step
        # By the clock, so that no version comes back after a roster was deleted or restored from a backup.
        now = self._now()
        after = roster.changed(contact, new, max(roster.version + 1, int(now * 1000)))
        entry = LogEntry(after.version, roster.version, now, wish.by, wish.what, contact, old, new)
        writes: list[Put | Delete] = [Delete((ITEM, contact)) if new is None else Put(row_of(new))]
        if is_logged := self._log_seconds > 0 and self.log_budget.has_room(roster.account, wish.by, now):
            writes.append(entry.put(self._log_seconds))
        if self.intend is not None:
            await wish.foresee(self.intend(roster.account, contact, old, new), roster.version, after.version)
        try:
            if not await self._write(roster, after, writes):
                return None
        except StoreTimeout:
            # What became of it is seen by who loads the roster next, for that moves the version on first.
            if time.monotonic() > wish.end:
                raise
            wish.made = old, new
            return None
        if is_logged:
            self.log_budget.spend(roster.account, wish.by, now)
        if old is None:
            self.additions.spend(roster.account, wish.by, now)
        return Change(contact, old, new, after)

    def _step_by_memory(
        self, roster: Roster, wish: Wish
    ) -> tuple[RosterItem | None, RosterItem | None] | None:
        """The item before and after, by the roster in memory: that it is still the one is seen by the write.
        None where nothing is to be written, or where it is refused: the store has to say so itself.
        """
        try:
            old = roster.item(wish.contact)
            new = wish.edit(old)
            if new == old:
                return None
            self._check(roster, old, new, wish)
        except (StanzaError, UnknownItem):
            return None
        return old, new

    def _check(self, roster: Roster, old: RosterItem | None, new: RosterItem | None, wish: Wish) -> None:
        """StanzaError for an item that is too much."""
        self._check_room(roster, old, new)
        check_counts(roster, old, new, wish.most)
        self._check_additions(roster, old, wish)

    def _check_room(self, roster: Roster, old: RosterItem | None, new: RosterItem | None) -> None:
        if new is None:
            return
        if not new.hidden and (old is None or old.hidden) and roster.size >= self._max_items:
            raise StanzaError("resource-constraint", f"A roster has at most {self._max_items} contacts.")
        if is_richer(old, new) and roster.length + len(seen(new)) - len(seen(old)) > self._max_bytes:
            raise StanzaError("resource-constraint", f"A roster has at most {self._max_bytes} bytes.")
        if new.pending_in and not (old and old.pending_in) and len(roster.requests) >= self._max_requests:
            raise StanzaError("resource-constraint", "Too many subscription requests wait for an answer.")

    def _check_additions(self, roster: Roster, old: RosterItem | None, wish: Wish) -> None:
        """Bound the items that come, for each of them may leave a mark in the store when it goes."""
        account = roster.account
        is_users = wish.by.partition("/")[0] in (account, wish.contact)
        if old is None and is_users and not self.additions.has_room(account, wish.by, self._now()):
            raise StanzaError("resource-constraint", "Too many contacts were added today.")

    async def _write(self, roster: Roster, after: Roster, writes: Sequence[Put | Delete]) -> bool:
        """Replace `roster` by `after` in the store; whether it was still what stands there."""
        account = roster.account
        is_written, may_keep = await self._put(account, roster.version, after.version, writes, after)
        if may_keep:
            self._cache.keep(after)
        elif is_written:
            self.forget(account)
        return is_written

    async def _put(
        self,
        account: str,
        version: int,
        newer: int,
        writes: Sequence[Put | Delete] = (),
        after: Roster | None = None,
        *,
        ttl: float | None = None,
        blind: bool = False,
    ) -> tuple[bool, bool]:
        """Write to the store, and make the version `newer`, to live for `ttl` seconds, if it is `version` (0:
        never written), or whatever it is (`blind`). Whether that was done, and whether `after` may be kept in
        memory.
        """
        static, expect = {"version": newer}, None if blind else {"version": version or None}
        batch = functools.partial(
            self._store.batch, ROSTER, (account,), writes, static=static, expect=expect, ttl=ttl
        )
        try:
            if self._tier is not None:
                return await self._tier.write(account, batch, after)
            is_written = await batch()
        except StoreUnavailable:
            raise
        except BaseException:  # timed out or cancelled: it may be written yet
            self._unsure.add(account)
            self.forget(account)
            if self.on_unsure is not None:
                self.on_unsure(account)
            raise
        return is_written, is_written

    async def _settle(self, account: str) -> None:
        """Move the version on, so that a write of unknown outcome is either done or can never be."""
        version = await self.version(account)
        await self._put(account, version, version + 1)
        self._unsure.discard(account)

    async def remove_account(self, account: str) -> None:
        """Delete the whole roster. Tell the contacts before: `items` and their `farewell` say what.

        A version stays for a day, so that no write that is late, the very first one included, finds what it
        expected.
        """
        for _ in range(_ATTEMPTS):
            version = await self.version(account)
            newer = max(version + 1, int(self._now() * 1000))
            is_done, _ = await self._put(account, version, newer, [Delete()], ttl=DAY)
            self.forget(account)
            if is_done:
                return
        raise StoreConflict(f"roster of {account}")

    # roster iqs (RFC 6121 2.1.3 to 2.5)

    def parse_set(self, account: str, query: Element) -> SetRequest | RemoveRequest:
        """What a client's roster set wants; StanzaError as in RFC 6121 2.3.3."""
        return parse_set(query, account, max_groups=self._max_groups, max_name_bytes=self._max_name_bytes)

    def check_names(self, name: str, groups: Sequence[str]) -> None:
        """StanzaError for a name or groups that no item of this server may have (RFC 6121 2.3.3)."""
        check_names(name, groups, max_groups=self._max_groups, max_name_bytes=self._max_name_bytes)

    async def set_item(self, account: str, request: SetRequest, *, by: str = "") -> Change:
        """Add the contact, or replace its name and groups (RFC 6121 2.3, 2.4)."""

        def edit(item: RosterItem | None) -> RosterItem:
            item = item or RosterItem(request.contact)
            return replace(item, name=request.name, groups=request.groups, hidden=False)

        return await self.change(account, request.contact, edit, by=by)

    async def remove_item(self, account: str, contact: str, *, by: str = "") -> Change:
        """Remove the contact (RFC 6121 2.5), or StanzaError item-not-found. Tell it `old.farewell`."""

        def edit(item: RosterItem | None) -> None:
            if item is None or item.hidden:
                raise StanzaError("item-not-found")

        return await self.change(account, contact, edit, by=by, what="remove")

    def result(self, roster: Roster, asked: str | None) -> bytes | None:
        """The payload that answers a roster get; None for a client that has this very version (2.6)."""
        version = str(roster.version)
        if asked == version:
            return None
        found = self._results.get(roster.account)
        if found is not None and found[0] is roster:
            return found[1]
        payload = roster_query(roster.packed, version)
        if len(payload) <= MAX_RESULT_BYTES:
            self._results.put(roster.account, (roster, payload))
        return payload

    def lag(self, roster: Roster, asked: str) -> int | None:
        """The version a client asked with, if the log may tell what happened since (2.6.3)."""
        return lag(asked, roster.version) if self._log_seconds else None

    def push(self, change: Change) -> bytes:
        """The payload of the push that tells of a change (RFC 6121 2.1.6)."""
        return change.push

    # subscriptions (RFC 6121 3)

    async def outbound_subscription(
        self, account: str, contact: str, kind: Kind, *, by: str = ""
    ) -> SubscriptionChange[Outbound]:
        """The account sends `kind` to the contact: its half of it (RFC 6121 A.2). A repeat is harmless."""
        if contact == account:
            raise StanzaError("not-allowed", "Nobody subscribes to their own presence.")
        edit = Sent(contact, kind)
        change = await self.change(account, contact, edit, by=by, what=f"sent {kind}")
        return SubscriptionChange(change, edit.step)

    async def inbound_subscription(
        self, account: str, contact: str, kind: Kind, request: bytes = b"", *, by: str = ""
    ) -> SubscriptionChange[Inbound]:
        """The contact's `kind` reaches the account: its half of it (RFC 6121 A.3). A repeat is harmless.

        `request` is the whole `subscribe` stanza, to be shown again at every login. StanzaError
        policy-violation if it is longer than is kept, resource-constraint if too many wait.
        """
        check_request(request)
        edit = Received(contact, kind, request)
        change = await self.change(account, contact, edit, by=by or contact, what=f"received {kind}")
        return SubscriptionChange(change, edit.step)
