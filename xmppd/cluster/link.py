"""Connections between nodes over TCP and Unix sockets, and dialing: the one place here that knows an event
loop.

An address is `host:port`, `[IPv6 address]:port` or `unix:/path`. Nothing here waits before it reads on: what
comes is handed over at once, so that two nodes cannot block each other. Who writes looks at what is unsent.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, cast

from xmppd.cluster.connection import CLOSED, KNOCKED, Carrier, Connection, Links, Neighbours
from xmppd.cluster.hello import GREETING_SECONDS, Hello

log = logging.getLogger(__name__)

UNIX: Final = "unix:"
"""What the address of a Unix socket begins with."""

UNIX_PATH: Final = 107
"""Bytes that the path of one may have."""

CONNECT_SECONDS: Final = 2.0
"""How long one address may take to answer."""

REDIAL_SECONDS: Final = 0.2
"""How long after one try began the next one may."""

LINGER_SECONDS: Final = 1.0
"""How long a connection that is over may take for what was written."""

READ_BYTES: Final = 32_768
TURN_BYTES: Final = 32_768
"""What is read at once, and until the loop has another turn."""

UNREACHABLE: Final = "unreachable"
REFUSED: Final = "connection-refused"
"""Why a node could not be connected to, beside the reasons of a greeting."""

Make = Callable[[Carrier], Connection]
"""Makes the connection that a carrier is for."""

Connect = Callable[[str, Make], Awaitable[Connection]]
"""Connects to an address; OSError, TimeoutError."""


class SocketCarrier(asyncio.BufferedProtocol):
    """The bytes of one connection over a socket; `make` is told when there are two ends.

    After `TURN_BYTES` the loop has another turn before more is read: a node that has just met another one is
    told of all its sessions, as fast as the net is.
    """

    def __init__(self, make: Make) -> None:
        self.connection: Connection
        self._make = make
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None
        self._peer = ""
        self._buffer = bytearray(READ_BYTES)
        self._room = memoryview(self._buffer)
        self._taken = 0

    # the carrier

    @property
    def peer(self) -> str:
        """The address of the other end, without its port; "" for Unix sockets."""
        return self._peer

    @property
    def unsent(self) -> int:
        """What the kernel has not taken yet."""
        return self._transport.get_write_buffer_size()

    def write(self, pieces: Sequence[bytes]) -> None:
        """Hand all over in one call."""
        self._transport.writelines(pieces)

    def close(self) -> None:
        """End when all is sent, or it took too long."""
        self._cancel()
        if not self._transport.is_closing():
            self._transport.close()
            self._timer = asyncio.get_running_loop().call_later(LINGER_SECONDS, self._transport.abort)

    # the protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is of no such class
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self._peer = str(peer[0])
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = self._make(self)
        self._timer = asyncio.get_running_loop().call_later(GREETING_SECONDS, self.connection.overdue)
        self.connection.begin()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        self.connection.received(bytes(self._room[:nbytes]))
        self._taken += nbytes
        if self._taken >= TURN_BYTES:
            self._taken = 0
            if not self._transport.is_closing():
                self._transport.pause_reading()
                asyncio.get_running_loop().call_soon(self._read_on)

    def _read_on(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._cancel()
        self.connection.ended(CLOSED if error is None else str(error))

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def connect(address: str, make: Make) -> Connection:
    """Connect to an address; OSError, or TimeoutError after `CONNECT_SECONDS`."""
    loop = asyncio.get_running_loop()
    errors: list[OSError] = []
    async with asyncio.timeout(CONNECT_SECONDS):
        if address.startswith(UNIX):
            path = address.removeprefix(UNIX)
            if len(path.encode()) > UNIX_PATH:  # libuv would cut it off
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), path)
            _, carrier = await loop.create_unix_connection(lambda: SocketCarrier(make), path)
            return carrier.connection
        host, _, port = address.rpartition(":")
        bare = host.removeprefix("[").removesuffix("]")
        found = await loop.getaddrinfo(bare, int(port), type=socket.SOCK_STREAM)
        for place in dict.fromkeys(place for *_, place in found):
            try:
                _, carrier = await loop.create_connection(lambda: SocketCarrier(make), *place[:2])
            except OSError as error:
                errors.append(error)
            else:
                return carrier.connection
    # A host that has one address out of reach, and refuses at another, is there.
    raise min(errors, key=lambda error: not isinstance(error, ConnectionRefusedError))


class Dialer:
    """Connects to all nodes that are wanted: at once, and then every `REDIAL_SECONDS`, until there is a
    connection.

    Who has the smaller name dials. The other one knocks just as often: so it learns that nobody is there
    any more, or is known to who has to dial. `clock` and `sleep` count seconds.
    """

    def __init__(
        self,
        own: str,
        links: Links,
        neighbours: Neighbours,
        clock: Callable[[], float],
        *,
        connect: Connect = connect,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._own = own
        self._links = links
        self._neighbours = neighbours
        self._clock = clock
        self._connect = connect
        self._sleep = sleep
        self._addresses: dict[str, tuple[str, ...]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def want(self, name: str, addresses: Sequence[str]) -> None:
        """Have a connection with this node from now on, again when it ended; or at other addresses
        than before.
        """
        self._addresses[name] = tuple(addresses)
        if name not in self._tasks:
            self._tasks[name] = asyncio.get_running_loop().create_task(self._keep(name))

    def forget(self, name: str) -> None:
        """No more tries. A connection that is there stays."""
        self._addresses.pop(name, None)
        if (task := self._tasks.pop(name, None)) is not None:
            task.cancel()

    async def close(self) -> None:
        """Stop all tries."""
        tasks = list(self._tasks.values())
        for name in list(self._tasks):
            self.forget(name)
        await asyncio.gather(*tasks, return_exceptions=True)

    async def knock(self, address: str) -> Hello | None:
        """Who is at this address and knows the secret, this node itself perhaps; None if nobody is."""
        try:
            connection = await self._talk("", address, is_knock=True)
        except OSError:
            return None
        return connection.peer

    async def _keep(self, name: str) -> None:
        told = ""
        while True:
            began = self._clock()
            if (connection := self._links.of(name)) is not None:
                told = ""
                await _end(connection)
            elif (problem := await self._try(name)) != told:
                told = problem
                if problem:
                    log.warning("node-unreachable", extra={"node": name, "reason": problem})
            if (rest := began + REDIAL_SECONDS - self._clock()) > 0:
                await self._sleep(rest)

    async def _try(self, name: str) -> str:
        """Try each address until one is that of the node; why there was no connection, "" if there
        was one.
        """
        reason, is_refused = UNREACHABLE, True
        for address in self._addresses[name]:
            try:
                connection = await self._talk(name, address, is_knock=name < self._own)
            except (ConnectionRefusedError, FileNotFoundError):
                reason = REFUSED
            except OSError as error:
                if isinstance(error, PermissionError) and address.startswith(UNIX):
                    continue  # it is that of another user on this machine
                reason, is_refused = UNREACHABLE, False
            else:
                if connection.greeting is not None or connection.reason == KNOCKED:
                    return ""
                reason, is_refused = connection.reason, False
        self._neighbours.failed(name, reason, is_refused=is_refused)
        return reason

    async def _talk(self, name: str, address: str, *, is_knock: bool) -> Connection:
        """One connection from its first byte to its end; OSError when there is none."""

        def make(carrier: Carrier) -> Connection:
            return self._links.dialed(carrier, name, is_knock=is_knock)

        connection = await self._connect(address, make)
        try:
            await _end(connection)
        finally:
            if connection.greeting is None:
                connection.close()
        return connection


async def _end(connection: Connection) -> None:
    """Wait until it is over."""
    over = asyncio.get_running_loop().create_future()
    connection.when_over(lambda: None if over.done() else over.set_result(None))
    await over
