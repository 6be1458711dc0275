"""Who may go on, when only some may at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from xmppd.errors import StoreUnavailable

T = TypeVar("T")


class Slots:
    """At most `count` requests under way and `waiting` that wait for one to end, first come first served."""

    def __init__(self, count: int, waiting: int) -> None:
        self.used = 0
        self._count = count
        self._bound = waiting
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiters)

    async def take(self, seconds: float) -> None:
        """Wait for a slot; StoreUnavailable after `seconds`, or at once when too many wait already."""
        if self.used < self._count and not self._waiters:
            self.used += 1
            return
        if len(self._waiters) >= self._bound:
            raise StoreUnavailable("too many requests wait for the store")
        turn = asyncio.get_running_loop().create_future()
        self._waiters.append(turn)
        try:
            await given(turn, seconds)
        except BaseException as error:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.give()  # the slot came too late
            else:
                with contextlib.suppress(ValueError):
                    self._waiters.remove(turn)
            if isinstance(error, TimeoutError):
                raise StoreUnavailable("the store is busy: a request waited too long") from None
            raise

    def give(self) -> None:
        """Give a slot back."""
        self.used -= 1
        while self._waiters and self.used < self._count:
            turn = self._waiters.popleft()
            if not turn.done():
                self.used += 1
                turn.set_result(None)


class Turns:
    """One at a time for each key, first come first served."""

    def __init__(self) -> None:
        self._waiters: dict[Any, deque[asyncio.Future[None]]] = {}

    @contextlib.asynccontextmanager
    async def turn(self, key: object, seconds: float) -> AsyncIterator[None]:
        """Wait until nobody else is inside with this key; StoreUnavailable after `seconds`."""
        waiters = self._waiters.get(key)
        if waiters is None:
            self._waiters[key] = deque()
        else:
            await self._wait(key, waiters, seconds)
        try:
            yield
        finally:
            self._next(key)

    async def _wait(self, key: object, waiters: deque[asyncio.Future[None]], seconds: float) -> None:
        turn = asyncio.get_running_loop().create_future()
        waiters.append(turn)
        try:
            await given(turn, seconds)
        except BaseException as error:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self._next(key)  # the turn came too late
            else:
                with contextlib.suppress(ValueError):
                    waiters.remove(turn)
            if isinstance(error, TimeoutError):
                raise StoreUnavailable("the store is busy: a write waited too long for its turn") from None
            raise

    def _next(self, key: object) -> None:
        waiters = self._waiters[key]
        while waiters:
            turn = waiters.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        del self._waiters[key]


async def given(turn: asyncio.Future[None], seconds: float) -> None:
    """Wait for a turn; TimeoutError after `seconds`.

    Not by `asyncio.timeout`, which wants to be in a task: whoever waits may have begun outside of one
    (`begun`).
    """
    timer = turn.get_loop().call_later(max(seconds, 0.0), _expire, turn)
    try:
        await turn
    finally:
        timer.cancel()


def _expire(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_exception(TimeoutError())


async def within(seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """What some work returns; TimeoutError when it takes longer, and then it was cancelled. It is done in a
    task of its own, so whoever waits need not be in one.
    """
    task = asyncio.get_running_loop().create_task(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
    if not done:
        raise TimeoutError
    return task.result()
