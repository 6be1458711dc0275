"""The list of nodes in a real Redis: what is written, read, kept and refused."""

import asyncio
import json
import secrets

import pytest
import pytest_asyncio
from patience import PATIENCE

from xmppd.cluster.registry import Entry
from xmppd.core.roster.tier import Listener
from xmppd.engines import node_list
from xmppd.errors import NodesUnavailable
from xmppd.store.cache.redis import RedisCache


class Deaf(Listener):
    """Nobody who would take notices over: what the port says is all it does."""


class Lists:
    """Caches on one Redis, by their nodes' names."""

    def __init__(self, url):
        self.url = url
        self.prefix = f"test.{secrets.token_hex(4)}"
        self.caches = []

    async def open(self):
        cache = RedisCache(self.url, prefix=self.prefix, timeout=PATIENCE)
        self.caches.append(cache)
        await cache.open(Deaf())
        return node_list(cache)


@pytest_asyncio.fixture
async def lists(shared_server):
    lists = Lists(shared_server.url)
    yield lists
    for cache in lists.caches:
        await cache.close()


@pytest.fixture
def client(shared_server):
    with shared_server.client as client:
        yield client


def entry(name, incarnation=1, **options):
    return Entry(name, incarnation, (f"{name}:5290", f"unix:/run/{name}"), **options)


def age(client, lists, name, seconds):
    """Have a node's last beat be so old."""
    key = f"{lists.prefix}:nodes"
    stored = json.loads(client.hget(key, name))
    stored["beat"] -= seconds * 1000
    client.hset(key, name, json.dumps(stored))


@pytest.mark.asyncio
async def test_each_reads_what_the_others_wrote(lists, client):
    one, other = await lists.open(), await lists.open()
    first = await one.beat(entry("a", 2**62, state="draining", version="1.2"), b"s1", is_first=True)
    assert first == (False, [], b"s1")
    second = await other.beat(entry("b"), b"s2", is_first=True)
    assert not second.is_taken and second.secret == b"s1"
    [read] = second.others
    assert read._replace(age=0.0) == entry("a", 2**62, state="draining", version="1.2")
    assert 0 <= read.age < 10
    assert set(client.hgetall(f"{lists.prefix}:nodes")) == {b"a", b"b"}
    assert client.get(f"{lists.prefix}:secret") == b"s1"
    assert client.ttl(f"{lists.prefix}:secret") == client.ttl(f"{lists.prefix}:nodes") == -1


@pytest.mark.asyncio
async def test_a_beat_is_dated_by_the_clock_of_redis(lists, client):
    nodes = await lists.open()
    await nodes.beat(entry("a"), b"", is_first=True)
    age(client, lists, "a", 3600.5)
    seconds, _ = client.time()
    await nodes.beat(entry("a"), b"", is_first=False)
    stored = json.loads(client.hget(f"{lists.prefix}:nodes", "a"))
    assert seconds * 1000 <= stored["beat"] <= (seconds + 60) * 1000
    assert stored["incarnation"] == "0000000000000001"


@pytest.mark.asyncio
async def test_who_needs_no_secret_leaves_none(lists, client):
    nodes = await lists.open()
    assert (await nodes.beat(entry("a"), b"", is_first=True)).secret == b""
    assert client.get(f"{lists.prefix}:secret") is None


@pytest.mark.parametrize(
    ("there", "seconds", "own", "is_first", "is_taken"),
    [
        (1, 0, 1, False, False),
        (1, 0, 2, True, True),
        (2, 0, 1, True, True),
        (1, 0, 2, False, False),
        (2, 0, 1, False, True),
        (0xFFFFFFFF, 0, 0x1_0000_0000, False, False),
        (2, 9, 1, False, True),
        (2, 11, 1, False, False),
        (1, 11, 2, True, False),
        (1, -11, 2, True, False),
        (1, -9, 2, True, True),
    ],
)
@pytest.mark.asyncio
async def test_a_name_lives_once(lists, client, there, seconds, own, is_first, is_taken):
    nodes = await lists.open()
    await nodes.beat(entry("a", there), b"", is_first=True)
    age(client, lists, "a", seconds)
    before = client.hget(f"{lists.prefix}:nodes", "a")
    listing = await nodes.beat(entry("a", own), b"", is_first=is_first)
    assert listing.is_taken == is_taken
    assert (client.hget(f"{lists.prefix}:nodes", "a") == before) == is_taken


