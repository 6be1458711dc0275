"""Requests that go past the driver: what is unusual, which the driver has to do after all."""

import asyncio
import dataclasses
import random
import socket
from typing import Any

import pytest
import pytest_asyncio
from patience import PATIENCE

from xmppd.errors import StoreError, StoreTimeout
from xmppd.store.cassandra.store import CassandraStore
from xmppd.store.cassandra.straight import CELLS, Straight
from xmppd.store.cassandra.wire import Segments
from xmppd.store.table import Put, Table

ITEMS = Table(
    "items",
    partition=("account",),
    cluster=("contact",),
    columns={
        "name": "text",
        "rank": "int",
        "data": "blob",
        "share": "float",
        "since": "timestamp",
        "is_new": "bool",
    },
    static={"version": "int"},
)
COUNTED = Table("counted", partition=("number", "name"), columns={"number": "int", "value": "text"})


@pytest_asyncio.fixture
async def store(keyspace):
    store = CassandraStore(keyspace.options)
    await store.open([ITEMS, COUNTED])
    yield store
    await store.close()


def wire_of(store: CassandraStore) -> Any:
    """The connection to the first node."""
    pools = store._link._connected().session._pools
    return next(iter(pools.values()))._connection


def by_driver(store: CassandraStore, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the driver is asked to do."""
    asked: list[Any] = []
    real = Straight.by_driver

    def noted(straight: Straight, statement: Any, *how: Any) -> Any:
        asked.append(statement)
        return real(straight, statement, *how)

    monkeypatch.setattr(Straight, "by_driver", noted)
    return asked


async def use(store: CassandraStore, number: int) -> None:
    """Every kind of statement."""
    account = f"a{number}"
    await store.put(ITEMS, {"account": account, "contact": "é", "name": "x", "rank": number})
    assert (await store.get(ITEMS, (account, "é")))["rank"] == number
    writer = store.writer(ITEMS, ("account", "contact", "rank"))
    await store.write([writer.row(account, "f", 1), writer.row(f"b{number}", "f", 2)])
    assert await store.batch(ITEMS, (account,), [Put({"contact": "g"})], static={"version": 1})
    put = [Put({"contact": "h", "rank": 1})]
    change = {"static": {"version": 2}, "expect": {"version": 1}}
    assert await store.batch(ITEMS, (account,), put, **change)
    assert not await store.batch(ITEMS, (account,), put, **change)
    assert await store.put_if(ITEMS, {"account": account, "contact": "i", "rank": 1}, None)
    assert not await store.put_if(ITEMS, {"account": account, "contact": "i", "rank": 2}, None)
    assert await store.put_if(ITEMS, {"account": account, "contact": "i", "rank": 2}, {"rank": 1})
    assert await store.delete_if(ITEMS, (account, "i"), {"rank": 2})
    assert [row["contact"] for row in (await store.scan(ITEMS, (account,))).rows] == ["f", "g", "h", "é"]
    await store.put(COUNTED, {"number": number, "name": "n", "value": ""})
    assert await store.get(COUNTED, (number, "n")) == {"number": number, "name": "n", "value": ""}


@pytest.mark.asyncio
async def test_what_is_usual_never_reaches_the_driver(store, monkeypatch):
    asked = by_driver(store, monkeypatch)
    await use(store, 1)
    await use(store, 2)
    assert asked == []
    assert wire_of(store).in_flight == 0


@pytest.mark.asyncio
async def test_statements_that_cassandra_has_forgotten_are_taken_in_again(store, keyspace, monkeypatch):
    await use(store, 1)
    for table in ("items", "counted"):
        keyspace.execute(f"ALTER TABLE {keyspace.name}.{table} ADD another text")
    asked = by_driver(store, monkeypatch)
    await use(store, 2)
    assert asked
    del asked[:]
    await use(store, 3)
    assert asked == []
    assert wire_of(store).in_flight == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("count", [0, 1, 7, CELLS])
async def test_rows_of_all_types_come_as_they_were_written(store, count):
    chance = random.Random(count)
    values = {
        "name": ["", "é\0x", None],
        "rank": [-(1 << 63), (1 << 63) - 1, 0, None],
        "data": [b"", b"\0\xff", None],
        "share": [float("inf"), -1.5, None],
        "since": [1.25, 0.0, None],
        "is_new": [True, False, None],
    }
    rows = [
        {"account": "a", "contact": f"{n:05}", **{name: chance.choice(some) for name, some in values.items()}}
        for n in range(count)
    ]
    for row in rows:
        await store.put(ITEMS, row)
    assert (await store.scan(ITEMS, ("a",))).rows == [{**row, "version": None} for row in rows]


@pytest.mark.asyncio
async def test_rows_come_in_pieces(store):
    session = store._link._connected().session
    session._page = (3).to_bytes(4, "big")
    names = [f"{n:03}" for n in range(40)]
    await asyncio.gather(*(store.put(ITEMS, {"account": "a", "contact": name, "rank": 1}) for name in names))
    assert [row["contact"] for row in (await store.scan(ITEMS, ("a",))).rows] == names
    session._page = (CELLS).to_bytes(4, "big")  # which the driver makes rows of
    more = [f"{n:04}" for n in range(300)]
    await asyncio.gather(*(store.put(ITEMS, {"account": "b", "contact": name, "rank": 1}) for name in more))
    assert [row["contact"] for row in (await store.scan(ITEMS, ("b",))).rows] == more


@pytest.mark.asyncio
async def test_an_answer_that_is_late_frees_its_stream_when_it_comes(store):
    await use(store, 1)
    options = store._link._options
    store._link._options = dataclasses.replace(options, request_timeout=1e-6)
    for _ in range(5):
        with pytest.raises(StoreTimeout):
            await store.put_if(ITEMS, {"account": "a", "contact": "b", "rank": 1}, None)
        store._link.breaker.succeeded()
    store._link._options = options
    wire = wire_of(store)
    async with asyncio.timeout(PATIENCE):
        while wire.in_flight or wire.orphaned_request_ids:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
    free = list(wire.request_ids)
    assert len(set(free)) == len(free)
    await use(store, 2)


@pytest.mark.asyncio
async def test_a_connection_that_breaks_is_made_anew_and_all_who_asked_are_told(store):
    await use(store, 1)
    wire = wire_of(store)
    asking = [asyncio.ensure_future(store.get(ITEMS, (f"a{n}", "x"))) for n in range(50)]
    await asyncio.sleep(0)
    wire._socket.shutdown(socket.SHUT_RDWR)
    async with asyncio.timeout(PATIENCE):
        outcomes = await asyncio.gather(*asking, return_exceptions=True)
        assert all(outcome is None or isinstance(outcome, StoreError) for outcome in outcomes)
        while True:
            try:
                await store.get(ITEMS, ("a", "b"))
                break
            except StoreError:
                await asyncio.sleep(0.05)
    assert wire_of(store) is not wire
    await use(store, 2)
    assert store.stats.in_flight == wire_of(store).in_flight == 0


def test_envelopes_of_a_turn_share_segments() -> None:
    chance = random.Random(1)
    sizes = [50, 100, 131_000, 20, 131_071, 9, 9, 400_000, 30]
    envelopes = [chance.randbytes(size) for size in sizes]
    data, whole = memoryview(b"".join(Segments.of(envelopes))), b""
    count = 0
    while data:
        word = int.from_bytes(data[:3], "little")
        length = word & 0x1FFFF
        whole += data[6 : 6 + length]
        data = data[6 + length + 4 :]
        count += 1
    assert whole == b"".join(envelopes)
    assert count == 9
