"""What runs on behalf of one instance of a plugin, and ends with it: tasks and timers."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final

from xmppd.duties import Duties
from xmppd.timers import Timer, Timers

LAST_SECONDS: Final = 1.0
"""How long tasks that were cancelled may take to end."""

LEAD_SECONDS: Final = 0.5
"""How long before others the node may go on that did last what one of all does; a tenth of the pause where
that is less.
"""

Spawn = Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]
Failed = Callable[[Callable[..., Any], Exception], None]


class Scope:
    """The tasks and timers of one instance. `failed` is told what a timed method raised; `duties` says what
    is this node's to do.
    """

    def __init__(self, timers: Timers, spawn: Spawn, failed: Failed, duties: Duties) -> None:
        self.clock = timers.clock
        self.duties = duties
        self._timers = timers
        self._spawn = spawn
        self._failed = failed
        self._tasks: set[asyncio.Task[Any]] = set()
        self._waiting: set[Timer] = set()
        self.is_over = False

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a coroutine in the background, until it is done or the instance ends.

        What a handler that outlives its instance begins is done too.
        """
        task = self._spawn(work)
        if not self.is_over:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return task

    def call_later(self, seconds: float, method: Callable[..., Any], *arguments: Any) -> Timer:
        """Call something, plain or async, after so many seconds, unless the instance ends first."""
        timer = self._timers.call_later(seconds, lambda: self._run(method, arguments), self._waiting)
        if self.is_over:
            timer.cancel()
        return timer

    def _run(self, method: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.call(method, *arguments)

    def repeat(self, seconds: float, method: Callable[[], Any]) -> None:
        """Call a method again and again; a run that takes longer than the pause delays the next one."""
        Repeated(self, seconds, method).wait(seconds)

    def repeat_once(self, seconds: float, name: str, method: Callable[[], Any]) -> None:
        """The same for what one node of all does each time; all know it by the name."""
        InTurns(self, seconds, name, method).wait(seconds)

    def call(self, method: Callable[..., Any], *arguments: Any, **named: Any) -> asyncio.Task[Any] | None:
        """Call a method whose failure is nobody else's; the task that does the rest when it is async."""
        try:
            waiting = method(*arguments, **named)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            self._failed(method, error)
            return None
        return self.spawn(self._finish(method, waiting)) if inspect.isawaitable(waiting) else None

    async def _finish(self, method: Callable[..., Any], waiting: Awaitable[Any]) -> None:
        try:
            await waiting
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            self._failed(method, error)

    def stop_timers(self) -> None:
        """Nothing is begun any more by the clock."""
        self.is_over = True
        for timer in tuple(self._waiting):
            timer.cancel()

    async def close(self) -> None:
        """End all timers and tasks."""
        self.stop_timers()
        tasks = self._tasks - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=LAST_SECONDS)


class Repeated:
    """One method called again and again, by the rhythm of its first call as far as it keeps up."""

    def __init__(self, scope: Scope, seconds: float, method: Callable[[], Any]) -> None:
        self._scope = scope
        self._seconds = seconds
        self._method = method

    def wait(self, seconds: float) -> None:
        """Call it after so many seconds."""
        due = self._scope.clock() + seconds
        self._scope.call_later(seconds, partial(self._run, due))

    def _run(self, due: float) -> None:
        task = self._scope.call(self._method)
        if task is None:
            self._next(due)
        else:
            task.add_done_callback(lambda task: self._next(due))

    def _next(self, due: float) -> None:
        """At the next beat that is still to come."""
        late = self._scope.clock() - due
        self.wait(self._seconds - late % self._seconds)


class InTurns:
    """One method called again and again, each time on one node: the one that did it last, as long as it goes
    on, since it may look a little earlier than the others whether it is time.
    """

    def __init__(self, scope: Scope, seconds: float, name: str, method: Callable[[], Any]) -> None:
        self._scope = scope
        self._seconds = seconds
        self._lead = min(seconds / 10, LEAD_SECONDS)
        self._name = name
        self._method = method

    def wait(self, seconds: float) -> None:
        """Look after so many seconds."""
        self._scope.call_later(seconds, self._look)

    async def _look(self) -> None:
        scope, began = self._scope, self._scope.clock()
        left = await scope.duties.take(self._name, self._seconds - self._lead)
        if left:  # more than a beat where it is at work, which may be over soon
            self.wait(min(left, self._seconds) + 2 * self._lead)
        elif scope.is_over or (task := scope.call(self._method)) is None:
            self._done(began)
        else:
            task.add_done_callback(lambda task: self._done(began))

    def _done(self, began: float) -> None:
        """At the next beat that is still to come, unless another node is faster."""
        self._scope.duties.done(self._name)
        late = self._scope.clock() - began
        self.wait(self._seconds - late % self._seconds)
