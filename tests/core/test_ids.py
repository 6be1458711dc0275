"""Ids over nodes whose clocks are wrong and jump: their order, and what is settled."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any
from unittest.mock import patch

import pytest
from virtualtime import VirtualLoop

from xmppd.core import ids as module
from xmppd.core.ids import EVERYTHING, FRESH_SECONDS, LOOK_SECONDS, SETTLED_SECONDS, HybridClock, Ids
from xmppd.errors import StoreUnavailable
from xmppd.steady import steady
from xmppd.store.table import Page, Table


def test_a_hybrid_clock_never_goes_back() -> None:
    rnd = random.Random(1)
    now = 1_000.0
    clocks = [HybridClock(lambda: now), HybridClock(lambda: now - 600)]
    last = 0
    for _ in range(2_000):
        now = max(0.0, now + rnd.choice((0.001, 1.0, -5.0, 700.0, -700.0)))
        one, other = rnd.sample(clocks, 2)
        given = one.next()
        assert given > last
        assert given >= one.last
        last = given
        other.see(given)
        assert other.read() >= given


def test_an_id_is_behind_what_it_is_to_follow_and_is_the_time_if_it_may() -> None:
    clock = HybridClock(lambda: 5.0)
    assert clock.next() == 5_000_000
    assert clock.next() == 5_000_001
    assert clock.next(after=9_000_000) == 9_000_001
    assert clock.next(after=3) == 9_000_002


class Shelf:
    """Rows of one partition for each table; each call takes a while, in the course of which it is done."""

    def __init__(self, loop: VirtualLoop, rnd: random.Random) -> None:
        self._loop = loop
        self._random = rnd
        self.rows: dict[str, dict[str, int]] = {"queue": {}, "node_clock": {}}
        self.is_away = False
        self.writes = 0

    async def pause(self, most: float) -> None:
        await asyncio.sleep(self._random.uniform(0.0, most))

    async def put(self, table: Table, row: dict[str, Any]) -> None:
        if self.is_away:
            raise StoreUnavailable("away")
        self.writes += 1
        await self.pause(2.0)
        self.rows["node_clock"][row["node"]] = row["at"]
        await self.pause(2.0)

    async def scan(self, table: Table, partition: tuple[str]) -> Page:
        await self.pause(2.0)
        found = [{"node": node, "at": at} for node, at in self.rows["node_clock"].items()]
        await self.pause(2.0)
        return Page(found, None)


class Node:
    """Stores messages, and takes them away: with a range as far as that is settled, the others by name."""

    def __init__(self, run: "Run", number: int) -> None:
        self.run = run
        self.number = number
        self.skew = run.random.uniform(-600, 600)
        self.ids = Ids(run.shelf, self.now, run.loop.time, run.spawn)  # type: ignore[arg-type]
        self.ids.is_shared = True

    def now(self) -> float:
        return 1_700_000_000.0 + self.run.loop.time() + self.skew

    async def store(self, message: int) -> None:
        rnd, queue = self.run.random, self.run.shelf.rows["queue"]
        late = ""
        while True:
            since = await self.ids.begin()
            name = f"{self.ids.time.next():016x}{self.number}"
            await self.run.shelf.pause(90.0 if rnd.random() < 0.1 else 0.5)
            queue.pop(late, None)
            queue[name] = message
            await self.run.shelf.pause(2.0)
            if not self.ids.is_overdue(since):
                break
            late = name
        self.run.acknowledged.add(message)

    async def deliver(self) -> None:
        queue = self.run.shelf.rows["queue"]
        settled = self.ids.settled()
        await self.run.shelf.pause(2.0)
        page = dict(queue)
        await self.run.shelf.pause(5.0)
        self.run.delivered.update(page.values())
        last = max((name for name in page if int(name[:16], 16) <= settled), default="")
        self.run.ranges += bool(last)
        for name in [name for name in queue if name <= last or name in page]:
            del queue[name]


class Run:
    def __init__(self, loop: VirtualLoop, seed: int) -> None:
        self.loop = loop
        self.random = random.Random(seed)
        self.shelf = Shelf(loop, self.random)
        self.acknowledged: set[int] = set()
        self.delivered: set[int] = set()
        self.ranges = 0
        self.tasks: set[asyncio.Task[None]] = set()
        self.nodes = [Node(self, number) for number in range(3)]

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def go(self) -> set[int]:
        """What was acknowledged and is nowhere."""
        rnd = self.random
        for message in range(400):
            node = rnd.choice(self.nodes)
            if rnd.random() < 0.03:
                node.skew = rnd.uniform(-600, 600)
            if rnd.random() < 0.1:
                self.spawn(node.deliver())
            self.spawn(node.store(message))
            for each in self.nodes:
                each.ids.tick()
            await asyncio.sleep(1.0)
        while self.tasks:  # noqa: ASYNC110 - of virtual time
            await asyncio.sleep(1.0)
        return self.acknowledged - self.delivered - {*self.shelf.rows["queue"].values()}


def lost(seeds: int, change: Callable[[Run], None] = lambda run: None) -> int:
    """How many acknowledged messages are nowhere after so many runs."""
    loop, missing, ranges = VirtualLoop(), 0, 0
    logging.getLogger("xmppd.core.ids").disabled = True
    try:
        for seed in range(seeds):
            run = Run(loop, seed)
            change(run)
            missing += len(loop.run_until_complete(run.go()))
            ranges += run.ranges
    finally:
        logging.getLogger("xmppd.core.ids").disabled = False
        loop.close()
    assert ranges > seeds
    return missing


def test_what_is_settled_can_be_deleted_unlooked_at() -> None:
    assert lost(25) == 0


def by_the_clock(run: Run) -> None:
    for node in run.nodes:
        node.ids.settled = lambda node=node: int((node.now() - 60) * 1e6)  # type: ignore[method-assign]


class Deaf(HybridClock):
    def see(self, at: int) -> None:
        """It does not care."""


def without_following(run: Run) -> None:
    for node in run.nodes:
        node.ids.time = Deaf(node.now)


def never_overdue(run: Run) -> None:
    for node in run.nodes:
        node.ids.is_overdue = lambda since: False  # type: ignore[method-assign]


@pytest.mark.parametrize("change", [by_the_clock, without_following, never_overdue])
def test_each_rule_is_needed(change: Callable[[Run], None]) -> None:
    assert lost(25, change) > 0


def test_it_has_to_be_waited_until_a_look_is_settled() -> None:
    with patch.object(module, "SETTLED_SECONDS", 0.0):
        assert lost(25) > 0


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


class Bench:
    """One node on a store that answers at once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.wall = 100.0
        self.shelf = Shelf(None, random.Random(0))  # type: ignore[arg-type]
        self.shelf.pause = self._pause  # type: ignore[method-assign]
        self.tasks: set[asyncio.Task[None]] = set()
        self.ids = Ids(self.shelf, lambda: self.wall, lambda: self.seconds, self._spawn)  # type: ignore[arg-type]

    async def _pause(self, most: float) -> None:
        await asyncio.sleep(0)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.add(task := asyncio.get_running_loop().create_task(work))
        task.add_done_callback(self.tasks.discard)


