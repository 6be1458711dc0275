"""A source read and prepared by a process of its own, which hands over files of accounts that arrive.

Reading and preparing take as long as writing does, so they have a core of their own where there is one.
"""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import secrets
import shutil
import signal
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import msgspec

from xmppd.arriving import line_of
from xmppd.core.arrival import Arrival
from xmppd.core.credentials import MADE, NO_KEYS, BadKeys, columns_of, derive
from xmppd.core.digest import digest, digest_of
from xmppd.errors import CommandError, XmppdError
from xmppd.migrate.addresses import AddressMap, read_map
from xmppd.migrate.detect import open_source
from xmppd.migrate.formats import ejabberd_sql, mongooseim, openfire, prosody_sql
from xmppd.migrate.prepare import Limits, Note, Prepared, Preparer, Refused, parts_of
from xmppd.migrate.record import Account, Losses, Unreadable
from xmppd.migrate.source import Options, TableFormat
from xmppd.migrate.sql.live import copied, is_url, merged
from xmppd.stream.scram import BadPassword

MOST_ACCOUNTS = 250
MOST_BYTES = 1 << 20
"""How much goes into one file."""
AHEAD = 3
"""How many files may wait for who writes."""
SALT_BYTES = 16
SQL: Final[tuple[TableFormat, ...]] = (
    ejabberd_sql.FORMAT,
    mongooseim.FORMAT,
    openfire.FORMAT,
    prosody_sql.FORMAT,
)
"""Formats that are found in a database, too."""
POLL_SECONDS = 0.2
"""How often it is looked whether to stop while a source says nothing."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to read, and how to prepare it.

    `skip`: so many accounts were done by an earlier part of this run. `only` are names as the source has
    them; `since` leaves out what did not change since then. `derives` makes keys of plain passwords; without
    it they are handed over as they are. `batch` accounts go into a file at most, and `owner` (a user id)
    reads it. A plain password whose keyed hash is in the database `marks` already goes without its keys.
    """

    source: str
    format: str = ""
    domain: str = ""
    map: str = ""
    columns: Sequence[str] = ()
    scratch: str = ""
    names_as_passwords: bool = False
    only: Sequence[str] = ()
    since: float | None = None
    skip: int = 0
    limits: Limits = field(default_factory=Limits)
    domains: tuple[str, ...] = ()
    iterations: int = 10_000
    hashes: Sequence[str] = MADE
    derives: bool = True
    batch: int = MOST_ACCOUNTS
    owner: int = -1
    marks: str = ""
    key: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Batch:
    """Some accounts of the source: `file` has those that arrive, `rows` is the report's line for each, in
    order. A row with `done` is not in the file.
    """

    file: Path
    rows: list[dict[str, Any]]


