"""Calls of the store's port turned into statements of SQLite, for one open table."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, groupby, repeat
from typing import NamedTuple

from xmppd.errors import StoreBug
from xmppd.store._opened import Bound, Ends, Range, match_of, range_of
from xmppd.store.sqlite.layout import NOTHING, TOGETHER, Beside, Layout, Statement
from xmppd.store.table import Delete, Key, Page, Prepared, Put, Row, Table, Tuples, Value
from xmppd.store.values import Columns, Shape, check_limit, check_ttl, page_token, read_page_token

Values = Sequence[Value]

KEYS = 50
"""How many rows are looked up by one statement."""

ALIKE = 8
"""How many rows of one kind take about the time of one statement with the job around it (`writer.GROUP`)."""

PIECE = 100
"""How many rows of a partition are deleted by one job: 0.5 to 1 ms."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Holds if the row that `select` finds has the values `expect`, or if there is none (`expect` None)."""

    select: Statement
    expect: tuple[Value, ...] | None

    def holds(self, cursor: sqlite3.Cursor) -> bool:
        """Whether it holds now."""
        found = cursor.execute(*self.select).fetchone()
        if self.expect is None:
            return found is None
        if found is None:
            return all(value is None for value in self.expect)
        return bool(found == self.expect)


class Rows(NamedTuple):
    """The values of many rows, with the text that writes one and that for TOGETHER of them (see `Puts`)."""

    text: str
    together: str
    values: Sequence[Values]

    def write(self, cursor: sqlite3.Cursor) -> None:
        """Write them."""
        text, together, rows = self
        whole = len(rows) - len(rows) % TOGETHER if together else 0
        for at in range(0, whole, TOGETHER):
            cursor.execute(together, [*chain.from_iterable(rows[at : at + TOGETHER])])
        if whole < len(rows):
            cursor.executemany(text, rows[whole:])


