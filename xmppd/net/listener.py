"""Accepting connections, also when descriptors run out, and when too many want to log in at once.

Not left to the event loops: with no descriptor free asyncio logs a line for each place in the backlog, again
and again, and uvloop drops connections without a word, or stops listening for good.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import logging
import os
import resource
import socket
import struct
import sys
from collections.abc import Callable, Coroutine
from functools import lru_cache, partial
from typing import Any

log = logging.getLogger(__name__)

ACCEPTS = 4
"""Connections taken in one turn of the loop."""

MOST_WAITING = 2048
"""Connections that are taken at once at the end; that is done in some milliseconds."""

PAUSE_SECONDS = 1.0
"""How long newcomers are left to the kernel when no descriptor is free."""

HANDSHAKE_SECONDS = 0.3
"""How long whoever has begun to connect has for that, when no more begin."""

CROWDED_SECONDS = 0.02
"""The same when there is no room for one more login."""

SO_ATTACH_FILTER = 26
NO_SYN = ((0x30, 0, 0, 13), (0x45, 0, 1, 0x02), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF))
"""Classic BPF for what comes to a listening socket, from the TCP header on: load its flags, drop what has
SYN, and pass on all else.
"""

RESERVE = 24
"""Descriptors, at most a quarter of them, that clients leave to the store, to commands and to a reload."""


class Listener:
    """Takes connections at one address, the protocol of each made by `make`, until closed. `make` may be
    replaced at any time.

    `spawn` runs a coroutine in the background. `has_room` says whether one more than so many that are on
    their way may be taken; while it does not, newcomers wait in the kernel.
    """

    def __init__(
        self,
        make: Callable[[], asyncio.BaseProtocol],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        has_room: Callable[[int], bool] = lambda coming: True,
    ) -> None:
        self.make = make
        self._spawn = spawn
        self._has_room = has_room
        self._coming = 0
        self._sockets: list[socket.socket] = []
        self._paused: dict[socket.socket, asyncio.TimerHandle] = {}
        self.is_short = False
        """Whether no descriptors were left when somebody came last."""

    @property
    def port(self) -> int:
        """The port in use."""
        port: int = self._sockets[0].getsockname()[1]
        return port

    async def open(self, address: str, port: int, backlog: int, *, reuse_port: bool = False) -> None:
        """Listen at all that the address stands for, with `reuse_port` beside other processes; OSError, and
        then nothing is open.
        """
        await self.bind(address, port, backlog, reuse_port=reuse_port)
        self.begin()

    async def bind(self, address: str, port: int, backlog: int, *, reuse_port: bool = False) -> None:
        """The first half: newcomers are left to the kernel until `begin`."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, *_, place in dict.fromkeys(found):
                self._sockets.append(bound(family, place, backlog, reuse_port=reuse_port))
        except OSError:
            self.close()
            raise

    def adopt(self, listening: socket.socket) -> None:
        """The first half with a socket that listens already, and does not block."""
        self._sockets.append(listening)

    def begin(self) -> None:
        """Take connections from now on; harmless if repeated."""
        loop = asyncio.get_running_loop()
        for listening in self._sockets:
            if listening not in self._paused:
                loop.add_reader(listening, self._accept, listening)

    @property
    def coming(self) -> int:
        """How many were taken and have no protocol yet."""
        return self._coming

    async def drain(self) -> None:
        """Stop listening, and take all that wait: the kernel would reset them. Where other processes listen
        at the same port nobody can begin to connect meanwhile; who tries comes to one of them a second later.
        """
        if sum(refuse_newcomers(listening) for listening in self._sockets):
            await asyncio.sleep(HANDSHAKE_SECONDS)
        loop = asyncio.get_running_loop()
        for listening in [*self._sockets]:
            with contextlib.suppress(OSError):
                limit = descriptor_limit()
                for _ in range(MOST_WAITING):
                    if not self._take(listening, limit, loop):
                        break
            self._close(listening)

    def close(self) -> None:
        """Stop listening; connections that nobody took are reset by the kernel."""
        for listening in [*self._sockets]:
            self._close(listening)

    def _close(self, listening: socket.socket) -> None:
        if (timer := self._paused.pop(listening, None)) is not None:
            timer.cancel()
        asyncio.get_running_loop().remove_reader(listening)
        listening.close()
        self._sockets.remove(listening)

    def _accept(self, listening: socket.socket) -> None:
        limit, loop = descriptor_limit(), asyncio.get_running_loop()
        for _ in range(ACCEPTS):
            if not self._has_room(self._coming):
                self._wait(listening, CROWDED_SECONDS)
                return
            try:
                if not self._take(listening, limit, loop):
                    return
            except OSError as error:
                self._pause(listening, error)
                return
            if self.is_short:
                self.is_short = False
                log.info("accepting-again")

    def _take(self, listening: socket.socket, limit: int, loop: asyncio.AbstractEventLoop) -> bool:
        """Take one that waits, if any does; OSError when none of so many descriptors is free."""
        try:
            descriptor, _address = listening._accept()  # type: ignore[attr-defined]
        except (BlockingIOError, InterruptedError):
            return False
        except ConnectionError:
            return True  # it went before it was taken
        # The lowest free number is given: a high one means that only the reserve is left.
        if descriptor >= limit - min(RESERVE, limit // 4):
            os.close(descriptor)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self._coming += 1
        peer: Any = taken(descriptor, listening, loop)
        self._welcome(peer, loop.connect_accepted_socket(self.make, peer))
        return True

    def _welcome(
        self,
        peer: socket.socket | Taken,
        work: Coroutine[Any, Any, Any],
        awaited: asyncio.Future[Any] | None = None,
    ) -> None:
        """Go on with giving a connection its protocol. Of the loop's own work it is known that it needs no
        task, which would cost as much as the rest of it.
        """
        try:
            awaited = work.send(None)
        except StopIteration:
            self._coming -= 1
        except OSError:
            self._give_up(peer, is_first=awaited is None)
        except BaseException as error:  # noqa: BLE001 - a plugin's `make` may raise anything
            self._give_up(peer, is_first=awaited is None)
            self._spawn(failed(error))
        else:
            awaited.add_done_callback(partial(self._welcome, peer, work))

    def _give_up(self, peer: socket.socket | Taken, *, is_first: bool) -> None:
        """There is no protocol for it. Behind the first step of its work what is `Taken` is the loop's."""
        self._coming -= 1
        if not isinstance(peer, Taken):
            peer.close()
        elif is_first:
            os.close(peer.descriptor)

    def _pause(self, listening: socket.socket, error: OSError) -> None:
        """Leave newcomers to the kernel for a moment; trying again at once would only burn time."""
        if not self.is_short:
            self.is_short = True
            log.error("accepting-paused", extra={"reason": error.strerror, "descriptors": descriptor_limit()})
        self._wait(listening, PAUSE_SECONDS)

    def _wait(self, listening: socket.socket, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(listening)
        self._paused[listening] = loop.call_later(seconds, self._go_on, listening)

    def _go_on(self, listening: socket.socket) -> None:
        del self._paused[listening]
        asyncio.get_running_loop().add_reader(listening, self._accept, listening)


def refuse_newcomers(listening: socket.socket) -> bool:
    """Have the kernel drop each first packet (SYN) to a socket that shares its port; whether it does. A
    client repeats the packet, and once this socket is closed the kernel finds that of another process for it.
    """
    if sys.platform != "linux" or not listening.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
        return False
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in NO_SYN))
    with contextlib.suppress(OSError):
        filtering = struct.pack("HL", len(NO_SYN), ctypes.addressof(program))
        listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filtering)
        return True
    return False


