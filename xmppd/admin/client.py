"""The client of the command socket, whose protocol `xmppd.admin.socket` has."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xmppd.admin.commands import NO_PERMISSION, UNAVAILABLE
from xmppd.errors import CommandError

REPLY_BYTES = 64 * 1024 * 1024
REPLY_SECONDS = 300.0
"""How long is waited for a command to be done."""


class NoServer(CommandError):
    """Nobody answers at the socket."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"no server is running here (nobody answers at {path})", UNAVAILABLE)


def connect(path: Path, seconds: float) -> socket.socket:
    """A connection to the server at `path`; NoServer, or CommandError when it does not take any."""
    with contextlib.ExitStack() as undo:
        client = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        client.settimeout(seconds)
        try:
            with address_of(path) as address:
                client.connect(address)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            raise NoServer(path) from None
        except PermissionError:
            raise CommandError(f"you may not talk to the server at {path}", NO_PERMISSION) from None
        except TimeoutError:
            raise CommandError(f"the server at {path} is too busy to answer", UNAVAILABLE) from None
        undo.pop_all()
        return client


@contextlib.contextmanager
def address_of(path: Path) -> Iterator[str]:
    """The path, or a short way to it: the kernel takes 107 bytes."""
    if len(os.fsencode(path)) < 100:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def request(
    path: Path,
    name: str,
    arguments: Mapping[str, Any],
    *,
    check: bool = False,
    seconds: float = REPLY_SECONDS,
) -> Any:
    """Have the server at `path` run a command, or only `check` the arguments, and return its result.

    NoServer when nobody answers; CommandError for what the server refused, or when it does not reply in time.
    """
    wanted = {"check" if check else "command": name, "arguments": arguments}
    with connect(path, seconds) as client:
        try:
            client.sendall(json.dumps(wanted).encode() + b"\n")
            with client.makefile("rb") as replies:
                line = replies.readline(REPLY_BYTES)
        except OSError as error:
            raise CommandError(f"the server did not reply ({error})", UNAVAILABLE) from None
    try:
        reply = json.loads(line)
        if "error" in reply:
            raise CommandError(reply["error"]["message"], reply["error"]["exit_code"])
        return reply["result"]
    except (ValueError, KeyError, TypeError):
        raise CommandError("the server closed the connection without a reply", UNAVAILABLE) from None
