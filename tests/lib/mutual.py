"""Whether two players are the same to each other, in all places that say so."""

from __future__ import annotations

from xmppd.testing import World

MIRRORED = {"none": "none", "both": "both", "asking": "asked", "asked": "asking"}


async def half(world: World, account: str, contact: str, node: int = 0) -> str:
    item = await world.apps[node].server.rosters.item(account, contact)
    if item is None:
        return "none"
    if item.subscription == "none":
        return "asking" if item.ask else "asked" if item.pending_in else "none"
    return str(item.subscription)


async def is_mutual(world: World, one: str, other: str) -> bool:
    """Both rosters and both cards fit the pair, as every node has it."""
    friends = world.plugin("friends")
    pair = await friends.between(one, other)
    mine, theirs = await half(world, one, other), await half(world, other, one)
    cards = [await friends.cards.get(one, other), await friends.cards.get(other, one)]
    for app in world.apps:
        sees = other in await app.server.rosters.following(one)
        seen = one in await app.server.rosters.followers(other)
        assert sees == seen == (pair.state == "friends"), (sees, seen, pair)
    return (
        mine == pair.seen_by(one)
        and theirs == MIRRORED[mine]
        and [card is not None for card in cards] == 2 * [pair.state != "none"]
    )
