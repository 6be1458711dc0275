"""What carries trunks in a server process: sockets that it opens itself, or the bus of all nodes."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, Protocol

from xmppd.admin.socket import bind
from xmppd.cluster.connection import Links
from xmppd.cluster.lines import BUS, Bus, Lines
from xmppd.cluster.link import UNIX, UNIX_PATH, Connect, SocketCarrier, connect
from xmppd.errors import CommandError
from xmppd.net.listener import Listener
from xmppd.settings import address_of
from xmppd.steady import steady
from xmppd.text import host_and_port

TRUNK: Final = "trunk-"
"""What the name of a Unix socket for other nodes begins with."""

Spawn = Callable[[Coroutine[Any, Any, None]], object]


class Way(Protocol):
    """How other nodes are reached and reach this one. `addresses`: where it is reached, `connect`: how others
    are.
    """

    @property
    def addresses(self) -> tuple[str, ...]: ...

    @property
    def connect(self) -> Connect: ...

    async def open(self) -> None:
        """Let others come; CommandError."""

    def tick(self) -> None:
        """Called every 0.5 s."""

    def shut(self) -> None:
        """Nobody else comes; who is connected stays."""

    async def close(self) -> None:
        """All is said, and nobody is connected any more."""


class Direct:
    """Others connect to a port of this node, `name`. With a `folder` those of this machine may use a Unix
    socket there, whose name is that of no other node's on any machine: so elsewhere nobody is found by it.
    """

    connect = staticmethod(connect)

    def __init__(
        self, name: str, listen: str, backlog: int, links: Links, spawn: Spawn, folder: Path | None = None
    ) -> None:
        self.addresses: tuple[str, ...] = (name,)
        self._listen = address_of(listen, 0)
        self._backlog = backlog
        self._listener = Listener(lambda: SocketCarrier(links.accepted), spawn)
        self._folder = folder
        self._path: Path | None = None
        if folder is not None:
            path = folder.absolute() / f"{TRUNK}{secrets.token_hex(8)}.sock"
            if len(os.fsencode(path)) <= UNIX_PATH:
                self._path = path
                self.addresses = (f"{UNIX}{path}", name)

    async def open(self) -> None:
        """Listen."""
        host, port = self._listen
        try:
            await self._listener.bind(host, port, self._backlog)
        except OSError as error:
            where, why = host_and_port(host, port), error.strerror or error
            raise CommandError(f"cannot listen on {where} for other nodes: {why}") from None
        if self._folder is not None:
            for left in self._folder.glob(f"{TRUNK}*.sock"):  # by a process that was killed
                left.unlink(missing_ok=True)
        if self._path is not None:
            self._listener.adopt(bind(self._path))
        self._listener.begin()

    def tick(self) -> None:
        """Nothing is to be done."""

    def shut(self) -> None:
        """Listen no more."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        self._listener.close()

    async def close(self) -> None:
        """Connections have a moment for what was written; nothing is to be done."""


class OnBus:
    """All that nodes say to each other goes over one bus. `life` is the incarnation of this node."""

    def __init__(self, name: str, life: int, bus: Bus, links: Links) -> None:
        self.addresses = (BUS + name,)
        self._name = name
        self._bus = bus
        call_later = asyncio.get_running_loop().call_later
        self._lines = Lines(name, life, bus.publish, links.accepted, call_later, steady)
        self.connect = self._lines.connect

    async def open(self) -> None:
        """Hear what is said to this node; where the bus is away that begins later."""
        await self._bus.open(self._name, self._lines.received, self._lines.turned)

    def tick(self) -> None:
        """Ask for what was lost."""
        self._lines.mark()

    def shut(self) -> None:
        """Take no more lines."""
        self._lines.is_taking = False

    async def close(self) -> None:
        """Say the last words."""
        await self._bus.close()
