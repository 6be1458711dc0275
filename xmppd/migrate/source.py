"""What every reader of a format offers, and how a source is recognised."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Protocol

from xmppd.errors import XmppdError
from xmppd.migrate.record import Account, Losses, Unreadable

GZIP = b"\x1f\x8b"
HEAD = 65_536
"""Bytes of a file that are looked at to recognise it."""

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
    the user's name for real.
    """

    domain: str = ""
    scratch: Path = Path("/tmp")
    names_as_passwords: bool = False
    columns: Sequence[str] = ()
    losses: Losses = field(default_factory=Losses)


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


def head_of(path: Path) -> bytes:
    """The first bytes of a file, unpacked if it is gzipped; b"" for a folder; SourceError."""
    if path.is_dir():
        return b""
    try:
        with opened(path) as file:
            return file.read(HEAD)
    except (OSError, EOFError) as error:
        raise SourceError(f"cannot be read: {error}", file=path) from None


def opened(path: Path) -> BufferedReader | gzip.GzipFile:
    """A file in binary, unpacked while it is read if it is gzipped."""
    file = path.open("rb")
    return gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == GZIP else file
