"""The CQL of one declared table: how its rows lie in Cassandra, and the text of every statement on them.

Two columns are ours, `by:` and the static `batch:`. A conditional write leaves a number of its own there, by
which it can be told afterwards whether it was applied. A colon cannot stand in a declared name, so these are
free.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

from xmppd.store.table import ColumnType, Key, Table, Value

ROW_MARK = "by:"
STATIC_MARK = "batch:"

CQL_TYPES: Mapping[ColumnType, str] = {
    "text": "text",
    "blob": "blob",
    "int": "bigint",
    "bool": "boolean",
    "float": "double",
    "timestamp": "double",
}
"""A moment is a double too: CQL's own timestamp has only milliseconds."""

SMALLEST: Mapping[ColumnType, Value] = {
    "text": "",
    "blob": b"",
    "int": -(1 << 63),
    "bool": False,
    "float": -math.inf,
    "timestamp": -math.inf,
}
"""What nothing of the type sorts before."""


def quoted(names: Sequence[str]) -> str:
    """Names as a list in CQL."""
    return ", ".join(f'"{name}"' for name in names)


def _marks(names: Sequence[str]) -> str:
    return ", ".join("?" * len(names))


def _each(names: Sequence[str], joint: str) -> str:
    return joint.join(f'"{name}" = ?' for name in names)


Shape = tuple[tuple[str, int], ...]
"""The bounds of a range without their values: operators and how many columns each compares."""


