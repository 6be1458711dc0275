"""Background work: every task has an owner here, its failure is logged, and a shutdown waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from types import FrameType
from typing import Any

from xmppd.errors import StoreError

log = logging.getLogger(__name__)

WorkOf = Callable[[FrameType], Any]
"""Gives the coroutine with which a frame goes on that has begun it outside of its task; else None."""


class Jobs:
    """The tasks of one server."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self.failed = 0

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine in the background."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failed += 1
            if isinstance(error, StoreError):
                log.warning("store-failed", extra={"kind": "job", "error": str(error)})
            else:
                log.error("job-failed", exc_info=error)

    def awaited(self) -> dict[asyncio.Task[Any], object]:
        """What each task waits for at this moment: the same object for as long as it does not go on."""
        return {task: getattr(task, "_fut_waiter", None) for task in self._tasks}

    async def settle(self, seconds: float = 1.0) -> bool:
        """Wait until one of the tasks of this moment is done, or so many seconds; whether one is."""
        if not self._tasks:
            return False
        done, _ = await asyncio.wait(self._tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)

    async def drain(self, seconds: float) -> None:
        """Wait for all tasks, those included that others start meanwhile; what is left after `seconds` is
        cancelled.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        while self._tasks and (left := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(self._tasks, timeout=left)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)


async def finished(waiting: Awaitable[None]) -> None:
    """Wait for something."""
    await waiting


def log_tasks(work_of: WorkOf) -> None:
    """Log for each task of the loop where it waits, the outermost call first."""
    for task in asyncio.all_tasks():
        log.warning("task", extra={"task": task.get_name(), "stack": stack_of(task, work_of)})


def stack_of(task: asyncio.Task[Any], work_of: WorkOf) -> list[str]:
    """The coroutines of a task as `file:line name`, each one awaiting the next."""
    stack = []
    awaited: Any = task.get_coro()
    while frame := getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None):
        stack.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_qualname}")
        inner = awaited.cr_await if hasattr(awaited, "cr_await") else awaited.gi_yieldfrom
        awaited = work_of(frame) or inner
    return stack
