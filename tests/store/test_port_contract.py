"""What every engine must do, written against the port only: refusals, opening, closing, migration."""

import math
from typing import Any

import pytest

from xmppd.errors import StoreBug, StoreUnavailable
from xmppd.store.table import Delete, Put, Row, Store, Table

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


async def contacts(store: Store, **how: Any) -> list[str]:
    return [row["contact"] for row in (await store.scan(ITEMS, ("a",), **how)).rows]


# refusals


KEY = {"account": "a", "contact": "b"}


@pytest.mark.parametrize(
    "row",
    [
        {"account": "a"}, {"contact": "b"}, {}, KEY | {"account": None}, KEY | {"contact": 1},
        KEY | {"nope": 1}, KEY | {"name": b"bytes"}, KEY | {"name": 1}, KEY | {"name": "\ud800"},
        KEY | {"account": "\ud800"}, KEY | {"rank": "1"}, KEY | {"rank": 1.0}, KEY | {"rank": True},
        KEY | {"rank": 2**63}, KEY | {"rank": -(2**63) - 1}, KEY | {"hidden": 1}, KEY | {"hidden": "x"},
        KEY | {"version": 1}, KEY | {"name": ["x"]},
    ],
)  # fmt: skip
async def test_bad_rows_are_refused_and_nothing_is_written(opened, row):
    store = await opened(ITEMS)
    in_batch = {column: value for column, value in row.items() if column != "account"}
    with pytest.raises(StoreBug):
        await store.put(ITEMS, row)
    with pytest.raises(StoreBug):
        await store.put_if(ITEMS, row, None)
    if row.get("account", "a") == "a" and "contact" in row and in_batch != {"contact": "b"}:
        with pytest.raises(StoreBug):
            await store.batch(ITEMS, ("a",), [Put({"contact": "good"}), Put(in_batch)], static={"version": 1})
    assert (await store.scan_all(ITEMS)).rows == []
    assert await store.get_static(ITEMS, ("a",)) is None


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("float", math.nan), ("float", "1"), ("float", True), ("at", math.nan), ("at", math.inf),
        ("at", "now"), ("float", 10**400), ("blob", "text"), ("blob", bytearray(b"x")), ("bool", 0),
        ("int", 1.5), ("text", b""), ("c_float", math.nan), ("c_bool", 1), ("p_int", None), ("p_blob", ""),
    ],
)  # fmt: skip
async def test_bad_values_are_refused_by_name(opened, column, value):
    store = await opened(TYPES)
    key = {"p_blob": b"", "p_int": 0, "c_bool": False, "c_float": 2.5, "c_blob": b"", "c_text": ""}
    with pytest.raises(StoreBug, match=f"types.*{column}"):
        await store.put(TYPES, key | {column: value})


