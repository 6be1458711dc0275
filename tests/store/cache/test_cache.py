"""Rosters through Redis while nothing goes wrong: what each step costs, and what is seen where."""

import asyncio

import pytest

from xmppd.core.roster.packed import pack
from xmppd.store.cache.redis import RedisCache

pytestmark = pytest.mark.asyncio


async def calls_of(node, work):
    """The answer, and how many round trips it took: nothing else is under way, so each was one call."""
    before = node.cache.counters["calls"]
    answer = await work
    return answer, node.cache.counters["calls"] - before


async def test_a_cold_load_is_one_partition_and_two_round_trips(nodes, store, shared_server):
    first, _ = nodes
    await first.set("a@x", "b@x")
    first.rosters.forget_all()
    shared_server.ask("FLUSHDB")
    store.scans = 0
    roster, calls = await calls_of(first, first.load("a@x"))
    assert roster.size == 1
    assert (store.scans, calls) == (1, 2)


async def test_a_warm_load_is_one_round_trip_and_no_statement(nodes, store, shared_server):
    first, second = nodes
    written = await first.set("a@x", "b@x")
    await second.until(lambda: ("changed", "a@x", written.version) in second.notices.all)

    async def cost():
        second.rosters.forget_all()
        store.scans = 0
        stats = shared_server.ask("INFO", "commandstats").get("cmdstat_evalsha", {"calls": 0})
        roster, calls = await calls_of(second, second.load("a@x"))
        now = shared_server.ask("INFO", "commandstats")["cmdstat_evalsha"]
        assert roster.size == 1
        return store.scans, calls, now["calls"] - stats["calls"]

    # What else the nodes say to Redis by time may come between.
    assert min([await cost() for _ in range(3)]) == (0, 1, 1)


async def test_a_roster_in_memory_costs_nothing(nodes, store):
    first, second = nodes
    written = await first.set("a@x", "b@x")
    await second.until(lambda: ("changed", "a@x", written.version) in second.notices.all)
    await second.load("a@x")
    store.scans = 0
    for node in nodes:
        roster, calls = await calls_of(node, node.load("a@x"))
        assert roster.size == 1
        assert (store.scans, calls) == (0, 0)


async def test_a_change_is_two_round_trips(nodes):
    first, _ = nodes
    await first.set("a@x", "b@x")
    _, calls = await calls_of(first, first.set("a@x", "c@x"))
    assert calls == 2


async def test_that_there_is_no_roster_is_remembered_for_a_moment(nodes, store, shared_server):
    first, second = nodes
    assert (await first.load("nobody@x")).version == 0
    store.scans = 0
    assert (await second.load("nobody@x")).version == 0
    assert store.scans == 0
    assert second.stats.negative_hits == 1
    (key,) = shared_server.ask("KEYS", f"{second.cache._prefix}:roster:*")
    assert 0 < shared_server.ask("PTTL", key) <= 30_000


async def test_lives_differ(nodes, shared_server):
    first, _ = nodes
    for number in range(20):
        await first.set(f"a{number}@x", "b@x")
    keys = shared_server.ask("KEYS", f"{first.cache._prefix}:roster:*")
    lives = sorted(shared_server.ask("TTL", key) for key in keys)
    assert 2_870 <= lives[0] < lives[-1] <= 4_320
    assert lives[-1] - lives[0] > 100


async def test_what_another_node_changed_is_seen(nodes):
    first, second = nodes
    for number in range(20):
        writer, reader = (first, second) if number % 2 else (second, first)
        await reader.load("a@x")
        written = await writer.set("a@x", f"b{number}@x")
        await reader.until(lambda r=reader, v=written.version: ("changed", "a@x", v) in r.notices.all)
        assert (await reader.load("a@x")).version == written.version


async def test_a_removed_roster_is_gone_everywhere(nodes):
    first, second = nodes
    before = await first.set("a@x", "b@x")
    await second.load("a@x")
    await first.rosters.remove_account("a@x")
    await second.until(lambda: ("changed", "a@x", -1) in second.notices.all)
    for node in nodes:
        roster = await node.load("a@x")
        assert roster.version > before.version
        assert roster.size == 0


async def test_two_nodes_changing_one_roster_lose_nothing(nodes):
    async def add(node, name):
        for number in range(20):
            await node.set("a@x", f"{name}{number}@x")

    await asyncio.gather(add(nodes[0], "left"), add(nodes[1], "right"))
    for node in nodes:
        node.rosters.forget_all()
        assert (await node.load("a@x")).size == 40


@pytest.mark.parametrize("damage", [b"", b"\x01", b"\x02" + b"0" * 60, None])
async def test_what_cannot_be_read_is_a_miss_and_goes(nodes, shared_server, store, damage):
    first, second = nodes
    roster = await first.set("a@x", "b@x")
    (key,) = shared_server.ask("KEYS", f"{first.cache._prefix}:roster:*")
    value = shared_server.ask("GET", key)
    shared_server.ask("SET", key, value[:-1] if damage is None else damage)
    assert await second.load("a@x") == roster
    assert shared_server.ask("GET", key) == pack(roster)


async def test_keys_of_one_account_share_a_slot(nodes, shared_server):
    for account in ("a@x", "}a@x", "{}@x", "a{b}c@x", "{a@x"):
        keys = nodes[0].cache._keys(account)
        tags = {key[key.index("{") + 1 : key.index("}", key.index("{"))] for key in keys}
        assert len(tags) == 1 and tags != {""}
        assert len(set(keys)) == 3


async def test_names_of_accounts_do_not_mix(nodes):
    first, second = nodes
    for account in ("}a@x", "a@x", "{}a@x", "a{b}c@x"):
        await first.set(account, f"b-{account}")
    for account in ("}a@x", "a@x", "{}a@x", "a{b}c@x"):
        assert (await second.load(account)) == (await first.load(account))


async def test_scripts_that_were_flushed_are_sent_again(nodes, shared_server):
    first, second = nodes
    roster = await first.set("a@x", "b@x")
    shared_server.ask("SCRIPT", "FLUSH")
    assert await second.load("a@x") == roster
    shared_server.ask("SCRIPT", "FLUSH")
    assert (await first.set("a@x", "c@x")).size == 2
    assert first.cache.counters["errors"] == second.cache.counters["errors"] == 0


async def test_many_at_once_are_few_round_trips_and_all_right(nodes):
    first, second = nodes
    for number in range(100):
        await first.set(f"a{number}@x", f"b{number}@x")
    rosters = await asyncio.gather(*(second.load(f"a{number}@x") for number in range(100)))
    assert [roster.account for roster in rosters] == [f"a{number}@x" for number in range(100)]
    assert second.stats.hits == 100


async def test_a_changed_account_is_told(nodes):
    first, second = nodes
    first.cache.publish_account("a@x")
    await second.until(lambda: ("account", "a@x") in second.notices.all)
    assert ("account", "a@x") not in first.notices.all


async def test_a_redis_that_is_not_there_stops_nobody(make_nodes, store):
    cache = RedisCache("redis://127.0.0.1:1")
    await cache.open(DeafListener())
    try:
        assert (await cache.read("a@x")).value is None
        write = await cache.begin("a@x")
        assert not await cache.finish(write, 1, b"")
        assert cache.counters["up"] == 0 and cache.counters["owed"] == 1
    finally:
        await cache.close()


class DeafListener:
    def __getattr__(self, name):
        return lambda *_: None