class Feed:
    """The batches of a source, made by another process as they are taken. `folder` is removed at the end.
    Once `stopped` says so there are no more of them, though the source may have some.
    """

    def __init__(self, wanted: Wanted, folder: Path, *, stopped: Callable[[], bool] | None = None) -> None:
        self._folder = folder
        self._stopped = stopped
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=feed, args=(wanted, folder, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self.total: int | None = None
        self.losses: dict[str, Any] = {}
        self.is_over = False

    def __iter__(self) -> Iterator[Batch]:
        """The batches; CommandError where the source cannot be read on. Each file is removed afterwards."""
        for _ in range(AHEAD):
            self._ours.send(None)
        while True:
            try:
                while self._stopped is not None and not self._ours.poll(POLL_SECONDS):
                    if self._stopped():
                        return
                kind, value = self._ours.recv()
            except (EOFError, ConnectionError):
                raise CommandError("the process that reads the source has died") from None
            if kind == "total":
                self.total = value
            elif kind == "error":
                raise CommandError(value)
            elif kind == "end":
                self.losses = value
                self.is_over = True
                return
            else:
                yield Batch(*value)
                value[0].unlink(missing_ok=True)
                with contextlib.suppress(ConnectionError):  # it may be done
                    self._ours.send(None)

    def close(self) -> None:
        """End the process and remove what it left; harmless if repeated."""
        self._ours.close()
        self._process.terminate()
        self._process.join()
        shutil.rmtree(self._folder, ignore_errors=True)


def feed(wanted: Wanted, folder: Path, consumer: Connection) -> None:
    """The other process: read, prepare, write files."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who reads us ends us, with all that is to be said
    losses = Losses()
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionError, EOFError):  # whoever takes them has gone
            _feed(wanted, folder, consumer, losses)
            found = {kind: {"count": it.count, "samples": it.samples} for kind, it in losses.kinds.items()}
            consumer.send(("end", found))
    except XmppdError as error:
        consumer.send(("error", str(error)))
    except Exception as error:  # noqa: BLE001 - it is told to who waits
        consumer.send(("error", f"internal error while the source was read: {error!r}"))


def _feed(wanted: Wanted, folder: Path, consumer: Connection, losses: Losses) -> None:
    addresses = read_map(Path(wanted.map)) if wanted.map else AddressMap()
    preparer = Preparer(addresses, wanted.limits, wanted.domains)
    with contextlib.ExitStack() as stack:
        scratch = folder
        if wanted.scratch:
            scratch = Path(stack.enter_context(made_in(wanted.scratch)))
        options = Options(
            domain=wanted.domain,
            scratch=scratch,
            names_as_passwords=wanted.names_as_passwords,
            columns=wanted.columns,
            losses=losses,
        )
        reader = stack.enter_context(
            contextlib.closing(
                open_source(path_of(wanted, scratch, losses), format=wanted.format, options=options)
            )
        )
        consumer.send(("total", reader.total))
        passwords = stack.enter_context(contextlib.closing(Passwords(wanted)))
        for batch in _batches(selected(reader, wanted), wanted, preparer, passwords, folder):
            consumer.recv()  # not before it is wanted
            consumer.send(("batch", batch))


class Passwords:
    """Which plain passwords need not be made keys of, for they were given already (`Wanted.marks`)."""

    def __init__(self, wanted: Wanted) -> None:
        self._key = wanted.key
        self._database = sqlite3.connect(wanted.marks) if wanted.marks else None

    def mark(self, found: Prepared) -> str:
        """A keyed hash of the account's password, "" where it has none or nothing is remembered."""
        if self._database is None or found.password is None:
            return ""
        data = f"{found.account}\0{found.password}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(data, key=self._key, digest_size=16).hexdigest()

    def has(self, account: str, mark: str) -> bool:
        """Whether it is the one that was given last."""
        assert self._database is not None
        query = "select 1 from marks where account = ? and mark = ?"
        return self._database.execute(query, (account, mark)).fetchone() is not None

    def close(self) -> None:
        """Done."""
        if self._database is not None:
            self._database.close()


def made_in(scratch: str) -> tempfile.TemporaryDirectory[str]:
    """A folder in one that an operator named; CommandError."""
    try:
        return tempfile.TemporaryDirectory(prefix="xmppd-migrate-", dir=scratch)
    except OSError as error:
        raise CommandError(f"{scratch}: {error.strerror}") from None


def path_of(wanted: Wanted, folder: Path, losses: Losses) -> Path:
    """Where the source is read: a database as a copy of one moment of it, in the folder."""
    if not is_url(wanted.source):
        return Path(wanted.source)
    return copied(wanted.source, folder, merged(form.tables for form in SQL), losses)


def selected(accounts: Any, wanted: Wanted) -> Iterator[Account | Unreadable]:
    """Those that are asked for, without those that were done."""
    only = frozenset(wanted.only)
    left = wanted.skip
    for account in accounts:
        if only and account.name not in only:
            continue
        if wanted.since is not None and is_older(account, wanted.since):
            continue
        if left:
            left -= 1
            continue
        yield account


def is_older(account: Account | Unreadable, since: float) -> bool:
    """Whether the source says that the account was not changed since then."""
    return isinstance(account, Account) and account.modified is not None and account.modified < since


def _batches(
    accounts: Iterator[Account | Unreadable],
    wanted: Wanted,
    preparer: Preparer,
    passwords: Passwords,
    folder: Path,
) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    lines: list[bytes] = []
    rows: list[dict[str, Any]] = []
    size = number = 0
    for account in accounts:
        line, row = prepared_line(account, wanted, preparer, passwords)
        rows.append(row)
        if line:
            lines.append(line)
            size += len(line)
        if len(rows) >= wanted.batch or size >= MOST_BYTES:
            number += 1
            yield written(folder, number, lines, wanted.owner), rows
            lines, rows, size = [], [], 0
    if rows:
        yield written(folder, number + 1, lines, wanted.owner), rows


def written(folder: Path, number: int, lines: Sequence[bytes], owner: int) -> Path:
    """A file of accounts that arrive, for its owner's eyes (-1: who writes it)."""
    path = folder / f"{number:08}.jsonl"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(b"\n".join([*lines, b""]))
        os.fchown(file.fileno(), owner, -1)
    return path


def prepared_line(
    account: Account | Unreadable, wanted: Wanted, preparer: Preparer, passwords: Passwords
) -> tuple[bytes, dict[str, Any]]:
    """An account as it arrives (b"" if it cannot), and its line of the report."""
    if isinstance(account, Unreadable):
        return b"", {"name": account.name, "done": "unreadable", "why": account.why, "where": account.where}
    try:
        found = preparer.prepare(account)
        mark = passwords.mark(found)
        if mark and passwords.has(found.account, mark):
            credentials: dict[str, Any] = {}
            key_hash = mark
        else:
            credentials, key_hash = credentials_of(found, wanted)
            key_hash = mark if mark and credentials else key_hash
    except Refused as error:
        return b"", {"name": account.name, "done": "refused", "why": str(error), "where": account.where}
    parts, hashes = encoded(parts_of(found))
    if key_hash:
        hashes["keys"] = key_hash
    row: dict[str, Any] = {"name": found.name, "account": found.account}
    if mark and key_hash:
        row["mark"] = mark
    if found.roster:
        row["contacts"] = len(found.roster)
    if found.notes:
        row["notes"] = [[note.kind, note.detail] for note in found.notes]
    arrival = Arrival(found.account, credentials, found.disabled, found.created, parts, hashes)
    return line_of(arrival), row


def encoded(parts: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The parts of an account with a roster that is JSON already, and a hash of each (`digest`): the roster
    is nearly all that most accounts have, and made JSON once.
    """
    found, hashes = dict(parts), {}
    for kind, value in parts.items():
        if kind == "roster":
            found[kind] = msgspec.Raw(msgspec.json.encode(value))
            hashes[kind] = digest_of(found[kind])
        else:
            hashes[kind] = digest(value)
    return found, hashes


def credentials_of(found: Prepared, wanted: Wanted) -> tuple[dict[str, Any], str]:
    """The credential columns of an account, and a hash of what they are made of ("": it may be anything)."""
    if found.password is not None and not wanted.derives:
        return {"password": found.password}, digest(found.password)
    if found.password is not None:
        try:
            salt = secrets.token_bytes(SALT_BYTES)
            columns = derive(found.password, salt, wanted.iterations, wanted.hashes, imported=True)
        except BadPassword as error:
            found.notes.append(Note("must-reset", str(error)))
            return {}, ""
        return {**NO_KEYS, **columns, "imported": True}, ""
    if not found.keys:
        found.notes.append(Note("must-reset", "the source has no password and no keys"))
        return {}, ""
    try:
        columns = columns_of(found.keys)
    except BadKeys as error:
        found.notes.append(Note("must-reset", str(error)))
        return {}, ""
    return {**NO_KEYS, **columns, "imported": True}, digest(columns)
