"""What every engine must do, written against the port only: rows of which the newest stays."""

import asyncio
import itertools
import time
import uuid
from typing import Any

import pytest

from xmppd.errors import StoreBug
from xmppd.store.table import Delete, Put, Store, Table

pytestmark = pytest.mark.asyncio

SHOWN = Table(
    "shown",
    ("owner",),
    ("peer",),
    {"item": "text", "seen": "bool", "at": "int"},
    order="at",
)
SHORT = Table("short", ("owner",), columns={"item": "text", "at": "int"}, ttl=2, order="at")
ITEMS = Table("items", ("owner",), ("peer",), {"item": "text", "at": "int"})
THEN = 1_600_000_000_000_000


@pytest.fixture
def owner() -> str:
    """A partition that nothing was ever deleted from: a deletion is for what is older too."""
    return uuid.uuid4().hex


async def items(store: Store, owner: str) -> list[Any]:
    return [(row["peer"], row["item"], row["at"]) for row in (await store.scan(SHOWN, (owner,))).rows]


@pytest.mark.parametrize("order", list(itertools.permutations([1, 2, 3])))
async def test_the_largest_order_wins_whoever_is_later(opened, owner, order):
    store = await opened(SHOWN)
    for number in order:
        await store.put_newest(SHOWN, {"owner": owner, "peer": "p", "item": str(number), "at": THEN + number})
    assert await items(store, owner) == [("p", "3", THEN + 3)]


async def test_who_cross_leave_the_newest(opened, owner):
    store = await opened(SHOWN)
    await asyncio.gather(
        *(
            store.put_newest(
                SHOWN, {"owner": owner, "peer": f"p{n % 3}", "item": f"{n}", "at": THEN + n * 7 % 50}
            )
            for n in range(50)
        )
    )
    best = {}
    for n in range(50):
        best[f"p{n % 3}"] = max(best.get(f"p{n % 3}", (0, "")), (THEN + n * 7 % 50, f"{n}"))
    assert await items(store, owner) == [(peer, item, at) for peer, (at, item) in sorted(best.items())]


async def test_a_row_is_replaced_as_a_whole(opened, owner):
    store = await opened(SHOWN)
    key = {"owner": owner, "peer": "p"}
    await store.put_newest(SHOWN, {**key, "item": "first", "seen": True, "at": THEN})
    await store.put_newest(SHOWN, {**key, "at": THEN + 2})
    await store.put_newest(SHOWN, {**key, "item": "late", "seen": False, "at": THEN + 1})
    assert await store.get(SHOWN, (owner, "p")) == {**key, "item": None, "seen": None, "at": THEN + 2}
    await store.put_newest(SHOWN, {"at": THEN + 3, "seen": False, "peer": "p", "owner": owner})
    assert await store.get(SHOWN, (owner, "p")) == {**key, "item": None, "seen": False, "at": THEN + 3}


async def test_a_repeat_changes_nothing(opened, owner):
    store = await opened(SHOWN)
    row = {"owner": owner, "peer": "p", "item": "é", "seen": None, "at": THEN}
    for _ in range(3):
        await store.put_newest(SHOWN, row)
        assert await store.get(SHOWN, (owner, "p")) == row


async def test_what_was_deleted_can_be_written_again(opened, owner):
    store = await opened(SHOWN)
    for peer in "abc":
        await store.put_newest(SHOWN, {"owner": owner, "peer": peer, "at": THEN})
    await store.delete(SHOWN, (owner, "a"))
    await store.batch(SHOWN, (owner,), [Delete(("b",))])
    assert [peer for peer, _, _ in await items(store, owner)] == ["c"]
    await store.delete(SHOWN, (owner,))
    assert await items(store, owner) == []
    now = int(time.time() * 1e6)
    await store.put_newest(SHOWN, {"owner": owner, "peer": "a", "item": "again", "at": now})
    assert await items(store, owner) == [("a", "again", now)]


async def test_such_rows_live_as_long_as_they_are_told(engine, opened, owner):
    store = await opened(SHORT)
    await store.put_newest(SHORT, {"owner": owner, "item": "short", "at": THEN}, ttl=1)
    await store.put_newest(SHORT, {"owner": f"{owner}2", "item": "long", "at": THEN}, ttl=60)
    assert await store.get(SHORT, (owner,)) == {"owner": owner, "item": "short", "at": THEN}
    engine.advance(2.1)
    assert await store.get(SHORT, (owner,)) is None
    assert (await store.get(SHORT, (f"{owner}2",)))["item"] == "long"
    await store.put_newest(SHORT, {"owner": owner, "item": "new", "at": THEN + 1}, ttl=60)
    assert (await store.get(SHORT, (owner,)))["item"] == "new"


async def test_they_are_restored_with_their_order(opened, owner):
    store = await opened(SHOWN)
    row = {"owner": owner, "peer": "p", "item": "kept", "seen": None, "at": THEN + 5}
    await store.put_newest(SHOWN, row)
    dump = await store.dump(SHOWN, partition=(owner,))
    other = owner[::-1]
    entries = [type(entry)((other, *entry.key[1:]), entry.values, entry.expires) for entry in dump.entries]
    await store.restore(SHOWN, entries)
    await store.put_newest(SHOWN, {**row, "owner": other, "item": "older", "at": THEN + 4})
    assert await items(store, other) == [("p", "kept", THEN + 5)]
    await store.put_newest(SHOWN, {**row, "owner": other, "item": "newer", "at": THEN + 6})
    assert await items(store, other) == [("p", "newer", THEN + 6)]


async def test_other_writes_of_such_rows_are_refused(opened, owner):
    store = await opened(SHOWN, ITEMS)
    row = {"owner": owner, "peer": "p", "at": THEN}
    for ask in (
        lambda: store.put(SHOWN, row), lambda: store.put_many(SHOWN, [row]),
        lambda: store.put_if(SHOWN, row, None), lambda: store.put_newest(ITEMS, row),
        lambda: store.batch(SHOWN, (owner,), [Put({"peer": "p", "at": THEN})]),
        lambda: store.put_newest(SHOWN, {"owner": owner, "peer": "p"}),
        lambda: store.put_newest(SHOWN, {**row, "at": None}), lambda: store.put_newest(SHOWN, {"at": THEN}),
        lambda: store.put_newest(SHOWN, {**row, "item": 7}), lambda: store.put_newest(SHOWN, {**row, "x": 7}),
    ):  # fmt: skip
        with pytest.raises(StoreBug):
            await ask()
    with pytest.raises(StoreBug, match="put_newest"):
        store.writer(SHOWN, ("owner", "peer", "at"))
    assert await items(store, owner) == []


@pytest.mark.parametrize(
    "table",
    [
        Table("t", ("a",), columns={"x": "text"}, order="x"),
        Table("t", ("a",), columns={"x": "int"}, order="y"),
        Table("t", ("a",), columns={"a": "int"}, order="a"),
        Table("t", ("a",), ("b",), {"x": "int"}, {"y": "int"}, order="x"),
    ],
)  # fmt: skip
async def test_the_order_is_a_plain_number(opened, table):
    with pytest.raises(StoreBug, match="order"):
        await opened(table)


async def test_pages_of_such_rows_go_on(opened, owner):
    store = await opened(SHOWN)
    for peer in "abc":
        await store.put_newest(SHOWN, {"owner": owner, "peer": peer, "at": THEN})
    first = await store.scan(SHOWN, (owner,), limit=2)
    rest = await store.scan(SHOWN, (owner,), limit=2, page=first.next)
    assert [row["peer"] for row in (*first.rows, *rest.rows)] == ["a", "b", "c"]
