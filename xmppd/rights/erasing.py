"""An account erased everywhere: its own rows, its name in the rows of others, and what comes too late.

What is done is written down before it is begun (`ERASED`), each step may be repeated, and whichever node is
there goes on with what another one left.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from xmppd.access.audit import Audit
from xmppd.core.accounts import Accounts
from xmppd.core.blocking import Blocking
from xmppd.core.contacts import Contacts
from xmppd.core.credentials import ACCOUNT
from xmppd.core.erased import DAY, ERASED
from xmppd.core.gone import Late
from xmppd.core.moved import Moved
from xmppd.core.names import AccountUnknown
from xmppd.core.roster.item import ITEM, LOG, ROSTER
from xmppd.core.roster.tier import SharedCache
from xmppd.duties import Duties
from xmppd.errors import StoreError
from xmppd.moments import utc_stamp
from xmppd.rights.persons import Persons, masked, mentions_of, pattern_of, person_of
from xmppd.store.table import Row, Store, Stored, Table

log = logging.getLogger(__name__)

ROUNDS: Final = (60.0, 3_600.0, DAY)
"""Seconds after its end when it is looked for what came too late; the last time everywhere."""
LOOK_SECONDS: Final = 30.0
LOOKED_SECONDS: Final = 10.0
"""How long ago it may have been looked which tables are there, where accounts are removed one by one."""
DUTY: Final = "erasing"
BY: Final = "erase"
"""Who changed rosters of others, as their logs have it."""


class Erasing:
    """Erases accounts of one server. `now` gives seconds since the epoch, `clock` some that never jump."""

    def __init__(
        self,
        store: Store,
        accounts: Accounts,
        persons: Persons,
        contacts: Contacts,
        blocking: Blocking,
        cache: SharedCache | None,
        audit: Audit,
        duties: Duties,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        now: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._erased = accounts.erased
        self._persons = persons
        self._contacts = contacts
        self._blocking = blocking
        self._cache = cache
        self._audit = audit
        self._duties = duties
        self._spawn = spawn
        self._now = now
        self._clock = clock
        self._running: dict[str, asyncio.Task[None]] = {}
        self._last_looks: set[str] = set()
        self._looked = clock() - LOOK_SECONDS
        accounts.on_removed.append(self.clear)

    # what commands ask for

    async def erase(self, account: str, by: str, seconds: float | None) -> Mapping[str, Any]:
        """Begin, or go on with what was begun, and wait for its end for so long (None: as it takes): what
        `receipt` says then. AccountUnknown, StoreError.
        """
        row = await self._erased.get(account)
        if row is None or row["state"] == "done" or await self._is_here(account, row):
            row = await self._begin(account, by)
        if row["state"] == "begun":
            await asyncio.wait({self._go_on(row)}, timeout=seconds)
        return await self.receipt(account)

    async def receipt(self, account: str) -> Mapping[str, Any]:
        """What became of the erasure of an account; AccountUnknown: there was none."""
        row = await self._erased.get(account)
        if row is None:
            raise AccountUnknown(account)
        return self._receipt(row)

    async def _is_here(self, account: str, row: Row) -> bool:
        """Whether somebody else has the name by now."""
        found = await self._store.get(ACCOUNT, (account,))
        return found is not None and not found["leaving"] and found["created"] != row["created"]

    async def _begin(self, account: str, by: str) -> Row:
        """Write down what is about to be done; AccountUnknown."""
        found = await self._store.get(ACCOUNT, (account,))
        if found is None:
            raise AccountUnknown(account)
        await self._persons.look()
        counts = {table.name: await self._persons.count(table, account) for table in self._persons.owned}
        now = self._now()
        row: Row = {
            "digest": self._erased.digest(account),
            "account": account,
            "state": "begun",
            "at": now,
            "by": by,
            "created": found["created"],
            "until": now + self._erased.days * DAY,
            "round": 0,
            "due": now,
            "receipt": json.dumps({"deleted": {name: it for name, it in counts.items() if it}}),
        }
        await self._erased.put(row)
        return row

    def _receipt(self, row: Row) -> dict[str, Any]:
        told = json.loads(row["receipt"])
        rows = [
            {"table": name, "rows": count, "became": fate}
            for fate in ("deleted", "masked")
            for name, count in told.get(fate, {}).items()
        ]
        return {
            "erased": row["digest"],
            "state": "under way" if row["state"] == "begun" else "done",
            "asked": utc_stamp(row["at"]),
            "done": told.get("done"),
            "name_free": utc_stamp(row["until"]),
            "rows": rows,
            "not_looked_at": told.get("not looked at", []),
        }

    # doing it

    def _go_on(self, row: Row) -> asyncio.Task[None]:
        digest = row["digest"]
        task = self._running.get(digest)
        if task is None:
            task = self._running[digest] = self._spawn(self._run(row))
            task.add_done_callback(lambda _: self._running.pop(digest, None))
        return task

    async def _run(self, row: Row) -> None:
        account = row["account"]
        try:
            await self._persons.look()
            try:
                await self._accounts.remove(account, row["created"])
            except AccountUnknown:
                if not await self._is_here(account, row):
                    await self._accounts.scrub(Late(account, 0.0))
            told = json.loads(row["receipt"])
            for name in [*await self._former(account), account]:
                swept = await self._sweep(name)
                for fate in ("deleted", "masked"):
                    told[fate] = dict(Counter(told.get(fate, {})) + Counter(swept[fate]))
            if self._cache is not None:
                await self._cache.erase(account)
            now = self._now()
            told["done"] = utc_stamp(now)
            told["not looked at"] = self._persons.unknown
            text = json.dumps(told)
            mask = self._erased.mask(account)
            masked_by = masked(row["by"], pattern_of(account), mask)
            if (waiting := self._accounts.on_altered(account, "erased")) is not None:
                await waiting
            await self._audit.note("account erase", str(masked_by), {"account": mask}, text)
            rest = {"state": "late", "round": 0, "due": now + ROUNDS[0], "by": masked_by}
            await self._erased.put({**row, **rest, "receipt": text})
        except StoreError as error:
            log.warning("erasing-put-off", extra={"problem": str(error)})

    async def clear(self, account: str) -> None:
        """Delete what is left of an account's rows, whoever should have done that."""
        await self._persons.look(LOOKED_SECONDS)
        for table in self._persons.owned:
            if table.name == ACCOUNT.name or (person_of(table).stays and account not in self._last_looks):
                continue
            for partition in await self._persons.partitions(table, account):
                if (await self._store.dump(table, partition=partition, limit=1)).entries:
                    await self._store.delete(table, partition)

    # its name in the rows of others

    async def _former(self, account: str) -> list[str]:
        """The names that it had before."""
        moved = Moved(self._store, self._now)
        return [row["account"] async for row in moved.every() if row["new"] == account]

    async def _sweep(self, account: str) -> dict[str, Counter[str]]:
        """Take a name out of the rows of others, by what each table says; how many rows of each."""
        counts: dict[str, Counter[str]] = {"deleted": Counter(), "masked": Counter()}
        for table in self._persons.mentioning:
            if set(person_of(table).mentions.values()) == {"kept"} or table.name == ERASED.name:
                continue
            sweep = {"roster": self._sweep_rosters, "blocks": self._sweep_blocks}.get(table.name)
            async for entries in self._persons.mentions(table, account):
                if sweep is not None:
                    await sweep(account, entries, counts)
                    continue
                for stored in entries:
                    fate = await self._change(table, stored, account)
                    counts[fate][table.name] += 1
        return counts

    async def _change(self, table: Table, stored: Stored, account: str) -> str:
        """Delete or change one row."""
        fates = person_of(table).mentions
        deleting = [name for name, fate in fates.items() if fate == "deleted"]
        if deleting and mentions_of(table, account, deleting)(stored):
            await self._store.delete(table, stored.key)
            return "deleted"
        pattern, mask = pattern_of(account), self._erased.mask(account)
        changed = {
            name: masked(stored.values.get(name), pattern, mask)
            for name, fate in fates.items()
            if fate == "masked" and stored.values.get(name) is not None
        }
        left = None if stored.expires is None else max(1.0, stored.expires - self._now())
        await self._store.put(table, {**dict(zip(table.key, stored.key, strict=True)), **changed}, ttl=left)
        return "masked"

    async def _sweep_rosters(
        self, account: str, entries: Sequence[Stored], counts: Mapping[str, Counter[str]]
    ) -> None:
        """Contacts lose the item, as if they had removed it; their logs lose the name."""
        for owner in dict.fromkeys(str(stored.key[0]) for stored in entries):
            async with self._accounts.hold(owner) as exists:
                if exists and await self._store.get(ROSTER, (owner, ITEM, account)) is not None:
                    await self._contacts.remove_item(owner, account, BY)
                    counts["deleted"]["roster"] += 1
            counts["masked"]["roster"] += await self._mask_log(owner, account)

    async def _mask_log(self, owner: str, account: str) -> int:
        pattern, mask, count = pattern_of(account), self._erased.mask(account), 0
        page: bytes | None = None
        while True:
            found = await self._store.dump(ROSTER, partition=(owner,), limit=500, page=page)
            for stored in found.entries:
                value = stored.values.get("value")
                if len(stored.key) < 3 or stored.key[1] != LOG or not isinstance(value, str):
                    continue
                if pattern.search(value) is None:
                    continue
                fields = json.loads(value)
                if fields["contact"] == account:  # what is not whole brings a client its whole roster
                    fields = {name: it for name, it in fields.items() if name not in ("old", "new")}
                text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
                row = dict(zip(ROSTER.key, stored.key, strict=True))
                left = None if stored.expires is None else max(1.0, stored.expires - self._now())
                await self._store.put(ROSTER, {**row, "value": masked(text, pattern, mask)}, ttl=left)
                count += 1
            if (page := found.next) is None:
                return count
            await asyncio.sleep(0)

    async def _sweep_blocks(
        self, account: str, entries: Sequence[Stored], counts: Mapping[str, Counter[str]]
    ) -> None:
        """Who blocked it blocks nobody in its place."""
        for stored in entries:
            owner, address = str(stored.key[0]), str(stored.key[1])
            async with self._accounts.hold(owner) as exists:
                if exists:
                    await self._blocking.unblock(owner, (address,))
                    counts["deleted"]["blocks"] += 1

    # what comes too late

    def look(self) -> None:
        """Called about once a second."""
        if self._clock() - self._looked >= LOOK_SECONDS:
            self._looked = self._clock()
            self._spawn(self._look())

    async def _look(self) -> None:
        """Go on with what another node left, and look for what came too late."""
        if await self._duties.take(DUTY, LOOK_SECONDS / 2):
            return
        try:
            async for row in self._erased.unfinished():
                if row["state"] == "begun":
                    self._go_on(row)
                elif row["due"] <= self._now():
                    await self._look_again(row)
        except StoreError as error:
            log.warning("erasing-put-off", extra={"problem": str(error)})
        finally:
            self._duties.done(DUTY)

    async def _look_again(self, row: Row) -> None:
        account, number = row["account"], row["round"]
        is_last = number == len(ROUNDS) - 1
        if is_last:
            self._last_looks.add(account)
        try:
            await self._accounts.scrub(Late(account, 0.0))
            if is_last and not await self._is_here(account, row):
                await self._sweep(account)
        finally:
            self._last_looks.discard(account)
        if is_last:
            await self._erased.put({**row, "account": None, "state": "done"})
            return
        due = self._now() + ROUNDS[number + 1] - ROUNDS[number]
        await self._erased.put({**row, "round": number + 1, "due": due})
