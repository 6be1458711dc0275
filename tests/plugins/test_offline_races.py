"""Offline messages while their receiver comes, and while several nodes share a store."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from several import several
from slowly import LIMITS, read_a_little

from plugins.offline.counting import RECOUNT_SECONDS
from tests.plugins.test_offline import become_available, bodies, chat
from xmppd.errors import StoreUnavailable
from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Delete, Key, Page, Put, Store, Table
from xmppd.testing import Client, World, refusal


class SharedStore(SqliteStore):
    """A store into which another node writes at the worst moment: when what was delivered is deleted."""

    others = 1

    async def batch(self, table: Table, partition: Key, writes: Sequence[Put | Delete], **how: Any) -> bool:
        if self.others and isinstance(writes[0], Delete):
            self.others -= 1
            row = (await self.scan(table, partition, limit=1)).rows[0]
            late = f"{row['id'][:16]}!"  # it comes before the first one, by its mark of the node
            await self.put(table, {**row, "id": late, "stanza": row["stanza"].replace(b"first", b"late")})
        return await super().batch(table, partition, writes, **how)


@pytest.mark.one_node("has the other node made up; with a real one a hint brings the message at once")
@pytest.mark.asyncio
async def test_what_another_node_stores_meanwhile_is_not_deleted(redis_url: str) -> None:
    settings, store = several(redis_url), SharedStore(":memory:")
    async with World(plugins=("offline",), settings=settings, store=store) as world:
        await chat(await world.login("alice"), "bob@localhost", "first", "second")
        bob = await world.bind("bob")
        await become_available(bob)
        assert await bodies(bob) == ["first", "second"]
        again = await world.bind("bob")
        await become_available(again)
        assert await bodies(again) == ["late"]


class LateStore(SqliteStore):
    """A store whose deletes have no effect while the clock of its node `is_behind`."""

    is_behind = True

    async def batch(self, table: Table, partition: Key, writes: Sequence[Put | Delete], **how: Any) -> bool:
        if self.is_behind and any(isinstance(write, Delete) for write in writes):
            return True
        return await super().batch(table, partition, writes, **how)


@pytest.mark.asyncio
@pytest.mark.parametrize("count", [1, 100, 101, 250])
async def test_what_a_delete_leaves_comes_once_in_each_session(count: int) -> None:
    store = LateStore(":memory:")
    config = {"offline": {"max_messages": count}}
    async with World(plugins=("offline",), plugin_config=config, store=store) as world:
        alice, bob = await world.login("alice"), await world.bind("bob")
        sent = [str(number) for number in range(count)]
        await chat(alice, "bob@localhost", *sent)
        await become_available(bob)
        assert await bodies(bob) == sent
        world.app.server.messages_left("bob@localhost")
        await world.settle()
        assert await bodies(bob) == [], "it is looked for what is stored, and this was given"
        store.is_behind = False
        await bob.drop()
        await chat(alice, "bob@localhost", "one too many")
        assert refusal(await alice.receive()) == "cancel service-unavailable"
        again = await world.bind("bob")
        await become_available(again)
        assert await bodies(again) == sent
        await again.drop()
        await chat(alice, "bob@localhost", *sent)
        last = await world.bind("bob")
        await become_available(last)
        assert await bodies(last) == sent


@pytest.mark.one_node("is about two servers as it is")
@pytest.mark.asyncio
async def test_nodes_that_share_a_store_overwrite_nothing_and_keep_the_bound_each(store: Store) -> None:
    config = {"offline": {"max_messages": 5}}
    one = World(plugins=("offline",), plugin_config=config, store=store)
    other = World(plugins=("offline",), plugin_config=config, store=store, accounts=())
    async with one, other:
        senders = [await world.login("alice") for world in (one, other) for _ in range(4)]
        for round_ in range(2):
            for number, sender in enumerate(senders):  # no clock moves, so all want the same ids
                sender.write(f"<message to='bob@localhost'><body>{round_} {number}</body></message>")
        for world in (one, other):
            await world.settle()
        received = [await sender.receive_all() for sender in senders]
        refused = sum(s.get("type") == "error" for stanzas in received for s in stanzas)
        bob = await other.bind("bob")
        await become_available(bob)
        kept = await bodies(bob)
        assert len(set(kept)) == len(kept) == 16 - refused
        assert 5 <= len(kept) <= 10
        await bob.drop()
        for world, sender in ((one, senders[0]), (other, senders[-1])):
            await world.advance(RECOUNT_SECONDS)
            await chat(sender, "bob@localhost", "what one has delivered is not counted by the other")
            await world.settle()
            assert not await sender.receive_all()


@pytest.mark.asyncio
@pytest.mark.parametrize("steps", range(12))
async def test_a_message_stored_while_its_receiver_comes_is_not_left_behind(steps: int, store: Store) -> None:
    async with World(plugins=("offline",), store=store) as world:
        alice, bob = await world.login("alice"), await world.bind("bob")
        alice.write("<message to='bob@localhost'><body>x</body></message>")
        for _ in range(steps):
            await asyncio.sleep(0)
        bob.write("<presence/>")
        await world.settle()
        await alice.send("<message to='bob@localhost'><body>y</body></message>")
        assert await bodies(bob) == ["x", "y"]
        await alice.receive_all()


class Gate:
    """Calls that wait while it is closed; `reached` when one does."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.reached = asyncio.Event()
        self.opened.set()

    def before(self, call: Any) -> Any:
        async def passing(*args: Any, **how: Any) -> Any:
            if not self.opened.is_set():
                self.reached.set()
                await self.opened.wait()
            return await call(*args, **how)

        return passing

    async def closed(self, begin: Any) -> None:
        """Close it, and wait until what this begins stands before it."""
        self.opened.clear()
        begin()
        await self.reached.wait()


