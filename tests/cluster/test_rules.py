"""The rules of nodes, stanza by stanza: two sessions with one full JID, what is stored for somebody who comes
meanwhile, and who is told that a node is lost.
"""

from __future__ import annotations

import asyncio
from xml.etree.ElementTree import Element

import pytest
from several import CHAT, bodies, several

from xmppd import ns
from xmppd.cluster import trunk
from xmppd.errors import StanzaError
from xmppd.testing import World

pytestmark = pytest.mark.asyncio


async def test_who_sees_two_of_one_name_is_shown_the_other_when_one_ends(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=3) as world:
        alice, bob = await world.login("alice", node=0), await world.login("bob", "game", node=1)
        await world.befriend(alice, bob)
        world.cut(1, 2)
        await world.advance(6)
        other = await world.bind("bob", "game", node=2)
        await other.send("<presence><show>dnd</show></presence>")
        await alice.expect(f"<presence from='{other.jid}' to='{alice.bare}'><show>dnd</show></presence>")
        await bob.drop()
        await alice.expect(f"<presence from='{other.jid}' to='{alice.bare}'><show>dnd</show></presence>")
        await alice.expect_nothing()
        await other.drop()
        await alice.expect(f"<presence from='{other.jid}' to='{alice.bare}' type='unavailable'/>")


