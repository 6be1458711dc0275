"""Declared wide-row tables and the port that every storage engine implements.

A row is addressed by its *key*: the values of the partition columns, then those of the clustering columns.
All rows of one partition live together, are ordered by the clustering columns (text by code points, blobs by
bytes), share the *static* columns, and are the unit of atomicity: nothing spans partitions, so write in a way
that a repeat is harmless.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from xmppd.store.person import Person

ColumnType = Literal["text", "blob", "int", "float", "bool", "timestamp"]
"""Types of columns. `timestamp`: seconds since the epoch, UTC, a float; `int`: 64 bits; `float`: not NaN."""

Value = str | bytes | int | float | bool | None
Key = tuple[Value, ...]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """The declaration of one table. Names are lower-case; key columns are `text` unless `columns` says more.

    `ttl` is the default life of rows and static columns in seconds (None: for ever). Each write gives the row
    a new life, so where there are TTLs write whole rows. `descending` reverses the order of all clustering
    columns. A plugin leaves `name` empty: the loader fills in `<plugin>_<attribute>`.

    `heap` is for large rows that are written one by one into many partitions and seldom read: an engine may
    keep them where they came in, and their keys apart. It tells nothing else, and may be changed at any time;
    a table that is there already stays as it is.

    `order` names a plain column of type `int`, a moment in microseconds since the epoch. Rows of such a table
    are written by `put_newest` only, which lets the largest `order` win.

    `person` says whom its rows are about. A store does not ask; a server does not load a table without.
    """

    name: str = ""
    partition: tuple[str, ...] = ()
    cluster: tuple[str, ...] = ()
    columns: Mapping[str, ColumnType] = field(default_factory=dict)
    static: Mapping[str, ColumnType] = field(default_factory=dict)
    ttl: float | None = None
    descending: bool = False
    heap: bool = False
    order: str | None = None
    person: Person | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """Names of all key columns, partition first."""
        return self.partition + self.cluster

    def type_of(self, column: str) -> ColumnType:
        """The type of a key, plain or static column; KeyError for an unknown one."""
        if column in self.columns:
            return self.columns[column]
        if column in self.static:
            return self.static[column]
        if column in self.key:
            return "text"
        raise KeyError(column)

    def named(self, name: str) -> Table:
        """The same declaration under another name."""
        return replace(self, name=name)


@dataclass(frozen=True, slots=True)
class Put:
    """Write columns of one row in a batch (an upsert); of its key `row` holds the clustering columns only."""

    row: Mapping[str, Value]
    ttl: float | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """In a batch: delete the row with these clustering values; an empty tuple: every row, nothing static.

    `through`: all rows whose first clustering values are these or smaller ones. Where rows come and go, as in
    a queue, that is the way to delete them: an engine may have to keep a mark of every single delete.
    """

    cluster: Key = ()
    through: bool = False


Prepared = tuple[Any, Sequence[Any]]
"""Rows of one table for `Store.write`, as a `RowWriter` of the same store made them."""


class RowWriter(Protocol):
    """Makes rows of one table for `Store.write`. Its columns were checked once and for all."""

    def row(self, *values: Value) -> Prepared:
        """The row that has these values, in the order of the columns; StoreBug for wrong ones, at once or
        from the write.
        """

    def rows(self, rows: Sequence[tuple[Value, ...]]) -> Prepared:
        """The same of many, for less."""


class Page(NamedTuple):
    """Some rows of a scan, in clustering order, and the token to go on with (None: no more rows)."""

    rows: list[Row]
    next: bytes | None


class Tuples(NamedTuple):
    """The columns asked for of some rows of a scan, and the token to go on with (None: no more rows)."""

    rows: list[tuple[Any, ...]]
    next: bytes | None


@dataclass(frozen=True, slots=True)
class Stored:
    """What lies under one key: a row by its whole key, or the static columns by the partition key.

    `values` are the plain, or static, columns that have a value. From the moment `expires` (seconds since the
    epoch; None: never) it is not seen; where an engine lets columns end one by one, it is the last one's end.
    """

    key: Key
    values: Mapping[str, Value]
    expires: float | None = None


class Sounding(NamedTuple):
    """How one server of an engine answered now: after how many `seconds`; by how many its clock is `ahead` of
    ours, None if it has none of its own; or a `problem`, in a sentence.
    """

    name: str
    seconds: float = 0.0
    ahead: float | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Dump:
    """Some of what a table holds, and the token to go on with (None: no more)."""

    entries: list[Stored]
    next: bytes | None


class Store(Protocol):
    """What every engine offers. `await` on a write returns when the write is durable.

    Errors: StoreUnavailable (nothing was and nothing will be written), StoreTimeout (outcome unknown),
    StoreConflict, StoreBug (refused before anything was done). Rows read hold every column of the table, None
    where nothing was written, static columns included. A row whose TTL has passed is not seen. Who cancels a
    write does not know its outcome.
    """

    @property
    def stats(self) -> Any:
        """What the store has done since it was made: a dataclass of counters, each engine's own."""

    async def open(self, tables: Sequence[Table]) -> None:
        """Connect, and create or migrate `tables`. New columns are added; StoreBug says why others cannot be.

        A column that is no longer declared is kept and not seen. A new `ttl` is for rows written from now on.
        May be called again with more tables while open (a plugin was loaded).
        """

    async def close(self) -> None:
        """Finish every accepted write, then disconnect."""

    def release(self) -> None:
        """Give up memory that the next requests can do without; there are fewer users now."""

    async def get(self, table: Table, key: Key) -> Row | None:
        """One row by its whole key, which in a table without clustering columns is the partition key."""

    async def get_many(self, table: Table, partitions: Sequence[Value]) -> list[Row | None]:
        """Rows of a table whose whole key is one column, in the order of these keys, each as `get` gives it.

        Cheaper than as many calls of `get`. The rows may be of different moments; StoreBug for other tables.
        """

    async def get_static(self, table: Table, partition: Key) -> Row | None:
        """The static columns of one partition; None when none of them has a value."""

    async def scan_many(
        self,
        table: Table,
        partitions: Sequence[Value],
        *,
        start: Key | None = None,
        end: Key | None = None,
    ) -> list[list[Row]]:
        """All rows between `start` and `end` of some partitions whose key is one column, in the order of
        these keys, each as `scan` gives it.

        Cheaper than as many calls of `scan`. The partitions may be of different moments; StoreBug for other
        tables. Ask for no more than there is memory for.
        """

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
        """Rows of one partition between the clustering prefixes `start` and `end`, both inclusive, or `after`
        and `before`, both exclusive: no row that begins with these values.

        `start` is the smaller value, whatever the order; `reverse` walks against the clustering order.
        `limit` bounds the rows of this page (None: all rows); `page` is the token of the page before, of the
        same scan.
        """

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
        """Some columns, none of them static, of the rows that `scan` gives, as tuples in their order.

        For a fifth less than dicts cost, and less still where large columns are not asked for. `match` has a
        value for each clustering column but the first, over which the range goes then: rows without these
        values are passed over. So that few matches among many rows hold nobody up, `examine` bounds how many
        are looked at for a page, which may then be empty before the last. An engine that has others look at
        them may look at the whole range: give it one that is small.

        `first` is for who does not go on: no more rows than that, and no token whether there are more or not.
        That is cheaper where the columns that a token is made of are not asked for. StoreBug beside `limit`,
        `page` or `match`.
        """

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
        """All that `scan_columns` would give, however much it is: in pieces that hold nobody up, none empty.

        What is written meanwhile may be in it or not. StoreBug, StoreUnavailable at the first step or later.
        """

    async def get_rows(self, table: Table, partition: Key, keys: Sequence[Key]) -> list[Row]:
        """The rows of one partition whose clustering values begin with one of `keys`, all of one length.

        They come in clustering order, each once and as `get` gives it; of keys that are not there nothing
        comes. The rows may be of different moments.
        """

    async def scan_all(self, table: Table, *, limit: int = 1000, page: bytes | None = None) -> Page:
        """Rows of every partition in the engine's own order, for tools; never on a client's path."""

    async def put(self, table: Table, row: Mapping[str, Value], *, ttl: float | None = None) -> None:
        """Write the given columns of one row (an upsert: the other columns keep their values)."""

    async def put_many(
        self, table: Table, rows: Sequence[Mapping[str, Value]], *, ttl: float | None = None
    ) -> None:
        """Write columns of different rows, of any partitions, each as `put` does.

        Cheaper than as many calls of `put`, and no more atomic: after an error, StoreUnavailable too, some of
        the rows may have been written. StoreBug for one row twice.
        """

    async def put_newest(self, table: Table, row: Mapping[str, Value], *, ttl: float | None = None) -> None:
        """Write a whole row, columns not given having no value, unless one with a larger `order` is there.

        So several may write one row in any order, and what is newest stays: no condition, no wait for others.
        Who writes the same `order` has to write the same row. `order` is no later than now, or a deletion may
        be in vain; what is written after a deletion with an `order` from before may be deleted with it.
        StoreBug for a table without `order`.
        """

    def writer(self, table: Table, columns: Sequence[str]) -> RowWriter:
        """What makes rows for `write` that have these columns, those of the key among them.

        It is good for as long as the store is open.
        """

    def write(self, rows: Sequence[Prepared], *, ttl: float | None = None) -> asyncio.Future[Any]:
        """Write rows of any tables and partitions, each as `put` does; the future ends when all are durable.

        The cheapest way to write, and one wait for all. Rows of one partition take effect together (give no
        more than 1 MiB of them), those of several are no more atomic than several calls of `put`: after
        StoreTimeout some may be there. A write that is repeated with the same rows does no harm. Without room
        for another write StoreUnavailable is raised, and nothing is done. The rows must be different ones.
        Cancelling the future stops nothing.
        """

    async def room(self) -> None:
        """Wait until there is room for a `write` by who calls it before anything else; StoreUnavailable."""

    async def delete(self, table: Table, key: Key) -> None:
        """Delete one row by its whole key, or a partition, static columns too, by the partition key alone.

        A partition of more than a few rows may be deleted in pieces: meanwhile some may be seen, what is
        written to it may be deleted too, and after an error some may be gone. A repeat is harmless.
        """

    async def put_if(
        self,
        table: Table,
        row: Mapping[str, Value],
        expect: Mapping[str, Value] | None,
        *,
        ttl: float | None = None,
    ) -> bool:
        """Write the row only if it is absent (`expect` None) or holds `expect`; whether it was written.

        None in `expect` means a column without value, or no row. Expect what does not come back, as a version
        or a moment: an engine may take the sight of it for a sign that nothing was written, and write again.
        """

    async def delete_if(self, table: Table, key: Key, expect: Mapping[str, Value]) -> bool:
        """Delete one row by its whole key only if its plain columns hold `expect`; whether it was deleted.

        `expect` has a value for one column at least (StoreBug), for a row that is absent is not deleted.
        False: this deleted nothing. True: the row is gone; after a lost answer, maybe by another's hand.
        Expect what no later row of that key will hold: a deletion may reach the store late, or twice.
        """

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
        """Apply all writes of one partition and new `static` values atomically; whether they were applied.

        With `expect` only if the static columns hold these values now (a missing value equals None). The
        writes must touch different rows, for engines differ in which of two would win. `ttl` is the life of
        the static values; each row has its own.
        """

    # for tools that make, move or check whole tables

    async def migrate(self, tables: Sequence[Table]) -> list[str]:
        """Make and extend tables, as `open` does, and say in words what was missing. Connects."""

    async def missing(self, tables: Sequence[Table]) -> list[str]:
        """What `migrate` would make. Connects, and changes nothing; StoreBug where a table cannot be."""

    async def info(self) -> dict[str, Any]:
        """The engine and its tables as they are, for people: whatever JSON can hold. Connects."""

    async def soundings(self) -> list[Sounding]:
        """How each server of the engine answers now; one that does not has a problem: nothing is raised."""

    async def snapshot(self, path: Path) -> None:
        """Write all that is stored at one moment into a new file, while reads and writes go on; StoreBug from
        an engine that does this in a way of its own.
        """

    async def stored_tables(self) -> list[Table]:
        """All tables that are there, by name, ready to be read and deleted from: as they were opened, or else
        as they were last declared, without a `person` where that was never written down.
        """

    async def dump(
        self, table: Table, *, partition: Key | None = None, limit: int = 1000, page: bytes | None = None
    ) -> Dump:
        """All that a table, or one partition of it, holds: also static columns of partitions without rows.

        Partitions come in the engine's own order, each in one piece: first its static columns, if any has a
        value, then its rows in clustering order. A page has at most `limit` entries, maybe none before the
        last; its token is good for the same dump after a restart too.
        """

    async def restore(self, table: Table, entries: Sequence[Stored]) -> None:
        """Write what a dump gave, of any partitions, each with its own end; what has expired is left out.

        Without `expires` it stays for ever, whatever the table's `ttl`. What is under such a key now must be
        nothing, or the same. Not atomic: after an error some may be there, and a repeat is harmless.

        Rows with an `order` keep it, so they may not come back where they were deleted lately.
        """
