"""Work done side by side, a few pieces at a time; what follows on each is done in the order they began in."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any

Then = Callable[[], Awaitable[None]]


class Pipeline:
    """At most `size` pieces of work at a time. The first error comes out of `add` or `finish`.

    To be used as `async with`: whoever leaves early leaves no work behind.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._under_way: deque[tuple[asyncio.Task[None], Then | None]] = deque()

    async def __aenter__(self) -> Pipeline:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [task for task, _ in self._under_way]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def add(self, work: Coroutine[Any, Any, None], then: Then | None = None) -> None:
        """Begin some work, as soon as there is room; `then` is called when it and all before it are done."""
        self._under_way.append((asyncio.create_task(work), then))
        if len(self._under_way) >= self._size:
            await self._oldest()

    async def finish(self) -> None:
        """Wait for all that was begun."""
        while self._under_way:
            await self._oldest()

    async def _oldest(self) -> None:
        task, then = self._under_way[0]
        await task
        self._under_way.popleft()
        if then is not None:
            await then()
