"""Cassandra's own again: several kinds of writes on one row, making tables, large partitions, lives."""

import asyncio
import dataclasses

import pytest
import pytest_asyncio

from tests.store.test_cassandra import ITEMS, PROFILE
from xmppd.errors import StoreBug, StoreUnavailable
from xmppd.store.cassandra import schema
from xmppd.store.cassandra.schema import _windows
from xmppd.store.cassandra.store import CassandraOptions, CassandraStore
from xmppd.store.table import Delete, Put, Table

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def store(keyspace):
    store = CassandraStore(keyspace.options)
    await store.open([ITEMS, PROFILE])
    yield store
    await store.close()


# kinds of writes on one row


async def test_no_write_is_lost_when_kinds_alternate(store):
    """Plain and conditional writes get their time from different places: the later one wins."""
    for round_ in range(60):
        await store.put(PROFILE, {"account": "a", "name": "put", "age": round_})
        assert await store.put_if(PROFILE, {"account": "a", "age": round_ + 1}, {"age": round_})
        assert (await store.get(PROFILE, ("a",)))["age"] == round_ + 1
        await store.put(PROFILE, {"account": "a", "age": -1})
        assert (await store.get(PROFILE, ("a",)))["age"] == -1
        assert await store.put_if(PROFILE, {"account": "a", "age": 3}, {"age": -1})
        await store.delete(PROFILE, ("a",))
        assert await store.get(PROFILE, ("a",)) is None
        assert await store.put_if(PROFILE, {"account": "a", "age": 4}, None)
        assert (await store.get(PROFILE, ("a",)))["age"] == 4
        assert await store.delete_if(PROFILE, ("a",), {"age": 4})
        assert await store.get(PROFILE, ("a",)) is None
        await store.put(PROFILE, {"account": "a", "age": 5})
        assert await store.delete_if(PROFILE, ("a",), {"age": 5})
        assert await store.get(PROFILE, ("a",)) is None


async def test_no_batch_is_lost_when_kinds_alternate(store):
    for version in range(0, 120, 2):
        assert await store.batch(
            ITEMS, ("a",), [Put({"contact": "b", "rank": version})], static={"version": version},
            expect={"version": version - 1 if version else None},
        )  # fmt: skip
        await store.batch(ITEMS, ("a",), [Put({"contact": "b", "rank": version + 1}), Delete(("c",))])
        assert (await store.get(ITEMS, ("a", "b")))["rank"] == version + 1
        assert await store.batch(
            ITEMS, ("a",), [Delete(("b",)), Put({"contact": "c", "rank": version})],
            static={"version": version + 1}, expect={"version": version},
        )  # fmt: skip
        assert [row["contact"] for row in (await store.scan(ITEMS, ("a",))).rows] == ["c"]
    await store.delete(ITEMS, ("a",))
    assert await store.get_static(ITEMS, ("a",)) is None


# making tables


async def test_servers_that_start_at_once_make_every_table_once(cassandra_nodes, cassandra_session):
    name = "xmppd_test_at_once"
    cassandra_session.execute(f"DROP KEYSPACE IF EXISTS {name}")
    options = CassandraOptions(contact_points=tuple(cassandra_nodes), keyspace=name)
    stores = [CassandraStore(options) for _ in range(4)]
    try:
        await asyncio.gather(*(each.open([ITEMS, PROFILE]) for each in stores))
        for number, each in enumerate(stores):
            await each.put(PROFILE, {"account": str(number), "age": number})
        assert len((await stores[0].scan_all(PROFILE)).rows) == 4
        versions = cassandra_session.execute(f"SELECT version FROM {name}.xmppd_schema")
        assert [row.version for row in versions] == [1, 1]
        assert list(cassandra_session.execute(f"SELECT * FROM {name}.xmppd_lock")) == []
    finally:
        for each in stores:
            await each.close()
        cassandra_session.execute(f"DROP KEYSPACE {name}")


async def test_a_server_may_be_told_to_make_nothing(keyspace):
    checking = dataclasses.replace(keyspace.options, migrate="check")
    wanted = Table("later", ("a",), ("b",), {"x": "int"})
    store = CassandraStore(checking)
    with pytest.raises(StoreUnavailable, match=r"table later.*xmppd store migrate"):
        await store.open([wanted])
    assert "table later" in await store.missing([wanted])
    assert await store.migrate([wanted]) == ["table later"]
    assert await store.missing([wanted]) == []
    assert await store.migrate([wanted]) == []
    await store.open([wanted])
    grown = Table("later", ("a",), ("b",), {"x": "int", "y": "text"}, static={"s": "int"})
    with pytest.raises(StoreUnavailable, match="column y of table later, column s of table later"):
        await store.open([grown])
    await store.put(wanted, {"a": "1", "b": "2", "x": 3})
    await store.migrate([grown])
    await store.open([grown])
    assert await store.get(grown, ("1", "2")) == {"a": "1", "b": "2", "x": 3, "y": None, "s": None}
    await store.close()