async def test_bad_questions_are_refused(opened):
    store = await opened(ITEMS, PROFILE, LOG)
    bad = [
        lambda: store.get(ITEMS, ("a",)), lambda: store.get(ITEMS, ("a", "b", "c")),
        lambda: store.get(ITEMS, ("a", 1)), lambda: store.get(ITEMS, (None, "b")),
        lambda: store.get(ITEMS, ("\ud800", "b")), lambda: store.get(LOG, ("r", 2**63, 0.0, 0)),
        lambda: store.get(PROFILE, ()), lambda: store.scan(ITEMS, ()), lambda: store.scan(ITEMS, ("a", "b")),
        lambda: store.scan(ITEMS, (1,)), lambda: store.get_static(ITEMS, ()),
        lambda: store.get_static(PROFILE, ("a",)), lambda: store.scan(ITEMS, ("a",), start=(1,)),
        lambda: store.scan(ITEMS, ("a",), end=("b", "c")), lambda: store.scan(ITEMS, ("a",), start=(None,)),
        lambda: store.scan(PROFILE, ("a",), start=("x",)), lambda: store.scan(LOG, ("r", 1), start=("x",)),
        lambda: store.delete(ITEMS, ()), lambda: store.delete(ITEMS, ("a", "b", "c")),
        lambda: store.delete(ITEMS, (1,)), lambda: store.delete(LOG, ("r", 1, 1.0)),
        lambda: store.put_if(ITEMS, KEY, {}), lambda: store.put_if(ITEMS, KEY, {"version": 1}),
        lambda: store.put_if(ITEMS, KEY, {"nope": 1}), lambda: store.put_if(ITEMS, KEY, {"rank": "1"}),
        lambda: store.put_if(ITEMS, KEY, {"contact": "b"}), lambda: store.put(ITEMS, KEY, ttl=0),
        lambda: store.delete_if(ITEMS, ("a", "b"), {}), lambda: store.delete_if(ITEMS, ("a",), {"rank": 1}),
        lambda: store.delete_if(ITEMS, ("a", "b"), {"rank": None, "name": None}),
        lambda: store.delete_if(ITEMS, ("a", "b"), {"rank": "1"}),
        lambda: store.delete_if(ITEMS, ("a", "b"), {"contact": "b"}),
        lambda: store.delete_if(ITEMS, ("a", "b"), {"version": 1}),
        lambda: store.put(ITEMS, KEY, ttl=-1), lambda: store.put(ITEMS, KEY, ttl=math.nan),
        lambda: store.put(ITEMS, KEY, ttl=math.inf), lambda: store.batch(ITEMS, ("a",), [], expect={}),
        lambda: store.batch(ITEMS, ("a",), [], static={"rank": 1}),
        lambda: store.batch(ITEMS, ("a",), [], expect={"rank": 1}), lambda: store.batch(ITEMS, (), []),
        lambda: store.batch(ITEMS, ("a",), [], static={"version": "1"}),
        lambda: store.batch(PROFILE, ("a",), [], static={"version": 1}),
        lambda: store.batch(PROFILE, ("a",), [], expect={"version": 1}),
        lambda: store.batch(ITEMS, ("a",), [Put(KEY)]),
        lambda: store.batch(ITEMS, ("a",), [Delete(("b", "c"))]),
        lambda: store.batch(ITEMS, ("a",), [Delete((1,))]),
        lambda: store.batch(ITEMS, ("a",), [Delete((), through=True)]),
        lambda: store.batch(ITEMS, ("a",), [Delete((1,), through=True)]),
        lambda: store.batch(LOG, ("r", 1), [Delete((1.0,))]),
    ]  # fmt: skip
    for ask in bad:
        with pytest.raises(StoreBug):
            await ask()
    assert (await store.scan_all(ITEMS)).rows == []


async def test_the_only_column_of_a_partition_key_is_not_empty(opened):
    blobs = Table("blobs", ("id",), columns={"id": "blob"})
    store = await opened(PROFILE, blobs)
    for ask in (
        lambda: store.put(PROFILE, {"account": ""}), lambda: store.get(PROFILE, ("",)),
        lambda: store.scan(PROFILE, ("",)), lambda: store.delete(PROFILE, ("",)),
        lambda: store.put_if(PROFILE, {"account": ""}, None), lambda: store.get(blobs, (b"",)),
        lambda: store.delete_if(PROFILE, ("",), {"age": 1}),
        lambda: store.batch(PROFILE, ("",), [Put({"age": 1})]),
    ):  # fmt: skip
        with pytest.raises(StoreBug, match="empty"):
            await ask()


@pytest.mark.parametrize(
    "writes",
    [
        [Put({"contact": "b"}), Put({"contact": "b", "rank": 1})],
        [Put({"contact": "b"}), Delete(("b",))],
        [Delete(("b",)), Delete(("b",))],
        [Delete(), Put({"contact": "b"})],
        [Put({"contact": "b"}), Delete()],
        [Put({"contact": "b"}), Delete(("c",), through=True)],
        [Delete(("b",), through=True), Delete(("b",))],
        [Delete(("b",), through=True), Delete(("a",), through=True)],
        [Delete(("b",), through=True), Delete()],
    ],
)
async def test_a_batch_touches_a_row_once(opened, writes):
    store = await opened(ITEMS)
    with pytest.raises(StoreBug, match="twice"):
        await store.batch(ITEMS, ("a",), writes)
    assert await contacts(store) == []


@pytest.mark.parametrize(
    "table",
    [
        Table("", ("a",)), Table("Upper", ("a",)), Table("two words", ("a",)),
        Table('x"; DROP TABLE y', ("a",)), Table("x" * 49, ("a",)), Table("_x", ("a",)), Table("t", ()),
        Table("t", ("a", "a")), Table("t", ("a",), ("a",)),
        Table("t", ("a",), ("b",), {"c": "int"}, static={"c": "int"}),
        Table("t", ("a",), ("b",), static={"a": "text"}), Table("t", ("a",), static={"s": "int"}),
        Table("t", ("a",), columns={"Bad": "int"}), Table("t", ("a",), columns={"x": "json"}),
        Table("t", ("a",), ttl=0), Table("t", ("a",), ttl=-1.0),
    ],
)  # fmt: skip
async def test_impossible_tables_are_refused(opened, table):
    with pytest.raises(StoreBug):
        await opened(table)


