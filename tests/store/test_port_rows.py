"""What every engine must do, written against the port only: rows, values and scans."""

import asyncio
import math
from typing import Any

import pytest

from xmppd.errors import StoreBug
from xmppd.store.table import Put, Row, Store, Table

pytestmark = pytest.mark.asyncio

ITEMS = Table(
    "items",
    partition=("account",),
    cluster=("contact",),
    columns={"name": "text", "rank": "int", "hidden": "bool"},
    static={"version": "int", "title": "text"},
)
PROFILE = Table("profile", partition=("account",), columns={"name": "text", "age": "int"})
LOG = Table(
    "log",
    partition=("room", "day"),
    cluster=("at", "number"),
    columns={"day": "int", "at": "timestamp", "number": "int", "text": "text"},
)
NEWEST = Table("newest", LOG.partition, LOG.cluster, LOG.columns, descending=True)
TYPES = Table(
    "types",
    partition=("p_blob", "p_int"),
    cluster=("c_bool", "c_float", "c_blob", "c_text"),
    columns={
        "p_blob": "blob", "p_int": "int", "c_bool": "bool", "c_float": "float", "c_blob": "blob",
        "text": "text", "blob": "blob", "int": "int", "float": "float", "bool": "bool", "at": "timestamp",
    },
)  # fmt: skip


def item(contact: str, **columns: Any) -> Row:
    """A row of ITEMS as it is read."""
    row: Row = {"account": "a", "contact": contact, "name": None, "rank": None, "hidden": None}
    return {**row, "version": None, "title": None, **columns}


def line(number: int, at: float = 0.0, text: str | None = None) -> Row:
    return {"room": "r", "day": 1, "at": at, "number": number, "text": text}


async def contacts(store: Store, **how: Any) -> list[str]:
    return [row["contact"] for row in (await store.scan(ITEMS, ("a",), **how)).rows]


async def fill(store: Store, table: Table, rows: list[Row]) -> None:
    await asyncio.gather(*(store.put(table, row) for row in rows))


# rows


async def test_a_row_is_read_back_whole(opened):
    store = await opened(ITEMS)
    await store.put(ITEMS, {"account": "a", "contact": "b", "name": "B", "rank": 7, "hidden": True})
    assert await store.get(ITEMS, ("a", "b")) == item("b", name="B", rank=7, hidden=True)


async def test_absent_rows_are_none(opened):
    store = await opened(ITEMS, PROFILE)
    await store.put(ITEMS, {"account": "a", "contact": "b"})
    assert await store.get(ITEMS, ("a", "c")) is None
    assert await store.get(ITEMS, ("c", "b")) is None
    assert await store.get(PROFILE, ("a",)) is None
    assert (await store.scan(ITEMS, ("c",))).rows == []


async def test_a_row_may_be_nothing_but_its_key(opened):
    store = await opened(ITEMS)
    await store.put(ITEMS, {"account": "a", "contact": "b"})
    assert await store.get(ITEMS, ("a", "b")) == item("b")


async def test_a_table_without_clustering_columns_has_one_row_a_partition(opened):
    store = await opened(PROFILE)
    await store.put(PROFILE, {"account": "a", "name": "A"})
    await store.put(PROFILE, {"account": "b", "name": "B", "age": 3})
    assert await store.get(PROFILE, ("a",)) == {"account": "a", "name": "A", "age": None}
    assert (await store.scan(PROFILE, ("b",))).rows == [{"account": "b", "name": "B", "age": 3}]
    await store.delete(PROFILE, ("a",))
    assert await store.get(PROFILE, ("a",)) is None
    assert await store.get(PROFILE, ("b",)) is not None


async def test_rows_of_many_keys_come_in_the_order_of_the_keys(opened):
    store = await opened(PROFILE)
    names = [f"account {number}" for number in range(120)]
    await fill(store, PROFILE, [{"account": name, "age": len(name)} for name in names[::2]])
    rows = await store.get_many(PROFILE, ["nobody", *reversed(names), names[0]])
    there = [{"account": name, "name": None, "age": len(name)} for name in names]
    assert rows[0] is None
    assert rows[1:121:2] == [None] * 60
    assert rows[2:121:2] == there[-2::-2]
    assert rows[121] == there[0]
    assert await store.get_many(PROFILE, []) == []


