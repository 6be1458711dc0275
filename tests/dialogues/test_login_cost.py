"""What a login asks of Cassandra and of Redis, counted where the drivers send it and where Redis takes it."""

import asyncio
import base64
import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cassandra.cluster import Cluster
from redis import Redis

from engines import Engines
from xmppd import ns
from xmppd.core.accounts import Accounts
from xmppd.core.lastseen import LAST_PRESENCE
from xmppd.core.roster.item import row_of
from xmppd.core.roster.rosters import ROSTER, RosterItem
from xmppd.settings import PluginsConfig
from xmppd.store.cassandra.encoding import Bound
from xmppd.store.cassandra.store import CassandraOptions, CassandraStore
from xmppd.store.cassandra.straight import Straight
from xmppd.store.table import Put
from xmppd.tables import TABLES
from xmppd.testing import PASSWORD, STREAM_HEADER, Client, World

SIZES = (50, 200)
TALKATIVE = 3
"""How many contacts of the account `chatty` said something before they left."""
PLUGINS = PluginsConfig().enabled
Asked = dict[str, int]

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.own_engine,
    pytest.mark.one_node("counts what one node asks for one login"),
]


class Watch:
    """Counts what is sent to Cassandra: requests by table, a batch as one."""

    def __init__(self) -> None:
        self._requests: list[str] = []

    def sent(self, statement: Any) -> None:
        if not isinstance(statement, Bound):  # a batch has ids only
            self._requests.append("batch")
            return
        text = statement.plan.prepared.query_string
        (table,) = re.findall(r'(?:FROM|INTO|UPDATE) "\w+"\."(\w+)"', text)
        self._requests.append(table)

    def take(self) -> Asked:
        """What was asked since the last look."""
        requests, self._requests = self._requests, []
        return dict(Counter(requests))


