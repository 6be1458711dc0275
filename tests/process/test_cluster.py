"""Several server processes on one Cassandra and one Redis are one server, and each may go."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import signal
import urllib.request
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any

import pytest
import pytest_asyncio
from cassandra.cluster import Cluster
from ports import free_ports

from engines import Engines
from xmppd import ns
from xmppd.errors import CommandError
from xmppd.serve import RESTART

pytestmark = [pytest.mark.own_engine, pytest.mark.asyncio(loop_scope="module")]

HEADER = (
    f"<stream:stream xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAM}' to='localhost' version='1.0'>".encode()
)

NO_TLS = {"port": 0, "tls": "none"}


@pytest.fixture(scope="module", name="engines")
def shared_engines(cassandra_nodes: list[tuple[str, int]], redis_url: str) -> Any:
    name = f"xmppd_test_{uuid.uuid4().hex[:12]}"
    points = [f"{host}:{port}" for host, port in cassandra_nodes]
    yield {
        "store": {"engine": "cassandra", "cassandra": {"contact_points": points, "keyspace": name}},
        "cache": {"redis": redis_url, "prefix": name},
    }
    with Cluster(cassandra_nodes, connect_timeout=20) as cluster:
        cluster.connect().execute(f"DROP KEYSPACE IF EXISTS {name}", timeout=60)


@pytest_asyncio.fixture(scope="module", loop_scope="module", name="pair")
async def running_pair(servers: Callable[..., Any], engines: Mapping[str, Any]) -> AsyncIterator[list[Any]]:
    """Two nodes that know each other, with the accounts alice, bob and carol."""
    pair = []
    for port in free_ports(2):
        settings = {"cluster": {"listen": f"127.0.0.1:{port}"}, "log": {"format": "json"}}
        pair.append(servers(**engines, **settings))
    await pair[0].start()  # it makes the tables
    await pair[1].start()
    pair[0].add("alice", "bob", "carol")
    yield pair


def name(server: Any) -> str:
    """What a node is called."""
    return str(server.settings["cluster"]["listen"])


async def ask(server: Any, command: str, /, **arguments: Any) -> Any:
    """Run a command, while the clients of this test read on."""
    return await asyncio.to_thread(server.command, command, **arguments)


async def both_know(pair: list[Any]) -> None:
    """Wait until each has a trunk with the other."""
    async with asyncio.timeout(20):
        while [len(await ask(server, "node list")) for server in pair] != [2, 2]:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_commands_reach_all_nodes(pair: list[Any]) -> None:
    one, two = pair
    await both_know(pair)
    alice, bob = await one.login("alice"), await two.login("bob")
    await alice.send(f"<message to='{bob.jid}' type='chat'><body>over</body></message>")
    assert (await bob.receive("message")).findtext("{jabber:client}body") == "over"
    rows = (await ask(one, "session list"))["rows"]
    assert {(row["node"], row["session"]) for row in rows} == {(name(one), alice.jid), (name(two), bob.jid)}

    nodes = {row["node"]: row for row in await ask(one, "node list")}
    assert set(nodes) == {name(one), name(two)}
    assert [nodes[name(server)]["sessions"] for server in pair] == [1, 1]
    assert {row["state"] for row in nodes.values()} == {"up"}
    assert nodes[name(two)]["lag_ms"] > 0
    assert nodes[name(two)]["frames"] > 0
    assert [nodes[name(server)]["elsewhere"] for server in pair] == [1, 1]

    reloaded = await ask(one, "plugin reload", name="ping", all=True)
    assert reloaded == [{"node": name(server), "reloaded": ["ping"]} for server in pair]
    problems = await ask(one, "plugin reload", name="nope", all=True)
    assert [("nope" in row["problem"]) for row in problems] == [True, True]

    assert await ask(one, "session kick", address=bob.jid) == [{"node": name(two), "ended": bob.jid}]
    assert await bob.end() == "policy-violation"
    carol = await two.login("carol")
    await ask(one, "user disable", account="carol@localhost")
    assert await carol.end() == "not-authorized"
    alice.hang_up()


async def test_a_node_that_stops_is_let_go_at_once(pair: list[Any]) -> None:
    one, two = pair
    await both_know(pair)
    before = len(one.records("trunk-connected"))
    left = len(one.records("node-left"))
    two.signal(signal.SIGTERM)
    assert await two.ended() == 0
    await one.logged("node-left", left + 1)
    await asyncio.sleep(0.5)  # longer than it takes to dial
    assert len(one.records("trunk-connected")) == before, "it was met again on its way out"
    assert not one.records("node-lost")
    assert not one.records("node-unreachable")
    await two.start()
    await both_know(pair)


async def test_a_node_drains_at_a_pace(pair: list[Any]) -> None:
    one, two = pair
    await both_know(pair)
    left = len(one.records("node-left"))
    stopped = len(two.records("stopping"))
    clients = [await two.login("alice") for _ in range(3)]
    with pytest.raises(CommandError, match="no node nowhere"):
        await ask(one, "node drain", node="nowhere")
    assert await ask(one, "node drain", node=name(two), pace=2) == [{"node": name(two), "sessions": 3}]
    await two.logged("stopping", stopped + 1)
    await asyncio.sleep(0.1)
    with pytest.raises(ConnectionRefusedError):
        await two.connect()
    states = {row["node"]: row["state"] for row in await ask(one, "node list")}
    assert states == {name(one): "up", name(two): "draining"}
    assert sum(row["node"] == name(two) for row in (await ask(one, "session list"))["rows"]) > 0
    for client in clients:
        assert await client.end() == "system-shutdown"
        client.hang_up()
    assert await two.ended() == 0
    await one.logged("node-left", left + 1)
    assert [row["node"] for row in await ask(one, "node list")] == [name(one)]
    await two.start()
    await both_know(pair)


async def test_nodes_that_reach_redis_alone(
    servers: Callable[..., Any], engines: Mapping[str, Any], own_redis: Engines
) -> None:
    """By `cluster.carrier: redis`: killed, left without Redis for a moment and for long, and stopped."""
    [first, second] = free_ports(2)
    pair = [
        servers(
            store=engines["store"],
            cache={"redis": own_redis.redis_url, "prefix": "carried"},
            cluster={
                "listen": f"192.0.2.1:{port}",  # nobody can listen there
                "carrier": "redis",
                "see_other_host": "chat.localhost:5299",
            },
            log={"format": "json"},
        )
        for port in (first, second)
    ]
    one, two = pair
    await one.start()
    await two.start()
    one.add("dora", "emil")
    await both_know(pair)
    dora, emil = await one.login("dora"), await two.login("emil")
    for asking, other in ((dora, "emil"), (emil, "dora")):
        await asking.send(f"<presence type='subscribe' to='{other}@localhost'/>")
        await asking.ping()
    for granting, other in ((emil, "dora"), (dora, "emil")):
        await granting.send(f"<presence type='subscribed' to='{other}@localhost'/>")
        await granting.ping()
    await shown(dora, emil.jid, is_there=True)

    async def say(*texts: str) -> None:
        for text in texts:
            await dora.send(f"<message to='emil@localhost' type='chat'><body>{text}</body></message>")
        await dora.ping()  # all of them were taken or stored

    async def hear(client: Any, *texts: str) -> None:
        found: list[str | None] = []
        while not set(texts) <= set(found):
            found.append((await client.receive("message")).findtext("{jabber:client}body"))
        assert [*dict.fromkeys(text for text in found if text in texts)] == [*texts]

    await say("1", "2")
    await hear(emil, "1", "2")

    own_redis.kill("redis")
    saying = asyncio.ensure_future(say("3", "4"))
    own_redis.start()
    await saying
    await hear(emil, "3", "4")
    await both_know(pair)

    own_redis.kill("redis")
    lost = [len(server.records("node-lost")) for server in pair]
    for server, count in zip(pair, lost, strict=True):
        await server.logged("node-lost", count + 1)
    await say("5")
    own_redis.start()
    await hear(emil, "5")
    await both_know(pair)
    await say("6")
    await hear(emil, "6")

    await two.kill()
    await shown(dora, emil.jid, is_there=False)
    await two.start()
    await both_know(pair)
    emil = await two.login("emil")
    await shown(dora, emil.jid, is_there=True)
    left = len(one.records("node-left"))
    two.signal(signal.SIGTERM)
    assert await emil.end() == "see-other-host"
    emil.hang_up()
    assert await two.ended() == 0
    await one.logged("node-left", left + 1)
    dora.hang_up()
    await one.stop()


class Talker:
    """A client that comes back whenever its stream ends, by `connect`. `sent` are numbers that were
    acknowledged: an iq behind them was answered; `heard` those that came.
    """

    def __init__(self, connect: Callable[[], Coroutine[Any, Any, Any]], user: str) -> None:
        self.sent: list[int] = []
        self.heard: list[int] = []
        self.ends: Counter[str] = Counter()
        self.is_silent = False
        self._connect = connect
        self._user = user
        self._number = 0

    async def live(self, work: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
        """Log in and work, again and again."""
        while True:
            client = await self._connect()
            try:
                await client.login(self._user)
                await work(client)
            except EOFError:
                self.ends["told" if client.was_told else "cut"] += 1
            finally:
                client.hang_up()

    async def talk(self, client: Any, to: str) -> None:
        """Send messages, one after the other."""
        while not self.is_silent:
            self._number += 1
            number = self._number
            await client.send(f"<message to='{to}@localhost' type='chat'><body>{number}</body></message>")
            await client.ping()
            self.sent.append(number)
            await asyncio.sleep(0.005)
        await asyncio.Event().wait()

    async def hear(self, client: Any) -> None:
        """Take what comes."""
        while True:
            body = (await client.receive("message")).findtext("{jabber:client}body")
            self.heard.append(int(body))


async def two_workers(
    servers: Callable[..., Any], engines: Mapping[str, Any], name: str
) -> tuple[Any, int, list[int]]:
    """A server of two workers, its port, and those of their trunks; `name` keeps its cache apart."""
    [port] = free_ports(1)
    trunks = free_ports(2)
    [http], own = free_ports(1), free_ports(2)
    server = servers(
        store=engines["store"],
        cache={**engines["cache"], "prefix": f"{engines['cache']['prefix']}_{name}"},
        listen={"c2s": [{"port": port, "tls": "none"}], "http": {"port": http, "own_port": own[0]}},
        cluster={"listen": f"127.0.0.1:{trunks[0]}"},
        log={"format": "json"},
    )
    await server.start("serve", "--workers", "2", seconds=60)
    return server, port, trunks


async def nothing_is_lost_in_a_rolling_restart(
    asked: Any, connect: Callable[[], Coroutine[Any, Any, Any]], *pairs: tuple[str, str]
) -> None:
    """Pairs of clients talk while one command has all nodes begin anew: what is acknowledged arrives, in
    order, and nobody is cut off without a word.
    """
    asked.add(*(name for pair in pairs for name in pair))
    talkers = [(Talker(connect, one), Talker(connect, other)) for one, other in pairs]
    tasks = [
        asyncio.ensure_future(work)
        for (talking, hearing), (_, other) in zip(talkers, pairs, strict=True)
        for work in (
            talking.live(functools.partial(talking.talk, to=other)),
            hearing.live(hearing.hear),
        )
    ]
    await asyncio.to_thread(asked.run, "cluster", "restart", "--rolling", "--well", "2")
    for talking, _ in talkers:
        talking.is_silent = True
    await asyncio.sleep(0.5)
    for talking, hearing in talkers:
        await asked.until(lambda talking=talking, hearing=hearing: set(talking.sent) <= set(hearing.heard))
    assert not [task for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for talking, hearing in talkers:
        assert len(talking.sent) > 100
        once = [number for number in dict.fromkeys(hearing.heard) if number in set(talking.sent)]
        assert once == talking.sent, "in order"
    ends = sum((talker.ends for pair in talkers for talker in pair), Counter())
    assert ends["cut"] == 0 and ends["told"] > 0


async def test_a_rolling_restart_of_workers_loses_nothing_that_was_acknowledged(
    servers: Callable[..., Any], engines: Mapping[str, Any]
) -> None:
    server, _, _ = await two_workers(servers, engines, "rolling")
    pairs = [("paul", "quinn"), ("ruth", "sam"), ("tina", "uma")]
    await nothing_is_lost_in_a_rolling_restart(server, server.connect, *pairs)
    assert len(server.records("worker-restarts")) == 2 and not server.records("worker-died")
    await server.stop()


async def test_nor_does_one_of_three_nodes_that_are_started_again(
    servers: Callable[..., Any], engines: Mapping[str, Any]
) -> None:
    cache = {**engines["cache"], "prefix": f"{engines['cache']['prefix']}_three"}
    nodes = [
        servers(
            store=engines["store"],
            cache=cache,
            cluster={"listen": f"127.0.0.1:{port}"},
            log={"format": "json"},
        )
        for port in free_ports(3)
    ]

    async def connect() -> Any:
        for node in (*nodes, *nodes):  # where nobody listens one is not refused by a node
            with contextlib.suppress(ConnectionRefusedError):
                return await node.connect()
        raise AssertionError("no node takes clients")

    async def start_again(node: Any) -> None:
        assert await node.ended(300) == RESTART  # the last one has to wait for all others
        await node.start("serve", seconds=60)

    await nodes[0].start("serve", seconds=60)  # it makes the tables
    await asyncio.gather(*(node.start("serve", seconds=60) for node in nodes[1:]))
    async with asyncio.timeout(20):
        while {len(await ask(node, "node list")) for node in nodes} != {3}:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    supervising = [asyncio.ensure_future(start_again(node)) for node in nodes]
    await nothing_is_lost_in_a_rolling_restart(nodes[0], connect, ("walt", "xena"), ("yves", "zoe"))
    await asyncio.gather(*supervising)
    assert not [record for node in nodes for record in node.records() if record["level"] == "error"]
    for node in nodes:
        await node.stop()


async def dial_on(port: int, outcomes: Counter[str]) -> None:
    """Open a stream again and again: it is counted what came of it."""
    while True:
        said = b""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(HEADER)
                while piece := await reader.read(65536):
                    said += piece
                    if found := re.search(b"features|system-shutdown", said):
                        said = found[0]
                        break
            finally:
                writer.close()
        except OSError as error:
            outcomes[repr(error)] += 1
        else:
            outcomes[said.decode() or "closed without a word"] += 1


async def shown(viewer: Any, jid: str, *, is_there: bool) -> None:
    """Wait until a client is told that a session is there, or is not."""
    while True:
        tree = await viewer.receive("presence")
        if tree.get("from") == jid and (tree.get("type") is None) == is_there:
            return


async def test_contacts_do_not_see_who_changes_nodes_in_a_rolling_restart(pair: list[Any]) -> None:
    await both_know(pair)
    bob, watchers = await pair[0].login("bob", resource="game"), [await one.login("alice") for one in pair]
    watchers[0].write("<presence type='subscribe' to='bob@localhost'/>")
    await watchers[0].ping()
    bob.write("<presence type='subscribed' to='alice@localhost'/><presence><status>first</status></presence>")
    for watcher in watchers:
        while (await shown_of(watcher, bob.jid)) != ("", "first"):
            """It is shown what came before, too."""
    for number, (leaving, staying) in enumerate([pair, pair[::-1]]):
        left = len(staying.records("node-left"))
        await ask(staying, "node drain", node=name(leaving), restart=True)
        assert await bob.end() == "system-shutdown"
        bob.hang_up()
        bob = await staying.login("bob", resource="game", presence=False)
        bob.write(f"<presence><status>{number}</status></presence>")
        assert await leaving.ended() == RESTART
        await staying.logged("node-left", left + 1)
        watcher = watchers[1 - number]
        assert await shown_of(watcher, bob.jid) == ("", str(number))
        await leaving.start()
        await both_know(pair)
        watchers[number].hang_up()
        watchers[number] = await leaving.login("alice")
        assert await shown_of(watchers[number], bob.jid) == ("", str(number))
    for client in (bob, *watchers):
        client.hang_up()


async def shown_of(client: Any, full: str) -> tuple[str, str]:
    """The type and status of the next presence of a session that a client is shown."""
    while (tree := await client.receive("presence")).get("from") != full:
        """It is about somebody else."""
    return tree.get("type") or "", tree.findtext("{jabber:client}status") or ""


def numbers_at(port: int) -> str:
    """What is told at /metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
        text: str = answer.read().decode()
    return text