@pytest.mark.asyncio
@pytest.mark.parametrize("waiting", [0, 1])
async def test_who_came_while_the_account_was_looked_up_gets_the_message_at_once(
    waiting: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with World(plugins=("offline",)) as world:
        alice, bob, gate = await world.login("alice"), await world.bind("bob"), Gate()
        await chat(alice, "bob@localhost", *["old"] * waiting)
        server = world.plugin("offline").server
        monkeypatch.setattr(server, "account_exists", gate.before(server.account_exists))
        await gate.closed(lambda: alice.write("<message to='bob@localhost'><body>x</body></message>"))
        bob.write("<presence/>")
        await asyncio.sleep(0.1)  # what had waited is delivered
        gate.opened.set()
        await world.settle()
        await chat(alice, "bob@localhost", "y")
        assert await bodies(bob) == [*["old"] * waiting, "x", "y"]
        assert [row async for row in world.plugin("offline").queue.everything()] == []
        await alice.expect_nothing()


@pytest.mark.asyncio
async def test_a_message_waits_for_a_flush_that_began_while_its_account_was_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with World(plugins=("offline",)) as world:
        alice, bob = await world.login("alice"), await world.bind("bob")
        await chat(alice, "bob@localhost", "old")
        server, lookup, delete = world.plugin("offline").server, Gate(), Gate()
        monkeypatch.setattr(server, "account_exists", lookup.before(server.account_exists))
        monkeypatch.setattr(server.store, "batch", delete.before(server.store.batch))
        await lookup.closed(lambda: alice.write("<message to='bob@localhost'><body>x</body></message>"))
        await delete.closed(lambda: bob.write("<presence/>"))
        lookup.opened.set()
        await asyncio.sleep(0.05)
        delete.opened.set()
        await world.settle()
        assert await bodies(bob) == ["old", "x"]
        assert [row async for row in world.plugin("offline").queue.everything()] == []
        await alice.expect_nothing()


async def available(client: Client) -> None:
    """Wait until the client's presence was taken, however far away its roster is."""
    async with asyncio.timeout(10):
        while client.session.presence is None:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)


