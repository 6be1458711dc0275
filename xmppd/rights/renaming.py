"""An account that gets another address: its rows move, its contacts' rosters and block lists follow.

What is to be done is written down first (`MOVED`), each step may be repeated, and any node goes on with what
another one left. Nothing is decided by what was read before a step: it is read again.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from xmppd import ns
from xmppd.core.blocking import BlockChange
from xmppd.core.credentials import ACCOUNT, identity_of
from xmppd.core.gone import new_number
from xmppd.core.happenings import RENAMED
from xmppd.core.moved import Moved
from xmppd.core.names import AccountExists, AccountUnknown, NameMoved
from xmppd.core.roster.item import ROSTER, RosterItem, item_from, value_of
from xmppd.core.roster.repair import RosterRepair
from xmppd.core.roster.rewriting import Packed
from xmppd.core.shown import subscription_stanza
from xmppd.errors import CommandError, StanzaError, StreamError, XmppdError
from xmppd.migrate.merge import merged
from xmppd.rights.persons import Persons, pattern_of, person_of
from xmppd.store.table import Row, Stored, Table
from xmppd.xml.build import element, serialize

if TYPE_CHECKING:
    from xmppd.app import App

log = logging.getLogger(__name__)

DAY: Final = 86_400.0
ROUNDS: Final = (5.0, 60.0, 3_600.0, DAY)
"""Seconds after its end when it is looked for what came late under the old name."""
LOOK_SECONDS: Final = 30.0
PAUSES: Final = (1.0, 5.0, 30.0, 60.0)
"""Seconds after which what the store failed is tried again."""
DUTY: Final = "renaming"
BY: Final = "rename"
"""Who changed rosters, as their logs have it."""
LEFT_OUT: Final = frozenset(("account", "account_gone", "account_moved", "register_removals"))
"""Tables whose rows do not move: what is done about the account itself."""
ENDED: Final = "This account is called {new} now: log in under that name."


class Renaming:
    """Renames accounts of one server."""

    def __init__(self, app: App, persons: Persons) -> None:
        self.days = 0.0
        self._app = app
        self._store = app.store
        self._accounts = app.accounts
        self._persons = persons
        self._now = app.now
        self._clock = app.clock
        self._moved = Moved(app.store, app.now)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._looked = app.clock() - LOOK_SECONDS
        app.router.redirect = self._moved.redirect
        app.accounts.on_making.append(self._check_free)
        app.accounts.on_leaving.insert(0, self._check_still)
        self._moving = app.accounts.moving
        self._moving.on_roster = lambda *who: app.jobs.spawn(self._surely(self._carry, *who))
        self._moving.on_blocks = lambda *what: app.jobs.spawn(self._surely(self._carry_blocks, *what))
        self._repairs = RosterRepair(app.rosters, app.contacts, app.accounts, app.server.domains)
        self._blocks_turn = asyncio.Lock()
        app.everywhere.serve("account ending", self._end_here)
        app.everywhere.serve("account moving", self._still_here)
        app.everywhere.serve("account moved", self._take_over_here)

    # what commands ask for

    async def rename(self, old: str, new: str, by: str, seconds: float | None) -> Mapping[str, Any]:
        """Begin, or go on with what was begun, and wait for its end for so long (None: as it takes); what is
        done by then. CommandError, AccountUnknown, StoreError.
        """
        row = await self._moved.get(old)
        if row is None or row["state"] not in ("begun", "live") or row["new"] != new:
            await self._check(old, new, row)
            row = await self._begin(old, new, by)
        return await self._wait(row, seconds)

    async def undo(self, old: str, new: str, by: str, seconds: float | None) -> Mapping[str, Any]:
        """Give an account its old address back, after what was begun has been done. As `rename`."""
        row = await self._moved.get(old)
        if row is None or row["new"] != new:
            raise CommandError(f"{old} was not renamed to {new}, or too long ago")
        if row["state"] in ("begun", "live"):
            told = await self._wait(row, seconds)
            if told["state"] != "done":
                raise CommandError("the renaming is still under way: undo it in a while")
        return await self.rename(new, old, by, seconds)

    async def every(self) -> list[dict[str, Any]]:
        """All addresses that were given up and are still redirected."""
        rows = [row async for row in self._moved.every()]
        return sorted((shown(row) for row in rows), key=lambda row: str(row["account"]))

    async def _wait(self, row: Row, seconds: float | None) -> Mapping[str, Any]:
        task = self._go_on(row)
        await asyncio.wait({task}, timeout=seconds)
        if task.done() and not task.cancelled() and (problem := task.exception()) is not None:
            raise problem
        return shown(await self._moved.get(row["account"]) or row)

    async def _check(self, old: str, new: str, row: Row | None) -> None:
        """CommandError, AccountUnknown."""
        domain = new.rpartition("@")[2]
        if domain not in self._app.server.domains:
            raise CommandError(f"{domain} is not a domain of this server")
        if old == new:
            raise CommandError("the two addresses are the same")
        if row is not None and row["state"] in ("begun", "live"):
            raise CommandError(f"{old} is being renamed to {row['new']}")
        found = await self._store.get(ACCOUNT, (old,))
        if found is None or found["leaving"]:
            raise AccountUnknown(old)
        if await self._store.get(ACCOUNT, (new,)) is not None:
            raise AccountExists(new)
        if await self._accounts.erased.until(new) is not None:
            raise CommandError(f"the name {new} was erased, and is not free yet")
        before = await self._moved.get(new)
        if before is not None and (before["new"] != old or before["state"] in ("begun", "live")):
            raise NameMoved(new)

    async def _begin(self, old: str, new: str, by: str) -> Row:
        now, found = self._now(), await self._store.get(ACCOUNT, (old,))
        if found is None:
            raise AccountUnknown(old)
        row: Row = {
            "account": old,
            "new": new,
            "state": "begun",
            "at": now,
            "by": by,
            "created": found["created"],
            "changed": new_number(),
            "until": now + self.days * DAY,
            "round": 0,
            "due": now,
            "receipt": "{}",
        }
        await self._moved.put(row)
        return row

    async def _check_free(self, account: str) -> None:
        """Nobody makes an account under an address that leads to another one."""
        row = await self._moved.get(account)
        if row is not None and (row["state"] in ("begun", "live") or row["until"] > self._now()):
            raise NameMoved(account)

    async def _check_still(self, account: str) -> None:
        """Nobody removes an account while it is being renamed."""
        row = await self._moved.get(account)
        if row is not None and row["state"] == "begun":
            raise CommandError(f"{account} is being renamed to {row['new']}: wait for that first")

    # doing it

    def _go_on(self, row: Row) -> asyncio.Task[None]:
        old = row["account"]
        task = self._running.get(old)
        if task is None:
            task = self._running[old] = self._app.jobs.spawn(self._run(row))
            task.add_done_callback(lambda _: self._running.pop(old, None))
        return task

    async def _run(self, row: Row) -> None:
        async with self._app.server.lock(f"rename:{row['account']}"):
            found = await self._moved.get(row["account"])
            if found is None or found["new"] != row["new"]:
                return
            row = found
            if row["state"] == "begun":
                row = await self._move(row)
            if row["state"] == "live":
                await self._tell_contacts(row)

    async def _move(self, row: Row) -> Row:
        """All that the account has goes to its new name, and nobody has either of them meanwhile."""
        old, new = row["account"], row["new"]
        await self._persons.look()
        if not await self._reserve(row):
            await self._store.delete(self._table, (old,))
            raise AccountExists(new)
        source = await self._store.get(ACCOUNT, (old,))
        if source is not None and source["created"] == row["created"]:
            if not source["leaving"]:
                # As long as it is there, what its sessions did not acknowledge is kept for it.
                await self._app.everywhere.rows("account ending", {"account": old, "new": new})
                leaving = {"account": old, "leaving": True, "changed": new_number()}
                await self._store.put_if(ACCOUNT, leaving, identity_of(source))
            await self._app.everywhere.rows("account moving", {"account": old, "new": new})
            self._accounts.publish(old)
            self._accounts.on_revoked(old, None, False)
        counts = Counter[str]()
        for table in self._movable:
            counts[table.name] += await self._move_table(table, old, new, is_late=False)
        for account in (old, new):  # before anything can happen to the new one; again if this is cut short
            if (waiting := self._app.events.tell(RENAMED, account, {"old": old, "new": new})) is not None:
                await waiting
        await self._make_live(row)
        told = Counter(json.loads(row["receipt"])) + counts
        row = {**row, "state": "live", "receipt": json.dumps(told)}
        await self._moved.put(row)
        before = await self._moved.get(new)
        if before is not None and before["new"] == old:
            await self._store.delete(self._table, (new,))
        await self._redirect_others(old, new)
        if self._app.cache is not None:
            await self._app.cache.erase(old)
            await self._app.cache.erase(new)
        await self._app.everywhere.rows("account moved", {"account": old, "new": new})
        for account in (old, new):
            self._accounts.publish(account)
        return row

    @property
    def _table(self) -> Table:
        return next(table for table in self._persons.tables if table.name == "account_moved")

    @property
    def _movable(self) -> list[Table]:
        """Tables with rows under an address; those under numbers need not move."""
        return [it for it in self._persons.owned if person_of(it).through is None and it.name not in LEFT_OUT]

    async def _reserve(self, row: Row) -> bool:
        """Take the new name; whether it is ours."""
        mark: Row = {
            "account": row["new"],
            "created": row["created"],
            "leaving": True,
            "changed": row["changed"],
        }
        if await self._store.put_if(ACCOUNT, mark, None):
            return True
        found = await self._store.get(ACCOUNT, (row["new"],))
        return found is not None and found["created"] == row["created"]

    async def _make_live(self, row: Row) -> None:
        """The account itself, last: from then on somebody may log in; and then the old one goes."""
        source = await self._store.get(ACCOUNT, (row["account"],))
        target = await self._store.get(ACCOUNT, (row["new"],))
        if source is None or source["created"] != row["created"]:
            return  # it went in an attempt before this one
        if target is not None and target["leaving"]:
            columns = {name: source[name] for name in ACCOUNT.columns}
            fresh = {"changed": new_number(), "epoch": new_number(), "leaving": False}
            live = {"account": row["new"], **columns, **fresh}
            await self._store.put_if(ACCOUNT, live, identity_of(target))
        await self._store.delete_if(ACCOUNT, (row["account"],), identity_of(source))

    async def _move_table(self, table: Table, old: str, new: str, *, is_late: bool) -> int:
        """Write what is under the old name under the new one, and delete it there: row by row, so that what
        comes between stays for the next time. What `is_late` takes no newer row's place.
        """
        count, page = 0, None
        while True:
            dump = await self._store.dump(table, partition=(old,), limit=100, page=page)
            entries = [replace(stored, key=(new, *stored.key[1:])) for stored in dump.entries]
            if is_late:
                entries = [it for it in entries if not await self._is_taken(table, it)]
            await self._store.restore(table, entries)
            count += len(dump.entries)
            if not table.static:
                for stored in dump.entries:
                    await self._store.delete(table, stored.key)
            await asyncio.sleep(0)
            page = dump.next
            if page is None:
                break
        if table.static and count:
            await self._store.delete(table, (old,))
        return count

    async def _is_taken(self, table: Table, stored: Stored) -> bool:
        if len(stored.key) < len(table.key):
            return await self._store.get_static(table, stored.key) is not None
        return await self._store.get(table, stored.key) is not None

    async def _redirect_others(self, old: str, new: str) -> None:
        """Who came to have the old name from another one is found by the new one."""
        async for row in self._moved.every():
            if row["new"] == old and row["account"] != new and row["state"] not in ("begun", "live"):
                await self._moved.put({**row, "new": new})

    # on each node

    async def _end_here(self, arguments: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """End the sessions of the old name here, and have who does something with it wait. What they leave
        is written for it while it is there.
        """
        self._moving.begin(arguments["account"])
        text = ENDED.format(new=arguments["new"])
        for session in list(self._app.sessions.of(arguments["account"])):
            self._app.binding.end(session, StreamError("conflict", text))
        await self._app.left_over.seen_to(arguments["account"])
        return []

    async def _still_here(self, arguments: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """The same of those that came since; and wait for who writes for it."""
        self._accounts.forget(arguments["account"])
        await self._end_here(arguments)
        await self._accounts.still(arguments["account"])
        return []

    async def _take_over_here(self, arguments: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """Forget what is remembered of both names here."""
        old, new = arguments["account"], arguments["new"]
        for account in (old, new):
            self._accounts.forget(account)
            self._app.rosters.forget(account)
            self._app.blocks.doubt(account)
        self._moved.note(old, new)
        await self._app.hooks.tell_all(self._app.hooks.account_moved_signal, old, new)
        self._moving.done(old, new)
        return []

    # contacts

    async def _tell_contacts(self, row: Row) -> None:
        """Their rosters and block lists follow, first of those that the account knows."""
        old, new = row["account"], row["new"]
        counts = Counter(json.loads(row["receipt"]))
        for item in await self._app.rosters.items(new):
            counts["rosters of contacts"] += await self._change_roster(item.contact, old, new)
        for table in self._persons.mentioning:
            if table.name not in ("roster", "blocks"):
                continue
            async for entries in self._persons.mentions(table, old):
                for owner in dict.fromkeys(str(stored.key[0]) for stored in entries):
                    if table is ROSTER or table.name == "roster":
                        counts["rosters of contacts"] += await self._change_roster(owner, old, new)
                    else:
                        counts["block lists of others"] += await self._change_blocks(owner, entries, old, new)
        rest = {"state": "late", "round": 0, "due": self._now() + ROUNDS[0]}
        await self._moved.put({**row, **rest, "receipt": json.dumps(counts)})

    async def _change_roster(self, owner: str, old: str, new: str) -> int:
        """Whether a contact had the old name; its clients see the new one in its place."""
        if await self._store.get(ROSTER, (owner, "item", old)) is None:
            return 0
        seen: list[RosterItem] = []

        def edit(items: Packed) -> Packed:
            seen.clear()
            if old not in items:
                return items
            seen.append(item_from(old, items[old]))
            renamed = item_from(new, pattern_of(old).sub(lambda _: new, items[old]))
            rest = {contact: value for contact, value in items.items() if contact != old}
            if new in rest:
                renamed = merged(item_from(new, rest[new]), renamed)
            return {**rest, new: value_of(renamed)}

        async with self._accounts.hold(owner) as exists:
            if not exists:
                return 0
            rewrite = await self._app.rosters.rewrite(owner, edit, by=BY, what=BY)
            await self._app.contacts.rewritten(owner, rewrite)
        if seen and not seen[0].hidden:
            statement = serialize(moved_to(new), ns.CLIENT)
            stanza = subscription_stanza("unsubscribed", old, owner, statement)
            self._app.contacts.deliver_here(owner, stanza, to_interested=True)
            self._app.sessions.cluster.deliver(owner, stanza, to_interested=True)
            self._app.server.show_presence(new, owner)
            self._app.server.show_presence(owner, new)
        return len(seen)

    async def _change_blocks(self, owner: str, entries: Sequence[Stored], old: str, new: str) -> int:
        pattern = pattern_of(old)
        addresses = {str(stored.key[1]) for stored in entries if stored.key[0] == owner}
        async with self._changing_blocks(owner) as exists:
            if exists:
                addresses &= set(await self._app.blocking.of(owner))  # some were unblocked meanwhile
                renamed = tuple(pattern.sub(lambda _: new, it) for it in addresses)
                await self._app.blocking.change(
                    owner, BlockChange(renamed, tuple(addresses)), is_theirs=False
                )
        return int(exists)

    @asynccontextmanager
    async def _changing_blocks(self, owner: str) -> AsyncIterator[bool]:
        """Whether the account is there; one at a time, here and elsewhere."""
        async with (
            self._blocks_turn,
            self._app.server.lock(f"rename blocks:{owner}"),
            self._accounts.hold(owner) as exists,
        ):
            yield exists

    # what was done in that very moment

    async def _surely(self, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        for pause in PAUSES:
            try:
                await work(*arguments)
                return
            except XmppdError as error:
                log.warning("renaming-put-off", extra={"problem": str(error)})
            await asyncio.sleep(pause)

    async def _carry(self, owner: str, old: str) -> None:
        """A roster says something of an address that was being given up, or that one's could not be told: the
        item follows, and both halves agree.
        """
        new, owner = await self._moving.address(old), await self._moving.address(owner)
        exists = self._accounts.exists(old)
        if new == old or (exists if isinstance(exists, bool) else await exists):
            return
        await self._change_roster(owner, old, new)
        for fault in await self._repairs.between(owner, new, once=old):
            with suppress(StanzaError):  # a roster is full
                await self._repairs.mend(fault, is_known=True)

    async def _carry_blocks(self, owner: str, blocked: Collection[str], unblocked: Collection[str]) -> None:
        """The same of a block list: what was said last holds for the new address."""
        owner, renamed = await self._moving.address(owner), dict[str, str]()
        for address in (*blocked, *unblocked):
            old, slash, resource = address.partition("/")
            renamed[address] = f"{await self._moving.address(old)}{slash}{resource}"
        async with self._changing_blocks(owner) as exists:
            if exists:
                some = tuple(renamed[it] for it in blocked if renamed[it] != it)
                gone = [it for it in blocked if renamed[it] != it] + [renamed[it] for it in unblocked]
                await self._app.blocking.change(owner, BlockChange(some, tuple(gone)), is_theirs=False)

    # going on

    def look(self) -> None:
        """Called about once a second."""
        if self._clock() - self._looked >= LOOK_SECONDS:
            self._looked = self._clock()
            self._app.jobs.spawn(self._look())

    async def _look(self) -> None:
        """Remember what others have renamed; go on with what another node left, and look for what is late."""
        is_mine = not await self._app.duties.take(DUTY, LOOK_SECONDS / 2)
        try:
            known: dict[str, str] = {}
            async for row in self._moved.every():
                if row["state"] not in ("begun", "live") and row["until"] > self._now():
                    known[row["account"]] = row["new"]
                if row["state"] == "begun":
                    self._moving.begin(row["account"])
                if is_mine:
                    await self._look_at(row)
            self._moved.known = known
            for account in self._moving.under_way:  # the word that it is done may not have come here
                found = await self._moved.get(account)
                if found is None:
                    self._moving.stop(account)
                elif found["state"] != "begun":
                    self._moving.done(account, found["new"])
        except XmppdError as error:
            log.warning("renaming-put-off", extra={"problem": str(error)})
        finally:
            if is_mine:
                self._app.duties.done(DUTY)

    async def _look_at(self, row: Row) -> None:
        if row["state"] in ("begun", "live"):
            await asyncio.wait({self._go_on(row)})
        elif row["state"] == "late" and row["due"] <= self._now():
            await self._look_again(row)

    async def _look_again(self, row: Row) -> None:
        """What came under the old name goes to the new one, unless somebody has the old one by now."""
        old, new, number = row["account"], row["new"], row["round"]
        if await self._store.get(ACCOUNT, (old,)) is None:
            await self._persons.look()
            for table in self._movable:
                await self._move_table(table, old, new, is_late=True)
        if number == len(ROUNDS) - 1:
            await self._moved.put({**row, "state": "done"})
            return
        due = self._now() + ROUNDS[number + 1] - ROUNDS[number]
        await self._moved.put({**row, "round": number + 1, "due": due})


def moved_to(new: str) -> Any:
    """What says where an account has gone (XEP-0283, User publishes moved statement)."""
    return element(f"{{{ns.MOVED}}}moved", None, element(f"{{{ns.MOVED}}}new-jid", None, new))


def shown(row: Row) -> dict[str, Any]:
    """A row as operators see it."""
    counts = json.loads(row["receipt"])
    return {
        "account": row["account"],
        "new": row["new"],
        "state": "under way" if row["state"] in ("begun", "live") else "done",
        "moved": sum(count for name, count in counts.items() if " " not in name),
        "rosters": counts.get("rosters of contacts", 0),
        "blocks": counts.get("block lists of others", 0),
    }