class RedisCalls:
    """Counts what Redis is asked about rosters; each is a script, and so one round trip at most."""

    def __init__(self, url: str) -> None:
        self._client: Any = Redis.from_url(url)
        self._before = 0

    def take(self) -> int:
        """How many calls there were since the last look."""
        found = self._client.info("commandstats")
        calls = sum(found.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha"))
        before, self._before = self._before, calls
        return int(calls - before)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    watch, send = Watch(), Straight.execute_async

    def execute_async(self: Straight, query: Any, *args: Any, **more: Any) -> Any:
        watch.sent(query)
        return send(self, query, *args, **more)

    monkeypatch.setattr(Straight, "execute_async", execute_async)
    return watch


@pytest.fixture(scope="module")
def options(cassandra_nodes: list[tuple[str, int]]) -> Iterator[CassandraOptions]:
    """A keyspace with the accounts `me50`, `me200` and `chatty`, each with mutual contacts."""
    keyspace = f"xmppd_login_{uuid.uuid4().hex[:12]}"
    options = CassandraOptions(contact_points=tuple(cassandra_nodes), keyspace=keyspace, request_timeout=20)
    asyncio.run(filled(options))
    yield options
    cluster = Cluster(cassandra_nodes)
    cluster.connect().execute(f"DROP KEYSPACE {keyspace}", timeout=60)
    cluster.shutdown()


async def filled(options: CassandraOptions) -> None:
    store = CassandraStore(options)
    await store.open(TABLES)
    accounts = Accounts(store, iterations=4096)
    await accounts.open()
    for name, size in (("chatty", 50), *((f"me{size}", size) for size in SIZES)):
        await accounts.create(f"{name}@localhost", PASSWORD)
        await befriend(store, f"{name}@localhost", [f"{name}-friend{n}@localhost" for n in range(size)])
    for number in range(TALKATIVE):
        talker = f"chatty-friend{number}@localhost"
        await befriend(store, talker, ["chatty@localhost"])
        said = {"head": f"<presence from='{talker}/x' type='unavailable'".encode(), "tail": b"/>"}
        await store.put(LAST_PRESENCE, {"account": talker, "at": time.time(), **said})
    accounts.close()
    await store.close()


async def befriend(store: CassandraStore, account: str, contacts: list[str]) -> None:
    puts = [Put(row_of(RosterItem(contact, subscription="both", name=contact))) for contact in contacts]
    await store.batch(ROSTER, (account,), puts, static={"version": 1})


class Node(World):
    """A server without anything in memory, on the Cassandra of the test."""

    def __init__(self, options: CassandraOptions, cache: dict[str, Any] | None = None) -> None:
        settings = {} if cache is None else {"cache": cache}
        super().__init__(accounts=(), plugins=PLUGINS, store=CassandraStore(options), settings=settings)

    async def log_in(self, user: str) -> Client:
        """Everything a client does until it is available, and the answer to all of it."""
        client = self.connect()
        header = STREAM_HEADER.format(domain="localhost", more="")
        initial = base64.b64encode(f"\0{user}\0{PASSWORD}".encode()).decode()
        await said(client, header, b"</stream:features>")
        await said(client, f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>{initial}</auth>", b"<success")
        await said(client, header, b"</stream:features>")
        await said(client, f"<iq type='set' id='b'><bind xmlns='{ns.BIND}'/></iq>", b"</iq>")
        await said(client, f"<iq type='get' id='r'><query xmlns='{ns.ROSTER}'/></iq>", b"</iq>")
        await said(client, "<presence/>", b"<presence ")
        await said(client, f"<iq type='get' id='p' to='localhost'><ping xmlns='{ns.PING}'/></iq>", b"id='p'")
        await self.settle()
        return client

    async def log_out(self, client: Client) -> None:
        client.write("</stream:stream>")
        await until(lambda: not self.app.sessions.by_full, client)
        await self.settle()


async def until(happened: Callable[[], bool], client: Client) -> None:
    """Let the server, and those it asks, work until something happened."""
    for _ in range(10_000):
        client.pump()
        if happened():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("nothing happens")


async def said(client: Client, xml: str, answer: bytes) -> None:
    """Send something, and wait until `answer` has come."""
    before = len(client.raw)
    client.write(xml)
    await until(lambda: answer in client.raw[before:], client)


@pytest.mark.parametrize("size", SIZES)
async def test_login_on_cassandra_alone(options: CassandraOptions, watch: Watch, size: int) -> None:
    async with Node(options) as node:
        watch.take()
        client = await node.log_in(f"me{size}")
        assert client.raw.count(b"<item ") == size
        cold = {"account": 1, "roster": 1, "blocks": 1, "last_presence": size // 50, "offline_queue": 1}
        assert watch.take() == cold
        await node.log_out(client)
        assert watch.take() == {"last_presence": 1, "last_logouts": 1}
        client = await node.log_in(f"me{size}")
        assert client.raw.count(b"<item ") == size
        assert watch.take() == {"offline_queue": 1}
        await node.log_out(client)
        assert watch.take() == {"last_logouts": 1}


async def test_rosters_of_contacts_who_said_something(options: CassandraOptions, watch: Watch) -> None:
    async with Node(options) as node:
        watch.take()
        client = await node.log_in("chatty")
        assert client.raw.count(b"type='unavailable'") == TALKATIVE
        asked = {"account": 1, "roster": 1 + TALKATIVE, "last_presence": 1, "offline_queue": 1}
        assert watch.take() == {**asked, "blocks": 2}
        await node.log_out(client)


@pytest.mark.parametrize("size", SIZES)
async def test_login_with_redis(
    options: CassandraOptions, own_redis: Engines, watch: Watch, size: int
) -> None:
    cache = {"redis": own_redis.redis_url, "prefix": f"login{size}"}
    elsewhere = {"account": 1, "blocks": 1, "last_presence": size // 50, "offline_queue": 1}
    redis = RedisCalls(own_redis.redis_url)
    async with Node(options, cache) as first:
        await first.log_in("chatty")  # Redis learns the scripts
        watch.take()
        redis.take()
        await first.log_in(f"me{size}")
        assert watch.take() == {**elsewhere, "roster": 1}
        assert redis.take() == 2, "looked for it, and put it there"
        async with Node(options, cache) as second:
            watch.take()
            redis.take()
            client = await second.log_in(f"me{size}")
            assert client.raw.count(b"<item ") == size
            assert watch.take() == elsewhere
            assert redis.take() == 1
            await second.log_in(f"me{size}")
            assert watch.take() == {"offline_queue": 1}
            assert redis.take() == 0
