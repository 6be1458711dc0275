"""What the nodes of `nodesmodel` share, and is asked by messages that take their time: here a store of rows,
and the way of each node to it; `modelcache` has what Redis is to them. Neither stands still when a node does.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextvars import Context
from typing import Any, Protocol, TypeVar

from virtualtime import VirtualLoop

from xmppd.core.lastseen import LAST_PRESENCE
from xmppd.core.roster.item import ROSTER, RosterItem, item_of, row_of
from xmppd.errors import StoreTimeout
from xmppd.store.table import Delete, Page, Table

ASKED_SECONDS = 5.0
"""How long a node waits for an answer of the store."""

Result = TypeVar("Result")


class Time(Protocol):
    """What engines need of the world."""

    random: random.Random
    loop: VirtualLoop
    outside: Context


class Engine:
    """Something that does what it is asked for a little later."""

    def __init__(self, world: Time) -> None:
        self._world = world

    async def _do(self, most: float, step: Callable[[], Result]) -> Result:
        """Have a step done within so many seconds. It is done whatever becomes of who asked."""
        loop = self._world.loop
        done: asyncio.Future[Result] = loop.create_future()

        def happen() -> None:
            result = step()
            if not done.done():
                done.set_result(result)

        loop.call_later(self._world.random.uniform(0.002, most), happen, context=self._world.outside)
        return await done


class Partition:
    """Rows by their clustering values, and the static columns."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, ...], dict[str, Any]] = {}
        self.static: dict[str, Any] = {}
        self._asked = 0
        self._written: dict[tuple[str, ...], int] = {}

    def stamp(self) -> int:
        """For a write that is asked for now."""
        self._asked += 1
        return self._asked

    def write(self, key: tuple[str, ...], row: dict[str, Any] | None, stamp: int) -> None:
        """Put or delete a row, unless a write that was asked for later came first."""
        if stamp > self._written.get(key, 0):
            self._written[key] = stamp
            if row is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = row

    def between(
        self,
        start: Sequence[str] | None,
        end: Sequence[str] | None,
        after: Sequence[str] | None = None,
        before: Sequence[str] | None = None,
    ) -> list[tuple[str, ...]]:
        """The keys between two prefixes, in order; without those that begin with `after` or `before`."""
        first, last, behind, ahead = (tuple(prefix or ()) for prefix in (start, end, after, before))
        return sorted(
            key
            for key in self.rows
            if key[: len(first)] >= first
            and (not last or key[: len(last)] <= last)
            and (not behind or key[: len(behind)] > behind)
            and (not ahead or key[: len(ahead)] < ahead)
        )


