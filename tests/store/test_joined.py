"""Rows that are written to Cassandra together: the bounds of batches, and what is told when one fails."""

import asyncio
import dataclasses
from itertools import chain
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import pytest
import pytest_asyncio
from cassandra import InvalidRequest, ProtocolVersion, Unavailable
from cassandra.cluster import NoHostAvailable
from cassandra.protocol import BatchMessage, ProtocolHandler
from cassandra.query import BatchStatement, BatchType
from faultydriver import LOST, Driver
from hypothesis import given

from xmppd.errors import StoreBug, StoreTimeout, StoreUnavailable
from xmppd.store.cassandra.calls import OpenTable
from xmppd.store.cassandra.encoding import EncodedBatch, EncodedRow, EncodedRows, Requests
from xmppd.store.cassandra.joined import (
    BYTES,
    PARTITION_BYTES,
    PARTITIONS,
    ROW_BYTES,
    Call,
    RowWriter,
    batches,
)
from xmppd.store.cassandra.link import TRIES
from xmppd.store.cassandra.store import CassandraStore
from xmppd.store.table import Table

PROFILE = Table("profile", ("account",), columns={"name": "text", "age": "int"})
LOG = Table("log", ("owner", "month"), ("id",), {"owner": "int", "month": "int", "id": "int", "text": "text"})
NOBODY = NoHostAvailable("nobody", {"node": ConnectionError("refused")})


# how rows are joined

shapes = st.lists(
    st.lists(st.tuples(st.integers(0, 14), st.sampled_from([0, 10, 400, 4000, 6000])), max_size=14),
    max_size=30,
)


def call(*rows: tuple[int, int]) -> Call:
    made = [
        EncodedRow("INSERT", b"x" * size, b"\0\0\0\1" + bytes([partition]), ROW_BYTES + size)
        for partition, size in rows
    ]
    return Call(made, None)  # type: ignore[arg-type]


@given(shapes)
def test_every_row_is_in_one_batch_that_is_within_bounds(shape):
    calls = [call(*rows) for rows in shape]
    made = list(batches(calls))
    joined = [id(row) for row in chain.from_iterable(batch.rows for batch in made)]
    assert sorted(joined) == sorted(id(row) for each in calls for row in each.rows)
    for batch in made:
        partitions = {row.partition for row in batch.rows}
        assert 0 < len(partitions) <= PARTITIONS
        size = sum(row.size for row in batch.rows) + PARTITION_BYTES * len(partitions)
        assert len(partitions) == 1 or size <= BYTES


@given(shapes)
def test_what_one_call_has_of_a_partition_is_in_one_batch(shape):
    calls = [call(*rows) for rows in shape]
    made = list(batches(calls))
    for each in calls:
        places = [
            (row.partition, place)
            for place, batch in enumerate(made)
            for row in batch.rows
            if any(row is own for own in each.rows)
        ]
        assert len(set(places)) == len({partition for partition, _ in places})
        assert each.pieces == len({place for _, place in places})


def test_small_calls_are_joined_up_to_the_bounds():
    assert len(list(batches([call((n % 10, 10)) for n in range(50)]))) == 1
    assert len(list(batches([call((n, 10)) for n in range(25)]))) == 3
    assert [len(batch.rows) for batch in batches([call((n, 2000)) for n in range(5)])] == [2, 2, 1]
    both = list(batches([call((n, 300), (n + 100, 300)) for n in range(10)]))
    assert [len(batch.calls) for batch in both] == [5, 5]


def test_the_size_of_a_row_is_never_less_than_its_values():
    writer = RowWriter(OpenTable("k", LOG), ("owner", "month", "id", "text"))
    _, rows = writer.row(1, 2, 3, "é" * 100)
    assert [row.size > 3 * 8 + 200 for row in writer.statements(rows, None)] == [True]


SENT = (1, ProtocolVersion.V5, None, False)
"""Stream, version, no compression, no version on trial."""


