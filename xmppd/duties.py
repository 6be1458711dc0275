"""What one node of all does: who does it this time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class SharedDuties(Protocol):
    """What all nodes agree on, by the names of duties. Nothing here raises because it cannot be asked."""

    async def take(self, name: str, seconds: float) -> float | None:
        """Do it, if nobody did within as many seconds as he said, or is at it. Seconds until it may be taken:
        0.0 where it is this node's now, until `done`; None where nobody can tell.
        """

    def done(self, name: str) -> None:
        """What was taken has been done."""


class Duties:
    """The duties of this node. Without `shared`, or while that cannot be asked, they are those of one node
    of each group that is connected: of the one of which `is_first` holds.
    """

    def __init__(self, shared: SharedDuties | None) -> None:
        self.shared = shared
        self.is_first: Callable[[], bool] = alone

    async def take(self, name: str, seconds: float) -> float:
        """See `SharedDuties.take`; some number in any case."""
        left = await self.shared.take(name, seconds) if self.shared is not None else None
        if left is None:
            return 0.0 if self.is_first() else seconds
        return left

    def done(self, name: str) -> None:
        """See `SharedDuties.done`."""
        if self.shared is not None:
            self.shared.done(name)


def alone() -> bool:
    """There is no other node."""
    return True
