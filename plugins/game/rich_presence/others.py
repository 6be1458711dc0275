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


class Judgement(Protocol):
    """What is made of a text: `action` is pass, mask, refuse, shadow or flag."""

    action: str
    text: str
    why: str


class Moderation(Protocol):
    """The plugin `moderation`."""

    def __bool__(self) -> bool:
        """Whether it is there."""

    async def judge(self, account: str, where: str, text: str) -> Judgement:
        """What becomes of a text."""

    async def take(self, account: str, verb: str, peer: str) -> float:
        """In how many seconds an account, at an address, may do so, 0: now."""
