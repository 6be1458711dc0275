"""Clients that nobody looks at (XEP-0352)."""

from xml.etree.ElementTree import Element

import pytest
from managing import ASK, bodies, enable, managed, resume, state

from xmppd import ns
from xmppd.core import quiet
from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio

INACTIVE = f"<inactive xmlns='{ns.CSI}'/>"
ACTIVE = f"<active xmlns='{ns.CSI}'/>"
TYPING = f"<composing xmlns='{ns.CHAT_STATES}'/>"
PAUSED = f"<paused xmlns='{ns.CHAT_STATES}'/><thread>x</thread><no-store xmlns='{ns.HINTS}'/>"


def chat(to: str, inside: str) -> str:
    return f"<message to='{to}' type='chat'>{inside}</message>"


async def friends(world: World) -> tuple[Client, Client, Client]:
    """Alice, who is inactive, and two friends on her node."""
    alice = await world.login("alice", node=0)
    bob, carol = await world.login("bob", node=0), await world.login("carol", node=0)
    for other in (bob, carol):
        await world.befriend(alice, other)
    await alice.send(INACTIVE)
    return alice, bob, carol


def shown(stanzas: list[Element]) -> list[str]:
    """What was received, in short: the user, and what he shows or says."""
    found = []
    for one in stanzas:
        user = one.get("from", "").partition("@")[0]
        texts = [child.text or child.tag.rpartition("}")[2] for child in one]
        found.append(" ".join([user, *texts[:1]]))
    return found


async def test_it_is_offered_with_the_resource() -> None:
    async with World() as world:
        client = world.connect()
        await client.open()
        await client.authenticate("alice")
        assert (await client.open()).find(f"{{{ns.CSI}}}csi") is not None


async def test_presence_and_chat_states_wait_and_the_last_of_each_contact_comes() -> None:
    async with World() as world:
        alice, bob, carol = await friends(world)
        for number in range(3):
            for friend in (bob, carol):
                await friend.send(f"<presence><status>{number}</status></presence>")
                await friend.send(chat("alice@localhost", TYPING))
        await bob.send(chat("alice@localhost", PAUSED))
        await alice.expect_nothing()
        await alice.send(ACTIVE)
        assert shown(await alice.receive_all()) == ["bob 2", "carol 2", "carol composing", "bob paused"]
        await bob.send("<presence><status>now</status></presence>")
        assert shown(await alice.receive_all()) == ["bob now"]


async def carbons(world: World) -> tuple[Client, Client, Client]:
    """Alice, who is inactive and wants copies, another device of hers on another node, if there is one, and
    bob.
    """
    alice, desk = await world.login("alice", node=0), await world.login("alice", priority=5, node=-1)
    bob = await world.login("bob", node=0)
    await alice.ask("set", f"<enable xmlns='{ns.CARBONS}'/>")
    await alice.send(INACTIVE)
    for client in (alice, desk, bob):
        await client.receive_all()
    return alice, desk, bob


def copied(stanzas: list[Element]) -> list[str]:
    """What copies were received, in short: the way, and what is said by whom to whom."""
    found = []
    for one in stanzas:
        [message] = one.iterfind(f"*/{{{ns.FORWARD}}}forwarded/{{{ns.CLIENT}}}message")
        names = (message.get(name, "").partition("@")[0] for name in ("from", "to"))
        said = message[0].text or message[0].tag.rpartition("}")[2]
        found.append(" ".join([one[0].tag.rpartition("}")[2], *names, said]))
    return found


async def test_copies_of_chat_states_wait_as_these_would() -> None:
    async with World(plugins=("carbons",)) as world:
        alice, desk, bob = await carbons(world)
        for state in (TYPING, PAUSED):
            await bob.send(chat(desk.jid, state))
            await desk.send(chat("bob@localhost", state))
            await desk.send(chat("carol@localhost", state))
            await bob.send(chat(alice.bare, state))
        await alice.expect_nothing()
        await alice.send(ACTIVE)
        waited = ["sent alice bob paused", "sent alice carol paused", "received bob alice paused"]
        assert sorted(copied(await alice.receive_all())) == sorted(waited)


@pytest.mark.parametrize(
    "inside", ["<body>hello</body>", f"<body>x</body>{TYPING}", f"<x xmlns='urn:x'/>{TYPING}"]
)
async def test_copies_that_matter_come_at_once_behind_those_that_waited(inside: str) -> None:
    async with World(plugins=("carbons",)) as world:
        alice, desk, bob = await carbons(world)
        await bob.send(chat(desk.jid, TYPING))
        await bob.send(chat(desk.jid, inside))
        assert [way.split()[:2] for way in copied(await alice.receive_all())] == [["received", "bob"]] * 2


async def test_what_looks_like_a_copy_and_is_none_does_not_wait() -> None:
    async with World(plugins=("carbons",)) as world:
        alice, _, bob = await carbons(world)
        inner = (
            f"<message xmlns='jabber:client' from='carol@localhost/x' to='alice@localhost'>{TYPING}</message>"
        )
        forged = (
            f"<received xmlns='{ns.CARBONS}'><forwarded xmlns='{ns.FORWARD}'>{inner}</forwarded></received>"
        )
        await bob.send(chat(alice.jid, forged))
        assert [one.get("from") for one in await alice.receive_all()] == [bob.jid]


