"""What is followed, as tests take it."""

from typing import Any

from xmppd.admin.registry import Followed
from xmppd.testing import World


async def taken(world: World, followed: Followed) -> list[dict[str, Any]]:
    """All records that came so far."""
    await world.settle()
    found = []
    while (record := await followed._records.next(0.001)) is not None:
        found.append(dict(record))
    return found
