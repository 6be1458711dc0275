"""How far a long command got, on stderr: a bar on a terminal, a line now and then otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

WIDTH = 24
REDRAW_SECONDS = 0.1
LINE_SECONDS = 10.0
WARM_UP_SECONDS = 0.5
"""Before, a rate says nothing."""


class ProgressBar:
    """Shows how many of `unit` are done, how many a second and the time left, one stage after the other.
    `clock` is in seconds.
    """

    def __init__(
        self, stream: TextIO, *, unit: str = "rows", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._unit = unit
        self._clock = clock
        self._is_terminal = stream.isatty()
        self._what = ""
        self._total: int | None = None
        self._earlier = self._rows = 0
        self._started = self._shown = 0.0

    def begin(self, what: str, total: int | None = None, done: int = 0) -> None:
        """Another stage, of so many rows if that is known, of which some were done earlier."""
        self._what, self._total, self._earlier, self._rows = what, total, done, done
        self._started = self._shown = self._clock()

    def advance(self, rows: int) -> None:
        """So many more are done."""
        self._rows += rows
        pause = REDRAW_SECONDS if self._is_terminal else LINE_SECONDS
        if self._clock() - self._shown >= pause:
            self._show()

    def end(self) -> None:
        """The stage is done; its last figures stay."""
        self._show()
        if self._is_terminal:
            self._stream.write("\n")
            self._stream.flush()

    def _show(self) -> None:
        self._shown = self._clock()
        text = self._text(self._shown - self._started)
        self._stream.write(f"\r\x1b[K{text}" if self._is_terminal else f"{text}\n")
        self._stream.flush()

    def _text(self, seconds: float) -> str:
        parts = [f"{self._rows:,} {self._unit}"]
        share = min(self._rows / self._total, 1.0) if self._total else None
        if share is not None and self._is_terminal:
            full = int(share * WIDTH)
            parts.insert(0, f"[{'#' * full}{'.' * (WIDTH - full)}]")
        if share is not None:
            parts.append(f"{share:.0%}")
        if seconds >= WARM_UP_SECONDS:
            rate = (self._rows - self._earlier) / seconds
            parts.append(f"{rate:,.0f} {self._unit}/s")
            if self._total and rate and self._rows < self._total:
                parts.append(f"{clock_time((self._total - self._rows) / rate)} left")
        return f"{self._what}: {'  '.join(parts)}"


def clock_time(seconds: float) -> str:
    """Seconds as 0:07, 12:30 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
