"""The SQL of one declared table: how its rows lie in SQLite, and the text of every statement on them.

A table becomes `name`, keyed by partition and clustering columns, and with static columns also `name:static`,
keyed by the partition. Both have `expires:`, the moment from which a row is not seen (NULL: never). A colon
cannot stand in a declared name, so these names are free. Keys of a `descending` table descend in all their
columns: that keeps one direction for the whole table, and the order of partitions means nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from xmppd.store._opened import Bound
from xmppd.store.table import ColumnType, Key, Row, Table, Value

Statement = tuple[str, Sequence[Value]]
"""SQL text and the values of its parameters."""

TOGETHER = 16
"""How many rows one statement writes where there are many: to begin and end one takes a fifth of what a row
of 300 bytes costs (51,970 instructions for two of them, 42,360 by sixteen).
"""

EXPIRES = "expires:"
SQL_TYPES: Mapping[ColumnType, str] = {
    "text": "TEXT",
    "blob": "BLOB",
    "int": "INTEGER",
    "bool": "INTEGER",
    "float": "REAL",
    "timestamp": "REAL",
}
_LIVE = f'("{EXPIRES}" > ?) IS NOT FALSE'
"""True for a row without `expires:` too, in a form for which the query planner tries no index."""


def quoted(names: Sequence[str]) -> str:
    """Names as a list in SQL."""
    return ", ".join(f'"{name}"' for name in names)


def _marks(names: Sequence[str]) -> str:
    return f"({', '.join('?' * len(names))})"


class Puts(NamedTuple):
    """What writes rows: the `text` for one, that for TOGETHER of them ("": there is none), and the values
    that come behind those of each.
    """

    text: str
    together: str
    after: Sequence[Value]


class Beside(NamedTuple):
    """Columns whose values are the same in every row of a SELECT, behind the others, and their parameters.
    Read by the same statement, they are of the same state, which takes a transaction otherwise.
    """

    text: str
    values: Key


NOTHING = Beside("", ())


class SqlTable:
    """One table of SQLite and the statements on it, whose texts are made once."""

    def __init__(
        self,
        name: str,
        partition: Sequence[str],
        cluster: Sequence[str],
        columns: Mapping[str, ColumnType],
        *,
        descending: bool = False,
        heap: bool = False,
    ) -> None:
        self.name = name
        self.partition = tuple(partition)
        self.cluster = tuple(cluster)
        self.key = self.partition + self.cluster
        self.plain = tuple(column for column in columns if column not in self.key)
        self.columns = self.key + self.plain
        self.types = columns
        self.descending = descending
        self.heap = heap
        self.flags = tuple(column for column in self.columns if columns[column] == "bool")
        self._upsert = lru_cache(256)(self._upsert_text)
        self._range = lru_cache(256)(self._range_text)
        self.select = lru_cache(256)(self._select_text)
        self._nth = lru_cache(64)(self._nth_text)
        self.select_keys = lru_cache(64)(self._select_keys)
        self.select_clusters = lru_cache(64)(self._select_clusters)
        self.delete_row = f'DELETE FROM "{name}" WHERE {self._equal(self.key)}'
        self.delete_through = lru_cache(8)(self._delete_through)
        self.delete_partition = f'DELETE FROM "{name}" WHERE {self._equal(self.partition)}'
        row = f'FROM "{name}" WHERE {self._equal(self.key)} AND {_LIVE}'
        self.beside_text = "".join(f', (SELECT "{column}" {row})' for column in self.plain)
        keys, expired = quoted(self.key), f'"{EXPIRES}" <= ? LIMIT ?'
        self.purge = f'DELETE FROM "{name}" WHERE ({keys}) IN (SELECT {keys} FROM "{name}" WHERE {expired})'

    def release(self) -> None:
        """Give up the memory of texts that can be made again."""
        for texts in (
            self._upsert, self._range, self._nth, self.select, self.select_keys, self.select_clusters,
            self.delete_through,
        ):  # fmt: skip
            texts.cache_clear()

    @staticmethod
    def _equal(columns: Sequence[str]) -> str:
        return " AND ".join(f'"{column}" = ?' for column in columns)

    def create(self) -> list[str]:
        """The statements that make the table."""
        order = " DESC" if self.descending else ""
        key = ", ".join(f'"{column}"{order}' for column in self.key)
        definitions = [
            f'"{column}" {SQL_TYPES[self.types[column]]}{" NOT NULL" if column in self.key else ""}'
            for column in self.columns
        ]
        columns = f'{", ".join(definitions)}, "{EXPIRES}" REAL, PRIMARY KEY ({key})'
        expiry = f'ON "{self.name}" ("{EXPIRES}") WHERE "{EXPIRES}" IS NOT NULL'
        return [
            f'CREATE TABLE "{self.name}" ({columns})' + ("" if self.heap else " WITHOUT ROWID"),
            f'CREATE INDEX "{self.name}:expiry" {expiry}',
        ]

    def add_column(self, column: str) -> str:
        """The statement that adds one declared column to the table as it was."""
        return f'ALTER TABLE "{self.name}" ADD COLUMN "{column}" {SQL_TYPES[self.types[column]]}'

    def put(
        self, columns: tuple[str, ...], values: Sequence[Value], expires: float | None, now: float
    ) -> Statement:
        """Write columns of one row, and its end; the others keep their values unless the row has expired."""
        puts = self.puts(columns, expires, now)
        return puts.text, (*values, *puts.after)

    def puts(self, columns: tuple[str, ...], expires: float | None, now: float) -> Puts:
        """What writes these columns of any row."""
        text, together, asks_now = self._upsert(columns, expires is not None)
        end = () if expires is None else (expires,)
        return Puts(text, together, (*end, now) if asks_now else end)

    def put_newest(self, order: str, values: Sequence[Value], expires: float | None, now: float) -> Statement:
        """Write all columns of one row unless the one that is there, not expired, has a larger order."""
        given = (*self.columns, EXPIRES)
        sets = ", ".join(f'"{column}" = excluded."{column}"' for column in given if column not in self.key)
        older = f'excluded."{order}" > "{self.name}"."{order}" OR "{self.name}"."{EXPIRES}" <= ?'
        text = (
            f'INSERT INTO "{self.name}" ({quoted(given)}) VALUES {_marks(given)} '
            f"ON CONFLICT ({quoted(self.key)}) DO UPDATE SET {sets} WHERE {older}"
        )
        return text, (*values, expires, now)

    def _upsert_text(self, columns: tuple[str, ...], ends: bool) -> tuple[str, str, bool]:
        """The text for one row and that for many, and whether its last parameter is the time. That of a row
        that never ends has no parameter for its end: to hand over NULL takes Python's module as long as all
        other values.

        Many are written OR FAIL, or SQLite would note how pages were before the statement, in a temporary
        file. Who meets an error undoes all of the job anyway.
        """
        others = [column for column in self.plain if column not in columns]
        given = (*columns, EXPIRES)
        marks = ["?"] * len(columns) + ["?" if ends else "NULL"]
        now = f"?{len(columns) + ends + 1}"
        sets = [f'"{column}" = excluded."{column}"' for column in given if column not in self.key]
        sets += [f'"{column}" = iif("{EXPIRES}" <= {now}, NULL, "{column}")' for column in others]
        into = f'INTO "{self.name}" ({quoted(given)}) VALUES '
        row = f"({', '.join(marks)})"
        update = f" ON CONFLICT ({quoted(self.key)}) DO UPDATE SET {', '.join(sets)}"
        together = f"INSERT OR FAIL {into}{', '.join([row] * TOGETHER)}{update}"
        return f"INSERT {into}{row}{update}", "" if others else together, bool(others)

    def select_range(
        self,
        partition: Key,
        bounds: Sequence[Bound],
        now: float,
        *,
        ascending: bool,
        limit: int,
        columns: tuple[str, ...] = (),
        match: Key = (),
        beside: Beside = NOTHING,
    ) -> Statement:
        """Rows in the order of the whole key; an empty `partition` means all. Limit -1: no limit.

        `columns` are all if none are given; `match` are the values of the last columns of the key.
        """
        text, values = self.ranged(len(partition), bounds, ascending, columns, len(match), beside.text)
        return text, (*beside.values, *partition, *values, *match, now, limit)

    def ranged(
        self,
        fixed: int,
        bounds: Sequence[Bound],
        ascending: bool,
        columns: tuple[str, ...] = (),
        matched: int = 0,
        beside: str = "",
    ) -> Statement:
        """The text of that for a partition of `fixed` columns (0: all), and the values of its bounds."""
        shape = tuple([(bound.operator, len(bound.values)) for bound in bounds])
        values = [value for bound in bounds for value in bound.values] if bounds else ()
        return self._range(fixed, shape, ascending, columns or self.columns, matched, beside), values

    def _range_text(
        self,
        fixed: int,
        shape: tuple[tuple[str, int], ...],
        ascending: bool,
        columns: tuple[str, ...],
        matched: int,
        beside: str,
    ) -> str:
        where = self._within(fixed, shape)
        where += [f'"{column}" = ?' for column in self.key[len(self.key) - matched :]]
        return (
            f'SELECT {quoted(columns)}{beside} FROM "{self.name}" WHERE {" AND ".join([*where, _LIVE])} '
            f"{self._order(ascending)} LIMIT ?"
        )

    def _within(self, fixed: int, shape: tuple[tuple[str, int], ...]) -> list[str]:
        """Conditions on the first `fixed` columns of the key, and on those behind them."""
        after = self.key[fixed:]
        bounds = [
            f"({quoted(after[:count])}) {operator} {_marks(after[:count])}" for operator, count in shape
        ]
        return [*(f'"{column}" = ?' for column in self.key[:fixed]), *bounds]

    def _order(self, ascending: bool) -> str:
        return "ORDER BY " + ", ".join(f'"{column}" {"ASC" if ascending else "DESC"}' for column in self.key)

    def select_nth(
        self, partition: Key, bounds: Sequence[Bound], place: int, *, ascending: bool
    ) -> Statement:
        """The clustering columns of the row at `place` (0: the first) in a range, be it expired or not: an
        index tells them, and the rows of a heap are left alone.
        """
        shape = tuple((bound.operator, len(bound.values)) for bound in bounds)
        values = [value for bound in bounds for value in bound.values]
        return self._nth(len(partition), shape, ascending), (*partition, *values, place)

    def _nth_text(self, fixed: int, shape: tuple[tuple[str, int], ...], ascending: bool) -> str:
        where = " AND ".join(self._within(fixed, shape))
        return (
            f'SELECT {quoted(self.cluster)} FROM "{self.name}" WHERE {where} '
            f"{self._order(ascending)} LIMIT 1 OFFSET ?"
        )

    def _select_text(self, columns: tuple[str, ...], beside: str = "") -> str:
        """Some columns of one row; parameters are those of what stands beside them, its key and the time."""
        return (
            f'SELECT {quoted(columns)}{beside} FROM "{self.name}" WHERE {self._equal(self.key)} AND {_LIVE}'
        )

    def beside(self, key: Key, now: float) -> Beside:
        """The plain columns of one row of this table beside the rows of another."""
        return Beside(self.beside_text, (*key, now) * len(self.plain))

    def _select_keys(self, count: int) -> str:
        """Rows by so many keys of one column; the last parameter is the time."""
        keys = ", ".join("?" * count)
        return (
            f'SELECT {quoted(self.columns)} FROM "{self.name}" WHERE "{self.key[0]}" IN ({keys}) AND {_LIVE}'
        )

    def _select_clusters(self, width: int, count: int, beside: str = "") -> str:
        """Rows of one partition in order, by so many prefixes of so many clustering columns; parameters are
        the prefixes, those of what stands beside the rows, the partition and the time.
        """
        some = self.cluster[:width]
        named = ", ".join(f'"{column}:"' for column in some)
        wanted = f'WITH "wanted:" ({named}) AS (VALUES {", ".join([_marks(some)] * count)})'
        # Joined, for an index is not used whole for what is IN tuples.
        alike = " AND ".join(f'"{column}" = "{column}:"' for column in some)
        return (
            f'{wanted} SELECT {quoted(self.columns)}{beside} FROM "wanted:" CROSS JOIN "{self.name}" '
            f"WHERE {alike} AND {self._equal(self.partition)} AND {_LIVE} {self._order(not self.descending)}"
        )

    def _delete_through(self, count: int) -> str:
        """Rows of one partition whose first `count` clustering columns are no larger than the parameters."""
        some = self.cluster[:count]
        return f"{self.delete_partition} AND ({quoted(some)}) <= ({', '.join('?' * count)})"

    def fetch(
        self, cursor: sqlite3.Cursor, columns: tuple[str, ...], select: Statement, flags: Sequence[str] = ()
    ) -> list[Row]:
        """The rows that a SELECT of `columns` finds; `flags` are columns of type bool that are not of this
        table.
        """
        found = cursor.execute(*select).fetchall()
        if not found:
            return []
        rows: list[Row] = [dict(zip(columns, values, strict=True)) for values in found]
        for column in (*self.flags, *flags):
            if column in columns:
                for row in rows:
                    if (value := row[column]) is not None:
                        row[column] = value == 1
        return rows

    def fetch_tuples(
        self, cursor: sqlite3.Cursor, columns: tuple[str, ...], select: Statement
    ) -> list[tuple[Any, ...]]:
        """The same as tuples."""
        rows = cursor.execute(*select).fetchall()
        flags = [place for place, column in enumerate(columns) if column in self.flags]
        if not flags:
            return rows
        return [
            tuple(
                value == 1 if place in flags and value is not None else value
                for place, value in enumerate(row)
            )
            for row in rows
        ]


class Layout:
    """Where the rows of one declaration and its static columns lie."""

    def __init__(self, table: Table) -> None:
        types = {column: table.type_of(column) for column in (*table.key, *table.columns, *table.static)}
        plain = {column: types[column] for column in (*table.key, *table.columns)}
        static = {column: types[column] for column in (*table.partition, *table.static)}
        self.rows = SqlTable(
            table.name,
            table.partition,
            table.cluster,
            plain,
            descending=table.descending,
            heap=table.heap,
        )
        self.static = SqlTable(f"{table.name}:static", table.partition, (), static) if table.static else None
        self.tables = [part for part in (self.rows, self.static) if part is not None]
