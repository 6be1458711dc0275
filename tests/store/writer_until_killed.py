"""writer_until_killed.py STORE RUN: writes without end, and prints what has been acknowledged.

STORE is a file, or NODE:PORT/KEYSPACE.

`row N` is a row of the partition `RUN`. `batch N V` is three rows and the static column of the partition
`RUN/N`, written under a condition for V = 1 and then for V = 2. `write N` is two rows of each of the
partitions `RUN/N/0` to `RUN/N/2`, by one call of `write`; those are made in the order of N.
"""

import asyncio
import itertools
import os
import sys

from xmppd.store.cassandra.store import CassandraOptions, CassandraStore
from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Put, Store, Table

ROWS = Table("rows", ("run",), ("number",), {"number": "int", "text": "text"})
TRIPLES = Table(
    "triples", ("part",), ("place",), {"place": "int", "version": "int"}, static={"version_now": "int"}
)
PAIRS = Table("pairs", ("part",), ("place",), {"place": "int", "stanza": "blob"}, heap=True)


def acknowledged(line: str) -> None:
    os.write(1, f"{line}\n".encode())


async def rows(store: Store, run: str, numbers: "itertools.count[int]") -> None:
    for number in numbers:
        await store.put(ROWS, {"run": run, "number": number, "text": "x" * (number % 2000)})
        acknowledged(f"row {number}")


async def batches(store: Store, run: str, numbers: "itertools.count[int]") -> None:
    for number in numbers:
        for version in (1, 2):
            puts = [Put({"place": place, "version": version}) for place in range(3)]
            done = await store.batch(
                TRIPLES,
                (f"{run}/{number}",),
                puts,
                static={"version_now": version},
                expect={"version_now": version - 1 or None},
            )
            assert done
            acknowledged(f"batch {number} {version}")


async def writes(store: Store, run: str, numbers: "itertools.count[int]") -> None:
    writer = store.writer(PAIRS, ("part", "place", "stanza"))
    for number in numbers:
        parts = [f"{run}/{number}/{part}" for part in range(3)]
        pairs = [writer.row(part, place, b"x" * (number % 2000)) for part in parts for place in range(2)]
        await store.write(pairs)
        acknowledged(f"write {number}")


def store_of(place: str) -> Store:
    nodes, _, keyspace = place.partition("/")
    if place.startswith("/"):
        return SqliteStore(place)
    host, _, port = nodes.rpartition(":")
    return CassandraStore(CassandraOptions(contact_points=((host, int(port)),), keyspace=keyspace))


async def main(place: str, run: str) -> None:
    store = store_of(place)
    await store.open([ROWS, TRIPLES, PAIRS])
    row_numbers, batch_numbers, write_numbers = itertools.count(), itertools.count(), itertools.count()
    await asyncio.gather(
        *(rows(store, run, row_numbers) for _ in range(20)),
        *(batches(store, run, batch_numbers) for _ in range(10)),
        *(writes(store, run, write_numbers) for _ in range(20)),
    )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