@pytest.mark.parametrize("ttl", [None, 60])
@pytest.mark.parametrize("text", ["é" * 100, "", None])
def test_rows_go_over_the_wire_as_the_driver_would_send_them(text, ttl):
    opened = OpenTable("k", LOG)
    writer = RowWriter(opened, ("owner", "month", "id", "text"))
    _, rows = writer.rows([(1, -2, 1 << 40, text), (2, 3, 4, "b")])
    made = list(writer.statements(rows, ttl))
    prepared = {text: SimpleNamespace(query_id=text[:20].encode(), keyspace="k") for text, *_ in made}
    batch = EncodedBatch(prepared, made)
    driver = BatchStatement(BatchType.UNLOGGED)
    for owner, month, id, body in ((1, -2, 1 << 40, text), (2, 3, 4, "b")):
        cql, values = opened.insert({"owner": owner, "month": month, "id": id, "text": body}, ttl or 0)
        packed = [packed_as(value, is_life=place == len(values) - 1) for place, value in enumerate(values)]
        driver._add_statement_and_params(True, prepared[cql].query_id, packed)
    ours, theirs = (
        BatchMessage(it.batch_type, it._statements_and_parameters, 6, 9, None, "k") for it in (batch, driver)
    )
    assert Requests.encode_message(ours, *SENT) == ProtocolHandler.encode_message(theirs, *SENT)
    assert isinstance(ours.queries, EncodedRows)  # it may be sent again
    assert batch.routing_key == b"".join(
        b"\0\x08" + n.to_bytes(8, "big", signed=True) + b"\0" for n in (1, -2)
    )


def packed_as(value: object, *, is_life: bool) -> bytes | None:
    """A value as the protocol has it, without its length."""
    if isinstance(value, int):
        return value.to_bytes(4 if is_life else 8, "big", signed=True)
    return value.encode() if isinstance(value, str) else None


# what is told


@pytest_asyncio.fixture
async def store(keyspace):
    store = CassandraStore(keyspace.options)
    await store.open([PROFILE, LOG])
    writer = store.writer(PROFILE, ("account", "age"))
    await store.write([writer.row("prepared", 0)])
    yield store
    await store.close()


@pytest.fixture
def driver(store):
    driver = Driver(store)
    yield driver
    driver.repair()


def profiles(store: CassandraStore, *numbers: int) -> Any:
    writer = store.writer(PROFILE, ("account", "age"))
    return store.write([writer.row(f"a{number}", number) for number in numbers])


async def ages(store: CassandraStore, *numbers: int) -> list[int | None]:
    return [row and row["age"] for row in await store.get_many(PROFILE, [f"a{n}" for n in numbers])]


@pytest.mark.asyncio
async def test_writes_of_one_turn_are_one_request(store, driver):
    await asyncio.gather(*(profiles(store, number) for number in range(10)))
    assert driver.asked == 1
    driver.asked = 0
    await asyncio.gather(*(profiles(store, number, number + 100) for number in range(50)))
    assert driver.asked == 10
    assert await ages(store, *range(50)) == list(range(50))


@pytest.mark.asyncio
@pytest.mark.parametrize("ttl", [None, 60])
@pytest.mark.parametrize("size", [0, 1, 40, 211, 700, 2400])
async def test_cassandra_warns_of_no_batch(store, monkeypatch, size, ttl):
    logs = store.writer(LOG, ("owner", "month", "id", "text"))
    people = store.writer(PROFILE, ("account", "name", "age"))
    await store.write([logs.row(0, 0, 0, "x"), people.row("x", "y", 1)])  # texts are taken in
    link, responses = store._link, []
    start = link._start

    def started(*args: Any, **more: Any) -> Any:
        response, answer = start(*args, **more)
        responses.append(response)
        return response, answer

    monkeypatch.setattr(link, "_start", started)
    for partitions in (3, 9, 40):
        rows = [(number % partitions, 1, number, "x" * size or None) for number in range(120)]
        await asyncio.gather(
            store.write([logs.rows(rows)], ttl=ttl),
            store.write([people.row(f"a{number}", "n" * size, number) for number in range(40)], ttl=ttl),
        )
    assert len(responses) > 12
    assert [response.warnings for response in responses if response.warnings] == []


