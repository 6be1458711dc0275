"""What every engine must do, written against the port only: many rows, or many partitions, in one call."""

from typing import Any

import pytest

from xmppd.errors import StoreBug
from xmppd.store.table import Put, Row, Store, Table

pytestmark = pytest.mark.asyncio

ITEMS = Table(
    "items",
    partition=("account",),
    cluster=("part", "name"),
    columns={"value": "text"},
    static={"version": "int"},
)
PROFILE = Table("profile", partition=("account",), columns={"name": "text", "age": "int"})
LOG = Table("log", partition=("room", "day"), cluster=("at",), columns={"day": "int", "at": "timestamp"})
NEWEST = Table("newest", partition=("room",), cluster=("at",), columns={"at": "int"}, descending=True)


def item(account: str, part: str, name: str, **more: Any) -> Row:
    return {"account": account, "part": part, "name": name, "value": None, "version": None, **more}


async def fill(store: Store, account: str, version: int, names: str) -> None:
    writes = [Put({"part": part, "name": name}) for part in ("a", "b", "c") for name in names]
    await store.batch(ITEMS, (account,), writes, static={"version": version})


# writing


async def test_many_rows_are_written(opened):
    store = await opened(PROFILE)
    await store.put(PROFILE, {"account": "7", "name": "kept"})
    rows: list[Row] = [{"account": str(number), "age": number} for number in range(150)]
    await store.put_many(PROFILE, rows)
    found = await store.get_many(PROFILE, [row["account"] for row in rows])
    assert found == [{**row, "name": "kept" if row["age"] == 7 else None} for row in rows]


async def test_rows_of_one_partition_and_of_others_are_written(opened):
    store = await opened(ITEMS)
    keys = [(account, "a", str(number)) for account in "xyz" for number in range(3)]
    await store.put_many(ITEMS, [dict(zip(ITEMS.key, key, strict=True), value="v") for key in keys])
    for account in "xyz":
        page = await store.scan(ITEMS, (account,))
        assert page.rows == [item(account, "a", name, value="v") for name in "012"]


async def test_many_rows_live_as_long_as_they_are_told(engine, opened):
    store = await opened(PROFILE)
    await store.put_many(PROFILE, [{"account": "a", "age": 1}, {"account": "b", "age": 2}], ttl=1)
    await store.put_many(PROFILE, [{"account": "c", "age": 3}])
    names = ["a", "b", "c"]
    assert [row and row["age"] for row in await store.get_many(PROFILE, names)] == [1, 2, 3]
    engine.advance(2.1)
    assert [row and row["age"] for row in await store.get_many(PROFILE, names)] == [None, None, 3]


async def test_no_row_twice_and_no_wrong_one_is_written(opened):
    store = await opened(PROFILE)
    good = {"account": "a", "age": 1}
    for bad, why in (
        ({"account": "a", "age": 2}, "touches one row twice"),
        ({"age": 2}, "lacks account"),
        ({"account": "b", "age": "old"}, "age"),
        ({"account": "b", "size": 2}, "no column size"),
    ):
        with pytest.raises(StoreBug, match=why):
            await store.put_many(PROFILE, [good, bad])
    assert await store.get(PROFILE, ("a",)) is None


async def test_nothing_is_written(opened):
    store = await opened(PROFILE)
    await store.put_many(PROFILE, [])
    assert (await store.scan_all(PROFILE)).rows == []


# reading


async def test_partitions_come_in_the_order_of_their_keys(opened):
    store = await opened(ITEMS)
    accounts = [f"account {number}" for number in range(33)]
    for number, account in enumerate(accounts[::2]):
        await fill(store, account, number, "xy")
    await store.batch(ITEMS, ("empty",), [], static={"version": 5})
    asked = ["nobody", *reversed(accounts), accounts[0], "empty"]
    found = await store.scan_many(ITEMS, asked)
    assert found == [(await store.scan(ITEMS, (account,))).rows for account in asked]
    assert [len(rows) for rows in found] == [0, *[6, 0] * 16, 6, 6, 0]
    assert await store.scan_many(ITEMS, []) == []


async def test_of_many_partitions_a_range_is_read(opened):
    store = await opened(ITEMS, NEWEST)
    await fill(store, "a", 1, "xy")
    await fill(store, "b", 2, "z")
    found = await store.scan_many(ITEMS, ["b", "a"], start=("b",), end=("b",))
    assert found == [[item("b", "b", "z", version=2)], [item("a", "b", name, version=1) for name in "xy"]]
    found = await store.scan_many(ITEMS, ["a"], start=("b", "y"))
    assert [(row["part"], row["name"]) for row in found[0]] == [("b", "y"), ("c", "x"), ("c", "y")]
    await store.put_many(NEWEST, [{"room": room, "at": at} for room in "rs" for at in range(5)])
    found = await store.scan_many(NEWEST, ["s", "r"], start=(1,), end=(3,))
    assert [[row["at"] for row in rows] for rows in found] == [[3, 2, 1]] * 2


async def test_large_partitions_are_read_whole(opened):
    store = await opened(NEWEST)
    for room in "rs":
        await store.batch(NEWEST, (room,), [Put({"at": at}) for at in range(2500)])
    found = await store.scan_many(NEWEST, ["r", "s"])
    assert [[row["at"] for row in rows] for rows in found] == [[*range(2499, -1, -1)]] * 2


async def test_many_partitions_have_keys_of_one_column(opened):
    store = await opened(PROFILE, ITEMS, LOG)
    await store.put(PROFILE, {"account": "a", "age": 1})
    assert await store.scan_many(PROFILE, ["a"]) == [[{"account": "a", "name": None, "age": 1}]]
    with pytest.raises(StoreBug, match="not one value"):
        await store.scan_many(LOG, ["a"])
    with pytest.raises(StoreBug, match="account"):
        await store.scan_many(ITEMS, ["a", 7])
