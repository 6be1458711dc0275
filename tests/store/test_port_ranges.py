"""What every engine must do, written against the port only: ranges, some columns, rows by many keys."""

import random
from typing import Any

import pytest

from xmppd.errors import StoreBug
from xmppd.store.table import Key, Put, Store, Table

pytestmark = pytest.mark.asyncio

LOG = Table(
    "log",
    partition=("owner", "month"),
    cluster=("id", "peer"),
    columns={"owner": "int", "month": "int", "id": "blob", "stanza": "blob"},
    heap=True,
)
NEWEST = Table("newest", LOG.partition, LOG.cluster, LOG.columns, descending=True)
ITEMS = Table("items", ("account",), ("part", "name"), {"value": "text", "on": "bool"}, {"version": "int"})
PROFILE = Table("profile", ("account",), columns={"age": "int"})
HERE = (7, 1)
PEERS = ("a", "é", "z\0")


def key_of(number: int) -> tuple[bytes, str]:
    """The keys of rows in order: three peers in turn, and of each third number two rows."""
    return number.to_bytes(4, "big"), PEERS[number % 3]


def keys_up_to(count: int) -> list[tuple[bytes, str]]:
    return sorted(
        key
        for n in range(count)
        for key in ((key_of(n), (key_of(n)[0], "zz")) if n % 3 == 0 else (key_of(n),))
    )


async def fill(store: Store, table: Table, count: int, ttl: float | None = None) -> list[tuple[bytes, str]]:
    writer = store.writer(table, ("owner", "month", "id", "peer", "stanza"))
    keys = keys_up_to(count)
    await store.write([writer.row(*HERE, *key, b"to " + key[1].encode()) for key in keys], ttl=ttl)
    await store.write([writer.row(7, 2, b"\0", "other", b""), writer.row(8, 1, b"\0", "other", b"")])
    return keys


def within(table: Table, keys: list[Any], how: dict[str, Any]) -> list[Any]:
    """The keys in a range, by the words of the port."""

    def is_in(key: Key) -> bool:
        start, end, after, before = (how.get(name) for name in ("start", "end", "after", "before"))
        return (
            (not start or key[: len(start)] >= start)
            and (not end or key[: len(end)] <= end)
            and (not after or key[: len(after)] > after)
            and (not before or key[: len(before)] < before)
        )

    found = [key for key in keys if is_in(key)]
    return found[::-1] if table.descending != how.get("reverse", False) else found


async def paged(store: Store, table: Table, columns: Any, **how: Any) -> list[Any]:
    found: list[Any] = []
    page = None
    while True:
        part = await store.scan_columns(table, HERE, columns, page=page, **how)
        assert how.get("limit") is None or len(part.rows) <= how["limit"]
        found += part.rows
        page = part.next
        if page is None:
            return found


@pytest.mark.parametrize("table", [LOG, NEWEST])
async def test_every_range_has_the_rows_within_it(opened, table):
    store = await opened(table)
    keys = await fill(store, table, 12)
    chance = random.Random(table.name)
    prefixes: list[Any] = [None, (), *(key_of(n)[:width] for n in (0, 4, 6, 7, 13) for width in (1, 2))]
    for _ in range(150):
        how = {chance.choice(["start", "after"]): chance.choice(prefixes)}
        how |= {chance.choice(["end", "before"]): chance.choice(prefixes), "reverse": chance.random() < 0.5}
        how["limit"] = limit = chance.choice([None, 1, 2, 5])
        expected = within(table, keys, how)
        assert await paged(store, table, ("id", "peer"), **how) == expected
        part = await store.scan(table, HERE, **how)
        assert [(row["id"], row["peer"]) for row in part.rows] == expected[:limit]
        assert all(row["stanza"] == b"to " + row["peer"].encode() for row in part.rows)
        assert (part.next is None) is (limit is None or len(expected) <= limit)


