"""XEP-0198 on one node: how managed sessions end, and what bounds them."""

import gc
import tracemalloc
from pathlib import Path

import pytest
from heldstore import HeldStore, turns
from managing import bodies, count, enable, managed, ready, resume, state

from xmppd import ns
from xmppd.core import output
from xmppd.core.output import LARGE
from xmppd.testing import World

pytestmark = [pytest.mark.asyncio, pytest.mark.one_node("test_resumption_elsewhere.py is about several")]

OFFLINE = ("offline",)


def a(h: int) -> str:
    return f"<a xmlns='{ns.SM}' h='{h}'/>"


def failed(condition: str, h: str = "") -> str:
    count = f" h='{h}'" if h else ""
    return f"<failed xmlns='{ns.SM}'{count}><{condition} xmlns='{ns.STANZA_ERRORS}'/></failed>"


def chat(to: str, body: str, more: str = "") -> str:
    return f"<message to='{to}' type='chat'><body>{body}</body>{more}</message>"


async def test_a_clean_end_is_the_end() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        id = await enable(alice)
        await alice.send("<presence/></stream:stream>")
        await alice.expect_closed()
        await alice.drop()
        assert (await bob.receive_all())[-1].get("type") == "unavailable"
        again = await ready(world, "alice")
        await again.send(f"<resume xmlns='{ns.SM}' previd='{id}' h='0'/>")
        await again.expect(failed("item-not-found", "1"))


async def test_a_clean_end_behind_what_is_under_way_is_one() -> None:
    store = HeldStore()
    async with World(plugins=OFFLINE, store=store) as world:
        alice, _ = await managed(world, "alice")
        alice.write(chat("bob@localhost", "1") + "</stream:stream>")
        await turns(world)
        alice.transport.close()
        await turns(world)
        await store.let_all_go(world)
        assert alice.jid not in world.app.sessions.by_full


async def test_its_time_comes_to_an_end() -> None:
    async with World(settings={"sessions": {"ping_after": 0}}) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        id = await enable(alice)
        await alice.send("<presence/>" * 2)
        await bob.receive_all()
        await alice.drop()
        await world.advance(295)
        await bob.expect_nothing()
        await world.advance(10)
        await bob.expect(f"<presence from='{alice.jid}' to='bob@localhost' type='unavailable'/>")
        again = await ready(world, "alice")
        await again.send(f"<resume xmlns='{ns.SM}' previd='{id}' h='0'/>")
        await again.expect(failed("item-not-found", "2"))
        await world.advance(3700)
        again = await ready(world, "alice")
        await again.send(f"<resume xmlns='{ns.SM}' previd='{id}' h='0'/>")
        await again.expect(failed("item-not-found"))


async def test_time_begins_anew_with_each_break() -> None:
    async with World() as world:
        alice, id = await managed(world, "alice")
        for _ in range(3):
            await alice.drop()
            await world.advance(200)
            alice = await resume(world, alice, id, state(alice).sent)
        await world.advance(400)
        assert not alice.session.is_over


async def test_three_of_an_account_are_detached() -> None:
    async with World() as world:
        clients = [await managed(world, "alice") for _ in range(5)]
        for client, _ in clients:
            await client.drop()
            await world.advance(1)
        left = set(world.app.sessions.by_full)
        assert left == {client.jid for client, _ in clients[2:]}
        await resume(world, *clients[3])
        assert len(world.app.resumption) == 2


async def test_a_session_that_has_its_name_replaces_it() -> None:
    async with World() as world:
        alice, _ = await managed(world, "alice", "r")
        old = alice.session
        await alice.drop()
        again = await world.login("alice", "r")
        assert old.is_over and again.session is not old and len(world.app.resumption) == 0


async def test_a_detached_session_ends_when_too_much_waits() -> None:
    limits = {"unacked_stanzas": 10}
    async with World(plugins=OFFLINE, settings={"limits": limits}) as world:
        alice, _ = await managed(world, "alice")
        bob = await world.login("bob")
        await alice.drop()
        for number in range(14):
            await bob.send(chat("alice@localhost", str(number)))
        assert alice.jid not in world.app.sessions.by_full
        again = await world.bind("alice")
        await again.send("<presence/>")
        assert bodies(await again.receive_all()) == [str(number) for number in range(14)]