class CqlTable:
    """One table of Cassandra and the statements on it, whose texts are made once."""

    def __init__(self, keyspace: str, table: Table) -> None:
        self.name = f'"{keyspace}"."{table.name}"'
        self.partition = table.partition
        self.cluster = table.cluster
        self.key = table.key
        self.plain = tuple(column for column in table.columns if column not in table.key)
        self.static = tuple(table.static)
        self.columns = self.key + self.plain + self.static
        self._table = table
        self._here = _each(self.partition, " AND ")
        self._row = _each(self.key, " AND ")
        self.insert = lru_cache(256)(self._insert)
        self.insert_new = lru_cache(64)(self._insert_new)
        self.update_if = lru_cache(64)(self._update_if)
        self.delete_if = lru_cache(64)(self._delete_if)
        self.update_static = lru_cache(64)(self._update_static)
        self.select_range = lru_cache(64)(self._select_range)
        self.select_ranges = lru_cache(16)(self._select_ranges)
        self.select_clusters = lru_cache(8)(self._select_clusters)
        self.select_all = lru_cache(16)(self._select_all)
        self.delete_through = lru_cache(8)(self._delete_through)
        self.dump_range = lru_cache(16)(self._dump_range)
        self.dump_all = lru_cache(16)(self._dump_all)
        self.look_row = lru_cache(64)(self._look_row)
        self.look_static = lru_cache(64)(self._look_static)
        self.select_row = f"SELECT {quoted(self.columns)} FROM {self.name} WHERE {self._row}"
        self.select_rows = f"SELECT {quoted(self.columns)} FROM {self.name} WHERE {quoted(self.key[:1])} IN ?"
        """Of tables whose key is one column."""
        # DISTINCT reads no row, and finds a partition that has none.
        self.select_static = (
            f"SELECT DISTINCT {quoted((*self.partition, *self.static))} FROM {self.name} WHERE {self._here}"
        )
        self.delete_row = f"DELETE FROM {self.name} WHERE {self._row}"
        self.delete_partition = f"DELETE FROM {self.name} WHERE {self._here}"
        self.smallest: Key = tuple(SMALLEST[table.type_of(column)] for column in self.cluster[:1])
        """What follows the partition key in the values of `delete_rows`."""
        self.delete_rows = self.delete_partition
        if self.cluster:
            self.delete_rows = f'{self.delete_partition} AND "{self.cluster[0]}" >= ?'

    def release(self) -> None:
        """Give up the memory of texts that can be made again."""
        for texts in (
            self.insert, self.insert_new, self.update_if, self.update_static, self.select_range,
            self.select_ranges, self.select_all, self.look_row, self.look_static, self.dump_range,
            self.dump_all, self.delete_through, self.delete_if, self.select_clusters,
        ):  # fmt: skip
            texts.cache_clear()

    # writing; what puts has the TTL in seconds (0: none) as a parameter

    def _insert(self, columns: tuple[str, ...]) -> str:
        """Write columns, all of the key among them; then the TTL. Not an UPDATE: then a row of nulls is
        none.
        """
        return f"INSERT INTO {self.name} ({quoted(columns)}) VALUES ({_marks(columns)}) USING TTL ?"

    def insert_at(self) -> str:
        """Write all columns, as if at a moment in microseconds; then that and the TTL."""
        columns = self.key + self.plain
        return (
            f"INSERT INTO {self.name} ({quoted(columns)}) VALUES ({_marks(columns)}) "
            "USING TIMESTAMP ? AND TTL ?"
        )

    def _insert_new(self, columns: tuple[str, ...]) -> str:
        """Write columns, the mark and the TTL of a row that is absent."""
        given = (*columns, ROW_MARK)
        return f"INSERT INTO {self.name} ({quoted(given)}) VALUES ({_marks(given)}) IF NOT EXISTS USING TTL ?"

    def _update_if(self, columns: tuple[str, ...], expected: tuple[str, ...]) -> str:
        """The TTL, the plain `columns`, the mark; the key; what is expected."""
        return (
            f"UPDATE {self.name} USING TTL ? SET {_each((*columns, ROW_MARK), ', ')} "
            f"WHERE {self._row} IF {_each(expected, ' AND ')}"
        )

    def _delete_if(self, expected: tuple[str, ...]) -> str:
        """The key; what is expected."""
        return f"{self.delete_row} IF {_each(expected, ' AND ')}"

    def _update_static(self, columns: tuple[str, ...], expected: tuple[str, ...]) -> str:
        """The TTL, static columns; the partition; what is expected. With a condition also the mark, as
        last.
        """
        given = (*columns, STATIC_MARK) if expected else columns
        condition = f" IF {_each(expected, ' AND ')}" if expected else ""
        return f"UPDATE {self.name} USING TTL ? SET {_each(given, ', ')} WHERE {self._here}{condition}"

    def _delete_through(self, count: int) -> str:
        """Rows of one partition whose first `count` clustering columns are no larger than the parameters."""
        return f"{self.delete_partition} AND {self._bounds((('<=', count),))[0]}"

    # reading

    def _select_range(
        self,
        shape: Shape,
        ascending: bool | None,
        limited: bool,
        columns: tuple[str, ...] = (),
        matched: int = 0,
    ) -> str:
        """Rows of one partition; `ascending` None: in the order of the table. `columns` are all if none are
        given; the last `matched` columns of the key are compared behind the bounds, which are of the first
        clustering column then.
        """
        where = [self._here, *self._bounds(shape)]
        if matched:
            # CQL takes no comparison of tuples beside one of a column.
            where = [self._here, *(f'"{self.cluster[0]}" {operator} ?' for operator, _ in shape)]
            where.append(_each(self.cluster[len(self.cluster) - matched :], " AND "))
        order = ""
        if ascending is not None and self.cluster:
            direction = "ASC" if ascending else "DESC"
            order = " ORDER BY " + ", ".join(f'"{column}" {direction}' for column in self.cluster)
        return (
            f"SELECT {quoted(columns or self.columns)} FROM {self.name} WHERE {' AND '.join(where)}{order}"
            f"{' LIMIT ?' if limited else ''}{' ALLOW FILTERING' if matched else ''}"
        )

    def _select_clusters(self, width: int) -> str:
        """Rows of one partition in order, by a list of values, or tuples, of the first clustering columns."""
        some = quoted(self.cluster[:width])
        here = f"{self._here} AND {some if width == 1 else f'({some})'} IN ?"
        return f"SELECT {quoted(self.columns)} FROM {self.name} WHERE {here}"

    def _select_ranges(self, shape: Shape) -> str:
        """The same of some partitions, which are in the order of the table's each."""
        where = " AND ".join([f"{quoted(self.partition)} IN ?", *self._bounds(shape)])
        return f"SELECT {quoted(self.columns)} FROM {self.name} WHERE {where}"

    def _select_all(self, after: bool) -> str:
        """Rows of all partitions, or of those whose token is behind that of a partition."""
        return f"SELECT {quoted(self.columns)} FROM {self.name}{self._after(after)} LIMIT ?"

    def _after(self, after: bool) -> str:
        if not after:
            return ""
        return f" WHERE token({quoted(self.partition)}) > token({_marks(self.partition)})"

    def _bounds(self, shape: Shape) -> list[str]:
        return [
            f"({quoted(self.cluster[:count])}) {operator} ({_marks(self.cluster[:count])})"
            for operator, count in shape
        ]

    def _dump_range(self, shape: Shape) -> str:
        """Rows of one partition with the mark of each, and how long each value has to live."""
        where = " AND ".join([self._here, *self._bounds(shape)])
        return f"SELECT {self._with_lives()} FROM {self.name} WHERE {where} LIMIT ?"

    def _dump_all(self, after: bool) -> str:
        """The same of all partitions, or of those whose token is behind that of a partition."""
        return f"SELECT {self._with_lives()} FROM {self.name}{self._after(after)} LIMIT ?"

    def _with_lives(self) -> str:
        valued = (*self.plain, ROW_MARK, *self.static)
        return ", ".join([quoted((*self.key, *valued)), *(f'TTL("{column}")' for column in valued)])

    def _look_row(self, expected: tuple[str, ...]) -> str:
        """The mark of a row and the columns that a condition compares."""
        return f"SELECT {quoted((ROW_MARK, *expected))} FROM {self.name} WHERE {self._row}"

    def _look_static(self, expected: tuple[str, ...]) -> str:
        """The same of a partition."""
        return (
            f"SELECT DISTINCT {quoted((STATIC_MARK, *expected, *self.partition))} FROM {self.name} "
            f"WHERE {self._here}"
        )

    # making the table

    def create(self, compaction: Mapping[str, str], more: Mapping[str, object]) -> str:
        """The statement that makes the table unless it is there."""
        key = f"PRIMARY KEY (({quoted(self.partition)}){''.join(f', {quoted((c,))}' for c in self.cluster)})"
        columns = ", ".join(f'"{name}" {kind}' for name, kind in self.definitions().items())
        options = [f"compaction = {_map(compaction)}", *(f"{name} = {value}" for name, value in more.items())]
        if self.cluster:
            direction = "DESC" if self._table.descending else "ASC"
            order = ", ".join(f'"{column}" {direction}' for column in self.cluster)
            options.insert(0, f"CLUSTERING ORDER BY ({order})")
        return f"CREATE TABLE IF NOT EXISTS {self.name} ({columns}, {key}) WITH {' AND '.join(options)}"

    def add(self, columns: Mapping[str, str]) -> str:
        """The statement that adds columns to the table as it is."""
        added = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
        return f"ALTER TABLE {self.name} ADD ({added})"

    def definitions(self) -> dict[str, str]:
        """Column -> its type, with the word STATIC where it is."""
        table = self._table
        plain = {column: CQL_TYPES[table.type_of(column)] for column in (*self.key, *self.plain)}
        static = {column: f"{CQL_TYPES[table.type_of(column)]} STATIC" for column in self.static}
        marks = {ROW_MARK: "bigint", **({STATIC_MARK: "bigint STATIC"} if self.static else {})}
        return {**plain, **static, **marks}


def _map(values: Mapping[str, str]) -> str:
    pairs = (f"{_literal(key)}: {_literal(value)}" for key, value in values.items())
    return f"{{{', '.join(pairs)}}}"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
