"""store writes [ROUNDS]: what an archive's rows cost by each way to write and read them. CPU of this process.

A message is two rows of 300 bytes in two partitions, 32 messages are under way. The ways of one kind take
turns for some rounds, and the best of each is shown beside the first: trust the ratios. On Cassandra, if
XMPPD_TEST_CASSANDRA says where one is, its own CPU is not counted.
"""

import asyncio
import dataclasses
import os
import random
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import uvloop

from xmppd.store.cassandra.store import CassandraOptions, CassandraStore
from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Store, Table

LOG = Table(
    "log",
    partition=("owner", "month"),
    cluster=("id", "peer"),
    columns={"owner": "int", "month": "int", "id": "blob", "stanza": "blob"},
    heap=True,
)
CLUSTERED = dataclasses.replace(LOG, name="clustered", heap=False)
COLUMNS = ("owner", "month", "id", "peer", "stanza")
STANZA = b"<message>" + b"x" * 281 + b"</message>"
MESSAGES = 4000
UNDER_WAY = 32
ACCOUNTS, HOT = 2000, 100
PAGES, PAGE = 400, 50
READER, READ = 1 << 40, 20_000

Way = Callable[[], Awaitable[int]]
"""Does something; how often."""


class Messages:
    """Rows for messages between random accounts, each with an id of its own."""

    def __init__(self, accounts: int) -> None:
        self._accounts = accounts
        self._chance = random.Random(accounts)
        self._next = time.time_ns()

    def rows(self) -> list[tuple[Any, ...]]:
        """Both rows of a message."""
        self._next += 1
        ident = self._next.to_bytes(12, "big")
        one, other = self._chance.sample(range(self._accounts), 2)
        return [
            (own, 680, ident, f"user{peer}@localhost", STANZA) for own, peer in ((one, other), (other, one))
        ]


def named(row: Sequence[Any]) -> dict[str, Any]:
    return dict(zip(COLUMNS, row, strict=True))


async def many(message: Callable[[], Awaitable[object]]) -> int:
    """So many messages, some under way at a time."""
    left = MESSAGES

    async def send() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await message()

    await asyncio.gather(*(send() for _ in range(UNDER_WAY)))
    return MESSAGES


def writing(store: Store, accounts: int) -> dict[str, Way]:
    made = Messages(accounts)
    writer = store.writer(LOG, COLUMNS)

    def puts(table: Table) -> Way:
        async def message() -> None:
            await asyncio.gather(*(store.put(table, named(row)) for row in made.rows()))

        return lambda: many(message)

    return {
        "two puts, clustered": puts(CLUSTERED),
        "two puts, heap": puts(LOG),
        "put_many, heap": lambda: many(lambda: store.put_many(LOG, [named(row) for row in made.rows()])),
        "one write, heap": lambda: many(lambda: store.write([writer.row(*row) for row in made.rows()])),
    }


async def fill(store: Store) -> list[bytes]:
    """One large partition, of twenty peers and one that is rare; the ids."""
    writer = store.writer(LOG, COLUMNS)
    ids = [number.to_bytes(12, "big") for number in range(READ)]
    for start in range(0, READ, 100):
        await store.write(
            [
                writer.row(READER, 680, ids[n], "rare" if n % 997 == 0 else f"user{n % 20}@localhost", STANZA)
                for n in range(start, start + 100)
            ]
        )
    return ids


def reading(store: Store, ids: list[bytes]) -> dict[str, Way]:
    here, chance = (READER, 680), random.Random(1)

    async def pages(ask: Callable[[bytes], Awaitable[object]]) -> int:
        for _ in range(PAGES):
            await ask(chance.choice(ids[:-PAGE]))
        return PAGES

    def columns(after: bytes, **how: Any) -> Awaitable[object]:
        return store.scan_columns(LOG, here, ("id", "stanza"), after=(after,), limit=PAGE, **how)

    return {
        "page of 50, dicts": lambda: pages(lambda at: store.scan(LOG, here, after=(at,), limit=PAGE)),
        "page of 50, tuples": lambda: pages(columns),
        "of 2000 rows those of a rare peer": lambda: pages(
            lambda at: columns(at, match={"peer": "rare"}, examine=2000, before=(next_id(at, 2000),))
        ),
        "50 rows by their ids": lambda: pages(
            lambda at: store.get_rows(LOG, here, [(chance.choice(ids),) for _ in range(PAGE)])
        ),
    }


def next_id(ident: bytes, further: int) -> bytes:
    return (int.from_bytes(ident, "big") + further).to_bytes(12, "big")


def wholes(store: Store) -> dict[str, Way]:
    async def stream() -> int:
        rows = 0
        async for some in store.stream(LOG, (READER, 680), ("id", "stanza")):
            rows += len(some)
        return rows

    return {"a row of a stream": stream}


async def compare(title: str, ways: dict[str, Way], rounds: int) -> None:
    best: dict[str, tuple[float, float]] = {}
    for _ in range(rounds):
        for name, way in ways.items():
            cpu, begun = time.process_time(), time.perf_counter()
            count = await way()
            figures = (time.process_time() - cpu) / count * 1e6, count / (time.perf_counter() - begun)
            best[name] = min(best.get(name, figures), figures)
    first = next(iter(best.values()))[0]
    for name, (cost, rate) in best.items():
        print(f"{title:28} {name:34} {cost:8.1f} us {cost / first:6.2f} {rate:9.0f}/s", flush=True)


async def engine(name: str, store: Store, rounds: int) -> None:
    await store.open([LOG, CLUSTERED])
    for accounts in (ACCOUNTS, HOT):
        await compare(f"{name}, of {accounts} accounts", writing(store, accounts), rounds)
    ids = await fill(store)
    await compare(name, reading(store, ids), rounds)
    await compare(name, wholes(store), rounds)
    cpu = time.process_time()
    await store.delete(LOG, (READER, 680))
    print(f"{name:28} {'a row of a deleted partition':34} {(time.process_time() - cpu) / READ * 1e6:8.1f} us")
    await store.close()


async def main(folder: Path, rounds: int) -> None:
    await engine("sqlite", SqliteStore(folder / "store.db"), rounds)
    if nodes := os.environ.get("XMPPD_TEST_CASSANDRA"):
        points = tuple(
            (host, int(port)) for host, _, port in (node.rpartition(":") for node in nodes.split(","))
        )
        options = CassandraOptions(contact_points=points, keyspace=f"bench_{uuid.uuid4().hex[:8]}")
        await engine("cassandra", CassandraStore(options), rounds)
        print(f"the keyspace {options.keyspace} is left")


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with (
        tempfile.TemporaryDirectory() as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(main(Path(folder), rounds))
