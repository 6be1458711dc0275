"""How late the loop is, and how long the collector of garbage holds it up; only while somebody may ask."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Final

from xmppd.core.tally import SECONDS, Spread

TICK_SECONDS: Final = 0.1


class Watch:
    """`lag`: seconds by which what was due on the loop came late, looked at ten times a second; `pauses`:
    seconds of each collection, by generation. `ticked` is called as often. Make it on the loop.
    """

    def __init__(self, ticked: Callable[[], None]) -> None:
        self._ticked = ticked
        self.lag = Spread(SECONDS)
        self.pauses = [Spread(SECONDS) for _ in range(3)]
        self._began = 0.0
        self._loop = asyncio.get_running_loop()
        gc.callbacks.append(self._collecting)
        self._wait()

    def close(self) -> None:
        """Watch no more."""
        self._timer.cancel()
        gc.callbacks.remove(self._collecting)

    def _wait(self) -> None:
        self._due = self._loop.time() + TICK_SECONDS
        self._timer = self._loop.call_at(self._due, self._tick)

    def _tick(self) -> None:
        self.lag.observe(max(0.0, self._loop.time() - self._due))
        self._ticked()
        self._wait()

    def _collecting(self, phase: str, about: Mapping[str, int]) -> None:
        if phase == "start":
            self._began = perf_counter()
        else:
            self.pauses[about["generation"]].observe(perf_counter() - self._began)
