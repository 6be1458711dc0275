"""completions [ROUNDS]: what it costs to bring an answer of Cassandra's driver from its thread to the loop.

A thread completes requests in bursts, as the driver's does, once through the queue of the store's link and
once by a wake-up of the loop for each. CPU of the process in us for each answer, the thread's part and the
futures included; `bare` is the same without any crossing, so the difference is what crossing costs. No
Cassandra is needed.
"""

import asyncio
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import uvloop

from xmppd.store.cassandra.link import Link
from xmppd.store.cassandra.options import CassandraOptions

BURSTS = (1, 8, 32, 128)
ANSWERS = 64_000
ROUNDS = 5

Complete = Callable[[asyncio.Future[Any]], object]


class Queued(Link):
    """The link with requests that nobody was asked."""

    def ask(self) -> asyncio.Future[Any]:
        """A request that waits for its answer."""
        self._loop = asyncio.get_running_loop()
        answer = self._loop.create_future()
        self._asked.add(answer)
        self.slots.used += 1
        self._begin()
        return answer

    def complete(self, answer: asyncio.Future[Any]) -> None:
        """What the driver does in its thread."""
        self._answered([], answer)

    def wake_up(self, answer: asyncio.Future[Any]) -> None:
        """What it would do without the queue."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self.complete_here, answer)

    def complete_here(self, answer: asyncio.Future[Any]) -> None:
        """The same on the loop."""
        self._done.append((answer, [], None))
        self._deliver()


async def spent(link: Queued, complete: Complete | None, burst: int) -> float:
    """CPU in us for each answer; without `complete` the loop itself does it."""
    loop = asyncio.get_running_loop()
    bursts: list[list[asyncio.Future[Any]]] = []
    ready, is_over = threading.Semaphore(0), False

    def driver() -> None:
        while True:
            ready.acquire()
            if is_over:
                return
            for answer in bursts.pop():
                complete(answer)  # type: ignore[misc]

    thread = threading.Thread(target=driver)
    thread.start()
    began = time.process_time()
    for _ in range(ANSWERS // burst):
        answers = [link.ask() for _ in range(burst)]
        if complete is None:
            for answer in answers:
                loop.call_soon(link.complete_here, answer)
        else:
            bursts.append(answers)
            ready.release()
        await asyncio.gather(*answers)
    used = time.process_time() - began
    is_over = True
    ready.release()
    thread.join()
    return used / (ANSWERS // burst * burst) * 1e6


async def measure(burst: int) -> tuple[float, float]:
    """What crossing costs above doing it on the loop: through the queue, and with a wake-up for each."""
    link = Queued(CassandraOptions())
    bare = await spent(link, None, burst)
    return await spent(link, link.complete, burst) - bare, await spent(link, link.wake_up, burst) - bare


def main() -> None:
    """The command line."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(f"us of CPU for each answer, median of {rounds} rounds")
    print(f"{'loop':8} {'burst':>6} {'queue':>8} {'each':>8}")
    for loop, run in (("uvloop", uvloop.run), ("asyncio", asyncio.run)):
        for burst in BURSTS:
            found = [run(measure(burst)) for _ in range(rounds)]
            queued, each = (statistics.median(column) for column in zip(*found, strict=True))
            print(f"{loop:8} {burst:6} {queued:8.2f} {each:8.2f}", flush=True)


if __name__ == "__main__":
    main()
