"""Files that are written for other servers or for scripts: they hold secrets, and are their owner's alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, Protocol

from xmppd.migrate.record import Account
from xmppd.migrate.source import SourceError


class Writer(Protocol):
    """One target that is written, an account at a time."""

    def write(self, account: Account) -> None:
        """One more account; SourceError where there is no place."""

    def close(self) -> None:
        """All of it is on disk."""


def created(path: Path) -> BinaryIO:
    """A new file, readable to its owner alone; SourceError where there is one already, or none can be."""
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise SourceError("is there already", file=path, hint="nothing is overwritten") from None
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot be written: {error}", file=path) from None
    return os.fdopen(number, "wb")


def finished(file: BinaryIO, path: Path) -> None:
    """Flush a file to its disk and close it; SourceError."""
    try:
        with file:
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise SourceError(f"cannot be written: {error}", file=path) from None
