"""What every reader of a format offers, and how a source is recognised."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from xmppd.errors import XmppdError
from xmppd.migrate.record import Account, Losses, Unreadable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

GZIP = b"\x1f\x8b"
HEAD = 65_536
"""Bytes of a file that are looked at to recognise it."""

BUFFER = 1 << 18
"""Bytes that are read at once."""

LONGEST_VALUE = 16 << 20
"""The longest single value (a name, a stanza, a photo) that a reader takes into memory: a longer one is an
error with its place.
"""


class SourceError(XmppdError):
    """The source as a whole cannot be read on. `line` counts from 1, `byte` from 0; None where it means
    nothing.
    """

    def __init__(
        self,
        why: str,
        *,
        file: Path | str = "",
        line: int | None = None,
        byte: int | None = None,
        hint: str = "",
    ) -> None:
        place = str(file) + (f":{line}" if line is not None else "")
        place += f" (byte {byte})" if byte is not None else ""
        text = f"{place}: {why}" if place else why
        super().__init__(f"{text}; {hint}" if hint else text)
        self.why = why


@dataclass(frozen=True, slots=True)
class Options:
    """What an operator may say of a source. `domain` is that of formats without one; `scratch` is a folder
    for what does not fit into memory, removed by who made it; `names_as_passwords` takes passwords that equal
    the user's name for real; `archives`: the messages of archives are wanted, and nothing else.
    """

    domain: str = ""
    scratch: Path = Path("/tmp")
    names_as_passwords: bool = False
    columns: Sequence[str] = ()
    losses: Losses = field(default_factory=Losses)
    archives: bool = False


MOST_STRAYS = 10_000
"""Pieces of a source that name no account, after which it is taken for something else."""


class Strays:
    """Pieces of a source that should be accounts and do not say whose: kept to be told, up to MOST_STRAYS."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.items: list[Unreadable] = []

    def add(self, name: str, why: str, where: str) -> None:
        """One more; SourceError where they are too many."""
        self.items.append(Unreadable(name[:200], why, where))
        if len(self.items) >= MOST_STRAYS:
            raise SourceError(
                f"{MOST_STRAYS} pieces are no accounts, the last in {where}: {why}",
                file=self._path,
                hint="is it of this format?",
            )


class Reader(Protocol):
    """One opened source. Its accounts come in the same order each time, each of them once, so that a place in
    it is a number. `total` is how many there are about, None where that is dear to know.
    """

    @property
    def total(self) -> int | None: ...

    def __iter__(self) -> Iterator[Account | Unreadable]:
        """The accounts, with constant memory; SourceError where it cannot go on."""

    def close(self) -> None:
        """Let go of files and scratch space; harmless if repeated."""


class Format(Protocol):
    """One format: a module or an object with these. `name` is what `--format` says."""

    @property
    def name(self) -> str: ...

    def recognises(self, path: Path, head: bytes) -> bool:
        """Whether a source looks like this; `head` is the beginning of a file, unpacked, b"" for a folder."""

    def open(self, path: Path, options: Options) -> Reader:
        """Begin to read; SourceError."""


class TableFormat(Format, Protocol):
    """A format that is found in databases: `tables` are those it reads, with their columns."""

    @property
    def tables(self) -> Mapping[str, Sequence[str]]: ...


def head_of(path: Path) -> bytes:
    """The first bytes of a file, unpacked if it is gzipped; b"" for a folder; SourceError."""
    if is_folder(path):
        return b""
    with opened(path) as file:
        return file.read(HEAD)


def is_folder(path: Path) -> bool:
    """Whether it is a folder; SourceError where that is not to be known."""
    try:
        return path.is_dir()
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot be read: {error}", file=path) from None


def is_within(path: Path, folder: Path) -> bool:
    """Whether a path stays in a folder when all its links are followed: what leaves it is not of a source."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # a circle of links, a name that is none
        return False


def opened(path: Path) -> BufferedReader:
    """A file in binary, unpacked while it is read if it is gzipped. SourceError for what is no file (a pipe
    would be waited for, a device has no end), and while it is read for what breaks then.
    """
    try:
        if not path.is_file():
            raise SourceError("is no file" if path.exists() else "is not there", file=path)
        file = path.open("rb")
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot be read: {error}", file=path) from None
    try:
        is_packed = file.peek(2)[:2] == GZIP
    except OSError as error:
        file.close()
        raise SourceError(f"cannot be read: {error}", file=path) from None
    return BufferedReader(_Careful(path, file, gzip.GzipFile(fileobj=file) if is_packed else file), BUFFER)


class _Careful(RawIOBase):
    """A file whose errors are SourceErrors with the byte, counted as unpacked."""

    def __init__(self, path: Path, file: BinaryIO, source: BinaryIO | gzip.GzipFile) -> None:
        self._path, self._file, self._source = path, file, source
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer)
        try:
            data = self._source.read(len(view))
        except (OSError, EOFError, zlib.error) as error:
            raise SourceError(f"cannot be read on: {error}", file=self._path, byte=self._at) from None
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._source.close()
        self._file.close()
        super().close()
