"""What every engine must do, written against the port only: whole tables read and written again by tools."""

from dataclasses import replace
from itertools import groupby
from typing import Any

import pytest

from xmppd.errors import StoreBug, StoreUnavailable
from xmppd.store.person import Person, Through
from xmppd.store.table import Delete, Key, Put, Store, Stored, Table

pytestmark = pytest.mark.asyncio

ITEMS = Table(
    "items",
    partition=("account",),
    cluster=("contact", "rank"),
    columns={"rank": "int", "name": "text", "hidden": "bool"},
    static={"version": "int", "locked": "bool"},
)
NEWEST = Table("newest", ITEMS.partition, ITEMS.cluster, ITEMS.columns, ITEMS.static, descending=True)
SHORT = Table("short", ("account",), ("token",), {"used": "bool"}, {"count": "int"}, ttl=4)
PROFILE = Table("profile", partition=("account",), columns={"name": "text", "age": "int"})
TYPES = Table(
    "types",
    partition=("p_blob", "p_int"),
    cluster=("c_bool", "c_float", "c_blob", "c_text"),
    columns={
        "p_blob": "blob", "p_int": "int", "c_bool": "bool", "c_float": "float", "c_blob": "blob",
        "text": "text", "blob": "blob", "int": "int", "float": "float", "bool": "bool", "at": "timestamp",
    },
)  # fmt: skip

SECONDS = 3.0
"""How far apart two engines may let a row end: some count whole seconds, from when a write comes in."""


async def pages(store: Store, table: Table, limit: int, **how: Any) -> list[Stored]:
    """A whole dump, whose pages hold at most `limit` entries."""
    found: list[Stored] = []
    page = None
    while True:
        dump = await store.dump(table, limit=limit, page=page, **how)
        assert len(dump.entries) <= limit
        found += dump.entries
        page = dump.next
        if page is None:
            return found


def by_partition(table: Table, entries: list[Stored]) -> dict[Key, list[Stored]]:
    """The entries of each partition, which must be in one piece."""
    width = len(table.partition)
    found: dict[Key, list[Stored]] = {}
    for partition, group in groupby(entries, lambda entry: entry.key[:width]):
        assert partition not in found
        found[partition] = list(group)
    return found


async def fill(store: Store, table: Table) -> dict[Key, list[Stored]]:
    """Partitions with and without rows and static columns; what a dump must give for each."""
    keys = [(contact, rank) for contact in ("", "b", "b\0", "é") for rank in (-1, 7)]
    for account in (" ", "a", "é"):
        for contact, rank in keys:
            await store.put(table, {"account": account, "contact": contact, "rank": rank, "name": contact})
    await store.batch(table, ("a",), [], static={"version": 3, "locked": False})
    await store.batch(table, ("alone",), [], static={"version": 4})
    await store.batch(table, ("emptied",), [Put({"contact": "b", "rank": 1})], static={"locked": True})
    await store.batch(table, ("emptied",), [Delete()])
    await store.batch(table, ("none",), [Put({"contact": "b", "rank": 1})], static={"version": None})
    if table.descending:
        keys.reverse()
    rows = {
        account: [Stored((account, *key), {"name": key[0]}) for key in keys] for account in (" ", "a", "é")
    }
    return {
        (" ",): rows[" "],
        ("a",): [Stored(("a",), {"version": 3, "locked": False}), *rows["a"]],
        ("é",): rows["é"],
        ("alone",): [Stored(("alone",), {"version": 4})],
        ("emptied",): [Stored(("emptied",), {"locked": True})],
        ("none",): [Stored(("none", "b", 1), {})],
    }


# dumps


@pytest.mark.parametrize("table", [ITEMS, NEWEST], ids=["ascending", "descending"])
@pytest.mark.parametrize("limit", [1, 2, 3, 8, 9, 100])
async def test_a_dump_gives_static_columns_then_rows_of_each_partition(opened, table, limit):
    store = await opened(table)
    expected = await fill(store, table)
    assert by_partition(table, await pages(store, table, limit)) == expected


