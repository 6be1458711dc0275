"""Databases that readers of SQL formats ask: one made of a dump, or a file of SQLite, which is only read."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from xmppd.migrate.source import LONGEST_VALUE, SourceError

Tables = Mapping[str, Sequence[str]]
"""Tables that are wanted, and which of their columns; none: only how many rows there are."""

SQLITE: Final = b"SQLite format 3\0"

COUNTS: Final = "xmppd_counts"
"""The table in which a copy of a live database keeps how many rows there were in tables that are counted."""


class Dump(sqlite3.Connection):
    """What was in a dump or an SQLite file. Tables and columns that were not there are there, and empty.
    There is no index: to sort a whole table once is faster than to make one and to read by it.

    `present` has the columns of each table that the source has, by the names asked for; `counts` the rows of
    those asked for without columns; `marks` the tables of Mnesia that an export2sql names, in its order.
    """

    path: Path = Path()
    present: Mapping[str, frozenset[str]] = {}
    counts: Mapping[str, int] = {}
    marks: Sequence[str] = ()

    def rows(self, sql: str, *values: object) -> Iterator[Any]:
        """The rows of a query, read as they are needed; SourceError where the file is broken."""
        try:
            with closing(self.execute(sql, values)) as cursor:
                yield from cursor
        except (sqlite3.Error, OverflowError) as error:
            raise SourceError(f"cannot be read: {error}", file=self.path) from None


def fresh(scratch: Path, name: str = "") -> Dump:
    """An empty database in a folder, as fast as it can be written; without a name nobody else finds it and
    nothing is left of it. SourceError.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=scratch, suffix=".sqlite", delete=False) as file:
            place = Path(file.name)
        dump = sqlite3.connect(place, isolation_level=None, factory=Dump)
        dump.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE)
        dump.execute("PRAGMA locking_mode=EXCLUSIVE")
        dump.execute("PRAGMA journal_mode=OFF")
        dump.execute("PRAGMA synchronous=OFF")
        dump.execute("PRAGMA cache_size=-16384")
        dump.execute("BEGIN")
        if name:
            place.replace(scratch / name)
        else:
            place.unlink()
    except (OSError, sqlite3.Error) as error:
        raise SourceError(f"no database can be made there: {error}", file=scratch) from None
    return dump


def of_file(path: Path, tables: Tables) -> Dump:
    """An SQLite file with a view for each table that is wanted."""
    for ending in ("-wal", "-journal"):
        beside = path.with_name(path.name + ending)
        if beside.exists() and beside.stat().st_size:
            hint = "stop the server that uses it, or copy it by: sqlite3 FILE \"VACUUM INTO 'COPY'\""
            raise SourceError(
                f"is in use: {beside.name} has changes that are not in it yet", file=path, hint=hint
            )
    dump = read_only(path)
    try:
        there = {name.lower(): name for name in tables_of(dump)}
        told = _told(dump) if COUNTS in there else {}
        present, counts = {}, {}
        for table, wanted in tables.items():
            name = there.get(table.lower())
            columns = {column.lower(): column for column in columns_of(dump, name)} if name else {}
            if name is not None:
                present[table] = frozenset(column for column in wanted if column.lower() in columns)
            if not wanted:
                counts[table] = _count(dump, name, told)
                continue
            fields = ", ".join(_field(columns.get(column.lower()), column) for column in wanted)
            source = f"main.{quoted(name)}" if name else "(SELECT 1) WHERE 0"
            dump.execute(f"CREATE TEMP VIEW {quoted(table)} AS SELECT {fields} FROM {source}")
    except sqlite3.Error as error:
        dump.close()
        raise SourceError(f"cannot be read: {error}", file=path) from None
    dump.present, dump.counts = present, counts
    return dump


def _field(column: str | None, name: str) -> str:
    return f"{quoted(column) if column else 'NULL'} AS {quoted(name)}"


def _told(dump: Dump) -> dict[str, int]:
    return dict(dump.execute(f"SELECT name, rows FROM main.{COUNTS} WHERE typeof(rows) = 'integer'"))


def _count(dump: Dump, name: str | None, told: Mapping[str, int]) -> int:
    if name and name.lower() in told:
        return told[name.lower()]
    return int(dump.execute(f"SELECT count(*) FROM main.{quoted(name)}").fetchone()[0]) if name else 0


def read_only(path: Path) -> Dump:
    try:
        uri = path.absolute().as_uri() + "?mode=ro&immutable=1"
        dump = sqlite3.connect(uri, uri=True, isolation_level=None, factory=Dump)
    except sqlite3.Error as error:
        raise SourceError(f"cannot be read: {error}", file=path) from None
    dump.path = path
    dump.text_factory = _forgiving
    dump.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST_VALUE)
    for setting in ("trusted_schema=OFF", "cell_size_check=ON"):
        dump.execute(f"PRAGMA {setting}")
    return dump


def _forgiving(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def tables_of(dump: Dump) -> list[str]:
    """Real tables alone: a view or a virtual table would run what the file says."""
    sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0"
    return [name for (name,) in dump.execute(sql)]


def columns_of(dump: Dump, table: str) -> list[str]:
    """The columns of a table that are kept and not computed."""
    return [row[1] for row in dump.execute(f"PRAGMA table_xinfo({quoted(table)})") if row[6] == 0]


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
