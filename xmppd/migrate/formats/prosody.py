"""The internal storage of Prosody: `DATA/HOST/STORE/USER.dat` and `.list`, all of them parsed and never run.

Names of hosts and users are percent-encoded byte by byte, all but ASCII letters and digits. An account is
what has `accounts/USER.dat`. Hosts and accounts come in the order of their names.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import unquote_to_bytes

from xmppd.migrate.prosody.lua import LONGEST_TABLE, LuaError, Table, items_of, table_of
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
from xmppd.migrate.prosody.usual import usual_contacts
from xmppd.migrate.record import Account, Contact, Losses, Unreadable
from xmppd.migrate.source import Options, SourceError

TABLE, LIST = ".dat", ".list"
ACCOUNTS: Final = "accounts"

_ENCODED: Final = re.compile(rb"[^A-Za-z0-9]")
_STORE_ENCODED: Final = re.compile(rb"[^A-Za-z0-9_]")


def encoded(name: str) -> str:
    """How Prosody writes the name of a host or a user in names of files."""
    return _escape(_ENCODED, name)


@lru_cache(64)
def store_encoded(name: str) -> str:
    """How Prosody writes the name of a store."""
    return _escape(_STORE_ENCODED, name)


def _escape(pattern: re.Pattern[bytes], name: str) -> str:
    data = name.encode("utf-8", "surrogateescape")
    return pattern.sub(lambda found: b"%%%02x" % found[0][0], data).decode("ascii")


def decoded(name: str) -> str:
    """The name that a file name stands for; bytes that are no UTF-8 are surrogates."""
    return unquote_to_bytes(os.fsencode(name)).decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class _Host:
    """One folder of a host that has accounts."""

    domain: str
    folder: Path


@dataclass(slots=True)
class _Folder:
    """The stores of one account: `name` is that of its files, without what says their kind."""

    folder: str
    name: str
    present: frozenset[str]

    def usual_contacts(self) -> list[Contact] | None:
        place = self._place("roster", TABLE)
        return None if place is None else usual_contacts(_read(place))

    def table(self, store: str) -> Table | None:
        place = self._place(store, TABLE)
        if place is None:
            return None
        try:
            return table_of(_read(place))
        except LuaError as error:
            raise _broken(error, place) from None

    def items(self, store: str) -> Iterable[Item]:
        place = self._place(store, LIST)
        if place is None:
            return
        with _opened(place) as file:
            try:
                for table in items_of(file):
                    yield item_of(table)
            except LuaError as error:
                raise _broken(error, place) from None
            except OSError as error:
                raise BrokenStore(f"cannot be read: {error.strerror}", place) from None

    def _place(self, store: str, ending: str) -> str | None:
        folder = store_encoded(store)
        if folder not in self.present:
            return None
        place = f"{self.folder}/{folder}/{self.name}{ending}"
        return place if os.path.exists(place) else None  # noqa: PTH110 - seven for each account


def _opened(place: str) -> BinaryIO:
    """A regular file: a pipe of this name would be waited for."""
    try:
        number = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise BrokenStore(f"cannot be opened: {error.strerror}", place) from None
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise BrokenStore("not a file", place)
    return os.fdopen(number, "rb")


def _read(place: str) -> bytes:
    try:
        with _opened(place) as file:
            return file.read(LONGEST_TABLE + 1)
    except OSError as error:
        raise BrokenStore(f"cannot be read: {error.strerror}", place) from None


def _broken(error: LuaError, place: str) -> BrokenStore:
    return BrokenStore(error.why, f"{place}:{error.line} (byte {error.byte})")


class ProsodyReader:
    """The accounts of all hosts of a data folder: in memory are the names of one host, and one account."""

    def __init__(self, hosts: list[_Host], others: list[_Host], losses: Losses) -> None:
        self._hosts, self._others, self._losses = hosts, others, losses
        self.total: int | None = sum(sum(1 for _ in _files(host.folder / ACCOUNTS)) for host in hosts)

    def __iter__(self) -> Iterator[Account | Unreadable]:
        for host in self._hosts:
            yield from self._of(host)
        for host in self._others:
            stores = sorted(name for name, _ in _folders(host.folder))
            self._losses.add(
                "host-without-accounts", "", f"{shown(host.domain)}: {', '.join(stores) or 'nothing'}"
            )

    def close(self) -> None:
        """Nothing is open between two accounts."""

    def _of(self, host: _Host) -> Iterator[Account | Unreadable]:
        present = frozenset(name for name, _ in _folders(host.folder))
        names = self._names(host)
        for local, name in names.items():
            where = f"{host.folder}/{ACCOUNTS}/{name}{TABLE}"
            stores = _Folder(str(host.folder), name, present)
            yield account_of(local, host.domain, where, stores, self._losses)
        for store, folder in _folders(host.folder):
            self._count(decoded(store), folder, host, names)
        for name in sorted(_names_in(host.folder)):
            stem, ending = _split(name)
            if ending in (TABLE, LIST):
                self._losses.add("host-data", "", f"{shown(host.domain)}: {shown(decoded(stem))}")

    def _names(self, host: _Host) -> dict[str, str]:
        """Account -> name of its files, in order. Of two that mean the same, Prosody would open its own."""
        names: dict[str, str] = {}
        for name, ending in _files(host.folder / ACCOUNTS):
            if ending != TABLE:
                continue
            local = decoded(name)
            if local in names:
                spare = names[local] if name == encoded(local) else name
                self._losses.add("file-name", shown(f"{local}@{host.domain}"), f"{ACCOUNTS}/{spare}{TABLE}")
                if spare == name:
                    continue
            names[local] = name
        return dict(sorted(names.items(), key=lambda pair: pair[0].encode("utf-8", "surrogateescape")))

    def _count(self, store: str, folder: Path, host: _Host, names: dict[str, str]) -> None:
        """What is in a store and was not read for any account."""
        known = {store in TABLES: TABLE, store in LISTS: LIST}.get(True)
        for name, ending in sorted(_files(folder)):
            local = decoded(name)
            owner = shown(f"{local}@{host.domain}")
            if local not in names:
                self._losses.add("orphan", owner, shown(store))
            elif ending == known and (names[local] == name or store == ACCOUNTS):
                continue
            else:
                kind, detail = lost_store(store)
                self._losses.add(kind, owner, detail)


def _names_in(folder: Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file():
                yield entry.name


def _split(name: str) -> tuple[str, str]:
    """Name of a file without its ending, and the ending."""
    stem, dot, ending = name.rpartition(".")
    return stem, dot + ending


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    """Name and ending of each file of a user; those ending in `~` are half-written, `.lidx` are indices."""
    try:
        for name in _names_in(folder):
            stem, ending = _split(name)
            if ending in (TABLE, LIST):
                yield stem, ending
    except OSError as error:
        raise SourceError(f"cannot be listed: {error.strerror}", file=folder) from None


def _folders(folder: Path) -> list[tuple[str, Path]]:
    """Name and path of each folder in a folder, by name."""
    try:
        return sorted((place.name, place) for place in folder.iterdir() if place.is_dir())
    except OSError as error:
        raise SourceError(f"cannot be listed: {error.strerror}", file=folder) from None


def _has_accounts(folder: Path) -> bool:
    """Whether this is the folder of a host with accounts: a host may itself be named `accounts`."""
    accounts = folder / ACCOUNTS
    return accounts.is_dir() and any(ending == TABLE for _, ending in _files(accounts))


def _data_of(path: Path) -> Path | None:
    """The data folder, or that of a single host; None where this is neither."""
    for place in (path, path / "data"):
        if place.is_dir() and (
            _has_accounts(place) or any(_has_accounts(folder) for _, folder in _folders(place))
        ):
            return place
    return None


class ProsodyFormat:
    """The internal storage of Prosody: its data folder, one host in it, or the folder around `data`."""

    name = "prosody"

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether there are accounts of Prosody."""
        return not head and path.is_dir() and _data_of(path) is not None

    def open(self, path: Path, options: Options) -> ProsodyReader:
        """The reader. `options.domain` names the host where the path is its folder. SourceError."""
        data = _data_of(path)
        if data is None:
            raise SourceError(
                "no accounts of Prosody are here",
                file=path,
                hint="give the folder that has one folder for each host, with accounts/USER.dat in it",
            )
        if _has_accounts(data):
            host = _Host(options.domain or decoded(data.resolve().name), data)
            return ProsodyReader([host], [], options.losses)
        folders = [_Host(decoded(name), folder) for name, folder in _folders(data)]
        folders.sort(key=lambda host: host.domain.encode("utf-8", "surrogateescape"))
        hosts = [host for host in folders if _has_accounts(host.folder)]
        others = [host for host in folders if not _has_accounts(host.folder)]
        return ProsodyReader(hosts, others, options.losses)


FORMAT: Final = ProsodyFormat()
