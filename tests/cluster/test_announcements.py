"""Announcements to a part of all on two nodes: whom, how many by node, cancel, and the end of a node."""

from typing import Any

import pytest
from several import bodies, several

from xmppd.errors import CommandError
from xmppd.testing import World

pytestmark = pytest.mark.own_engine

NAMES = ("alice", "bob", "carol", "dave", "erin")


async def crowd(world: World) -> None:
    """alice, carol and erin on the first node, the others on the second."""
    for number, name in enumerate(NAMES):
        await world.login(name, node=number % 2)
    for client in world.clients:
        await client.receive_all()


async def heard(world: World) -> dict[str, list[str]]:
    return {client.bare.partition("@")[0]: await bodies(client) for client in world.clients}


async def call(world: World, at: int, name: str, **arguments: Any) -> Any:
    return await world.apps[at].commands.call(name, arguments)


@pytest.mark.asyncio
async def test_those_at_one_node_are_told(redis_url: str) -> None:
    async with World(nodes=2, plugins=("announce",), accounts=NAMES, settings=several(redis_url)) as world:
        await crowd(world)
        first, second = (app.server.node for app in world.apps)
        preview = await call(world, 0, "announce send", text="tea", preview=True)
        assert preview["nodes"] == [f"{first}: 3", f"{second}: 2"]
        preview = await call(world, 0, "announce send", text="tea", preview=True, node=[second])
        assert (preview["receivers"], preview["nodes"]) == (2, [f"{second}: 2"])
        await call(world, 0, "announce send", text="tea", node=[second])
        await world.advance(2)
        told = {name for name, texts in (await heard(world)).items() if texts == ["tea"]}
        assert told == {"bob", "dave"}
        with pytest.raises(CommandError, match="no node third"):
            await call(world, 0, "announce send", text="tea", node=["third"])


@pytest.mark.asyncio
async def test_it_is_cancelled_from_another_node(redis_url: str) -> None:
    async with World(nodes=2, plugins=("announce",), accounts=NAMES, settings=several(redis_url)) as world:
        await crowd(world)
        id = (await call(world, 0, "announce send", text="tea", pace=1))["id"]
        await world.advance(1)
        [row] = await call(world, 1, "announce list")
        assert (row["id"], row["state"], row["node"]) == (id, "running", world.apps[0].server.node)
        await call(world, 1, "announce cancel", id=id)
        await world.settle()
        assert world.plugin("announce", 0).criers == {}
        told = sum(texts == ["tea"] for texts in (await heard(world)).values())
        assert 0 < told < 5
        await world.advance(30)
        assert not any((await heard(world)).values())
        for node in (0, 1):
            [row] = await call(world, node, "announce list")
            assert (row["state"], row["told"]) == ("cancelled", told)


@pytest.mark.asyncio
@pytest.mark.parametrize("options", [{}, {"all": True}, {"account": [f"{name}@localhost" for name in NAMES]}])
async def test_another_node_goes_on(redis_url: str, options: dict[str, Any]) -> None:
    async with World(nodes=2, plugins=("announce",), accounts=NAMES, settings=several(redis_url)) as world:
        await crowd(world)
        await call(world, 0, "announce send", text="tea", pace=1, **options)
        await world.advance(2)
        dead = world.plugin("announce", 0)
        crier = next(iter(dead.criers.values()))
        told = crier.about.told
        dead.scope.stop_timers()  # it does nothing any more
        for task in [*dead._tasks]:
            task.cancel()
        await world.settle()
        assert 0 < told < 5
        await world.advance(40)
        texts = await heard(world)
        assert set(map(tuple, texts.values())) <= {("tea",), ("tea", "tea")}
        [row] = await call(world, 1, "announce list")
        assert (row["state"], row["node"]) == ("done", world.apps[1].server.node)
        assert 5 <= row["told"] <= 6


@pytest.mark.asyncio
async def test_who_was_thought_dead_can_tell_nobody_more(redis_url: str) -> None:
    async with World(nodes=2, plugins=("announce",), accounts=NAMES, settings=several(redis_url)) as world:
        await crowd(world)
        await call(world, 0, "announce send", text="tea", pace=1)
        await world.settle()
        one, other = world.plugins("announce")
        [about] = await other.known()
        other._silent = {about.id: ((), world.clock.monotonic() - 100)}
        await other._take(about)
        await world.advance(3)
        assert one.criers == {} and len(other.criers) == 1
        await world.advance(10)
        [row] = await call(world, 0, "announce list")
        assert (row["state"], row["node"]) == ("done", world.apps[1].server.node)


@pytest.mark.asyncio
async def test_who_stops_leaves_it_to_another_node(redis_url: str) -> None:
    async with World(nodes=2, plugins=("announce",), accounts=NAMES, settings=several(redis_url)) as world:
        await crowd(world)
        await call(world, 0, "announce send", text="tea", pace=1)
        await world.advance(1)
        gone = world.plugin("announce", 0)
        gone.scope.stop_timers()
        await gone.stop()
        await world.settle()
        [row] = await call(world, 1, "announce list")
        assert row["state"] == "interrupted"
        await world.advance(30)
        assert list((await heard(world)).values()) == [["tea"]] * 5
        [row] = await call(world, 1, "announce list")
        assert (row["state"], row["told"], row["node"]) == ("done", 5, world.apps[1].server.node)
