"""Threads for what blocks in the driver of Cassandra."""

import asyncio
import subprocess
import sys
import threading
import time

import pytest
from patience import PATIENCE

from xmppd.store.cassandra.blocking import THREADS, Blocking

LEAVES = """
import asyncio, threading
from xmppd.store.cassandra.blocking import Blocking

async def main():
    waiting = Blocking(asyncio.get_running_loop()).do(threading.Event().wait)
    await asyncio.wait([waiting], timeout=0.1)

asyncio.run(main())
"""


def test_a_process_does_not_wait_for_what_blocks_for_ever() -> None:
    assert subprocess.run([sys.executable, "-c", LEAVES], timeout=PATIENCE, check=True).returncode == 0


@pytest.mark.asyncio
async def test_answers_and_errors_come_to_who_asked() -> None:
    threads = Blocking(asyncio.get_running_loop())
    assert await threads.do(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await threads.do(divmod, 7, 0)
    threads.end()


@pytest.mark.asyncio
async def test_who_gives_up_is_not_told_and_holds_up_nobody() -> None:
    threads, go_on = Blocking(asyncio.get_running_loop()), threading.Event()
    waiting = [threads.do(go_on.wait, PATIENCE) for _ in range(THREADS)]
    behind = threads.do(divmod, 7, 2)
    for each in waiting:
        each.cancel()
    go_on.set()
    assert await behind == (3, 1)
    threads.end()


@pytest.mark.asyncio
async def test_threads_end() -> None:
    before = set(threading.enumerate())
    threads = Blocking(asyncio.get_running_loop())
    mine = set(threading.enumerate()) - before
    assert len(mine) == THREADS
    threads.end()
    until = time.monotonic() + PATIENCE
    while any(it.is_alive() for it in mine):
        assert time.monotonic() < until
        await asyncio.sleep(0.01)
