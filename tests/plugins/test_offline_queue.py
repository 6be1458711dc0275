"""What a node knows of the messages that wait for one account, and who holds it."""

import asyncio

import pytest

from plugins.offline.queue import Queue


@pytest.mark.asyncio
async def test_who_is_ended_while_his_client_reads_lets_go_of_nothing_of_others() -> None:
    queue, reads, goes_on = Queue(), asyncio.Event(), asyncio.Event()

    async def deliver() -> None:
        async with queue.gate, queue.ajar():
            await reads.wait()

    async def keep() -> None:
        async with queue.gate:
            await goes_on.wait()

    delivering = asyncio.create_task(deliver())
    await asyncio.sleep(0)
    keeping = asyncio.create_task(keep())
    await asyncio.sleep(0)
    for _ in range(3):
        delivering.cancel()
        await asyncio.sleep(0)
        assert queue.gate.locked() and not delivering.done()
    goes_on.set()
    await keeping
    with pytest.raises(asyncio.CancelledError):
        await delivering
    assert not queue.gate.locked()
