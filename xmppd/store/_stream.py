"""All rows of a range, by pages that are neither long to read nor large."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from xmppd.store._turns import next_turn
from xmppd.store.table import Tuples

Ask = Callable[[int, bytes | None], Coroutine[Any, Any, Tuples]]
"""Asks for a page of so many rows, from the one that a token marks."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How much to ask for: at first `first` rows, then as many as were in `size` bytes of the page before,
    `most` at most. `ahead`: the next page while one is used.
    """

    first: int
    most: int
    size: int
    ahead: bool

    def rows(self, page: Tuples) -> int:
        """How many rows to ask for after this page."""
        size = sum([len(value) for row in page.rows for value in row if isinstance(value, bytes | str)])
        return max(1, min(self.most, self.size * len(page.rows) // max(size, 1)))


async def stream(ask: Ask, pace: Pace) -> AsyncIterator[list[tuple[Any, ...]]]:
    """The rows page by page; none of them is empty."""
    asking: Awaitable[Tuples] = ask(pace.first, None)
    try:
        while True:
            page = await asking
            if page.next is None:
                if page.rows:
                    yield page.rows
                return
            rows = pace.rows(page)
            if pace.ahead:
                asking = task = asyncio.get_running_loop().create_task(ask(rows, page.next))
                task.add_done_callback(_look)  # there may be nobody by then who asks how it ended
            if page.rows:
                yield page.rows
            if not pace.ahead:
                await next_turn()
                asking = ask(rows, page.next)
    finally:
        if isinstance(asking, asyncio.Task):
            asking.cancel()


def _look(task: asyncio.Task[Tuples]) -> None:
    if not task.cancelled():
        task.exception()