@pytest.mark.parametrize("table", [ITEMS, NEWEST], ids=["ascending", "descending"])
@pytest.mark.parametrize("limit", [1, 2, 8, 9])
async def test_a_dump_of_one_partition(opened, table, limit):
    store = await opened(table)
    expected = await fill(store, table)
    for partition, entries in expected.items():
        assert await pages(store, table, limit, partition=partition) == entries
    assert await pages(store, table, limit, partition=("nobody",)) == []


async def test_a_dump_of_a_table_without_clustering_columns(opened):
    store = await opened(PROFILE)
    for number in range(7):
        await store.put(PROFILE, {"account": str(number), "age": number})
    found = await pages(store, PROFILE, 3)
    assert sorted(entry.key for entry in found) == [(str(number),) for number in range(7)]
    assert {entry.key: entry.values for entry in found}[("4",)] == {"age": 4}
    assert await pages(store, PROFILE, 3, partition=("4",)) == [Stored(("4",), {"age": 4})]


async def test_a_dump_of_an_empty_table(opened):
    store = await opened(ITEMS)
    assert await pages(store, ITEMS, 10) == []


async def test_what_has_expired_is_not_dumped(opened, engine):
    store = await opened(SHORT)
    await store.batch(SHORT, ("a",), [Put({"token": "t", "used": True}, ttl=2)], static={"count": 1})
    await store.put(SHORT, {"account": "a", "token": "u", "used": True}, ttl=1000)
    engine.advance(2.1)
    assert [entry.key for entry in await pages(store, SHORT, 10)] == [("a",), ("a", "u")]
    engine.advance(2)
    assert [entry.key for entry in await pages(store, SHORT, 10)] == [("a", "u")]


async def test_a_dump_tells_when_each_entry_ends(opened):
    store = await opened(SHORT, ITEMS)
    await store.batch(SHORT, ("a",), [Put({"token": "t", "used": True}, ttl=300)], static={"count": 1})
    await store.put(ITEMS, {"account": "a", "contact": "b", "rank": 1, "name": "B"})
    await store.put(ITEMS, {"account": "a", "contact": "c", "rank": 1, "name": "C"}, ttl=300)
    static, row = await pages(store, SHORT, 10)
    forever, ending = await pages(store, ITEMS, 10)
    assert static.expires is not None and row.expires is not None and ending.expires is not None
    assert row.expires - static.expires == pytest.approx(296, abs=SECONDS)
    assert ending.expires == pytest.approx(row.expires, abs=SECONDS)
    assert forever.expires is None


async def test_a_row_without_values_that_was_given_no_end_again_has_none(opened):
    store = await opened(ITEMS)
    row = {"account": "a", "contact": "b", "rank": 1}
    await store.put(ITEMS, row | {"name": "B", "hidden": True}, ttl=300)
    await store.put(ITEMS, row | {"name": None, "hidden": None})
    assert await pages(store, ITEMS, 10) == [Stored(("a", "b", 1), {})]


async def test_a_dump_goes_on_in_another_store(lasting_engine):
    first = lasting_engine.store()
    await first.open([ITEMS])
    expected = await fill(first, ITEMS)
    dump = await first.dump(ITEMS, limit=10)
    await first.close()
    second = lasting_engine.store()
    await second.open([ITEMS])
    entries = [*dump.entries, *(await second.dump(ITEMS, page=dump.next)).entries]
    assert by_partition(ITEMS, entries) == expected
    await second.close()


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_page_has_at_least_one_entry(opened, limit):
    store = await opened(ITEMS)
    with pytest.raises(StoreBug):
        await store.dump(ITEMS, limit=limit)


@pytest.mark.parametrize("partition", [(), ("a", "b"), (1,), (None,)])
async def test_only_a_whole_partition_key_is_one(opened, partition):
    store = await opened(ITEMS)
    with pytest.raises(StoreBug, match="items"):
        await store.dump(ITEMS, partition=partition)


async def test_a_token_is_of_one_dump(opened):
    store = await opened(ITEMS)
    await fill(store, ITEMS)
    whole = (await store.dump(ITEMS, limit=1)).next
    scan = (await store.scan(ITEMS, ("a",), limit=1)).next
    part = (await store.dump(ITEMS, partition=("a",), limit=1)).next
    for how in ({"page": b"nonsense"}, {"page": scan}, {"page": part, "partition": ("é",)}):
        with pytest.raises(StoreBug):
            await store.dump(ITEMS, **how)
    assert whole is not None


