"""What is asked of other plugins, where they are there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Logouts(Protocol):
    """The plugin `last`."""

    def __bool__(self) -> bool:
        """Whether it is there."""

    async def logouts_of(self, accounts: Sequence[str]) -> dict[str, float]:
        """When those of some accounts logged out last who ever did."""


class Friends(Protocol):
    """The plugin `friends`."""

    def __bool__(self) -> bool:
        """Whether it is there."""

    async def are_friends(self, one: str, other: str) -> bool:
        """Whether they are."""
