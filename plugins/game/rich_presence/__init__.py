"""Rich presence: what clients and the back end of a game say of who plays it, checked by the server; who sees
it, who may join, and to whom one looks offline (docs/game-protocol.md).
"""

from __future__ import annotations

from xmppd.plugin import Uses

from .hiding import Hiding
from .others import Friends, Logouts
from .said import NS
from .saying import Saying


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