async def test_one_of_two_of_one_name_ends_when_nodes_meet_and_nobody_sees_it_go(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, carol = await world.login("alice", node=0), await world.login("carol", node=1)
        bob = await world.login("bob", "game", node=0)
        await world.befriend(alice, bob)
        await world.befriend(carol, bob)
        world.cut(0, 1)
        await world.advance(6)
        other = await world.bind("bob", "game", node=1)
        await other.send("<presence><show>dnd</show></presence>")
        for client in (alice, carol):
            await client.receive_all()
        world.connect_nodes(0, 1, trunk=2)
        await bob.expect_closed("conflict")
        shown = [tree for tree in await alice.receive_all() if tree.get("from") == other.jid]
        assert [tree.get("type") for tree in shown] == [None] * len(shown)
        assert shown[-1].findtext(f"{{{ns.CLIENT}}}show") == "dnd"
        assert all(tree.get("type") is None for tree in await carol.receive_all())
        assert not other.closed


async def test_what_was_stored_comes_when_nodes_meet_again(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2, plugins=("offline",)) as world:
        alice, bob = await world.login("alice", node=0), await world.login("bob", node=1)
        world.cut(0, 1)
        await world.advance(6)
        for body in ("one", "two"):
            await alice.send(CHAT.format(to=bob.bare, body=body))
        assert await bodies(bob) == []
        world.connect_nodes(0, 1, trunk=2)
        await alice.send(CHAT.format(to=bob.bare, body="three"))
        assert await bodies(bob) == ["one", "two", "three"]


async def test_of_two_that_come_at_once_one_is_given_what_was_stored(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2, plugins=("offline",)) as world:
        alice = await world.login("alice", node=0)
        stored = [f"message {number}" for number in range(250)]
        for body in stored:
            await alice.send(CHAT.format(to="bob@localhost", body=body))
        one, two = await world.bind("bob", node=0), await world.bind("bob", node=1)
        one.write("<presence/>")
        two.write("<presence/>")
        await world.settle()
        found = sorted([await bodies(one), await bodies(two)])
        assert found == [[], stored]


async def test_what_comes_while_stored_messages_are_read_comes_behind_them(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2, plugins=("offline",)) as world:
        alice = await world.login("alice", node=0)
        stored = [f"message {number} {'x' * 2000}" for number in range(250)]
        for body in stored:
            await alice.send(CHAT.format(to="bob@localhost", body=body))
        bob = await world.bind("bob", node=1)
        bob.stop_reading()
        await bob.send("<presence/>")
        for body in ("last", "very last"):
            await alice.send(CHAT.format(to="bob@localhost", body=body))
        await bob.read_on()
        assert await bodies(bob) == [*stored, "last", "very last"]
        await alice.expect_nothing()


async def test_directed_presence_ends_with_the_node_of_its_sender(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, carol = await world.login("alice", node=0), await world.login("carol", node=1)
        bob = await world.login("bob", node=0)
        for sender in (alice, bob):
            await sender.send(f"<presence to='{carol.jid}'/>")
            await carol.expect(f"<presence from='{sender.jid}' to='{carol.jid}'/>")
        await bob.send(f"<presence to='{carol.jid}' type='unavailable'/>")
        await carol.expect(f"<presence from='{bob.jid}' to='{carol.jid}' type='unavailable'/>")
        world.cut(0, 1)
        await world.advance(6)
        await carol.expect(f"<presence from='{alice.jid}' to='{carol.jid}' type='unavailable'/>")
        await carol.expect_nothing()


async def test_directed_presence_ends_once_and_is_forgotten(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, carol = await world.login("alice", node=0), await world.login("carol", node=1)
        await alice.send(f"<presence to='{carol.bare}'/>")
        await carol.expect(f"<presence from='{alice.jid}' to='{carol.bare}'/>")
        [member] = world.cluster(1).mesh.members.values()
        assert member.directed == {alice.jid: {carol.bare}}
        await alice.drop()
        await carol.expect(f"<presence from='{alice.jid}' to='{carol.bare}' type='unavailable'/>")
        assert member.directed == {}
        world.cut(0, 1)
        await world.advance(6)
        await carol.expect_nothing()


@pytest.mark.parametrize("ends", ["session", "node"])
async def test_a_question_ends_with_whom_it_was_put_to(redis_url: str, ends: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        bob = await world.login("bob", node=1)
        asked = asyncio.ensure_future(world.app.server.ask(bob.jid, Element(f"{{{ns.VERSION}}}query")))
        await world.settle()
        assert (await bob.receive()).get("type") == "get"
        if ends == "session":
            await bob.drop()
        else:
            world.cut(0, 1)
            await world.advance(6)
        with pytest.raises(StanzaError, match="recipient-unavailable"):
            await asked


async def test_a_question_that_was_not_taken_ends_with_the_node(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        bob = await world.login("bob", node=1)
        world.cut(0, 1)
        asked = asyncio.ensure_future(world.app.server.ask(bob.jid, Element(f"{{{ns.VERSION}}}query")))
        await world.advance(6)
        with pytest.raises(StanzaError, match="recipient-unavailable"):
            await asked
        await bob.expect_nothing()


async def test_who_sends_to_a_full_trunk_is_not_read_from(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trunk, "UNSENT_BYTES", 5000)
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, bob = await world.login("alice", node=0), await world.login("bob", node=1)
        carol = await world.login("carol", node=0)
        await world.befriend(bob, carol)
        world.cut(0, 1)
        sent = [f"{number} {'x' * 1000}" for number in range(40)]
        await alice.send("".join(CHAT.format(to=bob.bare, body=body) for body in sent))
        [member] = world.cluster(0).mesh.members.values()
        assert 4 <= len([*member.trunk.unsettled]) <= 6
        await carol.send("".join(f"<presence><status>{n}</status></presence>" for n in range(20)))
        assert len(await carol.receive_all()) < 5
        world.connect_nodes(0, 1)
        received = await bob.receive_all()
        bodies = [tree.findtext(f"{{{ns.CLIENT}}}body") for tree in received if tree.tag.endswith("message")]
        statuses = [
            tree.findtext(f"{{{ns.CLIENT}}}status") for tree in received if tree.tag.endswith("presence")
        ]
        assert bodies == sent
        assert statuses == [str(number) for number in range(20)]


async def test_what_was_stored_long_before_nodes_meet_comes_then(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2, plugins=("offline",)) as world:
        alice, bob = await world.login("alice", node=0), await world.login("bob", node=1)
        await world.advance(20)
        world.cut(0, 1)
        await world.advance(6)
        await alice.send(CHAT.format(to=bob.bare, body="one"))
        await world.advance(60)
        await alice.send(CHAT.format(to="carol@localhost", body="for somebody else"))
        world.connect_nodes(0, 1, trunk=2)
        await world.settle()
        assert await bodies(bob) == ["one"]


async def test_who_is_not_followed_any_more_does_not_stay_when_his_node_is_lost(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, bob = await world.login("alice", node=0), await world.login("bob", node=1)
        await world.befriend(alice, bob)
        world.cut(0, 1)
        await alice.send(f"<presence to='{bob.bare}' type='unsubscribe'/>")
        await alice.receive_all()
        await world.advance(6)
        await alice.expect(f"<presence from='{bob.jid}' to='{alice.bare}' type='unavailable'/>")
        world.connect_nodes(0, 1, trunk=2)
        await alice.expect_nothing()


async def test_directed_presence_ends_with_its_sender_though_another_has_his_name(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=3) as world:
        carol = await world.login("carol", node=1)
        bob = await world.login("bob", "game", node=0)
        await bob.send(f"<presence to='{carol.bare}'/>")
        await carol.expect(f"<presence from='{bob.jid}' to='{carol.bare}'/>")
        for other in (1, 2):
            world.cut(0, other)
        other = await world.bind("bob", "game", node=2)
        await other.send("<presence/>")
        await world.advance(6)
        await carol.expect(f"<presence from='{bob.jid}' to='{carol.bare}' type='unavailable'/>")
        await other.drop()
        await carol.expect_nothing()


async def test_directed_presence_of_another_session_of_that_name_goes_on(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=3) as world:
        carol = await world.login("carol", node=1)
        bob = await world.login("bob", "game", node=0)
        await bob.send(f"<presence to='{carol.bare}'/>")
        for end in (1, 2):
            world.cut(0, end)
        other = await world.bind("bob", "game", node=2)
        await other.send(f"<presence to='{carol.bare}'><show>dnd</show></presence>")
        await carol.receive_all()
        await world.advance(6)
        await carol.expect(f"<presence from='{other.jid}' to='{carol.bare}'><show>dnd</show></presence>")
        await other.drop()
        await carol.expect(f"<presence from='{bob.jid}' to='{carol.bare}' type='unavailable'/>")


async def test_who_was_sent_directed_presence_by_two_of_one_name_sees_what_the_other_said(
    redis_url: str,
) -> None:
    async with World(settings=several(redis_url), nodes=3) as world:
        carol = await world.login("carol", node=1)
        bob = await world.login("bob", "game", node=0)
        world.cut(0, 2)
        await world.advance(6)
        other = await world.bind("bob", "game", node=2)
        await other.send("<presence/>")
        await other.send(f"<presence to='{carol.jid}'><status>stays</status></presence>")
        await world.settle()
        await bob.send(f"<presence to='{carol.bare}'><status>goes</status></presence>")
        await carol.receive_all()
        world.connect_nodes(0, 2, trunk=2)
        await bob.expect_closed("conflict")
        shown = [tree for tree in await carol.receive_all() if tree.get("from") == bob.jid]
        assert shown[-1].findtext(f"{{{ns.CLIENT}}}status") == "stays"
        assert all(tree.get("type") is None for tree in shown)
        await other.drop()
        await carol.expect(f"<presence from='{bob.jid}' to='{carol.jid}' type='unavailable'/>")


async def test_directed_presence_is_not_for_a_session_its_node_does_not_know(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        bob = await world.login("bob", node=1)
        alice = await world.login("alice", "game", node=0)
        world.cut(0, 1)
        await bob.send(f"<presence to='{alice.bare}'/>")
        await alice.drop()
        newcomer = await world.bind("alice", "game", node=0)
        await newcomer.send("<presence/>")
        await newcomer.receive_all()
        world.connect_nodes(0, 1)
        await newcomer.expect_nothing()


async def test_who_comes_while_he_is_let_see_somebody_is_shown_him(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, carol = await world.login("alice", node=0), await world.bind("carol", node=1)
        await carol.send(f"<presence to='{alice.bare}' type='subscribe'/>")
        await alice.receive()
        world.cut(0, 1)
        await carol.send("<presence/>")
        await carol.receive_all()
        await alice.send(f"<presence to='{carol.bare}' type='subscribed'/>")
        world.connect_nodes(0, 1)
        await world.advance(2)
        shown = [tree for tree in await carol.receive_all() if tree.get("from") == alice.jid]
        assert [tree.get("type") for tree in shown] == [None]


ASKED = "<iq type='get' id='a' to='{to}'><ping xmlns='urn:xmpp:ping'/></iq>"
ANSWER = "<iq type='result' id='a' to='{to}'/>"


async def test_an_answer_goes_to_who_has_the_name_now(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=3) as world:
        bob, old = await world.login("bob", node=0), await world.bind("alice", "game", node=1)
        world.cut(0, 1)
        alice = await world.bind("alice", "game", node=2)
        await old.expect_closed("conflict")
        await alice.send(ASKED.format(to=bob.jid))
        assert (await bob.receive()).get("from") == alice.jid
        await bob.send(ANSWER.format(to=alice.jid))
        await alice.expect(f"<iq type='result' id='a' from='{bob.jid}' to='{alice.jid}'/>")


async def test_an_answer_that_came_too_late_for_one_goes_to_the_next_of_that_name(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=3) as world:
        bob, alice = await world.login("bob", node=0), await world.bind("alice", "game", node=1)
        await alice.send(ASKED.format(to=bob.jid))
        await bob.receive()
        world.cut(0, 1)
        await bob.send(ANSWER.format(to=alice.jid))
        newcomer = await world.bind("alice", "game", node=2)
        await alice.expect_closed("conflict")
        world.connect_nodes(0, 1)
        await newcomer.expect(f"<iq type='result' id='a' from='{bob.jid}' to='{alice.jid}'/>")
