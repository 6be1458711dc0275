"""Databases of running servers (PostgreSQL, MySQL, MariaDB), copied into an SQLite file for readers of SQL.

What is copied is one moment of the database: it may go on meanwhile. Nothing is written there. The drivers
are the extra `migrate` of the package.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from xmppd.migrate.record import Losses
from xmppd.migrate.source import SourceError
from xmppd.migrate.sql.base import COUNTS, Dump, Tables, fresh, quoted
from xmppd.migrate.sql.garbled import MOJIBAKE, ODD, garbled, mended

POSTGRESQL: Final = ("postgresql", "postgres")
MYSQL: Final = ("mysql", "mariadb")
FETCHED: Final = 2000
"""Rows that a cursor asks the server for at once."""

PATIENCE: Final = 15
"""Seconds until a server that does not answer is none."""

Row = Sequence[Any]


class Connection(Protocol):
    """A connection to a server in one transaction that only reads."""

    def columns(self) -> Iterable[tuple[str, str]]:
        """All tables and their columns, in order."""

    def rows(self, table: str, columns: Sequence[str]) -> Iterator[Row]:
        """The rows of a table, as texts, read as they are needed."""

    def count(self, table: str) -> int:
        """How many rows there are."""

    def close(self) -> None:
        """End the transaction."""


def is_url(text: str) -> bool:
    """Whether this names a database and no file."""
    return text.partition("://")[0].lower() in (*POSTGRESQL, *MYSQL) and "://" in text


def merged(several: Iterable[Tables]) -> Tables:
    """The tables of several formats together, for one copy in which all of them are looked for."""
    out: dict[str, dict[str, None]] = {}
    spelled: dict[str, str] = {}
    for tables in several:
        for table, columns in tables.items():
            known = out.setdefault(spelled.setdefault(table.lower(), table), {})
            known.update(dict.fromkeys(columns))
    return {table: tuple(columns) for table, columns in out.items()}


def copied(url: str, folder: Path, tables: Tables, losses: Losses | None = None) -> Path:
    """These tables of a database, as an SQLite file in `folder` that is for the folder's maker to remove:
    formats of SQL recognise and open it as they do a dump. `losses` is told of spoilt text. SourceError,
    which does not have the password.
    """
    parts = _split(url)
    place = f"{parts.scheme}://{parts.hostname or 'localhost'}{parts.path}"
    database = fresh(folder, NAME)
    path = folder / NAME
    try:
        with closing(database), closing(_connected(parts, url, place)) as connection:
            _Copy(connection, database, losses or Losses(), place).all(tables)
            database.execute("COMMIT")
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


NAME: Final = "database.sqlite"
"""The file that `copied` makes."""


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        if is_url(url) and parts.port != 0:
            return parts
    except ValueError:
        pass
    why = "is no address of a database"
    raise SourceError(
        why, hint="write postgresql://user:password@host/name or mysql://user:password@host/name"
    )


def _connected(parts: SplitResult, url: str, place: str) -> Connection:
    is_postgresql = parts.scheme.lower() in POSTGRESQL
    name = "psycopg" if is_postgresql else "pymysql"
    try:
        driver = importlib.import_module(name)
        if not is_postgresql:
            importlib.import_module("pymysql.cursors")
    except ImportError as error:
        hint = "install it: pip install 'xmppd[migrate]'"
        raise SourceError(f"the driver {name} is missing ({error})", file=place, hint=hint) from None
    make = _Postgresql.of if is_postgresql else _Mysql.of
    try:
        return make(driver, parts, url)
    except (driver.Error, OSError, ValueError, RuntimeError) as error:
        raise SourceError(f"cannot be reached: {_said(error, parts)}", file=place) from None


def _said(error: Exception, parts: SplitResult) -> str:
    """What an error says, in one line and without the password."""
    text = " ".join(str(error).split())
    for secret in {parts.password or "", unquote(parts.password or "")} - {""}:
        text = text.replace(secret, "…")
    return text[:500]


class _Copy:
    """Copies tables from a connection into a database."""

    def __init__(self, connection: Connection, database: Dump, losses: Losses, place: str) -> None:
        self._connection, self._database = connection, database
        self._losses, self._place = losses, place

    def all(self, tables: Tables) -> None:
        """These tables, as far as they are there. SourceError."""
        table = ""
        try:
            there: dict[str, tuple[str, dict[str, str]]] = {}
            for name, column in self._connection.columns():
                there.setdefault(name.lower(), (name, {}))[1][column.lower()] = column
            self._database.execute(f"CREATE TABLE {COUNTS} (name TEXT, rows INTEGER)")
            for table, wanted in tables.items():
                if table.lower() in there:
                    self._table(*there[table.lower()], wanted)
        except SourceError:
            raise
        except Exception as error:  # noqa: BLE001 - each driver has errors of its own, and all of them mean this
            why = f"cannot be copied: {' '.join(str(error).split())[:500]}"
            raise SourceError(why, file=f"{self._place} {table}".rstrip()) from None

    def _table(self, name: str, columns: Mapping[str, str], wanted: Sequence[str]) -> None:
        found = [columns[column.lower()] for column in wanted if column.lower() in columns]
        if not wanted:
            fields = ", ".join(map(quoted, columns.values()))
            self._database.execute(f"CREATE TABLE {quoted(name)} ({fields})")
            count = self._connection.count(name)
            self._database.execute(f"INSERT INTO {COUNTS} VALUES (?, ?)", (name.lower(), count))
            return
        if not found:
            return
        fields, marks = ", ".join(map(quoted, found)), ", ".join("?" * len(found))
        self._database.execute(f"CREATE TABLE {quoted(name)} ({fields})")
        rows = self._connection.rows(name, found)
        self._database.executemany(
            f"INSERT INTO {quoted(name)} VALUES ({marks})", (self._clean(name, found, row) for row in rows)
        )

    def _clean(self, table: str, columns: Sequence[str], row: Row) -> Row:
        """Texts as they are meant; a blob is text where it is UTF-8."""
        if all(value is None or (type(value) is str and value.isascii()) for value in row):
            return row
        return [self._text(f"{table}.{column}", value) for column, value in zip(columns, row, strict=True)]

    def _text(self, column: str, value: Any) -> Any:
        if isinstance(value, bytes | bytearray | memoryview):
            value = bytes(value).decode("utf-8", "surrogateescape")
        if not isinstance(value, str) or not ODD.search(value):
            return value
        if kind := garbled(value):
            self._losses.add(kind, "", column)
        return value if kind in ("", MOJIBAKE) else mended(value)


@dataclass(slots=True)
class _Postgresql:
    connection: Any

    @classmethod
    def of(cls, driver: Any, _parts: SplitResult, url: str) -> Connection:
        connection = driver.connect(url, client_encoding="UTF8", connect_timeout=PATIENCE)
        connection.isolation_level = driver.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        return cls(connection)

    def columns(self) -> Iterable[tuple[str, str]]:
        sql = (
            "SELECT table_name::text, column_name::text FROM information_schema.columns"
            " WHERE table_schema = current_schema() ORDER BY 1, ordinal_position"
        )
        with self.connection.cursor() as cursor:
            return [(str(table), str(column)) for table, column in cursor.execute(sql)]

    def rows(self, table: str, columns: Sequence[str]) -> Iterator[Row]:
        fields = ", ".join(f"{quoted(column)}::text" for column in columns)
        with self.connection.cursor(name="copied") as cursor:
            cursor.itersize = FETCHED
            yield from cursor.execute(f"SELECT {fields} FROM {quoted(table)}")

    def count(self, table: str) -> int:
        with self.connection.cursor() as cursor:
            return int(cursor.execute(f"SELECT count(*) FROM {quoted(table)}").fetchone()[0])

    def close(self) -> None:
        self.connection.close()


@dataclass(slots=True)
class _Mysql:
    connection: Any
    streaming: Any

    @classmethod
    def of(cls, driver: Any, parts: SplitResult, _url: str) -> Connection:
        known = driver.converters.conversions
        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        connection = driver.connect(
            host=parts.hostname or "localhost",
            port=parts.port or 3306,
            user=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password or ""),
            database=unquote(parts.path[1:]),
            unix_socket=options.get("unix_socket"),
            ssl={"ca": options["ssl_ca"]} if "ssl_ca" in options else None,
            charset="utf8mb4",
            connect_timeout=PATIENCE,
            conv={kind: value for kind, value in known.items() if not isinstance(kind, int)},
        )
        with connection.cursor() as cursor:
            cursor.execute("SET time_zone = '+00:00'")
            cursor.execute("SET SESSION net_write_timeout = 3600")
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        return cls(connection, driver.cursors.SSCursor)

    def columns(self) -> Iterable[tuple[str, str]]:
        sql = (
            "SELECT table_name, column_name FROM information_schema.columns"
            " WHERE table_schema = DATABASE() ORDER BY 1, ordinal_position"
        )
        with self.connection.cursor() as cursor:
            cursor.execute(sql)
            return [(str(table), str(column)) for table, column in cursor.fetchall()]

    def rows(self, table: str, columns: Sequence[str]) -> Iterator[Row]:
        fields = ", ".join(map(_backquoted, columns))
        with self.connection.cursor(self.streaming) as cursor:
            cursor.execute(f"SELECT {fields} FROM {_backquoted(table)}")
            while rows := cursor.fetchmany(FETCHED):
                yield from rows

    def count(self, table: str) -> int:
        with self.connection.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {_backquoted(table)}")
            return int(cursor.fetchone()[0])

    def close(self) -> None:
        self.connection.close()


def _backquoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
