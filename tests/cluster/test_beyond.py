"""Whom a change of presence is told on other nodes: those of its receivers who are not on this one alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
from several import several

from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio

AWAY, BUSY = (f"<presence><show>{show}</show></presence>" for show in ("away", "dnd"))


async def shows(viewer: Client, seen: Client) -> list[str | None]:
    """What somebody has shown a client since it was asked last: its `show`, or that it is unavailable."""
    await viewer.world.settle()
    return [
        tree.get("type") or tree.findtext("{*}show")
        for tree in await viewer.receive_all()
        if tree.get("from") == seen.jid
    ]


async def friends(world: World) -> tuple[Client, Client]:
    """Alice and Bob on one node, who see each other."""
    alice, bob = await world.login("alice", node=0), await world.login("bob", node=0)
    await world.befriend(alice, bob)
    for client in (alice, bob):
        await client.receive_all()
    return alice, bob


async def came(world: World) -> Client:
    """Bob logs in on the other node, and has not read what he is shown."""
    far = await world.bind("bob", "far", node=1)
    await far.send("<presence/>")
    return far


def with_many(alice: Client) -> None:
    """Give her so many followers that it takes three steps to show them a presence: Bob is in the second."""
    live = alice.session.live
    assert live.roster is not None
    before, behind = ([f"{letter}{number}@localhost" for number in range(100, 140)] for letter in ("a", "z"))
    live.roster = replace(live.roster, followers=(*before, *live.roster.followers, *behind))


class Held:
    """In the place of `Rounds`: the next broadcast of the first node rests after so many steps, until it is
    let go on or another one of that session comes.
    """

    is_due = False

    def __init__(self, world: World, steps: int) -> None:
        world.apps[0].presences._rounds = self  # type: ignore[assignment]
        self._count = steps
        self._held: dict[str, Iterator[None]] = {}
        self._is_new = True

    def do(self, key: str, steps: Iterator[None], *, is_short: bool) -> None:
        """See `Rounds.do`."""
        self.finish(key)
        self._held[key] = steps
        if self._is_new:
            self._is_new = False
            assert len([*itertools.islice(steps, self._count)]) == self._count and not is_short
        else:
            self.finish(key)

    def finish(self, key: str) -> None:
        """See `Rounds.finish`."""
        for _ in self._held.pop(key, ()):
            pass


async def test_who_comes_elsewhere_between_two_changes_is_shown_the_next(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, bob = await friends(world)
        await alice.send(AWAY)
        assert await shows(bob, alice) == ["away"]
        far = await came(world)
        assert await shows(far, alice) == ["away"]
        bob.session.hold_messages()  # as while he is given what was stored
        bob.session.release_messages()
        await alice.send(BUSY)
        assert (await shows(bob, alice), await shows(far, alice)) == (["dnd"], ["dnd"])
        await far.drop()
        await alice.send(AWAY)
        assert await shows(bob, alice) == ["away"]
        await bob.drop()
        far = await world.login("bob", "far", node=1)
        await far.receive_all()
        await alice.send(BUSY)
        assert await shows(far, alice) == ["dnd"]
        await alice.drop()
        assert await shows(far, alice) == ["unavailable"]


async def test_nothing_is_told_where_all_contacts_are_here(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, bob = await friends(world)
        await world.login("carol", node=1)
        await world.settle()
        asked: list[object] = []
        world.cluster(0).show = lambda *what, **more: len(asked.append(what) or ())  # type: ignore
        await alice.send(AWAY)
        assert (await shows(bob, alice), asked) == (["away"], [])


async def test_ones_own_session_elsewhere_is_shown_each_change(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, _ = await friends(world)
        far = await world.login("alice", "far", node=1)
        await far.receive_all()
        await alice.send(AWAY)
        assert await shows(far, alice) == ["away"]
        await far.send("<presence type='unavailable'/>")
        await alice.send(BUSY)
        await far.send("<presence/>")
        assert await shows(far, alice) == ["dnd"]


@pytest.mark.parametrize("steps", [1, 2, 3])
async def test_who_comes_elsewhere_in_the_middle_sees_how_it_is_now(redis_url: str, steps: int) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, bob = await friends(world)
        with_many(alice)
        held = Held(world, steps)
        await alice.send(BUSY)
        far = await came(world)
        held.finish(alice.jid)
        assert (await shows(bob, alice))[-1:] == ["dnd"]
        assert (await shows(far, alice))[-1:] == ["dnd"]


@pytest.mark.parametrize("steps", [1, 2, 3])
async def test_who_moves_in_the_middle_sees_how_it_is_now(redis_url: str, steps: int) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, bob = await friends(world)
        with_many(alice)
        held = Held(world, steps)
        await alice.send(BUSY)
        await bob.drop()
        far = await came(world)
        held.finish(alice.jid)
        assert (await shows(far, alice))[-1:] == ["dnd"]
        await alice.send(AWAY)
        assert await shows(far, alice) == ["away"]


@pytest.mark.parametrize("steps", [1, 2, 3])
async def test_who_loses_sight_in_the_middle_is_shown_nothing_behind_that(redis_url: str, steps: int) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, bob = await friends(world)
        far = await world.login("bob", "far", node=1)
        await far.receive_all()
        with_many(alice)
        held = Held(world, steps)
        await alice.send(BUSY)
        await world.apps[0].contacts.send(alice.bare, bob.bare, "unsubscribed", by="test")
        assert await shows(far, alice) == ["unavailable"]
        held.finish(alice.jid)
        assert await shows(far, alice) == []


@pytest.mark.parametrize("steps", [1, 2, 3])
async def test_an_end_in_the_middle_is_the_last_that_is_seen(redis_url: str, steps: int) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, bob = await friends(world)
        far = await world.login("bob", "far", node=1)
        await far.receive_all()
        with_many(alice)
        held = Held(world, steps)
        await alice.send(BUSY)
        world.apps[0].binding.end(alice.session)
        held.finish(alice.jid)
        assert (await shows(bob, alice))[-1:] == ["unavailable"]
        assert await shows(far, alice) == ["unavailable"], "not the change: that is told last"


async def test_a_change_while_a_node_is_lost_is_seen_when_it_is_met_again(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, bob = await friends(world)
        far = await world.login("bob", "far", node=1)
        await far.receive_all()
        world.cut(0, 1)
        await world.advance(6)
        assert await shows(far, alice) == ["unavailable"]
        await alice.send(BUSY)
        assert await shows(bob, alice) == ["dnd"]
        assert not bob.session.live.is_split and bob.session.live.audience == (bob.session,)
        world.connect_nodes(0, 1, trunk=2)
        assert await shows(far, alice) == ["dnd"]
        await alice.send(AWAY)
        assert (await shows(bob, alice), await shows(far, alice)) == (["away"], ["away"])


async def test_who_is_befriended_elsewhere_is_shown_the_next_change(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, _ = await friends(world)
        carol = await world.login("carol", node=1)
        await alice.send(AWAY)
        assert await shows(carol, alice) == []
        await world.befriend(alice, carol)
        await carol.receive_all()
        await alice.send(BUSY)
        assert await shows(carol, alice) == ["dnd"]
