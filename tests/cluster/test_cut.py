"""Two nodes that do not reach each other, and a third one that reaches both."""

from __future__ import annotations

import pytest
from several import CHAT, bodies, several

from xmppd.cluster.mesh import QUIET_SECONDS
from xmppd.testing import World

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("each_carrier")]

GIVEN_UP_SECONDS = 6
"""When each has given up the other."""


@pytest.mark.parametrize("node", [1, 2])
async def test_who_moves_while_nodes_are_cut_off_from_each_other_does_not_overtake_himself(
    redis_url: str, node: int
) -> None:
    """What he wrote where the receiver is not seen was stored there, and nobody else knew of it."""
    async with World(plugins=("offline",), settings=several(redis_url), nodes=3) as world:
        bob = await world.login("bob", node=1)
        alice = await world.login("alice", node=0)
        world.cut(0, 1)
        await world.advance(GIVEN_UP_SECONDS)
        for number in ("1", "2"):
            await alice.send(CHAT.format(to=bob.bare, body=number))
        await world.settle()
        await alice.drop()
        alice = await world.login("alice", node=node)
        await alice.send(CHAT.format(to=bob.bare, body="3"))
        assert await bodies(bob) == ["1", "2", "3"]
        await alice.expect_nothing()


async def test_who_comes_beyond_a_cut_is_given_what_was_stored_before_anybody_is_given_up(
    redis_url: str,
) -> None:
    async with World(plugins=("offline",), settings=several(redis_url), nodes=3) as world:
        alice = await world.login("alice", node=0)
        world.cut(0, 1)
        await world.advance(QUIET_SECONDS)
        bob = await world.login("bob", node=1)
        await alice.send(CHAT.format(to=bob.bare, body="1"))
        await world.settle()
        await alice.drop()
        alice = await world.login("alice", node=2)
        await alice.send(CHAT.format(to=bob.bare, body="2"))
        assert await bodies(bob) == ["1", "2"]
        await alice.expect_nothing()


async def test_what_is_stored_beyond_a_cut_is_delivered_before_it_is_healed(redis_url: str) -> None:
    async with World(plugins=("offline",), settings=several(redis_url), nodes=3) as world:
        bob = await world.login("bob", node=1)
        alice = await world.login("alice", node=0)
        world.cut(0, 1)
        await alice.send(CHAT.format(to=bob.bare, body="on its way"))
        await world.advance(GIVEN_UP_SECONDS)
        assert await bodies(bob) == ["on its way"]
        await alice.send(CHAT.format(to=bob.bare, body="behind it"))
        assert await bodies(bob) == ["behind it"]
        world.connect_nodes(0, 1, trunk=2)
        await alice.send(CHAT.format(to=bob.bare, body="healed"))
        assert await bodies(bob) == ["healed"]
        await alice.expect_nothing()
