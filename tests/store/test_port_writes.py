"""What every engine must do, written against the port only: rows of any tables written with one wait."""

import asyncio
import math
from typing import Any

import pytest

from xmppd.errors import StoreBug, StoreUnavailable
from xmppd.store.table import Put, Row, Store, Table

pytestmark = pytest.mark.asyncio

LOG = Table(
    "log",
    partition=("owner", "month"),
    cluster=("id", "peer"),
    columns={"owner": "int", "month": "int", "id": "blob", "stanza": "blob", "note": "text"},
    heap=True,
)
DAYS = Table("days", ("owner",), ("peer", "day"), {"owner": "int", "day": "int"}, ttl=2)
PROFILE = Table("profile", ("account",), columns={"name": "text", "age": "int", "known": "bool"})
ITEMS = Table("items", ("account",), ("name",), {"value": "text"}, static={"version": "int"})
TYPES = Table(
    "types",
    ("p",),
    ("c_bool", "c_float"),
    {"p": "blob", "c_bool": "bool", "c_float": "float", "text": "text", "int": "int", "at": "timestamp"},
)


def logged(owner: int, number: int, stanza: bytes | None = b"<message/>", note: str | None = None) -> Row:
    key = {"owner": owner, "month": 1, "id": number.to_bytes(12, "big"), "peer": "é"}
    return {**key, "stanza": stanza, "note": note}


async def whole(store: Store, table: Table, *partition: Any) -> list[Row]:
    return (await store.scan(table, partition)).rows


async def test_rows_of_many_tables_and_partitions_are_written(opened):
    store = await opened(LOG, DAYS, PROFILE)
    log = store.writer(LOG, tuple(logged(0, 0)))
    days = store.writer(DAYS, ("day", "peer", "owner"))
    profile = store.writer(PROFILE, ("account", "age"))
    await store.put(PROFILE, {"account": "a", "name": "kept", "age": 1})
    messages = [logged(7, 1), logged(-(2**63), 2, None, "\U0001f40d"), logged(7, 3, b"")]
    rows = [log.row(*row.values()) for row in messages]
    rows += [days.row(20_000, "peer", 7), profile.row("a", 2), profile.row("b", None)]
    await store.write(rows)
    assert await whole(store, LOG, 7, 1) == [messages[0], messages[2]]
    assert await whole(store, LOG, -(2**63), 1) == [messages[1]]
    assert await whole(store, DAYS, 7) == [{"owner": 7, "peer": "peer", "day": 20_000}]
    assert await store.get(PROFILE, ("a",)) == {"account": "a", "name": "kept", "age": 2, "known": None}
    assert await store.get(PROFILE, ("b",)) == {"account": "b", "name": None, "age": None, "known": None}
    await store.write([])


async def test_every_type_is_read_as_it_was_written(opened):
    store = await opened(TYPES)
    writer = store.writer(TYPES, ("p", "c_bool", "c_float", "text", "int", "at"))
    rows = [
        (b"\0", False, -math.inf, "", -(2**63), -0.5),
        (b"\0", True, 0.0, "\0é\U0001f40d", 2**63 - 1, 1.5e9),
        (b"\0", True, math.inf, None, None, None),
    ]
    await store.write([writer.row(*row) for row in rows])
    found = await whole(store, TYPES, b"\0")
    assert [tuple(row.values()) for row in found] == rows
    assert [type(row["c_bool"]) for row in found] == [bool] * 3
    await store.write([writer.row(b"\0", True, 2, "x", 3, 4)])
    assert (await store.get(TYPES, (b"\0", True, 2.0)))["at"] == 4.0


async def test_a_write_over_a_row_replaces_what_it_names(opened):
    store = await opened(LOG)
    writer = store.writer(LOG, tuple(logged(0, 0)))
    for _ in range(2):
        await store.write([writer.row(*logged(1, 1, b"first", "note").values())])
    assert await whole(store, LOG, 1, 1) == [logged(1, 1, b"first", "note")]
    await store.write([writer.row(*logged(1, 1, b"second", None).values())])
    assert await whole(store, LOG, 1, 1) == [logged(1, 1, b"second", None)]


async def test_rows_live_as_long_as_they_are_told(engine, opened):
    store = await opened(LOG, DAYS)
    log, days = store.writer(LOG, tuple(logged(0, 0))), store.writer(DAYS, ("owner", "peer", "day"))
    await store.write([days.row(1, "peer", 1), log.row(*logged(1, 1).values())])
    await store.write([days.row(1, "peer", 2), log.row(*logged(1, 2).values())], ttl=30)
    await store.write([log.row(*logged(1, 3).values())], ttl=1)
    assert [row["day"] for row in await whole(store, DAYS, 1)] == [1, 2]
    assert len(await whole(store, LOG, 1, 1)) == 3
    engine.advance(3.1)
    assert [row["day"] for row in await whole(store, DAYS, 1)] == [2]
    assert await whole(store, LOG, 1, 1) == [logged(1, 1), logged(1, 2)]


