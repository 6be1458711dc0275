"""XEP-0198 on one node: acknowledgements both ways, and sessions that outlive their streams."""

from collections.abc import Callable
from typing import Any

import pytest
from heldstore import HeldStore, turns
from managing import ASK, SM, ask_to_resume, bodies, enable, managed, ready, resume, state
from patience import rounds

from xmppd import ns
from xmppd.testing import Client, World
from xmppd.testing.client import PASSWORD

pytestmark = [pytest.mark.asyncio, pytest.mark.one_node("test_resumption_elsewhere.py is about several")]

OFFLINE = ("offline",)


def a(h: int) -> str:
    return f"<a xmlns='{ns.SM}' h='{h}'/>"


def failed(condition: str, h: str = "") -> str:
    count = f" h='{h}'" if h else ""
    return f"<failed xmlns='{ns.SM}'{count}><{condition} xmlns='{ns.STANZA_ERRORS}'/></failed>"


def chat(to: str, body: str, more: str = "") -> str:
    return f"<message to='{to}' type='chat'><body>{body}</body>{more}</message>"


async def test_a_client_is_told_where_to_come_back_to() -> None:
    async with World(settings={"sessions": {"resume_location": "[fd00::1]:5222"}}) as world:
        alice = await world.login("alice")
        await alice.send(f"<enable xmlns='{ns.SM}' resume='true'/>")
        where = "location='[fd00::1]:5222'"
        await alice.expect(f"<enabled xmlns='{ns.SM}' id='*' resume='true' max='300' {where}/>")


async def test_it_is_offered_with_the_resource() -> None:
    async with World() as world:
        client = world.connect()
        assert (await client.open()).find(f"{SM}sm") is None
        await client.authenticate("alice")
        assert (await client.open()).find(f"{SM}sm") is not None


async def test_it_is_enabled_with_an_id_and_a_time() -> None:
    async with World() as world:
        alice = await world.login("alice")
        await alice.send(f"<enable xmlns='{ns.SM}' resume='1'/>")
        await alice.expect(f"<enabled xmlns='{ns.SM}' id='*' resume='true' max='300'/>")
        other = await world.login("alice")
        ids = [state(alice).id, await enable(other)]
        assert ids[0] != ids[1] and len(ids[0]) >= 22


@pytest.mark.parametrize(("most", "given"), [("10", "10"), ("100000", "600"), ("x", "300"), ("-5", "300")])
async def test_the_client_may_say_for_how_long(most: str, given: str) -> None:
    async with World() as world:
        alice = await world.login("alice")
        await alice.send(f"<enable xmlns='{ns.SM}' resume='true' max='{most}'/>")
        await alice.expect(f"<enabled xmlns='{ns.SM}' id='*' resume='true' max='{given}'/>")


@pytest.mark.parametrize("wish", ["", " resume='false'", " resume='0'"])
async def test_who_does_not_ask_for_it_cannot_resume(wish: str) -> None:
    async with World() as world:
        alice = await world.login("alice")
        await alice.send(f"<enable xmlns='{ns.SM}'{wish}/>")
        await alice.expect(f"<enabled xmlns='{ns.SM}'/>")
        await alice.drop()
        assert alice.jid not in alice.app.sessions.by_full


async def test_nobody_resumes_where_the_operator_says_so() -> None:
    async with World(settings={"sessions": {"resume_seconds": 0}}) as world:
        alice = await world.login("alice")
        await alice.send(f"<enable xmlns='{ns.SM}' resume='true'/>")
        await alice.expect(f"<enabled xmlns='{ns.SM}'/>")
        again = await ready(world, "alice")
        answer = await ask_to_resume(again, "an-id")
        assert answer.tag == f"{{{ns.SM}}}failed"
        assert answer.find(f"{{{ns.STANZA_ERRORS}}}feature-not-implemented") is not None
        await again.bind("r2")
        assert again.jid, "a resource may be bound all the same"


