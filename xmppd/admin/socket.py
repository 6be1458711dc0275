"""The unix socket through which commands reach the running server.

One connection carries one request and one reply, each a line of JSON: `{"command": name,
"arguments": {...}}`, then `{"result": ...}` or `{"error": {"message": ..., "exit_code": ...}}`. With
`"check"` instead of `"command"` it is not run: its arguments, without secrets, are only looked at. A file is
announced by `{"download": {"name": ...}}`; its pieces follow, each behind its length in 4 bytes, and a length
of 0 when it is whole. With `"follow"` there are many replies: `{"record": {...}}` for each record, `{}` now
and then, and a result or an error at the end, unless the client leaves first.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import pwd
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from xmppd.admin.client import NoServer, address_of, connect
from xmppd.admin.commands import FAILED, USAGE, Caller, Download
from xmppd.admin.registry import Commands
from xmppd.errors import CommandError, StoreError

REQUEST_BYTES = 1024 * 1024
CONNECTIONS = 16
READ_SECONDS = 10.0
REST_SECONDS = 1.0
"""How long the rest of a request that is too long is read."""
STUCK_SECONDS = 30.0
"""How long who follows something may read nothing."""
MODE = 0o600

log = logging.getLogger(__name__)


class AdminSocket:
    """Serves `commands` at `path` to processes of the same user, and of root, until closed."""

    def __init__(self, path: Path, commands: Commands, *, read_seconds: float = READ_SECONDS) -> None:
        self.path = path
        self.commands = commands
        self.read_seconds = read_seconds
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._serving: set[asyncio.Task[None]] = set()

    def claim(self) -> None:
        """Be the one that has the path: CommandError when another server does, OSError when the folder does
        not let us. Who comes waits until `start`.
        """
        self._listener = bind(self.path)

    async def start(self) -> None:
        """Serve who comes; what `claim` raises, unless that was done."""
        if self._listener is None:
            self.claim()
        assert self._listener is not None
        self._accepting = asyncio.create_task(self._accept(self._listener))

    async def close(self) -> None:
        """Stop listening, cut off whoever is being served, and take the socket away."""
        if self._listener is None:
            return
        tasks = [*self._serving] if self._accepting is None else [self._accepting, *self._serving]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # In this order a server that starts right now cannot lose its own socket to us.
        self.path.unlink(missing_ok=True)
        self._listener.close()
        self._listener = None

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                peer, _ = await loop.sock_accept(listener)
            except OSError as error:
                log.warning("admin-accept-failed", extra={"reason": str(error)})
                await asyncio.sleep(1)  # out of descriptors: trying again at once would only burn time
                continue
            if len(self._serving) >= CONNECTIONS or not is_trusted(peer):
                peer.close()
                continue
            task = asyncio.create_task(self._serve(peer))
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    async def _serve(self, peer: socket.socket) -> None:
        caller = Caller("socket", name_of(uid_of(peer)))
        reader, writer = await asyncio.open_unix_connection(sock=peer, limit=REQUEST_BYTES)
        try:
            async with asyncio.timeout(self.read_seconds):
                line = await reader.readline()
            if line:
                if (wanted := _followed(line)) is not None:
                    await self._follow(reader, writer, *wanted, caller)
                    return
                reply = await self._reply(line, caller)
                if isinstance(reply, Download):
                    await self._pass_on(reply, writer)
                    return
                writer.write(_line(reply))
                async with asyncio.timeout(self.read_seconds):
                    await writer.drain()
        except ValueError:  # longer than the limit
            writer.write(_line(_refusal("the request is too long", USAGE)))
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(REST_SECONDS):
                    while await reader.read(REQUEST_BYTES):
                        pass  # what is not read would take the reply with it
        except (TimeoutError, OSError):
            log.info("admin-connection-lost")
        finally:
            writer.close()

    async def _pass_on(self, file: Download, writer: asyncio.StreamWriter) -> None:
        """Write a file as it is made. What fails is in the log; the client sees that the end is missing."""
        writer.write(_line({"download": {"name": file.name}}))
        try:
            async for piece in file.pieces:
                writer.write(len(piece).to_bytes(4, "big") + piece if piece else b"")
                async with asyncio.timeout(self.read_seconds):
                    await writer.drain()
        except StoreError as error:
            log.warning("store-failed", extra={"kind": "download", "error": str(error)})
            return
        except (TimeoutError, OSError):
            raise
        except Exception:
            log.exception("download-failed", extra={"file": file.content_type})
            return
        writer.write(bytes(4))
        async with asyncio.timeout(self.read_seconds):
            await writer.drain()

    async def _follow(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        name: str,
        arguments: dict[str, Any],
        caller: Caller,
    ) -> None:
        """Send records as they come, until the client closes its side, or does not read for STUCK_SECONDS."""
        leaving = asyncio.create_task(reader.read(1))
        try:
            followed = await self.commands.follow(name, arguments, caller)
        except CommandError as error:
            leaving.cancel()
            writer.write(_line(_refusal(str(error), error.exit_code)))
            return
        try:
            while not leaving.done():
                taking = asyncio.ensure_future(followed.next())
                await asyncio.wait((taking, leaving), return_when=asyncio.FIRST_COMPLETED)
                if not taking.done():
                    taking.cancel()
                    return
                record = taking.result()
                writer.write(_line({} if record is None else {"record": record}))
                async with asyncio.timeout(STUCK_SECONDS):
                    await writer.drain()
        except StopAsyncIteration:
            writer.write(_line({"result": None}))
        except (TimeoutError, OSError):
            raise
        except Exception:
            log.exception("command-failed", extra={"command": name})
            writer.write(_line(_refusal(f"{name} failed inside the server: see its log", FAILED)))
        finally:
            leaving.cancel()
            await followed.close()

    async def _reply(self, line: bytes, caller: Caller) -> dict[str, Any] | Download:
        try:
            request = json.loads(line)
            is_check = "check" in request
            name, arguments = request["check" if is_check else "command"], request.get("arguments", {})
            if not isinstance(name, str) or not isinstance(arguments, dict):
                raise TypeError
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return _refusal("this is not a request", USAGE)
        try:
            if is_check:
                result = None
                await self.commands.check(name, arguments)
            else:
                result = await self.commands.call(name, arguments, caller)
            if isinstance(result, Download):
                return result
            json.dumps(result)
            return {"result": result}
        except CommandError as error:
            return _refusal(str(error), error.exit_code)
        except Exception:
            log.exception("command-failed", extra={"command": name})
            return _refusal(f"{name} failed inside the server: see its log", FAILED)


def _followed(line: bytes) -> tuple[str, dict[str, Any]] | None:
    """What a request wants to follow, None if it is none of these."""
    try:
        request = json.loads(line)
        name, arguments = request["follow"], request.get("arguments", {})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return (name, arguments) if isinstance(name, str) and isinstance(arguments, dict) else None


def _line(reply: dict[str, Any]) -> bytes:
    return json.dumps(reply).encode() + b"\n"


def _refusal(message: str, exit_code: int) -> dict[str, Any]:
    return {"error": {"message": message, "exit_code": exit_code}}


def is_trusted(peer: socket.socket) -> bool:
    """Whether the process at the other end belongs to our user or to root."""
    return uid_of(peer) in (0, os.geteuid())


def uid_of(peer: socket.socket) -> int:
    """The user whose process is at the other end."""
    credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return int(uid)


def name_of(uid: int) -> str:
    """A user's name, or number."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def bind(path: Path) -> socket.socket:
    """A listening socket at `path` that was never open to others; a dead server's one is replaced.

    CommandError when a server answers there, or when something else has that name.
    """
    with _only_one(path), contextlib.ExitStack() as undo:
        _remove_stale(path)
        listener = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        os.fchmod(listener.fileno(), MODE)  # before bind: on Linux the file is then made with this mode
        with address_of(path) as address:
            listener.bind(address)
        listener.listen(CONNECTIONS)
        listener.setblocking(False)
        undo.pop_all()
        return listener


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Keeps two servers that start at once from removing each other's socket as stale."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _remove_stale(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise CommandError(f"{path} is in the way: it is not a socket")
    except FileNotFoundError:
        return
    try:
        connect(path, 1.0).close()
    except NoServer:
        path.unlink(missing_ok=True)
    else:
        raise CommandError(f"another server is running here (it answers at {path})")
