"""store [SECONDS]: how fast the SQLite store is here. A line is one kind of call by 1, 10 or 100 tasks.

CPU is that of the whole process per call. A busy loop is kept at 100 % by callbacks of 50 us, whose time is
not counted. The last line is the same messages written by sqlite3 alone, a transaction each. Times in us.
"""

import asyncio
import contextlib
import itertools
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import uvloop

from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Put, Table

ROSTER = Table(
    "roster",
    ("account",),
    ("part", "name"),
    {"value": "text"},
    static={"version": "int"},
)
MESSAGES = Table("messages", ("account",), ("id",), {"id": "int", "stanza": "blob", "at": "timestamp"})
ACCOUNTS, CONTACTS = 200, 50
STANZA = b"<message>" + b"x" * 230 + b"</message>"
SPIN = 0.00005

Call = Callable[[int], Awaitable[object]]


def account(number: int) -> str:
    return f"user{number % ACCOUNTS}@localhost"


def contact(number: int) -> dict[str, object]:
    return {"part": "item", "name": f"contact{number % CONTACTS}@localhost", "value": "both\x1fSomebody\x1f"}


def calls(store: SqliteStore) -> dict[str, Call]:
    return {
        "put a message of 250 bytes": lambda n: store.put(
            MESSAGES, {"account": account(n), "id": n, "stanza": STANZA, "at": 1700000000.5}
        ),
        "put_if": lambda n: store.put_if(
            ROSTER, {"account": account(n), **contact(n)}, {"value": "both\x1fSomebody\x1f"}
        ),
        "batch of a row and a version": lambda n: store.batch(
            ROSTER, (account(n),), [Put(contact(n))], static={"version": n}
        ),
        "get a row": lambda n: store.get(MESSAGES, (account(n), n % 1000)),
        "get a row and its version": lambda n: store.get(
            ROSTER, (account(n), "item", str(contact(n)["name"]))
        ),
        "scan 50 rows": lambda n: store.scan(ROSTER, (account(n),), start=("item",), end=("item",)),
    }


@contextlib.contextmanager
def busy(loop: asyncio.AbstractEventLoop) -> Iterator[list[int]]:
    """Keeps the loop at 100 %; the list holds the number of callbacks."""
    spins = [0]
    handle: asyncio.Handle

    def spin() -> None:
        nonlocal handle
        end = time.perf_counter() + SPIN
        while time.perf_counter() < end:
            pass
        spins[0] += 1
        handle = loop.call_soon(spin)

    spin()
    yield spins
    handle.cancel()


async def measure(call: Call, tasks: int, seconds: float) -> tuple[int, list[float]]:
    """How many calls were done, and how long each took."""
    numbers, times = itertools.count(), []
    end = time.perf_counter() + seconds

    async def work() -> None:
        start = time.perf_counter()
        while start < end:
            await call(next(numbers))
            done = time.perf_counter()
            times.append(done - start)
            await asyncio.sleep(0)
            start = time.perf_counter()

    await asyncio.gather(*(work() for _ in range(tasks)))
    return len(times), sorted(times)


async def report(name: str, call: Call, tasks: int, seconds: float, *, under_load: bool) -> None:
    load = busy(asyncio.get_running_loop()) if under_load else contextlib.nullcontext([0])
    with load as spins:
        start, cpu = time.perf_counter(), time.process_time()
        count, times = await measure(call, tasks, seconds)
        took, cpu = time.perf_counter() - start, time.process_time() - cpu - spins[0] * SPIN
    row = [count / took, cpu / count * 1e6, *(times[int(len(times) * p)] * 1e6 for p in (0.5, 0.99))]
    row.append(times[-1] * 1e6)
    figures = " ".join(f"{figure:9.0f}" for figure in row)
    kind = "busy" if under_load else "idle"
    print(f"{name:32} {kind} {tasks:5} {figures} {spins[0] * SPIN / took:6.0%}", flush=True)


def one_by_one(path: Path, seconds: float) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(
        "CREATE TABLE t (account TEXT, id INTEGER, stanza BLOB, at REAL, PRIMARY KEY (account, id))"
    )
    start, cpu, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() < start + seconds:
        connection.execute("INSERT INTO t VALUES (?, ?, ?, ?)", (account(count), count, STANZA, 1700000000.5))
        count += 1
    took, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(f"{'sqlite3, a transaction each':32} idle     1 {count / took:9.0f} {cpu / count * 1e6:9.0f}")


async def main(folder: Path, seconds: float) -> None:
    store = SqliteStore(folder / "store.db")
    await store.open([ROSTER, MESSAGES])
    for number in range(ACCOUNTS):
        puts = [Put(contact(place)) for place in range(CONTACTS)]
        await store.batch(ROSTER, (account(number),), puts, static={"version": 1})
    print(f"{'':37} tasks   calls/s    CPU us    median      99 %   slowest   load")
    for under_load in (False, True):
        for name, call in calls(store).items():
            for tasks in (1, 10, 100):
                await report(name, call, tasks, seconds, under_load=under_load)
    await store.close()


if __name__ == "__main__":
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    with tempfile.TemporaryDirectory() as folder:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main(Path(folder), seconds))
        one_by_one(Path(folder) / "plain.db", seconds)
