"""How many friends and requests there may be holds for what comes at once, on whatever nodes."""

import asyncio
import random
from collections.abc import Awaitable
from typing import Any

import pytest
from mortal import dawdle
from several import several

from xmppd.errors import StanzaError
from xmppd.testing import World

NAMES = ("alice", "bob", "carol", "dora", "ed", "fay")
ALICE, *OTHERS = (f"{name}@localhost" for name in NAMES)


def world_of(redis_url: str, **config: int) -> World:
    return World(
        plugins=("friends",),
        nodes=3,
        settings=several(redis_url),
        accounts=NAMES,
        plugin_config={"friends": config},
    )


async def outcome(deed: Awaitable[Any]) -> str:
    try:
        return str((await deed).state)
    except StanzaError as error:
        return error.condition


async def states(world: World) -> list[str]:
    """What is between alice and the others, as pairs and rosters have it."""
    friends, rosters = world.plugin("friends"), world.app.server.rosters
    found = []
    for other in OTHERS:
        pair = await friends.between(ALICE, other)
        for one, peer in ((ALICE, other), (other, ALICE)):
            item = await rosters.item(one, peer)
            half = "none" if item is None else item.subscription
            if item is not None and half == "none":
                half = "asking" if item.ask else "asked"
            assert half == pair.seen_by(one), (one, peer)
        found.append(pair.seen_by(ALICE))
    return sorted(found)


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(3))
async def test_requests_that_come_at_once_are_counted_with_each_other(seed: int, redis_url: str) -> None:
    async with world_of(redis_url, asking=2, asked=2) as world:
        dawdle(world, random.Random(seed))
        plugins = [world.plugin("friends", node) for node in range(3)]
        asks = [outcome(plugins[n % 3].ask(ALICE, other, "")) for n, other in enumerate(OTHERS)]
        assert sorted(await asyncio.gather(*asks)) == ["asked"] * 2 + ["resource-constraint"] * 3
        await world.settle()
        assert await states(world) == ["asking"] * 2 + ["none"] * 3
        for other in OTHERS:
            await plugins[0].end(ALICE, other)
        asks = [outcome(plugins[n % 3].ask(other, ALICE, "")) for n, other in enumerate(OTHERS)]
        assert sorted(await asyncio.gather(*asks)) == ["asked"] * 2 + ["resource-constraint"] * 3
        await world.settle()
        assert await states(world) == ["asked"] * 2 + ["none"] * 3


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(3))
async def test_of_friends_who_accept_at_once_some_wait_on(seed: int, redis_url: str) -> None:
    async with world_of(redis_url, friends=2) as world:
        plugins = [world.plugin("friends", node) for node in range(3)]
        for other in OTHERS:
            assert await outcome(plugins[0].ask(ALICE, other, "hello")) == "asked"
        dawdle(world, random.Random(seed))
        grants = [outcome(plugins[n % 3].grant(other, ALICE)) for n, other in enumerate(OTHERS)]
        assert sorted(await asyncio.gather(*grants)) == ["friends"] * 2 + ["resource-constraint"] * 3
        await world.settle()
        assert await states(world) == ["asking"] * 3 + ["both"] * 2
        due = [row["why"] async for row in world.plugin("friends").due.everything()]
        assert due.count("ends") == 3, "requests that wait on end as they would have"
