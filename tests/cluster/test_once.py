"""What plugins do on one node of all (`@every(..., once=True)`)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from several import several

from xmppd.testing import World

pytestmark = pytest.mark.asyncio

CLERK = """
import asyncio
from xmppd.plugin import Kept, Plugin, every

class Clerk(Plugin):
    done = Kept(list)
    is_slow = Kept(list)

    async def start(self):
        self.gate = asyncio.Event()

    @every(20, once=True)
    async def work(self):
        self.done.append(round(self.now() - 1_700_000_000.0, 3))
        if self.is_slow:
            await self.gate.wait()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "clerk.py").write_text(CLERK)
    return tmp_path


def world_of(folder: Path, redis_url: str, nodes: int) -> World:
    return World(plugins=("clerk",), plugin_folders=(folder,), settings=several(redis_url), nodes=nodes)


def done(world: World) -> list[list[float]]:
    """When each node did it."""
    return [clerk.done for clerk in world.plugins("clerk")]


def at_work(world: World) -> int:
    """The node that did it so far."""
    [node] = [number for number, moments in enumerate(done(world)) if moments]
    return node


def kill(world: World, node: int) -> None:
    """Nothing of it goes on, and nobody is told."""
    world.apps[node].timers.close()
    for other in range(len(world.apps)):
        if other != node:
            world.cut(node, other)


def slow_down(world: World) -> None:
    for clerk in world.plugins("clerk"):
        clerk.is_slow.append(True)


def go_on(world: World, node: int) -> None:
    world.plugin("clerk", node).gate.set()


@pytest.mark.parametrize("nodes", [2, 3])
async def test_one_node_does_it_each_time_and_stays_at_it(folder: Path, redis_url: str, nodes: int) -> None:
    async with world_of(folder, redis_url, nodes) as world:
        await world.advance(100)
        assert sorted(done(world)) == [[]] * (nodes - 1) + [[20, 40, 60, 80, 100]]


async def test_another_node_goes_on_when_that_one_is_killed(folder: Path, redis_url: str) -> None:
    async with world_of(folder, redis_url, 3) as world:
        await world.advance(50)
        dead = at_work(world)
        kill(world, dead)
        await world.advance(60)
        moments = done(world)
        assert moments.pop(dead) == [20, 40]
        assert sorted(moments) == [[], [60.5, 80.5, 100.5]]


async def test_a_node_that_is_killed_at_work_has_it_for_as_long_as_it_said(
    folder: Path, redis_url: str
) -> None:
    async with world_of(folder, redis_url, 2) as world:
        slow_down(world)
        await world.advance(21)
        dead = at_work(world)
        kill(world, dead)
        await world.advance(38)
        assert done(world)[1 - dead] == [40.5], "it is at work itself since then"


async def test_nobody_begins_while_it_is_done(folder: Path, redis_url: str) -> None:
    async with world_of(folder, redis_url, 2) as world:
        await world.advance(20)
        node = at_work(world)
        slow_down(world)
        await world.advance(25)
        assert done(world)[node] == [20, 40]
        go_on(world, node)
        await world.advance(15)
        assert (done(world)[node], done(world)[1 - node]) == ([20, 40, 60], [])


async def test_loading_the_plugin_again_adds_no_call(folder: Path, redis_url: str) -> None:
    async with world_of(folder, redis_url, 2) as world:
        await world.advance(30)
        for app in world.apps:
            await app.loader.reload("clerk", world.config)
        await world.advance(40)
        assert sorted(moment for moments in done(world) for moment in moments) == [20, 50, 70]


async def test_a_node_that_comes_later_does_not_do_it_too(folder: Path, redis_url: str) -> None:
    async with world_of(folder, redis_url, 2) as world:
        await world.app.loader.close()
        await world.advance(30)
        await world.app.loader.load(world.config)
        await world.advance(30)
        assert done(world) == [[], [20, 40, 60]]


async def test_while_nothing_is_shared_the_first_of_those_that_are_connected_does_it(
    folder: Path, redis_url: str
) -> None:
    async with world_of(folder, redis_url, 3) as world:
        for app in world.apps:
            app.duties.shared = None
        await world.advance(50)
        assert done(world) == [[20, 40], [], []]
        kill(world, 0)
        await world.advance(40)
        assert done(world)[1:] == [[61, 81], []]


async def test_it_is_ready_to_be_done_by_others_when_an_instance_ends_before_it_began(
    folder: Path, redis_url: str
) -> None:
    async with world_of(folder, redis_url, 2) as world:
        slow, gate = world.apps[0].duties, asyncio.Event()
        shared: Any = slow.shared

        class Waiting:
            done = shared.done

            async def take(self, name: str, seconds: float) -> float:
                left: float = await shared.take(name, seconds)
                await gate.wait()
                return left

        slow.shared = Waiting()
        kill(world, 1)
        await world.advance(21)
        world.plugin("clerk").scope.stop_timers()
        gate.set()
        await world.settle()
        assert done(world) == [[], []]
        assert await shared.take("clerk:work", 1.0) == pytest.approx(18.5)


async def test_one_node_does_it_as_if_it_were_not_marked(folder: Path) -> None:
    async with World(plugins=("clerk",), plugin_folders=(folder,), nodes=1) as world:
        await world.advance(40)
        assert done(world) == [[20, 40]]


async def test_what_is_done_quickly_is_free_when_it_is_due_again(folder: Path, redis_url: str) -> None:
    (folder / "clerk.py").write_text(CLERK.replace("20, once", "2, once"))
    async with world_of(folder, redis_url, 2) as world:
        await world.advance(8)
        assert sorted(done(world)) == [[], [2, 4, 6, 8]]


async def test_who_saw_another_node_at_work_does_not_wait_for_its_death(folder: Path, redis_url: str) -> None:
    (folder / "clerk.py").write_text(CLERK.replace("20, once", "2, once"))
    async with world_of(folder, redis_url, 2) as world:
        slow_down(world)
        await world.advance(2.5)
        node = at_work(world)
        go_on(world, node)
        await world.settle()
        kill(world, node)
        await world.advance(3)
        assert done(world)[1 - node] == [4.4]