@pytest.mark.parametrize(
    "what",
    [
        "<message to='{to}' type='chat'><body>hello</body></message>",
        "<message to='{to}' type='headline'><body>news</body></message>",
        "<message to='{to}' type='chat'><received xmlns='urn:xmpp:receipts' id='1'/></message>",
        "<message to='{to}' type='error'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>",
        "<iq to='{to}' type='get' id='x'><query xmlns='urn:x'/></iq>",
        "<presence to='{to}' type='error'/>",
        f"<presence to='{{to}}'><x xmlns='{ns.MUC}#user'><status code='110'/></x></presence>",
    ],
)
async def test_what_matters_comes_at_once_behind_what_waited(what: str) -> None:
    async with World() as world:
        alice, bob, carol = await friends(world)
        await carol.send("<presence><status>away</status></presence>")
        await alice.expect_nothing()
        await bob.send(what.format(to=alice.jid))
        assert [one.split()[0] for one in shown(await alice.receive_all())] == ["carol", "bob"]
        await carol.send("<presence><status>here</status></presence>")
        await alice.expect_nothing()  # it is inactive still


async def test_a_subscription_does_not_wait() -> None:
    async with World(accounts=("alice", "bob")) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send(INACTIVE)
        await bob.send("<presence type='subscribe' to='alice@localhost'/>")
        await alice.expect("<presence type='subscribe' from='bob@localhost' to='alice@localhost'/>")


async def test_an_answer_comes_behind_what_waited() -> None:
    async with World() as world:
        alice, bob, _ = await friends(world)
        await bob.send("<presence><status>away</status></presence>")
        await alice.send(f"{ACTIVE}<iq type='get' id='x'><query xmlns='{ns.ROSTER}'/></iq>")
        assert [one.tag.rpartition("}")[2] for one in await alice.receive_all()] == ["presence", "iq"]


async def test_its_own_presence_is_shown_to_it_at_once() -> None:
    async with World() as world:
        alice, _, _ = await friends(world)
        await alice.send("<presence><show>xa</show></presence>")
        assert shown(await alice.receive_all()) == ["alice xa"]


async def test_who_went_is_seen_to_have_gone() -> None:
    async with World() as world:
        alice, bob, _ = await friends(world)
        await bob.send("<presence><status>away</status></presence>")
        await bob.send("</stream:stream>")
        await alice.send(ACTIVE)
        assert [one.get("type") for one in await alice.receive_all()] == ["unavailable"]


async def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World() as world:
        alice, bob, carol = await friends(world)
        monkeypatch.setattr(quiet, "MOST", 2)
        await bob.send("<presence><status>1</status></presence>")
        await carol.send("<presence><status>2</status></presence>")
        await alice.expect_nothing()
        await bob.send(chat("alice@localhost", TYPING))
        assert shown(await alice.receive_all()) == ["bob 1", "carol 2", "bob composing"]
        monkeypatch.setattr(quiet, "BYTES", 1000)
        for _ in range(5):
            await bob.send(f"<presence><status>{'x' * 300}</status></presence>")
        await alice.expect_nothing()
        await carol.send(f"<presence><status>{'x' * 700}</status></presence>")
        assert len(await alice.receive_all()) == 2


async def test_nobody_waits_where_the_operator_says_so() -> None:
    async with World(settings={"sessions": {"client_state": False}}) as world:
        alice, bob, _ = await friends(world)
        await bob.send("<presence><status>now</status></presence>")
        assert shown(await alice.receive_all()) == ["bob now"]


async def test_saying_it_twice_is_saying_it_once() -> None:
    async with World() as world:
        alice, bob, _ = await friends(world)
        await alice.send(INACTIVE)
        await bob.send("<presence><status>1</status></presence>")
        await alice.send(INACTIVE)
        await alice.send(ACTIVE + ACTIVE)
        assert shown(await alice.receive_all()) == ["bob 1"]


@pytest.mark.parametrize("is_first", [True, False])
async def test_what_waits_is_not_counted_before_it_is_sent(is_first: bool) -> None:
    async with World() as world:
        alice, bob, carol = await friends(world)
        if is_first:
            await bob.send("<presence><status>0</status></presence>")
        await enable(alice)
        await alice.send(INACTIVE)
        for number in range(3):
            await bob.send(f"<presence><status>{number}</status></presence>")
        assert state(alice).sent == 0
        await carol.send(chat("alice@localhost", "<body>x</body>"))
        assert state(alice).sent == 2 and len(await alice.receive_all()) == 2
        await alice.send(f"<a xmlns='{ns.SM}' h='2'/>{ASK}")
        assert (await alice.receive()).get("h") == "0" and state(alice).unacked == []


async def test_who_resumes_is_active_and_has_missed_nothing() -> None:
    async with World() as world:
        alice, bob, carol = await friends(world)
        id = await enable(alice)
        await bob.send("<presence><status>1</status></presence>")
        await alice.drop()
        await bob.send("<presence><status>2</status></presence>")
        await carol.send(chat("alice@localhost", "<body>x</body>"))
        await carol.send("<presence><status>3</status></presence>")
        again = await resume(world, alice, id, node=0)
        stanzas = await again.receive_all()
        assert shown(stanzas)[:3] == ["bob 2", "carol x", "carol 3"] and bodies(stanzas) == ["", "x"][1:]
        await bob.send("<presence><status>4</status></presence>")
        assert shown(await again.receive_all())[-1] == "bob 4"


async def test_what_nobody_acknowledged_is_left_over_all_the_same() -> None:
    async with World(plugins=("offline",)) as world:
        alice, _ = await managed(world, "alice")
        bob = await world.login("bob")
        await alice.send(INACTIVE)
        await bob.send(chat("alice@localhost", "<body>x</body>"))
        await bob.send("<presence to='alice@localhost'/>")
        await alice.send("</stream:stream>")
        again = await world.bind("alice")
        await again.send("<presence/>")
        assert bodies(await again.receive_all()) == ["x"]
