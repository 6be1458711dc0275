"""Clusters, Sentinel, unix sockets and databases, on real servers."""

import asyncio
import subprocess
import time

import pytest
from patience import PATIENCE
from ports import LISTENING, free_ports, is_free
from redis import Redis

from tests.store.cache.conftest import RedisServer
from xmppd.cluster.registry import Entry

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(90)]


def cluster_port():
    """A port whose bus port, by 10,000 above, is free as well, and given to no outgoing connection."""
    while True:
        [port] = free_ports(1)
        if port + 10_000 in LISTENING and is_free(port + 10_000):
            return port


@pytest.fixture
def cluster(tmp_path):
    servers = [
        RedisServer(
            tmp_path / str(number),
            "--cluster-enabled", "yes", "--cluster-node-timeout", "1000",
            port=cluster_port(),
        )
        for number in range(3)
    ]  # fmt: skip
    try:
        addresses = [f"127.0.0.1:{server.port}" for server in servers]
        subprocess.run(
            ["redis-cli", "--cluster", "create", *addresses, "--cluster-yes"],
            check=True, capture_output=True, timeout=40,
        )  # fmt: skip
        end = time.monotonic() + 20
        while any(b"cluster_state:ok" not in server.ask("CLUSTER", "INFO") for server in servers):
            assert time.monotonic() < end
            time.sleep(0.1)
        # What is published reaches the others over the links between them, two to each; it is lost without.
        while any(len(server.ask("CLUSTER", "LINKS")) < 4 for server in servers):
            assert time.monotonic() < end
            time.sleep(0.1)
        yield servers
    finally:
        for server in servers:
            server.kill()


@pytest.fixture
def sentinel(tmp_path):
    """A master, a replica and a sentinel."""
    master = RedisServer(tmp_path / "master")
    servers = [master]
    try:
        replica = RedisServer(
            tmp_path / "replica", "--replicaof", f"127.0.0.1 {master.port}", "--repl-diskless-sync-delay", "0"
        )
        servers.append(replica)
        end = time.monotonic() + 20
        while replica.ask("INFO", "replication")["master_link_status"] != "up":
            assert time.monotonic() < end
            time.sleep(0.05)
        file = tmp_path / "sentinel.conf"
        file.write_text(
            f"sentinel monitor main 127.0.0.1 {master.port} 1\n"
            "sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 3000\n"
        )
        watcher = RedisServer(tmp_path / "sentinel", "--sentinel", file=file)
        servers.append(watcher)
        while Redis(port=watcher.port).execute_command("SENTINEL", "REPLICAS", "main") == []:
            assert time.monotonic() < end
            time.sleep(0.05)
        yield master, replica, watcher
    finally:
        for server in servers:
            server.kill()


async def work(nodes, name="contact"):
    """Changes on both nodes, seen on both."""
    first, second = nodes
    for number in range(30):
        writer, reader = (first, second) if number % 2 else (second, first)
        account = f"user{number % 10}@x"
        written = await writer.set(account, f"{name}{number}@x")
        await reader.until(lambda r=reader, a=account, v=written.version: ("changed", a, v) in r.notices.all)
        assert (await reader.load(account)).version == written.version


async def test_a_cluster(make_nodes, cluster):
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in cluster)
    nodes = await make_nodes(f"redis+cluster://{hosts}", patience=PATIENCE)
    await work(nodes)
    assert all(server.ask("DBSIZE") for server in cluster), "all have keys"
    assert sum(node.stats.errors + node.stats.timeouts for node in nodes) == 0
    for server in cluster:
        server.ask("SCRIPT", "FLUSH")
    for node in nodes:
        node.rosters.forget_all()
    rosters = await asyncio.gather(*(nodes[0].load(f"user{number}@x") for number in range(10)))
    assert [roster.size for roster in rosters] == [3] * 10
    for number, node in enumerate(nodes):
        listing = await node.cache.nodes.beat(Entry(f"n{number}:1", 1, ()), b"%d" % number, is_first=True)
        assert [it.name for it in listing.others] == ["n0:1"][:number] and listing.secret == b"0"
    assert sum(node.stats.errors + node.stats.timeouts for node in nodes) == 0


async def test_a_cluster_without_one_of_its_nodes(make_nodes, cluster, store):
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in cluster)
    nodes = await make_nodes(f"redis+cluster://{hosts}")
    await work(nodes)
    cluster[0].kill()
    for number in range(20):
        written = await nodes[number % 2].set(f"user{number % 10}@x", f"more{number}@x")
        assert written.size >= 4
    cluster[0].start()
    for node in nodes:
        await node.until(lambda n=node: n.cache.counters["up"] == n.cache.counters["heard"] == 1, 30)
        await node.until(lambda n=node: n.cache.counters["owed"] == 0)
    await asyncio.sleep(0.2)
    for node in nodes:
        node.rosters.forget_all()
        for number in range(10):
            assert (await node.load(f"user{number}@x")).size == 5


async def test_sentinel_with_a_failover(make_nodes, sentinel):
    master, replica, watcher = sentinel
    nodes = await make_nodes(f"redis+sentinel://127.0.0.1:{watcher.port}/main")
    await work(nodes)
    master.kill()
    since = time.monotonic()
    for number in range(10):
        written = await nodes[number % 2].set(f"user{number}@x", "during@x")
        assert written.size == 4
    for node in nodes:
        await node.until(lambda n=node: n.cache.counters["up"] == n.cache.counters["heard"] == 1, 40)
    assert time.monotonic() - since < 30
    assert replica.ask("ROLE")[0] == b"master"
    for node in nodes:
        await node.until(lambda n=node: n.cache.counters["owed"] == 0)
    await asyncio.sleep(0.2)
    for node in nodes:
        node.rosters.forget_all()
        for number in range(10):
            assert (await node.load(f"user{number}@x")).size == 4


async def test_a_database_and_a_unix_socket(make_nodes, own_server, tmp_path):
    nodes = await make_nodes(f"{own_server.url}/5")
    await work(nodes)
    assert Redis(port=own_server.port, db=5).dbsize() and not own_server.ask("DBSIZE")
    path = tmp_path / "redis.sock"
    server = RedisServer(tmp_path / "unix", "--unixsocket", str(path))
    try:
        await work(await make_nodes(f"unix://{path}?db=1"), "other")
        assert Redis(port=server.port, db=1).dbsize()
    finally:
        server.kill()


async def test_a_password(make_nodes, tmp_path):
    server = RedisServer(tmp_path / "redis")
    try:
        server.ask("CONFIG", "SET", "requirepass", "secret")
        await work(await make_nodes(f"redis://:secret@127.0.0.1:{server.port}"))
    finally:
        server.kill()
