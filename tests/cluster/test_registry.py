"""The life of a node on the list: names, beats, secrets, seeds, and what happens while the list is away."""

import asyncio

import pytest
from meshes import Time

from xmppd.cluster.hello import Hello
from xmppd.cluster.registry import Entry, Listing, Registry, new_incarnation
from xmppd.errors import CommandError, NodesUnavailable


class MemoryList:
    """A list as Redis keeps it."""

    def __init__(self, time):
        self.time = time
        self.entries = {}
        self.secret = b""
        self.is_away = False

    async def beat(self, own, secret, *, is_first):
        self._ask()
        found, beaten = self.entries.get(own.name, (own, -1000.0))
        is_taken = self.time() - beaten < 10 and found.incarnation != own.incarnation
        is_taken = is_taken and (is_first or found.incarnation > own.incarnation)
        if not is_taken:
            self.entries[own.name] = (own, self.time())
        if secret and not self.secret:
            self.secret = secret
        others = [
            entry._replace(age=self.time() - at)
            for entry, at in self.entries.values()
            if entry.name != own.name
        ]
        return Listing(is_taken, others, self.secret if secret else b"")

    async def leave(self, own):
        self._ask()
        if self.entries[own.name][0].incarnation == own.incarnation:
            del self.entries[own.name]

    def lose(self):
        """Be empty."""
        self.entries.clear()
        self.secret = b""

    def _ask(self):
        if self.is_away:
            raise NodesUnavailable("it is away")


class Node:
    """A registry, and whom it tells."""

    def __init__(self, cluster, name, incarnation, **options):
        self.name = name
        self.cluster = cluster
        self.entry = Entry(name, incarnation, (name,))
        self.listings = []
        self.secrets = ()
        self.connected = set()
        self.knocks = []
        self.is_superseded = False
        self.registry = Registry(
            lambda: self.entry,
            options.pop("nodes", cluster.list),
            self,
            self.knock,
            cluster.time,
            cluster.time.sleep,
            **options,
        )

    def listed(self, entries):
        self.listings.append({entry.name for entry in entries})

    def trusted(self, secrets):
        self.secrets = tuple(secrets)

    def is_connected(self, name):
        return name in self.connected

    def superseded(self):
        self.is_superseded = True

    async def knock(self, address):
        self.knocks.append(address)
        name = self.cluster.seeds.get(address)
        return None if name is None else Hello(name=name, incarnation=1)

    def run(self):
        self.cluster.spawn(self.registry.beats())
        self.cluster.spawn(self.registry.search())


class Cluster:
    def __init__(self):
        self.time = Time()
        self.list = MemoryList(self.time)
        self.seeds = {}
        self.tasks = []

    def spawn(self, work):
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.append(task)
        return task

    async def start(self, name, incarnation=1, **options):
        node = Node(self, name, incarnation, **options)
        await node.registry.enter()
        node.run()
        return node

    async def settle(self, seconds=0.0):
        """Let time pass, and all be done that can be done by then."""
        end = self.time.now + seconds
        while True:
            for _ in range(10):
                await asyncio.sleep(0)
            if self.time.now >= end - 1e-9:
                return
            self.time.advance(min(0.5, end - self.time.now))


@pytest.fixture
def simulated():
    """Runs a coroutine that is given a cluster."""

    def run(work):
        async def whole():
            cluster = Cluster()
            await work(cluster)
            failed = [task.exception() for task in cluster.tasks if task.done()]
            for task in cluster.tasks:
                task.cancel()
            assert failed == []

        asyncio.run(whole())

    return run


def test_all_nodes_learn_of_each_other(simulated):
    async def work(cluster):
        a = await cluster.start("a")
        b = await cluster.start("b")
        assert a.listings == [set()] and b.listings == [{"a"}]
        await cluster.settle(2.0)
        assert a.listings[-1] == {"b"}
        assert a.secrets == b.secrets == (cluster.list.secret,)
        assert len(cluster.list.secret) == 32

    simulated(work)


