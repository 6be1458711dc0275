"""Message carbons (XEP-0280), rule by rule. Devices are on one node or on several, as the tests are run."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from xml.etree.ElementTree import Element

import pytest
from managing import enable, resume
from sasl2 import B, opened, plain, request, tagged

from xmppd import ns
from xmppd.core.carbons import EXCHANGED
from xmppd.testing import Client, World, refusal

pytestmark = pytest.mark.asyncio

MESSAGE = f"{{{ns.CLIENT}}}message"
CARBONS = f"{{{ns.CARBONS}}}"
DELAY = f"{{{ns.DELAY}}}delay"
FORWARDED = f"{{{ns.FORWARD}}}forwarded"
ENABLE = f"<enable xmlns='{ns.CARBONS}'/>"
DISABLE = f"<disable xmlns='{ns.CARBONS}'/>"
PRIVATE = f"<private xmlns='{ns.CARBONS}'/>"
NO_COPY = f"<no-copy xmlns='{ns.HINTS}'/>"
NO_STORE = f"<no-store xmlns='{ns.HINTS}'/>"
TYPING = f"<composing xmlns='{ns.CHAT_STATES}'/>"
BODY = "<body>hi</body>"

ALICE, BOB = "alice@localhost", "bob@localhost"


def world_of(*plugins: str, nodes: int | None = None) -> World:
    return World(plugins=("carbons", *plugins), nodes=nodes)


async def device(
    world: World, name: str, resource: str, priority: int = 0, node: int | None = None
) -> Client:
    """An available device that wants copies."""
    client = await world.login(name, resource, priority, node=node)
    await client.ask("set", ENABLE)
    return client


async def devices(world: World) -> tuple[Client, Client, Client, Client]:
    """Two of alice's and two of bob's, which have seen all that was said at first."""
    clients = (
        await device(world, "alice", "one"),
        await device(world, "alice", "two"),
        await device(world, "bob", "one", 5),
        await device(world, "bob", "two", 1),
    )
    for client in clients:
        await client.receive_all()
    return clients


def message(to: str, content: str = BODY, kind: str = "chat", id: str = "m1") -> str:
    shown = f" type='{kind}'" if kind else ""
    return f"<message{shown} to='{to}' id='{id}'>{content}</message>"


def way(tree: Element) -> str:
    """How a message came: as a copy, by the name of what is around it, or itself, by its id or type."""
    for name in ("sent", "received"):
        around = tree.find(CARBONS + name)
        if around is not None and tree.get("from", "").count("/") == 0:
            [forwarded] = around
            assert forwarded.tag == FORWARDED
            [delay, inner] = forwarded
            assert delay.tag == DELAY and delay.get("from") == "localhost"
            assert inner.tag == MESSAGE
            assert inner.get("type") == tree.get("type")
            return f"{name} {inner.get('type') if inner.get('type') == 'error' else inner.get('id')}"
    return "error" if tree.get("type") == "error" else str(tree.get("id"))


async def got(*clients: Client) -> list[list[str]]:
    """How the messages came that each of them received, in order."""
    return [[way(tree) for tree in await client.receive_all() if tree.tag == MESSAGE] for client in clients]


# to enable and disable


async def test_it_is_found_by_discovery() -> None:
    async with world_of("disco") as world:
        alice = await world.login("alice")
        for address in ("localhost", ALICE):
            answer = await alice.ask("get", f"<query xmlns='{ns.DISCO_INFO}'/>", address)
            features = {feature.get("var") for feature in answer.iter(f"{{{ns.DISCO_INFO}}}feature")}
            assert ns.CARBONS in features
            assert (ns.CARBONS_RULES in features) == (address == "localhost")


async def test_both_may_be_asked_for_any_number_of_times() -> None:
    async with world_of() as world:
        one, two = await world.login("alice", "one"), await world.login("alice", "two")
        bob = await world.login("bob")
        for name, wants in (("enable", True), ("enable", True), ("disable", False), ("disable", False)):
            await one.receive_all()
            await one.send(f"<iq type='set' id='i'><{name} xmlns='{ns.CARBONS}'/></iq>")
            await one.expect(f"<iq type='result' id='i' to='{one.jid}'/>")
            await two.send(message(bob.jid))
            assert await got(one) == [["sent m1"] if wants else []]


async def test_it_is_nobody_elses_to_ask_for() -> None:
    async with world_of() as world:
        alice = await world.login("alice")
        await world.login("bob")
        for payload in (ENABLE, DISABLE):
            assert refusal(await alice.ask("set", payload, BOB)) == "cancel not-allowed"
            assert (await alice.ask("set", payload, ALICE)).get("type") == "result"


async def test_who_did_not_ask_gets_no_copies() -> None:
    async with world_of() as world:
        one, two = await world.login("alice", "one"), await world.login("alice", "two", -1)
        bob = await world.login("bob")
        await two.receive_all()
        await one.send(message(bob.jid))
        await bob.send(message(ALICE))
        assert await got(one, two, bob) == [["m1"], [], ["m1"]]


async def test_who_has_ended_is_not_missed() -> None:
    async with world_of() as world:
        one, two, bob, _ = await devices(world)
        await two.drop()
        await one.send(message(bob.jid))
        assert (await got(one, bob)) == [[], ["m1"]]
        live = world.apps[0].sessions.accounts[ALICE]
        assert (live.is_copied, live.is_copied_elsewhere, one.session.has_copies) == (False, False, False)


async def test_a_session_may_begin_with_copies() -> None:
    async with world_of() as world:
        one, bob = await world.login("alice", "one"), await world.login("bob")
        client = await opened(world)
        await client.send(request("PLAIN", plain("alice"), tagged("Two", ENABLE)))
        success = await client.receive()
        assert success.find(f"{B}bound") is not None
        await client.receive_all()
        await one.send(message(bob.jid))
        assert await got(one, client) == [[], ["sent m1"]]


async def test_it_is_offered_with_the_resource() -> None:
    async with world_of() as world:
        features = await world.connect().open()
        assert ns.CARBONS in [one.get("var") for one in features.iter(f"{B}feature")]


# what is copied to whom


async def test_a_copy_is_as_it_is_to_be() -> None:
    async with world_of() as world:
        one, two, bob, other = await devices(world)
        await world.advance(75)
        await one.send(message(bob.jid, BODY + "<thread>t</thread>"))
        at = datetime.fromtimestamp(world.clock.now(), UTC)
        stamp = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        inner = (
            f"<message xmlns='{ns.CLIENT}' from='{one.jid}' to='{bob.jid}' type='chat' id='m1'>"
            f"{BODY}<thread>t</thread></message>"
        )
        for client, name in ((two, "sent"), (other, "received")):
            await client.expect(
                f"<message from='{client.bare}' to='{client.jid}' type='chat'><{name} xmlns='{ns.CARBONS}'>"
                f"<forwarded xmlns='{ns.FORWARD}'>"
                f"<delay xmlns='{ns.DELAY}' from='localhost' stamp='{stamp}'/>"
                f"{inner}</forwarded></{name}></message>"
            )
        for client in (one, two, other):
            await client.expect_nothing()


async def test_to_a_full_jid() -> None:
    async with world_of() as world:
        one, two, bob, other = await devices(world)
        await one.send(message(other.jid))
        assert await got(one, two, bob, other) == [[], ["sent m1"], ["received m1"], ["m1"]]


async def test_to_an_account_it_is_for_the_highest_priority_and_copied_to_the_rest() -> None:
    async with world_of() as world:
        one, two, bob, other = await devices(world)
        negative = await device(world, "bob", "negative", -1)
        bound = await world.bind("bob", "bound")
        await bound.ask("set", ENABLE)
        equal = await device(world, "bob", "equal", 5)
        for client in (bob, other, negative, bound, equal):
            await client.receive_all()
        await one.send(message(BOB))
        assert await got(one, two, bob, equal) == [[], ["sent m1"], ["m1"], ["m1"]]
        assert await got(other, negative, bound) == [["received m1"]] * 3


async def test_to_a_resource_that_is_gone_it_is_as_to_the_account() -> None:
    async with world_of() as world:
        one, two, bob, other = await devices(world)
        await one.send(message(f"{BOB}/ghost"))
        assert await got(one, two, bob, other) == [[], ["sent m1"], ["m1"], ["received m1"]]


async def test_what_is_stored_is_copied_to_negative_priorities_alone() -> None:
    async with world_of("offline") as world:
        one, two = await device(world, "alice", "one"), await device(world, "alice", "two")
        negative = await device(world, "bob", "negative", -1)
        bound = await world.bind("bob", "bound")
        await bound.ask("set", ENABLE)
        for client in (one, two, negative):
            await client.receive_all()
        await one.send(message(BOB))
        assert await got(one, two, negative, bound) == [[], ["sent m1"], ["received m1"], []]
        await bound.send("<presence/>")
        assert await got(bound, negative) == [["m1"], []]


async def test_to_who_is_absent() -> None:
    async with world_of("offline") as world:
        one, two = await device(world, "alice", "one"), await device(world, "alice", "two")
        await one.receive_all()
        await one.send(message(BOB))
        assert await got(one, two) == [[], ["sent m1"]]


async def test_without_a_device_of_the_sender_that_wants_copies() -> None:
    async with world_of() as world:
        alice = await world.login("alice")
        bob, other = await device(world, "bob", "one", 5), await device(world, "bob", "two", 1)
        await bob.receive_all()
        await alice.send(message(BOB))
        assert await got(alice, bob, other) == [[], ["m1"], ["received m1"]]


@pytest.mark.parametrize("to", ["", ALICE, f"{ALICE}/two"])
async def test_to_oneself_whoever_is_not_given_it_has_one_copy(to: str) -> None:
    async with world_of() as world:
        one, two = await device(world, "alice", "one"), await device(world, "alice", "two", 3)
        three = await device(world, "alice", "three", -1)
        for client in (one, two):
            await client.receive_all()
        await one.send(message(to, id="m1"))
        assert await got(one, two, three) == [[], ["m1"], ["sent m1"]]


async def test_the_order_of_a_sender_holds() -> None:
    async with world_of() as world:
        one, two, bob, other = await devices(world)
        to = (bob.jid, BOB, other.jid)
        await one.send("".join(message(to[number % 3], id=f"m{number}") for number in range(60)))
        assert await got(two) == [[f"sent m{number}" for number in range(60)]]
        for client in (bob, other):
            [found] = await got(client)
            assert sorted(name.split()[-1] for name in found) == sorted(f"m{number}" for number in range(60))
            for kind in ("m", "received"):
                numbers = [int(name.split("m")[-1]) for name in found if name.startswith(kind)]
                assert numbers == sorted(numbers)


# what is eligible

MUC_USER = f"<x xmlns='{ns.MUC_USER}'/>"
INVITATION = f"<x xmlns='{ns.MUC_USER}'><invite from='carol@localhost'/></x>"
DIRECT = f"<x xmlns='{ns.CONFERENCE}' jid='room@localhost'/>"
RECEIPT = f"<received xmlns='{ns.RECEIPTS}' id='x'/>"
MARKER = f"<displayed xmlns='{ns.CHAT_MARKERS}' id='x'/>"
HIDDEN = f"<private xmlns='{ns.CARBONS.replace('carbons', '&#99;arbons')}'/>"

ELIGIBLE = [
    ("chat", BODY, True),
    ("chat", "<other xmlns='urn:x'/>", True),
    ("chat", TYPING, True),
    ("chat", BODY + NO_STORE, True),
    ("chat", BODY + PRIVATE + NO_COPY, False),
    ("chat", BODY + PRIVATE, False),
    ("chat", BODY + HIDDEN, False),
    ("chat", BODY + NO_COPY, False),
    ("chat", f"<body>{ns.HINTS} {ns.CARBONS}</body>", True),
    ("normal", BODY, True),
    ("", BODY, True),
    ("nonsense", BODY, True),
    ("normal", "<other xmlns='urn:x'/>", False),
    ("normal", BODY + PRIVATE, False),
    ("normal", RECEIPT, True),
    ("normal", MARKER, True),
    ("normal", TYPING, True),
    ("normal", DIRECT, True),
    ("normal", INVITATION, True),
    ("groupchat", BODY, False),
    ("groupchat", BODY + INVITATION, False),
    ("headline", BODY, False),
    ("headline", RECEIPT, True),
]


@pytest.mark.parametrize(("kind", "content", "is_copied"), ELIGIBLE)
async def test_what_is_eligible(kind: str, content: str, is_copied: bool) -> None:
    async with world_of() as world:
        one, two, bob, other = await devices(world)
        await one.send(message(bob.jid, content, kind))
        copies = [["sent m1"], ["received m1"]] if is_copied else [[], []]
        assert await got(one, two, other, bob) == [[], *copies, ["m1"]]


@pytest.mark.parametrize("kind", ["chat", "normal"])
async def test_what_somebody_in_a_room_says_in_private_is_copied_where_it_is_sent(kind: str) -> None:
    async with world_of() as world:
        one, two, bob, other = await devices(world)
        await one.send(message(bob.jid, BODY + MUC_USER, kind))
        assert await got(one, two, bob, other) == [[], ["sent m1"], ["m1"], []]


ROOMS = """
from xmppd.plugin import Plugin, StanzaError, service