async def one_slow_reader_of_two(world: World, sent: list[str]) -> tuple[Client, Client, Client]:
    """Alice; bob, who reads nothing of what was kept for him; and a resource of his that came then."""
    alice, bob = await world.login("alice"), await world.bind("bob")
    await chat(alice, "bob@localhost", *sent)
    other = await world.bind("bob")
    bob.stop_reading()
    bob.write("<presence/>")
    await available(bob)
    for _ in range(30):
        await asyncio.sleep(0)
    other.write("<presence/>")
    await available(other)
    return alice, bob, other


@pytest.mark.one_node("lets so many turns of one loop pass")
@pytest.mark.asyncio
async def test_who_reads_slowly_is_not_cut_off_by_what_waited_nor_by_what_comes() -> None:
    async with World(plugins=("offline",), settings={"limits": LIMITS}) as world:
        alice, bob = await world.login("alice"), await world.bind("bob")
        sent = [str(number) for number in range(150)]
        for number in sent:
            alice.write(f"<message to='bob@localhost'><body>{number}</body><x>{'x' * 2000}</x></message>")
        await world.settle()
        bob.stop_reading()
        bob.write("<presence/>")
        await available(bob)
        for number in range(150, 180):  # more than he may leave unread
            to = ("bob@localhost", bob.jid)[number % 2]
            kind = ("chat", "normal")[number // 2 % 2]
            body = f"<body>{number}</body><x>{'x' * 3000}</x>"
            alice.write(f"<message to='{to}' type='{kind}'>{body}</message>")
            for _ in range(30):
                await asyncio.sleep(0)
            alice.pump()
            sent.append(str(number))
        assert not bob.closed and len(bob.transport.held) < LIMITS["write_buffer_hard"]
        await alice.expect_nothing()
        async with asyncio.timeout(30):
            while bob.raw.count(b"</body>") < len(sent):
                await read_a_little(bob)
        assert await bodies(bob) == sent
        assert [row async for row in world.plugin("offline").queue.everything()] == []
        await chat(alice, bob.jid, "live again")
        await read_a_little(bob)
        assert await bodies(bob) == ["live again"]


@pytest.mark.one_node("lets so many turns of one loop pass")
@pytest.mark.asyncio
async def test_what_is_not_kept_comes_at_once_to_who_is_given_stored_messages() -> None:
    async with World(plugins=("offline",), settings={"limits": LIMITS}) as world:
        alice, bob = await world.login("alice"), await world.bind("bob")
        await chat(alice, "bob@localhost", *("x" * 3000 for _ in range(20)))
        bob.stop_reading()
        bob.write("<presence/>")
        await available(bob)
        hint = "<no-store xmlns='urn:xmpp:hints'/>"
        for number, (to, kind) in enumerate(
            (to, kind) for to in ("bob@localhost", bob.jid) for kind in ("chat", "headline", "normal")
        ):
            what = f"<body>now {number}</body>" + ("" if kind == "headline" else hint)
            alice.write(f"<message to='{to}' type='{kind}'>{what}</message>")
        alice.write(f"<message to='{bob.jid}' type='groupchat'><body>now 6</body></message>")
        for _ in range(60):
            await asyncio.sleep(0)
        told = bytes(bob.transport.held)
        assert [b"now %d" % number in told for number in range(7)] == [True] * 7
        await alice.expect_nothing()


@pytest.mark.one_node("lets so many turns of one loop pass")
@pytest.mark.asyncio
async def test_what_a_slow_reader_did_not_take_is_given_to_another_resource() -> None:
    async with World(plugins=("offline",), settings={"limits": LIMITS}) as world:
        sent = [f"{number} {'x' * 3000}" for number in range(30)]
        alice, bob, other = await one_slow_reader_of_two(world, sent)
        for _ in range(30):
            await asyncio.sleep(0)
        alice.write("<message to='bob@localhost' type='chat'><body>live</body></message>")
        for _ in range(30):
            await asyncio.sleep(0)
        assert b"live" not in other.raw, "it is newer than what waits, and may be from the same sender"
        bob.transport.close()
        await world.settle()
        assert await bodies(other) == [*sent, "live"]


@pytest.mark.one_node("lets so many turns of one loop pass")
@pytest.mark.asyncio
async def test_who_reads_slowly_keeps_no_other_resource_waiting_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with World(plugins=("offline",), settings={"limits": LIMITS}) as world:
        module = sys.modules[type(world.plugin("offline")).__module__]
        monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.05)
        sent = [f"{number} {'x' * 3000}" for number in range(150)]
        alice, bob, other = await one_slow_reader_of_two(world, sent)
        alice.write("<message to='bob@localhost' type='chat'><body>stored</body></message>")
        alice.write(f"<message to='{bob.jid}' type='chat'><body>for him</body></message>")
        async with asyncio.timeout(10):
            while b"stored" not in other.raw:
                alice.pump()
                other.pump()
                await asyncio.sleep(0.01)
        assert await bodies(other) == [*sent, "stored"]
        alice.write("<message to='bob@localhost' type='chat'><body>live</body></message>")
        for _ in range(30):
            await asyncio.sleep(0)
        assert await bodies(other) == ["live"]
        async with asyncio.timeout(30):
            while b"for him" not in bob.raw:
                await read_a_little(bob)
        told = await bodies(bob)
        assert told == [*sent[: len(told) - 1], "for him"], "he goes on with what is his"
        assert [row async for row in world.plugin("offline").queue.everything()] == []
        await chat(world.clients[0], bob.jid, "live again")
        await read_a_little(bob)
        assert await bodies(bob) == ["live again"] and not await bodies(other)


