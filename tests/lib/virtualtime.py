"""A loop whose time passes at once when there is nothing else to do, and in which some of those who share it
may stand still for a while.
"""

from __future__ import annotations

import asyncio
import selectors
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import Context, ContextVar, copy_context
from heapq import heappop, heappush
from typing import Any

SOON, IO, TIMER = range(3)
"""Kinds of callbacks, in the order in which they are due for who stood still: as after a SIGCONT."""

OWNER: ContextVar[object] = ContextVar("owner")
"""Whose callback it is, where some of them may stand still."""


class NoSelector(selectors.BaseSelector):
    """Nothing ever happens on a socket."""

    def __init__(self) -> None:
        self._map: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = self._map[fileobj] = selectors.SelectorKey(fileobj, 0, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._map.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._map


class Callback:
    """Something that will be called; what asyncio needs of a handle."""

    __slots__ = ("_when", "args", "callback", "context", "is_cancelled", "kind")

    def __init__(
        self, callback: Callable[..., object], args: Any, context: Context, when: float, kind: int
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self.kind = kind
        self.is_cancelled = False
        self._when = when

    def cancel(self) -> None:
        """Let it not be called."""
        self.is_cancelled = True

    def cancelled(self) -> bool:
        """Whether it will not be called."""
        return self.is_cancelled

    def when(self) -> float:
        """When it is due."""
        return self._when


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time passes when there is nothing else to do. It does what asyncio's does, with less of
    everything, since a model of days runs in seconds.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._count = 0
        self._due: deque[Callback] = deque()
        self._later: list[tuple[float, int, Callback]] = []
        self._still: dict[object, list[Callback]] = {}
        super().__init__(NoSelector())

    def time(self) -> float:
        return self._seconds

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Callback:
        made = Callback(callback, args, context or copy_context(), self._seconds, SOON)
        self._due.append(made)
        return made

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
        kind: int = TIMER,
    ) -> Callback:
        made = Callback(callback, args, context or copy_context(), when, kind)
        self._count += 1
        heappush(self._later, (when, self._count, made))
        return made

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Callback:
        return self.call_at(self._seconds + delay, callback, *args, context=context)

    def clear(self) -> None:
        """Forget all that would be called."""
        self._due.clear()
        self._later.clear()
        self._still.clear()

    @property
    def pending(self) -> int:
        """How much is going to be called, apart from what is cancelled."""
        return len(self._due) + sum(not made.is_cancelled for _, _, made in self._later)

    # standing still

    def freeze(self, owner: object) -> None:
        """Call nothing of an owner's until he goes on."""
        self._still.setdefault(owner, [])

    def go_on(self, owner: object) -> None:
        """Call what is due for him: first what was due at once, then what came, then what is late."""
        waiting = self._still.pop(owner, [])
        self._due.extend(sorted(waiting, key=lambda made: made.kind))

    def stands(self, owner: object) -> bool:
        """Whether somebody stands still."""
        return owner in self._still

    # asyncio's

    def _run_once(self) -> None:
        due, later = self._due, self._later
        while later and later[0][2].is_cancelled:
            heappop(later)
        if not due:
            assert later, "everybody waits for something that never comes"
            self._seconds = max(self._seconds, later[0][0])
        while later and later[0][0] <= self._seconds:
            made = heappop(later)[2]
            if not made.is_cancelled:
                due.append(made)
        for _ in range(len(due)):
            made = due.popleft()
            if made.is_cancelled:
                continue
            if self._still and (still := self._still.get(made.context.get(OWNER))) is not None:
                still.append(made)
                continue
            try:
                made.context.run(made.callback, *made.args)
            except Exception as error:  # noqa: BLE001 - as asyncio does
                self.call_exception_handler({"message": f"in {made.callback}", "exception": error})