async def test_an_anonymous_session_is_not_resumed() -> None:
    async with World(settings={"auth": {"anonymous": True, "plain_without_tls": True}}) as world:
        guest = await world.guest()
        await guest.send(f"<enable xmlns='{ns.SM}' resume='true'/>")
        await guest.expect(f"<enabled xmlns='{ns.SM}'/>")


async def test_not_before_a_resource_is_bound() -> None:
    async with World() as world:
        client = world.connect()
        await client.open()
        for element in (f"<enable xmlns='{ns.SM}'/>", f"<resume xmlns='{ns.SM}' previd='x' h='0'/>"):
            await client.send(element)
            await client.expect(failed("unexpected-request"))
        await client.authenticate("alice")
        await client.open()
        await client.send(f"<enable xmlns='{ns.SM}'/>")
        await client.expect(failed("unexpected-request"))
        await client.bind("r")
        await client.send(f"<resume xmlns='{ns.SM}' previd='x' h='0'/>")
        await client.expect(failed("unexpected-request"))
        assert client.session.full == client.jid, "the stream goes on"


@pytest.mark.parametrize("element", [ASK, a(0)])
async def test_nothing_is_acknowledged_before_it_is_enabled(element: str) -> None:
    async with World() as world:
        alice = await world.login("alice")
        await alice.send(element)
        await alice.expect(failed("unexpected-request"))


async def test_who_enables_it_twice_is_sent_away() -> None:
    async with World() as world:
        alice, _ = await managed(world, "alice")
        await alice.send(f"<enable xmlns='{ns.SM}'/>")
        await alice.expect(failed("unexpected-request"))
        await alice.expect_closed("policy-violation")
        assert not alice.app.sessions.by_full


# what the client sends


async def test_stanzas_count_and_nothing_else() -> None:
    async with World() as world:
        alice, _ = await managed(world, "alice")
        await alice.send(ASK)
        await alice.expect(a(0))
        await alice.send(f"<presence/> \n{ASK}{a(0)}<message to='bob@localhost' type='headline'/>")
        await alice.receive_all()
        await alice.send("<iq type='get' id='x'><query xmlns='jabber:iq:roster'/></iq>" + ASK)
        stanzas = await alice.receive_all()
        assert [stanza.tag for stanza in stanzas] == [f"{{{ns.CLIENT}}}iq", f"{SM}a"], (
            "the answer comes first"
        )
        assert stanzas[-1].get("h") == "3"


async def test_what_came_with_enable_counts() -> None:
    async with World() as world:
        alice = await world.login("alice")
        await alice.send(f"<presence/><enable xmlns='{ns.SM}'/><presence/><presence/>" + ASK)
        assert (await alice.receive_all())[-1].get("h") == "2"


async def test_a_refused_stanza_is_handled() -> None:
    async with World() as world:
        alice, _ = await managed(world, "alice")
        await alice.send(chat("nobody@localhost", "x") + ASK)
        answers = await alice.receive_all()
        assert answers[0].get("type") == "error" and answers[-1].get("h") == "1"


async def test_what_is_not_stored_yet_is_not_handled() -> None:
    store = HeldStore()
    async with World(plugins=OFFLINE, store=store) as world:
        alice, _ = await managed(world, "alice")
        alice.write(chat("bob@localhost", "1") + chat("bob@localhost", "2") + "<presence/>" + ASK)
        await turns(world)
        assert state(alice).h == 0, "presence is handled, and not before the messages"
        assert f"{SM}a" not in [one.tag for one in alice._inbox], "what is asked waits"
        await store.let_all_go(world)
        assert (await alice.receive_all())[-1].get("h") == "3"


async def test_who_asks_does_not_wait_for_long() -> None:
    store = HeldStore()
    async with World(plugins=OFFLINE, store=store) as world:
        alice, _ = await managed(world, "alice")
        alice.write("<presence/>" + chat("bob@localhost", "1") + ASK + ASK)
        await turns(world)
        world.clock.seconds += 1.1
        world.app.timers.tick()
        await turns(world)
        assert [one.get("h") for one in alice._inbox if one.tag == f"{SM}a"] == ["1"]
        await store.let_all_go(world)
        await alice.send(ASK)
        assert (await alice.receive_all())[-1].get("h") == "2"