# restoring


@pytest.mark.parametrize("table", [ITEMS, NEWEST], ids=["ascending", "descending"])
async def test_what_is_restored_is_what_was_dumped(opened, table):
    copy = table.named(f"{table.name}_copy")
    store = await opened(table, copy)
    expected = await fill(store, table)
    await store.restore(copy, await pages(store, table, 1000))
    assert by_partition(copy, await pages(store, copy, 1000)) == expected
    for partition in expected:
        rows = (await store.scan(table, partition)).rows
        assert (await store.scan(copy, partition)).rows == rows
        assert await store.get_static(copy, partition) == await store.get_static(table, partition)


async def test_all_types_are_restored(opened):
    copy = TYPES.named("types_copy")
    store = await opened(TYPES, copy)
    full = {
        "text": "\0é\U0001f40d",
        "blob": b"\0\xff",
        "int": -(2**63),
        "float": -0.5,
        "bool": False,
        "at": 0.001,
    }
    for blob, flag, number in ((b"", True, -1.5), (b"\0", False, 0.0), (b"\xff", True, 1e300)):
        key = {
            "p_blob": blob,
            "p_int": 2**62,
            "c_bool": flag,
            "c_float": number,
            "c_blob": blob,
            "c_text": "",
        }
        await store.put(TYPES, {**key, **full})
        await store.put(TYPES, {**key, "c_text": "empty"})
    entries = await pages(store, TYPES, 4)
    await store.restore(copy, entries)
    assert by_partition(copy, await pages(store, copy, 5)) == by_partition(TYPES, entries)
    assert (await store.scan(copy, (b"\0", 2**62))).rows == (await store.scan(TYPES, (b"\0", 2**62))).rows


@pytest.mark.parametrize(("count", "size"), [(400, 8_000), (30, 120_000), (300, 500), (12, 1_200_000)])
async def test_rows_of_every_size_are_restored(opened, count, size):
    """An engine may refuse requests that are too large: so not many such rows may go in one."""
    store = await opened(PROFILE, ITEMS)
    people = [Stored((f"u{number}",), {"name": "x" * size, "age": number}) for number in range(count)]
    await store.restore(PROFILE, people)
    items = [Stored(("a", f"c{number:03}", 1), {"name": "x" * size}) for number in range(count)]
    await store.restore(ITEMS, items)
    assert sorted(await pages(store, PROFILE, 50), key=str) == sorted(people, key=str)
    assert await pages(store, ITEMS, 50) == items


async def test_ends_are_restored(opened, engine):
    copy = SHORT.named("short_copy")
    store = await opened(SHORT, copy)
    await store.batch(
        SHORT,
        ("a",),
        [Put({"token": "t", "used": True}, ttl=2), Put({"token": "u", "used": True}, ttl=600)],
        static={"count": 1},
    )
    await store.restore(copy, await pages(store, SHORT, 10))
    for entry, other in zip(await pages(store, SHORT, 10), await pages(store, copy, 10), strict=True):
        assert entry.key == other.key
        assert entry.expires == pytest.approx(other.expires, abs=SECONDS)
    engine.advance(2.1)
    assert [entry.key for entry in await pages(store, copy, 10)] == [("a",), ("a", "u")]
    engine.advance(2)
    assert [entry.key for entry in await pages(store, copy, 10)] == [("a", "u")]


async def test_what_never_ends_is_restored_so_whatever_the_table_says(opened, engine):
    store = await opened(SHORT)
    await store.restore(SHORT, [Stored(("a",), {"count": 2}), Stored(("a", "t"), {"used": True})])
    engine.advance(4.1)
    assert await pages(store, SHORT, 10) == [Stored(("a",), {"count": 2}), Stored(("a", "t"), {"used": True})]


async def test_what_ends_in_a_thousand_years_is_restored(opened):
    store = await opened(SHORT)
    await store.restore(SHORT, [Stored(("a", "t"), {"used": True}, 4e10)])
    (entry,) = await pages(store, SHORT, 10)
    assert entry.expires in (None, 4e10)


