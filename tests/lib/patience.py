"""How long tests wait for what comes in real time: over sockets, from threads, processes and engines."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

PATIENCE = 30.0
"""Seconds. On a busy machine what happens at once may take some; what takes that long does not come."""


async def rounds(pause: float = 0.005) -> AsyncIterator[None]:
    """Turns of a loop that ends by itself when nothing comes in all that time; `pause` in seconds between
    them, for what goes on elsewhere.
    """
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        yield
        await asyncio.sleep(pause)


async def until(happened: Callable[[], bool], step: Callable[[], Awaitable[object]] | None = None) -> None:
    """Wait for something that nobody tells, with a `step` between looks; AssertionError if it never is."""
    async for _ in rounds():
        if happened():
            return
        if step is not None:
            await step()
    raise AssertionError("it never happened")