class Write:
    """A job of the writer: what to do if a condition holds; returns whether it held. `rows` are many of one
    kind each, which SQLite is handed at once. `size`: about how many single ones would take that time.
    """

    __slots__ = ("condition", "rows", "size", "statements")

    def __init__(
        self,
        statements: Sequence[Statement],
        condition: Condition | None = None,
        rows: Sequence[Rows] = (),
    ) -> None:
        self.statements = statements
        self.condition = condition
        self.rows = rows
        self.size = len(statements)
        if rows:
            self.size += sum([-(-len(some.values) // ALIKE) for some in rows])

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do, whatever stands there."""
        return not self.statements and not self.rows and self.condition is None

    def __call__(self, cursor: sqlite3.Cursor) -> bool:
        if self.condition is not None and not self.condition.holds(cursor):
            return False
        for rows in self.rows:
            rows.write(cursor)
        for text, values in self.statements:
            cursor.execute(text, values)
        return True


class PartitionDeletion:
    """A job of the writer: delete some rows of a partition, and with the last of them its static columns;
    returns whether nothing is left. All at once would hold up the loop.
    """

    __slots__ = ("_layout", "_partition")

    size = PIECE

    def __init__(self, layout: Layout, partition: Key) -> None:
        self._layout = layout
        self._partition = partition

    def __call__(self, cursor: sqlite3.Cursor) -> bool:
        rows, partition = self._layout.rows, self._partition
        edge = None
        if rows.cluster:
            nth = rows.select_nth(partition, (), PIECE - 1, ascending=True)
            edge = cursor.execute(*nth).fetchone()
        if edge is not None:
            cursor.execute(rows.delete_through(len(edge)), (*partition, *edge))
            return False
        for part in self._layout.tables:
            cursor.execute(part.delete_partition, partition)
        return True


class RowWriter:
    """Implements `xmppd.store.table.RowWriter`."""

    __slots__ = ("_columns", "_opened", "_puts")

    def __init__(self, opened: OpenTable, columns: Sequence[str]) -> None:
        self._opened = opened
        self._columns = Columns(opened.shape, columns)
        self._puts = opened.layout.rows.puts

    def row(self, *values: Value) -> Prepared:
        """The row that has these values."""
        return self, (self._columns.checked(values),)

    def rows(self, rows: Sequence[tuple[Value, ...]]) -> Prepared:
        """The rows that have these values."""
        return self, self._columns.all_checked(rows)

    def puts(self, rows: Sequence[Values], ttl: float | None, now: float) -> Rows:
        """What writes rows."""
        text, together, after = self._puts(self._columns.names, self._opened.end(ttl, now), now)
        return Rows(text, together, [(*values, *after) for values in rows] if after else rows)


def write_of(rows: Sequence[Prepared], ttl: float | None, now: float) -> Write:
    """What writes rows of any tables, those of one writer together."""
    alike: dict[RowWriter, list[Values]] = {}
    for writer, values in rows:
        if (some := alike.get(writer)) is None:
            alike[writer] = [*values]
        else:
            some += values
    return Write((), rows=[writer.puts(some, ttl, now) for writer, some in alike.items()])


class Scan(NamedTuple):
    """A checked scan: what to ask for, how many rows to give, and what marks the tokens of its pages. Without
    a partition it is of all.
    """

    partition: Key
    select: Statement
    limit: int | None
    kind: str
    token_columns: tuple[str, ...]


class ColumnScan(NamedTuple):
    """A checked scan for some columns: of which range to ask for what, how many of the columns are given, and
    where the clustering columns are among them. `edge` finds the last row that may be looked at; `most` are
    asked for (-1: all).
    """

    partition: Key
    range: Range
    columns: tuple[str, ...]
    given: int
    places: tuple[int, ...]
    match: Key
    edge: Statement | None
    limit: int | None
    most: int


@contextlib.contextmanager
def snapshot(cursor: sqlite3.Cursor) -> Iterator[None]:
    """Several reads that see one state."""
    cursor.execute("BEGIN")
    try:
        yield
    finally:
        cursor.connection.rollback()


class OpenTable:
    """One declaration in use. What is asked for is checked (StoreBug) before there is any statement."""

    def __init__(self, table: Table) -> None:
        self.declaration = table
        self.shape = Shape(table)
        self.layout = Layout(table)
        self._rows = self.layout.rows
        self._static = self.layout.static
        self._whole = self._rows.columns + (self._static.plain if self._static is not None else ())
        self._flags = self._static.flags if self._static is not None else ()
        self._unset: Row = dict.fromkeys(self._static.plain) if self._static is not None else {}
        self._checks = lru_cache(256)(self.shape.row_checks)
        self._selected = lru_cache(64)(self._selected_with)
        self._scans = lru_cache(64)(self._scan_text)

    def release(self) -> None:
        """Give up the memory of texts that can be made again."""
        for texts in (self._checks, self._selected, self._scans):
            texts.cache_clear()
        for part in self.layout.tables:
            part.release()

    # writing

    def put(self, row: Mapping[str, Value], ttl: float | None, now: float) -> Write:
        """Write columns of one row."""
        given = tuple(row)
        checks = self._checks(given, self._rows.key)
        values = [check(row[column]) for column, check in zip(given, checks, strict=True)]
        return Write((self._rows.put(given, values, self.end(ttl, now), now),))

    def put_newest(self, row: Mapping[str, Value], ttl: float | None, now: float) -> Write:
        """Write a whole row unless a newer one is there."""
        values = list(self.shape.newest(row).values())
        assert self.declaration.order is not None
        return Write((self._rows.put_newest(self.declaration.order, values, self.end(ttl, now), now),))

    def put_many(self, rows: Sequence[Mapping[str, Value]], ttl: float | None, now: float) -> Write:
        """Write columns of different rows."""
        written, touched = self._puts((), [(row, ttl) for row in rows], now)
        self.shape.distinct(touched)
        return Write((), rows=written)

    def put_if(
        self, row: Mapping[str, Value], expect: Mapping[str, Value] | None, ttl: float | None, now: float
    ) -> Write:
        """Write columns of one row if it is absent, or holds what is expected."""
        statement, key = self._put(row, ttl, now)
        if expect is None:
            return Write((statement,), Condition((self._rows.select(self._rows.key), (*key, now)), None))
        expected = self.shape.plain_values(expect)
        select = self._rows.select(tuple(expected)), (*key, now)
        return Write((statement,), Condition(select, tuple(expected.values())))

    def delete(self, key: Key) -> Write | PartitionDeletion:
        """Delete a row, or a partition with its static columns: to be done until it says that it is."""
        if len(key) != len(self.declaration.partition):
            return Write(((self._rows.delete_row, self.shape.key(key)),))
        return PartitionDeletion(self.layout, self.shape.partition(key))

    def delete_if(self, key: Key, expect: Mapping[str, Value], now: float) -> Write:
        """Delete a row if it holds what is expected."""
        key, expected = self.shape.key(key), self.shape.present_values(expect)
        select = self._rows.select(tuple(expected)), (*key, now)
        return Write(((self._rows.delete_row, key),), Condition(select, tuple(expected.values())))

    def batch(
        self,
        partition: Key,
        writes: Sequence[Put | Delete],
        static: Mapping[str, Value] | None,
        expect: Mapping[str, Value] | None,
        ttl: float | None,
        now: float,
    ) -> Write:
        """Write rows and static columns of one partition, if the static columns hold what is expected."""
        partition = self.shape.partition(partition)
        puts = [(write.row, write.ttl) for write in writes if isinstance(write, Put)]
        rows, touched = self._puts(partition, puts, now)
        statements: list[Statement] = []
        ranges: list[Key] = []
        for write in writes:
            if isinstance(write, Delete):
                statements.append(self._delete(partition, write))
                (ranges if write.through else touched).append(write.cluster)
        self.shape.distinct(touched, ranges)
        if static:
            statements.append(self._put_static(partition, self.shape.static_values(static), ttl, now))
        condition = None if expect is None else self._static_condition(partition, expect, now)
        return Write(statements, condition, rows)

    def purge(self, cursor: sqlite3.Cursor, now: float, limit: int) -> int:
        """Delete some rows that have expired; how many."""
        return sum(cursor.execute(part.purge, (now, limit)).rowcount for part in self.layout.tables)

    def _put(self, row: Mapping[str, Value], ttl: float | None, now: float) -> tuple[Statement, Key]:
        """The statement that writes a row, and the row's key."""
        given = tuple(row)
        checks = self._checks(given, self._rows.key)
        checked = {column: check(row[column]) for column, check in zip(given, checks, strict=True)}
        statement = self._rows.put(given, tuple(checked.values()), self.end(ttl, now), now)
        return statement, tuple(checked[column] for column in self._rows.key)

    def _puts(
        self, partition: Key, puts: Sequence[tuple[Mapping[str, Value], float | None]], now: float
    ) -> tuple[list[Rows], list[Key]]:
        """What writes rows, each with its life, and their keys: those that have the same columns together. A
        `partition` given is not in them. A roster that is made has a thousand rows, so they are checked
        column by column.
        """
        alike: dict[tuple[tuple[str, ...], float | None], list[Mapping[str, Value]]] = {}
        for row, ttl in puts:
            alike.setdefault((tuple(row), ttl), []).append(row)
        key = self._rows.key[len(partition) :]
        written: list[Rows] = []
        touched: list[Key] = []
        for (columns, ttl), rows in alike.items():
            self._checks(columns, key)
            given = zip(*[row.values() for row in rows], strict=True)
            checked = {
                column: self.shape.column(column, values)
                for column, values in zip(columns, given, strict=True)
            }
            parts = [checked[column] for column in key]
            touched += zip(*parts, strict=True) if parts else [()] * len(rows)
            text, together, after = self._rows.puts(
                (*self.declaration.key[: len(partition)], *columns), self.end(ttl, now), now
            )
            first, last = ([repeat(value, len(rows)) for value in values] for values in (partition, after))
            values = list(zip(*first, *checked.values(), *last, strict=True))
            written.append(Rows(text, together, values))
        return written, touched

    def end(self, ttl: float | None, now: float) -> float | None:
        """When a row ends that is written now; None: never."""
        life = check_ttl(self.declaration, ttl)
        return None if life is None else now + life

    def _delete(self, partition: Key, write: Delete) -> Statement:
        if write.through:
            through = self.shape.through(write.cluster)
            return self._rows.delete_through(len(through)), (*partition, *through)
        if not write.cluster:
            return self._rows.delete_partition, partition
        return self._rows.delete_row, (*partition, *self.shape.cluster(write.cluster))

    def _put_static(
        self, partition: Key, values: Mapping[str, Value], ttl: float | None, now: float
    ) -> Statement:
        assert self._static is not None
        columns = (*self.declaration.partition, *values)
        return self._static.put(columns, (*partition, *values.values()), self.end(ttl, now), now)

    def _static_condition(self, partition: Key, expect: Mapping[str, Value], now: float) -> Condition:
        expected = self.shape.static_values(expect)
        assert self._static is not None
        select = self._static.select(tuple(expected)), (*partition, now)
        return Condition(select, tuple(expected.values()))

    # reading

    def key(self, key: Key) -> Key:
        """A whole key, checked."""
        return self.shape.key(key)

    def keys(self, values: Sequence[Value]) -> list[Value]:
        """Keys of one column, checked."""
        return [key for (key,) in self.shape.keys(values)]

    def partitions(self, values: Sequence[Value]) -> list[Key]:
        """Partition keys of one column, checked."""
        return self.shape.partitions(values)

    def partition(self, partition: Key) -> Key:
        """A partition key, checked; StoreBug for a table without static columns too."""
        if self._static is None:
            raise StoreBug(f"table {self.declaration.name} has no static columns")
        return self.shape.partition(partition)

    def get(self, cursor: sqlite3.Cursor, key: Key, now: float) -> Row | None:
        """One row by its checked key."""
        beside = self._beside(key[: len(self.declaration.partition)], now)
        select = self._rows.select(self._rows.columns, beside.text), (*beside.values, *key, now)
        rows = self._rows.fetch(cursor, self._whole, select, self._flags)
        return rows[0] if rows else None

    def get_many(self, cursor: sqlite3.Cursor, keys: Sequence[Value], now: float) -> list[Row | None]:
        """Rows by checked keys of one column, in their order."""
        found: dict[Value, Row] = {}
        for start in range(0, len(keys), KEYS):
            some = keys[start : start + KEYS]
            select = self._rows.select_keys(len(some)), (*some, now)
            rows = self._rows.fetch(cursor, self._rows.columns, select)
            found.update((row[self._rows.key[0]], row) for row in rows)
        return [found.get(key) for key in keys]

    def get_static(self, cursor: sqlite3.Cursor, partition: Key, now: float) -> Row | None:
        """The static columns of a checked partition key."""
        assert self._static is not None
        select = self._static.select(self._static.plain), (*partition, now)
        static = self._static.fetch(cursor, self._static.plain, select)
        return static[0] if static and static[0] != self._unset else None

    def scan(
        self,
        partition: Key,
        ends: Ends,
        limit: int | None,
        reverse: bool,
        page: bytes | None,
        now: float,
    ) -> Scan:
        """What to ask for rows of one partition."""
        text, values, kind = (
            self._scans(ends, reverse) if page is None else self._scan_text(ends, reverse, page)
        )
        partition, static = self.shape.partition(partition), self._static
        beside = () if static is None else (*partition, now) * len(static.plain)
        select = text, (*beside, *partition, *values, now, self._asked(limit))
        return Scan(partition, select, limit, kind, self.declaration.cluster)

    def _scan_text(
        self, ends: Ends, reverse: bool, page: bytes | None = None
    ) -> tuple[str, Sequence[Value], str]:
        """What asks for a range of any partition, the values of its bounds, and the mark of its tokens."""
        found = self._range(ends, reverse, page)
        beside = "" if self._static is None else self._static.beside_text
        fixed = len(self.declaration.partition)
        text, values = self._rows.ranged(fixed, found.bounds, found.ascending, beside=beside)
        return text, values, found.kind

    def scan_all(self, limit: int, page: bytes | None, now: float) -> Scan:
        """What to ask for rows of all partitions."""
        ascending = not self.declaration.descending
        given = []
        if page is not None:
            after = read_page_token(self.shape, "*", page, self._rows.key)
            given = [Bound(">" if ascending else "<", after)]
        select = self._rows.select_range((), given, now, ascending=ascending, limit=self._asked(limit))
        return Scan((), select, limit, "*", self._rows.key)

    def page(self, cursor: sqlite3.Cursor, scan: Scan, now: float) -> Page:
        """The rows of a scan."""
        rows = self._fetch(cursor, scan, now)
        if scan.limit is None or len(rows) <= scan.limit:
            return Page(rows, None)
        rows.pop()
        return Page(rows, page_token(scan.kind, tuple(rows[-1][column] for column in scan.token_columns)))

    def scan_columns(
        self,
        partition: Key,
        columns: Sequence[str],
        ends: Ends,
        match: Mapping[str, Value] | None,
        examine: int | None,
        limit: int | None,
        first: int | None,
        reverse: bool,
        page: bytes | None,
    ) -> ColumnScan:
        """What to ask for some columns of rows of one partition."""
        has_token = limit is not None or examine is not None
        asked, given, places = self._selected(tuple(columns), has_token)
        found = self._range(ends, reverse, page)
        partition, matched = self.shape.partition(partition), match_of(self.shape, match, ends)
        edge = None
        if examine is not None:
            place = check_limit(self.declaration, examine) - 1
            edge = self._rows.select_nth(partition, found.bounds, place, ascending=found.ascending)
        most = self._asked(limit) if first is None else check_limit(self.declaration, first)
        return ColumnScan(partition, found, asked, given, places, matched, edge, limit, most)

    def tuples(self, cursor: sqlite3.Cursor, scan: ColumnScan, now: float) -> Tuples:
        """The rows of a scan for some columns."""
        found = scan.range
        bounds, edge = found.bounds, None
        if scan.edge is not None and (edge := cursor.execute(*scan.edge).fetchone()) is not None:
            # Every row up to there is within the bound at that end, if there is one.
            last = Bound("<=" if found.ascending else ">=", edge)
            bounds = (*(bound for bound in bounds if bound.operator[0] != last.operator[0]), last)
        select = self._rows.select_range(
            scan.partition,
            bounds,
            now,
            ascending=found.ascending,
            limit=scan.most,
            columns=scan.columns,
            match=scan.match,
        )
        rows = self._rows.fetch_tuples(cursor, scan.columns, select)
        if scan.limit is not None and len(rows) > scan.limit:
            rows.pop()
            edge = tuple([rows[-1][place] for place in scan.places])
        if scan.given < len(scan.columns):
            rows = [row[: scan.given] for row in rows]
        return Tuples(rows, None if edge is None else page_token(found.kind, edge))

    def get_rows(self, cursor: sqlite3.Cursor, partition: Key, keys: Sequence[Key], now: float) -> list[Row]:
        """Rows of a checked partition by checked prefixes, which are in order."""
        found: list[Row] = []
        beside = self._beside(partition, now)
        for start in range(0, len(keys), KEYS):
            some = keys[start : start + KEYS]
            text = self._rows.select_clusters(len(some[0]), len(some), beside.text)
            values = [value for key in some for value in key]
            select = text, (*values, *beside.values, *partition, now)
            found += self._rows.fetch(cursor, self._whole, select, self._flags)
        return found

    def _selected_with(
        self, columns: tuple[str, ...], has_token: bool
    ) -> tuple[tuple[str, ...], int, tuple[int, ...]]:
        """What to ask for where these columns are wanted, how many they are, and where the clustering columns
        are among them, of which the token is made if there is one.
        """
        given, cluster = self.shape.selected(columns), self.declaration.cluster if has_token else ()
        asked = (*given, *(column for column in cluster if column not in given))
        return asked, len(given), tuple(asked.index(column) for column in cluster)

    def _range(self, ends: Ends, reverse: bool, page: bytes | None = None) -> Range:
        return range_of(self.shape, ends, reverse, page)

    def _asked(self, limit: int | None) -> int:
        """One row more than wanted shows whether there are more."""
        return -1 if limit is None else check_limit(self.declaration, limit) + 1

    def _fetch(self, cursor: sqlite3.Cursor, scan: Scan, now: float) -> list[Row]:
        """Rows with their static columns."""
        if scan.partition:
            return self._rows.fetch(cursor, self._whole, scan.select, self._flags)
        if self._static is None:
            return self._rows.fetch(cursor, self._rows.columns, scan.select)
        with snapshot(cursor):
            rows = self._rows.fetch(cursor, self._rows.columns, scan.select)
            for partition, group in self._by_partition(rows):
                static = self.get_static(cursor, partition, now) or self._unset
                for row in group:
                    row.update(static)
            return rows

    def _beside(self, partition: Key, now: float) -> Beside:
        """The static columns of a partition, to be read with its rows."""
        return NOTHING if self._static is None else self._static.beside(partition, now)

    def _by_partition(self, rows: list[Row]) -> Iterable[tuple[Key, Iterable[Row]]]:
        return groupby(rows, lambda row: tuple(row[column] for column in self.declaration.partition))