@pytest.mark.asyncio
async def test_the_first_write_of_a_text_is_written_when_that_was_taken_in(store):
    writer = store.writer(LOG, ("id", "text", "month", "owner"))
    write = store.write([writer.row(3, "é", 2, 1), writer.row(4, None, 2, 1)])
    await asyncio.gather(write, profiles(store, 1))
    rows = [{"owner": 1, "month": 2, "id": i, "text": text} for i, text in ((3, "é"), (4, None))]
    assert (await store.scan(LOG, (1, 2))).rows == rows


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["lost", "refused"])
@pytest.mark.parametrize(
    "error", [LOST, NOBODY, Unavailable("dead", consistency=6, required_replicas=2, alive_replicas=1)]
)
async def test_a_batch_that_fails_is_tried_again(store, driver, kind, error):
    driver.script = [(kind, error), (kind, error)]
    await asyncio.gather(profiles(store, 1, 2), profiles(store, 3))
    assert await ages(store, 1, 2, 3) == [1, 2, 3]
    assert store.stats.in_flight == 0


@pytest.mark.asyncio
async def test_nothing_written_is_told_only_if_that_is_so(store, driver):
    driver.script = [*[("refused", NOBODY)] * (TRIES + 1)]
    with pytest.raises(StoreUnavailable):
        await profiles(store, 1)
    driver.script = [("lost", LOST), *[("refused", NOBODY)] * TRIES]
    with pytest.raises(StoreTimeout):
        await profiles(store, 2)
    driver.script = [("refused", NOBODY), ("lost", LOST), *[("refused", NOBODY)] * TRIES]
    with pytest.raises(StoreTimeout):
        await profiles(store, 3)
    refused = ("refused", NOBODY)
    driver.fault = lambda statement: refused if writes(statement, b"a20") else None
    with pytest.raises(StoreTimeout, match="some of it"):
        await profiles(store, *range(4, 24))
    driver.repair()
    found = await ages(store, 1, 2, 3)
    assert found == [None, 2, 3]


def writes(statement: Any, value: bytes) -> bool:
    """Whether it is a batch that has this value."""
    rows = getattr(statement, "_statements_and_parameters", None)
    return isinstance(rows, EncodedRows) and len(value).to_bytes(4, "big") + value in rows.body


@pytest.mark.asyncio
async def test_who_writes_what_cassandra_refuses_is_told_alone(store, driver):
    refused = ("refused", InvalidRequest("no"))
    driver.fault = lambda statement: refused if writes(statement, b"a2") else None
    outcomes = await asyncio.gather(*(profiles(store, n, n + 10) for n in range(5)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes].count(StoreBug) == 1
    assert isinstance(outcomes[2], StoreBug)
    driver.repair()
    assert await ages(store, 0, 1, 2, 3, 4, 12) == [0, 1, None, 3, 4, None]


@pytest.mark.asyncio
async def test_a_dead_store_takes_no_writes(store, driver):
    store._link._options = dataclasses.replace(store._link._options, request_timeout=0.5)
    driver.fault = lambda statement: ("refused", LOST)
    outcomes = await asyncio.gather(
        *(profiles(store, *range(n, n + 200)) for n in range(3)), return_exceptions=True
    )
    assert {type(outcome) for outcome in outcomes} == {StoreTimeout}
    asked = driver.asked
    with pytest.raises(StoreUnavailable, match="does not answer"):
        profiles(store, 1)
    assert driver.asked == asked


@pytest.mark.asyncio
async def test_without_a_slot_writes_wait_for_one(keyspace):
    store = CassandraStore(dataclasses.replace(keyspace.options, in_flight=2))
    await store.open([PROFILE])
    writes = [profiles(store, *range(number, number + 10)) for number in range(0, 300, 10)]
    await asyncio.gather(*writes, *(store.get(PROFILE, ("a",)) for _ in range(20)))
    assert await ages(store, *range(300)) == list(range(300))
    assert store.stats.in_flight == 0
    await store.close()
