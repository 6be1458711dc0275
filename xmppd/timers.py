"""What is to be done at a later moment, by a clock that tests can turn."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from typing import Final

SLICE_SECONDS: Final = 0.001
"""How long what is due is done in one turn of the loop; at least one thing is."""
SHORTEST_SECONDS: Final = 0.001
FEW: Final = 64
"""Cancelled timers that are left lying until their time comes."""


class Timer:
    """Something to do, unless it is cancelled first."""

    __slots__ = ("_owner", "_timers", "due", "run")

    def __init__(self, timers: Timers, due: float, run: Callable[[], None], owner: set[Timer] | None) -> None:
        self._timers = timers
        self._owner = owner
        self.due = due
        self.run: Callable[[], None] | None = run
        if owner is not None:
            owner.add(self)

    def cancel(self) -> None:
        """Do not do it; harmless if repeated, or too late."""
        if self.take() is not None:
            self._timers.cancelled()

    def take(self) -> Callable[[], None] | None:
        """What is to be done, of which it knows no more; None when it was done, or cancelled."""
        run, self.run = self.run, None
        if self._owner is not None:
            self._owner.discard(self)
        return run


class Timers:
    """The timers of one server. `clock` gives seconds that never jump; whoever turns it calls `tick`.

    What they run must not raise.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._heap: list[tuple[float, int, Timer]] = []
        self._made = 0
        self._cancelled = 0
        self._armed: asyncio.TimerHandle | None = None
        self._armed_for = 0.0

    def __len__(self) -> int:
        return len(self._heap) - self._cancelled

    @property
    def due(self) -> float | None:
        """When the next one is due."""
        return self._heap[0][0] if self._heap else None

    def call_later(self, seconds: float, run: Callable[[], None], owner: set[Timer] | None = None) -> Timer:
        """Have something done after so many seconds; until then the timer is in the set of its owner."""
        timer = Timer(self, self.clock() + max(seconds, 0.0), run, owner)
        self._made += 1  # whoever came first is first among equals
        heapq.heappush(self._heap, (timer.due, self._made, timer))
        self._arm()
        return timer

    def cancelled(self) -> None:
        """One of them was; when that is most of them they are thrown away."""
        self._cancelled += 1
        if self._cancelled > max(FEW, len(self._heap) // 2):
            self._heap = [entry for entry in self._heap if entry[2].run is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def tick(self) -> int:
        """Do what is due, as much as a turn of the loop has room for; how many things were done."""
        end = time.perf_counter() + SLICE_SECONDS
        now = self.clock()
        done = 0
        while self._heap and self._heap[0][0] <= now:
            run = heapq.heappop(self._heap)[2].take()
            if run is None:
                self._cancelled -= 1
                continue
            run()
            done += 1
            if time.perf_counter() > end:
                break
        self._arm()
        return done

    def close(self) -> None:
        """Do nothing any more."""
        self._heap.clear()
        self._cancelled = 0
        if self._armed is not None:
            self._armed.cancel()

    def _arm(self) -> None:
        if not self._heap:
            return
        due = self._heap[0][0]
        if self._armed is not None:
            if self._armed_for <= due:
                return
            self._armed.cancel()
        self._armed_for = due
        wait = max(due - self.clock(), SHORTEST_SECONDS)
        self._armed = asyncio.get_running_loop().call_later(wait, self._wake)

    def _wake(self) -> None:
        self._armed = None
        self.tick()