async def test_counters_begin_anew_at_2_to_the_32() -> None:
    async with World() as world:
        alice, id = await managed(world, "alice")
        bob = await world.login("bob")
        now = state(alice)
        now.received = now.sent = now.acked = 2**32 - 2
        await alice.send("<presence/>" * 3 + ASK)
        own = await alice.receive_all()
        assert own[-1].get("h") == "1"
        await alice.send(a(2**32 - 2))
        await alice.send(a(0))
        assert len(now.unacked) == now.sent - 2**32
        await alice.send(a(now.sent - 2**32))
        assert now.unacked == []
        await bob.send(chat(alice.jid, "x"))
        await alice.drop()
        again = await resume(world, alice, id, now.sent - 1 - 2**32)
        assert bodies(await again.receive_all()) == ["x"]


# what it is sent


async def test_the_server_asks_after_five_stanzas() -> None:
    async with World() as world:
        alice, _ = await managed(world, "alice")
        bob = await world.login("bob")
        for number in range(4):
            await bob.send(chat(alice.jid, str(number)))
        assert f"{SM}r" not in [one.tag for one in await alice.receive_all()]
        await bob.send(chat(alice.jid, "5"))
        assert [one.tag for one in await alice.receive_all()] == [f"{{{ns.CLIENT}}}message", f"{SM}r"]
        await bob.send(chat(alice.jid, "6"))
        assert len(await alice.receive_all()) == 1, "it has asked"
        await alice.send(a(5))
        assert len(state(alice).unacked) == 1
        for number in range(4):
            await bob.send(chat(alice.jid, str(number)))
        assert (await alice.receive_all())[-1].tag == f"{SM}r"


async def test_the_server_asks_after_two_seconds() -> None:
    async with World() as world:
        alice, _ = await managed(world, "alice")
        bob = await world.login("bob")
        await bob.send(chat(alice.jid, "x"))
        await world.advance(1)
        assert len(await alice.receive_all()) == 1
        await world.advance(2)
        await alice.expect(ASK)
        await alice.send(a(1))
        await world.advance(120)
        await alice.expect_nothing()


async def test_who_does_not_acknowledge_is_not_there() -> None:
    async with World() as world:
        alice, id = await managed(world, "alice")
        bob = await world.login("bob")
        await bob.send(chat(alice.jid, "x"))
        await world.advance(55)
        assert not alice.closed
        await world.advance(10)
        await alice.expect_closed("connection-timeout")
        again = await resume(world, alice, id)
        assert bodies(await again.receive_all()) == ["x"]


async def test_a_silent_client_may_come_back() -> None:
    async with World(settings={"sessions": {"ping_after": 10, "ping_timeout": 10}}) as world:
        alice, id = await managed(world, "alice")
        await world.advance(30)
        await alice.expect_closed("connection-timeout")
        assert alice.jid in alice.app.sessions.by_full
        await resume(world, alice, id)


async def test_more_than_was_sent_cannot_be_acknowledged() -> None:
    async with World() as world:
        alice, _ = await managed(world, "alice")
        bob = await world.login("bob")
        await bob.send(chat(alice.jid, "x"))
        await alice.send(a(1))
        await alice.send(a(0))
        await alice.receive_all()
        await alice.send(a(3))
        error = await alice.receive()
        assert error[0].tag == f"{{{ns.STREAM_ERRORS}}}undefined-condition"
        found = error.find(f"{SM}handled-count-too-high")
        assert found is not None and found.attrib == {"h": "3", "send-count": "1"}
        await alice.expect_closed()
        assert alice.jid not in alice.app.sessions.by_full


