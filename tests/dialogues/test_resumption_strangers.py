"""Directed presence (RFC 6121 4.6) and sessions that are resumed on another node (XEP-0198 5): it is shown
again to who was shown it, to nobody who has come by his name since, and its end is seen by all who saw it.
"""

import pytest
from managing import enable, resume
from several import several

from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio


async def presences(client: Client) -> list[tuple[str | None, str | None]]:
    """Of whom a client has been shown presence, and of which type."""
    return [
        (one.get("from"), one.get("type"))
        for one in await client.receive_all()
        if one.tag.endswith("presence")
    ]


async def kill(world: World, node: int, *others: int) -> None:
    """A node is gone without a word, and the others know."""
    for other in others:
        world.cut(node, other)
        mesh = world.cluster(other).mesh
        mesh.give_up(mesh.members[world.cluster(node).mesh.name], "it was killed")
    await world.settle()


def left_of(world: World) -> list[int]:
    """How many pairs each node remembers of who was shown whom."""
    return [len(world.cluster(node).presence.directed.seen) for node in range(len(world.apps))]


@pytest.mark.parametrize("is_away", [False, True])
@pytest.mark.parametrize("node", [0, 1, 2])
@pytest.mark.parametrize("to", ["bob@localhost/r", "bob@localhost"])
async def test_who_came_by_the_name_of_another_is_not_shown_a_stranger(
    redis_url: str, to: str, node: int, *, is_away: bool
) -> None:
    async with World(nodes=3, settings=several(redis_url)) as world:
        alice, carol = await world.login("alice", "r", node=0), await world.login("carol", node=2)
        bob = await world.login("bob", "r", node=2)
        id = await enable(alice)
        await alice.send(f"<presence to='{to}'/><presence to='{carol.jid}'/>")
        assert await presences(bob) == await presences(carol) == [(alice.jid, None)]
        if is_away:
            await alice.drop()
        await bob.drop()
        bob = await world.login("bob", "r", node=node)
        again = await resume(world, alice, id, node=1)
        await world.advance(60)
        assert (alice.jid, None) not in await presences(bob)
        assert await presences(carol) == [(alice.jid, None)], "who was shown it is shown it again"
        await again.send("</stream:stream>")
        assert (alice.jid, None) not in await presences(bob)
        assert await presences(carol) == [(alice.jid, "unavailable")]
        assert left_of(world) == [0, 0, 0]


async def test_the_name_of_who_was_lost_with_his_node_is_that_of_another(redis_url: str) -> None:
    async with World(nodes=3, settings=several(redis_url)) as world:
        alice, bob = await world.login("alice", "r", node=0), await world.login("bob", "r", node=2)
        id = await enable(alice)
        await alice.send(f"<presence to='{bob.jid}'/>")
        await alice.drop()
        await kill(world, 2, 0, 1)
        bob = await world.login("bob", "r", node=1)
        await resume(world, alice, id, node=1)
        await world.advance(60)
        assert (alice.jid, None) not in await presences(bob)


async def test_another_session_of_the_account_is_not_shown_a_stranger(redis_url: str) -> None:
    async with World(nodes=3, settings=several(redis_url)) as world:
        alice, bob = await world.login("alice", "r", node=0), await world.login("bob", "r", node=2)
        id = await enable(alice)
        await alice.send("<presence to='bob@localhost'/>")
        newcomers = [await world.login("bob", f"n{node}", node=node) for node in range(3)]
        for client in (bob, *newcomers):
            await client.receive_all()
        again = await resume(world, alice, id, node=1)
        await world.advance(60)
        assert await presences(bob) == [(alice.jid, None)]
        for client in newcomers:
            assert (alice.jid, None) not in await presences(client)
        await again.send("</stream:stream>")
        assert await presences(bob) == [(alice.jid, "unavailable")]