async def test_static_columns_stay(opened):
    store = await opened(ITEMS)
    await store.batch(ITEMS, ("a",), [Put({"name": "x"})], static={"version": 3})
    writer = store.writer(ITEMS, ("account", "name", "value"))
    await store.write([writer.row("a", "x", "v"), writer.row("a", "y", "w")])
    found = [(row["name"], row["value"], row["version"]) for row in await whole(store, ITEMS, "a")]
    assert found == [("x", "v", 3), ("y", "w", 3)]


async def test_many_writes_of_one_moment_are_all_done(opened):
    store = await opened(LOG)
    writer = store.writer(LOG, tuple(logged(0, 0)))
    expected = {}
    writes = []
    for number in range(300):
        rows = [logged(owner % 41, number, b"x" * (number % 7 * 200)) for owner in (number, number + 1, 40)]
        rows = list({row["owner"]: row for row in rows}.values())
        expected.update({(row["owner"], row["id"]): row for row in rows})
        writes.append(store.write([writer.row(*row.values()) for row in rows]))
    await asyncio.gather(*writes)
    found = [row for owner in range(41) for row in await whole(store, LOG, owner, 1)]
    assert {(row["owner"], row["id"]): row for row in found} == expected


async def test_large_and_many_rows_are_one_write(opened):
    store = await opened(LOG)
    writer = store.writer(LOG, tuple(logged(0, 0)))
    rows = [logged(owner, number, b"x" * 3000) for owner in range(15) for number in range(5)]
    await store.write([writer.row(*row.values()) for row in rows])
    for owner in range(15):
        assert await whole(store, LOG, owner, 1) == rows[owner * 5 : owner * 5 + 5]


async def test_rows_are_made_by_the_many(opened):
    store = await opened(LOG)
    writer = store.writer(LOG, tuple(logged(0, 0)))
    rows = [logged(1, number, b"x", note) for number, note in enumerate(("a", None, "b", None))]
    for some in (rows[:1], [], rows, rows[::-1]):
        await store.write([writer.rows([tuple(row.values()) for row in some])])
    assert await whole(store, LOG, 1, 1) == rows


async def test_many_rows_take_the_place_of_what_was_there_and_leave_columns_that_are_not_given(opened):
    store = await opened(LOG)
    rows = [logged(1, number, b"%d" % number, f"note {number}") for number in range(50)]
    columns = tuple(logged(0, 0))
    await store.write([store.writer(LOG, columns).rows([tuple(row.values()) for row in rows])])
    assert await whole(store, LOG, 1, 1) == rows
    later = [row | {"stanza": b"other"} for row in rows[5:45]]
    some = store.writer(LOG, columns[:-1])
    await store.write([some.rows([tuple(row.values())[:-1] for row in later])], ttl=1000.0)
    assert await whole(store, LOG, 1, 1) == [*rows[:5], *later, *rows[45:]]
    last = [row | {"note": None} for row in rows]
    every = store.writer(LOG, columns)
    await store.write([every.rows([tuple(row.values()) for row in last[:20]])], ttl=1000.0)
    await store.write([every.rows([tuple(row.values()) for row in last[20:]])])
    assert await whole(store, LOG, 1, 1) == last


async def test_of_many_rows_each_is_checked(opened):
    store = await opened(LOG)
    writer = store.writer(LOG, tuple(logged(0, 0)))
    good = tuple(logged(1, 1, b"x", "note").values())
    await store.write([writer.rows([good])])
    for bad in ((*good, 1), good[:-1], (None, *good[1:]), ("1", *good[1:])):
        with pytest.raises(StoreBug):
            await store.write([writer.rows([good, bad])])
    assert await whole(store, LOG, 1, 1) == [logged(1, 1, b"x", "note")]


async def test_of_one_task_later_writes_win(opened):
    store = await opened(PROFILE)
    writer = store.writer(PROFILE, ("account", "age"))
    for number in range(20):
        await store.write([writer.row("a", number)])
    assert (await store.get(PROFILE, ("a",)))["age"] == 19


async def test_columns_are_checked_once(opened):
    store = await opened(ITEMS, PROFILE)
    for table, columns, why in (
        (ITEMS, ("account", "value"), "lacks name"),
        (ITEMS, ("account", "name", "version"), "static"),
        (ITEMS, ("account", "name", "other"), "no column other"),
        (ITEMS, ("account", "name", "name"), "named twice"),
        (LOG, tuple(logged(0, 0)), "not been opened"),
    ):
        with pytest.raises(StoreBug, match=why):
            store.writer(table, columns)


