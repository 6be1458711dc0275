"""Calls of the store's port turned into statements of Cassandra, for one open table."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from xmppd.errors import StoreBug
from xmppd.store._opened import Ends, match_of, range_of
from xmppd.store.cassandra.cql import ROW_MARK, CqlTable
from xmppd.store.cassandra.cql import Shape as RangeShape
from xmppd.store.table import Delete, Key, Page, Put, Row, Table, Tuples, Value
from xmppd.store.values import Shape, check_limit, check_ttl, page_token, read_page_token

LONGEST_TTL = 20 * 365 * 86400
"""Seconds. Cassandra refuses a longer life; such a row lives for ever."""

KEYS = 50
"""How many rows are asked for at once: the node that is asked gathers them from all that have some."""

SCANS = 10
"""Of how many partitions all rows are asked for at once."""

Statement = tuple[str, Sequence[Value | list[Value]]]
"""CQL text and the values of its parameters, some of them lists."""

Found = Sequence[Value]
"""One row as it comes from the driver."""


@dataclass(frozen=True, slots=True)
class Write:
    """Statements on one partition that take effect together, and that may be repeated without harm."""

    statements: Sequence[Statement]


@dataclass(frozen=True, slots=True)
class ConditionalWrite:
    """Statements that take effect together if a condition holds.

    `look` reads the mark that this write leaves behind, then the columns compared. `expect` is what they
    have to be, None for "no row at all". Writes with the same `turn` get in each other's way.
    """

    statements: Sequence[Statement]
    look: Statement
    mark: int
    expect: tuple[Value, ...] | None
    turn: object

    def is_applied(self, found: Sequence[Found]) -> bool:
        """Whether what `look` found shows that this write took effect."""
        return bool(found) and found[0][0] == self.mark

    def holds(self, found: Sequence[Found]) -> bool:
        """Whether what `look` found shows that the condition still holds, so that this took no effect.

        That nothing is there shows nothing: what this wrote may have been deleted since.
        """
        if not found or self.expect is None or all(value is None for value in self.expect):
            return False
        return tuple(found[0][1 : len(self.expect) + 1]) == self.expect


@dataclass(frozen=True, slots=True)
class ConditionalDelete:
    """A statement that deletes a row if it holds `expect`, of which one value at least is not None.

    What is deleted keeps no mark: `look` reads the row's mark, which says nothing here, then the columns
    compared. Writes with the same `turn` get in each other's way.
    """

    statements: Sequence[Statement]
    look: Statement
    expect: tuple[Value, ...]
    turn: object

    def is_applied(self, found: Sequence[Found]) -> bool:
        """Whether what `look` found is as this deletion leaves it, or another one did."""
        return not found

    def holds(self, found: Sequence[Found]) -> bool:
        """Whether the condition holds by what `look` found."""
        return bool(found) and tuple(found[0][1:]) == self.expect


Conditional = ConditionalWrite | ConditionalDelete


@dataclass(frozen=True, slots=True)
class Scan:
    """A checked scan of one partition: what to ask for, how many rows to give, what marks its pages'
    tokens.
    """

    statement: Statement
    limit: int | None
    kind: str


@dataclass(frozen=True, slots=True)
class ColumnScan:
    """The same for some columns: how many are given, and where the clustering columns are in a row."""

    statement: Statement
    limit: int | None
    kind: str
    given: int
    places: tuple[int, ...]


class OpenTable:
    """One declaration in use. What is asked for is checked (StoreBug) before there is any statement."""

    def __init__(self, keyspace: str, table: Table) -> None:
        self.declaration = table
        self.cql = CqlTable(keyspace, table)
        self.shape = Shape(table)
        self._checks = lru_cache(256)(self.shape.row_checks)
        self._asks = lru_cache(64)(self._asks_for)
        self._is_clustered = bool(table.cluster)
        self._first_cluster = len(table.partition)

    def release(self) -> None:
        """Give up the memory of texts that can be made again."""
        self._checks.cache_clear()
        self._asks.cache_clear()
        self.cql.release()

    # writing

    def put(self, row: Mapping[str, Value], ttl: float | None) -> Write:
        """Write columns of one row."""
        columns = self._checked((), row)
        return Write([self.insert(columns, self.seconds(ttl))])

    def put_newest(self, row: Mapping[str, Value], ttl: float | None) -> Write:
        """Write a whole row unless a newer one is there."""
        return Write([self.insert_newest(self.shape.newest(row), self.seconds(ttl))])

    def insert_newest(self, columns: Mapping[str, Value], seconds: int) -> Statement:
        """What writes a whole row as of the moment of its order, for so many seconds (0: for ever)."""
        assert self.declaration.order is not None
        moment = columns[self.declaration.order]
        values = [columns.get(column) for column in (*self.cql.key, *self.cql.plain)]
        return self.cql.insert_at(), (*values, moment, seconds)

    def put_many(self, rows: Sequence[Mapping[str, Value]], ttl: float | None) -> list[list[Statement]]:
        """Write columns of different rows: the statements of each partition."""
        seconds = self.seconds(ttl)
        by_partition: dict[Key, list[Statement]] = {}
        keys: list[Key] = []
        for row in rows:
            columns = self._checked((), row)
            keys.append(tuple([columns[column] for column in self.cql.key]))
            statements = by_partition.setdefault(keys[-1][: self._first_cluster], [])
            statements.append(self.insert(columns, seconds))
        self.shape.distinct(keys)
        return list(by_partition.values())

    def put_if(
        self, row: Mapping[str, Value], expect: Mapping[str, Value] | None, ttl: float | None
    ) -> ConditionalWrite:
        """Write columns of one row if it is absent, or holds what is expected."""
        columns, seconds, mark = self._checked((), row), self.seconds(ttl), _new_mark()
        key = tuple(columns[column] for column in self.cql.key)
        turn = (self.declaration.name, key[: self._first_cluster])
        if expect is None:
            text = self.cql.insert_new(tuple(columns))
            look = self.cql.look_row(()), key
            return ConditionalWrite([(text, (*columns.values(), mark, seconds))], look, mark, None, turn)
        expected = self.shape.plain_values(expect)
        plain = {column: value for column, value in columns.items() if column in self.cql.plain}
        text = self.cql.update_if(tuple(plain), tuple(expected))
        update = text, (seconds, *plain.values(), mark, *key, *expected.values())
        # The UPDATE alone would leave a row that is gone when its columns are.
        row_itself = self.cql.insert(self.cql.key), (*key, seconds)
        look = self.cql.look_row(tuple(expected)), key
        return ConditionalWrite([update, row_itself], look, mark, tuple(expected.values()), turn)

    def delete(self, key: Key) -> Write:
        """Delete a row, or a partition with its static columns."""
        if len(key) == self._first_cluster:
            return Write([(self.cql.delete_partition, self.shape.partition(key))])
        return Write([(self.cql.delete_row, self.shape.key(key))])

    def delete_if(self, key: Key, expect: Mapping[str, Value]) -> ConditionalDelete:
        """Delete a row if it holds what is expected."""
        key, expected = self.shape.key(key), self.shape.present_values(expect)
        columns, values = tuple(expected), tuple(expected.values())
        statement = self.cql.delete_if(columns), (*key, *values)
        turn = (self.declaration.name, key[: self._first_cluster])
        return ConditionalDelete([statement], (self.cql.look_row(columns), key), values, turn)

    def batch(
        self,
        partition: Key,
        writes: Sequence[Put | Delete],
        static: Mapping[str, Value] | None,
        expect: Mapping[str, Value] | None,
        ttl: float | None,
    ) -> Write | ConditionalWrite:
        """Write rows and static columns of one partition, if the static columns hold what is expected."""
        partition = self.shape.partition(partition)
        statements: list[Statement] = []
        touched: list[Key] = []
        ranges: list[Key] = []
        for write in writes:
            if isinstance(write, Put):
                columns = self._checked(partition, write.row)
                statements.append(self.insert(columns, self.seconds(write.ttl)))
                touched.append(tuple(columns[column] for column in self.cql.cluster))
            else:
                statements.append(self._delete(partition, write))
                (ranges if write.through else touched).append(write.cluster)
        self.shape.distinct(touched, ranges)
        values = self.shape.static_values(static) if static else {}
        seconds = self.seconds(ttl)
        if expect is None:
            if values:
                text = self.cql.update_static(tuple(values), ())
                statements.append((text, (seconds, *values.values(), *partition)))
            return Write(statements)
        expected, mark = self.shape.static_values(expect), _new_mark()
        text = self.cql.update_static(tuple(values), tuple(expected))
        statements.insert(0, (text, (seconds, *values.values(), mark, *partition, *expected.values())))
        look = self.cql.look_static(tuple(expected)), partition
        turn = (self.declaration.name, partition)
        return ConditionalWrite(statements, look, mark, tuple(expected.values()), turn)

    def _checked(self, partition: Key, row: Mapping[str, Value]) -> dict[str, Value]:
        """The columns of a row, the key among them. A `partition` given is not in the row."""
        given = tuple(row)
        checks = self._checks(given, self.cql.key[len(partition) :])
        checked = {column: check(row[column]) for column, check in zip(given, checks, strict=True)}
        if partition:
            return {**dict(zip(self.cql.partition, partition, strict=True)), **checked}
        return checked

    def insert(self, columns: Mapping[str, Value], seconds: int) -> Statement:
        """What writes columns of one row, the key among them, for so many seconds (0: for ever)."""
        if not seconds and any(columns.get(column) is not None for column in self.cql.plain):
            return self.cql.insert(tuple(columns)), (*columns.values(), 0)
        # An old mark that outlived the rest would be a row, and only a value tells a dump when a row ends.
        return self.cql.insert((*columns, ROW_MARK)), (*columns.values(), 0, seconds)

    def _delete(self, partition: Key, write: Delete) -> Statement:
        if write.through:
            through = self.shape.through(write.cluster)
            return self.cql.delete_through(len(through)), (*partition, *through)
        if not write.cluster:
            return self.cql.delete_rows, (*partition, *self.cql.smallest)
        return self.cql.delete_row, (*partition, *self.shape.cluster(write.cluster))

    def seconds(self, ttl: float | None) -> int:
        """A life as Cassandra wants it: whole seconds, 0 for ever."""
        life = check_ttl(self.declaration, ttl)
        return 0 if life is None or life > LONGEST_TTL else math.ceil(life)

    # reading

    def get(self, key: Key) -> Statement:
        """What to ask for one row by its whole key."""
        return self.cql.select_row, self.shape.key(key)

    def get_many(self, values: Sequence[Value]) -> list[Statement]:
        """What to ask for rows by their keys of one column."""
        keys = [key for (key,) in self.shape.keys(values)]
        pieces = [keys[start : start + KEYS] for start in range(0, len(keys), KEYS)]
        return [(self.cql.select_rows, (piece,)) for piece in pieces]

    def in_order(self, values: Sequence[Value], found: Sequence[Found]) -> list[Row | None]:
        """The rows that belong to the keys, None where there is none."""
        rows = {row[0]: row for row in found}
        columns = self.cql.columns
        return [
            dict(zip(columns, row, strict=True)) if (row := rows.get(value)) is not None else None
            for value in values
        ]

    def get_static(self, partition: Key) -> Statement:
        """What to ask for static columns; StoreBug for a table without any too."""
        if not self.cql.static:
            raise StoreBug(f"table {self.declaration.name} has no static columns")
        return self.cql.select_static, self.shape.partition(partition)

    def static_row(self, found: Sequence[Found]) -> Row | None:
        """The static columns that were found; None when none has a value."""
        if not found:
            return None
        values = found[0][self._first_cluster :]
        if all(value is None for value in values):
            return None
        return dict(zip(self.cql.static, values, strict=True))

    def rows(self, found: Sequence[Found]) -> list[Row]:
        """Rows as callers see them. A partition with static columns only comes as a row without key: no
        row.
        """
        columns = self.cql.columns
        if self._is_clustered:
            first = self._first_cluster
            return [dict(zip(columns, row, strict=True)) for row in found if row[first] is not None]
        return [dict(zip(columns, row, strict=True)) for row in found]

    def scan(
        self,
        partition: Key,
        ends: Ends,
        limit: int | None,
        reverse: bool,
        page: bytes | None,
    ) -> Scan:
        """What to ask for rows of one partition."""
        found = range_of(self.shape, ends, reverse, page)
        values = [*self.shape.partition(partition), *found.values]
        if limit is not None:
            values.append(self.asked(limit))
        text = self.cql.select_range(found.shape, found.ascending if reverse else None, limit is not None)
        return Scan((text, values), limit, found.kind)

    def scan_columns(
        self,
        partition: Key,
        columns: Sequence[str],
        ends: Ends,
        match: Mapping[str, Value] | None,
        limit: int | None,
        first: int | None,
        reverse: bool,
        page: bytes | None,
    ) -> ColumnScan:
        """What to ask for some columns of rows of one partition."""
        found = range_of(self.shape, ends, reverse, page)
        matched = match_of(self.shape, match, ends)
        # Of rows that match, those behind a place are those behind its first clustering column.
        bounds = [value for bound in found.bounds for value in bound.values[: 1 if matched else None]]
        values = [*self.shape.partition(partition), *bounds, *matched]
        if limit is not None:
            values.append(self.asked(limit))
        elif first is not None:
            values.append(self.asked(first) - 1)
        order, has_token = found.ascending if reverse else None, limit is not None
        is_limited = has_token or first is not None
        text, places = self._asks(tuple(columns), found.shape, order, is_limited, has_token, len(matched))
        return ColumnScan((text, values), limit, found.kind, len(columns), places)

    def _asks_for(
        self,
        columns: tuple[str, ...],
        shape: RangeShape,
        order: bool | None,
        limited: bool,
        has_token: bool,
        matched: int,
    ) -> tuple[str, tuple[int, ...]]:
        """The text of a scan for some columns, and where the clustering columns are in a row of it, if it has
        a token, or there are partitions with static columns alone.
        """
        given = self.shape.selected(columns)
        cluster = self.declaration.cluster if has_token or self.cql.static else ()
        asked = (*given, *(column for column in cluster if column not in given))
        text = self.cql.select_range(shape, order, limited, asked, matched)
        return text, tuple([asked.index(column) for column in cluster])

    def tuples(self, scan: ColumnScan, found: Sequence[Found]) -> Tuples:
        """The rows of a scan for some columns."""
        rows: list[tuple[Any, ...]] = list(map(tuple, found))  # which they are: it copies none
        if self.cql.static:
            first = scan.places[0]
            rows = [row for row in rows if row[first] is not None]
        following = None
        if scan.limit is not None and len(rows) > scan.limit:
            rows.pop()
            following = page_token(scan.kind, tuple([rows[-1][place] for place in scan.places]))
        if rows and scan.given < len(rows[0]):
            rows = [row[: scan.given] for row in rows]
        return Tuples(rows, following)

    def get_rows(self, partition: Key, keys: Sequence[Key]) -> list[Statement]:
        """What to ask for rows of one partition by the beginnings of their keys, in order."""
        partition, prefixes = self.shape.partition(partition), self.shape.prefixes(keys)
        if not prefixes:
            return []
        width = len(prefixes[0])
        text = self.cql.select_clusters(width)
        wanted: list[Any] = [key for (key,) in prefixes] if width == 1 else list(prefixes)
        return [(text, (*partition, wanted[start : start + KEYS])) for start in range(0, len(wanted), KEYS)]

    def scan_many(
        self, partitions: Sequence[Value], bounds: tuple[Key | None, Key | None]
    ) -> list[Statement]:
        """What to ask for rows of some partitions whose key is one column."""
        keys = [key for (key,) in self.shape.partitions(partitions)]
        found = range_of(self.shape, Ends(*bounds), False, None)
        text = self.cql.select_ranges(found.shape)
        return [(text, (keys[start : start + SCANS], *found.values)) for start in range(0, len(keys), SCANS)]

    def by_partition(self, partitions: Sequence[Value], found: Sequence[Found]) -> list[list[Row]]:
        """The rows that belong to each of the partitions, whose key is the first column."""
        column = self.cql.key[0]
        rows: dict[Value, list[Row]] = {}
        for row in self.rows(found):
            rows.setdefault(row[column], []).append(row)
        return [rows.get(key, []) for key in partitions]

    def page(self, scan: Scan, found: Sequence[Found]) -> Page:
        """The rows of a scan."""
        rows = self.rows(found)
        if scan.limit is None or len(rows) <= scan.limit:
            return Page(rows, None)
        rows.pop()
        return Page(rows, page_token(scan.kind, tuple(rows[-1][column] for column in self.cql.cluster)))

    def after_all(self, page: bytes | None) -> Key | None:
        """The key behind which a scan of everything goes on; None: at the beginning."""
        return None if page is None else read_page_token(self.shape, "*", page, self.cql.key)

    def rest_of_partition(self, after: Sequence[Value], limit: int) -> Statement | None:
        """What to ask for the rows behind this one (a key, or a row as found) in its partition.

        None when there are none: a table without clustering columns, a partition with static columns only.
        """
        first, end = self._first_cluster, len(self.cql.key)
        if not self._is_clustered or after[first] is None:
            return None
        operator = "<" if self.declaration.descending else ">"
        text = self.cql.select_range(((operator, end - first),), None, True)
        return text, (*after[:end], limit)

    def next_partitions(self, after: Sequence[Value] | None, limit: int) -> Statement:
        """What to ask for the rows of all partitions, or of those behind the partition of the row `after`."""
        values = () if after is None else after[: self._first_cluster]
        return self.cql.select_all(after is not None), (*values, limit)

    def page_of_all(self, rows: list[Row], limit: int) -> Page:
        """The rows of a scan of everything, of which there may be one too many."""
        if len(rows) <= limit:
            return Page(rows, None)
        del rows[limit:]
        return Page(rows, page_token("*", tuple(rows[-1][column] for column in self.cql.key)))

    def asked(self, limit: int) -> int:
        """One row more than wanted shows whether there are more. CQL counts up to 2^31 - 1."""
        return min(check_limit(self.declaration, limit), (1 << 31) - 2) + 1


def _new_mark() -> int:
    """A number that no other write has."""
    return int.from_bytes(os.urandom(8), "big") >> 1
