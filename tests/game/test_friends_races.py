"""Friends stay of both sides: whatever both do at once, on whatever nodes, and whenever one of these dies.
`XMPPD_TEST_FRIENDS_SEEN` says how many seeds of what clients see are walked, from which on
`XMPPD_TEST_FRIENDS_FROM`.
"""

import asyncio
import os
import random
from typing import Any

import pytest
from mortal import Mortal, dawdle
from mutual import half, is_mutual
from several import presences, several

from xmppd.core.roster.rosters import Roster
from xmppd.errors import StanzaError, StoreError
from xmppd.testing import World

SEEN = int(os.environ.get("XMPPD_TEST_FRIENDS_SEEN", "4"))
FIRST = int(os.environ.get("XMPPD_TEST_FRIENDS_FROM", "0"))
ALICE, BOB, CAROL = "alice@localhost", "bob@localhost", "carol@localhost"
DEEDS = (
    "ask",
    "ask",
    "grant",
    "decline",
    "cancel",
    "remove",
    "part",
    "befriend",
    "befriend",
    "block",
    "unblock",
)


async def do(world: World, account: str, peer: str, deed: str, node: int) -> None:
    """One deed of a player, on some node; refusals are none of our matter."""
    friends = world.plugin("friends", node)
    module = friends.act.__func__.__globals__
    server = world.apps[node].server
    try:
        if deed == "ask":
            await friends.ask(account, peer, "")
        elif deed == "grant":
            await friends.grant(account, peer)
        elif deed == "block":
            await server.blocks.block(account, [peer])
            await friends.do(account, peer, module["part"])
        elif deed == "unblock":
            await server.blocks.unblock(account, [peer])
        elif deed == "part":
            await friends.do(account, peer, module["part"])
        elif deed == "befriend":
            await friends.befriended_by_force(account, peer)
        else:
            await friends.do(account, peer, friends.take_act.__func__.__globals__["DEEDS"][deed])
    except StanzaError:
        pass


def nodes_of(redis_url: str, **more: Any) -> World:
    return World(plugins=("friends", "blocking"), nodes=3, settings=several(redis_url), **more)


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(6))
async def test_friends_are_mutual_after_whatever_both_did_at_once(seed: int, redis_url: str) -> None:
    chance = random.Random(seed)
    async with nodes_of(redis_url) as world:
        clients = [await world.login(name, node=node) for node, name in enumerate(("alice", "bob", "carol"))]
        dawdle(world, chance)
        states = set()
        for _ in range(6):
            deeds = []
            for _ in range(chance.randrange(2, 7)):
                one, other = chance.sample([ALICE, BOB, CAROL], 2)
                deeds.append(do(world, one, other, chance.choice(DEEDS), chance.randrange(3)))
            await asyncio.gather(*deeds)
            await world.settle()
            for one, other in ((ALICE, BOB), (BOB, CAROL), (ALICE, CAROL)):
                assert await is_mutual(world, one, other), (one, other)
                states.add((await world.plugin("friends").between(one, other)).state)
                barred = await world.plugin("friends").is_barred(one, other)
                assert not barred or (await half(world, one, other)) == "none"
        assert states and clients


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEN))
async def test_clients_see_each_other_by_what_they_are_in_the_end(seed: int, redis_url: str) -> None:
    chance = random.Random(100 + seed)
    async with nodes_of(redis_url) as world:
        clients = {
            name: await world.login(name.partition("@")[0], node=node)
            for node, name in enumerate((ALICE, BOB))
        }
        dawdle(world, chance, most=40)
        shown = {ALICE: [False], BOB: [False]}
        for _ in range(8):
            deeds = [
                (
                    *chance.sample([ALICE, BOB], 2),
                    chance.choice(("ask", "part", "befriend")),
                    chance.randrange(3),
                )
                for _ in range(3)
            ]
            await asyncio.gather(*(do(world, *deed) for deed in deeds))
            await world.settle()
            for account, client in clients.items():
                shown[account] = [shown[account][-1], *presences(await client.receive_all())]
            are = await world.plugin("friends").are_friends(ALICE, BOB)
            last = {account: seen[-1] for account, seen in shown.items()}
            assert last == {ALICE: are, BOB: are}, (deeds, shown, held(world))


