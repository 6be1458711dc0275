"""What tests of the server run on: SQLite, or by `XMPPD_TEST_STORE=cassandra` Cassandra and Redis; and on how
many nodes, which tell each other of changes by Redis: one, or `XMPPD_TEST_NODES`.

All tests share one Cassandra. Those in one process get a `Fence` each, since to make tables takes a tenth of
a second; a server of its own process gets a keyspace.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
import uuid
import zlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cassandra.cluster import Cluster

from xmppd.store.cassandra.store import CassandraOptions, CassandraStats, CassandraStore
from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import (
    Delete,
    Dump,
    Key,
    Page,
    Prepared,
    Put,
    Row,
    RowWriter,
    Sounding,
    Store,
    Stored,
    Table,
    Tuples,
    Value,
)

ON_CASSANDRA = os.environ.get("XMPPD_TEST_STORE", "sqlite") == "cassandra"
"""Whether the switch is on. `XMPPD_TEST_CASSANDRA` and `XMPPD_TEST_REDIS` then say where the engines are."""

NODES = int(os.environ.get("XMPPD_TEST_NODES", "1"))
"""How many nodes a world has. With several, `XMPPD_TEST_REDIS` says where their cache is."""

CARRIER = os.environ.get("XMPPD_TEST_CARRIER", "direct")
"""By what these nodes are joined: in memory, or by `XMPPD_TEST_CARRIER=redis` by way of that Redis."""

SHARED = f"xmppd_shared_{uuid.uuid4().hex[:12]}"
"""The keyspace of all fences of this run."""

_NUMBERS = itertools.count(1)
_MADE: list[CassandraStore] = []


def new_store(path: Path | str = ":memory:", now: Callable[[], float] = time.time) -> Store:
    """A store that is not open; two of one `path` share their rows. Cassandra has a time of its own."""
    if not ON_CASSANDRA:
        return SqliteStore(path, now=now)
    mark = f"{os.getpid():x}-{next(_NUMBERS):x}" if path == ":memory:" else str(path)
    made = CassandraStore(CassandraOptions(contact_points=contact_points(), keyspace=SHARED))
    _MADE.append(made)
    return Fence(made, mark)


def end_left() -> None:
    """End what killed nodes have left: their connections, whose loop is no more, and the threads of these."""
    for store in [*_MADE]:
        link = store._link
        if link._loop is None or not link._loop.is_closed():
            continue
        _MADE.remove(store)
        live, link._live = link._live, None
        if live is not None:
            live.cluster.shutdown()


def contact_points() -> tuple[tuple[str, int], ...]:
    """Host and port of each node of Cassandra."""
    points = [point.rpartition(":") for point in os.environ["XMPPD_TEST_CASSANDRA"].split(",")]
    return tuple((host, int(port)) for host, _, port in points)


def engine_settings() -> dict[str, dict[str, Any]]:
    """What the configuration of a server of its own says of engines: a keyspace and a prefix for it alone."""
    if not ON_CASSANDRA:
        return {}
    name = f"xmppd_test_{uuid.uuid4().hex[:12]}"
    nodes = [f"{host}:{port}" for host, port in contact_points()]
    return {
        "store": {"engine": "cassandra", "cassandra": {"contact_points": nodes, "keyspace": name}},
        **cache_settings(),
    }


def cache_settings() -> dict[str, dict[str, Any]]:
    """What the configuration says of the cache: a prefix that nobody else has."""
    if not ON_CASSANDRA and NODES == 1:
        return {}
    return {"cache": {"redis": os.environ["XMPPD_TEST_REDIS"], "prefix": f"test-{uuid.uuid4().hex[:12]}"}}


def drop_keyspaces(*names: str) -> None:
    """Delete keyspaces with all they hold."""
    with Cluster(contact_points(), connect_timeout=20) as cluster:
        session = cluster.connect()
        for name in names:
            session.execute(f"DROP KEYSPACE IF EXISTS {name}", timeout=60)


NUMBERS: dict[str, set[int]] = {}
"""By the names of fences, the numbers that keys of theirs begin with."""

OPENED: dict[str, dict[str, Table]] = {}
"""By the names of fences, the tables that were opened in them, as they were declared last."""


class Fence:
    """A part of a store that looks like a whole one, for servers; nothing for tools that copy stores.

    The first partition column of every key begins with the fence's name, or if it is an int is combined with
    a number of the fence, and remembered by all fences of that name; the name of a table ends with a checksum
    of its first declaration here, for tests declare different ones under one name.
    """

    def __init__(self, store: CassandraStore, mark: str) -> None:
        self._store = store
        self._mark = f"{mark}|"
        self._number = zlib.crc32(f"{SHARED}{mark}".encode())
        self._numbers = NUMBERS.setdefault(mark, set())
        self._tables: dict[str, Table] = {}
        self._opened = OPENED.setdefault(mark, {})

    @property
    def stats(self) -> CassandraStats:
        """What the store behind it counts."""
        return self._store.stats

    async def open(self, tables: Sequence[Table]) -> None:
        """Open the tables under names of their own."""
        for table in tables:
            assert table.type_of(table.partition[0]) in ("text", "int"), f"no fence around {table.name}"
            self._opened[table.name] = table
            first = self._tables.get(table.name)
            self._tables[table.name] = inner_table(table) if first is None else table.named(first.name)
        await self._store.open([self._tables[table.name] for table in tables])

    async def close(self) -> None:
        """Disconnect."""
        await self._store.close()

    def release(self) -> None:
        """Give up memory."""
        self._store.release()

    async def soundings(self) -> list[Sounding]:
        """How the nodes answer."""
        return await self._store.soundings()

    async def get(self, table: Table, key: Key) -> Row | None:
        """One row."""
        return self._stripped(table, await self._store.get(self._inner(table), self._marked(key)))

    async def get_many(self, table: Table, partitions: Sequence[Value]) -> list[Row | None]:
        """Rows of tables without clustering columns."""
        found = await self._store.get_many(self._inner(table), [self.marked(key) for key in partitions])
        return [self._stripped(table, row) for row in found]

    async def get_static(self, table: Table, partition: Key) -> Row | None:
        """The static columns of one partition."""
        return await self._store.get_static(self._inner(table), self._marked(partition))

    async def scan(
        self,
        table: Table,
        partition: Key,
        *,
        start: Key | None = None,
        end: Key | None = None,
        after: Key | None = None,
        before: Key | None = None,
        limit: int | None = None,
        reverse: bool = False,
        page: bytes | None = None,
    ) -> Page:
        """Rows of one partition."""
        found = await self._store.scan(
            self._inner(table),
            self._marked(partition),
            start=start,
            end=end,
            after=after,
            before=before,
            limit=limit,
            reverse=reverse,
            page=page,
        )
        return self._own(table, found)

    async def scan_columns(self, table: Table, partition: Key, columns: Sequence[str], **how: Any) -> Tuples:
        """Some columns of rows of one partition."""
        found = await self._store.scan_columns(self._inner(table), self._marked(partition), columns, **how)
        places = [place for place, column in enumerate(columns) if column == table.partition[0]]
        if not places:
            return found
        rows = [
            tuple(partition[0] if place in places else value for place, value in enumerate(row))
            for row in found.rows
        ]
        return found._replace(rows=rows)

    def stream(
        self, table: Table, partition: Key, columns: Sequence[str], **how: Any
    ) -> AsyncIterator[list[tuple[Any, ...]]]:
        """All rows of one partition, some columns of each, not the first one of the key."""
        assert table.partition[0] not in columns
        return self._store.stream(self._inner(table), self._marked(partition), columns, **how)

    async def get_rows(self, table: Table, partition: Key, keys: Sequence[Key]) -> list[Row]:
        """Rows of one partition by the beginnings of their keys."""
        found = await self._store.get_rows(self._inner(table), self._marked(partition), keys)
        return [self._stripped(table, row) or {} for row in found]

    async def scan_many(
        self,
        table: Table,
        partitions: Sequence[Value],
        *,
        start: Key | None = None,
        end: Key | None = None,
    ) -> list[list[Row]]:
        """Rows of some partitions."""
        marked = [self.marked(key) for key in partitions]
        found = await self._store.scan_many(self._inner(table), marked, start=start, end=end)
        for rows in found:
            for row in rows:
                self._stripped(table, row)
        return found

    async def scan_all(self, table: Table, *, limit: int = 1000, page: bytes | None = None) -> Page:
        """Rows of every partition within the fence."""
        rows: list[Row] = []
        while True:
            found = await self._store.scan_all(self._inner(table), limit=limit - len(rows), page=page)
            rows += self._own(table, found).rows
            page = found.next
            if page is None or len(rows) == limit:
                return Page(rows, page)

    async def put(self, table: Table, row: Mapping[str, Value], *, ttl: float | None = None) -> None:
        """Write columns of one row."""
        await self._store.put(self._inner(table), self._marked_row(table, row), ttl=ttl)

    async def put_many(
        self, table: Table, rows: Sequence[Mapping[str, Value]], *, ttl: float | None = None
    ) -> None:
        """Write columns of different rows."""
        marked = [self._marked_row(table, row) for row in rows]
        await self._store.put_many(self._inner(table), marked, ttl=ttl)

    async def put_newest(self, table: Table, row: Mapping[str, Value], *, ttl: float | None = None) -> None:
        """Write a whole row unless a newer one is there."""
        await self._store.put_newest(self._inner(table), self._marked_row(table, row), ttl=ttl)

    def writer(self, table: Table, columns: Sequence[str]) -> RowWriter:
        """What makes rows."""
        return FencedWriter(self, table, columns)

    def inner_writer(self, table: Table, columns: Sequence[str]) -> RowWriter:
        """The same of the table behind the fence."""
        return self._store.writer(self._inner(table), columns)

    def write(self, rows: Sequence[Prepared], *, ttl: float | None = None) -> asyncio.Future[Any]:
        """Write rows."""
        return self._store.write(rows, ttl=ttl)

    async def room(self) -> None:
        """Wait for room for a write."""
        await self._store.room()

    async def delete(self, table: Table, key: Key) -> None:
        """Delete one row or one partition."""
        await self._store.delete(self._inner(table), self._marked(key))

    async def put_if(
        self,
        table: Table,
        row: Mapping[str, Value],
        expect: Mapping[str, Value] | None,
        *,
        ttl: float | None = None,
    ) -> bool:
        """Write columns of one row on a condition."""
        return await self._store.put_if(self._inner(table), self._marked_row(table, row), expect, ttl=ttl)

    async def delete_if(self, table: Table, key: Key, expect: Mapping[str, Value]) -> bool:
        """Delete one row on a condition."""
        return await self._store.delete_if(self._inner(table), self._marked(key), expect)

    async def batch(
        self,
        table: Table,
        partition: Key,
        writes: Sequence[Put | Delete],
        *,
        static: Mapping[str, Value] | None = None,
        expect: Mapping[str, Value] | None = None,
        ttl: float | None = None,
    ) -> bool:
        """Apply writes of one partition."""
        return await self._store.batch(
            self._inner(table), self._marked(partition), writes, static=static, expect=expect, ttl=ttl
        )

    async def dump(
        self, table: Table, *, partition: Key | None = None, limit: int = 1000, page: bytes | None = None
    ) -> Dump:
        """Entries of one partition, or of all within the fence."""
        key = None if partition is None else self._marked(partition)
        found = await self._store.dump(self._inner(table), partition=key, limit=limit, page=page)
        own = [replace(it, key=self._unmarked(it.key)) for it in found.entries if self._is_own(it.key[0])]
        return Dump(own, found.next)

    async def restore(self, table: Table, entries: Sequence[Stored]) -> None:
        """Write what a dump gave."""
        marked = [replace(it, key=self._marked(it.key)) for it in entries]
        await self._store.restore(self._inner(table), marked)

    def _unmarked(self, key: Key) -> Key:
        first = key[0]
        return (first[len(self._mark) :] if isinstance(first, str) else first ^ self._number, *key[1:])

    async def migrate(self, tables: Sequence[Table]) -> list[str]:
        """Make tables."""
        return await self._store.migrate([inner_table(table) for table in tables])

    async def missing(self, tables: Sequence[Table]) -> list[str]:
        """What that would make."""
        return await self._store.missing([inner_table(table) for table in tables])

    async def stored_tables(self) -> list[Table]:
        """All that were ever opened."""
        await self.open([table for name, table in self._opened.items() if name not in self._tables])
        return [self._opened[name] for name in sorted(self._opened)]

    async def info(self) -> dict[str, Any]:
        """The engine as it is."""
        return await self._store.info()

    def _inner(self, table: Table) -> Table:
        """The table behind the fence; what was never opened is refused by the store itself."""
        return self._tables.get(table.name, table)

    def marked(self, value: Value) -> Value:
        """The first value of a key as it is behind the fence."""
        if isinstance(value, str):
            return f"{self._mark}{value}"
        if isinstance(value, int):
            self._numbers.add(value ^ self._number)
            return value ^ self._number
        return value

    def _marked(self, key: Key) -> Key:
        return (self.marked(key[0]), *key[1:]) if key else key

    def _marked_row(self, table: Table, row: Mapping[str, Value]) -> Mapping[str, Value]:
        column = table.partition[0]
        return {**row, column: self.marked(row[column])} if column in row else row

    def _own(self, table: Table, page: Page) -> Page:
        column = table.partition[0]
        rows = [row for row in page.rows if self._is_own(row[column])]
        for row in rows:
            self._stripped(table, row)
        return page._replace(rows=rows)

    def _is_own(self, value: Value) -> bool:
        return value.startswith(self._mark) if isinstance(value, str) else value in self._numbers

    def _stripped(self, table: Table, row: Row | None) -> Row | None:
        if row is not None:
            value = row[table.partition[0]]
            is_text = isinstance(value, str)
            row[table.partition[0]] = value[len(self._mark) :] if is_text else value ^ self._number
        return row


class FencedWriter:
    """Makes rows of a table behind a fence."""

    def __init__(self, fence: Fence, table: Table, columns: Sequence[str]) -> None:
        self._fence = fence
        self._writer = fence.inner_writer(table, columns)
        self._place = list(columns).index(table.partition[0])

    def row(self, *values: Value) -> Prepared:
        """A row, its key marked."""
        return self._writer.row(*self._marked(values))

    def rows(self, rows: Sequence[tuple[Value, ...]]) -> Prepared:
        """Rows, their keys marked."""
        return self._writer.rows([self._marked(values) for values in rows])

    def _marked(self, values: tuple[Value, ...]) -> tuple[Value, ...]:
        place = self._place
        return (*values[:place], self._fence.marked(values[place]), *values[place + 1 :])


def inner_table(table: Table) -> Table:
    """The table under a name that no other declaration has."""
    shape = [
        [[column, table.type_of(column)] for column in columns]
        for columns in (table.partition, table.cluster, sorted(table.columns), sorted(table.static))
    ]
    told = json.dumps([shape, table.descending, table.ttl])
    return table.named(f"{table.name[:39]}_{zlib.crc32(told.encode()):08x}")