async def test_what_has_expired_is_not_restored(opened, engine):
    copy = SHORT.named("short_copy")
    store = await opened(SHORT, copy)
    await store.batch(SHORT, ("a",), [Put({"token": "t", "used": True}, ttl=1)], static={"count": 1})
    entries = await pages(store, SHORT, 10)
    engine.advance(1.1)
    await store.restore(copy, entries)
    assert [entry.key for entry in await pages(store, copy, 10)] == [("a",)]


async def test_restoring_again_changes_nothing(opened):
    copy = ITEMS.named("items_copy")
    store = await opened(ITEMS, copy)
    expected = await fill(store, ITEMS)
    entries = await pages(store, ITEMS, 1000)
    await store.restore(copy, entries[:10])
    await store.restore(copy, entries)
    await store.restore(copy, [])
    assert by_partition(copy, await pages(store, copy, 1000)) == expected


@pytest.mark.parametrize(
    "entry",
    [
        Stored((), {}), Stored(("a", "b"), {}), Stored(("a", "b", "1"), {}), Stored(("a", "b", 1, 2), {}),
        Stored(("a",), {}), Stored(("a",), {"name": "B"}), Stored(("a", "b", 1), {"version": 1}),
        Stored(("a", "b", 1), {"nope": 1}), Stored(("a", "b", 1), {"name": 1}),
    ],
)  # fmt: skip
async def test_nothing_of_another_form_is_restored(opened, entry):
    store = await opened(ITEMS)
    with pytest.raises(StoreBug, match="items"):
        await store.restore(ITEMS, [Stored(("a", "b", 1), {}), entry])
    assert await pages(store, ITEMS, 10) == []


# tables


async def test_all_tables_are_named(lasting_engine):
    first = lasting_engine.store()
    await first.open([PROFILE, ITEMS])
    await first.close()
    second = lasting_engine.store()
    await second.open([SHORT])
    tables = await second.stored_tables()  # with those of other tests, where an engine is made only once
    names = [table.name for table in tables]
    assert names == sorted(names)
    assert {"items", "profile", "short"} <= set(names)
    await second.close()


async def test_what_nobody_declares_any_more_is_read_and_deleted_from(lasting_engine):
    number = f"{id(lasting_engine):x}"
    person = Person("who", mentions={"text": "masked"}, secret={"text": "a secret"})
    owners = Table(f"owners{number}", ("who",), columns={"uid": "int"}, person=Person("who", stays=True))
    notes = Table(
        f"notes{number}",
        ("uid",),
        ("day", "id"),
        {"uid": "int", "day": "int", "text": "text"},
        {"total": "int"},
        descending=True,
        person=Person("uid", Through(owners.name, ("uid",)), {"text": "kept"}),
    )
    plain = Table(f"plain{number}", ("who",), columns={"text": "text", "old": "int"}, person=person)
    first = lasting_engine.store()
    await first.open([owners, notes, plain])
    for name in ("a", "b"):
        await first.put(notes, {"uid": 7, "day": 1, "id": name, "text": f"text {name}"})
    await first.close()
    second = lasting_engine.store()
    await second.open([SHORT, replace(plain, columns={"text": "text"})])
    found = {table.name: table for table in await second.stored_tables()}
    assert found[owners.name].person == owners.person
    assert found[notes.name].person == notes.person
    assert found[plain.name] == replace(plain, columns={"text": "text"}), "as it is in use"
    rows = (await second.scan(found[notes.name], (7,))).rows
    assert [(row["id"], row["text"]) for row in rows] == [("b", "text b"), ("a", "text a")]
    assert len((await second.dump(found[notes.name], partition=(7,))).entries) == 2
    await second.delete(found[notes.name], (7,))
    await second.open([notes])
    assert (await second.scan(notes, (7,))).rows == []
    await second.close()


async def test_a_closed_store_has_nothing_for_tools_either(opened):
    store = await opened(ITEMS)
    await store.close()
    with pytest.raises(StoreUnavailable):
        await store.dump(ITEMS)
    with pytest.raises(StoreUnavailable):
        await store.restore(ITEMS, [])
    with pytest.raises(StoreUnavailable):
        await store.stored_tables()
