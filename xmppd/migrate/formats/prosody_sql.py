"""SQL storage of Prosody (mod_storage_sql): tables `prosody` and `prosodyarchive`, one row a key or item.

Rows stand in no order, so both are read by host and user, side by side. Accounts come in the order of their
hosts and names.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple

from xmppd.migrate.prosody.lua import LONGEST_TABLE, Table
from xmppd.migrate.prosody.stores import (
    LISTS,
    TABLES,
    BrokenStore,
    Item,
    account_of,
    item_of,
    lost_store,
    shown,
)
from xmppd.migrate.prosody.values import BadValue, value_of
from xmppd.migrate.record import Account, Contact, Losses, Unreadable
from xmppd.migrate.source import LONGEST_VALUE, Options, SourceError
from xmppd.migrate.sql.text import database, tables_of

FILE: Final = "prosody.sqlite"
ACCOUNTS: Final = "accounts"

_KEYED_COLUMNS: Final = ("host", "user", "store", "key", "type", "value")
COLUMNS: Final = {
    "prosody": _KEYED_COLUMNS,
    "prosodyarchive": ("sort_id", "host", "user", "store", "key", "when", "type", "value"),
}
"""What is read of each table: a connection for `ProsodySqlReader` has these."""

MOST_ROWS: Final = 1 << 20
"""The most rows of one account; and all their texts may have LONGEST_TABLE letters."""

_OWNER: Final = 'CAST("host" AS BLOB), CAST("user" AS BLOB)'
"""Whose a row is, as the bytes by which SQLite sorts."""

_READ: Final = ", ".join(f"'{store}'" for store in sorted(TABLES | LISTS))
_VALUE: Final = f'CASE WHEN length("value") <= {LONGEST_VALUE} THEN "value" END'

_KEYED: Final = f"""
SELECT {_OWNER}, "store", "key", "type", {_VALUE} FROM "prosody"
WHERE "user" <> '' AND "store" IN ({_READ}) ORDER BY "host", "user", "store", "key"
"""
_ARCHIVED: Final = f"""
SELECT {_OWNER}, "store", "key", "type", {_VALUE}, "when" FROM "prosodyarchive"
WHERE "user" <> '' AND "store" IN ({_READ}) ORDER BY "host", "user", CAST("sort_id" AS INTEGER)
"""
_HOSTS: Final = """
SELECT DISTINCT "host" FROM "prosody" WHERE "store" = 'accounts' AND "user" <> ''
"""
_TOTAL: Final = """
SELECT count(*) FROM (
    SELECT DISTINCT "host", "user" FROM "prosody" WHERE "store" = 'accounts' AND "user" <> ''
)
"""
_STORES: Final = """
SELECT "host", "user", "store", EXISTS (
    SELECT 1 FROM "prosody" AS a
    WHERE a."host" = b."host" AND a."user" = b."user" AND a."store" = 'accounts' AND a."user" <> ''
) FROM "{table}" AS b GROUP BY "host", "user", "store" ORDER BY "host", "user", "store"
"""


class _Row(NamedTuple):
    """One row; `text` is None where it is too long."""

    key: str
    kind: str
    text: str | None
    when: object = None

    def value(self) -> Any:
        """What it holds. BadValue."""
        if self.text is None:
            raise BadValue(f"more than {LONGEST_VALUE} letters, or none")
        return value_of(self.kind, self.text)


_Rows = dict[str, list[_Row]]
"""By store; None in place of it means more than is read for one account."""


class _Stored:
    """The rows of one account."""

    def __init__(
        self, name: str, where: str, keyed: _Rows | None, archived: _Rows | None, losses: Losses
    ) -> None:
        self._name, self._where, self._losses = name, where, losses
        self._keyed, self._archived = keyed, archived

    def usual_contacts(self) -> list[Contact] | None:
        return None

    def table(self, store: str) -> Table | None:
        rows = self._of(self._keyed, store)
        if not rows:
            return None
        table: Table = {}
        for row in rows:
            try:
                value = row.value()
                if not row.key and not isinstance(value, dict):
                    raise BadValue("no table, and no key")
            except BadValue as bad:
                if store == ACCOUNTS:
                    raise BrokenStore(f"{store}, {shown(row.key) or 'no key'}: {bad}", self._where) from None
                self._losses.add(
                    "unreadable-value", self._name, f"{store}, {shown(row.key) or 'no key'}: {bad}"
                )
                continue
            if row.key:
                table[row.key] = value
            else:  # all that has no key of text
                table.update(value)
        return table

    def items(self, store: str) -> Iterable[Item]:
        for row in self._of(self._archived, store):
            try:
                value = row.value()
            except BadValue as bad:
                self._losses.add("unreadable-item", self._name, f"{store}: {bad}")
                continue
            yield Item(row.key, _time(row.when), value)
        old = self.table(store) or {}  # a list, before there were archives
        position = 1
        while (value := old.get(position)) is not None:
            position += 1
            yield item_of(value) if isinstance(value, dict) else Item("", None, value)

    def _of(self, rows: _Rows | None, store: str) -> list[_Row]:
        if rows is None:
            raise BrokenStore(f"more than {MOST_ROWS} rows, or {LONGEST_TABLE} letters in them", self._where)
        return rows.get(store, [])


def _time(when: object) -> float | None:
    try:
        at = float(str(when))
    except ValueError:
        return None
    return at if 0 < at < 1 << 40 else None


def _collected(rows: Iterable[Any]) -> _Rows | None:
    """The rows of one account by store; read to their end in any case."""
    out: _Rows = {}
    count = letters = 0
    for _, _, store, key, kind, value, *when in rows:
        text = None if value is None else str(value)
        count, letters = count + 1, letters + len(text or "")
        if count > MOST_ROWS or letters > LONGEST_TABLE:
            out.clear()
            continue
        out.setdefault(store, []).append(_Row(key or "", kind or "", text, *when))
    return None if count > MOST_ROWS or letters > LONGEST_TABLE else out


_Owner = tuple[bytes, bytes]
"""Host and user."""


def _owner(row: Any) -> _Owner:
    return row[0] or b"", row[1] or b""


class ProsodySqlReader:
    """The accounts in one database, with memory for one of them."""

    def __init__(self, connection: sqlite3.Connection, place: Path | str, losses: Losses) -> None:
        self._connection, self._place, self._losses = connection, place, losses
        for (encoding,) in self._rows("PRAGMA encoding"):
            if encoding != "UTF-8":
                raise SourceError(
                    f"texts are in {encoding}, and not in UTF-8 as Prosody has them", file=place
                )
        self.total: int | None = next(self._rows(_TOTAL))[0]

    def __iter__(self) -> Iterator[Account | Unreadable]:
        archives = self._archives()
        waiting = next(archives, None)
        for owner, rows in groupby(self._rows(_KEYED), _owner):
            keyed = _collected(rows)
            while waiting is not None and waiting[0] < owner:
                waiting = next(archives, None)
            archived: _Rows | None = {}
            if waiting is not None and waiting[0] == owner:
                archived = waiting[1]
            if keyed is None or ACCOUNTS in keyed:
                yield self._account(owner, keyed, archived)
        self._count()

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def _account(self, owner: _Owner, keyed: _Rows | None, archived: _Rows | None) -> Account | Unreadable:
        host, user = (name.decode("utf-8", "surrogateescape") for name in owner)
        stored = _Stored(f"{user}@{host}", str(self._place), keyed, archived, self._losses)
        return account_of(user, host, str(self._place), stored, self._losses)

    def _archives(self) -> Iterator[tuple[_Owner, _Rows | None]]:
        for owner, rows in groupby(self._rows(_ARCHIVED), _owner):
            yield owner, _collected(rows)

    def _rows(self, sql: str) -> Iterator[Any]:
        try:
            with closing(self._connection.execute(sql)) as cursor:
                yield from cursor
        except sqlite3.Error as error:
            raise SourceError(f"cannot be read: {error}", file=self._place) from None

    def _count(self) -> None:
        """What was not read for any account."""
        hosts = {host for (host,) in self._rows(_HOSTS)}
        others: dict[str, list[str]] = {}
        for table, read in (("prosody", TABLES | LISTS), ("prosodyarchive", LISTS)):
            for host, user, store, is_account in self._rows(_STORES.format(table=table)):
                if host not in hosts:
                    stores = others.setdefault(host or "", [])
                    if store not in stores:
                        stores.append(store)
                elif not user:
                    self._losses.add("host-data", "", f"{shown(host)}: {shown(store)}")
                elif not is_account:
                    self._losses.add("orphan", shown(f"{user}@{host}"), shown(store))
                elif store not in read:
                    kind, detail = lost_store(store)
                    self._losses.add(kind, shown(f"{user}@{host}"), detail)
        for host, stores in sorted(others.items()):
            self._losses.add(
                "host-without-accounts", "", f"{shown(host)}: {', '.join(map(shown, sorted(stores)))}"
            )


def _place_of(path: Path) -> Path:
    """The file itself where the path is the data folder that has it."""
    return path / FILE if path.is_dir() else path


class ProsodySqlFormat:
    """SQL storage of Prosody: its SQLite file, the data folder in which that is, or a dump as text."""

    name = "prosody-sql"
    tables: Final = COLUMNS

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether the table of Prosody is in it."""
        place = _place_of(path)
        if not place.is_file():
            return False
        columns = tables_of(place, head or None).get("prosody")
        return columns is not None and (not columns or {"host", "user", "store"} <= columns)

    def open(self, path: Path, options: Options) -> ProsodySqlReader:
        """The reader. SourceError."""
        place = _place_of(path)
        found = database(place, options.scratch, COLUMNS, options.losses)
        if not found.present.get("prosody"):
            found.close()
            raise SourceError("the table of Prosody is not in it", file=place)
        found.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 4 * LONGEST_VALUE)  # a row that is too long is one loss
        return ProsodySqlReader(found, place, options.losses)


FORMAT: Final = ProsodySqlFormat()
