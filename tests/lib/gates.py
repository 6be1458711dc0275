"""Nodes that are held up at one of the things that they ask of their store."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from mortal import READS, WRITES
from patience import rounds

from xmppd.testing import World

ON_CASSANDRA = os.environ.get("XMPPD_TEST_STORE") == "cassandra"
EACH = 4 if ON_CASSANDRA else 1
"""Of so many calls one is held up: all engines are asked for the same, and this one is slow."""
TURNS = 60


class Gate:
    """Holds up a node's `number`th call of the store, from when it is shut, until it is opened: its calls
    about one table, or all.
    """

    def __init__(self, world: World, node: int, table: str = "") -> None:
        self.is_reached = False
        self._table = table
        self._left: int | None = None
        self._open = asyncio.Event()
        store = world.apps[node].store
        for name in (*READS, *WRITES):
            setattr(store, name, self._guarded(getattr(store, name)))

    def shut(self, number: int) -> None:
        """Hold up that one of those that come now, the first is 0."""
        self._left, self.is_reached = number, False
        self._open.clear()

    def let(self) -> None:
        """Hold nothing up that comes now; what is held up is until `open`."""
        self._left = None

    def open(self) -> None:
        """Let all go."""
        self.let()
        self._open.set()

    def _guarded(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def guarded(table: Any, *args: Any, **named: Any) -> Any:
            if self._left is not None and self._table in ("", table.name):
                self._left -= 1
                if self._left < 0:
                    self._left, self.is_reached = None, True
                    await self._open.wait()
            return await call(table, *args, **named)

        return guarded


async def go_on(world: World) -> None:
    """As far as anything moves while something is held up."""
    for _ in range(TURNS):
        await asyncio.sleep(0)
        for client in world.clients:
            client.pump()
        if len(world.apps) > 1:
            await world.tell_each_other()


async def reached(world: World, gate: Gate, is_over: Callable[[], bool]) -> None:
    """Until something is held up, or all is over."""
    async for _ in rounds():
        await go_on(world)
        if gate.is_reached or is_over():
            break


async def renamed(world: World, gate: Gate, old: str, new: str) -> None:
    """Give an account another address while something is held up, or until something is; as far as that goes,
    then the gate is opened.
    """
    call = world.app.commands.call("account rename", {"old": old, "new": new})
    renaming = asyncio.ensure_future(call)
    await reached(world, gate, renaming.done)
    await go_on(world)
    gate.open()
    async for _ in rounds(0):
        await world.settle()
        if renaming.done():
            break
    await renaming
    await world.settle()
