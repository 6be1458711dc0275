"""A session that was given to a node which has gone before it had it."""

import asyncio
from itertools import combinations
from typing import Any

import pytest
from managing import SM, bodies, count, managed, ready
from several import several

from xmppd import ns
from xmppd.core.handover import GIVEN_SECONDS, OUTCOME_SECONDS
from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio


def chat(body: str) -> str:
    return f"<message to='alice@localhost/r' id='{body}' type='chat'><body>{body}</body></message>"


async def kill(world: World, node: int) -> None:
    """A node is gone, and the others know."""
    name = world.cluster(node).mesh.name
    for one, other in combinations(range(3), 2):
        if node in (one, other):
            world.cut(one, other)
    for other in {0, 1, 2} - {node}:
        mesh = world.cluster(other).mesh
        mesh.give_up(mesh.members[name], "it was killed")
    await world.settle()


async def given_away(world: World) -> tuple[str, str, Client]:
    """Alice's session was given from node 0 to node 1, with a message that she has not acknowledged: its id,
    how many she has, and who writes to her.
    """
    alice, id = await managed(world, "alice", "r", node=0)
    bob = await world.login("bob", node=2)
    had = count(await alice.receive_all())
    await bob.send(chat("1"))
    await alice.drop()
    state = await world.apps[0].handover.give(id, "alice@localhost", had, world.cluster(1).mesh.name)
    assert state is not None and len(state["unacked"]) == 1
    return id, str(had), bob


async def ask(world: World, node: int, id: str, h: str) -> Client:
    client = await ready(world, "alice", node=node)
    client.write(f"<resume xmlns='{ns.SM}' previd='{id}' h='{h}'/>")
    await world.settle()
    return client


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("node", [0, 2])
async def test_it_is_resumed_where_its_client_comes_with_what_it_has_not_acknowledged(
    redis_url: str, node: int, *, is_known: bool
) -> None:
    """Whether it is known by then that the node has gone or not; and nothing newer comes first."""
    async with World(nodes=3, settings=several(redis_url), plugins=("offline",)) as world:
        id, h, bob = await given_away(world)
        if is_known:
            await kill(world, 1)
            alice = await ask(world, node, id, h)
        else:
            for other in (0, 2):
                world.cluster(other).calls.ask = unanswered(world, other)  # type: ignore[method-assign]
            alice = await ask(world, node, id, h)
            assert await alice.receive_all() == []
            await kill(world, 1)
        await bob.send(chat("2"))
        resumed, *rest = await alice.receive_all()
        assert resumed.tag == f"{SM}resumed"
        assert bodies(rest) == ["1", "2"]
        await world.advance(GIVEN_SECONDS + 1)
        assert bodies(await alice.receive_all()) == []


def unanswered(world: World, asker: int) -> Any:
    """Calls of a node, of which node 1 answers none."""
    calls, name = world.cluster(asker).calls, world.cluster(1).mesh.name
    ask = calls.ask

    async def asked(member: Any, *about: Any) -> Any:
        if member.name == name:
            silent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            calls._open[-1] = member, silent
            return await silent
        return await ask(member, *about)

    return asked


async def test_a_node_that_asks_once_more_is_given_it(redis_url: str) -> None:
    """Its client broke off before it had it, and comes back there."""
    async with World(nodes=3, settings=several(redis_url), plugins=("offline",)) as world:
        id, h, _ = await given_away(world)
        resumed, *rest = await (await ask(world, 1, id, h)).receive_all()
        assert resumed.tag == f"{SM}resumed" and bodies(rest) == ["1"]


async def test_while_the_node_may_have_it_others_are_not_given_it(redis_url: str) -> None:
    async with World(nodes=3, settings=several(redis_url), plugins=("offline",)) as world:
        id, h, _ = await given_away(world)
        alice = await ask(world, 2, id, h)
        assert await alice.receive_all() == []
        await world.advance(OUTCOME_SECONDS + 0.5)
        assert [answer.tag for answer in await alice.receive_all()] == [f"{SM}failed"]
        await alice.bind("r")
        await alice.send("<presence/>")
        await world.advance(GIVEN_SECONDS)
        assert bodies(await alice.receive_all()) == ["1"]


async def test_who_asks_meanwhile_is_told_when_the_node_has_it(redis_url: str) -> None:
    async with World(nodes=3, settings=several(redis_url), plugins=("offline",)) as world:
        id, h, _ = await given_away(world)
        asking = asyncio.ensure_future(world.apps[0].handover.give(id, "alice@localhost", int(h), "another"))
        await world.settle()
        assert not asking.done()
        world.apps[0].handover.confirm(id)
        assert await asking is None