async def test_names_of_sql_are_fine_names(opened):
    table = Table("select", ("from",), ("order",), {"group": "text", "where": "int"}, static={"table": "int"})
    store = await opened(table)
    await store.batch(table, ("a",), [Put({"order": "o", "group": "g", "where": 1})], static={"table": 2})
    row = {"from": "a", "order": "o", "group": "g", "where": 1, "table": 2}
    assert (await store.scan(table, ("a",), start=("o",))).rows == [row]


# opening, closing, changing


async def test_tables_that_were_not_opened_are_refused(opened):
    store = await opened(ITEMS)
    with pytest.raises(StoreBug, match="profile"):
        await store.get(PROFILE, ("a",))
    with pytest.raises(StoreBug, match="items"):
        await store.get(Table("items", ("account",), ("contact",), {"other": "int"}), ("a", "b"))
    same = Table(ITEMS.name, ITEMS.partition, ITEMS.cluster, dict(ITEMS.columns), dict(ITEMS.static))
    assert await store.get(same, ("a", "b")) is None


async def test_more_tables_may_be_opened_later(opened):
    store = await opened(ITEMS)
    await store.put(ITEMS, KEY)
    await opened(PROFILE, ITEMS)
    await store.put(PROFILE, {"account": "a", "name": "A"})
    assert await store.get(ITEMS, ("a", "b")) == item("b")
    assert (await store.get(PROFILE, ("a",)))["name"] == "A"


async def test_a_column_may_be_added_while_open(opened):
    old = Table("grow", ("a",), ("b",), {"x": "int"})
    new = Table("grow", ("a",), ("b",), {"x": "int", "y": "bool"}, static={"s": "int"})
    store = await opened(old)
    await store.put(old, {"a": "1", "b": "2", "x": 3})
    await opened(new)
    assert (await store.scan(new, ("1",))).rows == [{"a": "1", "b": "2", "x": 3, "y": None, "s": None}]
    await store.batch(new, ("1",), [Put({"b": "2", "y": True})], static={"s": 5})
    assert await store.get(new, ("1", "2")) == {"a": "1", "b": "2", "x": 3, "y": True, "s": 5}


async def test_a_refused_table_leaves_the_open_ones_alone(opened):
    store = await opened(ITEMS)
    changed = Table("items", ("account",), ("contact",), {"rank": "text"})
    with pytest.raises(StoreBug, match="rank"):
        await opened(PROFILE, changed)
    await store.put(ITEMS, {**KEY, "rank": 1})
    assert (await store.get(ITEMS, ("a", "b")))["rank"] == 1


async def test_before_open_and_after_close_nothing_is_available(engine):
    store = engine.store()
    with pytest.raises(StoreUnavailable):
        await store.get(ITEMS, ("a", "b"))
    await store.open([ITEMS])
    await store.put(ITEMS, KEY)
    await store.close()
    await store.close()
    for ask in (
        lambda: store.get(ITEMS, ("a", "b")), lambda: store.put(ITEMS, KEY),
        lambda: store.scan(ITEMS, ("a",)), lambda: store.put_if(ITEMS, KEY, None),
        lambda: store.batch(ITEMS, ("a",), []), lambda: store.open([ITEMS]),
        lambda: store.delete(ITEMS, ("a",)), lambda: store.get_static(ITEMS, ("a",)),
        lambda: store.scan_all(ITEMS),
    ):  # fmt: skip
        with pytest.raises(StoreUnavailable):
            await ask()


async def test_a_store_that_was_never_opened_can_be_closed(engine):
    await engine.store().close()


async def test_everything_is_there_after_reopening(lasting_engine):
    store = lasting_engine.store()
    await store.open([ITEMS])
    await store.batch(
        ITEMS,
        ("a",),
        [Put({"contact": "b", "name": "B"}), Put({"contact": "c"}, ttl=4)],
        static={"version": 3},
    )
    await store.close()
    store = lasting_engine.store()
    await store.open([ITEMS])
    assert (await store.scan(ITEMS, ("a",))).rows == [item("b", name="B", version=3), item("c", version=3)]
    lasting_engine.advance(4.1)
    assert await contacts(store) == ["b"]
    await store.close()


