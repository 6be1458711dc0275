"""What becomes of what a client had not acknowledged when its session ended (XEP-0198 4)."""

import pytest
from managing import bodies, managed, state

from xmppd import ns
from xmppd.testing import Client, World, refusal

pytestmark = pytest.mark.asyncio

OFFLINE = ("offline",)
DELAY = f"{{{ns.DELAY}}}delay"


def chat(to: str, body: str, more: str = "", type: str = "chat") -> str:
    return f"<message to='{to}' type='{type}' id='{body}'><body>{body}</body>{more}</message>"


async def gone(client: Client) -> None:
    """Its stream breaks, and the time of its session is over."""
    session, app = client.session, client.app
    await client.drop()
    app.binding.end(session)
    await client.world.settle()


async def stored_for(world: World, user: str = "alice") -> list[str]:
    """What the account's next session is given."""
    client = await world.bind(user)
    await client.send("<presence/>")
    got = bodies(await client.receive_all())
    await client.send("</stream:stream>")
    return got


@pytest.mark.parametrize("address", ["alice@localhost", "alice@localhost/r"])
@pytest.mark.parametrize("type", ["chat", "normal"])
async def test_messages_are_kept_in_order_with_their_time(address: str, type: str) -> None:
    async with World(plugins=OFFLINE) as world:
        alice, _ = await managed(world, "alice", "r")
        bob = await world.login("bob")
        await bob.send(chat(address, "1", type=type))
        await world.advance(1)
        await bob.send(chat(address, "2", type=type))
        await alice.receive_all()
        await alice.send(f"<a xmlns='{ns.SM}' h='1'/>")
        await bob.send(chat(address, "3", type=type))
        await alice.drop()
        await bob.send(chat(address, "4", type=type))
        await world.advance(1000)
        assert not alice.app.sessions.of("alice@localhost")
        again = await world.bind("alice")
        await again.send("<presence/>")
        got = [one for one in await again.receive_all() if one.tag == f"{{{ns.CLIENT}}}message"]
        assert bodies(got) == ["2", "3", "4"]
        stamps = [[delay.attrib for delay in one.findall(DELAY)] for one in got]
        assert stamps == [[{"from": "localhost", "stamp": "2023-11-14T22:13:21.000Z"}]] * 3
        await bob.receive_all()
        await bob.expect_nothing()


async def test_it_is_stamped_once_however_often_it_comes_back() -> None:
    async with World(plugins=OFFLINE) as world:
        bob = await world.login("bob")
        await bob.send(chat("alice@localhost", "1"))
        for _ in range(3):
            alice = await world.bind("alice")
            await alice.send(f"<enable xmlns='{ns.SM}' resume='true'/><presence/>")
            await alice.receive_all()
            await world.advance(10)
            await gone(alice)
        alice = await world.bind("alice")
        await alice.send("<presence/>")
        [message] = [one for one in await alice.receive_all() if one.tag == f"{{{ns.CLIENT}}}message"]
        assert [one.get("stamp") for one in message.findall(DELAY)] == ["2023-11-14T22:13:20.000Z"]


async def test_who_was_sent_it_too_is_not_sent_it_again() -> None:
    async with World(plugins=OFFLINE) as world:
        alice, _ = await managed(world, "alice")
        other = await world.login("alice")
        bob = await world.login("bob")
        await bob.send(chat("alice@localhost", "both"))
        await bob.send(chat(alice.jid, "one"))
        assert bodies(await other.receive_all()) == ["both"]
        await gone(alice)
        assert bodies(await other.receive_all()) == ["one"], "it has the other one"


async def test_who_came_later_is_given_it() -> None:
    async with World(plugins=OFFLINE) as world:
        alice, _ = await managed(world, "alice")
        bob = await world.login("bob")
        await bob.send(chat("alice@localhost", "1"))
        await alice.drop()
        other = await world.login("alice")
        await bob.send(chat("alice@localhost", "2"))
        assert bodies(await other.receive_all()) == ["2"]
        world.app.binding.end(alice.session)
        await world.settle()
        assert bodies(await other.receive_all()) == ["1"]


async def test_who_came_in_the_same_turn_is_given_it() -> None:
    async with World(plugins=OFFLINE) as world:
        alice, _ = await managed(world, "alice", "r", node=0)
        other = await world.bind("alice", node=0)
        bob = await world.login("bob", node=0)
        bob.write(chat("alice@localhost", "1"))
        other.write("<presence/>")
        await world.settle()
        assert bodies(await other.receive_all()) == []
        await gone(alice)
        assert bodies(await other.receive_all()) == ["1"]


async def test_of_several_that_had_it_the_last_one_sees_to_it() -> None:
    async with World(plugins=OFFLINE) as world:
        alices = [(await managed(world, "alice"))[0] for _ in range(3)]
        bob = await world.login("bob")
        await bob.send(chat("alice@localhost", "1"))
        for alice in alices:
            await gone(alice)
        assert await stored_for(world) == ["1"]


async def test_a_clean_end_keeps_them_too() -> None:
    async with World(plugins=OFFLINE) as world:
        alice, _ = await managed(world, "alice", "r")
        bob = await world.login("bob")
        for number in range(3):
            await bob.send(chat(alice.jid, str(number)))
        await alice.send(f"<a xmlns='{ns.SM}' h='1'/></stream:stream>")
        assert await stored_for(world) == ["1", "2"]