def held(world: World) -> list[tuple[int, Roster | None, Roster | None]]:
    """By node the rosters that its sessions go by, and those in its memory."""
    return [
        (node, live.roster, app.rosters.cached(account))
        for node, app in enumerate(world.apps)
        for account, live in app.sessions.accounts.items()
    ]


@pytest.mark.asyncio
@pytest.mark.parametrize("is_done", [False, True])
@pytest.mark.parametrize("write", range(1, 4))
@pytest.mark.parametrize("deed", ["befriend", "part"])
async def test_a_repeat_shows_what_a_failing_store_kept_back(deed: str, write: int, is_done: bool) -> None:
    async with World(plugins=("friends",)) as world:
        clients = [await world.login("alice"), await world.login("bob")]
        if deed == "part":
            await do(world, ALICE, BOB, "befriend", 0)
        mortal = Mortal(world, "roster")
        mortal.die_at(write, is_done=is_done)
        try:
            await do(world, ALICE, BOB, deed, 0)
        except StoreError:
            assert mortal.writes >= write
        mortal.revive()
        await do(world, ALICE, BOB, deed, 0)
        for client in clients:
            assert presences(await client.receive_all())[-1] is (deed == "befriend"), client.jid


@pytest.mark.own_engine
@pytest.mark.asyncio
@pytest.mark.parametrize("is_done", [False, True])
@pytest.mark.parametrize("write", range(1, 9))
@pytest.mark.parametrize("deed", ["ask", "grant", "part"])
async def test_what_a_kill_cut_short_is_finished(deed: str, write: int, is_done: bool) -> None:
    async with World(plugins=("friends",)) as world:
        if deed == "grant":
            await do(world, BOB, ALICE, "ask", 0)
        elif deed == "part":
            await do(world, BOB, ALICE, "befriend", 0)
        before = await half(world, ALICE, BOB)
        mortal = Mortal(world, "friends_", "roster")
        mortal.die_at(write, is_done=is_done)
        try:
            await do(world, ALICE, BOB, deed, 0)
        except StoreError:
            assert mortal.writes >= write
        mortal.revive()
        world.app.rosters.forget_all()  # as another process begins
        world.clock.seconds += 240
        await world.advance(31)
        assert await is_mutual(world, ALICE, BOB)
        after = {"ask": "asking", "grant": "both", "part": "none"}[deed]
        now = await half(world, ALICE, BOB)
        assert now == after or (now == before and write <= 2), "the truth is the second write"
        left = [row["why"] async for row in world.plugin("friends").due.everything()]
        assert set(left) <= {"ends"}


@pytest.mark.asyncio
@pytest.mark.parametrize("write", range(1, 9))
async def test_a_repeat_finishes_it_at_once(write: int) -> None:
    async with World(plugins=("friends",)) as world:
        mortal = Mortal(world, "friends_", "roster")
        mortal.die_at(write, is_done=True)
        try:
            await do(world, ALICE, BOB, "ask", 0)
        except StoreError:
            assert mortal.writes >= write
        mortal.revive()
        world.app.rosters.forget_all()
        await do(world, ALICE, BOB, "ask", 0)
        assert await is_mutual(world, ALICE, BOB)
        assert await half(world, ALICE, BOB) == "asking"


@pytest.mark.asyncio
async def test_who_has_no_room_leaves_nothing_behind() -> None:
    async with World(plugins=("friends",), settings={"limits": {"roster_items": 1}}) as world:
        await do(world, ALICE, CAROL, "befriend", 0)
        friends = world.plugin("friends")
        with pytest.raises(StanzaError, match="at most 1 contacts"):
            await friends.ask(ALICE, BOB, "")
        with pytest.raises(StanzaError, match="at most 1 contacts"):
            await friends.befriended_by_force(BOB, ALICE)
        assert await is_mutual(world, ALICE, BOB)
        assert (await friends.between(ALICE, BOB)).state == "none"
