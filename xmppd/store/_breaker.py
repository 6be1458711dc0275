"""Whether a store that fails is worth asking: a dead one must not pile up work that waits for it."""

from __future__ import annotations

import logging
from collections.abc import Callable

from xmppd.errors import StoreUnavailable

log = logging.getLogger(__name__)

FAILURES = 10
PAUSE_SECONDS = 0.75


class Breaker:
    """Opens after `failures` in a row; then all is refused but one try every `pause` seconds, until one
    succeeds.

    `clock` gives seconds that never jump.
    """

    def __init__(
        self, clock: Callable[[], float], *, failures: int = FAILURES, pause: float = PAUSE_SECONDS
    ) -> None:
        self.opened = 0
        """How often it has opened."""
        self.refused = 0
        """How many requests it has refused."""
        self._clock = clock
        self._failures = failures
        self._pause = pause
        self._in_a_row = 0
        self._next_try = 0.0

    @property
    def is_open(self) -> bool:
        """Whether requests are refused."""
        return self._in_a_row >= self._failures

    def check(self) -> None:
        """StoreUnavailable unless this request may be made."""
        if not self.is_open:
            return
        now = self._clock()
        if now < self._next_try:
            self.refused += 1
            raise StoreUnavailable("the store does not answer; it is tried again every second")
        self._next_try = now + self._pause

    def succeeded(self) -> None:
        """A request was answered."""
        if self.is_open:
            log.info("store-answers-again", extra={"refused": self.refused})
        self._in_a_row = 0

    def failed(self, error: Exception) -> None:
        """A request was not answered."""
        self._in_a_row += 1
        if self._in_a_row == self._failures:
            self.opened += 1
            self._next_try = self._clock() + self._pause
            log.error("store-does-not-answer", extra={"error": str(error)})
