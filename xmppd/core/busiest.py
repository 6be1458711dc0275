"""Who has most of something, in bounded memory: the sketch "space-saving" (Metwally, Agrawal, El Abbadi)."""

from __future__ import annotations

from typing import Final

KEPT: Final = 128
"""Names whose counts are kept. Whoever has more than one part in so many of all is among them."""
EVERY: Final = 8
"""One of so many is looked at."""


class Busiest:
    """Counts by name, those of so many names at once. One that comes when all places are taken takes that of
    the smallest count, and that count with it: so counts are too high by at most the smallest, never too low.
    """

    def __init__(self, kept: int = KEPT, every: int = EVERY) -> None:
        self._counts: dict[str, int] = {}
        self._kept = kept
        self._every = every
        self._until = every

    def add(self, name: str) -> None:
        """One more of this name; of a few nothing is noted but that they came."""
        self._until -= 1
        if self._until:
            return
        self._until = self._every
        counts = self._counts
        count = counts.get(name)
        if count is None and len(counts) >= self._kept:
            smallest = min(counts, key=counts.__getitem__)
            count = counts.pop(smallest)
        counts[name] = (count or 0) + 1

    def take(self, most: int) -> list[tuple[str, int]]:
        """The busiest names with about how often they came, and begin anew."""
        counts, self._counts = self._counts, {}
        busiest = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]
        return [(name, count * self._every) for name, count in busiest]
