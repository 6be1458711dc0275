"""How many invites may be pending holds for those that come at once, on whatever nodes."""

import asyncio
import random
from collections.abc import Awaitable
from typing import Any

import pytest
from mortal import dawdle
from several import several

from xmppd.admin.commands import CommandError
from xmppd.testing import World

NAMES = ("alice", "bob", "carol", "dora", "ed", "fay")
ALICE, *OTHERS = (f"{name}@localhost" for name in NAMES)


def world_of(redis_url: str, pending: int = 2) -> World:
    config = {"invites": {"message": "", "pending": pending}}
    return World(
        plugins=("invites",), nodes=3, settings=several(redis_url), accounts=NAMES, plugin_config=config
    )


async def outcome(made: Awaitable[Any]) -> str:
    try:
        return str((await made)["id"])
    except CommandError as error:
        return "too many" if "Too many" in str(error) else str(error)


@pytest.mark.asyncio
@pytest.mark.parametrize("nodes", [1, 3])
async def test_who_makes_or_gets_many_at_once_has_as_many_as_he_may(nodes: int, redis_url: str) -> None:
    async with world_of(redis_url) as world:
        dawdle(world, random.Random(nodes))

        def invite(node: int, one: str, other: str) -> Awaitable[str]:
            about = {"sender": one, "to": other, "kind": "match", "target": "m"}
            return outcome(world.apps[node % nodes].commands.call("invite send", about))

        for pairs in ([(ALICE, other) for other in OTHERS], [(other, ALICE) for other in OTHERS]):
            made = await asyncio.gather(*(invite(n, *pair) for n, pair in enumerate(pairs)))
            assert made.count("too many") == 3, made
        rows = [row["peer"] async for row in world.plugin("invites").made.everything()]
        assert len(rows) == 4, "what was refused is nowhere"


@pytest.mark.asyncio
async def test_the_same_at_once_is_one(redis_url: str) -> None:
    async with world_of(redis_url, pending=3) as world:  # each counts until it is seen to be there already
        dawdle(world, random.Random(1))
        about = {"sender": ALICE, "to": OTHERS[0], "kind": "match", "target": "m"}
        calls = [outcome(app.commands.call("invite send", about)) for app in world.apps]
        assert len(set(await asyncio.gather(*calls))) == 1
        assert len([row async for row in world.plugin("invites").made.everything()]) == 1
