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

    def try_take(self) -> bool:
        """Take a slot if nobody has to wait for one."""
        if self.used >= self._count or self._waiters:
            return False
        self.used += 1
        return True

    async def take(self, seconds: float) -> None:
        """Wait for a slot; StoreUnavailable after `seconds`, or at once when too many wait already."""
        if self.try_take():
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


class Turnstile:
    """At most `size` passes are out at a time; who waits longer than `patience` seconds is turned away."""

    def __init__(self, size: int, patience: float) -> None:
        self._free = size
        self._patience = patience
        self._promised = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take(self) -> bool:
        """Take a pass if nobody has to wait for one, or who waited for it is who asks now."""
        if self._promised:
            self._promised -= 1
            return True
        if self._free == 0 or self._waiting:
            return False
        self._free -= 1
        return True

    async def room(self) -> None:
        """Wait until there is a pass for who asks, by `take`, before anything else is done.
        StoreUnavailable: too late, or closed.
        """
        if self._free == 0 or self._waiting:
            await self.wait()
        else:
            self._free -= 1
        self._promised += 1
        asyncio.get_running_loop().call_soon(self._break_promise)

    def _break_promise(self) -> None:
        if self._promised:  # it was not wanted after all
            self._promised -= 1
            self.give_back(1)

    async def wait(self) -> None:
        """Take a pass when it is our turn. StoreUnavailable: too late, or closed."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await given(turn, self._patience)
        except BaseException as error:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.give_back(1)  # the pass came together with the cancellation
            turn.cancel()
            if isinstance(error, TimeoutError):
                raise StoreUnavailable("too many writes are waiting") from None
            raise

    def give_back(self, count: int) -> None:
        """Return passes; those who wait get them in order."""
        while count and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                count -= 1
        self._free += count

    def close(self) -> None:
        """Turn away all who wait."""
        for turn in self._waiting:
            if not turn.done():
                turn.set_exception(StoreUnavailable("the store was closed"))
        self._waiting.clear()


class Turns:
    """One at a time for each key, first come first served."""

    def __init__(self) -> None:
        self._waiters: dict[Any, deque[asyncio.Future[None]]] = {}

    def try_take(self, key: object) -> bool:
        """Go inside if nobody is, until `give`; whether that was so."""
        if key in self._waiters:
            return False
        self._waiters[key] = deque()
        return True

    def give(self, key: object) -> None:
        """Go outside: the next one's turn."""
        self._next(key)

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


async def next_turn() -> None:
    """Let everybody else go on for one turn of the loop."""
    loop = asyncio.get_running_loop()
    turn: asyncio.Future[None] = loop.create_future()
    handle = loop.call_soon(turn.set_result, None)
    try:
        await turn
    finally:
        handle.cancel()