@pytest.mark.parametrize("node", [0, 1, 2])
@pytest.mark.parametrize("to", ["bob@localhost/r", "bob@localhost"])
async def test_the_loss_of_a_stranger_is_seen_by_who_moved(redis_url: str, to: str, node: int) -> None:
    async with World(nodes=3, settings=several(redis_url)) as world:
        alice, bob = await world.login("alice", "r", node=node), await world.login("bob", "r", node=0)
        id = await enable(bob)
        await alice.send(f"<presence to='{to}'/>")
        assert await presences(bob) == [(alice.jid, None)]
        await bob.drop()
        again = await resume(world, bob, id, 1, node=1)
        await world.advance(5)
        assert (alice.jid, "unavailable") not in await presences(again)
        if node == 1:
            await alice.drop()
        else:
            await kill(world, node, 1, 2 - node)
        assert await presences(again) == [(alice.jid, "unavailable")]
        assert left_of(world)[1] == 0


@pytest.mark.parametrize("node", [1, 2])
@pytest.mark.parametrize("how", ["polite", "lost", "withdrawn", "replaced"])
async def test_the_end_of_a_stranger_is_seen_by_who_was_nowhere(redis_url: str, how: str, node: int) -> None:
    async with World(nodes=3, settings=several(redis_url)) as world:
        alice, bob = await world.login("alice", "r", node=node), await world.login("bob", "r", node=0)
        id = await enable(bob)
        await alice.send(f"<presence to='{bob.jid}'/>")
        await bob.receive_all()
        await bob.drop()
        state = await world.apps[0].handover.give(id, "bob@localhost", 1)
        assert state is not None
        await world.settle()
        if how == "polite":
            await alice.send("</stream:stream>")
        elif how == "withdrawn":
            await alice.send(f"<presence to='{bob.jid}' type='unavailable'/>")
        elif how == "replaced":
            await world.login("alice", "r", node=node)
        else:
            await alice.drop()
        await world.apps[1].handover.keep(state)
        again = await resume(world, bob, id, 1, node=1)
        await world.advance(5)
        assert [kind for who, kind in await presences(again) if who == alice.jid] == ["unavailable"]
        assert left_of(world)[1] == 0


@pytest.mark.parametrize("is_lost", [True, False])
@pytest.mark.parametrize("first", ["sender", "receiver", "both"])
async def test_both_move_and_see_each_other(redis_url: str, first: str, *, is_lost: bool) -> None:
    async with World(nodes=3, settings=several(redis_url)) as world:
        alice, bob = await world.login("alice", "r", node=0), await world.login("bob", "r", node=1)
        ids = {"alice": await enable(alice), "bob": await enable(bob)}
        await alice.send(f"<presence to='{bob.jid}'/>")
        await bob.receive_all()
        await alice.drop()
        await bob.drop()
        there = {"alice": 0, "bob": 1}
        if first == "both":
            states = {
                name: await world.apps[there[name]].handover.give(ids[name], f"{name}@localhost", 0)
                for name in ("alice", "bob")
            }
            await world.settle()
            for name, state in states.items():
                assert state is not None
                await world.apps[2 if name == "bob" else 1].handover.keep(state)
        for name in ("alice", "bob") if first != "receiver" else ("bob", "alice"):
            if name == "alice":
                alice = await resume(world, alice, ids[name], node=1)
            else:
                bob = await resume(world, bob, ids[name], 1, node=2)
        shown = await presences(bob)
        await world.advance(8)
        shown += await presences(bob)
        assert {kind for who, kind in shown if who == alice.jid} <= {None}
        if is_lost:
            await kill(world, 1, 0, 2)
        else:
            await alice.send("</stream:stream>")
        assert await presences(bob) == [(alice.jid, "unavailable")]
        assert left_of(world)[2] == 0


async def test_who_is_not_there_any_more_is_not_shown_it_where_there_is_no_grace(redis_url: str) -> None:
    settings = {**several(redis_url), "cluster": {"grace": 0}}
    async with World(nodes=3, settings=settings) as world:
        alice, carol = await world.login("alice", "r", node=0), await world.login("carol", node=2)
        bob = await world.login("bob", "r", node=2)
        id = await enable(alice)
        await alice.send(f"<presence to='{bob.jid}'/><presence to='{carol.jid}'/>")
        await carol.receive_all()
        await bob.drop()
        bob = await world.login("bob", "r", node=2)
        await bob.receive_all()
        again = await resume(world, alice, id, node=1)
        assert (alice.jid, None) not in await presences(bob)
        assert await presences(carol) == [(alice.jid, "unavailable"), (alice.jid, None)]
        await again.send("</stream:stream>")
        assert await presences(carol) == [(alice.jid, "unavailable")]
