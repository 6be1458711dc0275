"""The store on SQLite: the default engine, for one server with one file.

Statements are done on the event loop, and only what waits for the disk is not: `writer` groups writes and
has a thread commit them. Reads have a connection of their own; in WAL mode they wait for no writer. A
prototype compared this with reads through a thread (3.11, uvloop): asked for one by one, a row cost 5 us of
CPU against 50-66 and a page of 50 rows 45 us against 92-98; by the hundred both cost the same. Under a loop
at 100 % the thread answered after seconds, this way after 8 us.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from xmppd.errors import StoreError, StoreUnavailable
from xmppd.store._opened import Ends, OpenTables, check_first
from xmppd.store._stream import Pace, stream
from xmppd.store.sqlite import snapshot
from xmppd.store.sqlite.dump import TableDump, stored_tables
from xmppd.store.sqlite.schema import described, lacking, migrate
from xmppd.store.sqlite.statements import OpenTable, PartitionDeletion, RowWriter, Write, write_of
from xmppd.store.sqlite.transaction import MEMORY, Transactions, connect, shrink, translated
from xmppd.store.sqlite.writer import GroupWriter, InlineWriter
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

PURGE_SECONDS = 60.0
PURGE_ROWS = 250
PACE = Pace(first=50, most=100, size=1 << 16, ahead=False)
"""Rows of a stream that are read in one turn of the loop: about 0.3 ms."""
READ_PATIENCE = 0.1
"""Seconds a read, and so the loop, may wait for a lock; only another program's recovery takes such a lock."""

Found = TypeVar("Found")


@dataclass(slots=True)
class StoreStats:
    """What the store has done since it was made, and how many writes are accepted but not yet committed."""

    reads: int = 0
    writes: int = 0
    groups: int = 0
    purged: int = 0
    pending: int = 0


