"""When what a session says of its games is shown: at once after a pause, else when the window is over, and
then only the last of it.
"""

from __future__ import annotations


class Pace:
    """That of one session; times and windows in seconds."""

    __slots__ = ("_free_at", "is_waiting")

    def __init__(self) -> None:
        self._free_at = 0.0
        self.is_waiting = False

    def said(self, now: float, window: float) -> float | None:
        """Something is to be shown: how long that waits, 0.0: not at all, and then it is shown now. None:
        something waits already, and this goes with it.
        """
        if self.is_waiting:
            return None
        left = self._free_at - now
        if left <= 0:
            self._free_at = now + window
            return 0.0
        self.is_waiting = True
        return left

    def shown(self, now: float, window: float) -> None:
        """All that was said is shown now."""
        self.is_waiting = False
        self._free_at = max(self._free_at, now + window)