def test_who_says_nothing_for_ten_seconds_is_not_there(simulated):
    async def work(cluster):
        a = await cluster.start("a")
        await Node(cluster, "b", 1).registry.enter()
        await cluster.settle(8.0)
        assert a.listings[-1] == {"b"}
        await cluster.settle(4.0)
        assert a.listings[-1] == set()

    simulated(work)


def test_what_a_node_says_of_itself_is_what_is_so_now(simulated):
    async def work(cluster):
        a = await cluster.start("a")
        a.entry = a.entry._replace(state="draining")
        await cluster.settle(2.0)
        assert cluster.list.entries["a"][0].state == "draining"

    simulated(work)


# a name lives once


def test_a_node_that_died_comes_back_when_its_last_beat_does_not_count(simulated, caplog):
    async def work(cluster):
        await Node(cluster, "a", 1).registry.enter()
        again = Node(cluster, "a", 2)
        starting = cluster.spawn(again.registry.enter())
        await cluster.settle(9.0)
        assert not starting.done() and cluster.list.entries["a"][0].incarnation == 1
        await cluster.settle(1.0)
        assert starting.done() and cluster.list.entries["a"][0].incarnation == 2
        cluster.tasks.remove(starting)

    simulated(work)
    assert [record.message for record in caplog.records].count("node-name-taken") == 1


@pytest.mark.parametrize("incarnation", [1, 3])
def test_a_name_that_is_in_use_is_refused(simulated, incarnation):
    async def work(cluster):
        old = await cluster.start("a", 2)
        new = Node(cluster, "a", incarnation)
        starting = cluster.spawn(new.registry.enter())
        await cluster.settle(9.0)
        assert not starting.done()
        await cluster.settle(3.0)
        with pytest.raises(CommandError, match="another node is called a"):
            starting.result()
        cluster.tasks.remove(starting)
        assert cluster.list.entries["a"][0].incarnation == 2 and not old.is_superseded

    simulated(work)


def test_of_two_that_are_there_already_the_older_one_stops(simulated):
    """Both began while the list was away."""

    async def work(cluster):
        cluster.list.is_away = True
        old, new = await cluster.start("a", 1), await cluster.start("a", 2)
        await cluster.settle(2.0)
        cluster.list.is_away = False
        await cluster.settle(4.0)
        assert old.is_superseded and not new.is_superseded
        assert cluster.list.entries["a"][0].incarnation == 2

    simulated(work)


def test_who_leaves_is_not_on_the_list(simulated):
    async def work(cluster):
        a = await cluster.start("a", 1)
        await a.registry.leave()
        assert cluster.list.entries == {}
        b = Node(cluster, "a", 2)
        await b.registry.enter()
        await a.registry.leave()
        assert cluster.list.entries["a"][0].incarnation == 2
        cluster.list.is_away = True
        await a.registry.leave()

    simulated(work)


def test_a_later_life_has_a_larger_number():
    assert new_incarnation(1_700_000_000.002) > new_incarnation(1_700_000_000.001)
    assert 0 < new_incarnation(4_000_000_000.0) < 2**63
    assert len({new_incarnation(1.0) for _ in range(20)}) > 1


# the list away, and back


def test_a_node_begins_alone_and_joins_later(simulated, caplog):
    caplog.set_level("INFO")

    async def work(cluster):
        cluster.list.is_away = True
        a = await cluster.start("a")
        await cluster.settle(10.0)
        assert a.listings == [] and a.secrets == ()
        cluster.list.is_away = False
        await cluster.settle(2.0)
        assert a.listings == [set()] and a.secrets == (cluster.list.secret,)

    simulated(work)
    assert [record.message for record in caplog.records] == ["node-list-away", "node-alone", "node-listed"]