@pytest.mark.asyncio
async def test_a_node_alone_asks_nobody_and_all_is_settled() -> None:
    bench = Bench()
    await bench.ids.begin()
    bench.ids.tick()
    await settle()
    assert bench.shelf.writes == 0
    assert bench.ids.settled() == EVERYTHING
    since = await bench.ids.begin()
    bench.seconds = 1e6
    assert not bench.ids.is_overdue(since)


@pytest.mark.asyncio
async def test_many_that_begin_at_once_look_once_and_again_when_that_is_old() -> None:
    bench = Bench()
    bench.ids.is_shared = True
    await asyncio.gather(*(bench.ids.begin() for _ in range(50)))
    assert bench.shelf.writes == 1
    await bench.ids.begin()
    assert bench.shelf.writes == 1
    bench.seconds = FRESH_SECONDS + 1
    await bench.ids.begin()
    assert bench.shelf.writes == 2
    bench.seconds += LOOK_SECONDS
    bench.ids.tick()
    bench.ids.tick()
    await settle()
    assert bench.shelf.writes == 3


@pytest.mark.asyncio
@pytest.mark.parametrize("teller", ["clock", "wall", "others"])
async def test_a_machine_that_stood_still_learns_of_it_by_any_clock(teller: str) -> None:
    bench = Bench()
    bench.ids.is_shared = True
    since = await bench.ids.begin()
    assert not bench.ids.is_overdue(since)
    if teller == "clock":
        bench.seconds += SETTLED_SECONDS
    elif teller == "wall":
        bench.wall += SETTLED_SECONDS
    else:
        bench.ids.time.see(int((bench.wall + SETTLED_SECONDS) * 1e6))
    assert bench.ids.is_overdue(since)
    await bench.ids.begin()
    assert bench.shelf.writes == 2


@pytest.mark.asyncio
async def test_a_wall_clock_that_is_set_costs_one_more_look_and_no_more() -> None:
    bench = Bench()
    bench.ids.is_shared = True
    await bench.ids.begin()
    for jump in (600.0, -1200.0, 600.0):
        bench.wall += jump
        for _ in range(3):
            assert not bench.ids.is_overdue(await bench.ids.begin())
    assert bench.shelf.writes == 2


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="Linux has it")
def test_the_clock_of_durations_counts_while_the_machine_sleeps() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= steady() <= time.clock_gettime(time.CLOCK_BOOTTIME)


@pytest.mark.asyncio
async def test_without_a_store_no_id_is_given_and_one_that_gives_up_ends_nothing_for_others() -> None:
    bench = Bench()
    bench.ids.is_shared = True
    one = asyncio.ensure_future(bench.ids.begin())
    other = asyncio.ensure_future(bench.ids.begin())
    await asyncio.sleep(0)
    one.cancel()
    await other
    bench.seconds = FRESH_SECONDS + 1
    bench.shelf.is_away = True
    with pytest.raises(StoreUnavailable):
        await bench.ids.begin()
    bench.shelf.is_away = False
    await bench.ids.begin()


@pytest.mark.asyncio
async def test_a_clock_that_is_behind_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.ids.is_shared = True
    bench.shelf.rows["node_clock"]["far"] = 1_000_000_000
    with caplog.at_level("INFO", "xmppd.core.ids"):
        for _ in range(3):
            bench.seconds += FRESH_SECONDS + 1
            await bench.ids.begin()
    assert [(record.message, record.farthest) for record in caplog.records] == [("clock-behind", "far")]  # type: ignore[attr-defined]
    assert bench.ids.time.next() > 1_000_000_000
