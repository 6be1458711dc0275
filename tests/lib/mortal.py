"""Nodes that die in the midst of what they write, and nodes that dawdle over it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

from xmppd.errors import StoreUnavailable
from xmppd.testing import World

READS = ("get", "get_many", "get_static", "scan")
WRITES = ("put", "put_if", "put_many", "delete", "delete_if", "batch")


class Mortal:
    """Counts the writes of a node to tables whose names begin so, and lets it die at one of them: before it,
    or after. Whoever is dead writes nothing more until it is `revive`d.
    """

    def __init__(self, world: World, *prefixes: str, node: int = 0) -> None:
        self.writes = 0
        self._due: int | None = None
        self._is_done = False
        self._is_dead = False
        self._prefixes = prefixes
        store = world.apps[node].store
        for name in WRITES:
            setattr(store, name, self._guarded(getattr(store, name)))

    def die_at(self, write: int, *, is_done: bool) -> None:
        """Die at so many writes from now; that one is done, or not."""
        self.writes, self._due, self._is_done = 0, write, is_done

    def revive(self) -> None:
        """What comes now is another process."""
        self._due, self._is_dead = None, False

    def _guarded(self, write: Callable[..., Any]) -> Callable[..., Any]:
        async def guarded(table: Any, *args: Any, **named: Any) -> Any:
            if not table.name.startswith(self._prefixes):
                return await write(table, *args, **named)
            self.writes += 1
            if self._is_dead:
                raise StoreUnavailable("dead")
            if self.writes != self._due:
                return await write(table, *args, **named)
            self._is_dead = True
            if self._is_done:
                await write(table, *args, **named)
            raise StoreUnavailable("killed")

        return guarded


def dawdle(world: World, chance: Random, most: int = 12) -> None:
    """Have every node wait for some turns of the loop, by chance, before and after whatever it reads and
    writes: so others come between.
    """
    for app in world.apps:
        for name in (*READS, *WRITES):
            setattr(app.store, name, _slowly(getattr(app.store, name), chance, most))


def _slowly(call: Callable[..., Any], chance: Random, most: int) -> Callable[..., Any]:
    async def slow(*args: Any, **named: Any) -> Any:
        for _ in range(chance.randrange(most)):
            await asyncio.sleep(0)
        found = await call(*args, **named)
        for _ in range(chance.randrange(most)):
            await asyncio.sleep(0)
        return found

    return slow