class SqliteStore:
    """Implements `xmppd.store.table.Store`; `path` is a file or ":memory:", `now` tells the time for TTLs.

    `patience` is how many seconds a write waits for room among `bound` others, or for another program's lock.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        now: Callable[[], float] = time.time,
        patience: float = 5.0,
        bound: int = 4096,
    ) -> None:
        self._path = MEMORY if str(path) == MEMORY else str(Path(path).absolute())
        self._now = now
        self.bound = bound
        self._transactions = Transactions(self._path, patience)
        self._writer: GroupWriter | InlineWriter
        if self._path == MEMORY:
            self._writer = InlineWriter(self._transactions)
        else:
            self._writer = GroupWriter(self._transactions, bound=bound, patience=patience)
        self._reader: sqlite3.Cursor | None = None
        self._tables: OpenTables[OpenTable] = OpenTables()
        self._purge_at = 0.0
        self._stats = StoreStats()

    @property
    def stats(self) -> StoreStats:
        """The counters as they are now."""
        return replace(self._stats, groups=self._writer.groups, pending=self._writer.pending)

    async def open(self, tables: Sequence[Table]) -> None:
        """Create or migrate `tables`; the first call connects. See the port."""
        self._tables.check_not_closed()
        opened = {table.name: OpenTable(table) for table in tables}
        await self.migrate(tables)
        self._tables.add(opened)

    async def close(self) -> None:
        """Finish every accepted write, then disconnect. Whatever is asked for later is StoreUnavailable."""
        self._tables.is_closed = True
        if self._reader is not None:
            self._reader.connection.close()
            self._reader = None
        await self._writer.close()

    def release(self) -> None:
        """Close the reader, which is opened again when needed; shrink the writer when its turn comes."""
        if self._tables.is_closed:
            return
        for opened in self._tables:
            opened.release()
        self._drop_reader()
        shrinking = self._writer.offer(shrink)
        if shrinking is not None:
            shrinking.add_done_callback(_never_mind)

    async def get(self, table: Table, key: Key) -> Row | None:
        """One row by its whole key."""
        opened = self._tables.of(table)
        return self._read(opened.get, opened.key(key), self._now())

    async def get_many(self, table: Table, partitions: Sequence[Value]) -> list[Row | None]:
        """Rows by keys of one column."""
        opened, now = self._tables.of(table), self._now()
        keys = opened.keys(partitions)
        return self._read(opened.get_many, keys, now)

    async def get_static(self, table: Table, partition: Key) -> Row | None:
        """The static columns of one partition."""
        opened = self._tables.of(table)
        return self._read(opened.get_static, opened.partition(partition), self._now())

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
        opened, now = self._tables.of(table), self._now()
        scan = opened.scan(partition, Ends(start, end, after, before), limit, reverse, page, now)
        return self._read(opened.page, scan, now)

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
        """Some columns of rows of one partition in a range."""
        opened, ends = self._tables.of(table), Ends(start, end, after, before)
        if first is not None:
            check_first(table, match, examine, limit, page)
        scan = opened.scan_columns(partition, columns, ends, match, examine, limit, first, reverse, page)
        return self._read(opened.tuples, scan, self._now())

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
        checked, prefixes = opened.shape.partition(partition), opened.shape.prefixes(keys)
        return self._read(opened.get_rows, checked, prefixes, self._now())

    async def scan_many(
        self,
        table: Table,
        partitions: Sequence[Value],
        *,
        start: Key | None = None,
        end: Key | None = None,
    ) -> list[list[Row]]:
        """Rows of some partitions in a range."""
        opened, now = self._tables.of(table), self._now()
        keys = opened.partitions(partitions)
        scans = [opened.scan(key, Ends(start, end), None, False, None, now) for key in keys]
        return [self._read(opened.page, scan, now).rows for scan in scans]

    async def scan_all(self, table: Table, *, limit: int = 1000, page: bytes | None = None) -> Page:
        """Rows of every partition."""
        opened, now = self._tables.of(table), self._now()
        return self._read(opened.page, opened.scan_all(limit, page, now), now)

    async def put(self, table: Table, row: Mapping[str, Value], *, ttl: float | None = None) -> None:
        """Write columns of one row."""
        await self._write(self._tables.of(table).put(row, ttl, self._now()))

    async def put_many(
        self, table: Table, rows: Sequence[Mapping[str, Value]], *, ttl: float | None = None
    ) -> None:
        """Write columns of different rows, here in one transaction."""
        if rows:
            await self._write(self._tables.of(table).put_many(rows, ttl, self._now()))

    async def put_newest(self, table: Table, row: Mapping[str, Value], *, ttl: float | None = None) -> None:
        """Write a whole row unless a newer one is there."""
        await self._write(self._tables.of(table).put_newest(row, ttl, self._now()))

    def writer(self, table: Table, columns: Sequence[str]) -> RowWriter:
        """What makes rows that have these columns."""
        return RowWriter(self._tables.of(table), columns)

    def write(self, rows: Sequence[Prepared], *, ttl: float | None = None) -> asyncio.Future[Any]:
        """Write rows, here in one transaction; writes are committed in the order of the calls."""
        self._tables.check_not_closed()
        write = write_of(rows, ttl, self._now())
        self._purge_now_and_then()
        done = self._writer.offer(write, write.size)
        if done is None:
            raise StoreUnavailable("too many writes are waiting")
        self._stats.writes += 1
        return done

    async def room(self) -> None:
        """Wait for room for a write."""
        self._tables.check_not_closed()
        await self._writer.room()

    async def delete(self, table: Table, key: Key) -> None:
        """Delete one row or one partition."""
        deletion = self._tables.of(table).delete(key)
        while not await self._write(deletion):
            pass

    async def put_if(
        self,
        table: Table,
        row: Mapping[str, Value],
        expect: Mapping[str, Value] | None,
        *,
        ttl: float | None = None,
    ) -> bool:
        """Write columns of one row on a condition; whether it was written."""
        return await self._write(self._tables.of(table).put_if(row, expect, ttl, self._now()))

    async def delete_if(self, table: Table, key: Key, expect: Mapping[str, Value]) -> bool:
        """Delete one row on a condition; whether it was deleted."""
        return await self._write(self._tables.of(table).delete_if(key, expect, self._now()))

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
        write = self._tables.of(table).batch(partition, writes, static, expect, ttl, self._now())
        if write.is_empty:
            return True
        return await self._write(write)

    async def migrate(self, tables: Sequence[Table]) -> list[str]:
        """Make and extend tables; what was made, in words."""
        self._tables.check_not_closed()
        return list(await self._writer.write(partial(migrate, tables=tables)))

    async def missing(self, tables: Sequence[Table]) -> list[str]:
        """What `migrate` would make, in words."""
        self._tables.check_not_closed()
        if self._size() is None:
            return [f"database {self._path}", *(f"table {table.name}" for table in tables)]
        return self._read(partial(lacking, tables=tables))

    async def info(self) -> dict[str, Any]:
        """The file and its tables, for people."""
        self._tables.check_not_closed()
        size = self._size()
        return {
            "engine": "sqlite",
            "version": sqlite3.sqlite_version,
            "path": self._path,
            "bytes": size,
            "tables": [] if size is None else self._read(described),
        }

    async def soundings(self) -> list[Sounding]:
        """How long it takes to look at the file."""
        started = time.perf_counter()
        try:
            self._tables.check_not_closed()
            self._read(stored_tables)
        except StoreError as error:
            return [Sounding("SQLite", problem=str(error))]
        return [Sounding("SQLite", time.perf_counter() - started)]

    async def snapshot(self, path: Path) -> None:
        """Write all that is stored at one moment into a new file."""
        self._tables.check_not_closed()
        if self._path == MEMORY:
            snapshot.write(self._transactions.cursor().connection, MEMORY, path)
            return
        try:
            connection = snapshot.looking(self._path)
        except sqlite3.Error as error:
            raise translated(error, self._path) from error
        with contextlib.closing(connection):
            writing = asyncio.ensure_future(asyncio.to_thread(snapshot.write, connection, self._path, path))
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                connection.interrupt()
                with contextlib.suppress(StoreError):
                    await writing
                    snapshot.forget(path)
                raise

    async def stored_tables(self) -> list[Table]:
        """All tables of the file."""
        self._tables.check_not_closed()
        return self._tables.with_stored(self._read(stored_tables), OpenTable)

    async def dump(
        self, table: Table, *, partition: Key | None = None, limit: int = 1000, page: bytes | None = None
    ) -> Dump:
        """All that a table holds, by pages."""
        reads = TableDump(self._tables.of(table))
        return self._read(partial(reads.read, partition=partition, limit=limit, page=page, now=self._now()))

    async def restore(self, table: Table, entries: Sequence[Stored]) -> None:
        """Write what a dump gave."""
        await self._write(TableDump(self._tables.of(table)).write(entries, self._now()))

    def _size(self) -> int | None:
        """Bytes of the file without its log; None when there is none."""
        if self._path == MEMORY:
            return 0
        path = Path(self._path)
        return path.stat().st_size if path.exists() else None

    def _read(self, ask: Callable[..., Found], *about: Any) -> Found:
        """What `ask` returns for a cursor and all that is given `about` it."""
        self._stats.reads += 1
        try:
            return ask(self._reader or self._reading_cursor(), *about)
        except (sqlite3.Error, OSError) as error:
            self._drop_reader()
            raise translated(error, self._path) from error

    def _reading_cursor(self) -> sqlite3.Cursor:
        if self._path == MEMORY:
            return self._transactions.cursor()
        if self._reader is None:
            self._reader = connect(self._path, READ_PATIENCE, create=False)
        return self._reader

    def _drop_reader(self) -> None:
        """The next read begins with a new connection."""
        if self._reader is not None:
            self._reader.connection.close()
            self._reader = None

    def _write(self, write: Write | PartitionDeletion) -> Awaitable[bool]:
        self._purge_now_and_then()
        self._stats.writes += 1
        return self._writer.write(write, write.size)

    def _purge_now_and_then(self) -> None:
        """Let the writer delete some expired rows; only writes make such rows, so they also set the pace."""
        now = self._now()
        if self._purge_at - PURGE_SECONDS <= now < self._purge_at:  # earlier: the clock was set back
            return
        purging = self._writer.offer(partial(_purge, tables=list(self._tables), now=now))
        if purging is not None:
            self._purge_at = now + PURGE_SECONDS
            purging.add_done_callback(self._count_purged)

    def _count_purged(self, purging: asyncio.Future[int]) -> None:
        if purging.cancelled() or purging.exception() is not None:
            return  # there is another time
        self._stats.purged += purging.result()
        if purging.result() >= PURGE_ROWS:
            self._purge_at = 0.0


def _never_mind(shrinking: asyncio.Future[None]) -> None:
    """Look at how it ended, or asyncio would log that nobody did: what was not given up is kept."""
    if not shrinking.cancelled():
        shrinking.exception()


def _purge(cursor: sqlite3.Cursor, tables: Sequence[OpenTable], now: float) -> int:
    return sum(opened.purge(cursor, now, PURGE_ROWS) for opened in tables)
