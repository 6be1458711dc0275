"""Timers: order, slices of the loop's time, and the loop's own timer behind them."""

import asyncio
import time

import pytest

from xmppd.timers import Timers


@pytest.mark.asyncio
async def test_what_is_due_first_is_done_first_and_among_equals_who_came_first() -> None:
    now, done = 0.0, list[str]()
    timers = Timers(lambda: now)
    for name, seconds in (("late", 3.0), ("first", 1.0), ("second", 1.0), ("never", 9.0)):
        timers.call_later(seconds, lambda name=name: done.append(name))  # type: ignore[misc]
    assert timers.due == 1.0
    now = 5.0
    assert timers.tick() == 3
    assert done == ["first", "second", "late"]
    timers.close()
    assert (len(timers), timers.due) == (0, None)


@pytest.mark.asyncio
async def test_others_get_their_turn_between_things_that_are_due_at_once() -> None:
    timers, done = Timers(time.monotonic), list[int]()

    def slowly() -> None:
        time.sleep(0.002)
        done.append(len(turns))

    turns: list[None] = []
    for _ in range(5):
        timers.call_later(0, slowly)
    while len(done) < 5:
        turns.append(None)
        await asyncio.sleep(0)
    assert len(set(done)) == 5, "all in one turn"


@pytest.mark.asyncio
async def test_they_run_by_themselves_and_an_earlier_one_is_not_missed() -> None:
    timers, done = Timers(time.monotonic), asyncio.Event()
    late = timers.call_later(3600, lambda: None)
    timers.call_later(0.01, done.set)
    await asyncio.wait_for(done.wait(), 10)
    assert len(timers) == 1
    late.cancel()
    late.cancel()
    assert len(timers) == 0
