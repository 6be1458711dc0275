"""Work that may be long, done in slices of the loop's time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator

from xmppd.core.output import SLICE_SECONDS

log = logging.getLogger(__name__)


class Rounds:
    """Does pieces of work step by step: the first slice at once, the rest in the next turns of the loop, one
    piece after the other in the order in which they came. Of one key there is one piece at a time.
    """

    __slots__ = ("_at_work", "_call_soon", "_clock", "_work")

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._call_soon = call_soon
        self._clock = clock
        self._work: dict[str, tuple[Iterator[None], asyncio.Future[None]]] = {}
        self._at_work = ""

    @property
    def is_due(self) -> bool:
        """Whether there is work left."""
        return bool(self._work)

    def do(self, key: str, steps: Iterator[None], *, is_short: bool) -> asyncio.Future[None] | None:
        """Begin some work, after what is left of the last one of this key; what is done when it ends, None
        when it has ended. A short one is done as a whole.
        """
        if self._work:
            self.finish(key)
        if is_short:
            for _ in steps:
                pass
            return None
        if not self._work and self._go_on(steps):
            return None
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._work:
            self._call_soon(self._turn)
        self._work[key] = steps, future
        return future

    def finish(self, key: str) -> None:
        """Do at once what is left of the work of this key: something else has to come after it."""
        if key in self._work and key != self._at_work:
            steps, future = self._work.pop(key)
            self._go_on(steps, until=float("inf"))
            _end(future)

    def _turn(self) -> None:
        end = self._clock() + SLICE_SECONDS
        while self._work:
            self._at_work = key = next(iter(self._work))
            steps, future = self._work[key]
            is_done = self._go_on(steps, end)
            self._at_work = ""
            if not is_done:
                break
            del self._work[key]
            _end(future)
        if self._work:
            self._call_soon(self._turn)

    def _go_on(self, steps: Iterator[None], until: float = 0.0) -> bool:
        """Do steps until that time, a slice from now on if none is given; whether that was all."""
        clock = self._clock
        end = until or clock() + SLICE_SECONDS
        try:
            for _ in steps:
                if clock() > end:
                    return False
        except Exception:  # a mistake of ours costs the rest of this piece, and nothing else
            log.exception("round-failed")
        return True


def _end(future: asyncio.Future[None]) -> None:
    """The work is done, also when nobody waits for it any more."""
    if not future.done():
        future.set_result(None)