async def test_many_keys_are_keys_of_one_column(opened):
    store = await opened(PROFILE, ITEMS, LOG)
    for table in (ITEMS, LOG):
        with pytest.raises(StoreBug, match="not one value"):
            await store.get_many(table, ["a"])
    with pytest.raises(StoreBug, match="account"):
        await store.get_many(PROFILE, ["a", 7])


async def test_a_row_that_has_expired_is_not_among_many(engine, opened):
    store = await opened(PROFILE)
    await store.put(PROFILE, {"account": "a", "age": 1}, ttl=1)
    await store.put(PROFILE, {"account": "b", "age": 2})
    assert [row and row["age"] for row in await store.get_many(PROFILE, ["a", "b"])] == [1, 2]
    engine.advance(2.1)
    assert [row and row["age"] for row in await store.get_many(PROFILE, ["a", "b"])] == [None, 2]


async def test_a_put_keeps_the_columns_it_does_not_name(opened):
    store = await opened(ITEMS)
    await store.put(ITEMS, {"account": "a", "contact": "b", "name": "B", "rank": 7})
    await store.put(ITEMS, {"rank": None, "contact": "b", "hidden": False, "account": "a"})
    assert await store.get(ITEMS, ("a", "b")) == item("b", name="B", hidden=False)


async def test_deleting_a_row_leaves_the_others(opened):
    store = await opened(ITEMS)
    await fill(store, ITEMS, [{"account": "a", "contact": c} for c in "bcd"])
    await store.delete(ITEMS, ("a", "c"))
    await store.delete(ITEMS, ("a", "never there"))
    assert await contacts(store) == ["b", "d"]


async def test_deleting_a_partition_takes_its_static_columns_along(opened):
    store = await opened(ITEMS)
    for account in "ab":
        await store.batch(
            ITEMS, (account,), [Put({"contact": "x"}), Put({"contact": "y"})], static={"version": 1}
        )
    await store.delete(ITEMS, ("a",))
    assert await contacts(store) == []
    assert await store.get_static(ITEMS, ("a",)) is None
    assert len((await store.scan(ITEMS, ("b",))).rows) == 2
    assert await store.get_static(ITEMS, ("b",)) == {"version": 1, "title": None}


async def test_a_row_that_comes_back_has_forgotten_its_columns(opened):
    store = await opened(ITEMS)
    await store.put(ITEMS, {"account": "a", "contact": "b", "name": "B"})
    await store.delete(ITEMS, ("a", "b"))
    await store.put(ITEMS, {"account": "a", "contact": "b", "rank": 1})
    assert await store.get(ITEMS, ("a", "b")) == item("b", rank=1)


@pytest.mark.parametrize(
    "columns",
    [
        {"text": "", "blob": b"", "int": 0, "float": 0.0, "bool": False, "at": 0.0},
        {"text": "a\0b", "blob": b"a\0b", "int": -(2**63), "float": 5e-324, "bool": True, "at": -1.5},
        {
            "text": "\U0001f40d \uffff é é \r\n",
            "blob": bytes(range(256)),
            "int": 2**63 - 1,
            "float": math.inf,
        },
        {
            "text": "1",
            "blob": b"1",
            "int": 2**53 + 1,
            "float": 1.7976931348623157e308,
            "at": 1700000000.123456,
        },
        {"text": "NULL'\"--", "float": 0.1 + 0.2, "at": 2**40 + 0.001, "bool": None, "int": None},
        {"text": "x" * 200_000, "blob": b"\xff" * 200_000},
    ],
)
async def test_values_come_back_exactly(opened, columns):
    store = await opened(TYPES)
    key = {
        "p_blob": b"\0k",
        "p_int": -1,
        "c_bool": True,
        "c_float": 0.1,
        "c_blob": b"",
        "c_text": "\0\U0001f40d",
    }
    await store.put(TYPES, key | columns)
    row = await store.get(TYPES, tuple(key.values()))
    expected = {
        column: columns.get(column) for column in ("text", "blob", "int", "float", "bool", "at")
    } | key
    assert row == expected
    assert {column: type(value) for column, value in row.items()} == {
        column: type(value) for column, value in expected.items()
    }


async def test_whole_numbers_are_good_for_floats_and_timestamps(opened):
    store = await opened(TYPES)
    key = {"p_blob": b"", "p_int": 0, "c_bool": False, "c_float": 2, "c_blob": b"", "c_text": ""}
    await store.put(TYPES, key | {"float": 3, "at": 4})
    row = await store.get(TYPES, tuple(key.values()))
    assert [(row[c], type(row[c])) for c in ("c_float", "float", "at")] == [
        (2, float),
        (3, float),
        (4, float),
    ]