async def test_workers_are_nodes_behind_one_port(
    servers: Callable[..., Any], engines: Mapping[str, Any]
) -> None:
    server, port, trunks = await two_workers(servers, engines, "workers")
    assert server.port == port
    first, second = (f"127.0.0.1:{trunk}" for trunk in trunks)

    async def states() -> list[tuple[str, str]]:
        rows = await ask(server, "node list")
        return sorted((row["node"], row.get("state", "")) for row in rows)

    async def both_up(server: Any, restarted: str) -> bool:
        try:
            rows = await ask(server, "node list")
        except (CommandError, OSError):
            return False  # who was asked is the one that goes
        ages = {row["node"]: row["age_seconds"] for row in rows if row.get("state") == "up"}
        return set(ages) == {first, second} and ages[restarted] == min(ages.values())

    assert await states() == [(first, "up"), (second, "up")]
    assert {record["address"] for record in server.records("trunk-connected")} == {""}, "by Unix sockets"
    assert len([*server.data.glob("worker-*/trunk-*.sock")]) == 2
    pids = {record["worker"]: record["pid"] for record in server.records("worker-started")}
    http = server.settings["listen"]["http"]
    for worker, other in ((0, second), (1, first)):
        numbers = await asyncio.to_thread(numbers_at, http["own_port"] + worker)
        assert f'xmppd_trunk_connected{{node="{other}"}} 1' in numbers, "each says what it is itself"
    assert "xmppd_trunk_connected{" in await asyncio.to_thread(numbers_at, http["port"])
    os.kill(pids[0], signal.SIGKILL)
    [died] = await server.logged("worker-died")
    assert (died["worker"], died["code"], died["seconds"]) == (0, -9, 0.5)
    rows = await ask(server, "node list")
    assert rows[0]["node"] == second, "commands go to the one that lives"
    await server.logged("worker-started", 3)
    async with asyncio.timeout(20):
        while await states() != [(first, "up"), (second, "up")]:  # noqa: ASYNC110
            await asyncio.sleep(0.1)

    server.add("nora")
    outcomes: Counter[str] = Counter()
    dialing = [asyncio.ensure_future(dial_on(port, outcomes)) for _ in range(3)]
    for number, (node, worker) in enumerate(((second, 1), (first, 0)), 1):
        session = await server.login("nora")
        await ask(server, "node drain", node=node, restart=True)
        restarted = await server.logged("worker-restarts", number)
        assert restarted[-1]["worker"] == worker
        await server.logged("worker-started", 3 + number)
        async with asyncio.timeout(20):
            while not await both_up(server, node):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        session.hang_up()
    for task in dialing:
        task.cancel()
    await asyncio.gather(*dialing, return_exceptions=True)
    assert set(outcomes) <= {"features", "system-shutdown"}, "nobody is refused or reset"
    assert outcomes["features"] > 20
    assert len(server.records("worker-died")) == 1
    await server.stop()
    assert not server.records("worker-left")
    assert [record["event"] for record in server.records()][-1] == "workers-stopped"
    assert not (server.data / "xmppd.sock").is_symlink()
    assert not [*server.data.glob("worker-*/trunk-*.sock")]