async def test_a_creation_that_was_cut_short_is_finished(keyspace, cassandra_session):
    store = CassandraStore(keyspace.options)
    await store.open([PROFILE])
    cassandra_session.execute(f"CREATE TABLE {keyspace.name}.half (a text PRIMARY KEY, x bigint)")
    table = Table("half", ("a",), columns={"x": "int", "y": "bool"})
    await store.open([table])
    await store.put_if(table, {"a": "1", "x": 2, "y": True}, None)
    assert await store.get(table, ("1",)) == {"a": "1", "x": 2, "y": True}
    cassandra_session.execute(f"CREATE TABLE {keyspace.name}.foreign (a text PRIMARY KEY, x text)")
    with pytest.raises(StoreBug, match="somebody else"):
        await store.open([Table("foreign", ("a",), columns={"x": "int"})])
    await store.close()


async def test_a_cluster_that_is_not_there_is_unavailable():
    options = CassandraOptions(
        contact_points=(("127.0.0.1", 1),), connect_timeout=1.0
    )  # real time: nobody is there
    store = CassandraStore(options)
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1"):
        await store.open([PROFILE])
    await store.close()


async def test_what_is_shown_of_the_store(store, keyspace):
    info = await store.info()
    assert info["keyspace"] == keyspace.name
    assert [node["up"] for node in info["nodes"]] == [True] * len(info["nodes"])
    tables = {table["name"]: table for table in info["tables"]}
    assert tables["profile"]["schema_version"] == 1
    assert {"account", "name", "age"} <= set(tables["profile"]["columns"])


# large partitions, and how tables are kept


async def test_ten_thousand_rows_come_in_pieces(store):
    async def fill(start: int) -> None:
        puts = [Put({"contact": f"{n:05}", "rank": n}) for n in range(start, start + 500)]
        await store.batch(ITEMS, ("a",), puts)

    await asyncio.gather(*(fill(start) for start in range(0, 10_000, 500)))
    requests = store.stats.requests
    page = await store.scan(ITEMS, ("a",))
    assert page.next is None
    assert [row["rank"] for row in page.rows] == list(range(10_000))
    assert store.stats.requests - requests >= 5
    found: list[int] = []
    token = None
    while True:
        page = await store.scan(ITEMS, ("a",), limit=3000, reverse=True, page=token)
        found += [row["rank"] for row in page.rows]
        if (token := page.next) is None:
            break
    assert found == list(range(9_999, -1, -1))
    everything = await store.scan_all(ITEMS, limit=10_000)
    assert (len(everything.rows), everything.next) == (10_000, None)


async def test_partitions_without_rows_do_not_end_a_scan_of_everything(store):
    for number in range(60):
        await store.batch(ITEMS, (f"s{number}",), [], static={"version": number})
    for number in range(5):
        await store.batch(ITEMS, (f"r{number}",), [Put({"contact": c}) for c in "xyz"], static={"version": 0})
    for limit in (1, 2, 4, 15, 16):
        found: list[tuple[str, str]] = []
        token = None
        while True:
            page = await store.scan_all(ITEMS, limit=limit, page=token)
            found += [(row["account"], row["contact"]) for row in page.rows]
            if (token := page.next) is None:
                break
            assert len(page.rows) == limit
        assert sorted(found) == [(f"r{number}", c) for number in range(5) for c in "xyz"]


async def test_an_old_mark_does_not_outlive_a_row(store):
    assert await store.put_if(PROFILE, {"account": "a", "age": 1}, None)
    await store.put(PROFILE, {"account": "a", "age": 1, "name": None}, ttl=1)
    await asyncio.sleep(1.1)
    assert await store.get(PROFILE, ("a",)) is None
    assert await store.put_if(PROFILE, {"account": "a", "age": 2}, None)


async def test_a_life_beyond_what_cassandra_knows_is_for_ever(store):
    await store.put(PROFILE, {"account": "a", "age": 1}, ttl=1e12)
    assert (await store.get(PROFILE, ("a",)))["age"] == 1


@pytest.mark.parametrize(
    ("ttl", "window"),
    [(1, ("MINUTES", "1")), (3600, ("MINUTES", "3")), (86400, ("HOURS", "1")), (90 * 86400, ("DAYS", "4"))],
)
async def test_windows_of_tables_whose_rows_end(ttl, window):
    found = _windows(ttl)
    assert (found["compaction_window_unit"], found["compaction_window_size"]) == window


async def test_our_own_tables_may_be_listed_before_a_node_has_them(empty_keyspace, monkeypatch):
    """As where two servers start at once on an empty Cassandra."""
    asked, ask = dict.fromkeys(schema.OURS, 0), schema.Schema._ask

    async def late(self, text, values=()):
        for name in schema.OURS:
            if f'".{name}' in text and asked[name] < 3:
                asked[name] += 1
                raise StoreBug(f"Cassandra refused a statement: table {name} does not exist")
        return await ask(self, text, values)

    monkeypatch.setattr(schema.Schema, "_ask", late)
    monkeypatch.setattr(schema, "LOCK_PAUSE", 0.01)
    for anew in (schema.OURS, (schema.SCHEMA,)):  # the second time nothing is made
        asked.update(dict.fromkeys(anew, 0))
        store = CassandraStore(empty_keyspace.options)
        await store.open([ITEMS, PROFILE])
        await store.put(PROFILE, {"account": "a", "age": 1})
        await store.close()
        assert set(asked.values()) == {3}
