"""All that a server keeps as one file, such a file put in place of the store, sums that tell two apart."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import itertools
import json
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from xmppd import log as logs
from xmppd.access.audit import AUDIT_LOG, Afterwards
from xmppd.admin.backup import SQLITE, BackupCommands
from xmppd.admin.commands import USAGE, Download, commands_of, page
from xmppd.admin.registry import Commands
from xmppd.config import Config
from xmppd.copying import refuse_running
from xmppd.engines import prepare_folder, prepare_store, store_of
from xmppd.errors import CommandError, StoreError
from xmppd.section import changed
from xmppd.store.sqlite.snapshot import damage, settled
from xmppd.store.table import Store, Stored
from xmppd.tables import TABLES

PIECE: Final = 1 << 18
ROWS: Final = 200
SLICE_SECONDS: Final = 1.0
"""How long one call of `store digest` goes on."""

UNFINISHED: Final = "backup-*.part"
LEFT_SECONDS: Final = 86_400.0
"""A part of a backup that is older was left by a process that was killed."""

_SUM = 1 << 64


class BackupOffice:
    """Backups of one store."""

    def __init__(
        self,
        config: Callable[[], Config],
        store: Store,
        now: Callable[[], float],
    ) -> None:
        self._config = config
        self._store = store
        self._now = now

    async def backup(self) -> Download:
        """The whole store as it is now; CommandError where the engine has a way of its own."""
        config = self._config()
        if config.store.engine != "sqlite":
            raise CommandError(
                "Cassandra has a way of its own: nodetool snapshot on every node (docs/operations.md, Backup)"
            )
        folder = config.server.data_folder
        for left in folder.glob(UNFINISHED):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > LEFT_SECONDS:
                    left.unlink()
        path = folder / UNFINISHED.replace("*", secrets.token_hex(8))
        await self._store.snapshot(path)
        moment = datetime.fromtimestamp(self._now(), UTC).strftime("%Y-%m-%dT%H%M%SZ")
        return Download(f"xmppd-{moment}.sqlite", SQLITE, _pieces(path))

    async def digest(self, after: str) -> Mapping[str, Any]:
        """A page of `store digest`: a row for each table that is there and done, with its entries and their
        sum.
        """
        place, tables = _Place.read(after), await self._store.stored_tables()
        end, rows, done = time.monotonic() + SLICE_SECONDS, list[dict[str, Any]](), 0
        while place.table < len(tables) and (not done or time.monotonic() < end):
            table = tables[place.table]
            dump = await self._store.dump(table, limit=ROWS, page=place.page)
            done += len(dump.entries)
            count = place.entries + len(dump.entries)
            total = (place.total + sum(map(sum_of, dump.entries))) % _SUM
            if dump.next is not None:
                place = _Place(place.table, dump.next, count, total)
            else:
                rows.append({"table": table.name, "entries": count, "sum": f"{total:016x}"})
                place = _Place(place.table + 1)
            await asyncio.sleep(0)
        rest = place.text if place.table < len(tables) else None
        return page(rows, {"entries": done}, after=rest)


class StoreAlone:
    """The commands of backups while no server runs. No plugin has a part in them, so all stays as it is."""

    def __init__(self, store: Store, config: Config, prepare: Callable[[], Awaitable[None]]) -> None:
        self._store = store
        self._prepare = prepare
        self._office = BackupOffice(lambda: config, store, time.time)
        self.commands = Commands(commands_of(BackupCommands(self)))
        self.commands.witness = Afterwards(
            store, partial(store.open, [AUDIT_LOG]), time.time, config.audit.days
        )

    async def backup(self) -> Download:
        """A store that is there, as a file."""
        await self._prepare()
        return await self._office.backup()

    async def digest(self, after: str) -> Mapping[str, Any]:
        """What is in each table of one."""
        await self._prepare()
        await self._store.open([])
        return await self._office.digest(after)


@contextlib.asynccontextmanager
async def parts(config: Config, *, create: bool) -> AsyncIterator[StoreAlone]:
    """The store of the configuration, for commands about all that is in it."""
    store = store_of(config)
    try:
        yield StoreAlone(store, config, partial(prepare_store, config, store, TABLES, create=create))
    finally:
        await store.close()


def sum_of(entry: Stored) -> int:
    """A number of what lies under one key, alike on every engine; sums of them do not know an order. When it
    ends is not in it.
    """
    values = sorted((name, value) for name, value in entry.values.items() if value is not None)
    text = repr((tuple(entry.key), values)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


class _Place(NamedTuple):
    """How far a digest is: in which table, where in it, and what was found there so far."""

    table: int = 0
    page: bytes | None = None
    entries: int = 0
    total: int = 0

    @property
    def text(self) -> str:
        page = None if self.page is None else base64.b64encode(self.page).decode()
        return base64.urlsafe_b64encode(
            json.dumps([self.table, page, self.entries, self.total]).encode()
        ).decode()

    @classmethod
    def read(cls, text: str) -> _Place:
        """CommandError for what is no such text."""
        if not text:
            return cls()
        try:
            table, page, count, total = json.loads(base64.b64decode(text, altchars=b"-_", validate=True))
            token = None if page is None else base64.b64decode(page, validate=True)
            return cls(abs(int(table)), token, int(count), int(total))
        except (binascii.Error, ValueError, TypeError):
            raise CommandError("after: this is not a token", USAGE, field="after") from None


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    """What is in the file, which is gone by its name at once, and as a whole at the end."""
    with await asyncio.to_thread(_taken, path) as file:
        while piece := await asyncio.to_thread(file.read, PIECE):
            yield piece


def _taken(path: Path) -> BinaryIO:
    file = path.open("rb")
    path.unlink()
    return file


def restore_store(config: Config, file: Path) -> dict[str, Any]:
    """Put a backup in place of the database of a server that does not run; where what was there is now.

    CommandError for what is no such file, or while a server answers; OSError.
    """
    if config.store.engine != "sqlite":
        raise CommandError("a backup is a database of SQLite: copy it into Cassandra with `xmppd store copy`")
    if not file.is_file():
        raise CommandError(f"{file} is no file")
    if problem := damage(file):
        raise CommandError(f"{file}: {problem}")
    refuse_running(config, "configuration")
    logs.configure(changed(config.log, level="warning"))
    prepare_folder(config)
    target = config.store_path.absolute()
    fresh = target.with_name(f"{target.name}.new")
    with file.open("rb") as source, fresh.open("wb") as copy:
        os.fchmod(copy.fileno(), 0o600)
        shutil.copyfileobj(source, copy, PIECE)
        copy.flush()
        os.fsync(copy.fileno())
    kept = _put_aside(target)
    fresh.replace(target)  # at each moment there is a whole database by this name
    _sync(target.parent)
    return {"restored": str(target), "before": kept or None}


def _put_aside(target: Path) -> str:
    """Give the database a second name, and take away what belongs to it; that name, "" where there is none.
    CommandError while another program has it open.
    """
    if not target.exists():
        return ""
    try:
        is_mine = settled(target)
    except StoreError:
        is_mine = True  # what is damaged is put aside as it is
    if not is_mine:
        raise CommandError(f"another program has {target} open: stop it first")
    moment = datetime.now(UTC).strftime("%Y-%m-%dT%H%M%SZ")
    name = f"{target.name}.before-{moment}"
    kept = next(
        path
        for number in itertools.count(1)
        if not (path := target.with_name(name if number == 1 else f"{name}-{number}")).exists()
    )
    for suffix in ("-wal", "-shm"):  # the log of another database would be played into the new one
        part = target.with_name(target.name + suffix)
        if part.exists():
            part.replace(kept.with_name(kept.name + suffix))
    os.link(target, kept)
    return str(kept)


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