OLD = Table("t", ("p",), ("c",), {"x": "int", "y": "text"}, static={"s": "int"})


async def reopen(engine, table: Table) -> Store:
    store = engine.store()
    try:
        await store.open([table])
    except StoreBug:
        await store.close()
        raise
    return store


async def test_columns_can_be_added_and_dropped_and_come_back(lasting_engine):
    store = await reopen(lasting_engine, OLD)
    await store.batch(OLD, ("1",), [Put({"c": "2", "x": 3, "y": "keep"})], static={"s": 1})
    await store.close()
    new = Table("t", ("p",), ("c",), {"x": "int", "z": "blob"}, static={"s": "int", "u": "text"}, ttl=5)
    store = await reopen(lasting_engine, new)
    assert await store.get(new, ("1", "2")) == {"p": "1", "c": "2", "x": 3, "z": None, "s": 1, "u": None}
    with pytest.raises(StoreBug):
        await store.put(new, {"p": "1", "c": "2", "y": "gone"})
    await store.close()
    with pytest.raises(StoreBug, match=r"column y was text .* int"):
        await reopen(lasting_engine, Table("t", ("p",), ("c",), {"y": "int"}))
    store = await reopen(lasting_engine, OLD)
    assert await store.get(OLD, ("1", "2")) == {"p": "1", "c": "2", "x": 3, "y": "keep", "s": 1}
    await store.close()
    with pytest.raises(StoreBug, match=r"column u was text .* int"):
        await reopen(lasting_engine, Table("t", ("p",), ("c",), static={"u": "int"}))


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (Table("t", ("p", "c"), (), {"x": "int", "y": "text"}), r"table t: the partition key was p text"),
        (
            Table("t", ("q",), ("c",), {"x": "int"}),
            r"table t: the partition key was p text and is now .* q text",
        ),
        (Table("t", ("p",), ("c", "d"), {"x": "int"}), r"clustering key was c text and .* c text, d text"),
        (Table("t", ("p",), (), {"x": "int"}), r"clustering key was c text and .* nothing"),
        (Table("t", ("p",), ("c",), {"c": "int"}), r"clustering key was c text and .* c int"),
        (Table("t", ("p",), ("c",), {"x": "float"}), r"table t: the column x was int and .* float"),
        (Table("t", ("p",), ("c",), {}, static={"s": "text"}), r"table t: the column s was int and .* text"),
        (Table("t", ("p",), ("c",), {"s": "int"}), r"table t: the column s cannot become plain"),
        (Table("t", ("p",), ("c",), {}, static={"x": "int"}), r"table t: the column x cannot become static"),
        (Table("t", ("p",), ("c",), {"x": "int"}, descending=True), r"table t: `descending` was False"),
    ],
)
async def test_refused_changes_say_why_and_change_nothing(lasting_engine, table, reason):
    store = await reopen(lasting_engine, OLD)
    await store.batch(OLD, ("1",), [Put({"c": "2", "x": 3})], static={"s": 1})
    await store.close()
    with pytest.raises(StoreBug, match=reason):
        await reopen(lasting_engine, table)
    store = await reopen(lasting_engine, OLD)
    assert await store.get(OLD, ("1", "2")) == {"p": "1", "c": "2", "x": 3, "y": None, "s": 1}
    await store.close()


async def test_giving_up_memory_loses_nothing(opened):
    store = await opened(PROFILE)
    await store.put(PROFILE, {"account": "a", "name": "Alice"})
    for age in range(3):
        store.release()
        await store.put(PROFILE, {"account": "a", "age": age})
        assert await store.get(PROFILE, ("a",)) == {"account": "a", "name": "Alice", "age": age}
    store.release()
    await store.close()
    store.release()


async def test_each_server_of_an_engine_says_how_it_answers(opened: Any) -> None:
    store = await opened(ITEMS)
    soundings = await store.soundings()
    assert soundings
    for one in soundings:
        assert not one.problem and 0 < one.seconds < 10
        assert one.ahead is None or abs(one.ahead) < 5
    await store.close()
    assert all(one.problem for one in await store.soundings())
