"""One of two servers on one Cassandra and one Redis cannot reach Redis, and both change rosters meanwhile."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from cassandra.cluster import Cluster

from xmppd.core.roster.rosters import ROSTER, Rosters
from xmppd.store.cassandra.store import CassandraOptions, CassandraStore

pytestmark = pytest.mark.own_engine

FRIEND, NEW, BOTH = "friend@localhost", "new@localhost", "both@localhost"


class Gate:
    """A way to a Redis on loopback that can be closed, or stop carrying anything with connections open."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._is_open = True
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def listen(self) -> str:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return "redis://{}:{}/0".format(*self._server.sockets[0].getsockname())

    def cut(self, how: str) -> None:
        """Close it, or freeze it."""
        if how == "frozen":
            self._flows.clear()
            return
        self._is_open = False
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        """As at first. What was frozen goes on, with all that was sent meanwhile."""
        self._is_open = True
        self._flows.set()

    async def close(self) -> None:
        self._server.close()
        self.mend()
        self.cut("closed")
        await self._server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._is_open:
            writer.transport.abort()
            return
        inner_reader, inner_writer = await asyncio.open_connection(*self._target)
        ends = {writer, inner_writer}
        self._writers |= ends
        try:
            await asyncio.gather(self._carry(reader, inner_writer), self._carry(inner_reader, writer))
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                await self._flows.wait()
                writer.write(data)
        with contextlib.suppress(ConnectionError, OSError, RuntimeError):
            writer.write_eof()


@pytest_asyncio.fixture
async def gate(redis_url: str) -> AsyncIterator[Gate]:
    url = urlsplit(redis_url)
    gate = Gate(url.hostname, url.port)
    yield gate
    await gate.close()


@pytest.fixture
def keyspace(cassandra_nodes: list[tuple[str, int]]) -> Iterator[str]:
    name = f"xmppd_test_{uuid.uuid4().hex[:12]}"
    yield name
    with Cluster(cassandra_nodes) as cluster:
        cluster.connect().execute(f"DROP KEYSPACE IF EXISTS {name}", timeout=60)


@pytest_asyncio.fixture
async def truth(cassandra_nodes, keyspace):
    """Reads rosters from the store, past every cache."""
    store = CassandraStore(CassandraOptions(contact_points=tuple(cassandra_nodes), keyspace=keyspace))

    async def read(user):
        await store.open([ROSTER])
        return [(item.contact, item.name) for item in await Rosters(store).items(f"{user}@localhost")]

    yield read
    await store.close()


@pytest_asyncio.fixture
async def servers(prepared, gate, cassandra_nodes, redis_url, keyspace):
    """One that reaches Redis directly, and one through the gate."""
    points = [f"{host}:{port}" for host, port in cassandra_nodes]
    store = {"engine": "cassandra", "cassandra": {"contact_points": points, "keyspace": keyspace}}
    made = [
        prepared(store=store, cache={"redis": url, "prefix": keyspace})
        for url in (redis_url, await gate.listen())
    ]
    for server in made:
        await server.start()
    return made


async def shown(server, user):
    """The roster as a new session gets it."""
    client = await server.login(user)
    roster = await client.roster()
    client.hang_up()
    return roster


async def put(server, user, contact, name):
    """Change a roster by a session of its own."""
    client = await server.login(user)
    assert (await client.put_contact(contact, name)).get("type") == "result"
    client.hang_up()


async def on_both(servers, user):
    """A session on each that has the roster, and so is pushed what changes."""
    clients = [await server.login(user) for server in servers]
    assert [await client.roster() for client in clients] == [[(FRIEND, "old")]] * 2
    return clients


async def pushed(client, wanted):
    """All that is pushed until that came."""
    found = []
    async with asyncio.timeout(20):
        while wanted not in found:
            found += await client.pushed()
            await asyncio.sleep(0.02)
    return found


@pytest.mark.asyncio
async def test_rosters_while_one_server_cannot_reach_redis(servers, gate, truth):
    """It shows what the store has meanwhile; afterwards nobody is shown or pushed anything old."""
    for times, how in enumerate(("closed", "frozen"), 1):
        await cut_off(servers, gate, truth, how, times)


async def cut_off(servers, gate, truth, how, times):
    near, far = servers
    names = ("here", "there", "mixed", "busy", "quiet", "still")
    here, there, mixed, busy, quiet, still = users = [f"{name}.{how}" for name in names]
    near.add(*users)
    for user in users:
        await put(near, user, FRIEND, "old")
        for server in servers:  # in Redis, and in the memory of both
            assert await shown(server, user) == [(FRIEND, "old")]
    one, other = await on_both(servers, busy)
    quiet_near, quiet_far = await on_both(servers, quiet)
    still_near, still_far = await on_both(servers, still)

    gate.cut(how)
    await far.logged("cache-lost", times)
    await far.logged("cache-channel-lost", times)
    await put(near, here, FRIEND, "of near")
    assert await shown(far, here) == [(FRIEND, "of near")]
    await put(far, there, FRIEND, "of far")
    # What the near one has is old, so what it builds on that is refused and done again.
    await put(far, mixed, FRIEND, "of far")
    await put(near, mixed, NEW, "of near")
    for server in servers:
        assert await shown(server, mixed) == [(FRIEND, "of far"), (NEW, "of near")]
    for number, client in enumerate((one, other, one, other), 1):
        assert (await client.put_contact(BOTH, str(number))).get("type") == "result"
    assert (await quiet_near.put_contact(FRIEND, "of near")).get("type") == "result"
    assert (await still_far.put_contact(FRIEND, "of far")).get("type") == "result"
    gate.mend()
    assert await pushed(quiet_far, (FRIEND, "of near")) == [(FRIEND, "of near")]
    assert await pushed(still_near, (FRIEND, "of far")) == [(FRIEND, "of far")]
    await far.logged("cache-back", times)
    await far.logged("cache-channel-open", times + 1)

    assert await truth(there) == [(FRIEND, "of far")]
    for _ in range(3):
        for user in users:
            for server in servers:
                assert await shown(server, user) == await truth(user), (user, server.folder.name)
    assert (await one.put_contact(NEW, "last")).get("type") == "result"
    for client in (one, other):
        names = [name for contact, name in await pushed(client, (NEW, "last")) if contact == BOTH]
        assert names == sorted(names) and names[-1] == "4"
        client.hang_up()
