"""Stanzas whose effects are ordered and whose end is still awaited: their sender is read on meanwhile."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

MANY = 32
"""How many stanzas of one sender may be under way until he has to wait."""

BYTES = 65_536
"""How many bytes of them."""


class Later:
    """What a handler or filter returns when the order of its effects is settled, and only their end has to be
    awaited: a write that was accepted and is not on disk yet. The sender's next stanza is processed at once;
    what counts as handled, and an error, wait. Whoever knows nothing of that awaits it like anything else,
    and is given what `rest` gives.

    `rest` was begun (`begun`), or needs nobody to begin it; `size` is that of the stanza.
    """

    __slots__ = ("rest", "size")

    def __init__(self, rest: Awaitable[Any], size: int = 0) -> None:
        self.rest = rest
        self.size = size

    def __await__(self) -> Generator[Any, Any, Any]:
        return self.rest.__await__()


class Line:
    """What is under way of one sender, in the order in which it came: each is finished after those before
    it, by one task for all.
    """

    __slots__ = ("_size", "_under_way", "_waiter")

    def __init__(self) -> None:
        self._under_way: deque[Later] = deque()
        self._size = 0
        self._waiter: tuple[int, asyncio.Future[None]] | None = None

    def add(
        self,
        later: Later,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        settle: Callable[[Awaitable[None]], Awaitable[None]],
    ) -> asyncio.Future[None] | None:
        """Take one more; what to wait for before the next stanza is read, if it is one too many. `settle`
        awaits the end of one and raises nothing.
        """
        self._under_way.append(later)
        self._size += later.size
        if len(self._under_way) == 1:
            spawn(self._run(settle))
        return self.until(MANY - 1) if len(self._under_way) >= MANY or self._size > BYTES else None

    def until(self, left: int) -> asyncio.Future[None] | None:
        """What is done when no more than so many are under way, and not too large; None if it is so now."""
        if len(self._under_way) <= left and self._size <= BYTES:
            return None
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiter = left, future
        return future

    async def _run(self, settle: Callable[[Awaitable[None]], Awaitable[None]]) -> None:
        while self._under_way:
            await settle(self._under_way[0])
            self._size -= self._under_way.popleft().size
            if self._waiter is not None:
                self._look(*self._waiter)

    def _look(self, left: int, future: asyncio.Future[None]) -> None:
        if len(self._under_way) <= left and self._size <= BYTES:
            self._waiter = None
            if not future.done():
                future.set_result(None)


async def settled(waiting: Awaitable[Any]) -> Any:
    """What had to wait for something before its effects were in order is awaited as a whole."""
    later = await waiting
    return await later if later.__class__ is Later else later