@pytest.mark.one_node("lets so many turns of one loop pass")
@pytest.mark.asyncio
async def test_who_reads_slowly_and_alone_is_given_everything_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(plugins=("offline",), settings={"limits": LIMITS}) as world:
        module = sys.modules[type(world.plugin("offline")).__module__]
        monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.0)
        alice, bob = await world.login("alice"), await world.bind("bob")
        sent = [f"{number} {'x' * 3000}" for number in range(250)]
        await chat(alice, "bob@localhost", *sent)
        bob.stop_reading()
        bob.write("<presence/>")
        async with asyncio.timeout(30):
            while bob.raw.count(b"</body>") < len(sent):
                await read_a_little(bob)
        assert await bodies(bob) == sent
        bob.transport.stalled = False
        await world.settle()
        assert [row async for row in world.plugin("offline").queue.everything()] == []


@pytest.mark.one_node("lets so many turns of one loop pass")
@pytest.mark.asyncio
async def test_what_is_for_who_waits_for_his_turn_goes_to_no_other_resource() -> None:
    async with World(plugins=("offline",), settings={"limits": LIMITS}) as world:
        sent = [f"{number} {'x' * 3000}" for number in range(30)]
        alice, bob, other = await one_slow_reader_of_two(world, sent)
        alice.write(f"<message to='{other.jid}' type='chat'><body>for the other</body></message>")
        async with asyncio.timeout(30):
            while b"for the other" not in other.raw or bob.raw.count(b"</body>") < len(sent):
                alice.pump()
                other.pump()
                await read_a_little(bob)
        assert await bodies(bob) == sent and await bodies(other) == ["for the other"]
        assert [row async for row in world.plugin("offline").queue.everything()] == []


@pytest.mark.one_node("lets so many turns of one loop pass")
@pytest.mark.asyncio
async def test_who_reads_slowly_holds_up_no_other_resource() -> None:
    async with World(plugins=("offline",), settings={"limits": LIMITS}) as world:
        alice, bob = await world.login("alice"), await world.bind("bob")
        sent = [f"{number} {'x' * 3000}" for number in range(60)]
        await chat(alice, "bob@localhost", *sent)
        other = await world.bind("bob")
        bob.stop_reading()
        bob.write("<presence/>")
        await available(bob)
        for _ in range(20):  # of which none makes work that piles up
            other.write("<presence/><presence type='unavailable'/>")
        other.write(f"<presence/><message to='{alice.jid}' type='chat'><body>x</body></message>")
        for _ in range(30):
            await asyncio.sleep(0)
        assert await bodies(alice) == ["x"]
        assert len(world.app.jobs) <= 8
        bob.transport.close()
        await world.settle()
        assert await bodies(other) == sent