async def test_zero_has_no_sign(opened):
    store = await opened(TYPES)
    key = {"p_blob": b"", "p_int": 0, "c_bool": False, "c_float": -0.0, "c_blob": b"", "c_text": ""}
    await store.put(TYPES, key | {"float": -0.0})
    row = await store.get(TYPES, (b"", 0, False, 0.0, b"", ""))
    assert [math.copysign(1, row[column]) for column in ("c_float", "float")] == [1, 1]
    assert await store.put_if(TYPES, key | {"int": 1}, {"float": 0.0})


# scans


async def test_rows_are_ordered_by_code_points(opened):
    store = await opened(ITEMS)
    names = ["", "\0", "A", "B", "a", "a\0", "aa", "b", "é", "\uffff", "\U0001f40d"]
    await fill(store, ITEMS, [{"account": "a", "contact": name} for name in reversed(names)])
    assert await contacts(store) == names
    assert await contacts(store, reverse=True) == names[::-1]


async def test_keys_of_every_type_are_ordered(opened):
    store = await opened(TYPES)
    keys = [
        (flag, number, blob, text)
        for flag in (False, True)
        for number in (-math.inf, -2.5, 0.0, 10.0, math.inf)
        for blob in (b"", b"\0", b"a", b"\xff")
        for text in ("", "b")
    ]
    names = ("c_bool", "c_float", "c_blob", "c_text")
    partition = {"p_blob": b"p", "p_int": 1}
    await fill(store, TYPES, [{**partition, **dict(zip(names, key, strict=True))} for key in reversed(keys)])
    rows = (await store.scan(TYPES, (b"p", 1))).rows
    assert [tuple(row[name] for name in names) for row in rows] == keys
    found = (await store.scan(TYPES, (b"p", 1), start=(True, -2.5), end=(True, 0.0, b"a"))).rows
    assert [tuple(row[name] for name in names) for row in found] == [
        key for key in keys if key[:2] >= (True, -2.5) and key[:3] <= (True, 0.0, b"a")
    ]


LINES = [(at, number) for at in (1.0, 2.0, 3.0) for number in (1, 2, 3)]


@pytest.mark.parametrize("table", [LOG, NEWEST], ids=lambda table: table.name)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    ("start", "end"),
    [
        (None, None), ((), ()), ((2.0,), None), (None, (2.0,)), ((2.0,), (2.0,)), ((1.5,), (2.5,)),
        ((3.0,), (1.0,)), ((2.0, 2), None), (None, (2.0, 2)), ((1.0, 2), (3.0, 1)), ((2.0, 2), (2.0,)),
        ((2.0,), (2.0, 1)), ((2.0, 2), (2.0, 2)), ((2.0, 9), (3.0, 0)), ((9.0,), None),
    ],
)  # fmt: skip
async def test_ranges(opened, table, reverse, start, end):
    store = await opened(table)
    for room, day in (("r", 1), ("r", 2), ("s", 1)):
        await fill(store, table, [line(n, at) | {"room": room, "day": day} for at, n in LINES])
    expected = [
        key
        for key in LINES
        if (not start or key[: len(start)] >= start) and (not end or key[: len(end)] <= end)
    ]
    if table.descending != reverse:
        expected.reverse()
    page = await store.scan(table, ("r", 1), start=start, end=end, reverse=reverse)
    assert page.next is None
    assert [(row["at"], row["number"]) for row in page.rows] == expected
    assert {(row["room"], row["day"]) for row in page.rows} <= {("r", 1)}
    # the same by pages of every size
    for limit in (1, 2, 4, 9, 10**30):
        paged, token = [], None
        while True:
            page = await store.scan(
                table, ("r", 1), start=start, end=end, reverse=reverse, limit=limit, page=token
            )
            assert len(page.rows) <= limit
            paged += [(row["at"], row["number"]) for row in page.rows]
            token = page.next
            if token is None:
                break
            assert len(page.rows) == limit
        assert paged == expected


async def test_pages_go_on_when_rows_come_and_go(opened):
    store = await opened(ITEMS)
    await fill(store, ITEMS, [{"account": "a", "contact": c} for c in "bdfh"])
    page = await store.scan(ITEMS, ("a",), limit=2)
    await store.delete(ITEMS, ("a", "d"))
    await fill(store, ITEMS, [{"account": "a", "contact": c} for c in "ae"])
    assert await contacts(store, limit=2, page=page.next) == ["e", "f"]


