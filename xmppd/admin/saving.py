"""A command's file, written where the command line was told to."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from xmppd.admin.client import Begin
from xmppd.admin.progress import ProgressBar
from xmppd.errors import CommandError

MODE: Final = 0o600


class Door(Protocol):
    """Where the command is done."""

    def download(self, name: str, arguments: Mapping[str, Any], begin: Begin) -> None:
        """Run a command whose result is a file, which goes where `begin` says; CommandError."""


def save(name: str, door: Door, arguments: Mapping[str, Any], out: Path | None) -> dict[str, Any]:
    """Write the file that a command gives to `out`, or to a new one of its own name here, which only its
    owner may read; where and how large. What breaks off leaves nothing. CommandError, OSError.
    """
    opened: list[tuple[Path, BinaryIO]] = []
    bar = ProgressBar(sys.stderr, unit="bytes")

    def begin(given: str) -> Callable[[bytes], object]:
        path = out if out is not None else Path(Path(given).name)
        try:
            number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
        except FileExistsError:
            raise CommandError(f"{path} is there already") from None
        file = os.fdopen(number, "wb")
        opened.append((path, file))
        bar.begin(name)

        def take(piece: bytes) -> None:
            file.write(piece)
            bar.advance(len(piece))

        return take

    try:
        door.download(name, arguments, begin)
        [(path, file)] = opened
        with file:
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
    except BaseException:
        for path, file in opened:
            file.close()
            with contextlib.suppress(OSError):
                path.unlink()
        raise
    bar.end()
    return {"written": str(path), "bytes": size}
