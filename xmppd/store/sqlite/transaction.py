"""Connections to SQLite, what its errors mean for a store, and jobs done together in one transaction."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from xmppd.errors import StoreBug, StoreError, StoreTimeout, StoreUnavailable

sqlite3.register_adapter(bytes, bytes)
# Which changes nothing but that the module does not look for one in vain, with an error made for each value.

MEMORY = ":memory:"
CACHE_KIB = 8192
"""The most memory for pages that writes have touched; with less they are read again and again."""
CHECKPOINT_PAGES = 4000
"""After how many pages of 4 KiB the log is moved into the file. A page written often is moved once."""

Job = Callable[[sqlite3.Cursor], Any]
"""Something to do inside a transaction. It may be called again, what the call before did then rolled back."""

Outcome = Any
"""What a job returned, or the StoreError by which it failed."""

_UNAVAILABLE = {
    sqlite3.SQLITE_AUTH: "may not be used",
    sqlite3.SQLITE_BUSY: "is locked by another program",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: its folder is missing or may not be written",
    sqlite3.SQLITE_CORRUPT: "is damaged: restore it from a backup",
    sqlite3.SQLITE_FULL: "cannot grow: the disk is full",
    sqlite3.SQLITE_INTERRUPT: "was interrupted",
    sqlite3.SQLITE_IOERR: "cannot be read or written: the disk reports an error",
    sqlite3.SQLITE_LOCKED: "is locked",
    sqlite3.SQLITE_NOMEM: "cannot be used: memory ran out",
    sqlite3.SQLITE_NOTADB: "is no SQLite database",
    sqlite3.SQLITE_PERM: "may not be opened",
    sqlite3.SQLITE_PROTOCOL: "is locked in a strange way by another program",
    sqlite3.SQLITE_READONLY: "may not be written",
}
"""Primary result codes that say nothing about the request -> the end of a sentence on the file."""

_OUTCOME_UNKNOWN = frozenset({sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC})
"""The transaction is written, but the disk does not say whether for good."""


def translated(error: Exception, path: str) -> StoreError:
    """The StoreError to raise for an error met while using the database at `path`."""
    if isinstance(error, StoreError):
        return type(error)(*error.args)
    if isinstance(error, OSError):
        return StoreUnavailable(f"the database {path} cannot be opened: {error.strerror}")
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    if code in _OUTCOME_UNKNOWN:
        return StoreTimeout(f"the database {path} may have lost the last writes: {error}")
    if reason := _UNAVAILABLE.get(code & 0xFF):
        return StoreUnavailable(f"the database {path} {reason} ({error})")
    return StoreBug(f"the database {path} refused a statement: {type(error).__name__}: {error}")


def connect(path: str, patience: float, *, create: bool) -> sqlite3.Cursor:
    """The one cursor of a durable connection in WAL mode, for one thread at a time; sqlite3.Error, OSError,
    StoreError.
    """
    if path != MEMORY and create:
        # It holds the keys of accounts. SQLite gives its other files the mode of this one.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    # Without `create` a file that has been taken away is an error and not a new empty database.
    place = path if path == MEMORY else f"{Path(path).as_uri()}?mode=rw"
    connection = sqlite3.connect(
        place,
        uri=True,
        timeout=patience,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=512,
    )
    try:
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode not in ("wal", "memory"):
            raise StoreUnavailable(
                f"the database {path} is on a file system that cannot keep SQLite's log (WAL)"
            )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {64 << 20}")
    except (sqlite3.Error, StoreError):
        connection.close()
        raise
    return connection.cursor()


def shrink(cursor: sqlite3.Cursor) -> None:
    """Give up cached pages."""
    cursor.execute("PRAGMA shrink_memory")


class Transactions:
    """Does jobs in transactions on its own connection, which it opens again after trouble.

    For one thread at a time. Either `attempt` and then `commit`, or `run`.
    """

    def __init__(self, path: str, patience: float) -> None:
        self.path = path
        self.waits_for_disk = False
        """Whether it is beginning or committing, and needs no Python meanwhile. Other threads may look."""
        self._patience = patience
        self._cursor: sqlite3.Cursor | None = None
        self._is_created = False

    def cursor(self) -> sqlite3.Cursor:
        """The cursor in use; sqlite3.Error, OSError or StoreError if there can be none."""
        if self._cursor is None:
            self._cursor = connect(self.path, self._patience, create=not self._is_created)
            self._cursor.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            self._cursor.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
            self._is_created = True
        return self._cursor

    def attempt(self, jobs: Sequence[Job]) -> list[Outcome] | None:
        """Do all jobs in a transaction that is left open, and wait for nobody.

        None, and nothing is done or left open, if that cannot be: no connection, a lock of somebody else, or
        a job that fails.
        """
        cursor = self._cursor
        if cursor is None:
            return None
        try:
            cursor.execute("BEGIN IMMEDIATE")
            return [job(cursor) for job in jobs]
        except Exception:  # noqa: BLE001 - met again, and reported, by `run`
            with contextlib.suppress(sqlite3.Error):
                cursor.connection.rollback()
            return None

    def commit(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Commit what `attempt` has done; its outcomes, or the StoreError that became of each."""
        try:
            self._commit(self.cursor())
        except Exception as error:  # noqa: BLE001 - it becomes the outcome of every job
            self._recover(error)
            return [translated(error, self.path) for _ in outcomes]
        return outcomes

    def run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Do all jobs in one transaction and commit it. A job that fails does so alone, without a trace."""
        try:
            cursor = self._begin()
            try:
                outcomes = [job(cursor) for job in jobs]
            except Exception:  # noqa: BLE001 - met again, and reported, by the second run
                cursor.connection.rollback()
                self._begin()
                outcomes = [self._guarded(job, cursor) for job in jobs]
        except Exception as error:  # noqa: BLE001 - it becomes the outcome of every job
            self._recover(error)
            return [translated(error, self.path) for _ in jobs]
        return self.commit(outcomes)

    def close(self) -> None:
        """Disconnect; the last one to do so moves the log into the database file."""
        if self._cursor is not None:
            self._cursor.connection.close()
            self._cursor = None

    def _begin(self) -> sqlite3.Cursor:
        """Begin with patience; everything else waits for no lock."""
        self.waits_for_disk = True
        try:
            cursor = self.cursor()
            cursor.execute(f"PRAGMA busy_timeout = {int(self._patience * 1000)}")
            try:
                cursor.execute("BEGIN IMMEDIATE")
            finally:
                cursor.execute("PRAGMA busy_timeout = 0")
        finally:
            self.waits_for_disk = False
        return cursor

    def _commit(self, cursor: sqlite3.Cursor) -> None:
        self.waits_for_disk = True
        try:
            cursor.execute("COMMIT")
        finally:
            self.waits_for_disk = False

    def _guarded(self, job: Job, cursor: sqlite3.Cursor) -> Outcome:
        cursor.execute("SAVEPOINT job")
        try:
            outcome: Outcome = job(cursor)
        except Exception as error:
            if not cursor.connection.in_transaction:
                raise  # the disk is full, or the like: nothing of the group is left
            cursor.execute("ROLLBACK TO job")
            outcome = translated(error, self.path)
        cursor.execute("RELEASE job")
        return outcome

    def _recover(self, error: Exception) -> None:
        cursor = self._cursor
        if cursor is None:
            return
        with contextlib.suppress(sqlite3.Error):  # a connection that cannot even roll back is closed next
            cursor.connection.rollback()
        is_locked = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
        if self.path != MEMORY and not is_locked:
            cursor.connection.close()
            self._cursor = None