async def test_a_page_of_blobs_goes_on(opened):
    store = await opened(TYPES)
    key = {"p_blob": b"p", "p_int": 1, "c_bool": True, "c_float": 0.1, "c_text": '"\U0001f40d'}
    await fill(store, TYPES, [{**key, "c_blob": bytes([n, 0, 255])} for n in range(5)])
    page = await store.scan(TYPES, (b"p", 1), limit=3)
    rest = await store.scan(TYPES, (b"p", 1), limit=3, page=page.next)
    assert [row["c_blob"][0] for row in page.rows + rest.rows] == [0, 1, 2, 3, 4]
    assert rest.next is None


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_page_has_rows(opened, limit):
    store = await opened(ITEMS)
    with pytest.raises(StoreBug):
        await store.scan(ITEMS, ("a",), limit=limit)
    with pytest.raises(StoreBug):
        await store.scan_all(ITEMS, limit=limit)


async def test_hostile_page_tokens_are_refused(opened):
    store = await opened(ITEMS, LOG, PROFILE)
    await fill(store, LOG, [line(n, at) for at, n in LINES])
    await fill(store, ITEMS, [{"account": "a", "contact": c} for c in "bcd"])
    good = (await store.scan(LOG, ("r", 1), limit=4, start=(1.0, 2), end=(2.0,))).next
    everything = (await store.scan_all(LOG, limit=4)).next
    other = (await store.scan(ITEMS, ("a",), limit=1)).next
    backward = (await store.scan(LOG, ("r", 1), limit=1, reverse=True)).next
    tokens = [b"", b"\0", b"[" * 100_000, b"null", b"{}", b"[]", b'"+"', b'["+"]', b'["+",1]', b'["+",1,2,3]',
              b'["+",null,1]', b'["+",1,"x"]', b'["+",[1],2]', b'["+",NaN,1]', b'["+",1e999,1]',
              b'["+",1,1e99]', b'["+",1,' + b"9" * 5000 + b"]", b'["+","\\ud800",1]', b"\xff\xfe", everything,
              other, backward, "text", good[:-2], good[::-1]]  # fmt: skip
    for token in tokens:
        with pytest.raises(StoreBug):
            await store.scan(LOG, ("r", 1), limit=1, page=token)
        if token != everything:
            with pytest.raises(StoreBug):
                await store.scan_all(LOG, page=token)
    for start, end in (((2.0, 3), None), (None, (1.0,)), (None, (2.0, 1)), ((3.0,), None)):
        with pytest.raises(StoreBug):  # a token cannot lead out of the range
            await store.scan(LOG, ("r", 1), start=start, end=end, page=good)
    with pytest.raises(StoreBug):
        await store.scan(PROFILE, ("a",), page=good)
    assert len((await store.scan(LOG, ("r", 1), page=good)).rows) == 4


@pytest.mark.parametrize("table", [LOG, NEWEST], ids=lambda table: table.name)
async def test_all_partitions_are_scanned_once(opened, table):
    store = await opened(table)
    rows = [
        line(n, at) | {"room": room, "day": day} for room in "abc" for day in (1, 2) for at, n in LINES[:4]
    ]
    await fill(store, table, rows)
    for limit in (1, 3, 24, 25):
        found, token = [], None
        while True:
            page = await store.scan_all(table, limit=limit, page=token)
            found += page.rows
            token = page.next
            if token is None:
                break
        assert sorted(found, key=str) == sorted(rows, key=str)
    together = [(row["room"], row["day"]) for row in found]
    assert all(
        together.count(p) == 4 and together[i : i + 4] == [p] * 4
        for i, p in enumerate(together)
        if i % 4 == 0
    )


async def test_scanning_all_shows_the_static_columns_of_each_partition(opened):
    store = await opened(ITEMS)
    for account, version in (("a", 1), ("b", None), ("c", 3)):
        await store.batch(
            ITEMS, (account,), [Put({"contact": "x"}), Put({"contact": "y"})], static={"version": version}
        )
    rows = (await store.scan_all(ITEMS)).rows
    assert sorted((row["account"], row["contact"], row["version"]) for row in rows if row["version"]) == [
        ("a", "x", 1), ("a", "y", 1), ("c", "x", 3), ("c", "y", 3),
    ]  # fmt: skip
    assert len(rows) == 6