class Rooms(Plugin):
    @service("rooms")
    async def take(self, origin, stanza, to) -> None:
        if stanza.kind == "message":
            raise StanzaError("item-not-found")
"""


@pytest.mark.parametrize("is_refused", [False, True])
@pytest.mark.parametrize("nodes", [1, 2])
async def test_what_is_said_in_private_in_a_room_is_copied_to_who_shares_the_nick(
    tmp_path: Path, nodes: int, is_refused: bool
) -> None:
    (tmp_path / "rooms.py").write_text(ROOMS if is_refused else ROOMS.replace("raise", "return  #"))
    async with World(plugins=("carbons", "rooms"), plugin_folders=(tmp_path,), nodes=nodes) as world:
        one, shared, far, other, absent = [
            await device(world, "alice", name, node=node % nodes)
            for name, node in (("one", 0), ("shared", 0), ("far", 1), ("other", 1), ("absent", 1))
        ]
        for client, nick in ((one, "al"), (shared, "al"), (far, "al"), (other, "ally")):
            await client.send(f"<presence to='room@rooms.localhost/{nick}'/>")
        await other.send("<presence to='elsewhere@rooms.localhost/al'/>")
        await got(one, shared, far, other, absent)
        await one.send(message("room@rooms.localhost/bob", BODY + MUC_USER))
        wanted = ["sent m1", *["received error"] * is_refused]
        assert await got(one, shared, far) == [["error"] * is_refused, wanted, wanted]
        assert await got(other, absent) == [[], []]
        await one.send(message("room@rooms.localhost", INVITATION, "", "m2"))
        for found in await got(shared, far, other, absent):
            assert found[0] == "sent m2"


async def test_a_message_for_another_host_is_copied_though_nobody_is_there() -> None:
    async with world_of() as world:
        one, two, _, _ = await devices(world)
        await one.send(message("carol@elsewhere.example"))
        assert await got(one, two) == [["error"], ["sent m1", "received error"]]
        await one.send(message("@@"))
        assert await got(one, two) == [["error"], []]


# errors


@pytest.mark.parametrize("content", [BODY, PRIVATE])
async def test_an_error_is_copied_if_the_message_was_that_it_answers(content: str) -> None:
    async with world_of() as world:
        one, two, bob, other = await devices(world)
        await one.send(message(bob.jid, content))
        await got(one, two, bob, other)
        error = "<error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
        await bob.send(message(one.jid, error + PRIVATE, "error"))
        copies = [["received error"], ["sent error"]] if content == BODY else [[], []]
        assert await got(one, bob, two, other) == [["error"], [], *copies]
        await bob.send(message(one.jid, error, "error", "another"))
        assert await got(one, bob, two, other) == [["error"], [], [], []]


async def test_a_refusal_of_this_server_is_copied_behind_the_message() -> None:
    async with world_of() as world:
        one, two = await device(world, "alice", "one"), await device(world, "alice", "two")
        await one.receive_all()
        await one.send(message(BOB))
        assert await got(one, two) == [["error"], ["sent m1", "received error"]]
        await one.send(message(BOB, PRIVATE, id="m2"))
        assert await got(one, two) == [["error"], []]


async def test_the_errors_that_are_known_are_bounded() -> None:
    async with world_of() as world:
        one, _, bob, _ = await devices(world)
        await one.send("".join(message(bob.jid, id=f"m{number}") for number in range(2 * EXCHANGED)))
        await one.receive_all()
        known = one.session.live.exchanged
        assert known is not None
        assert [key[2] for key in known] == [f"m{number}" for number in range(EXCHANGED, 2 * EXCHANGED)]


async def test_an_error_that_answers_a_copy_goes_to_nobody() -> None:
    async with world_of() as world:
        one, two, bob, other = await devices(world)
        await one.send(message(bob.jid))
        await got(one, two, bob, other)
        error = "<error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
        await two.send(f"<message type='error' to='{ALICE}'>{error}</message>")
        await other.send(f"<message type='error' to='{BOB}' id='m1'>{error}</message>")
        assert await got(one, two, bob, other) == [[], [], [], []]


# what is forged


@pytest.mark.parametrize("name", ["sent", "received"])
async def test_a_forged_copy_says_who_wrote_it_and_is_not_copied(name: str) -> None:
    async with world_of() as world:
        one, two, bob, other = await devices(world)
        inner = (
            f"<message xmlns='{ns.CLIENT}' from='carol@localhost/x' to='{BOB}' type='chat'>{BODY}</message>"
        )
        forged = f"<{name} xmlns='{ns.CARBONS}'><forwarded xmlns='{ns.FORWARD}'>{inner}</forwarded></{name}>"
        await one.send(f"<message from='{BOB}' to='{bob.jid}' type='chat' id='f'>{forged}</message>")
        await bob.expect(f"<message from='{one.jid}' to='{bob.jid}' type='chat' id='f'>{forged}</message>")
        await one.send(f"<message from='{ALICE}' to='{two.jid}' type='chat' id='f'>{forged}</message>")
        await two.expect(f"<message from='{one.jid}' to='{two.jid}' type='chat' id='f'>{forged}</message>")
        assert await got(one, two, bob, other) == [[], [], [], []]


# several nodes


@pytest.mark.parametrize(("one", "two", "bob", "other"), [*product((0, 1), (0, 1), (0, 1), (0, 1))])
@pytest.mark.parametrize("to", [BOB, f"{BOB}/one", f"{BOB}/two"])
async def test_wherever_they_are(to: str, one: int, two: int, bob: int, other: int) -> None:
    async with world_of(nodes=2) as world:
        sender, second = (
            await device(world, "alice", "one", node=one),
            await device(world, "alice", "two", node=two),
        )
        top = await device(world, "bob", "one", 5, node=bob)
        low = await device(world, "bob", "two", 1, node=other)
        for client in (sender, second, top, low):
            await client.receive_all()
        await sender.send(message(to) + message(to, id="m2"))
        itself, copied = ["m1", "m2"], ["received m1", "received m2"]
        expected = [copied, itself] if to.endswith("two") else [itself, copied]
        assert await got(sender, second, top, low) == [[], ["sent m1", "sent m2"], *expected]


async def test_three_nodes_and_an_error_from_another_one() -> None:
    async with world_of(nodes=3) as world:
        one, two = await device(world, "alice", "one", node=0), await device(world, "alice", "two", node=1)
        bob, other = (
            await device(world, "bob", "one", 5, node=2),
            await device(world, "bob", "two", -1, node=1),
        )
        for client in (one, bob):
            await client.receive_all()
        await one.send(message(BOB))
        assert await got(one, two, bob, other) == [[], ["sent m1"], ["m1"], ["received m1"]]
        error = "<error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
        await bob.send(message(one.jid, error, "error"))
        assert await got(one, two, bob, other) == [["error"], ["received error"], [], ["sent error"]]


async def test_a_node_that_comes_later_is_told_who_wants_copies() -> None:
    async with world_of(nodes=2) as world:
        for node in (0, 1):
            mesh = world.cluster(node).mesh
            mesh.give_up(next(iter(mesh.members.values())), "it is cut off")
        await world.settle()
        two = await device(world, "alice", "two", node=1)
        one = await world.login("alice", "one", node=0)
        bob = await world.login("bob", node=0)
        world.connect_nodes(0, 1)
        await world.settle()
        for client in (one, two):
            await client.receive_all()
        await one.send(message(bob.jid))
        assert await got(one, two, bob) == [[], ["sent m1"], ["m1"]]
        await two.ask("set", DISABLE)
        await one.send(message(bob.jid))
        assert await got(one, two, bob) == [[], [], ["m1"]]


@pytest.mark.parametrize("node", [0, 1])
async def test_a_session_without_a_connection_is_sent_copies_and_resumes_with_them(node: int) -> None:
    async with world_of(nodes=2) as world:
        one = await world.login("alice", "one", node=0)
        two = await device(world, "alice", "two", node=0)
        bob = await world.login("bob", node=1)
        id = await enable(two)
        await two.receive_all()
        await two.drop()
        await one.send(message(bob.jid))
        again = await resume(world, two, id, node=node)
        assert (await got(again))[0][-1:] == ["sent m1"]
        await one.send(message(bob.jid, id="m2"))
        assert await got(again, bob) == [["sent m2"], ["m1", "m2"]]


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize("places", [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (0, 1, 2)])
async def test_what_was_not_acknowledged_is_not_given_to_who_has_a_copy(
    places: tuple[int, int, int], is_late: bool
) -> None:
    async with world_of("offline", nodes=max(places) + 1) as world:
        alice = await world.login("alice", node=places[0])
        top = await world.login("bob", "top", 5, node=places[1])
        if not is_late:
            low = await device(world, "bob", "low", 1, node=places[2])
        await world.advance(2)
        await top.receive_all()
        await enable(top)
        await top.drop()
        await alice.send(message(BOB))
        if is_late:
            low = await device(world, "bob", "low", 1, node=places[2])
        assert await got(low) == [[] if is_late else ["received m1"]]
        for _ in range(8):
            await world.advance(40)
            await low.send(" ")
        assert await got(low) == [["m1"] if is_late else []]


async def test_copies_have_the_ids_of_the_archives() -> None:
    async with world_of("archive") as world:
        one, two, bob, other = await devices(world)
        await one.send("".join(message(BOB, id=f"m{number}") for number in range(5)))
        came = {client.jid: await client.receive_all() for client in (two, bob, other)}
        for client, sources in ((two, (two,)), (bob, (bob, other))):
            await client.send(f"<iq type='set' id='q'><query xmlns='{ns.MAM}'/></iq>")
            archived = [
                (result.get("id"), client.bare)
                for tree in await client.receive_all()
                for result in tree.iter(f"{{{ns.MAM}}}result")
            ]
            assert len(archived) == 5
            for source in sources:
                found = [
                    [
                        (given.get("id"), given.get("by"))
                        for given in tree.iter(f"{{{ns.STANZA_ID}}}stanza-id")
                    ]
                    for tree in came[source.jid]
                ]
                assert found == [[pair] for pair in archived]


async def test_of_who_is_blocked_there_are_no_copies_and_he_cannot_tell() -> None:
    async with world_of("blocking", "offline") as world:
        one, two, bob, other = await devices(world)
        await bob.ask("set", f"<block xmlns='{ns.BLOCKING}'><item jid='{ALICE}'/></block>")
        await got(one, two, bob, other)
        for to in (BOB, bob.jid):
            await one.send(message(to))
            assert await got(one, two) == [["error"], ["sent m1", "received error"]]
            assert await got(bob, other) == [[], []]
        await bob.ask("set", f"<unblock xmlns='{ns.BLOCKING}'/>")
        await one.send(message(BOB, id="m2"))
        assert await got(one, two, bob, other) == [[], ["sent m2"], ["m2"], ["received m2"]]


async def test_a_copy_that_was_not_acknowledged_is_none() -> None:
    async with world_of("offline", nodes=1) as world:
        alice = await world.login("alice")
        top, low = await world.login("bob", "top", 5), await device(world, "bob", "low", 1)
        await world.advance(2)
        for client in (top, low):
            await client.receive_all()
            await enable(client)
            await client.drop()
        await alice.send(message(BOB))
        await world.advance(310)
        again = await world.bind("bob", "again")
        await again.send("<presence/>")
        assert await got(again) == [["m1"]]
