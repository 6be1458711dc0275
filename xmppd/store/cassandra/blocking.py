"""Threads for what blocks in the driver: to connect, to prepare a statement, to make a table.

They are daemons. The driver waits without end for an answer that a loop has to read; where that loop has
ended first, as in a script that leaves its store open, no process has to wait for the threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, TypeVar

THREADS: Final = 2

Answer = TypeVar("Answer")


class Blocking:
    """Some threads that do one thing after the other, for one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        for number in range(THREADS):
            Thread(target=self._run, name=f"store-prepare_{number}", daemon=True).start()

    def do(self, step: Callable[..., Answer], *args: Any) -> asyncio.Future[Answer]:
        """Have something done; its answer, or what it raised. Who gives it up does not end it."""
        done: asyncio.Future[Answer] = self._loop.create_future()
        self._work.put(partial(self._take, done, step, args))
        return done

    def end(self) -> None:
        """No more comes."""
        for _ in range(THREADS):
            self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work

    def _take(self, done: asyncio.Future[Any], step: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            told = partial(_answer, done, step(*args))
        except BaseException as error:  # noqa: BLE001 - whoever asked is told
            told = partial(_fail, done, error)
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(told)


def _answer(done: asyncio.Future[Any], answer: Any) -> None:
    if not done.done():
        done.set_result(answer)


def _fail(done: asyncio.Future[Any], error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)
