"""Waiting without a task: coroutines that seldom have anything to wait for, and what else may be awaited."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Coroutine, Generator
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")


def begun(work: Coroutine[Any, Any, T]) -> T | Coroutine[Any, Any, T]:
    """What `work` returns, or raises, when it waits for nothing; else what to await, once, for the rest.

    It begins at once and outside of a task, so only for work that never asks for the current one (as
    `asyncio.timeout` does): our own, and not what plugins wrote.
    """
    try:
        awaited = work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    return _rest(work, awaited)


async def _rest(work: Coroutine[Any, Any, T], awaited: Any) -> T:
    return await _steps(work, awaited)


@types.coroutine
def _steps(work: Coroutine[Any, Any, T], awaited: Any) -> Generator[Any, Any, T]:
    """Go on with a coroutine that has already said what it waits for."""
    try:
        while True:
            try:
                given = yield awaited
            except GeneratorExit:
                work.close()
                raise
            except BaseException as error:  # noqa: BLE001 - it is the coroutine's: a cancellation, say
                awaited = work.throw(error)
            else:
                awaited = work.send(given)
    except StopIteration as done:
        result: T = done.value
        return result


def work_of(frame: FrameType) -> Any:
    """The coroutine with which `begun` goes on in this frame; None in all others."""
    return frame.f_locals["work"] if frame.f_code is _steps.__code__ else None


async def both(one: Awaitable[None], other: Awaitable[None]) -> None:
    """Wait for one and then for the other."""
    await one
    await other


def pause(seconds: float) -> asyncio.Future[None]:
    """Done after so many seconds. Unlike a coroutine it may be left alone."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.call_later(seconds, lambda: None if future.done() else future.set_result(None))
    return future
