"""Managed sessions on two and three nodes against a model (`tests/lib/managedmodel.py`)."""

from __future__ import annotations

import pytest
from managedmodel import KINDS, Story, steps_of
from several import several

from xmppd.testing import World

SEEDS = 4


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("plugins", [("offline",), ("archive", "offline")], ids=("copies", "archived"))
@pytest.mark.parametrize("nodes", [2, 3])
@pytest.mark.asyncio
async def test_nothing_is_lost_and_nothing_comes_twice(
    redis_url: str, nodes: int, plugins: tuple[str, ...], kinds: str, seed: int
) -> None:
    about = {**several(redis_url), "sessions": {"ping_after": 0}}
    async with World(plugins=plugins, nodes=nodes, settings=about) as world:
        await Story(world, nodes, is_prompt=seed % 2 == 0).run(steps_of(seed, kinds))
        assert not any(app.router.errors for app in world.apps)
