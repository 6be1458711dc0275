"""Whole tables of SQLite read, and written again, as they are: with the end of each row, for tools."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence

from xmppd.errors import StoreBug
from xmppd.store._declaration import table_of
from xmppd.store._opened import Bound
from xmppd.store.sqlite.layout import EXPIRES, SqlTable, Statement
from xmppd.store.sqlite.statements import OpenTable, Write, snapshot
from xmppd.store.table import Dump, Key, Stored, Table
from xmppd.store.values import check_limit, page_token, read_page_token

ROW, STATIC = "row", "static"
"""Kinds of tokens: a page ended with a row, or with the static columns of a partition."""


def stored_tables(cursor: sqlite3.Cursor) -> list[Table]:
    """All tables that are there, as they were last declared."""
    found = cursor.execute(
        "SELECT name, declaration FROM _schema WHERE name IN (SELECT name FROM sqlite_schema) ORDER BY name"
    )
    return [table_of(name, json.loads(text)) for name, text in found]


class TableDump:
    """Dumps of one declared table, and what is restored into it. StoreBug for what does not fit it."""

    def __init__(self, opened: OpenTable) -> None:
        self._table = opened.declaration
        self._shape = opened.shape
        self._rows, self._static = opened.layout.rows, opened.layout.static
        self._width = len(self._table.partition)

    # reading

    def read(
        self, cursor: sqlite3.Cursor, partition: Key | None, limit: int, page: bytes | None, now: float
    ) -> Dump:
        """Some of what is there, from the place that `page` marks."""
        limit = check_limit(self._table, limit)
        fixed = () if partition is None else self._shape.partition(partition)
        last = () if page is None else self._read_token(page, fixed)
        with snapshot(cursor):
            rows = self._fetch(cursor, self._rows, fixed, self._rows_after(last, fixed), limit, now)
            until = rows[-1].key[: self._width] if len(rows) > limit else ()
            static = self._fetch_static(cursor, fixed, last, until, limit, now)
        entries = list(self._merged(static, rows))
        following = None
        if len(entries) > limit:
            del entries[limit:]
            following = page_token(STATIC if self._is_static(entries[-1]) else ROW, entries[-1].key)
        return Dump([entry for entry in entries if entry.values or not self._is_static(entry)], following)

    def _read_token(self, page: bytes, fixed: Key) -> Key:
        """The key of the last row given, or the partition key of the last static columns."""
        if self._static is not None and page.startswith(f'["{STATIC}"'.encode()):
            last = read_page_token(self._shape, STATIC, page, self._table.partition)
        else:
            last = read_page_token(self._shape, ROW, page, self._table.key)
        if last[: len(fixed)] != fixed:
            raise StoreBug(f"table {self._table.name}: the page token is of another partition")
        return last

    def _rows_after(self, last: Key, fixed: Key) -> list[Bound]:
        if not last or len(last) == len(fixed):
            return []
        if len(last) < len(self._table.key):  # behind the static columns of a partition come all its rows
            return [Bound("<=" if self._table.descending else ">=", last)]
        return [Bound("<" if self._table.descending else ">", last[len(fixed) :])]

    def _fetch_static(
        self, cursor: sqlite3.Cursor, fixed: Key, last: Key, until: Key, limit: int, now: float
    ) -> list[Stored]:
        """Static columns of the partitions behind the last one given, up to the partition `until`."""
        if self._static is None or (fixed and last):
            return []
        bounds = []
        if last:
            bounds.append(Bound("<" if self._table.descending else ">", last[: self._width]))
        if until and not fixed:
            bounds.append(Bound(">=" if self._table.descending else "<=", until))
        return self._fetch(cursor, self._static, fixed, bounds, limit, now)

    def _fetch(
        self,
        cursor: sqlite3.Cursor,
        part: SqlTable,
        fixed: Key,
        bounds: Sequence[Bound],
        limit: int,
        now: float,
    ) -> list[Stored]:
        """One more than wanted shows whether there are more."""
        ascending = not self._table.descending
        columns = (*part.columns, EXPIRES)
        select = part.select_range(fixed, bounds, now, ascending=ascending, limit=limit + 1, columns=columns)
        return [
            Stored(
                tuple(row[column] for column in part.key),
                {column: row[column] for column in part.plain if row[column] is not None},
                row[EXPIRES],
            )
            for row in part.fetch(cursor, columns, select)
        ]

    def _merged(self, static: Sequence[Stored], rows: Sequence[Stored]) -> Iterator[Stored]:
        """Both in the order of partitions, static columns before the rows of theirs."""
        waiting = iter(rows)
        row = next(waiting, None)
        for entry in static:
            while row is not None and self._comes_before(row.key[: self._width], entry.key):
                yield row
                row = next(waiting, None)
            yield entry
        if row is not None:
            yield row
        yield from waiting

    def _comes_before(self, partition: Key, other: Key) -> bool:
        return partition > other if self._table.descending else partition < other

    def _is_static(self, entry: Stored) -> bool:
        return self._static is not None and len(entry.key) == self._width

    # writing

    def write(self, entries: Sequence[Stored], now: float) -> Write:
        """The statements that write entries as they were; those that have expired are left out."""
        return Write([self._put(e, now) for e in entries if e.expires is None or e.expires > now])

    def _put(self, entry: Stored, now: float) -> Statement:
        if self._is_static(entry):
            assert self._static is not None
            part, key = self._static, self._shape.partition(entry.key)
            values = self._shape.static_values(entry.values)
        else:
            part, key = self._rows, self._shape.key(entry.key)
            values = self._shape.plain_values(entry.values) if entry.values else {}
        return part.put((*part.key, *values), (*key, *values.values()), entry.expires, now)