def test_what_the_list_has_lost_is_written_again(simulated, caplog):
    caplog.set_level("INFO")

    async def work(cluster):
        a, b = await cluster.start("a"), await cluster.start("b")
        secret = cluster.list.secret
        cluster.list.is_away = True
        await cluster.settle(4.0)
        cluster.list.lose()
        cluster.list.is_away = False
        await cluster.settle(4.0)
        assert set(cluster.list.entries) == {"a", "b"} and cluster.list.secret == secret
        assert a.listings[-1] == {"b"} and a.secrets == b.secrets == (secret,)

        cluster.list.is_away = True
        await cluster.settle(4.0)

    simulated(work)
    told = [record.message for record in caplog.records]
    assert told.count("node-list-away") == told.count("node-alone") == told.count("node-listed") == 4


def test_the_secret_is_written_again_by_who_read_it(simulated):
    async def work(cluster):
        await Node(cluster, "a", 1).registry.enter()
        secret = cluster.list.secret
        await cluster.start("b")
        cluster.list.lose()
        await cluster.settle(2.0)
        assert cluster.list.secret == secret

    simulated(work)


def test_a_new_secret_counts_beside_the_one_before(simulated):
    """A node that begins on an empty list leaves its own there before the others come back."""

    async def work(cluster):
        a = await cluster.start("a")
        before = cluster.list.secret
        cluster.list.lose()
        b = await cluster.start("b")
        assert cluster.list.secret != before
        await cluster.settle(2.0)
        assert a.secrets == (cluster.list.secret, before) and b.secrets == (cluster.list.secret,)
        second = cluster.list.secret
        cluster.list.secret = b"3"
        await cluster.settle(2.0)
        assert a.secrets == (b"3", second)

    simulated(work)


def test_a_secret_that_was_given_is_kept_to_oneself(simulated):
    async def work(cluster):
        cluster.list.secret = b"of others"
        a = Node(cluster, "a", 1, secret=b"given")
        assert a.secrets == (b"given",), "before anything was read"
        await a.registry.enter()
        a.run()
        await cluster.settle(2.0)
        assert a.secrets == (b"given",) and cluster.list.secret == b"of others"
        cluster.list.lose()
        await cluster.settle(2.0)
        assert cluster.list.secret == b""

    simulated(work)


# seeds


def test_seeds_are_tried_while_the_list_is_away(simulated, caplog):
    async def work(cluster):
        cluster.list.is_away = True
        cluster.seeds = {"s1": "a", "s2": "b"}
        a = await cluster.start("a", secret=b"given", seeds=("s1", "s2", "s3"))
        await cluster.settle()
        assert a.knocks == ["s1", "s2", "s3"]
        a.connected.add("b")
        await cluster.settle(2.0)
        assert a.knocks[3:] == ["s3"], "of oneself and of who is connected it is known"
        a.connected.clear()
        await cluster.settle(2.0)
        assert a.knocks[4:] == ["s2", "s3"]
        cluster.list.is_away = False
        await cluster.settle(4.0)
        count = len(a.knocks)
        await cluster.settle(10.0)
        assert len(a.knocks) == count

    simulated(work)


def test_seeds_alone_will_do(simulated):
    async def work(cluster):
        cluster.seeds = {"s": "b"}
        a = await cluster.start("a", nodes=None, secret=b"given", seeds=("s",))
        await cluster.settle(2.0)
        assert a.knocks == ["s", "s"]
        await a.registry.leave()

    simulated(work)


def test_seeds_are_of_no_use_without_a_secret(simulated):
    async def work(cluster):
        cluster.list.is_away = True
        a = await cluster.start("a", seeds=("s",))
        await cluster.settle(4.0)
        assert a.knocks == []

    simulated(work)


def test_who_is_connected_by_a_seed_is_not_alone(simulated, caplog):
    async def work(cluster):
        cluster.list.is_away = True
        cluster.seeds = {"s": "b"}
        a = Node(cluster, "a", 1, secret=b"given", seeds=("s",))
        a.connected.add("b")
        await a.registry.enter()
        a.run()
        await cluster.settle(4.0)

    simulated(work)
    assert "node-alone" not in [record.message for record in caplog.records]