async def failed(error: BaseException) -> None:
    """A job that failed."""
    raise error


class Plain(socket.socket):
    """A socket whose family and type are numbers: to make an enum of them takes as long as to accept it, and
    loops ask five times.
    """

    __slots__ = ()
    family = socket.SocketType.family  # type: ignore[assignment]
    type = socket.SocketType.type  # type: ignore[assignment]


class Taken:
    """The descriptor of a connection as uvloop asks a socket for it: once, and at once. That makes it
    non-blocking, and closes it when the connection ends. So one is enough for all of a kind; a socket of
    Python's for each took two system calls to make, and memory for as long as it lasted.
    """

    __slots__ = ("descriptor", "family")
    type = socket.SOCK_STREAM

    def __init__(self, family: int) -> None:
        self.family = family
        self.descriptor = -1

    def fileno(self) -> int:
        """The descriptor of the moment."""
        return self.descriptor

    def close(self) -> None:
        """It is closed already."""


def taken(
    descriptor: int, listening: socket.socket, loop: asyncio.AbstractEventLoop
) -> socket.socket | Taken:
    """What a loop is given of a connection that was accepted."""
    if isinstance(loop, asyncio.BaseEventLoop):  # they work with the socket itself
        peer = Plain(listening.family, listening.type, listening.proto, fileno=descriptor)
        peer.setblocking(False)
        return peer
    one = taken_of(listening.family)
    one.descriptor = descriptor
    return one


@lru_cache(maxsize=8)
def taken_of(family: int) -> Taken:
    """The one for connections of an address family."""
    return Taken(family)


def descriptor_limit() -> int:
    """How many descriptors this process may have."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def bound(family: int, place: Any, backlog: int, *, reuse_port: bool = False) -> socket.socket:
    """A listening socket that does not block; OSError."""
    # Accepted sockets inherit the protocol's number, by which asyncio knows whom to give TCP_NODELAY.
    listening = Plain(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setblocking(False)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # "::" beside 0.0.0.0
        listening.bind(place)
        listening.listen(backlog)
    except OSError:
        listening.close()
        raise
    return listening