async def test_columns_come_in_the_order_asked_for(opened):
    store = await opened(ITEMS)
    writes = [Put({"part": "p", "name": "n", "value": None, "on": True}), Put({"part": "q", "name": "n"})]
    await store.batch(ITEMS, ("a",), writes, static={"version": 3})
    found = await store.scan_columns(ITEMS, ("a",), ("on", "account", "value", "on"))
    assert found == ([(True, "a", None, True), (None, "a", None, None)], None)
    assert type(found.rows[0][0]) is bool
    part = await store.scan_columns(ITEMS, ("a",), ("value",), limit=1)
    assert part.rows == [(None,)]
    assert await store.scan_columns(ITEMS, ("a",), ("part",), limit=1, page=part.next) == ([("q",)], None)


@pytest.mark.parametrize("table", [LOG, NEWEST])
async def test_the_first_rows_come_without_a_token(opened, table):
    store = await opened(table)
    keys = await fill(store, table, 12)
    for how in ({}, {"reverse": True}, {"after": key_of(3)[:1], "end": key_of(9)[:1]}):
        expected = within(table, keys, how)
        for first in (1, 3, 12, 99):
            found = await store.scan_columns(table, HERE, ("id", "peer"), first=first, **how)
            assert found == (expected[:first], None)
            found = await store.scan_columns(table, HERE, ("stanza",), first=first, **how)
            assert found == ([(b"to " + peer.encode(),) for _, peer in expected[:first]], None)


async def test_static_columns_alone_are_no_row(opened):
    store = await opened(ITEMS)
    await store.batch(ITEMS, ("a",), [], static={"version": 3})
    assert await store.scan_columns(ITEMS, ("a",), ("value",)) == ([], None)
    assert await store.scan_columns(ITEMS, ("a",), ("value",), first=1) == ([], None)
    assert await store.get_rows(ITEMS, ("a",), [("p",)]) == []


async def test_expired_rows_are_not_seen(engine, opened):
    store = await opened(LOG)
    await fill(store, LOG, 6, ttl=1)
    writer = store.writer(LOG, ("owner", "month", "id", "peer", "stanza"))
    await store.write([writer.row(*HERE, b"\xff", "a", b"stays")])
    engine.advance(2.1)
    assert await paged(store, LOG, ("stanza",), limit=1) == [(b"stays",)]
    assert await paged(store, LOG, ("stanza",), match={"peer": "a"}, examine=2) == [(b"stays",)]
    assert [row["id"] for row in await store.get_rows(LOG, HERE, [(key_of(3)[0],), (b"\xff",)])] == [b"\xff"]


@pytest.mark.parametrize("table", [LOG, NEWEST])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("examine", [None, 1, 3, 100])
@pytest.mark.parametrize("limit", [None, 2])
async def test_rows_that_match_are_found_wherever_they_are(opened, table, reverse, examine, limit):
    store = await opened(table)
    keys = await fill(store, table, 12)
    for ends in ({}, {"start": key_of(2)[:1]}, {"after": key_of(3)[:1], "before": key_of(9)[:1]}):
        how = {**ends, "reverse": reverse}
        for peer in (*PEERS, "zz", "nobody"):
            expected = [key for key in within(table, keys, how) if key[1] == peer]
            more = {"match": {"peer": peer}, "examine": examine, "limit": limit}
            found = await paged(store, table, ("id", "peer"), **how, **more)
            assert found == expected


async def test_what_is_looked_at_for_a_page_is_bounded(opened):
    """Where the rows are looked at on the loop; Cassandra looks at the whole range."""
    store = await opened(LOG)
    keys = await fill(store, LOG, 30)
    part = await store.scan_columns(LOG, HERE, ("id",), match={"peer": "nobody"}, examine=10)
    if part.next is None:
        assert part.rows == []
        return
    rest = await store.scan_columns(LOG, HERE, ("id", "peer"), page=part.next)
    assert rest.rows == keys[10:]