@pytest.mark.asyncio
async def test_what_a_client_asks_is_answered_after_all_that_was_kept() -> None:
    async with World(plugins=("offline", "ping")) as world:
        alice, bob = await world.login("alice"), await world.bind("bob")
        sent = [f"{number} {'x' * 500}" for number in range(350)]
        await chat(alice, "bob@localhost", *sent)
        bob.write("<presence/><iq type='get' id='last' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>")
        await world.settle()
        before, pong, after = bob.raw.partition(b"id='last'")
        assert pong
        assert (before.count(b"</body>"), after.count(b"</body>")) == (350, 0)


@pytest.mark.asyncio
async def test_who_reads_slowly_is_heard_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(plugins=("offline",), settings={"limits": LIMITS}) as world:
        alice, bob = await world.login("alice"), await world.bind("bob")
        await chat(alice, "bob@localhost", *(f"{number} {'x' * 3000}" for number in range(60)))
        module = sys.modules[type(world.plugin("offline")).__module__]
        monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.05)
        bob.stop_reading()
        bob.write(f"<presence/><message to='{alice.jid}' type='chat'><body>hello</body></message>")
        async with asyncio.timeout(10):
            while b"hello" not in alice.raw:
                await read_a_little(bob)
                await asyncio.sleep(0.05)
        assert bob.raw.count(b"</body>") < 60


@pytest.mark.one_node("lets so many turns of one loop pass")
@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["chat", "normal"])
async def test_what_is_for_a_slow_reader_goes_to_no_other_resource(kind: str) -> None:
    async with World(plugins=("offline",), settings={"limits": LIMITS}) as world:
        sent = [f"{number} {'x' * 3000}" for number in range(30)]
        alice, bob, other = await one_slow_reader_of_two(world, sent)
        alice.write(f"<message to='{bob.jid}' type='{kind}'><body>for him</body></message>")
        hint = "<no-store xmlns='urn:xmpp:hints'/>"
        alice.write(f"<message to='{bob.jid}' type='{kind}'><body>at once</body>{hint}</message>")
        for _ in range(30):
            await asyncio.sleep(0)
        async with asyncio.timeout(30):
            while bob.raw.count(b"</body>") < len(sent) + 2:
                alice.pump()
                await read_a_little(bob)
        told = await bodies(bob)
        assert [text for text in told if text != "at once"] == [*sent, "for him"] and "at once" in told
        assert not await bodies(other)


class StuckStore(SqliteStore):
    """A store that is slow to look for messages while it is told to, and takes others meanwhile."""

    opened: asyncio.Event | None = None

    async def scan(self, table: Table, *args: Any, **how: Any) -> Any:
        if table.name == "offline_queue" and self.opened is not None:
            await self.opened.wait()
        return await super().scan(table, *args, **how)


@pytest.mark.one_node("lets so many turns of one loop pass")
@pytest.mark.own_engine
@pytest.mark.asyncio
async def test_nothing_piles_up_while_the_store_is_slow() -> None:
    store = StuckStore(":memory:")
    async with World(plugins=("offline",), store=store) as world:
        alice, bob = await world.login("alice"), await world.bind("bob")
        await chat(alice, "bob@localhost", "0")
        store.opened = asyncio.Event()
        bob.write("<presence/>")
        for number in range(1, 300):
            alice.write(
                f"<message to='{bob.jid}' type='chat'><body>{number}</body><x>{'x' * 5000}</x></message>"
            )
            await asyncio.sleep(0)
        assert not alice.transport.is_reading(), "the sender waits"
        assert sum(map(len, bob.session._out or ())) < 100_000
        store.opened.set()
        await world.settle()
        received = await bodies(bob)
        assert received == [str(number) for number in range(len(received))] and len(received) == 300


