"""Which accounts were changed lately, so that what was decided before can be told from what holds now."""

from __future__ import annotations

RECENT = 10_000
"""Of so many accounts it is known when they were last changed."""


class Changes:
    """Numbers the changes that this process made or heard of."""

    def __init__(self) -> None:
        self._last = 0
        self._floor = 0
        self._recent: dict[str, int] = {}

    @property
    def mark(self) -> int:
        """The number of the last change."""
        return self._last

    def note(self, account: str) -> None:
        """The account was changed."""
        self._last += 1
        self._recent.pop(account, None)
        self._recent[account] = self._last
        if len(self._recent) > RECENT:
            self._floor = self._recent.pop(next(iter(self._recent)))

    def note_all(self) -> None:
        """Any account may have been changed."""
        self._last += 1
        self._floor = self._last
        self._recent.clear()

    def since(self, account: str, mark: int) -> bool:
        """Whether the account may have been changed since `mark`."""
        return mark < self._last and (mark < self._floor or self._recent.get(account, 0) > mark)