async def test_rows_by_many_keys(opened):
    store = await opened(LOG, NEWEST, ITEMS)
    for table in (LOG, NEWEST):
        keys = await fill(store, table, 120)
        ids = [key_of(number)[0] for number in (119, 3, 3, 500, 0, *range(20, 110))]
        expected = [key for key in keys if key[0] in ids]
        found = await store.get_rows(table, HERE, [(each,) for each in ids])
        assert [(row["id"], row["peer"]) for row in found] == (
            expected[::-1] if table.descending else expected
        )
        assert found[0] == await store.get(table, (*HERE, found[0]["id"], found[0]["peer"]))
        whole = await store.get_rows(table, HERE, [key_of(5), key_of(4), (key_of(6)[0], "nobody")])
        order = (5, 4) if table.descending else (4, 5)
        assert [(row["id"], row["peer"]) for row in whole] == [key_of(number) for number in order]
        assert await store.get_rows(table, HERE, []) == []
        assert await store.get_rows(table, (7, 3), [key_of(5)]) == []
    writes = [Put({"part": "p", "name": name, "on": True}) for name in "abc"]
    await store.batch(ITEMS, ("a",), writes, static={"version": 3})
    row = {"account": "a", "part": "p", "name": "b", "value": None, "on": True, "version": 3}
    assert await store.get_rows(ITEMS, ("a",), [("p", "b"), ("q", "b")]) == [row]


async def test_bad_questions_are_refused(opened):
    store = await opened(LOG, ITEMS, PROFILE)
    key, other = key_of(1), key_of(2)
    bad = [
        lambda: store.scan(LOG, HERE, start=key, after=key),
        lambda: store.scan(LOG, HERE, end=key, before=key),
        lambda: store.scan(LOG, HERE, after=("text",)), lambda: store.scan(LOG, HERE, before=(*key, "more")),
        lambda: store.scan_columns(LOG, HERE, ()), lambda: store.scan_columns(LOG, HERE, ("other",)),
        lambda: store.scan_columns(ITEMS, ("a",), ("version",)),
        lambda: store.scan_columns(LOG, HERE, ("id",), limit=0),
        lambda: store.scan_columns(LOG, HERE, ("id",), first=0),
        lambda: store.scan_columns(LOG, HERE, ("id",), first=1, limit=1),
        lambda: store.scan_columns(LOG, HERE, ("id",), first=1, page=b"x"),
        lambda: store.scan_columns(LOG, HERE, ("id",), first=1, match={"peer": "a"}),
        lambda: store.scan_columns(LOG, HERE, ("id",), match={"peer": "a"}, examine=0),
        lambda: store.scan_columns(LOG, HERE, ("id",), match={}),
        lambda: store.scan_columns(LOG, HERE, ("id",), match={"id": b""}),
        lambda: store.scan_columns(LOG, HERE, ("id",), match={"peer": b"a"}),
        lambda: store.scan_columns(LOG, HERE, ("id",), match={"peer": None}),
        lambda: store.scan_columns(LOG, HERE, ("id",), match={"peer": "a"}, start=key),
        lambda: store.scan_columns(LOG, HERE, ("id",), match={"peer": "a"}, before=key),
        lambda: store.scan_columns(PROFILE, ("a",), ("age",), match={"age": 1}),
        lambda: store.scan_columns(LOG, (7,), ("id",)),
        lambda: store.get_rows(LOG, HERE, [()]), lambda: store.get_rows(LOG, HERE, [key[:1], other]),
        lambda: store.get_rows(LOG, HERE, [(*key, "more")]), lambda: store.get_rows(LOG, HERE, [("text",)]),
        lambda: store.get_rows(LOG, (7,), [key]), lambda: store.get_rows(PROFILE, ("a",), [("x",)]),
    ]  # fmt: skip
    for ask in bad:
        with pytest.raises(StoreBug):
            await ask()


async def test_a_token_is_good_for_its_own_range_only(opened):
    store = await opened(LOG)
    await fill(store, LOG, 12)
    page = (await store.scan_columns(LOG, HERE, ("id",), after=key_of(3)[:1], limit=1)).next
    assert page is not None
    for how in (
        {"after": key_of(4)[:1]}, {"before": key_of(4)[:1]}, {"start": key_of(5)}, {"reverse": True},
        {"after": key_of(4)}, {"end": key_of(3)},
    ):  # fmt: skip
        with pytest.raises(StoreBug, match="page token"):
            await store.scan_columns(LOG, HERE, ("id",), page=page, **how)
    await store.scan_columns(LOG, HERE, ("id",), page=page, after=key_of(3)[:1], before=key_of(5)[:1])
