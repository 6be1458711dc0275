"""Coroutines that seldom have anything to wait for, run without a task."""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
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
