"""The store on Apache Cassandra: for installations of more than one machine.

Reads and writes are answered by a quorum of the local data centre, conditional writes go through Paxos. What
became of a conditional write whose answer was lost is found out by a serial read, never guessed. How a table
lies there is in `cql`, what a call becomes in `calls`, how it is asked in `link`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from xmppd.errors import StoreBug, StoreError, StoreUnavailable
from xmppd.store._opened import Ends, OpenTables, check_first
from xmppd.store._stream import Pace, stream
from xmppd.store.cassandra.calls import Conditional, ConditionalWrite, Found, OpenTable, Statement
from xmppd.store.cassandra.dump import TableDump, batches
from xmppd.store.cassandra.joined import Joiner, RowWriter
from xmppd.store.cassandra.link import PAGE_ROWS, Link
from xmppd.store.cassandra.options import CassandraOptions
from xmppd.store.cassandra.schema import Schema
from xmppd.store.cassandra.sounding import sounded
from xmppd.store.table import (
    Delete,
    Dump,
    Key,
    Page,
    Prepared,
    Put,
    Row,
    Sounding,
    Stored,
    Table,
    Tuples,
    Value,
)
from xmppd.store.values import check_limit

__all__ = ["CassandraOptions", "CassandraStats", "CassandraStore"]


PACE = Pace(first=100, most=PAGE_ROWS - 1, size=1 << 20, ahead=True)
"""Rows of a stream that are asked for at once; with the one that shows whether there are more Cassandra sends
them in one piece.
"""


@dataclass(slots=True)
class CassandraStats:
    """What the store has done since it was made, and what is under way.

    `unknown` conditional writes got no answer, `resolved` of them were cleared up by reading. Statements
    that are being prepared are `in_flight`, too.
    """

    reads: int = 0
    writes: int = 0
    conditional: int = 0
    not_applied: int = 0
    requests: int = 0
    retried: int = 0
    unknown: int = 0
    resolved: int = 0
    completions: int = 0
    in_flight: int = 0
    waiting: int = 0
    breaker_opened: int = 0
    refused: int = 0


class CassandraStore:
    """Implements `xmppd.store.table.Store`. Connects in `open`, in the process and loop that use it.

    `program` is written beside each change of the schema.
    """

    def __init__(self, options: CassandraOptions, *, program: str = "xmppd") -> None:
        self._options = options
        self._link = Link(options)
        self._joiner = Joiner(self._link, bound=options.waiting, patience=options.request_timeout)
        self._schema = Schema(self._link, options, program)
        self._tables: OpenTables[OpenTable] = OpenTables()
        self._opening = asyncio.Lock()
        self._stats = CassandraStats()

    @property
    def stats(self) -> CassandraStats:
        """The counters as they are now."""
        link = self._link
        return replace(
            self._stats,
            **asdict(link.stats),
            in_flight=link.slots.used + link.preparing,
            waiting=link.slots.waiting,
            breaker_opened=link.breaker.opened,
            refused=link.breaker.refused,
        )

    async def open(self, tables: Sequence[Table]) -> None:
        """Create or migrate `tables`; the first call connects. See the port.

        With `migrate: check` nothing is changed: StoreUnavailable says what is missing.
        """
        self._tables.check_not_closed()
        opened = {table.name: OpenTable(self._options.keyspace, table) for table in tables}
        if self._options.migrate == "auto":
            await self.migrate(tables)
        elif lacking := await self.missing(tables):
            raise StoreUnavailable(
                f"the keyspace {self._options.keyspace} is not up to date (missing: {', '.join(lacking)}): "
                "run `xmppd store migrate`"
            )
        self._tables.add(opened)

    async def close(self) -> None:
        """Finish every accepted write, then disconnect. Whatever is asked for later is StoreUnavailable."""
        self._tables.is_closed = True
        self._joiner.close()
        async with self._opening:
            await self._link.close()

    def release(self) -> None:
        """Give up texts that can be made again."""
        for opened in self._tables:
            opened.release()

    # the schema, for commands

    async def migrate(self, tables: Sequence[Table]) -> list[str]:
        """Make and extend tables whatever the options say; what was made, in words."""
        async with self._opening:
            await self._connect()
            return await self._schema.migrate(tables)

    async def missing(self, tables: Sequence[Table]) -> list[str]:
        """What `migrate` would make, in words. Changes nothing."""
        async with self._opening:
            await self._connect()
            return await self._schema.missing(tables)

    async def info(self) -> dict[str, Any]:
        """The cluster and the tables as they are, for people."""
        async with self._opening:
            await self._connect()
            return await self._schema.info()

    async def soundings(self) -> list[Sounding]:
        """How each node that the driver knows answers, and its clock."""
        try:
            async with self._opening:
                await self._connect()
            return await sounded(self._link)
        except StoreError as error:
            return [Sounding("Cassandra", problem=str(error))]

    async def snapshot(self, path: Path) -> None:
        """Not by a client: `nodetool snapshot` does it on every node."""
        raise StoreBug("Cassandra gives no file of all that it holds")

    async def _connect(self) -> None:
        self._tables.check_not_closed()
        if not self._link.is_connected:
            await self._link.connect()

    # reading

    async def get(self, table: Table, key: Key) -> Row | None:
        """One row by its whole key."""
        opened = self._tables.of(table)
        statement = opened.get(key)
        self._stats.reads += 1
        rows = opened.rows(await self._link.read(statement))
        return rows[0] if rows else None

    async def get_many(self, table: Table, partitions: Sequence[Value]) -> list[Row | None]:
        """Rows by keys of one column."""
        opened = self._tables.of(table)
        statements = opened.get_many(partitions)
        self._stats.reads += len(statements)
        pieces = await self._read_all(statements)
        return opened.in_order(partitions, [row for piece in pieces for row in piece])

    async def get_static(self, table: Table, partition: Key) -> Row | None:
        """The static columns of one partition."""
        opened = self._tables.of(table)
        statement = opened.get_static(partition)
        self._stats.reads += 1
        return opened.static_row(await self._link.read(statement))

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
        """Rows of one partition in a range."""
        opened = self._tables.of(table)
        scan = opened.scan(partition, Ends(start, end, after, before), limit, reverse, page)
        self._stats.reads += 1
        return opened.page(scan, await self._link.read(scan.statement))

    async def scan_columns(
        self,
        table: Table,
        partition: Key,
        columns: Sequence[str],
        *,
        start: Key | None = None,
        end: Key | None = None,
        after: Key | None = None,
        before: Key | None = None,
        match: Mapping[str, Value] | None = None,
        examine: int | None = None,
        limit: int | None = None,
        first: int | None = None,
        reverse: bool = False,
        page: bytes | None = None,
    ) -> Tuples:
        """Some columns of rows of one partition in a range, all of which Cassandra may look at."""
        opened, ends = self._tables.of(table), Ends(start, end, after, before)
        if first is not None:
            check_first(table, match, examine, limit, page)
        if examine is not None:
            check_limit(table, examine)
        scan = opened.scan_columns(partition, columns, ends, match, limit, first, reverse, page)
        self._stats.reads += 1
        return opened.tuples(scan, await self._link.read(scan.statement))

    def stream(
        self,
        table: Table,
        partition: Key,
        columns: Sequence[str],
        *,
        start: Key | None = None,
        end: Key | None = None,
        after: Key | None = None,
        before: Key | None = None,
        reverse: bool = False,
    ) -> AsyncIterator[list[tuple[Any, ...]]]:
        """All rows of one partition in a range, some columns of each."""
        ask = partial(
            self.scan_columns,
            table,
            partition,
            columns,
            start=start,
            end=end,
            after=after,
            before=before,
            reverse=reverse,
        )
        return stream(lambda rows, page: ask(limit=rows, page=page), PACE)

    async def get_rows(self, table: Table, partition: Key, keys: Sequence[Key]) -> list[Row]:
        """Rows of one partition by the beginnings of their keys."""
        opened = self._tables.of(table)
        statements = opened.get_rows(partition, keys)
        self._stats.reads += len(statements)
        pieces = await self._read_all(statements)
        return [row for piece in pieces for row in opened.rows(piece)]

    async def scan_many(
        self,
        table: Table,
        partitions: Sequence[Value],
        *,
        start: Key | None = None,
        end: Key | None = None,
    ) -> list[list[Row]]:
        """Rows of some partitions in a range."""
        opened = self._tables.of(table)
        statements = opened.scan_many(partitions, (start, end))
        self._stats.reads += len(statements)
        pieces = await self._read_all(statements)
        return opened.by_partition(partitions, [row for piece in pieces for row in piece])

    async def scan_all(self, table: Table, *, limit: int = 1000, page: bytes | None = None) -> Page:
        """Rows of every partition, in the order of their tokens."""
        opened = self._tables.of(table)
        asked = opened.asked(limit)
        after: Sequence[Value] | None = opened.after_all(page)
        self._stats.reads += 1
        rows: list[Row] = []
        while True:
            if after is not None and (rest := opened.rest_of_partition(after, asked - len(rows))) is not None:
                rows += opened.rows(await self._link.read(rest))
            if (wanted := asked - len(rows)) == 0:
                break
            found = await self._link.read(opened.next_partitions(after, wanted))
            rows += opened.rows(found)
            if len(found) < wanted or len(rows) == asked:
                break
            after = found[-1]  # some of what was found were partitions without rows
        return opened.page_of_all(rows, limit)

    # writing

    async def put(self, table: Table, row: Mapping[str, Value], *, ttl: float | None = None) -> None:
        """Write columns of one row."""
        write = self._tables.of(table).put(row, ttl)
        self._stats.writes += 1
        await self._link.write(write.statements)

    async def put_many(
        self, table: Table, rows: Sequence[Mapping[str, Value]], *, ttl: float | None = None
    ) -> None:
        """Write columns of different rows, those of several partitions in one request."""
        together = list(batches(self._tables.of(table).put_many(rows, ttl)))
        self._stats.writes += len(together)
        await asyncio.gather(*map(self._link.write, together))

    async def put_newest(self, table: Table, row: Mapping[str, Value], *, ttl: float | None = None) -> None:
        """Write a whole row unless a newer one is there."""
        write = self._tables.of(table).put_newest(row, ttl)
        self._stats.writes += 1
        await self._link.write(write.statements)

    def writer(self, table: Table, columns: Sequence[str]) -> RowWriter:
        """What makes rows that have these columns."""
        return RowWriter(self._tables.of(table), columns)

    def write(self, rows: Sequence[Prepared], *, ttl: float | None = None) -> asyncio.Future[Any]:
        """Write rows, those of all calls of one turn of the loop in few requests."""
        self._tables.check_not_closed()
        done = self._joiner.write([row for writer, some in rows for row in writer.statements(some, ttl)])
        self._stats.writes += 1
        return done

    async def room(self) -> None:
        """Wait for room for a write."""
        self._tables.check_not_closed()
        await self._joiner.room()

    async def delete(self, table: Table, key: Key) -> None:
        """Delete one row or one partition."""
        write = self._tables.of(table).delete(key)
        self._stats.writes += 1
        await self._link.write(write.statements)

    async def put_if(
        self,
        table: Table,
        row: Mapping[str, Value],
        expect: Mapping[str, Value] | None,
        *,
        ttl: float | None = None,
    ) -> bool:
        """Write columns of one row on a condition; whether it was written."""
        return await self._write_if(self._tables.of(table).put_if(row, expect, ttl))

    async def delete_if(self, table: Table, key: Key, expect: Mapping[str, Value]) -> bool:
        """Delete one row on a condition; whether it was deleted."""
        return await self._write_if(self._tables.of(table).delete_if(key, expect))

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
        """Apply writes of one partition atomically; whether they were applied."""
        write = self._tables.of(table).batch(partition, writes, static, expect, ttl)
        if isinstance(write, ConditionalWrite):
            return await self._write_if(write)
        if write.statements:
            self._stats.writes += 1
            await self._link.write(write.statements)
        return True

    # tools

    async def stored_tables(self) -> list[Table]:
        """All tables of the keyspace."""
        self._tables.check_not_closed()
        stored = await self._schema.stored()
        return self._tables.with_stored(stored, partial(OpenTable, self._options.keyspace))

    async def dump(
        self, table: Table, *, partition: Key | None = None, limit: int = 1000, page: bytes | None = None
    ) -> Dump:
        """All that a table holds, by pages."""
        self._stats.reads += 1
        return await TableDump(self._tables.of(table)).read(self._link.read, partition, limit, page)

    async def restore(self, table: Table, entries: Sequence[Stored]) -> None:
        """Write what a dump gave."""
        self._stats.writes += 1
        await TableDump(self._tables.of(table)).write(self._link.write, entries)

    async def _read_all(self, statements: Sequence[Statement]) -> Sequence[list[Found]]:
        if len(statements) == 1:  # as nearly always: it makes no task
            return [await self._link.read(statements[0])]
        return await asyncio.gather(*map(self._link.read, statements))

    async def _write_if(self, write: Conditional) -> bool:
        self._stats.conditional += 1
        done = await self._link.write_if(write)
        self._stats.not_applied += not done
        return done
