"""Web hooks of several nodes: one delivers, and another goes on when it is gone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from receiver import Receiver
from several import several

from xmppd.testing import World

pytestmark = pytest.mark.own_engine


@asynccontextmanager
async def two(receiver: Receiver, redis_url: str, **config: Any) -> AsyncIterator[World]:
    settings = {"webhooks": {"allowed": ["127.0.0.0/8"], "settle": 0.01, **config}}
    async with World(
        nodes=2, plugins=("webhooks",), plugin_config=settings, settings=several(redis_url)
    ) as world:
        arguments = {"name": "game", "url": receiver.url, "event": ["account.*"]}
        await world.app.commands.call("webhook add", arguments)
        await world.settle()
        yield world


async def passing(world: World, receiver: Receiver, count: int, rounds: int = 400) -> list[str]:
    """The accounts of so many events that were taken: time goes on until then."""
    for _ in range(rounds):
        if len(receiver.events) >= count:
            break
        await world.advance(0.5)
        await asyncio.sleep(0.005)  # for what goes over sockets
    return [event["account"].partition("@")[0] for event in receiver.events]


def holders(world: World) -> list[bool]:
    return [any(it.lease.is_held for it in plugin.couriers.values()) for plugin in world.plugins("webhooks")]


@pytest.mark.asyncio
async def test_one_node_delivers_what_all_tell(redis_url: str) -> None:
    async with Receiver() as receiver, two(receiver, redis_url) as world:
        await world.advance(3)
        assert sorted(holders(world)) == [False, True]
        for number in range(6):
            await world.apps[number % 2].accounts.create(f"a{number}@localhost", "secret")
        assert sorted(await passing(world, receiver, 6)) == [f"a{number}" for number in range(6)]
        await world.advance(5)
        assert len(receiver.events) == 6
        nodes = {event["node"] for event in receiver.events}
        assert len(nodes) == 2


@pytest.mark.asyncio
async def test_one_account_that_is_changed_on_both_is_told_in_order(redis_url: str) -> None:
    async with Receiver() as receiver, two(receiver, redis_url) as world:
        await world.advance(3)
        for number in range(10):
            accounts = world.apps[number % 2].accounts
            await (accounts.disable if number % 2 else accounts.enable)("alice@localhost")
            world.clock.seconds += 0.001
        await passing(world, receiver, 10)
        assert [event["data"]["what"] for event in receiver.events] == ["enabled", "disabled"] * 5


@pytest.mark.asyncio
async def test_another_node_goes_on_where_the_first_one_beats_no_more(redis_url: str) -> None:
    async with Receiver() as receiver, two(receiver, redis_url, lease=6.0) as world:
        await world.advance(3)
        first = holders(world).index(True)
        dead = next(iter(world.plugin("webhooks", first).couriers.values()))
        dead.window.take = lambda *about: ()  # it hangs: it neither sends nor beats
        dead.lease.move = hang
        await world.apps[1 - first].accounts.create("zoe@localhost", "secret")
        await world.apps[first].accounts.create("yan@localhost", "secret")
        assert sorted(await passing(world, receiver, 2)) == ["yan", "zoe"]
        assert holders(world)[1 - first]


async def hang(*about: Any) -> bool:
    await asyncio.Event().wait()
    return True


@pytest.mark.asyncio
async def test_who_was_thought_dead_can_write_nothing(redis_url: str) -> None:
    async with Receiver() as receiver, two(receiver, redis_url) as world:
        await world.advance(3)
        first = holders(world).index(True)
        old = next(iter(world.plugin("webhooks", first).couriers.values())).lease
        new = next(iter(world.plugin("webhooks", 1 - first).couriers.values())).lease
        assert not await new.take()
        world.clock.seconds += 11.0  # without a beat
        assert await new.take()
        assert not await old.move({"writer": 5}, [])
        assert not old.is_held
        assert await new.rows() == {}


@pytest.mark.asyncio
async def test_who_stops_lets_the_other_go_on_at_once(redis_url: str) -> None:
    async with Receiver() as receiver, two(receiver, redis_url, lease=1000.0) as world:
        await world.advance(3)
        first = holders(world).index(True)
        await world.plugin("webhooks", first).stop()
        await world.advance(4)
        assert holders(world)[1 - first]


@pytest.mark.asyncio
async def test_a_change_is_known_to_all(redis_url: str) -> None:
    async with Receiver() as receiver, two(receiver, redis_url) as world:
        await world.apps[1].commands.call("webhook change", {"name": "game", "event": ["session.*"]})
        await world.settle()
        assert [it.known["game"].events for it in world.plugins("webhooks")] == [("session.*",)] * 2
        await world.apps[1].commands.call("webhook remove", {"name": "game"})
        await world.settle()
        assert [it.known for it in world.plugins("webhooks")] == [{}, {}]
