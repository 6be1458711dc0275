"""Who has to wait for the store: in order, for a bounded time, and outside of a task too."""

import asyncio
from typing import Any

import pytest

from xmppd.core.begun import begun
from xmppd.errors import StoreUnavailable
from xmppd.store._turns import Slots

pytestmark = pytest.mark.asyncio


async def in_callback(make: Any) -> Any:
    """What is made in a callback of the loop, where there is no task."""
    made = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(lambda: made.set_result(make()))
    return await made


async def test_one_may_wait_for_a_slot_outside_of_a_task():
    slots = Slots(1, 10)
    await slots.take(1.0)
    waiting = await in_callback(lambda: begun(slots.take(1.0)))
    assert slots.waiting == 1
    slots.give()
    await waiting
    assert (slots.used, slots.waiting) == (1, 0)


async def test_who_waited_too_long_leaves_the_queue():
    slots = Slots(1, 10)
    await slots.take(1.0)
    waiting = await in_callback(lambda: begun(slots.take(0.01)))
    with pytest.raises(StoreUnavailable, match="waited too long"):
        await waiting
    assert (slots.used, slots.waiting) == (1, 0)
    slots.give()
    assert slots.used == 0
    await slots.take(0.0)


async def test_who_is_cancelled_leaves_the_queue_to_others():
    slots = Slots(1, 10)
    await slots.take(1.0)
    first, second = (asyncio.create_task(slots.take(1.0)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    slots.give()
    await second
    assert (slots.used, slots.waiting) == (1, 0)
    assert first.cancelled()


async def test_too_many_do_not_wait_at_all():
    slots = Slots(1, 0)
    await slots.take(1.0)
    with pytest.raises(StoreUnavailable, match="too many"):
        await slots.take(1.0)