SLOW_WATCHER = """
import asyncio
from xmppd import hooks
from xmppd.plugin import Plugin

class Watcher(Plugin):
    async def start(self):
        self.go_on = asyncio.Event()

    @hooks.message_routed
    async def note(self, origin, message, account, outcome):
        await self.go_on.wait()
"""


@pytest.mark.asyncio
async def test_who_comes_waits_for_no_plugin_that_is_told_of_what_was_stored(
    tmp_path: Path, store: Store
) -> None:
    (tmp_path / "watcher.py").write_text(SLOW_WATCHER)
    async with World(plugins=("offline", "watcher"), plugin_folders=(tmp_path,), store=store) as world:
        alice, bob = await world.login("alice"), await world.bind("bob")
        alice.write("".join(f"<message to='bob@localhost'><body>{n}</body></message>" for n in range(3)))
        await asyncio.sleep(0.2)
        bob.write("<presence/>")
        async with asyncio.timeout(10):
            while b"<body>0<" not in bob.raw:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        world.plugin("watcher").go_on.set()
        await world.settle()
        assert await bodies(bob) == ["0", "1", "2"]


class DeafStore(SqliteStore):
    """A store in which the queues of accounts cannot be read the next `failing` times; `meanwhile` is done
    each time.
    """

    failing = 0

    def meanwhile(self) -> None:
        """Whatever a test wants."""

    async def scan(self, table: Table, partition: Key, **how: Any) -> Page:
        if self.failing and table.name.endswith("queue"):
            self.failing -= 1
            self.meanwhile()
            raise StoreUnavailable("Cassandra cannot be asked")
        return await super().scan(table, partition, **how)


@pytest.mark.one_node("has a node that cannot reach its store")
@pytest.mark.asyncio
@pytest.mark.parametrize("seconds", [60.0, -1.0])
async def test_what_cannot_be_read_is_looked_for_again(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And comes before what is newer, unless that takes very long: then chat goes on without a store."""
    store = DeafStore(":memory:")
    async with World(plugins=("offline",), store=store) as world:
        module = sys.modules[type(world.plugin("offline")).__module__]
        monkeypatch.setattr(module, "AGAIN_SECONDS", (0.0, 0.0))
        monkeypatch.setattr(module, "STUBBORN_SECONDS", seconds)
        alice, bob = await world.login("alice"), await world.bind("bob")
        await chat(alice, "bob@localhost", "first", "second")
        newer: list[str] = []

        def send_another() -> None:
            newer.append(f"newer {store.failing}")
            alice.write(f"<message to='bob@localhost' type='chat'><body>{newer[-1]}</body></message>")
            alice.pump()

        store.meanwhile = send_another
        store.failing = 3
        await become_available(bob)
        told = await bodies(bob)
        if seconds > 0:
            assert told == ["first", "second", *newer]
        else:
            assert told == [*newer, "first", "second"]
        assert not store.failing
        assert [row async for row in world.plugin("offline").queue.everything()] == []


@pytest.mark.one_node("has a node that cannot reach its store")
@pytest.mark.asyncio
async def test_who_goes_before_what_was_stored_can_be_read_finds_it_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = DeafStore(":memory:")
    async with World(plugins=("offline",), store=store) as world:
        module = sys.modules[type(world.plugin("offline")).__module__]
        monkeypatch.setattr(module, "AGAIN_SECONDS", (0.0, 0.0))
        alice, bob = await world.login("alice"), await world.bind("bob")
        await chat(alice, "bob@localhost", "first")
        store.failing = 1_000_000
        bob.write("<presence/>")
        bob.pump()
        await asyncio.sleep(0.01)
        assert store.failing < 1_000_000
        await bob.drop()
        left = store.failing
        await world.settle()
        assert store.failing == left, "nobody looks any more"
        store.failing = 0
        again = await world.bind("bob")
        await become_available(again)
        assert await bodies(again) == ["first"]
