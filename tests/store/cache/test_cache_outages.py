"""Redis fails in every way while two nodes read and change rosters; what they serve is compared with the
store.
"""

import asyncio
import random
import time

import pytest
from patience import PATIENCE, until

from tests.store.cache.conftest import LOADS, Node
from xmppd.core.roster.rosters import Rosters

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(60)]

ACCOUNTS = [f"user{number}@x" for number in range(60)]


class Load:
    """Readers and writers on all nodes. Nobody may see an error, or for long an old roster.

    `oldest` is the greatest time, in seconds, for which a roster was served after a change that replaced it
    was answered.
    """

    def __init__(self, nodes: list[Node]) -> None:
        self._nodes = nodes
        self._random = random.Random(7)
        self._answered: dict[str, list[tuple[int, float, object]]] = {account: [] for account in ACCOUNTS}
        self.is_over = False
        self.reads = self.changes = 0
        self.oldest = 0.0
        self.wrong: list[str] = []

    async def run(self, outage) -> None:
        readers = [self._read(node) for node in self._nodes for _ in range(8)]
        writers = [self._write(node, number) for node in self._nodes for number in range(3)]
        work = asyncio.gather(*readers, *writers)
        await asyncio.sleep(0.3)
        await outage()
        await asyncio.sleep(0.7)
        await until(lambda: self.reads > 300 and self.changes > 100)
        self.is_over = True
        await work

    async def _read(self, node: Node) -> None:
        while not self.is_over:
            account = self._random.choice(ACCOUNTS)
            since = time.monotonic()
            roster = await node.load(account)
            self.reads += 1
            self._judge(account, roster, since)
            await asyncio.sleep(0.001)

    async def _write(self, node: Node, number: int) -> None:
        count = 0
        while not self.is_over:
            account = self._random.choice(ACCOUNTS)
            count += 1
            roster = await node.set(account, f"{id(node)}-{number}-{count % 5}@x", str(count))
            self.changes += 1
            self._answered[account].append((roster.version, time.monotonic(), roster))
            await asyncio.sleep(0.002)

    def _judge(self, account, roster, since) -> None:
        for version, answered, written in self._answered[account]:
            if version == roster.version and seen(written) != seen(roster):
                self.wrong.append(f"{account} at {version} differs")
            if version > roster.version and answered < since:
                self.oldest = max(self.oldest, since - answered)


def seen(roster):
    """What clients see of a roster. A change puts new items last, and the store has them by name."""
    items = sorted(roster.packed.split(b"<item ")[1:])
    return roster.version, roster.followers, roster.following, roster.requests, items


async def assert_nothing_is_old(nodes, store) -> None:
    """Every roster that is served is the one in the store, from memory or Redis and after that from Redis."""
    for node in nodes:
        await node.until(lambda n=node: n.cache.counters["up"] == n.cache.counters["heard"] == 1)
        await node.until(lambda n=node: n.cache.counters["owed"] == 0)
    await asyncio.sleep(0.05)  # notices on their way
    plain = Rosters(store)
    for _ in range(2):
        for account in ACCOUNTS:
            true = await plain._fetch(account)
            for node in nodes:
                assert seen(await node.load(account)) == seen(true)
        for node in nodes:
            node.rosters.forget_all()


def assert_load_went_well(load, store, *, oldest) -> None:
    assert not load.wrong, load.wrong[:3]
    assert load.oldest < oldest
    assert 0 < store.at_most <= 2 * LOADS


async def test_without_an_outage(make_nodes, own_server, store):
    nodes = await start(make_nodes, own_server, store, patience=PATIENCE)
    load = Load(nodes)
    await load.run(lambda: asyncio.sleep(0.5))
    assert_load_went_well(load, store, oldest=1.0)
    assert sum(node.stats.errors + node.stats.timeouts for node in nodes) == 0
    await assert_nothing_is_old(nodes, store)


async def test_gone_and_back_empty(make_nodes, own_server, store):
    nodes = await start(make_nodes, own_server, store)
    load = Load(nodes)

    async def outage():
        own_server.kill()
        await asyncio.sleep(1.0)
        await asyncio.to_thread(own_server.start)
        await asyncio.sleep(1.5)

    await load.run(outage)
    assert_load_went_well(load, store, oldest=1.0)
    assert all(node.stats.channel_losses for node in nodes)
    await assert_nothing_is_old(nodes, store)