@pytest.mark.asyncio
async def test_entries_are_kept_for_a_day(lists, client):
    nodes = await lists.open()
    for name in ("a", "b", "c"):
        await nodes.beat(entry(name), b"", is_first=True)
    age(client, lists, "a", 86_300)
    age(client, lists, "b", 86_500)
    listing = await nodes.beat(entry("c"), b"", is_first=False)
    [read] = listing.others
    assert read.name == "a" and 86_300 <= read.age < 86_400
    assert set(client.hgetall(f"{lists.prefix}:nodes")) == {b"a", b"c"}


@pytest.mark.parametrize(
    "text", ["", "{", "5", "null", "[]", "{}", '{"beat":"x","incarnation":"1"}', b"\xff"]
)
@pytest.mark.asyncio
async def test_what_is_no_entry_goes(lists, client, text):
    nodes = await lists.open()
    for name in ("a", "z"):
        client.hset(f"{lists.prefix}:nodes", name, text)
    listing = await nodes.beat(entry("a"), b"", is_first=True)
    assert listing == (False, [], b"")
    assert set(client.hgetall(f"{lists.prefix}:nodes")) == {b"a"}


@pytest.mark.asyncio
async def test_nor_is_what_has_no_incarnation(lists, client):
    nodes = await lists.open()
    seconds, _ = client.time()
    client.hset(f"{lists.prefix}:nodes", "a", json.dumps({"beat": seconds * 1000}))
    assert not (await nodes.beat(entry("a"), b"", is_first=False)).is_taken
    assert lists.caches[0].counters["up"] == 1


@pytest.mark.parametrize(
    "change",
    [{"incarnation": "1"}, {"addresses": "b:1"}, {"addresses": ["x" * 301]}, {"addresses": ["x"] * 9}],
)
@pytest.mark.asyncio
async def test_what_cannot_be_read_is_left_out(lists, client, change):
    nodes = await lists.open()
    await nodes.beat(entry("b"), b"", is_first=True)
    stored = json.loads(client.hget(f"{lists.prefix}:nodes", "b"))
    client.hset(f"{lists.prefix}:nodes", "b", json.dumps({**stored, **change}))
    assert (await nodes.beat(entry("a"), b"", is_first=True)).others == []


@pytest.mark.asyncio
async def test_a_later_version_may_write_more(lists, client):
    nodes = await lists.open()
    await nodes.beat(entry("b"), b"", is_first=True)
    stored = json.loads(client.hget(f"{lists.prefix}:nodes", "b"))
    client.hset(f"{lists.prefix}:nodes", "b", json.dumps({**stored, "more": [1, {}]}))
    [read] = (await nodes.beat(entry("a"), b"", is_first=True)).others
    assert read._replace(age=0.0) == entry("b")


@pytest.mark.asyncio
async def test_who_leaves_is_gone_unless_another_has_the_name(lists, client):
    nodes = await lists.open()
    await nodes.beat(entry("a", 1), b"", is_first=True)
    await nodes.leave(entry("a", 2))
    assert client.hexists(f"{lists.prefix}:nodes", "a")
    await nodes.leave(entry("a", 1))
    assert not client.hexists(f"{lists.prefix}:nodes", "a")
    await nodes.leave(entry("a", 1))


@pytest.mark.asyncio
async def test_all_is_written_again_when_it_is_back_and_empty(own_server):
    lists = Lists(own_server.url)
    nodes = await lists.open()
    await nodes.beat(entry("a"), b"secret", is_first=True)
    own_server.kill()
    for _ in range(2):
        with pytest.raises(NodesUnavailable):
            await nodes.beat(entry("a"), b"secret", is_first=False)
    with pytest.raises(NodesUnavailable):
        await nodes.leave(entry("a"))
    own_server.start()
    while True:
        try:
            listing = await nodes.beat(entry("a"), b"secret", is_first=False)
            break
        except NodesUnavailable:
            await asyncio.sleep(0.02)
    assert listing == (False, [], b"secret")
    assert own_server.ask("HEXISTS", f"{lists.prefix}:nodes", "a") == 1
    for cache in lists.caches:
        await cache.close()


@pytest.mark.asyncio
async def test_a_full_redis_is_told_and_harms_nothing_else(own_server):
    lists = Lists(own_server.url)
    nodes = await lists.open()
    await nodes.beat(entry("b"), b"secret", is_first=True)
    own_server.ask("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(NodesUnavailable, match="full"):
        await nodes.beat(entry("a"), b"other", is_first=True)
    assert lists.caches[0].counters["up"] == 1
    own_server.ask("CONFIG", "SET", "maxmemory", "0")
    listing = await nodes.beat(entry("a"), b"other", is_first=True)
    assert [it.name for it in listing.others] == ["b"] and listing.secret == b"secret"
    for cache in lists.caches:
        await cache.close()


def test_there_is_no_list_without_redis():
    assert node_list(None) is None
