"""How often something may be done: a bucket of tokens."""

from __future__ import annotations

import time
from collections.abc import Callable

MOST_OWED = 16
"""By how many bursts somebody may be in debt for what he took elsewhere."""


class TokenBucket:
    """Gives `rate` tokens a second (more than 0), and up to `burst` at once after a pause."""

    __slots__ = ("_burst", "_clock", "_rate", "_since", "_tokens")

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._clock = clock
        self._since = clock()

    def take(self, now: float | None = None) -> float:
        """Take a token: 0.0, or the seconds until there is one. `now`: what its clock says, where that is
        known.
        """
        if now is None:
            now = self._clock()
        tokens = self._tokens + (now - self._since) * self._rate
        if tokens > self._burst:
            tokens = self._burst
        self._since = now
        if tokens >= 1.0:
            self._tokens = tokens - 1.0
            return 0.0
        self._tokens = tokens
        return (1.0 - tokens) / self._rate

    def take_all(self, count: int) -> bool:
        """Take so many tokens, or none when there are fewer; whether they were taken."""
        now = self._clock()
        tokens = self._tokens + (now - self._since) * self._rate
        self._since = now
        if tokens > self._burst:
            tokens = self._burst
        is_enough = tokens >= count
        self._tokens = tokens - count if is_enough else tokens
        return is_enough

    def owe(self, count: int) -> None:
        """So many were taken elsewhere, though there may not be as many here."""
        self.take_all(0)
        self._tokens = max(self._tokens - count, -MOST_OWED * self._burst)
