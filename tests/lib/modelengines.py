"""What the nodes of `nodesmodel` share, and is asked by messages that take their time: a store of rows, and a
cache that holds leases, marks and locks and tells of changes. Neither stands still when a node does.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextvars import Context
from typing import Any, Protocol, TypeVar

from virtualtime import IO, Callback, VirtualLoop

from xmppd.core.roster.item import ROSTER, RosterItem, item_of, row_of
from xmppd.core.roster.tier import Answer, Listener, Write
from xmppd.store.table import Delete, Page, Table

LOCK_SECONDS = 10.0
"""How long a lock stands whose node does nothing."""

MARK_SECONDS = 30.0
"""How long a write counts as under way whose end nobody told."""

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

    def between(self, start: Sequence[str] | None, end: Sequence[str] | None) -> list[tuple[str, ...]]:
        """The keys between two prefixes, in order."""
        first, last = tuple(start or ()), tuple(end or ())
        return sorted(
            key for key in self.rows if key[: len(first)] >= first and (not last or key[: len(last)] <= last)
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
        limit: int | None = None,
        reverse: bool = False,
        page: Any = None,
    ) -> Page:
        """See `Store`; there is never a second page but for who begins it by `start`."""
        found = self._of(table, partition[0])

        def look() -> Page:
            keys = found.between(start, end)
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
        await self._do(0.3, lambda: found.rows.__setitem__(tuple(cluster), columns))

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


class Cache(Engine):
    """What Redis is to the nodes: marks and leases of rosters that are written and read, notices of that, and
    locks. It keeps no rosters.
    """

    def __init__(self, world: Time) -> None:
        super().__init__(world)
        self.leases: dict[str, str] = {}
        self.marks: dict[str, dict[str, Callback]] = defaultdict(dict)
        self.locks: dict[str, object] = {}
        self.nodes: list[NodeCache] = []
        self._tokens = 0

    def token(self) -> str:
        """One that nobody else has."""
        self._tokens += 1
        return f"t{self._tokens}"

    def tell(self, by: NodeCache, tell: Callable[[NodeCache], None]) -> None:
        """Have all other nodes hear something, in order."""
        for node in self.nodes:
            if node is not by:
                node.hear(tell)

    def mark(self, account: str, token: str) -> None:
        """A write begins; nobody waits for its end for ever."""
        end = self._world.loop.call_later(
            MARK_SECONDS, self.unmark, account, token, context=self._world.outside
        )
        self.marks[account][token] = end

    def unmark(self, account: str, token: str) -> None:
        """It is over."""
        end = self.marks[account].pop(token, None)
        if end is not None:
            end.cancel()


class NodeCache(Engine):
    """One node's use of the cache: a `SharedCache`."""

    is_heard = True
    asked = 0
    counters: Mapping[str, int] = {}

    def __init__(self, world: Time, cache: Cache, context: Context) -> None:
        super().__init__(world)
        self.listener: Listener
        self.is_dead = False
        self._cache = cache
        self._context = context
        self._heard_until = 0.0
        self._writes: dict[str, set[Write]] = defaultdict(set)
        self._held: dict[str, object] = {}
        cache.nodes.append(self)

    def end(self) -> None:
        """Its node is dead."""
        self.is_dead = True
        self._cache.nodes.remove(self)

    def hear(self, tell: Callable[[NodeCache], None]) -> None:
        """Something that another node did."""
        world = self._world
        self._heard_until = max(
            self._heard_until + 1e-6, world.loop.time() + world.random.uniform(0.001, 0.05)
        )
        world.loop.call_at(self._heard_until, self._hear, tell, context=self._context, kind=IO)

    def _hear(self, tell: Callable[[NodeCache], None]) -> None:
        if not self.is_dead:
            tell(self)

    async def read(self, account: str, *, fresh: bool = False) -> Answer:
        """See `SharedCache`."""
        cache, token = self._cache, self._cache.token()

        def step() -> Answer:
            if fresh:
                cache.tell(self, lambda node: node.changed(account, -1, "-", is_begun=True))
            if cache.marks[account]:
                return Answer(None, "", is_marked=True)
            is_leased = account not in cache.leases
            if is_leased:
                cache.leases[account] = token
            return Answer(None, token if is_leased else "")

        return await self._do(0.01, step)

    async def fill(self, account: str, lease: str, value: bytes, *, empty: bool) -> bool:
        """See `SharedCache`."""
        leases = self._cache.leases

        def step() -> bool:
            is_mine = leases.get(account) == lease
            if is_mine:
                del leases[account]
            return is_mine

        return await self._do(0.01, step)

    async def begin(self, account: str) -> Write:
        """See `SharedCache`."""
        cache, write = self._cache, Write(account, self._cache.token())
        self._writes[account].add(write)

        def step() -> None:
            cache.mark(account, write.token)
            cache.leases[account] = write.token
            cache.tell(self, lambda node: node.begun(account, write.token))

        await self._do(0.01, step)
        write.is_marked = True
        return write

    async def finish(self, write: Write, version: int, value: bytes = b"") -> bool:
        """See `SharedCache`."""
        cache, account = self._cache, write.account

        def step() -> bool:
            cache.unmark(account, write.token)
            is_last = cache.leases.get(account) == write.token
            if is_last:
                del cache.leases[account]
            cache.tell(self, lambda node: node.changed(account, version, write.token))
            return is_last and not cache.marks[account] and version != 0

        is_newest = await self._do(0.01, step)
        self.abandon(write)
        return is_newest and write.is_alone

    def abandon(self, write: Write) -> None:
        """See `SharedCache`."""
        self._writes[write.account].discard(write)

    def begun(self, account: str, token: str) -> None:
        """Another node begins to write a roster."""
        for write in self._writes[account]:
            write.is_alone = False
        self.listener.roster_begun(account, token)

    def changed(self, account: str, version: int, token: str, *, is_begun: bool = False) -> None:
        """Another node changed a roster."""
        for write in self._writes[account] if is_begun else ():
            write.is_alone = False
        self.listener.roster_changed(account, version, token)

    @contextlib.asynccontextmanager
    async def lock(self, name: str) -> AsyncIterator[None]:
        """A lock of all nodes, which stands for a while when its node does nothing any more."""
        locks, mine = self._cache.locks, object()
        self._held[name] = mine
        try:
            while not await self._do(0.01, lambda: locks.setdefault(name, mine) is mine):  # noqa: ASYNC110 - as in Redis
                await asyncio.sleep(0.05)
            yield
        finally:
            if self._held.get(name) is mine:
                del self._held[name]
            seconds = LOCK_SECONDS if self.is_dead else 0.002
            self._world.loop.call_later(seconds, self._release, name, mine, context=self._world.outside)

    def expire(self) -> None:
        """Its node did not renew its locks."""
        for name, mine in self._held.items():
            self._release(name, mine)

    def _release(self, name: str, mine: object) -> None:
        if self._cache.locks.get(name) is mine:
            del self._cache.locks[name]
