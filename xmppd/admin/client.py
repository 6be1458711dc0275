"""The client of the command socket, whose protocol `xmppd.admin.socket` has."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from xmppd.admin.commands import NO_PERMISSION, UNAVAILABLE
from xmppd.errors import CommandError

REPLY_BYTES = 64 * 1024 * 1024
REPLY_SECONDS = 300.0
"""How long is waited for a command to be done."""


SILENT_SECONDS = 60.0
"""How long a server may say nothing to who follows something."""
GOING_ON = b"{}\n"
"""What it says when there was nothing else to say for some seconds."""


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
    with _asked(path, wanted, seconds) as replies:
        return _result(_reply(replies))["result"]


Begin = Callable[[str], Callable[[bytes], object]]
"""Told the name of a file that comes; gives what takes its pieces."""


def download(path: Path, name: str, arguments: Mapping[str, Any], begin: Begin) -> None:
    """Have the server at `path` run a command whose result is a file, and take that as it comes.

    NoServer; CommandError, also when it breaks off.
    """
    with _asked(path, {"command": name, "arguments": arguments}, REPLY_SECONDS) as replies:
        take = begin(str(_result(_reply(replies))["download"]["name"]))
        try:
            while size := int.from_bytes(_exactly(replies, 4), "big"):
                take(_exactly(replies, size))
        except OSError as error:
            raise CommandError(f"the server did not go on ({error})", UNAVAILABLE) from None


def follow(path: Path, name: str, arguments: Mapping[str, Any]) -> Generator[Mapping[str, Any], None, None]:
    """The records of a command that follows, as they come; closing this ends it. NoServer, CommandError."""
    with _asked(path, {"follow": name, "arguments": arguments}, SILENT_SECONDS) as replies:
        while line := _reply(replies):
            if line == GOING_ON:
                continue
            reply = _result(line)
            if "record" not in reply:
                return
            yield reply["record"]
    raise CommandError("the server closed the connection", UNAVAILABLE)


@contextlib.contextmanager
def _asked(path: Path, wanted: Mapping[str, Any], seconds: float) -> Iterator[BinaryIO]:
    with connect(path, seconds) as client:
        try:
            client.sendall(json.dumps(wanted).encode() + b"\n")
        except OSError as error:
            raise CommandError(f"the server did not reply ({error})", UNAVAILABLE) from None
        with client.makefile("rb") as replies:
            yield replies


def _reply(replies: BinaryIO) -> bytes:
    try:
        return replies.readline(REPLY_BYTES)
    except OSError as error:
        raise CommandError(f"the server did not reply ({error})", UNAVAILABLE) from None


def _result(line: bytes) -> Any:
    """What a reply says; CommandError for a refusal."""
    try:
        reply = json.loads(line)
        if "error" in reply:
            raise CommandError(reply["error"]["message"], reply["error"]["exit_code"])
        assert "result" in reply or "download" in reply or "record" in reply
    except (ValueError, KeyError, TypeError, AssertionError):
        raise CommandError("the server closed the connection without a reply", UNAVAILABLE) from None
    return reply


def _exactly(replies: BinaryIO, size: int) -> bytes:
    data = replies.read(size)
    if len(data) != size:
        raise CommandError("the server broke off: the file is not whole (its log says why)", UNAVAILABLE)
    return data