@pytest.mark.parametrize(
    "h", ["h='-1'", "h='x'", "", "h='99999999999999999999'", "h='4294967296'", "h='1.0'"]
)
async def test_an_acknowledgement_has_a_number(h: str) -> None:
    async with World() as world:
        alice, _ = await managed(world, "alice")
        await alice.send(f"<a xmlns='{ns.SM}' {h}/>")
        await alice.expect_closed("bad-format")


# resumption


async def test_a_session_goes_on_where_it_was(world_of_two: Callable[..., Any]) -> None:
    async with World() as world:
        alice, bob, id = await world_of_two(world)
        before = alice.session
        await bob.send(chat(alice.jid, "1"))
        await bob.send(chat("alice@localhost", "2"))
        await alice.send("<presence><show>away</show></presence>")
        await bob.receive_all()
        got = await alice.receive_all()
        assert bodies(got) == ["1", "2"]
        await alice.drop()
        await bob.send(chat("alice@localhost", "3"))
        await bob.send(chat(alice.jid, "4"))
        await bob.send("<presence><status>here</status></presence>")
        assert bob.app.sessions.is_available("alice@localhost")
        again = await ready(world, "alice")
        answer = await ask_to_resume(again, id, 1)
        assert (answer.tag, answer.get("h"), answer.get("previd")) == (f"{SM}resumed", "1", id)
        again.jid = alice.jid
        stanzas = await again.receive_all()
        assert bodies(stanzas) == ["2", "3", "4"], "the first was acknowledged by the resumption"
        assert stanzas[-1].tag == f"{SM}r" and len(stanzas) == 6
        assert again.session is before
        await bob.expect(f"<presence from='{bob.jid}' to='bob@localhost'><status>here</status></presence>")
        await bob.expect_nothing()  # nobody saw alice go or come
        await again.send(chat(bob.jid, "5") + ASK)
        await again.expect(a(2))
        assert bodies(await bob.receive_all()) == ["5"]
        await bob.send(chat("alice@localhost", "6"))
        assert bodies(await again.receive_all()) == ["6"]


@pytest.fixture
def world_of_two() -> Callable[..., Any]:
    async def made(world: World) -> tuple[Client, Client, str]:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        return alice, bob, await enable(alice)

    return made


async def test_what_was_sent_twice_and_acknowledged_late_comes_once() -> None:
    async with World() as world:
        alice, id = await managed(world, "alice")
        bob = await world.login("bob")
        got: list[str] = []
        sent = acked = 0
        for round in range(20):
            for _ in range(round % 4):
                await bob.send(chat("alice@localhost", str(sent)))
                sent += 1
            stanzas = bodies(await alice.receive_all())
            got += stanzas
            acked += len(stanzas)
            await alice.drop()
            await bob.send(chat(alice.jid, str(sent)))
            sent += 1
            alice = await resume(world, alice, id, acked)
        got += bodies(await alice.receive_all())
        assert got == [str(number) for number in range(sent)]


async def test_the_same_bytes_are_kept_and_not_copied() -> None:
    async with World() as world:
        alice, _ = await managed(world, "alice")
        other, _ = await managed(world, "alice")
        bob = await world.login("bob")
        await bob.send(chat("alice@localhost", "x"))
        assert state(alice).unacked[-1] is state(other).unacked[-1]


async def test_the_old_stream_is_replaced() -> None:
    async with World() as world:
        alice, id = await managed(world, "alice")
        bob = await world.login("bob")
        await bob.send(chat(alice.jid, "1"))
        again = await resume(world, alice, id)
        await alice.expect_closed("conflict")
        await bob.send(chat(alice.jid, "2"))
        assert bodies(await again.receive_all()) == ["1", "2"]
        await alice.drop()
        assert not again.session.is_over


async def test_what_is_still_being_stored_is_waited_for() -> None:
    store = HeldStore()
    async with World(plugins=OFFLINE, store=store) as world:
        alice, id = await managed(world, "alice")
        alice.write(chat("bob@localhost", "1") + "<presence/>")
        await turns(world)
        again = await ready_slowly(world)
        alice.transport.close()
        again.write(f"<resume xmlns='{ns.SM}' previd='{id}' h='0'/>")
        await turns(world)
        assert not again._inbox
        await store.let_all_go(world)
        assert (await again.receive()).get("h") == "2"