async def test_restarted_at_once(make_nodes, own_server, store):
    nodes = await start(make_nodes, own_server, store)
    load = Load(nodes)

    async def outage():
        for _ in range(3):
            own_server.kill()
            await asyncio.to_thread(own_server.start)
            await asyncio.sleep(0.5)

    await load.run(outage)
    assert_load_went_well(load, store, oldest=1.0)
    await assert_nothing_is_old(nodes, store)


@pytest.mark.parametrize("seconds", [0.5, 4.5])
async def test_asleep(make_nodes, own_server, store, seconds):
    nodes = await start(make_nodes, own_server, store)
    load = Load(nodes)

    async def outage():
        sleeping = asyncio.to_thread(own_server.ask, "DEBUG", "SLEEP", seconds)
        await sleeping
        await asyncio.sleep(1.0)

    await load.run(outage)
    # Copies in memory are trusted until the channel has been silent for three seconds, and the loop may be
    # late.
    assert_load_went_well(load, store, oldest=min(seconds, 3.0) + 1.5)
    assert all(node.stats.timeouts for node in nodes)
    await assert_nothing_is_old(nodes, store)


@pytest.mark.parametrize("policy", ["noeviction", "allkeys-lru"])
async def test_full(make_nodes, own_server, store, policy):
    nodes = await start(make_nodes, own_server, store)
    load = Load(nodes)

    async def outage():
        own_server.ask("CONFIG", "SET", "maxmemory-policy", policy)
        used = own_server.ask("INFO", "memory")["used_memory"]
        own_server.ask("CONFIG", "SET", "maxmemory", used + 20_000 if policy == "allkeys-lru" else 1)
        await asyncio.sleep(1.5)

    await load.run(outage)
    assert_load_went_well(load, store, oldest=1.0)
    if policy == "noeviction":
        refused = sum(node.stats.fills_refused for node in nodes)
        # A reader that is refused a lease does not try to fill.
        assert refused or sum(node.stats.misses for node in nodes) > 50
        assert sum(node.stats.errors for node in nodes) == 0
    await assert_nothing_is_old(nodes, store)


async def test_scripts_flushed(make_nodes, own_server, store):
    nodes = await start(make_nodes, own_server, store)
    load = Load(nodes)

    async def outage():
        for _ in range(20):
            own_server.ask("SCRIPT", "FLUSH")
            await asyncio.sleep(0.03)

    await load.run(outage)
    assert_load_went_well(load, store, oldest=1.0)
    assert sum(node.stats.errors for node in nodes) == 0
    await assert_nothing_is_old(nodes, store)


