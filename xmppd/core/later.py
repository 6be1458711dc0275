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


class Told(Later):
    """One whose end somebody tells: it has no `rest`, and no future unless it is awaited. `error` is why it
    failed; what `refuse` is set to takes that in the place of who awaits this.
    """

    __slots__ = ("_future", "_line", "error", "is_over", "outcome", "refuse")

    def __init__(self, size: int = 0) -> None:
        self.size = size
        self.is_over = False
        self.outcome: Any = None
        self.error: Exception | None = None
        self.refuse: Callable[[Exception], None] | None = None
        self._line: Line | None = None
        self._future: asyncio.Future[None] | None = None

    def ended(self, outcome: Any) -> None:
        """This became of it."""
        self.outcome = outcome
        self.is_over = True
        if self._line is not None or self._future is not None:
            self._tell()

    def failed(self, error: Exception) -> None:
        """It is refused."""
        self.error = error
        self.is_over = True
        self._tell()

    def watched(self, line: Line) -> None:
        """It is the first of this line, which goes on when it is over."""
        self._line = line

    def _tell(self) -> None:
        future, line = self._future, self._line
        self._future = self._line = None
        if future is not None and not future.done():
            future.set_result(None)
        if line is not None:
            line.go_on()

    def __await__(self) -> Generator[Any, Any, Any]:
        if not self.is_over:
            self._future = asyncio.get_running_loop().create_future()
            yield from self._future.__await__()
        if self.error is None:
            return self.outcome
        if self.refuse is None:
            raise self.error
        self.refuse(self.error)
        return None


class Line:
    """What is under way of one sender, in the order in which it came: each is finished after those before
    it. `spawn` begins a task where one has to be awaited; `settle` awaits the end of one and raises nothing.
    """

    __slots__ = ("_settle", "_size", "_spawn", "_under_way", "_waiter")

    def __init__(
        self,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        settle: Callable[[Awaitable[None]], Awaitable[None]],
    ) -> None:
        self._spawn = spawn
        self._settle = settle
        self._under_way: deque[Later] = deque()
        self._size = 0
        self._waiter: tuple[int, asyncio.Future[None]] | None = None

    def add(self, later: Later) -> asyncio.Future[None] | None:
        """Take one more; what to wait for before the next stanza is read, if it is one too many."""
        self._under_way.append(later)
        self._size += later.size
        count = len(self._under_way)
        if count == 1:
            self.go_on()
        return self.until(MANY - 1) if count >= MANY or self._size > BYTES else None

    def until(self, left: int) -> asyncio.Future[None] | None:
        """What is done when no more than so many are under way, and not too large; None if it is so now."""
        if len(self._under_way) <= left and self._size <= BYTES:
            return None
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiter = left, future
        return future

    def go_on(self) -> None:
        """Finish the first ones, as far as they are over: for who is told of that."""
        if self._finish():
            self._spawn(self._run())

    def _finish(self) -> bool:
        """Whether the first that is left has to be awaited."""
        under_way = self._under_way
        must_wait = False
        while under_way:
            first = under_way[0]
            if not isinstance(first, Told) or first.error is not None:
                must_wait = True
                break
            if not first.is_over:
                first.watched(self)
                break
            self._size -= first.size
            under_way.popleft()
        if self._waiter is not None:
            self._look(*self._waiter)
        return must_wait

    async def _run(self) -> None:
        must_wait = True
        while must_wait:
            await self._settle(self._under_way[0])
            self._size -= self._under_way.popleft().size
            must_wait = self._finish()

    def _look(self, left: int, future: asyncio.Future[None]) -> None:
        if len(self._under_way) <= left and self._size <= BYTES:
            self._waiter = None
            if not future.done():
                future.set_result(None)


async def settled(waiting: Awaitable[Any]) -> Any:
    """What had to wait for something before its effects were in order is awaited as a whole."""
    later = await waiting
    return await later if isinstance(later, Later) else later
