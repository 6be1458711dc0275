"""Two clients on two nodes are as two on one."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from sasl2 import PHONE, agent, login, opened, plain, request, tagged
from several import CHAT, bodies, several

from xmppd import ns
from xmppd.cluster.member import Member
from xmppd.cluster.records import Presence, Record, Words
from xmppd.core.sessions import Broadcast
from xmppd.testing import World

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("each_carrier")]


@pytest.mark.parametrize("to", ["bob@localhost", "bob@localhost/far"])
async def test_a_message_reaches_a_session_on_another_node(redis_url: str, to: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice = await world.login("alice", node=0)
        bob = await world.login("bob", "far", node=1)
        await alice.send(CHAT.format(to=to, body="hi"))
        await bob.expect(f"<message from='{alice.jid}' to='{to}' type='chat'><body>hi</body></message>")
        await alice.expect_nothing()


async def test_the_highest_priority_of_all_nodes_takes_messages(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice = await world.login("alice", node=0)
        near = await world.login("bob", "near", priority=1, node=0)
        far = await world.login("bob", "far", priority=2, node=1)
        await near.receive_all()
        await far.receive_all()
        await alice.send(CHAT.format(to="bob@localhost", body="to far"))
        assert (await bodies(near), await bodies(far)) == ([], ["to far"])
        await far.send("<presence><priority>1</priority></presence>")
        await alice.send(CHAT.format(to="bob@localhost", body="to both"))
        assert (await bodies(near), await bodies(far)) == (["to both"], ["to both"])
        await far.send("<presence><priority>0</priority></presence>")
        await alice.send(CHAT.format(to="bob@localhost", body="to near"))
        assert (await bodies(near), await bodies(far)) == (["to near"], [])


async def test_contacts_on_two_nodes_see_each_other_come_and_go(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, bob = await world.login("alice", node=0), await world.login("bob", node=1)
        await world.befriend(alice, bob)
        await alice.send("<presence><show>away</show></presence>")
        await bob.expect(f"<presence from='{alice.jid}' to='{bob.bare}'><show>away</show></presence>")
        other = await world.bind("bob", "two", node=0)
        await other.send("<presence/>")
        await bob.expect(f"<presence from='{other.jid}' to='{bob.bare}'/>")
        shown = {tree.get("from") for tree in await other.receive_all()}
        assert shown == {alice.jid, bob.jid, other.jid}
        await alice.receive_all()
        await bob.drop()
        for viewer in (alice, other):
            await viewer.expect(f"<presence from='{bob.jid}' to='{viewer.bare}' type='unavailable'/>")


async def test_a_login_is_one_frame_each_way(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, bob = await world.login("alice", node=0), await world.login("bob", node=1)
        await world.befriend(alice, bob)
        await world.settle()
        trunks = [next(iter(world.cluster(node).mesh.present())).trunk for node in (0, 1)]
        said: list[list[object]] = [[], []]
        for trunk, records in zip(trunks, said, strict=True):
            trunk.send = watched(trunk.send, records)  # type: ignore[method-assign]
        sent = [trunk.sent for trunk in trunks]
        other = world.connect(node=0)
        await other.open()
        await other.authenticate("alice")
        await other.open()
        bind = f"<bind xmlns='{ns.BIND}'><resource>two</resource></bind>"
        await other.send(f"<iq type='set' id='bind'>{bind}</iq><presence/>")
        await bob.expect("<presence from='alice@localhost/two' to='bob@localhost'/>")
        assert bob.jid in {tree.get("from") for tree in await other.receive_all()}
        assert [trunk.sent - before for trunk, before in zip(trunks, sent, strict=True)] == [1, 1]
        kinds = [[type(record).__name__ for record in records] for records in said]
        assert kinds == [["Place", "Presence"], ["Shown"]]


async def test_who_goes_is_told_of_once(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, bob = await world.login("alice", node=0), await world.login("bob", node=1)
        await world.befriend(alice, bob)
        mesh, taken = world.cluster(1).mesh, []
        hand_over = mesh._hand_over

        def noted(member: Member, records: Sequence[Record]) -> bool:
            taken.extend(type(record).__name__ for record in records if not isinstance(record, Words))
            return hand_over(member, records)

        mesh._hand_over = noted  # type: ignore[method-assign]
        await alice.send("<presence type='unavailable'/><presence/>")
        assert taken == ["Presence", "Place", "Place", "Presence"], "it is seen that it was away"
        taken.clear()
        await alice.drop()
        assert taken == ["Presence", "Gone"]
        assert not mesh.whereabouts.of("alice@localhost")


def watched(send: Callable[..., int], records: list[object]) -> Callable[..., int]:
    """Sends, and keeps what was sent."""

    def note(record: object, *size: int) -> int:
        records.append(record)
        return send(record, *size)

    return note


async def test_a_place_is_not_amended_before_a_list_of_places(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice = await world.bind("alice", "game", node=0)
        places = world.cluster(0).places
        [member] = world.cluster(0).mesh.present()
        world.cluster(0).mesh.mention(member, *places._place_of(member, alice.session, None))
        places._own[alice.session.number].spots[member] = member.trunk.spot
        places._send_piece(member, [alice.session], is_last=False)
        alice.session.presence = Broadcast(alice.session.presence_head, b"/>")
        places.shifted(alice.session)
        await world.settle()
        [place] = world.cluster(1).mesh.whereabouts.at("alice@localhost", "game")
        assert place.priority == 0


async def test_ones_own_other_session_is_shown_once(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, bob = await world.login("alice", node=0), await world.login("bob", node=1)
        await bob.send("<presence to='alice@localhost' type='subscribe'/>")
        await alice.send("<presence to='bob@localhost' type='subscribed'/>")
        await world.settle()
        other = await world.bind("alice", "two", node=1)
        await other.send("<presence/>")
        shown = [tree.get("from") for tree in await other.receive_all()]
        assert shown.count(alice.jid) == 1


async def test_who_changes_at_once_is_shown_contacts_all_the_same(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, bob = await world.login("alice", node=0), await world.login("bob", node=1)
        await world.befriend(alice, bob)
        other = await world.bind("alice", "two", node=0)
        waits = itertools.repeat(None, 200)
        rounds = world.apps[0].sessions.rounds
        rounds._clock = itertools.count().__next__  # each step takes a whole slice
        rounds.do("something long", iter(waits), is_short=False)
        roster = world.apps[0].sessions.accounts["alice@localhost"].roster
        many = tuple(f"nobody{number}@localhost" for number in range(100))
        everybody = (*roster.followers, *many)
        world.apps[0].sessions.accounts["alice@localhost"].roster = replace(
            roster, followers=everybody, following=everybody
        )
        await other.send("<presence/><presence><show>dnd</show></presence>")
        assert bob.jid in {tree.get("from") for tree in await other.receive_all()}
        shown = [
            tree.findtext("{*}show") for tree in await bob.receive_all() if tree.get("from") == other.jid
        ]
        assert shown[-1] == "dnd"


async def test_a_presence_for_few_does_not_overtake_one_for_many(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, bob = await world.login("alice", node=0), await world.login("bob", node=1)
        await world.befriend(alice, bob)
        cluster = world.cluster(1)
        world.apps[1].sessions.rounds._clock = itertools.count().__next__  # each step takes a whole slice
        [member] = cluster.mesh.present()
        head = f"<presence from='{alice.jid}'".encode()
        many = [f"nobody{number}@localhost" for number in range(100)]
        cluster.presence.take(member, Presence(alice.jid, head, b" id='1'/>", False, [*many, bob.bare]))
        cluster.presence.take(member, Presence(alice.jid, head, b" id='2'/>", False, [bob.bare]))
        assert [tree.get("id") for tree in await bob.receive_all()] == ["1", "2"]


async def test_a_node_that_is_lost_takes_its_sessions_with_it(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, bob = await world.login("alice", node=0), await world.login("bob", node=1)
        await world.befriend(alice, bob)
        world.cut(0, 1)
        await world.advance(6)
        await alice.expect(f"<presence from='{bob.jid}' to='{alice.bare}' type='unavailable'/>")
        await alice.send(CHAT.format(to=bob.jid, body="gone"))
        await alice.expect(
            f"<message from='{bob.jid}' to='{alice.jid}' type='error'>"
            "<error type='cancel'>"
            f"<service-unavailable xmlns='{ns.STANZA_ERRORS}'/></error></message>"
        )
        world.connect_nodes(0, 1, trunk=2)
        await alice.expect(f"<presence from='{bob.jid}' to='{alice.bare}'/>")


async def test_who_shows_himself_by_an_old_roster_is_shown_to_end_with_his_node(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, bob = await world.login("alice", node=0), await world.login("bob", node=1)
        await world.befriend(alice, bob)
        await alice.ask(
            "set", f"<query xmlns='{ns.ROSTER}'><item jid='{bob.bare}' subscription='remove'/></query>"
        )
        await alice.receive_all()
        await world.advance(60)
        shown = bob.session.presence
        assert shown is not None
        world.cluster(1).presence.show(bob.session, shown, [alice.bare])
        await alice.expect(f"<presence from='{bob.jid}' to='{alice.bare}'/>")
        world.cut(0, 1)
        await world.advance(6)
        await alice.expect(f"<presence from='{bob.jid}' to='{alice.bare}' type='unavailable'/>")


async def test_an_iq_and_its_answer_cross(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, bob = await world.login("alice", node=0), await world.login("bob", node=1)
        await alice.send(f"<iq type='get' id='1' to='{bob.jid}'><query xmlns='{ns.VERSION}'/></iq>")
        await bob.expect(
            f"<iq type='get' id='1' from='{alice.jid}' to='{bob.jid}'><query xmlns='{ns.VERSION}'/></iq>"
        )
        await bob.send(f"<iq type='result' id='1' to='{alice.jid}'/>")
        await alice.expect(f"<iq type='result' id='1' from='{bob.jid}' to='{alice.jid}'/>")


async def test_a_resource_is_one_over_all_nodes(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        first = await world.login("alice", "game", node=0)
        second = await world.login("alice", "game", node=1)
        await first.expect_closed("conflict")
        assert second.jid == first.jid
        assert world.cluster(0).mesh.whereabouts.at("alice@localhost", "game")
        assert not world.cluster(1).mesh.whereabouts.at("alice@localhost", "game")


async def test_a_client_that_comes_by_another_tag_leaves_no_session_elsewhere(redis_url: str) -> None:
    settings = {**several(redis_url), "limits": {"sessions_per_account": 2}}
    async with World(settings=settings, nodes=2) as world:
        other = await world.login("alice", "desk", node=0)
        first, second = await opened(world, node=0), await opened(world, node=1)
        await login(first, "alice", tagged("Game") + agent(PHONE))
        await login(second, "alice", tagged("Chat") + agent(PHONE))
        await first.expect_closed("conflict")
        assert (
            second.jid.partition("/")[2].startswith("Chat.") and second.jid in world.apps[1].sessions.by_full
        )
        assert [*world.apps[0].sessions.by_full] == [other.jid]


async def test_of_a_client_that_comes_to_two_nodes_at_once_one_session_is_left(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        for node, tag in enumerate(("Game", "Chat")):
            client = await opened(world, node=node)
            client.write(request("PLAIN", plain("alice"), tagged(tag) + agent(PHONE)))
        await world.settle()
        assert sum(len(app.sessions.by_full) for app in world.apps) == 1


@pytest.mark.parametrize(
    ("change", "condition"),
    [("disable", "not-authorized"), ("set_password", "reset"), ("remove", "not-authorized")],
)
async def test_who_is_shut_out_leaves_all_nodes_though_redis_tells_nobody(
    redis_url: str, change: str, condition: str
) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, bob = await world.login("alice", node=1), await world.login("bob", node=1)
        for app in world.apps:
            app.accounts.on_changed.clear()  # what tells by Redis
        accounts = world.apps[0].accounts
        await getattr(accounts, change)("alice@localhost", *(["other"] if change == "set_password" else []))
        await world.settle()
        await alice.expect_closed(condition)
        await bob.expect_nothing()


async def test_a_node_that_says_farewell_is_gone_at_once(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, bob = await world.login("alice", node=0), await world.login("bob", node=1)
        await world.befriend(alice, bob)
        world.cluster(1).mesh.bid_farewell()
        await alice.expect(f"<presence from='{bob.jid}' to='{alice.bare}' type='unavailable'/>")
        assert not world.cluster(0).mesh.members
