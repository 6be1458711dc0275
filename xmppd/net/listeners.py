"""The ports of plugins: they are the server's, and stay open while plugins are loaded again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from xmppd.errors import CommandError
from xmppd.net.listener import Listener
from xmppd.parts.listeners import Claim
from xmppd.text import host_and_port

Place = tuple[str, str, int]
"""Name, address and port: where a claim with the same stands, the same sockets stay."""


class Listeners:
    """All ports that plugins claim, each under a name. Nothing is open before `open`."""

    def __init__(self, spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        self._spawn = spawn
        self._claims: dict[Place, Claim] = {}
        self._listeners: dict[Place, Listener] = {}
        self._backlog = 0
        self._reuse_port = False
        self._is_open = False

    @property
    def ports(self) -> dict[str, int]:
        """The ports in use, by name."""
        return {name: listener.port for (name, _, _), listener in self._listeners.items()}

    async def open(self, backlog: int, *, reuse_port: bool = False) -> None:
        """Listen at what is claimed, with `reuse_port` beside other processes; CommandError."""
        self._is_open, self._backlog, self._reuse_port = True, backlog, reuse_port
        claims = list(self._claims.values())
        await self.prepare(claims)
        self.claim(claims)

    async def prepare(self, claims: Iterable[Claim]) -> None:
        """Have the kernel listen at what is going to be claimed, and take nobody yet; CommandError where that
        cannot be. What is then not claimed is closed by the next `claim`.
        """
        if not self._is_open:
            return
        for claim in claims:
            place = (claim.name, claim.address, claim.port)
            if place not in self._listeners:
                listener = Listener(claim.make, self._spawn)
                await self._bind(listener, claim)
                self._listeners[place] = listener

    async def _bind(self, listener: Listener, claim: Claim) -> None:
        try:
            await listener.bind(claim.address, claim.port, self._backlog, reuse_port=self._reuse_port)
        except OSError as error:
            where = host_and_port(claim.address, claim.port)
            raise CommandError(f"{claim.name} cannot listen on {where}: {error.strerror or error}") from None

    def claim(self, claims: Iterable[Claim]) -> None:
        """From now on these are claimed, newcomers are theirs, and nothing else is open."""
        self._claims = {(claim.name, claim.address, claim.port): claim for claim in claims}
        for place in [place for place in self._listeners if place not in self._claims]:
            self._listeners.pop(place).close()
        for place, listener in self._listeners.items():
            listener.make = self._claims[place].make
            listener.begin()

    async def drain(self) -> None:
        """Close all for good, and take all that wait."""
        self._is_open = False
        listeners = [*self._listeners.values()]
        self._listeners.clear()
        await asyncio.gather(*(listener.drain() for listener in listeners))