async def test_connections_cut(make_nodes, own_server, store):
    nodes = await start(make_nodes, own_server, store)
    load = Load(nodes)

    async def outage():
        for _ in range(10):
            for kind in ("normal", "pubsub"):
                own_server.ask("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
                await asyncio.sleep(0.05)

    await load.run(outage)
    assert_load_went_well(load, store, oldest=1.0)
    await assert_nothing_is_old(nodes, store)


async def start(make_nodes, server, store, patience=0.3):
    store.seconds = 0.002
    nodes = await make_nodes(server.url, patience=patience)
    for account in ACCOUNTS:
        await nodes[0].set(account, "b@x")
    store.at_most = 0
    return nodes


async def test_what_was_changed_while_redis_was_away_is_not_served_from_it(make_nodes, own_server, store):
    """One node only cannot reach Redis: what it changed there is old until it is back."""
    first, second = await start(make_nodes, own_server, store)
    await second.load("user1@x")
    first.cache._link.is_up = False
    changed = await first.set("user1@x", "c@x")
    assert first.cache.counters["owed"] == 1
    assert (await second.load("user1@x")).version < changed.version, "as the document says"
    written = await second.set("user1@x", "d@x")
    assert written.size == 3, "no change is lost"
    first.cache._owing.set()
    await second.until(lambda: ("changed", "user1@x", -1) in second.notices.all)
    await assert_nothing_is_old([first, second], store)


async def test_more_is_owed_than_is_remembered(make_nodes, own_server, store, monkeypatch):
    monkeypatch.setattr("xmppd.store.cache.debts.DEBTS", 20)
    monkeypatch.setattr("xmppd.store.cache.redis.LEASE_SECONDS", 0.3)
    first, second = await start(make_nodes, own_server, store)
    for account in ACCOUNTS:
        await second.load(account)
    first.cache._link.is_up = False
    for account in ACCOUNTS:
        await first.set(account, "c@x")
    assert first.cache._debts.overflows
    own_server.ask("SET", "somebody:else", "1")
    first.cache._owing.set()
    await second.until(lambda: ("everything",) in second.notices.all)
    await assert_nothing_is_old([first, second], store)
    assert own_server.ask("GET", "somebody:else") == b"1"


@pytest.mark.parametrize(
    ("owed_before", "paid_with", "deletions"),
    [(len(ACCOUNTS), "PUBLISH", 2), (1, "EVALSHA", 1)],
    ids=["while-all-is-deleted", "while-names-are-told"],
)
async def test_more_is_owed_again_while_that_is_paid(
    make_nodes, own_server, store, monkeypatch, owed_before, paid_with, deletions
):
    monkeypatch.setattr("xmppd.store.cache.debts.DEBTS", 20)
    monkeypatch.setattr("xmppd.store.cache.redis.LEASE_SECONDS", 0.1)
    first, second = await start(make_nodes, own_server, store)
    first.cache._link.is_up = False
    for account in ACCOUNTS[:owed_before]:
        await first.set(account, "c@x")
    were_up = change_all_before(first, second, paid_with)
    first.cache._owing.set()
    await assert_nothing_is_old([first, second], store)
    assert were_up == [False] * deletions


def change_all_before(node, reader, paid_with):
    """Once, before what is owed is paid by this command: `reader` has all rosters cached, then `node`
    changes them without being able to tell. The list returned has an entry for each time all was deleted:
    whether the link was up.
    """
    send, were_up, done = node.cache._link.send, [], asyncio.Event()

    async def slow_send(commands, limit):
        name, kind = commands[0][0], str(commands[0][-1])[:1]
        if not done.is_set() and name == paid_with and kind in ("c", "e"):
            done.set()
            reader.rosters.forget_all()
            for account in ACCOUNTS:
                await reader.cache._link.call("DEL", *reader.cache._keys(account))
                await reader.load(account)
                await node.set(account, "d@x")
        if (name, kind) == ("PUBLISH", "e"):
            were_up.append(node.cache._link.is_up)
        return await send(commands, limit)

    node.cache._link.send = slow_send
    return were_up


async def test_a_node_that_ends_while_all_is_deleted_begins_again(make_nodes, own_server, monkeypatch):
    monkeypatch.setattr("xmppd.store.cache.debts.DEBTS", 20)
    monkeypatch.setattr("xmppd.store.cache.redis.LEASE_SECONDS", 0.1)
    first, second = await make_nodes(own_server.url)
    first.cache._link.is_up = False
    for account in ACCOUNTS[:21]:
        first.cache.publish_account(account)
    send, reached = first.cache._link.send, asyncio.Event()

    async def stuck_send(commands, limit):
        if commands[0][0] == "PUBLISH":
            reached.set()
            await asyncio.Event().wait()
        return await send(commands, limit)

    first.cache._link.send = stuck_send
    await reached.wait()
    assert first.cache.counters["owed"] == 1
    first.cache._link.send = send
    await first.cache.close()
    await second.until(lambda: ("everything",) in second.notices.all)


async def test_a_write_that_began_unseen_and_ends_after_redis_is_back(make_nodes, own_server, store):
    first, second = await start(make_nodes, own_server, store)
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def wait():
        reached.set()
        await go_on.wait()

    first.cache._link.is_up = False
    store.before["batch"] = wait
    writing = asyncio.ensure_future(first.set("user1@x", "c@x"))
    await reached.wait()
    first.cache._owing.set()
    await first.until(lambda: first.cache.counters["up"] == 1 and first.cache.counters["owed"] == 0)
    await second.until(lambda: ("changed", "user1@x", -1) in second.notices.all)
    before = await second.load("user1@x")
    assert second.rosters.cached("user1@x") is None
    go_on.set()
    written = await writing
    assert written.version > before.version
    assert await second.load("user1@x") == written
    await assert_nothing_is_old([first, second], store)
