"""What every engine must do, written against the port only: batches, conditions, lives of rows."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from xmppd.errors import StoreBug
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
PAIRS = Table("pairs", ("p",), ("c", "n"), {"n": "int"}, {"s": "int"})
FALLING = Table("falling", ("p",), ("c", "n"), {"n": "int"}, {"s": "int"}, descending=True)
TOKENS = Table(
    "tokens", ("account",), ("token",), {"used": "bool", "note": "text"}, static={"count": "int"}, ttl=4
)
BRIEF = replace(TOKENS, name="brief", ttl=2)
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


# static columns and batches


async def test_static_columns_are_in_every_row(opened):
    store = await opened(ITEMS)
    assert await store.batch(
        ITEMS, ("a",), [Put({"contact": "b"}), Put({"contact": "c"})], static={"version": 4}
    )
    assert await store.batch(ITEMS, ("a",), [], static={"title": "T"})
    assert await store.get(ITEMS, ("a", "b")) == item("b", version=4, title="T")
    assert (await store.scan(ITEMS, ("a",))).rows == [item(c, version=4, title="T") for c in "bc"]
    assert await store.get_static(ITEMS, ("a",)) == {"version": 4, "title": "T"}


async def test_static_columns_stand_without_rows(opened):
    store = await opened(ITEMS)
    await store.batch(ITEMS, ("a",), [], static={"version": 1})
    assert await store.get_static(ITEMS, ("a",)) == {"version": 1, "title": None}
    assert (await store.scan(ITEMS, ("a",))).rows == []
    assert (await store.scan_all(ITEMS)).rows == []
    assert await store.get(ITEMS, ("a", "b")) is None


async def test_static_columns_without_a_value_are_as_never_written(opened):
    store = await opened(ITEMS)
    await store.put(ITEMS, {"account": "a", "contact": "b"})
    assert await store.get_static(ITEMS, ("a",)) is None
    await store.batch(ITEMS, ("a",), [], static={"version": 1})
    await store.batch(ITEMS, ("a",), [], static={"version": None})
    assert await store.get_static(ITEMS, ("a",)) is None


async def test_a_batch_does_all_of_its_writes(opened):
    store = await opened(ITEMS)
    await store.batch(ITEMS, ("a",), [Put({"contact": c, "name": c, "rank": 1}) for c in "bcd"])
    done = await store.batch(
        ITEMS,
        ("a",),
        [Put({"contact": "b", "name": "new"}), Delete(("c",)), Delete(("x",)), Put({"contact": "e"})],
    )
    assert done is True
    assert (await store.scan(ITEMS, ("a",))).rows == [
        item("b", name="new", rank=1), item("d", name="d", rank=1), item("e"),
    ]  # fmt: skip


async def test_rows_of_a_batch_may_have_different_columns_and_lives(opened):
    store = await opened(ITEMS)
    writes = [
        Put({"contact": "b", "name": "Zo\u00eb", "rank": 1}),
        Put({"name": "\U0001f40d", "contact": "c"}),
        Put({"contact": "d", "name": None, "rank": 2}),
        Put({"contact": "e", "name": "e", "rank": None}, ttl=3600),
        Put({"contact": "f", "hidden": True}),
        Put({"contact": "g", "hidden": False}),
    ]
    await store.batch(ITEMS, ("a",), writes)
    assert (await store.scan(ITEMS, ("a",))).rows == [
        item("b", name="Zo\u00eb", rank=1), item("c", name="\U0001f40d"), item("d", rank=2),
        item("e", name="e"), item("f", hidden=True), item("g", hidden=False),
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", ["\udc80", b"x", 5])
@pytest.mark.parametrize("place", [0, 1])
async def test_one_wrong_value_among_rows_of_a_batch_refuses_it(opened, wrong, place):
    store = await opened(ITEMS)
    writes = [Put({"contact": c, "name": "name"}) for c in "bc"]
    writes.insert(place, Put({"contact": "d", "name": wrong}))
    with pytest.raises(StoreBug, match="items, column name"):
        await store.batch(ITEMS, ("a",), writes)
    assert await contacts(store) == []


async def test_a_batch_of_a_table_without_a_clustering_key_has_one_row(opened):
    store = await opened(PROFILE)
    with pytest.raises(StoreBug, match="twice"):
        await store.batch(PROFILE, ("a",), [Put({"age": 1}), Put({"age": 2})])
    assert await store.get(PROFILE, ("a",)) is None


@pytest.mark.parametrize("table", [PAIRS, FALLING], ids=["ascending", "descending"])
@pytest.mark.parametrize("end", [("b",), ("b", 2), ("a",), ("", 9), ("z", 0)])
async def test_a_batch_deletes_all_rows_up_to_one(opened, end, table):
    store = await opened(table)
    keys = [(c, n) for c in ("a", "b", "b\0", "c") for n in (1, 2, 3)]
    await store.batch(table, ("p",), [Put({"c": c, "n": n}) for c, n in keys], static={"s": 1})
    await store.put(table, {"p": "other", "c": "a", "n": 1})
    await store.batch(table, ("p",), [Delete(end, through=True), Put({"c": "z", "n": 1})])
    rows = (await store.scan(table, ("p",), reverse=table.descending)).rows
    assert [(row["c"], row["n"]) for row in rows] == [key for key in keys if key[: len(end)] > end] + [
        ("z", 1)
    ]
    assert await store.get_static(table, ("p",)) == {"s": 1}
    assert await store.get(table, ("other", "a", 1)) is not None


async def test_a_batch_may_delete_up_to_a_row_and_some_beyond(opened):
    store = await opened(ITEMS)
    await store.batch(ITEMS, ("a",), [Put({"contact": c}) for c in "bcde"])
    await store.batch(ITEMS, ("a",), [Delete(("c",), through=True), Delete(("e",)), Put({"contact": "f"})])
    assert await contacts(store) == ["d", "f"]
    await store.put(ITEMS, {"account": "a", "contact": "b"})
    assert await contacts(store) == ["b", "d", "f"]


async def test_a_batch_can_empty_a_partition_and_keep_what_is_static(opened):
    store = await opened(ITEMS, PROFILE)
    await store.batch(ITEMS, ("a",), [Put({"contact": c}) for c in "bc"], static={"version": 1, "title": "T"})
    await store.batch(ITEMS, ("a",), [Delete()], static={"version": 2})
    assert await contacts(store) == []
    assert await store.get_static(ITEMS, ("a",)) == {"version": 2, "title": "T"}
    await store.batch(PROFILE, ("a",), [Put({"name": "A"})])
    assert await store.get(PROFILE, ("a",)) == {"account": "a", "name": "A", "age": None}
    await store.batch(PROFILE, ("a",), [Delete()])
    assert await store.get(PROFILE, ("a",)) is None


async def test_a_batch_with_a_condition_is_all_or_nothing(opened):
    store = await opened(ITEMS)
    writes = [Put({"contact": "b"}), Put({"contact": "c"})]
    assert await store.batch(ITEMS, ("a",), writes, static={"version": 1}, expect={"version": 5}) is False
    assert await contacts(store) == []
    assert await store.get_static(ITEMS, ("a",)) is None
    assert await store.batch(ITEMS, ("a",), writes, static={"version": 1}, expect={"version": None}) is True
    removal = [Delete(("b",)), Put({"contact": "d"})]
    assert await store.batch(ITEMS, ("a",), removal, static={"version": 2}, expect={"version": None}) is False
    wrong = {"version": 1, "title": "T"}
    assert await store.batch(ITEMS, ("a",), removal, static={"version": 2}, expect=wrong) is False
    assert await contacts(store) == ["b", "c"]
    right = {"version": 1, "title": None}
    assert await store.batch(ITEMS, ("a",), removal, static={"version": 2}, expect=right) is True
    assert await contacts(store) == ["c", "d"]
    assert await store.get_static(ITEMS, ("a",)) == {"version": 2, "title": None}


async def test_a_partition_is_emptied_on_a_condition(opened):
    store = await opened(ITEMS)
    await store.batch(ITEMS, ("a",), [Put({"contact": "b"})], static={"version": 1})
    gone = {"version": None}
    assert await store.batch(ITEMS, ("a",), [Delete()], static=gone, expect={"version": 2}) is False
    assert await contacts(store) == ["b"]
    assert await store.batch(ITEMS, ("a",), [Delete()], static=gone, expect={"version": 1}) is True
    assert await contacts(store) == []
    assert await store.get_static(ITEMS, ("a",)) is None
    assert (await store.dump(ITEMS)).entries == []
    await store.batch(ITEMS, ("a",), [], static={"version": 3, "title": "T"}, expect=gone)
    assert await store.batch(ITEMS, ("a",), [Delete()], static=gone, expect={"version": 3}) is True
    assert await store.get_static(ITEMS, ("a",)) == {"version": None, "title": "T"}


async def test_an_empty_batch_is_fine(opened):
    store = await opened(ITEMS)
    assert await store.batch(ITEMS, ("a",), []) is True
    assert await store.batch(ITEMS, ("a",), [], static={}) is True
    assert await store.batch(ITEMS, ("a",), [], expect={"version": 1}) is False
    assert await store.batch(ITEMS, ("a",), [], expect={"version": None}) is True


async def test_concurrent_conditional_batches_are_one_after_the_other(opened):
    store = await opened(ITEMS)

    async def add(contact: str) -> None:
        while True:
            version = ((await store.get_static(ITEMS, ("a",))) or {"version": None})["version"]
            newer = {"version": (version or 0) + 1}
            if await store.batch(
                ITEMS, ("a",), [Put({"contact": contact, "rank": newer["version"]})], static=newer,
                expect={"version": version},
            ):  # fmt: skip
                return

    await asyncio.gather(*(add(f"c{number:02}") for number in range(30)))
    rows = (await store.scan(ITEMS, ("a",))).rows
    assert sorted(row["rank"] for row in rows) == list(range(1, 31))
    assert {row["version"] for row in rows} == {30}


async def test_readers_see_rows_and_static_columns_of_one_moment(opened):
    store = await opened(ITEMS)

    async def write() -> None:
        for version in range(1, 60):
            puts = [Put({"contact": c, "rank": version}) for c in "bcd"]
            await store.batch(ITEMS, ("a",), puts, static={"version": version})

    writing = asyncio.create_task(write())
    while not writing.done():
        for row in (await store.scan(ITEMS, ("a",))).rows:
            assert row["rank"] == row["version"]
        if (row := await store.get(ITEMS, ("a", "c"))) is not None:
            assert row["rank"] == row["version"]
        await asyncio.sleep(0)
    await writing


# conditions on rows


async def test_put_if_absent(opened):
    store = await opened(PROFILE)
    assert await store.put_if(PROFILE, {"account": "a", "name": "first"}, None) is True
    assert await store.put_if(PROFILE, {"account": "a", "name": "second"}, None) is False
    assert await store.get(PROFILE, ("a",)) == {"account": "a", "name": "first", "age": None}


async def test_put_if_compares_the_columns_named(opened):
    store = await opened(PROFILE)
    await store.put(PROFILE, {"account": "a", "name": "A"})
    assert await store.put_if(PROFILE, {"account": "a", "age": 1}, {"name": "B"}) is False
    assert await store.put_if(PROFILE, {"account": "a", "age": 1}, {"name": None}) is False
    assert await store.put_if(PROFILE, {"account": "a", "age": 1}, {"name": "A", "age": 0}) is False
    assert await store.get(PROFILE, ("a",)) == {"account": "a", "name": "A", "age": None}
    assert await store.put_if(PROFILE, {"account": "a", "age": 1}, {"name": "A", "age": None}) is True
    assert await store.get(PROFILE, ("a",)) == {"account": "a", "name": "A", "age": 1}


async def test_put_if_takes_no_row_for_none(opened):
    store = await opened(PROFILE)
    assert await store.put_if(PROFILE, {"account": "a", "age": 1}, {"age": 0}) is False
    assert await store.get(PROFILE, ("a",)) is None
    assert await store.put_if(PROFILE, {"account": "a", "age": 1}, {"age": None, "name": None}) is True
    assert await store.get(PROFILE, ("a",)) == {"account": "a", "name": None, "age": 1}


async def test_put_if_compares_every_type(opened):
    store = await opened(TYPES)
    key = {"p_blob": b"", "p_int": 0, "c_bool": False, "c_float": 2.5, "c_blob": b"", "c_text": ""}
    old = {
        "text": "é\0",
        "blob": b"\0",
        "int": 2**63 - 1,
        "float": 0.1,
        "bool": True,
        "at": 1700000000.123456,
    }
    new = {"text": "", "blob": b"", "int": 0, "float": 0.2, "bool": False, "at": 0.0}
    await store.put(TYPES, key | old)
    for column, value in new.items():
        assert await store.put_if(TYPES, key | {column: value}, {column: value}) is False
    for column, value in old.items():
        assert await store.put_if(TYPES, key | {column: new[column]}, {column: value}) is True
    assert await store.get(TYPES, tuple(key.values())) == key | new


async def test_concurrent_increments_lose_nothing(opened):
    store = await opened(PROFILE)

    async def increment() -> int:
        tries = 0
        while True:
            tries += 1
            age = ((await store.get(PROFILE, ("a",))) or {"age": None})["age"]
            if await store.put_if(PROFILE, {"account": "a", "age": (age or 0) + 1}, {"age": age}):
                return tries

    tries = await asyncio.gather(*(increment() for _ in range(40)))
    assert (await store.get(PROFILE, ("a",)))["age"] == 40
    assert sum(tries) > 40  # they did get in each other's way


async def test_only_one_of_many_creates_a_row(opened):
    store = await opened(PROFILE)
    done = await asyncio.gather(*(store.put_if(PROFILE, {"account": "a", "age": n}, None) for n in range(20)))
    assert done.count(True) == 1
    assert (await store.get(PROFILE, ("a",)))["age"] == done.index(True)


async def test_delete_if_compares_the_columns_named(opened):
    store = await opened(PROFILE)
    await store.put(PROFILE, {"account": "a", "name": "A"})
    wrong = [{"name": "B"}, {"name": "A", "age": 1}, {"name": None, "age": 1}, {"age": 1}, {"age": 0}]
    for expect in wrong:
        assert await store.delete_if(PROFILE, ("a",), expect) is False
    assert await store.delete_if(PROFILE, ("b",), {"name": "A"}) is False
    assert await store.get(PROFILE, ("a",)) == {"account": "a", "name": "A", "age": None}
    assert await store.delete_if(PROFILE, ("a",), {"name": "A", "age": None}) is True
    assert await store.get(PROFILE, ("a",)) is None
    assert await store.delete_if(PROFILE, ("a",), {"name": "A", "age": None}) is False


async def test_delete_if_touches_nothing_but_the_row(opened):
    store = await opened(ITEMS)
    await store.batch(ITEMS, ("a",), [Put({"contact": c, "rank": 1}) for c in "bcd"], static={"version": 4})
    assert await store.delete_if(ITEMS, ("a", "c"), {"rank": 1}) is True
    assert (await store.scan(ITEMS, ("a",))).rows == [item(c, rank=1, version=4) for c in "bd"]
    assert await store.delete_if(ITEMS, ("a", "c"), {"rank": 1}) is False  # static columns are no row
    assert await store.delete_if(ITEMS, ("a", "b"), {"rank": 1}) is True
    assert await store.delete_if(ITEMS, ("a", "d"), {"rank": 1}) is True
    assert await contacts(store) == []
    assert await store.get_static(ITEMS, ("a",)) == {"version": 4, "title": None}


async def test_a_row_deleted_on_a_condition_is_absent_for_the_next(opened):
    store = await opened(PROFILE)
    for name in "ABC":
        assert await store.put_if(PROFILE, {"account": "a", "name": name, "age": 7}, None) is True
        assert await store.put_if(PROFILE, {"account": "a", "age": 8}, {"age": 7}) is True
        assert await store.delete_if(PROFILE, ("a",), {"name": name}) is True
        assert await store.put_if(PROFILE, {"account": "a", "age": 9}, {"age": 8}) is False
    await store.put(PROFILE, {"account": "a", "name": "D"})
    assert await store.get(PROFILE, ("a",)) == {"account": "a", "name": "D", "age": None}


async def test_delete_if_compares_every_type(opened):
    store = await opened(TYPES)
    key = {"p_blob": b"", "p_int": 0, "c_bool": False, "c_float": 2.5, "c_blob": b"", "c_text": ""}
    row = {"text": "é\0", "blob": b"\0", "int": 2**63 - 1, "float": 0.1, "bool": True, "at": 1.7e9 + 0.123456}
    other = {"text": "", "blob": b"", "int": 0, "float": 0.2, "bool": False, "at": 0.0}
    for column, value in row.items():
        await store.put(TYPES, key | row)
        assert await store.delete_if(TYPES, tuple(key.values()), {column: other[column]}) is False
        assert await store.delete_if(TYPES, tuple(key.values()), {column: value}) is True
        assert await store.get(TYPES, tuple(key.values())) is None


async def test_of_many_who_delete_a_row_or_change_it_one_does(opened):
    store = await opened(PROFILE)
    for round_ in range(5):
        await store.put(PROFILE, {"account": "a", "age": 0})
        done = await asyncio.gather(
            *(store.delete_if(PROFILE, ("a",), {"age": 0}) for _ in range(6)),
            *(store.put_if(PROFILE, {"account": "a", "age": round_ + 1}, {"age": 0}) for _ in range(2)),
            *(store.delete_if(PROFILE, ("a",), {"age": 0}) for _ in range(6)),
        )
        assert done.count(True) == 1
        assert (await store.get(PROFILE, ("a",)) is None) is not any(done[6:8])


async def test_what_is_made_anew_is_not_deleted_for_what_was(opened):
    """Each of many makes rows under one name and deletes them: nobody's row goes by another's hand."""
    store = await opened(PROFILE)
    kept: list[int] = []

    async def own(number: int) -> None:
        made = deleted = 0
        while made < 3:
            if await store.put_if(PROFILE, {"account": "a", "age": number, "name": str(made)}, None):
                made += 1
            await asyncio.sleep(0)
            deleted += await store.delete_if(PROFILE, ("a",), {"age": number})
        kept.append(made - deleted)

    await asyncio.gather(*(own(number) for number in range(6)))
    assert kept == [0] * 6
    assert await store.get(PROFILE, ("a",)) is None


async def test_writes_of_one_task_are_seen_at_once_by_all(opened):
    store = await opened(PROFILE)
    for age in range(20):
        await store.put(PROFILE, {"account": "a", "age": age})
        assert (await store.get(PROFILE, ("a",)))["age"] == age
        await store.delete(PROFILE, ("a",))
        assert await store.get(PROFILE, ("a",)) is None


# time to live: short, because on some engines it has to pass; those that count whole seconds may end a row up
# to one second early, and never late


async def test_a_row_ends_with_its_life(opened, engine):
    store = await opened(ITEMS)
    await store.put(ITEMS, {"account": "a", "contact": "b"}, ttl=2)
    await store.put(ITEMS, {"account": "a", "contact": "c"})
    await store.batch(ITEMS, ("a",), [Put({"contact": "d"}, ttl=5), Put({"contact": "e"})])
    assert await store.put_if(ITEMS, {"account": "a", "contact": "f"}, None, ttl=2)
    assert await contacts(store) == ["b", "c", "d", "e", "f"]
    engine.advance(2.1)
    assert await contacts(store) == ["c", "d", "e"]
    assert await store.get(ITEMS, ("a", "b")) is None
    assert len((await store.scan_all(ITEMS)).rows) == 3
    engine.advance(3)
    assert await contacts(store) == ["c", "e"]


async def test_a_table_has_a_default_life(opened, engine):
    store = await opened(TOKENS)
    await store.batch(
        TOKENS, ("a",), [Put({"token": "t"}), Put({"token": "u"}, ttl=600)], static={"count": 2}
    )
    await store.put(TOKENS, {"account": "a", "token": "v"}, ttl=2)
    engine.advance(2.1)
    assert [row["token"] for row in (await store.scan(TOKENS, ("a",))).rows] == ["t", "u"]
    assert await store.get_static(TOKENS, ("a",)) == {"count": 2}
    engine.advance(2)
    row = {"account": "a", "token": "u", "used": None, "note": None, "count": None}
    assert (await store.scan(TOKENS, ("a",))).rows == [row]
    assert await store.get_static(TOKENS, ("a",)) is None


async def test_static_values_may_have_a_life(opened, engine):
    store = await opened(ITEMS)
    await store.batch(ITEMS, ("a",), [Put({"contact": "b"})], static={"version": 1})
    assert await store.batch(ITEMS, ("a",), [Delete()], static={"version": 2}, expect={"version": 1}, ttl=2)
    assert await store.get_static(ITEMS, ("a",)) == {"version": 2, "title": None}
    engine.advance(2.1)
    assert await store.get_static(ITEMS, ("a",)) is None
    assert (await store.dump(ITEMS)).entries == []
    assert await store.batch(ITEMS, ("a",), [], static={"version": 3}, expect={"version": None}, ttl=2)
    assert await store.batch(ITEMS, ("a",), [], static={"version": 4}, expect={"version": 3})
    engine.advance(2.1)
    assert await store.get_static(ITEMS, ("a",)) == {"version": 4, "title": None}


async def test_what_has_expired_is_absent_for_conditions(opened, engine):
    store = await opened(BRIEF)
    await store.batch(BRIEF, ("a",), [Put({"token": "t", "used": True, "note": "old"})], static={"count": 1})
    engine.advance(2.1)
    assert await store.put_if(BRIEF, {"account": "a", "token": "t", "used": True}, {"used": True}) is False
    assert await store.delete_if(BRIEF, ("a", "t"), {"used": True}) is False
    assert await store.batch(BRIEF, ("a",), [], static={"count": 2}, expect={"count": 1}) is False
    assert await store.batch(BRIEF, ("a",), [], static={"count": 2}, expect={"count": None}) is True
    assert await store.put_if(BRIEF, {"account": "a", "token": "t", "used": False}, None) is True
    # and nothing of the old row comes back with the new one
    row = {"account": "a", "token": "t", "used": False, "note": None, "count": 2}
    assert await store.get(BRIEF, ("a", "t")) == row


async def test_a_put_on_an_expired_row_is_a_new_row(opened, engine):
    store = await opened(ITEMS)
    await store.put(ITEMS, {"account": "a", "contact": "b", "name": "old"}, ttl=1)
    engine.advance(1.1)
    await store.put(ITEMS, {"account": "a", "contact": "b", "rank": 1})
    assert await store.get(ITEMS, ("a", "b")) == item("b", rank=1)


async def test_a_write_gives_a_new_life(opened, engine):
    store = await opened(ITEMS)
    whole = {"account": "a", "contact": "b", "name": "B", "rank": 1, "hidden": False}
    await store.put(ITEMS, whole, ttl=4)
    engine.advance(2)
    await store.put(ITEMS, whole, ttl=4)
    engine.advance(2.1)
    assert await store.get(ITEMS, ("a", "b")) is not None
    await store.put(ITEMS, whole)
    engine.advance(2)
    assert await store.get(ITEMS, ("a", "b")) is not None


async def test_expired_rows_do_not_fill_pages(opened, engine):
    store = await opened(ITEMS)
    for number in range(20):
        await store.put(ITEMS, {"account": "a", "contact": f"{number:02}"}, ttl=1 if number % 2 else None)
    engine.advance(1.1)
    page = await store.scan(ITEMS, ("a",), limit=6)
    assert [row["contact"] for row in page.rows] == ["00", "02", "04", "06", "08", "10"]
    assert await contacts(store, limit=6, page=page.next) == ["12", "14", "16", "18"]