async def test_a_stream_that_is_not_acknowledged_goes_on_and_is_not_resumed() -> None:
    limits = {"unacked_bytes": LARGE * 2}
    async with World(settings={"limits": limits}) as world:
        alice, id = await managed(world, "alice")
        bob = await world.login("bob")
        for _ in range(3):
            await bob.send(chat(alice.jid, "x" * LARGE))
        assert len(bodies(await alice.receive_all())) == 3
        assert state(alice).unacked == [] and world.app.resumption.size == 0
        await alice.send(a(2))
        await bob.send(chat(alice.jid, "y"))
        assert bodies(await alice.receive_all()) == ["y"]
        again = await ready(world, "alice")
        await again.send(f"<resume xmlns='{ns.SM}' previd='{id}' h='0'/>")
        await again.expect(failed("item-not-found"))
        await alice.drop()
        assert alice.jid not in world.app.sessions.by_full


async def test_what_all_keep_is_bounded() -> None:
    limits = {"unacked_bytes": LARGE * 4, "unacked_bytes_of_all": LARGE * 8}
    async with World(settings={"limits": limits}) as world:
        alices = [(await managed(world, "alice"))[0] for _ in range(3)]
        carol = (await managed(world, "carol"))[0]
        bob = await world.login("bob")
        await bob.send(chat(carol.jid, "z"))
        for _ in range(3):
            for alice in alices:
                await bob.send(chat(alice.jid, "x" * LARGE))
        assert 0 < world.app.resumption.size <= LARGE * 8
        assert len(state(carol).unacked) == 1, "those with most are let go"
        assert state(carol).seconds and not all(state(alice).seconds for alice in alices)


async def test_what_is_kept_is_counted() -> None:
    async with World() as world:
        alice, _ = await managed(world, "alice")
        bob = await world.login("bob")
        for _ in range(3):
            await bob.send(chat(alice.jid, "x"))
        assert world.app.resumption.size == state(alice).size == sum(map(len, state(alice).unacked)) > 0
        await alice.send(a(2))
        assert world.app.resumption.size == state(alice).size == len(state(alice).unacked[0])
        await alice.drop()
        world.app.binding.end(alice.session)
        assert world.app.resumption.size == 0 and not world.app.resumption._by_id


async def test_who_has_acknowledged_all_keeps_no_list_of_anything() -> None:
    async with World() as world:
        alice, _ = await managed(world, "alice")
        bob = await world.login("bob")
        await bob.send(chat(alice.jid, "x"))
        await alice.send(chat(bob.jid, "y"))
        await alice.send(a(1))
        held = gc.get_referents(state(alice))
        assert [found for found in held if isinstance(found, list | dict | tuple | set)] == []


async def test_sessions_that_have_ended_leave_nothing_behind() -> None:
    core = tracemalloc.Filter(True, str(Path(output.__file__).parent / "*"))
    async with World(settings={"sessions": {"ping_after": 0}}) as world:

        async def come_and_go(times: int) -> int:
            """Bytes of the core after these sessions have ended."""
            for number in range(times):
                alice, _ = await managed(world, "alice", f"r{number}")
                await alice.send("</stream:stream>")
                await alice.drop()
            world.clients.clear()
            gc.collect()
            return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([core]).traces)

        tracemalloc.start()
        try:
            before = await come_and_go(20)
            assert await come_and_go(60) - before < 60 * 50
        finally:
            tracemalloc.stop()


async def test_who_is_shown_much_acknowledges_the_first_before_the_rest_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(output, "PATIENCE_SECONDS", 0.0)  # or the acknowledgement is heard in real seconds
    async with World(settings={"limits": {"unacked_stanzas": 6}}) as world:
        for number in range(8):
            other = await world.login("alice")
            await other.send(f"<presence><status>{number}{'x' * (LARGE // 3)}</status></presence>")
        alice = await world.bind("alice")
        await enable(alice)
        await alice.send("<presence/>")
        seen, rounds = 0, 0
        while len(stanzas := await alice.receive_all()):
            seen += count(stanzas)
            rounds += 1
            await alice.send(a(seen))
        assert state(alice).is_kept and seen == 9 and rounds > 1
