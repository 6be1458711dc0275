"""writer_until_killed.py DATABASE RUN: writes without end, and prints what has been acknowledged.

`row N` is a row of the partition `RUN`. `batch N V` is three rows and the static column of the partition
`RUN/N`, written under a condition for V = 1 and then for V = 2.
"""

import asyncio
import itertools
import os
import sys

from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Put, Table

ROWS = Table("rows", ("run",), ("number",), {"number": "int", "text": "text"})
TRIPLES = Table(
    "triples", ("part",), ("place",), {"place": "int", "version": "int"}, static={"version_now": "int"}
)


def acknowledged(line: str) -> None:
    os.write(1, f"{line}\n".encode())


async def rows(store: SqliteStore, run: str, numbers: "itertools.count[int]") -> None:
    for number in numbers:
        await store.put(ROWS, {"run": run, "number": number, "text": "x" * (number % 2000)})
        acknowledged(f"row {number}")


async def batches(store: SqliteStore, run: str, numbers: "itertools.count[int]") -> None:
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


async def main(database: str, run: str) -> None:
    store = SqliteStore(database)
    await store.open([ROWS, TRIPLES])
    row_numbers, batch_numbers = itertools.count(), itertools.count()
    await asyncio.gather(
        *(rows(store, run, row_numbers) for _ in range(20)),
        *(batches(store, run, batch_numbers) for _ in range(10)),
    )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