async def test_what_cannot_be_stored_is_waited_for_two_seconds() -> None:
    store = HeldStore()
    async with World(plugins=OFFLINE, store=store) as world:
        alice, id = await managed(world, "alice")
        alice.write("<presence/>" + chat("bob@localhost", "1"))
        await turns(world)
        again = await ready_slowly(world)
        alice.transport.close()
        again.write(f"<resume xmlns='{ns.SM}' previd='{id}' h='0'/>")
        await turns(world)
        world.clock.seconds += 2.1
        world.app.timers.tick()
        await turns(world)
        assert again._inbox.popleft().get("h") == "1"
        again.write(chat("bob@localhost", "1") + "<presence/>")
        await turns(world)
        await store.let_all_go(world)
        await again.send(ASK)
        assert (await again.receive_all())[-1].get("h") == "3"


async def ready_slowly(world: World) -> Client:
    """The same as `ready` where the server never comes to rest."""
    client = world.connect()
    header = f"<stream:stream xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAM}' to='localhost' version='1.0'>"
    for piece in (header, f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>AGFsaWNlAHNlY3JldA==</auth>", header):
        client.write(piece)
        async for _ in rounds():
            await turns(world)
            if client._inbox:
                break
        client._inbox.clear()
    return client


async def test_a_request_that_waited_when_the_stream_broke_is_sent_again() -> None:
    store = HeldStore()
    async with World(plugins=OFFLINE, store=store) as world:
        alice, id = await managed(world, "alice")
        iq = "<iq type='get' id='x'><query xmlns='jabber:iq:roster'/></iq>"
        alice.write(chat("bob@localhost", "1") + iq)
        await turns(world)
        alice.transport.close()
        await turns(world)
        await store.let_all_go(world)
        again = await ready(world, "alice")
        assert (await ask_to_resume(again, id)).get("h") == "1"


@pytest.mark.parametrize("id", ["bogus", ""])
async def test_an_unknown_session_is_not_resumed(id: str) -> None:
    async with World() as world:
        await managed(world, "alice")
        again = await ready(world, "alice")
        await again.send(f"<resume xmlns='{ns.SM}' previd='{id}' h='0'/>")
        await again.expect(failed("item-not-found" if id else "bad-request"))
        await again.bind("next")
        assert again.jid == "alice@localhost/next", "the client may bind a resource instead"


async def test_nobody_resumes_the_session_of_another_account() -> None:
    async with World() as world:
        alice, id = await managed(world, "alice")
        await alice.drop()
        mallory = await ready(world, "bob")
        await mallory.send(f"<resume xmlns='{ns.SM}' previd='{id}' h='0'/>")
        await mallory.expect(failed("item-not-found"))
        await world.advance(400)
        await mallory.send(f"<resume xmlns='{ns.SM}' previd='{id}' h='0'/>")


async def test_who_resumes_with_too_much_is_sent_away_and_the_session_stays() -> None:
    async with World() as world:
        alice, id = await managed(world, "alice")
        bob = await world.login("bob")
        await bob.send(chat(alice.jid, "1"))
        await alice.drop()
        again = await ready(world, "alice")
        await again.send(f"<resume xmlns='{ns.SM}' previd='{id}' h='2'/>")
        await again.expect_closed("undefined-condition")
        assert bodies(await (await resume(world, alice, id)).receive_all()) == ["1"]


async def test_a_detached_session_ends_with_its_account() -> None:
    async with World() as world:
        alice, id = await managed(world, "alice")
        await alice.drop()
        await world.app.accounts.set_password("alice@localhost", PASSWORD)
        await world.settle()
        assert alice.jid not in world.app.sessions.by_full
        again = await ready(world, "alice")
        await again.send(f"<resume xmlns='{ns.SM}' previd='{id}' h='0'/>")
        await again.expect(failed("item-not-found", "0"))
