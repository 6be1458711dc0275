"""Processes that are killed at a write, whatever is written, and another one in their place."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from mortal import Mortal
from patience import rounds

from xmppd.errors import StoreUnavailable
from xmppd.testing import World

LIFE: ContextVar[int] = ContextVar("LIFE", default=0)
"""In whose life something was begun; 0: in none that ended."""
TURNS = 100
"""How often is looked whether it is dead before all is waited for: what it began then waits for ever."""


class Dying(Mortal):
    """The same for all tables, and for writes of prepared rows."""

    def __init__(self, world: World, node: int = 0) -> None:
        self._lives = itertools.count(1)
        self._gone: set[int] = set()
        super().__init__(world, "", node=node)
        self._world = world
        self._node = node
        store = world.apps[node].store
        self._write = store.write
        store.write = self._guarded_write  # type: ignore[method-assign]

    def _guarded(self, write: Callable[..., Any]) -> Callable[..., Any]:
        guarded = super()._guarded(write)

        async def of_the_living(*args: Any, **named: Any) -> Any:
            self._check()
            return await guarded(*args, **named)

        return of_the_living

    def _check(self) -> None:
        """Whatever a process had begun that was killed ends with it."""
        if LIFE.get() in self._gone:
            raise StoreUnavailable("gone")

    def _guarded_write(self, rows: Any, *, ttl: float | None = None) -> asyncio.Future[Any]:
        self._check()
        self.writes += 1
        if self._is_dead:
            raise StoreUnavailable("dead")
        if self.writes != self._due:
            return self._write(rows, ttl=ttl)
        self._is_dead = True
        return asyncio.ensure_future(self._last(rows, ttl))

    async def _last(self, rows: Any, ttl: float | None) -> None:
        if self._is_done:
            await self._write(rows, ttl=ttl)
        raise StoreUnavailable("killed")

    def die_at(self, write: int, *, is_done: bool) -> None:
        """See `Mortal`."""
        super().die_at(write, is_done=is_done)
        self._before = self._tasks()
        LIFE.set(next(self._lives))

    def _tasks(self) -> set[asyncio.Task[Any]]:
        return {*self._world.apps[self._node].jobs.awaited()}

    async def happen(self, doing: asyncio.Future[Any]) -> bool:
        """Wait until it was killed, or it is done and all is quiet; whether it was."""
        async for _ in rounds(0.002):
            if self._is_dead or doing.done():
                break
        for _ in range(TURNS):
            if self._is_dead:
                return True
            await asyncio.sleep(0.002)
        await self._world.settle()
        return self._is_dead

    async def reborn(self, plugin: str) -> None:
        """Another process: the plugin remembers nothing, and what it had begun comes to nothing."""
        app = self._world.apps[self._node]
        old = self._world.plugin(plugin, self._node)
        old.stop = _nothing
        self._gone.add(LIFE.get())
        LIFE.set(0)
        for task in self._tasks() - self._before:
            task.cancel()
        await app.loader.reload(plugin, app.config)
        if old._client is not None:
            await old._client.close()
        self.revive()
        await self._world.settle()


async def _nothing() -> None:
    """Who is killed puts nothing in order."""