class Shelf(Engine):
    """The store: tables of partitions."""

    def __init__(self, world: Time) -> None:
        super().__init__(world)
        self._tables: dict[tuple[str, ...], dict[str, Partition]] = defaultdict(
            lambda: defaultdict(Partition)
        )

    def _of(self, table: Table, partition: str) -> Partition:
        return self._tables[table.key][partition]

    @staticmethod
    def _row(table: Table, partition: str, found: Partition, key: tuple[str, ...]) -> dict[str, Any]:
        named = dict(zip(table.key, (partition, *key), strict=True))
        static = {name: found.static.get(name) for name in table.static}
        return {**dict.fromkeys(table.columns), **named, **static, **found.rows[key]}

    async def get(self, table: Table, key: Sequence[str]) -> dict[str, Any] | None:
        """See `Store`."""
        found = self._of(table, key[0])
        cluster = tuple(key[1:])

        def look() -> dict[str, Any] | None:
            return self._row(table, key[0], found, cluster) if cluster in found.rows else None

        return await self._do(0.05, look)

    async def get_static(self, table: Table, partition: Sequence[str]) -> dict[str, Any] | None:
        """See `Store`."""
        found = self._of(table, partition[0])
        return await self._do(0.05, lambda: dict(found.static) or None)

    async def scan(
        self,
        table: Table,
        partition: Sequence[str],
        *,
        start: Sequence[str] | None = None,
        end: Sequence[str] | None = None,
        after: Sequence[str] | None = None,
        before: Sequence[str] | None = None,
        limit: int | None = None,
        reverse: bool = False,
        page: Any = None,
    ) -> Page:
        """See `Store`; there is never a second page but for who begins it by `start`."""
        found = self._of(table, partition[0])

        def look() -> Page:
            keys = found.between(start, end, after, before)
            if reverse:
                keys.reverse()
            cut = keys[:limit] if limit is not None else keys
            rows = [self._row(table, partition[0], found, key) for key in cut]
            return Page(rows, b"more" if len(cut) < len(keys) else None)

        return await self._do(0.1, look)

    async def put(self, table: Table, row: Mapping[str, Any], *, ttl: Any = None) -> None:
        """See `Store`."""
        partition, *cluster = (row[name] for name in table.key)
        found = self._of(table, partition)
        columns = {name: value for name, value in row.items() if name not in table.key}
        stamp = found.stamp()
        await self._do(0.3, lambda: found.write(tuple(cluster), columns, stamp))

    async def batch(
        self,
        table: Table,
        partition: Sequence[str],
        writes: Sequence[Any] = (),
        *,
        static: Mapping[str, Any] | None = None,
        expect: Mapping[str, Any] | None = None,
        ttl: Any = None,
    ) -> bool:
        """See `Store`."""
        found = self._of(table, partition[0])

        def write() -> bool:
            if any(found.static.get(name) != value for name, value in (expect or {}).items()):
                return False
            found.static.update(static or {})
            for each in writes:
                if not isinstance(each, Delete):
                    row = dict(each.row)
                    key = tuple(row.pop(name) for name in table.cluster)
                    found.rows[key] = {**found.rows.get(key, {}), **row}
                elif each.through:
                    for key in found.between(None, each.cluster):
                        del found.rows[key]
                else:
                    found.rows.pop(each.cluster, None)
            return True

        return await self._do(0.1, write)

    async def get_many(self, table: Table, partitions: Sequence[str]) -> list[dict[str, Any] | None]:
        """See `Store`."""
        return [*await asyncio.gather(*(self.get(table, (partition,)) for partition in partitions))]

    async def delete(self, table: Table, key: Sequence[str]) -> None:
        """See `Store`."""
        found = self._of(table, key[0])
        stamp = found.stamp()
        await self._do(0.3, lambda: found.write(tuple(key[1:]), None, stamp))

    # for the world

    def lay(self, account: str, items: Iterable[RosterItem]) -> None:
        """Write a roster at once."""
        found = self._of(ROSTER, account)
        found.static["version"] = 1
        for item in items:
            row = dict(row_of(item))
            found.rows[row.pop("part"), row.pop("name")] = row  # type: ignore[index]

    def roster(self, account: str) -> dict[str, RosterItem]:
        """The items of an account."""
        found = self._of(ROSTER, account)
        keys = found.between(("item",), ("item",))
        return {key[1]: item_of(self._row(ROSTER, account, found, key)) for key in keys}

    def stored(self) -> dict[str, list[bytes]]:
        """The messages that wait, by account."""
        return {
            account: [row["stanza"] for row in found.rows.values()]
            for account, found in self._tables["account", "id"].items()
            if found.rows
        }

    def words(self) -> dict[str, bytes]:
        """What accounts said last that are away, if it is kept."""
        return {
            account: found.rows[()]["tail"]
            for account, found in self._tables[LAST_PRESENCE.key].items()
            if found.rows
        }


class Way:
    """The store as one node sees it. While it is cut off from there it is refused, or hears nothing and gives
    up what it asked for, which may have been done.
    """

    def __init__(self, world: Time, shelf: Shelf) -> None:
        self._world = world
        self._shelf = shelf
        self._until = 0.0
        self._is_silent = False

    def cut(self, seconds: float, *, is_silent: bool) -> None:
        """Nothing comes from there for a while."""
        self._until = max(self._until, self._world.loop.time() + seconds)
        self._is_silent = is_silent

    def __getattr__(self, name: str) -> Any:
        asked = getattr(self._shelf, name)

        async def ask(*args: Any, **options: Any) -> Any:
            return await self._ask(lambda: asked(*args, **options))

        return ask

    @property
    def _is_cut(self) -> bool:
        return self._world.loop.time() < self._until

    async def _ask(self, begin: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        deadline = self._world.loop.time() + ASKED_SECONDS
        if not self._is_cut or (self._is_silent and self._world.random.random() < 0.5):
            result = await begin()  # the answer may be lost
            await self._heal(deadline)
            return result
        await self._heal(deadline)
        return await begin()

    async def _heal(self, deadline: float) -> None:
        """Wait until it is reached; StoreTimeout."""
        if self._is_cut:
            silent = min(self._until, deadline) - self._world.loop.time()
            await asyncio.sleep(max(0.0, silent) if self._is_silent else 0.002)
            if self._is_cut or not self._is_silent:
                raise StoreTimeout("it does not answer")
