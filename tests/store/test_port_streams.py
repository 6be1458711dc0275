"""What every engine must do, written against the port only: all of large partitions read, and deleted."""

import asyncio
from typing import Any

import pytest

from xmppd.errors import StoreBug, StoreUnavailable
from xmppd.store.table import Put, Store, Table

pytestmark = pytest.mark.asyncio

LOG = Table("log", ("owner",), ("id",), {"owner": "int", "id": "int", "stanza": "blob"}, heap=True)
NEWEST = Table("newest", LOG.partition, LOG.cluster, LOG.columns, descending=True)
ITEMS = Table("items", ("account",), ("part", "name"), {"value": "text"}, {"version": "int"})
PROFILE = Table("profile", ("account",), columns={"age": "int"})


async def fill(store: Store, table: Table, owner: int, count: int, size: int = 20) -> None:
    writer = store.writer(table, ("owner", "id", "stanza"))
    step = min(500, 500_000 // size)
    for start in range(0, count, step):
        numbers = range(start, min(start + step, count))
        await store.write([writer.row(owner, number, bytes([number % 256]) * size) for number in numbers])


async def pieces(store: Store, table: Table, **how: Any) -> list[list[Any]]:
    return [rows async for rows in store.stream(table, (7,), ("id",), **how)]


def joined(found: list[list[Any]]) -> list[int]:
    return [number for rows in found for (number,) in rows]


# streams


@pytest.mark.parametrize("table", [LOG, NEWEST])
async def test_a_stream_has_all_rows_of_its_range_in_order(opened, table):
    store = await opened(table)
    await fill(store, table, 7, 2500)
    await fill(store, table, 8, 3)
    for how, expected in (
        ({}, range(2500)),
        ({"after": (99,), "before": (2400,)}, range(100, 2400)),
        ({"start": (99,), "end": (99,)}, range(99, 100)),
        ({"start": (5000,)}, range(0)),
    ):
        for reverse in (False, True):
            found = await pieces(store, table, **how, reverse=reverse)
            assert joined(found) == list(expected)[:: -1 if table.descending != reverse else 1]
            assert all(found)


async def test_pieces_are_small_in_rows_and_in_bytes(opened):
    store = await opened(LOG)
    await fill(store, LOG, 7, 3000)
    assert max(map(len, await pieces(store, LOG))) < 2000
    large = [rows async for rows in store.stream(LOG, (7,), ("stanza", "id"))]
    assert sum(map(len, large)) == 3000
    await store.delete(LOG, (7,))
    await fill(store, LOG, 7, 400, size=30_000)
    large = [rows async for rows in store.stream(LOG, (7,), ("stanza", "id"))]
    assert [number for rows in large for _, number in rows] == list(range(400))
    assert max(sum(len(stanza) for stanza, _ in rows) for rows in large[1:]) < (1 << 20) + 60_000


async def test_others_go_on_while_much_is_read(opened):
    store = await opened(LOG)
    await fill(store, LOG, 7, 1500)
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        asyncio.get_running_loop().call_soon(turn)

    turn()
    seen = [turns async for _ in store.stream(LOG, (7,), ("id",))]
    assert len(set(seen)) == len(seen) > 1


async def test_a_stream_that_is_left_asks_for_nothing_more(opened):
    store = await opened(LOG)
    await fill(store, LOG, 7, 1500)
    stream = store.stream(LOG, (7,), ("id",))
    first = await anext(stream)
    assert first[0] == (0,)
    await stream.aclose()
    reads = store.stats.reads
    await asyncio.sleep(0.05)
    assert store.stats.reads == reads


async def test_a_stream_fails_as_a_scan_does(opened):
    store = await opened(LOG)
    with pytest.raises(StoreBug):
        await anext(store.stream(LOG, (7, 8), ("id",)))
    with pytest.raises(StoreBug):
        await anext(store.stream(LOG, (7,), ("other",)))
    await fill(store, LOG, 7, 1500)
    stream = store.stream(LOG, (7,), ("id",))
    await anext(stream)
    await store.close()
    with pytest.raises(StoreUnavailable):
        async for _ in stream:
            pass


# deletion


@pytest.mark.parametrize("table", [LOG, NEWEST])
@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 350])
async def test_a_partition_of_any_size_is_deleted_and_no_other(opened, table, count):
    store = await opened(table)
    await fill(store, table, 7, count)
    for owner in (6, 8):
        await fill(store, table, owner, 150)
    await store.delete(table, (7,))
    assert (await store.scan(table, (7,))).rows == []
    assert [len((await store.scan(table, (owner,))).rows) for owner in (6, 8)] == [150, 150]


@pytest.mark.parametrize("count", [0, 1, 100, 250])
async def test_static_columns_go_with_the_last_row(opened, count):
    store = await opened(ITEMS)
    writes = [Put({"part": str(number % 3), "name": f"{number:04}"}) for number in range(count)]
    for account in "ab":
        await store.batch(ITEMS, (account,), writes, static={"version": 1})
    await store.delete(ITEMS, ("a",))
    assert (await store.scan(ITEMS, ("a",))).rows == []
    assert await store.get_static(ITEMS, ("a",)) is None
    assert len((await store.scan(ITEMS, ("b",))).rows) == count
    assert await store.get_static(ITEMS, ("b",)) == {"version": 1}


async def test_a_row_that_is_a_partition_is_deleted(opened):
    store = await opened(PROFILE)
    await store.put_many(PROFILE, [{"account": account, "age": 1} for account in "ab"])
    await store.delete(PROFILE, ("a",))
    assert [row["account"] for row in (await store.scan_all(PROFILE)).rows] == ["b"]