BAD = [
    ("a", 1), ("a", "b", None, "more"), ("", 1, None), (None, 1, None), (1, 1, None), ("a", "1", None),
    ("a", 1.0, None), ("a", True, None), ("a", 2**63, None), ("a", -(2**63) - 1, None), ("\ud800", 1, None),
    ("a", 1, 1), ("a", b"1", None), (b"a", 1, None),
]  # fmt: skip


@pytest.mark.parametrize("values", BAD, ids=repr)
async def test_wrong_values_are_refused_and_harm_nobody(opened, values):
    store = await opened(PROFILE)
    writer = store.writer(PROFILE, ("account", "age", "known"))
    await store.write([writer.row("usual", 1, None), writer.row("usual too", 2, True)])
    before, after = writer.row("before", 1, None), writer.row("after", 2, None)
    first = store.write([before])

    async def write() -> None:
        await store.write([writer.row("beside", 1, None), writer.row(*values)])

    with pytest.raises(StoreBug):
        await write()
    await asyncio.gather(first, store.write([after]))
    assert await store.get_many(PROFILE, ["before", "beside", "after"]) == [
        {"account": "before", "age": 1, "name": None, "known": None},
        None,
        {"account": "after", "age": 2, "name": None, "known": None},
    ]


async def test_nan_is_no_value(opened):
    store = await opened(TYPES)
    writer = store.writer(TYPES, ("p", "c_bool", "c_float", "at"))
    await store.write([writer.row(b"p", True, 1.0, 2.0)])
    for values in ((b"p", True, math.nan, 2.0), (b"p", True, 1.0, math.nan), (b"p", True, 1.0, math.inf)):
        with pytest.raises(StoreBug):
            writer.row(*values)


async def test_who_is_cancelled_harms_nobody(opened):
    store = await opened(PROFILE)
    writer = store.writer(PROFILE, ("account", "age"))
    writes = [store.write([writer.row(f"a{number}", number)]) for number in range(30)]
    for write in writes[::2]:
        write.cancel()
    await asyncio.gather(*writes, return_exceptions=True)
    found = await store.get_many(PROFILE, [f"a{number}" for number in range(30)])
    assert [row["age"] for row in found[1::2]] == list(range(1, 30, 2))


async def test_closing_finishes_what_was_written(lasting_engine):
    store = lasting_engine.store()
    await store.open([PROFILE])
    writer = store.writer(PROFILE, ("account", "age"))
    writes = [store.write([writer.row(f"a{number}", number)]) for number in range(100)]
    await store.close()
    assert [write.done() and write.exception() for write in writes] == [None] * 100
    for ask in (lambda: store.write([writer.row("late", 1)]), lambda: store.writer(PROFILE, ("account",))):
        with pytest.raises(StoreUnavailable):
            ask()
    with pytest.raises(StoreUnavailable):
        await store.room()
    store = lasting_engine.store()
    await store.open([PROFILE])
    found = await store.get_many(PROFILE, [*(f"a{number}" for number in range(100)), "late"])
    assert [row and row["age"] for row in found] == [*range(100), None]
    await store.close()


async def test_without_room_a_write_is_refused_and_room_can_be_waited_for(crowded):
    store = await crowded(PROFILE)
    writer = store.writer(PROFILE, ("account", "age"))
    await store.write([writer.row("first", 0)])
    writes = [store.write([writer.row(f"a{number}", number)]) for number in range(4)]
    with pytest.raises(StoreUnavailable, match="too many writes"):
        store.write([writer.row("refused", 1)])

    async def patiently(number: int) -> None:
        await store.room()
        await store.write([writer.row(f"b{number}", number)])

    await asyncio.gather(*writes, *map(patiently, range(40)))
    found = await store.get_many(PROFILE, [f"b{number}" for number in range(40)])
    assert [row["age"] for row in found] == list(range(40))
    assert await store.get(PROFILE, ("refused",)) is None


async def test_room_that_is_not_used_is_for_others(crowded):
    store = await crowded(PROFILE)
    writer = store.writer(PROFILE, ("account", "age"))
    await store.write([writer.row("first", 0)])
    for _ in range(10):
        await asyncio.gather(*(store.room() for _ in range(9)))
    writes = [store.write([writer.row(f"a{number}", number)]) for number in range(4)]
    with pytest.raises(StoreUnavailable):
        store.write([writer.row("refused", 1)])
    gone = asyncio.create_task(store.room())
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(*writes)
    await asyncio.gather(*(store.write([writer.row(f"b{number}", number)]) for number in range(4)))
