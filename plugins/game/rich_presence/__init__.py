"""Rich presence: what clients and the back end of a game say of who plays it, checked by the server; who sees
it, who may join, and to whom one looks offline (docs/game-protocol.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from xmppd.plugin import Uses

from .hiding import Hiding
from .said import NS
from .saying import Saying


class Logouts(Protocol):
    """What is asked of the plugin `last`."""

    def __bool__(self) -> bool:
        """Whether it is there."""

    async def logouts_of(self, accounts: Sequence[str]) -> dict[str, float]:
        """When those of some accounts logged out last who ever did."""


class Friends(Protocol):
    """What is asked of the plugin `friends`."""

    def __bool__(self) -> bool:
        """Whether it is there."""

    async def are_friends(self, one: str, other: str) -> bool:
        """Whether they are."""


class RichPresence(Hiding, Saying):
    """Both of it; each does without the other."""

    features = (NS,)
    friends: Uses[Friends] = Uses("friends")
    last: Uses[Logouts] = Uses("last")

    async def _left_at(self, account: str) -> float:
        logouts = await self.last.logouts_of([account]) if self.last else {}
        return logouts.get(account, 0.0)

    async def is_friend(self, account: str, other: str) -> bool:
        """Whether two accounts are friends: by the plugin `friends`, else if each sees the other."""
        if self.friends:
            return await self.friends.are_friends(account, other)
        return await super().is_friend(account, other)