async def test_a_renaming_is_finished_by_the_other_worker_when_one_is_killed(
    servers: Callable[..., Any], engines: Mapping[str, Any]
) -> None:
    server, _, _ = await two_workers(servers, engines, "renaming")
    friends = [f"fan{number}" for number in range(40)]
    server.add("yan", *friends)
    pairs = [f"yan@localhost {friend}@localhost" for friend in friends]
    await ask(server, "roster befriend-many", pair=pairs)

    async def states() -> list[str]:
        with contextlib.suppress(CommandError, OSError):
            return [row["state"] for row in await ask(server, "account renamed")]
        return []

    asked = asyncio.ensure_future(ask(server, "account rename", old="yan@localhost", new="ivo@localhost"))
    async with asyncio.timeout(60):
        while await states() != ["under way"]:
            assert not asked.done()
        pids = {record["worker"]: record["pid"] for record in server.records("worker-started")}
        os.kill(pids[0], signal.SIGKILL)
        await asyncio.gather(asked, return_exceptions=True)
        assert isinstance(asked.exception(), CommandError | OSError | EOFError)
    async with asyncio.timeout(90):
        while await states() != ["done"]:  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.1)
    for friend in friends:
        rows = await ask(server, "roster show", account=f"{friend}@localhost")
        assert [(row["contact"], row["subscription"]) for row in rows] == [("ivo@localhost", "both")]
    await server.login("ivo")
    await server.stop()
