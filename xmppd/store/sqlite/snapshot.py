"""The whole database as it is at one moment, in a file of its own, while others read and write it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path

from xmppd.errors import StoreUnavailable
from xmppd.store.sqlite.transaction import translated

MODE = 0o600


def looking(path: Path | str) -> sqlite3.Connection:
    """A connection that changes nothing, for any one thread at a time; sqlite3.Error."""
    place = f"{Path(path).absolute().as_uri()}?mode=ro"
    return sqlite3.connect(place, uri=True, isolation_level=None, check_same_thread=False)


def write(connection: sqlite3.Connection, path: str, target: Path) -> None:
    """Write the database at `path` into the new file `target`, which only its owner may read, and look for
    damage in it. What breaks off leaves nothing. StoreError.
    """
    try:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR, MODE))
        connection.execute("VACUUM INTO ?", (str(target),))
        if problem := damage(target):
            raise StoreUnavailable(f"the database {path} is damaged: {problem}")
    except FileExistsError as error:
        raise translated(error, str(target)) from error
    except BaseException as error:
        target.unlink(missing_ok=True)
        if isinstance(error, sqlite3.Error | OSError):
            raise translated(error, path) from error
        raise


def forget(target: Path) -> None:
    """Nobody wants it any more."""
    target.unlink(missing_ok=True)


def damage(path: Path) -> str:
    """What is wrong with a database that nobody has open, in the words of SQLite; "" when nothing is."""
    schema = "SELECT count(*) FROM sqlite_schema WHERE name = '_schema'"
    try:
        with contextlib.closing(looking(path)) as connection:
            found = [row[0] for row in connection.execute("PRAGMA quick_check(5)")]
            if found != ["ok"]:
                return "; ".join(map(str, found))
            is_ours = connection.execute(schema).fetchone() == (1,)
    except sqlite3.Error as error:
        return str(error)
    return "" if is_ours else "it is no database of this server"


def settled(path: Path) -> bool:
    """Bring the log of a database into its file, and end it; whether nobody else has it open. StoreError."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as mine:
            mine.execute("PRAGMA locking_mode = EXCLUSIVE")
            mine.execute("BEGIN EXCLUSIVE")
            mine.execute("COMMIT")
            is_busy, *_ = mine.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not is_busy
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return False
        raise translated(error, str(path)) from error
