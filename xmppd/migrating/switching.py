"""Which accounts have moved for good: those that a shadow leaves alone, as domains and addresses in files."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from xmppd.admin.commands import USAGE
from xmppd.errors import CommandError, JidError
from xmppd.jid import Jid
from xmppd.migrating.given import Door

SWITCHED, SWITCH_LOCK = "switched.txt", "switch.lock"


class Switched:
    """The names in `files`; the first may be missing, it is the list that `migrate switch` keeps."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._marks: list[tuple[int, int, int] | None] = []
        self.names: frozenset[str] = frozenset()

    def refresh(self) -> None:
        """Read what was changed; CommandError for a file that cannot be read, or a line that is no name."""
        marks = [mark_of(file) for file in self._files]
        if marks == self._marks:
            return
        names: set[str] = set()
        for file, mark in zip(self._files, marks, strict=True):
            if mark is not None or file is not self._files[0]:
                names |= read_names(file)
        self.names, self._marks = frozenset(names), marks

    def has(self, *names: str) -> bool:
        """Whether an account is among them, by one of its names or by a domain of these."""
        return bool(self.names) and any(
            name in self.names or name.rpartition("@")[2] in self.names for name in names
        )


def mark_of(file: Path) -> tuple[int, int, int] | None:
    """What shows that a file is another one than before; None where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def read_names(file: Path) -> set[str]:
    """The names in a file, one a line; what follows a # is a note. CommandError."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{file}: {error}") from None
    found = set()
    for number, line in enumerate(lines, 1):
        if text := line.partition("#")[0].strip():
            try:
                found.add(name_of(text))
            except CommandError as error:
                raise CommandError(f"{file}:{number}: {error}") from None
    return found


def name_of(text: str) -> str:
    """A domain or the address of an account in normal form; CommandError."""
    try:
        jid = Jid.parse(text)
    except JidError as error:
        raise CommandError(f"{text!r} is neither a domain nor an address: {error}", USAGE) from None
    if jid.resource:
        raise CommandError(f"{text!r} is the address of a session: leave /{jid.resource} out", USAGE)
    return jid.bare


@contextlib.contextmanager
def held(file: Path, *, busy: str = "") -> Iterator[None]:
    """Hold a lock; while another process does it is waited for, or with `busy` CommandError says that."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b") as lock:
        give_to_owner(file)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            raise CommandError(busy) from None
        yield


def give_to_owner(file: Path) -> None:
    """What root makes in a folder of somebody else is theirs."""
    with contextlib.suppress(OSError):
        folder = file.parent.stat()
        os.chown(file, folder.st_uid, folder.st_gid)


def switch(
    arguments: Mapping[str, Any], reach: Callable[[], AbstractContextManager[Door]]
) -> tuple[Any, int]:
    """`migrate switch`: put names on the list, or take them off; all that are on it afterwards. No shadow is
    about to write one of them when this returns.
    """
    names = {name_of(text) for text in arguments.get("name", ())}
    with reach() as door:
        folder = Path(door.call("migrate folder", {}))
    file = folder / SWITCHED
    with held(folder / SWITCH_LOCK):
        known = read_names(file) if file.exists() else set()
        wanted = known - names if arguments.get("back") else known | names
        if wanted != known:
            part = file.with_suffix(".part")
            part.write_text("".join(f"{name}\n" for name in sorted(wanted)), encoding="utf-8")
            give_to_owner(part)
            part.replace(file)
    return sorted(wanted), 0
