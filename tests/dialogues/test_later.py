"""Messages of one sender whose end is awaited side by side: order holds, and nobody is told too early."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from heldstore import HeldStore, turns
from patience import PATIENCE, until
from several import several

from xmppd import ns
from xmppd.core.later import MANY
from xmppd.errors import StanzaError, StoreUnavailable, StreamError
from xmppd.testing import Client, World, refusal

pytestmark = pytest.mark.asyncio

PING = f"<iq type='get' id='ping'><query xmlns='{ns.ROSTER}'/></iq>"


async def turned(world: World, happened: Callable[[], bool]) -> None:
    """Turns, until something happened."""
    await until(happened, lambda: turns(world))


async def chat(world: World, client: Client, *texts: str) -> None:
    for text in texts:
        client.write(f"<message to='bob@localhost' id='{text}' type='chat'><body>{text}</body></message>")
    await turns(world)


async def test_messages_of_one_sender_are_under_way_together_and_kept_in_order() -> None:
    store = HeldStore()
    async with World(plugins=("offline",), store=store) as world:
        alice, carol = await world.login("alice"), await world.login("carol")
        await chat(world, alice, "1")
        await chat(world, alice, "2", "3")
        assert store.counts == [1], "who reads finds none without those before it"
        alice.write(f"<message to='{carol.jid}'><body>live</body></message>")
        await turns(world)
        assert b"live" in carol.raw, "what others get does not wait"
        alice.write(PING)
        await turns(world)
        await store.let_go(world)
        assert store.counts == [1, 2], "what has come meanwhile goes together"
        assert b"id='ping'" not in alice.raw, "an answer says that all before is done"
        await store.let_go(world)
        assert b"id='ping'" in alice.raw
        bob = await world.bind("bob")
        await bob.send("<presence/>")
        assert [s.get("id") for s in await bob.receive_all() if s.get("id")] == ["1", "2", "3"]


async def test_a_sender_waits_when_too_many_are_under_way() -> None:
    store = HeldStore()
    async with World(plugins=("offline",), store=store) as world:
        alice = await world.login("alice")
        await chat(world, alice, *map(str, range(MANY + 5)))
        assert sum(store.counts) == MANY and not alice.transport.is_reading()
        await store.let_all_go(world)
        await world.settle()
        assert alice.transport.is_reading() and sum(store.counts) == MANY + 5


async def test_who_comes_on_another_node_is_given_nothing_before_what_is_being_stored(
    redis_url: str,
) -> None:
    store = HeldStore()
    async with World(settings=several(redis_url), nodes=2, plugins=("offline",), store=store) as world:
        alice, bob = await world.login("alice", node=0), await world.bind("bob", node=1)
        await chat(world, alice, "1")
        bob.write("<presence/>")
        await turns(world)
        await chat(world, alice, "2", "3")
        assert b"<body>" not in bob.raw and store.counts == [1]
        await store.let_all_go(world)
        await world.settle()
        await store.let_all_go(world)
        await world.settle()
        assert [s.get("id") for s in await bob.receive_all() if s.get("id")] == ["1", "2", "3"]
        assert (await world.plugin("offline").queue.scan("bob@localhost")).rows == []


@pytest.mark.parametrize("is_lost", [False, True])
async def test_a_sender_is_told_when_who_came_meanwhile_has_heard(redis_url: str, is_lost: bool) -> None:
    """Or is lost: what was acknowledged is looked for there, though the node of the sender be killed then."""
    store = HeldStore()
    async with World(settings=several(redis_url), nodes=2, plugins=("offline",), store=store) as world:
        alice, bob = await world.login("alice", node=0), await world.bind("bob", node=1)
        await chat(world, alice, "1")
        bob.write("<presence/>")
        async with asyncio.timeout(PATIENCE):
            while not world.cluster(0).is_available("bob@localhost"):
                await turns(world)
        alice.write(PING)
        world.cut(0, 1)
        await store.let_all_go(world)
        await turns(world)
        assert b"id='ping'" not in alice.raw
        if is_lost:
            for node in (0, 1):
                mesh = world.cluster(node).mesh
                mesh.give_up(next(iter(mesh.members.values())), "lost")
        else:
            world.connect_nodes(0, 1)
        await world.settle()
        assert b"id='ping'" in alice.raw
        assert [s.get("id") for s in await bob.receive_all() if s.get("id")] == ["1"]


async def test_what_fails_is_refused_in_its_turn_and_nothing_else() -> None:
    store = HeldStore()
    async with World(plugins=("offline",), store=store) as world:
        alice = await world.login("alice")
        store.failing = lambda stanza: StoreUnavailable("full") if b"<body>2<" in stanza else None
        await chat(world, alice, "1")
        await chat(world, alice, "2")
        await store.let_go(world)
        await chat(world, alice, "3")
        await store.let_all_go(world)
        assert store.counts == [1, 1, 1]
        await world.settle()
        refused = await alice.receive()
        assert refusal(refused) == "wait resource-constraint" and refused.get("id") == "2"
        await alice.expect_nothing()
        bob = await world.bind("bob")
        await bob.send("<presence/>")
        assert [s.get("id") for s in await bob.receive_all() if s.get("id")] == ["1", "3"]


async def test_the_end_of_a_stream_comes_after_what_was_sent_before_it() -> None:
    store = HeldStore()
    async with World(plugins=("offline",), store=store) as world:
        alice = await world.login("alice")
        store.failing = lambda stanza: StoreUnavailable("full")
        await chat(world, alice, "1")
        alice.write("</stream:stream>")
        await turns(world)
        assert not alice.raw.endswith(b"</stream:stream>")
        await store.let_go(world)
        await world.settle()
        assert b"resource-constraint" in alice.raw and alice.raw.endswith(b"</stream:stream>")


async def test_who_breaks_off_has_what_he_sent_kept() -> None:
    store = HeldStore()
    async with World(plugins=("offline",), store=store) as world:
        alice = await world.login("alice")
        await chat(world, alice, "1", "2")
        alice.transport.close()
        await turns(world)
        await store.let_all_go(world)
        bob = await world.bind("bob")
        await bob.send("<presence/>")
        assert [s.get("id") for s in await bob.receive_all() if s.get("id")] == ["1", "2"]


async def test_a_shutdown_waits_for_what_is_under_way() -> None:
    store = HeldStore()
    async with World(plugins=("offline",), store=store) as world:
        alice = await world.login("alice")
        await chat(world, alice, "1")
        asyncio.get_running_loop().call_later(0.05, store.held[0][0].set_result, None)
        await world.app.service.shut_down()
        await world.app.jobs.drain(5.0)
        kept = await world.plugin("offline").queue.scan("bob@localhost")
        assert len(kept.rows) == 1


TEXT = '''
"""Returns what is finished later."""

import asyncio

from xmppd import hooks
from xmppd.errors import StreamError
from xmppd.plugin import Element, Later, Plugin, Request, StanzaError, element, iq_get

class Slow(Plugin):
    async def start(self):
        self.ends = []

    def _later(self):
        end = asyncio.get_running_loop().create_future()
        self.ends.append(end)
        return Later(end)

    @hooks.message_sent.at(hooks.FILTER)
    def take(self, session, message):
        return self._later() if b"slow" in message.raw else message

    @iq_get("{urn:x}slow")
    def answer(self, request):
        return self._later()
'''.replace("", "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "slow.py").write_text(TEXT)
    return tmp_path


async def test_filters_and_handlers_may_finish_later(folder: Path) -> None:
    async with World(plugins=("slow",), plugin_folders=(folder,)) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        ends = world.plugin("slow").ends
        alice.write(f"<message to='{bob.jid}' id='a'><body>slow</body></message>")
        alice.write(f"<message to='{bob.jid}' id='b'><body>quick</body></message>")
        alice.write("<iq type='get' id='q' to='localhost'><slow xmlns='urn:x'/></iq>")
        await turned(world, lambda: b"quick" in bob.raw)
        assert len(ends) == 1, "the request waits for what was before it"
        ends[0].set_exception(StanzaError("not-allowed"))
        await turned(world, lambda: bool(alice._inbox))
        assert refusal(alice._inbox.popleft()) == "cancel not-allowed"
        alice.write(f"<message to='{bob.jid}' id='c'><body>quicker</body></message>")
        await turned(world, lambda: b"quicker" in bob.raw and len(ends) == 2)
        assert b"id='q'" not in alice.raw
        ends[1].set_result(None)
        await world.settle()
        assert b"id='q'" in alice.raw


async def test_a_stream_error_that_comes_later_ends_the_stream(folder: Path) -> None:
    async with World(plugins=("slow",), plugin_folders=(folder,)) as world:
        alice = await world.login("alice")
        alice.write("<message to='bob@localhost'><body>slow</body></message>")
        await turns(world)
        world.plugin("slow").ends[0].set_exception(StreamError("policy-violation"))
        await alice.expect_closed("policy-violation")
        assert alice.jid not in world.app.sessions.by_full


async def test_what_a_lost_node_did_not_take_is_stored_together_and_before_what_is_sent_now(
    redis_url: str,
) -> None:
    store = HeldStore()
    async with World(settings=several(redis_url), nodes=2, plugins=("offline",), store=store) as world:
        alice, _ = await world.login("alice", node=0), await world.login("bob", node=1)
        await world.settle()
        world.cut(0, 1)
        texts = [str(number) for number in range(1, 11)]
        await chat(world, alice, *texts)
        assert store.counts == []
        mesh = world.cluster(0).mesh
        mesh.give_up(next(iter(mesh.members.values())), "it was killed")
        await turns(world)
        bob = await world.bind("bob", "r", node=0)
        bob.write("<presence/>")
        await chat(world, alice, "11")
        await store.let_go(world)
        assert store.counts == [10, 1], "nobody waits for the end of the one before"
        await store.let_all_go(world)
        await world.settle()
        await store.let_all_go(world)
        await world.settle()
        assert [s.get("id") for s in await bob.receive_all() if s.get("id")] == [*texts, "11"]


async def test_what_is_for_who_is_being_given_messages_elsewhere_is_stored_together(redis_url: str) -> None:
    store = HeldStore()
    async with World(settings=several(redis_url), nodes=2, plugins=("offline",), store=store) as world:
        alice, bob = await world.login("alice", node=0), await world.login("bob", "r", node=1)
        await world.settle()
        bob.session.hold_messages()
        texts = [str(number) for number in range(1, 11)]
        await chat(world, alice, *texts)
        for _ in range(10):
            await turns(world)
        await store.let_go(world)
        assert store.counts == [10]
        bob.session.release_messages()
        await store.let_all_go(world)
        await world.settle()
        await world.advance(1)
        assert [s.get("id") for s in await bob.receive_all() if s.get("id")] == texts
