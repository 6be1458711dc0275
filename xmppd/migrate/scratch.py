"""What does not fit into memory while a source is read: temporary SQLite files in the scratch folder."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from tempfile import mkstemp
from typing import Final, Self

from xmppd.migrate.source import LONGEST_VALUE, SourceError

MOST_BYTES: Final = 4 * LONGEST_VALUE
"""All pieces of one account together."""

BATCH: Final = 2000
"""Rows that are written at once."""

HINT: Final = "name a folder with more of it by --scratch"
PRAGMAS: Final = (
    "pragma journal_mode = off",
    "pragma synchronous = off",
    "pragma locking_mode = exclusive",
    "pragma cache_size = -16384",
)


class Scratch:
    """A temporary database in a folder, without a name there, gone when it is closed. SourceError where there
    is no place.
    """

    def __init__(self, folder: Path, *tables: str) -> None:
        self._folder = folder
        try:
            number, name = mkstemp(dir=folder, prefix="xmppd-", suffix=".scratch")
            os.close(number)
            try:
                self.database = sqlite3.connect(name, isolation_level=None)
                for statement in (*PRAGMAS, *tables, "begin"):
                    self.database.execute(statement)
            finally:
                Path(name).unlink()  # it stays open, and is gone whatever happens
        except (OSError, sqlite3.Error) as error:
            raise SourceError(f"no scratch space: {error}", file=folder, hint=HINT) from None

    def run(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        """One statement; SourceError where the disk is full."""
        try:
            return self.database.execute(statement, values)
        except sqlite3.OperationalError as error:
            raise SourceError(f"no scratch space: {error}", file=self._folder, hint=HINT) from None

    def write(self, statement: str, rows: Iterable[tuple[object, ...]]) -> None:
        """The same for each row."""
        try:
            self.database.executemany(statement, rows)
        except sqlite3.OperationalError as error:
            raise SourceError(f"no scratch space: {error}", file=self._folder, hint=HINT) from None

    def close(self) -> None:
        """Give the space back; harmless if repeated."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Seen(Scratch):
    """Names that were there, and where."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "create table seen(name text primary key, place text) without rowid")

    def before(self, name: str, place: str) -> str | None:
        """Where this name was before; None: it is new, and is `place` from now on."""
        try:
            self.run("insert into seen values(?, ?)", (name, place))
        except sqlite3.IntegrityError:
            (found,) = self.run("select place from seen where name = ?", (name,)).fetchone()
            return str(found)
        return None


class Pieces(Scratch):
    """Pieces of accounts in any order, given back account by account: sorted by name, then by kind, then as
    they came.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "create table piece(id integer primary key, account text, kind, data)")
        self._batch: list[tuple[str, int, str]] = []
        self._is_sorted = False

    def add(self, account: str, kind: int, data: str) -> None:
        """Keep one piece."""
        self._batch.append((account, kind, data))
        if len(self._batch) >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Write what is in memory."""
        self.write("insert into piece(account, kind, data) values(?, ?, ?)", self._batch)
        self._batch.clear()

    def _sort(self) -> None:
        self.flush()
        if not self._is_sorted:
            self.run("create index by_account on piece(account, kind, id)")
            self._is_sorted = True

    def count(self) -> int:
        """How many accounts there are."""
        self._sort()
        (number,) = self.run("select count(distinct account) from piece").fetchone()
        return int(number)

    def __iter__(self) -> Iterator[tuple[str, list[tuple[int, str]] | None]]:
        """Each account with its pieces as (kind, piece); None where they are more than MOST_BYTES."""
        self._sort()
        rows = self.run("select account, kind, data from piece order by account, kind, id")
        for account, pieces in groupby(rows, itemgetter(0)):
            yield account, _bounded(pieces)


def _bounded(rows: Iterable[tuple[str, int, str]]) -> list[tuple[int, str]] | None:
    size, pieces = 0, []
    for _, kind, data in rows:
        size += len(data) + 64
        if size > MOST_BYTES:
            return None
        pieces.append((kind, data))
    return pieces
