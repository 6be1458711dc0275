"""Where servers of this user run, noted by each of them, so that commands find it from any folder.

A data folder may be relative; then the configuration alone does not say where a running server's socket is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from xmppd.admin.client import NoServer, connect
from xmppd.configfile import FILE_VARIABLE, defaults, socket_path
from xmppd.document import Document
from xmppd.errors import CommandError

SECONDS = 5.0
"""How long a server may take to accept a connection."""


@dataclass(frozen=True, slots=True)
class Note:
    """One server: its configuration and its socket, as absolute paths."""

    config: str
    socket: str


def folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the notes are (XDG base directories: state)."""
    state = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME") or "/") / ".local" / "state"
    return Path(state) / "xmppd" / "servers"


@contextlib.contextmanager
def noted(config: Path, socket: Path, environ: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Keeps a note of a server for as long as it runs; does without where none can be written."""
    note = Note(str(config.absolute()), str(socket.absolute()))
    file = folder(environ) / f"{hashlib.sha256(os.fsencode(note.socket)).hexdigest()[:16]}.json"
    with contextlib.suppress(OSError):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(note)))
        fresh.replace(file)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.unlink()


def find_server(
    document: Document, *, is_named: bool, environ: Mapping[str, str] = os.environ
) -> Path | None:
    """The socket of the running server that this configuration is about, None when there is none.

    If nobody answers where the configuration says, and that is a place relative to whoever says it, it is a
    server that was started with the same file in another folder; and if nobody named or wrote a file
    (`is_named`), the only one there is. CommandError when there are several.
    """
    path = socket_path(document)
    if is_alive(path):
        return path
    if path.is_absolute():
        return None
    own = str(Path(document.file).absolute())
    is_free = not is_named and not environ.get(FILE_VARIABLE) and Path(document.file) == defaults()
    # Nobody else is asked: how a server of another configuration does is no matter of this one.
    notes = [note for note in _notes(environ) if is_free or note.config == own]
    alive = [note for note in notes if is_alive(Path(note.socket))]
    found = [note for note in alive if note.config == own] or alive
    if len(found) > 1:
        places = "".join(f"\n  {note.config}, in {Path(note.socket).parent}" for note in found)
        raise CommandError(f"several servers are running: name one by --config, or go to its folder{places}")
    return Path(found[0].socket) if found else None


def is_alive(socket: Path) -> bool:
    """Whether a server answers there; CommandError when one is there that does not."""
    try:
        connect(socket, SECONDS).close()
    except NoServer:
        return False
    return True


def _notes(environ: Mapping[str, str]) -> Iterator[Note]:
    for file in sorted(folder(environ).glob("*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError):
            yield Note(**json.loads(file.read_text()))