async def test_without_resumption_they_are_kept_as_well() -> None:
    async with World(plugins=OFFLINE) as world:
        alice = await world.login("alice")
        await alice.send(f"<enable xmlns='{ns.SM}'/>")
        bob = await world.login("bob")
        await bob.send(chat("alice@localhost", "1"))
        await alice.drop()
        assert await stored_for(world) == ["1"]


async def test_who_replaces_it_is_given_them() -> None:
    async with World(plugins=OFFLINE) as world:
        await managed(world, "alice", "r")
        bob = await world.login("bob")
        await bob.send(chat("alice@localhost/r", "1"))
        again = await world.bind("alice", "r")
        await again.expect_nothing()
        await again.send("<presence/>")
        assert bodies(await again.receive_all()) == ["1"]
        await bob.expect_nothing()


async def test_where_nobody_keeps_messages_their_senders_are_told() -> None:
    async with World() as world:
        alice, _ = await managed(world, "alice", "r")
        bob = await world.login("bob")
        await bob.send(chat("alice@localhost/r", "1"))
        await bob.send(chat("alice@localhost", "2", type="error"))
        await bob.send(chat("alice@localhost", "3", type="headline"))
        await bob.send("<presence to='alice@localhost/r'/>")
        await gone(alice)
        answers = [one for one in await bob.receive_all() if one.get("type") == "error"]
        assert [(one.get("id"), refusal(one)) for one in answers] == [("1", "cancel service-unavailable")]


async def test_what_may_not_be_stored_is_refused_and_typing_dropped() -> None:
    async with World(plugins=OFFLINE) as world:
        alice, _ = await managed(world, "alice", "r")
        bob = await world.login("bob")
        await bob.send(chat("alice@localhost", "1", f"<no-store xmlns='{ns.HINTS}'/>"))
        typing = f"<composing xmlns='{ns.CHAT_STATES}'/>"
        await bob.send(f"<message to='alice@localhost' type='chat'>{typing}</message>")
        await gone(alice)
        answers = await bob.receive_all()
        assert [(one.get("id"), refusal(one)) for one in answers] == [("1", "cancel service-unavailable")]
        assert await stored_for(world) == []


@pytest.mark.parametrize("type", ["get", "set"])
async def test_who_asked_is_told_that_nobody_answers(type: str) -> None:
    async with World() as world:
        alice, _ = await managed(world, "alice")
        bob = await world.login("bob")
        await world.befriend(alice, bob)
        await alice.send(f"<a xmlns='{ns.SM}' h='{state(alice).sent}'/>")
        await bob.send(f"<iq type='{type}' id='q' to='{alice.jid}'><x xmlns='urn:x'/></iq>")
        await bob.send(f"<iq type='result' id='r' to='{alice.jid}'/>")
        await bob.send(f"<iq type='error' id='e' to='{alice.jid}'/>")
        await bob.receive_all()
        await gone(alice)
        answers = [one for one in await bob.receive_all() if one.tag == f"{{{ns.CLIENT}}}iq"]
        assert [(one.get("id"), one.get("from"), refusal(one)) for one in answers] == [
            ("q", alice.jid, "cancel service-unavailable")
        ]


@pytest.mark.parametrize("answer", ["result", "error"])
async def test_what_was_answered_and_not_acknowledged_has_one_answer(answer: str) -> None:
    async with World() as world:
        alice, _ = await managed(world, "alice")
        bob = await world.login("bob")
        await world.befriend(alice, bob)
        await alice.send(f"<a xmlns='{ns.SM}' h='{state(alice).sent}'/>")
        for id in ("p", "q"):
            await bob.send(f"<iq type='get' id='{id}' to='{alice.jid}'><x xmlns='urn:x'/></iq>")
        await alice.send(f"<iq type='{answer}' id='p' to='{bob.jid}'/>")
        await alice.send(f"<iq type='{answer}' id='never asked' to='{bob.jid}'/>")
        await bob.receive_all()
        await gone(alice)
        answers = [one for one in await bob.receive_all() if one.tag == f"{{{ns.CLIENT}}}iq"]
        assert [one.get("id") for one in answers] == ["q"]


async def test_questions_of_the_server_are_nobodys() -> None:
    async with World(settings={"sessions": {"ping_after": 5, "ping_timeout": 5}}) as world:
        await managed(world, "alice")
        await world.advance(400)
        assert not world.app.sessions.of("alice@localhost") and world.app.router.errors == 0


async def test_a_shutdown_keeps_what_is_not_acknowledged() -> None:
    async with World(plugins=OFFLINE) as world:
        alice, _ = await managed(world, "alice")
        other, _ = await managed(world, "carol")
        bob = await world.login("bob")
        await bob.send(chat("alice@localhost", "1"))
        await bob.send(chat("carol@localhost", "2"))
        await alice.drop()
        for app in world.apps:
            await app.service.shut_down()
        await world.settle()
        assert not any(app.sessions.by_full for app in world.apps) and other.closed is not None
        for app in world.apps:
            app.service.draining = False
        assert await stored_for(world) == ["1"] and await stored_for(world, "carol") == ["2"]


async def test_a_namespace_declared_on_the_message_survives() -> None:
    async with World(plugins=OFFLINE) as world:
        alice, _ = await managed(world, "alice", "r")
        bob = await world.login("bob")
        await bob.send(
            "<message to='alice@localhost/r' type='chat' xmlns:x='urn:x' x:y='1'><body/><x:z/></message>"
        )
        await gone(alice)
        again = await world.bind("alice")
        await again.send("<presence/>")
        [message] = [one for one in await again.receive_all() if one.tag == f"{{{ns.CLIENT}}}message"]
        assert message.get("{urn:x}y") == "1" and message.find("{urn:x}z") is not None
