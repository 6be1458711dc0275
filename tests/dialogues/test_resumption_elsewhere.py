"""A session that is resumed on another node than the one that has it (XEP-0198 5)."""

import pytest
from managing import ASK, SM, ask_to_resume, bodies, count, enable, ready, resume, state
from several import several

from xmppd import ns
from xmppd.cluster import unread
from xmppd.core import handover
from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio

OFFLINE = ("offline",)
PING = f"<iq type='get' id='ping'><query xmlns='{ns.ROSTER}'/></iq>"


def chat(to: str, body: str) -> str:
    return f"<message to='{to}' type='chat'><body>{body}</body></message>"


async def friends(world: World) -> tuple[Client, Client, Client, str]:
    """Alice on the first node, who has friends on both, and the id of her session."""
    alice = await world.login("alice", "r", node=0)
    bob, carol = await world.login("bob", node=0), await world.login("carol", node=1)
    await world.befriend(alice, bob)
    await world.befriend(alice, carol)
    return alice, bob, carol, await enable(alice)


@pytest.mark.parametrize("is_broken", [True, False])
async def test_a_session_goes_on_on_another_node(redis_url: str, is_broken: bool) -> None:
    async with World(plugins=OFFLINE, nodes=2, settings=several(redis_url)) as world:
        alice, bob, carol, id = await friends(world)
        await alice.send("<presence><show>away</show><priority>3</priority></presence>")
        await bob.send(chat("alice@localhost", "1"))
        await carol.send(chat(alice.jid, "2"))
        got = await alice.receive_all()
        assert bodies(got) == ["1", "2"]
        if is_broken:
            await alice.drop()
        await bob.send(chat(alice.jid, "3"))
        await carol.send(chat("alice@localhost", "4"))
        for friend in (bob, carol):
            await friend.receive_all()
        again = await resume(world, alice, id, count(got) - 1, node=1)
        stanzas = await again.receive_all()
        assert sorted(bodies(stanzas)) == ["2", "3", "4"] and bodies(stanzas)[0] == "2"
        if not is_broken:
            await alice.expect_closed("conflict")
        assert world.apps[0].sessions.of("alice@localhost") == []
        assert (again.session.priority, again.session.has_roster) == (3, True)
        for friend in (bob, carol):
            shown = await friend.receive_all()
            assert all(one.get("type") is None for one in shown), "nobody saw her go"
        await again.send(chat(bob.jid, "5") + ASK)
        assert (await again.receive_all())[-1].get("h") == "2", "one was sent to the other node"
        assert bodies(await bob.receive_all()) == ["5"]
        await bob.send(chat("alice@localhost", "6"))
        await carol.send(chat(alice.jid, "7"))
        assert sorted(bodies(await again.receive_all())) == ["6", "7"]


async def test_it_moves_to_and_fro_and_each_message_comes_once(redis_url: str) -> None:
    async with World(plugins=OFFLINE, nodes=2, settings=several(redis_url)) as world:
        alice, bob, carol, id = await friends(world)
        got, h, said = [], 0, 0
        for round in range(6):
            for friend in (bob, carol):
                await friend.send(chat("alice@localhost", f"{friend.jid} {said}"))
                said += 1
            stanzas = await alice.receive_all()
            got += bodies(stanzas)
            h += count(stanzas)
            await alice.drop()
            for friend in (bob, carol):
                await friend.send(chat(alice.jid, f"{friend.jid} {said}"))
                said += 1
            alice = await resume(world, alice, id, h, node=(round + 1) % 2)
        got += bodies(await alice.receive_all())
        assert len(got) == said == len(set(got))
        for friend in (bob, carol):
            own = [int(text.rpartition(" ")[2]) for text in got if text.startswith(friend.jid)]
            assert own == sorted(own)


async def test_contacts_that_were_changed_meanwhile_are_told(redis_url: str) -> None:
    async with World(nodes=2, settings=several(redis_url)) as world:
        alice, _, _, id = await friends(world)
        other = await world.login("alice", "other", node=0)
        await alice.drop()
        item = f"<query xmlns='{ns.ROSTER}'><item jid='bob@localhost' name='Bobby'/></query>"
        await other.send(f"<iq type='set' id='x'>{item}</iq>")
        again = await resume(world, alice, id, state(alice).acked, node=1)
        pushes = [one for one in await again.receive_all() if one.find(f"{{{ns.ROSTER}}}query") is not None]
        assert [push[0][0].get("name") for push in pushes] == ["Bobby"]


async def test_directed_presence_goes_on(redis_url: str) -> None:
    async with World(nodes=2, settings=several(redis_url)) as world:
        alice = await world.login("alice", "r", node=0)
        stranger = await world.login("bob", node=1)
        await alice.send(f"<presence to='{stranger.jid}'><status>hello</status></presence>")
        id = await enable(alice)
        await alice.drop()
        await stranger.receive_all()
        again = await resume(world, alice, id, node=1)
        await world.advance(60)
        assert all(
            one.get("type") is None for one in await stranger.receive_all() if one.tag.endswith("presence")
        )
        await again.send("</stream:stream>")
        assert (await stranger.receive_all())[-1].get("type") == "unavailable"


async def test_what_plugins_keep_goes_with_it_if_it_is_plain(redis_url: str) -> None:
    async with World(nodes=2, settings=several(redis_url)) as world:
        alice, _, _, id = await friends(world)
        alice.session.slots = {"carbons.on": True, "x.list": ["a", 1], "x.object": object()}
        await alice.drop()
        again = await resume(world, alice, id, node=1)
        assert again.session.slots == {"carbons.on": True, "x.list": ["a", 1]}


async def test_an_unknown_session_is_nowhere(redis_url: str) -> None:
    async with World(nodes=2, settings=several(redis_url)) as world:
        await friends(world)
        again = await ready(world, "alice", node=1)
        answer = await ask_to_resume(again, "bogus")
        assert answer.tag == f"{SM}failed" and answer[0].tag == f"{{{ns.STANZA_ERRORS}}}item-not-found"


async def test_too_much_is_not_acknowledged_on_another_node_either(redis_url: str) -> None:
    async with World(nodes=2, settings=several(redis_url)) as world:
        alice, _, _, id = await friends(world)
        again = await ready(world, "alice", node=1)
        await again.send(f"<resume xmlns='{ns.SM}' previd='{id}' h='1000'/>")
        await again.expect_closed("undefined-condition")
        assert alice.session.full == "alice@localhost/r"


async def test_a_node_that_does_not_answer_has_failed_and_loses_nothing(redis_url: str) -> None:
    async with World(plugins=OFFLINE, nodes=2, settings=several(redis_url)) as world:
        alice, bob, _, id = await friends(world)
        await alice.drop()
        await bob.send(chat("alice@localhost", "1"))
        again = await ready(world, "alice", node=1)
        world.cut(0, 1)
        again.write(f"<resume xmlns='{ns.SM}' previd='{id}' h='0'/>")
        await world.settle()
        await world.advance(5)
        assert (await again.receive()).tag == f"{SM}failed"
        world.connect_nodes(0, 1)
        await world.settle()
        await world.advance(15)
        await again.bind("new")
        await again.send("<presence/>")
        assert bodies(await again.receive_all()) == ["1"]


async def test_who_breaks_off_while_it_is_fetched_loses_nothing(redis_url: str) -> None:
    async with World(plugins=OFFLINE, nodes=2, settings=several(redis_url)) as world:
        alice, bob, _, id = await friends(world)
        await alice.drop()
        await bob.send(chat("alice@localhost", "1"))
        again = await ready(world, "alice", node=1)
        again.write(f"<resume xmlns='{ns.SM}' previd='{id}' h='0'/>")
        again.transport.close()
        await world.settle()
        await world.advance(15)
        last = await world.login("alice", node=1)
        await world.settle()
        assert b"<body>1</body>" in last.raw
        assert not any(app.resumption._by_id for app in world.apps)


async def kill(world: World, node: int) -> None:
    """A node is gone without a word, and the other knows."""
    other = world.cluster(1 - node)
    world.cut(0, 1)
    other.mesh.give_up(other.mesh.members[world.cluster(node).mesh.name], "it was killed")
    await world.settle()


@pytest.mark.parametrize("is_broken", [True, False])
async def test_a_killed_node_loses_nothing_that_another_one_sent(redis_url: str, is_broken: bool) -> None:
    async with World(nodes=2, plugins=OFFLINE, settings=several(redis_url)) as world:
        alice = await world.login("alice", "r", node=0)
        bob = await world.login("bob", node=1)
        await enable(alice)
        for number in range(3):
            await bob.send(chat("alice@localhost", str(number)))
        await alice.send(f"<a xmlns='{ns.SM}' h='1'/>")
        await bob.send(chat(alice.jid, "3"))
        if is_broken:
            await alice.drop()
        await bob.send(chat("alice@localhost", "4"))
        await bob.send(PING)
        assert (await bob.receive_all())[-1].get("id") == "ping", "all is acknowledged to the sender"
        assert len(world.cluster(0).messages.unread) == 4
        await world.advance(5)
        await kill(world, 0)
        again = await world.bind("alice", "r", node=1)
        await again.send("<presence/>")
        got = [one for one in await again.receive_all() if one.tag == f"{{{ns.CLIENT}}}message"]
        assert bodies(got) == ["1", "2", "3", "4"]
        stamps = {one.get("stamp") for message in got for one in message.findall(f"{{{ns.DELAY}}}delay")}
        assert stamps == {"2023-11-14T22:13:20.000Z"}
        await bob.receive_all()
        await bob.send(chat("alice@localhost", "5"))
        assert bodies(await again.receive_all()) == ["5"], "and nothing is in the way"


async def test_what_is_acknowledged_is_not_kept(redis_url: str) -> None:
    async with World(nodes=2, plugins=OFFLINE, settings=several(redis_url)) as world:
        alice = await world.login("alice", "r", node=0)
        bob = await world.login("bob", node=1)
        id = await enable(alice)
        for number in range(3):
            await bob.send(chat("alice@localhost", str(number)))
        member = world.cluster(1).mesh.members[world.cluster(0).mesh.name]
        assert len([*member.trunk.unsettled]) == 3
        await alice.drop()
        alice = await resume(world, alice, id, 3, node=0)
        await bob.send(chat("alice@localhost", "3"))
        assert len([*member.trunk.unsettled]) == 1
        await alice.send(f"<a xmlns='{ns.SM}' h='4'/>")
        await world.settle()
        assert [*member.trunk.unsettled] == [] and len(world.cluster(0).messages.unread) == 0
        await kill(world, 0)
        again = await world.bind("alice", "r", node=1)
        await again.send("<presence/>")
        assert bodies(await again.receive_all()) == []


async def test_what_is_left_over_is_stored_once_and_not_kept(redis_url: str) -> None:
    async with World(nodes=2, plugins=OFFLINE, settings=several(redis_url)) as world:
        alice = await world.login("alice", "r", node=0)
        bob = await world.login("bob", node=1)
        await enable(alice)
        await bob.send(chat("alice@localhost", "1"))
        await alice.drop()
        world.apps[0].binding.end(alice.session)
        await world.settle()
        assert len(world.cluster(0).messages.unread) == 0
        await kill(world, 0)
        again = await world.bind("alice", "r", node=1)
        await again.send("<presence/>")
        assert bodies(await again.receive_all()) == ["1"]


async def test_letters_that_stay_open_are_bounded(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread, "MOST", 2)
    async with World(nodes=2, plugins=OFFLINE, settings=several(redis_url)) as world:
        alice = await world.login("alice", "r", node=0)
        bob = await world.login("bob", node=1)
        await enable(alice)
        for number in range(4):
            await bob.send(chat("alice@localhost", str(number)))
        assert len(world.cluster(0).messages.unread) == 2
        member = world.cluster(1).mesh.members[world.cluster(0).mesh.name]
        assert len([*member.trunk.unsettled]) == 2
        await alice.send(f"<a xmlns='{ns.SM}' h='4'/>")
        await world.settle()
        assert len(world.cluster(0).messages.unread) == 0


async def drained(world: World, node: int) -> None:
    """A node is told to stop, and has stopped."""
    for client in world.clients:
        if client.app is world.apps[node]:
            await client.receive_all()
    await world.drain(node)


@pytest.mark.parametrize("is_broken", [True, False])
async def test_a_session_outlives_its_node_if_that_was_told_to_stop(redis_url: str, is_broken: bool) -> None:
    async with World(nodes=2, plugins=OFFLINE, settings=several(redis_url)) as world:
        alice = await world.login("alice", "r", node=0)
        bob = await world.login("bob", node=1)
        await world.befriend(alice, bob)
        id = await enable(alice)
        for number in range(3):
            await bob.send(chat("alice@localhost", str(number)))
        await alice.send("<presence><show>away</show></presence>")
        await bob.receive_all()
        if is_broken:
            await alice.drop()
        await drained(world, 0)
        if not is_broken:
            await alice.expect_closed("system-shutdown")
        await bob.send(chat("alice@localhost", "3"))
        again = await ready(world, "alice", node=1)
        answer = await ask_to_resume(again, id, 1)
        assert (answer.tag, answer.get("h")) == (f"{SM}resumed", "1")
        assert bodies(await again.receive_all()) == ["1", "2", "3"]
        assert all(one.get("type") is None for one in await bob.receive_all())
        await world.advance(700)
        again = await world.login("alice", node=1)
        assert bodies(await again.receive_all()) == [], "nothing comes twice"


async def test_who_does_not_come_back_from_a_node_that_stopped_loses_nothing(redis_url: str) -> None:
    async with World(nodes=2, plugins=OFFLINE, settings=several(redis_url)) as world:
        alice = await world.login("alice", "r", node=0)
        bob = await world.login("bob", node=1)
        id = await enable(alice)
        await bob.send(chat("alice@localhost", "1"))
        await drained(world, 0)
        await world.advance(310)
        again = await ready(world, "alice", node=1)
        assert (await ask_to_resume(again, id)).tag == f"{SM}failed"
        await again.bind("next")
        await again.send("<presence/>")
        assert bodies(await again.receive_all()) == ["1"]


async def test_who_keeps_sessions_of_others_stores_what_is_left_when_it_stops(redis_url: str) -> None:
    async with World(nodes=2, plugins=OFFLINE, settings=several(redis_url)) as world:
        alice = await world.login("alice", "r", node=0)
        bob = await world.login("bob", node=1)
        await enable(alice)
        await bob.send(chat("alice@localhost", "1"))
        await drained(world, 0)
        await world.apps[1].service.shut_down()
        await world.settle()
        world.apps[1].service.draining = False
        again = await world.bind("alice", node=1)
        await again.send("<presence/>")
        assert bodies(await again.receive_all()) == ["1"]


async def two_alices(world: World) -> tuple[Client, Client, str, Client]:
    """One on the first node with the id of her session, one on the second, and bob, who wrote to both."""
    moves, stays = [await world.login("alice", node=node) for node in (0, 1)]
    bob = await world.login("bob", node=1)
    await moves.receive_all()
    await stays.receive_all()
    id = await enable(moves)
    await enable(stays)
    await bob.send(chat("alice@localhost", "1"))
    assert bodies(await stays.receive_all()) == bodies(await moves.receive_all()) == ["1"]
    return moves, stays, id, bob


async def acknowledge(world: World, client: Client) -> None:
    """All that it was sent, and some seconds before anything else is."""
    await client.send(f"<a xmlns='{ns.SM}' h='{state(client).sent}'/>")
    await world.advance(4.0)


@pytest.mark.parametrize("has_acknowledged", [True, False])
@pytest.mark.parametrize("is_kept", [True, False])
async def test_one_that_moved_gives_others_nothing_that_they_have_acknowledged(
    redis_url: str, is_kept: bool, has_acknowledged: bool
) -> None:
    async with World(nodes=2, plugins=OFFLINE, settings=several(redis_url)) as world:
        moves, stays, id, _ = await two_alices(world)
        if has_acknowledged:
            await acknowledge(world, stays)
        if is_kept:
            await drained(world, 0)
        else:
            again = await resume(world, moves, id, state(moves).acked, node=1)
            again.app.binding.end(again.session)
            await world.settle()
        got = bodies(await stays.receive_all())
        for _ in range(7):
            await acknowledge(world, stays)
            await world.advance(45)
            got += bodies(await stays.receive_all())
        assert got == ([] if has_acknowledged or is_kept else ["1"])


async def test_what_nobody_has_acknowledged_is_not_lost_where_one_moved(redis_url: str) -> None:
    async with World(nodes=2, plugins=OFFLINE, settings=several(redis_url)) as world:
        moves, stays, id, _ = await two_alices(world)
        again = await resume(world, moves, id, state(moves).acked, node=1)
        again.app.binding.end(again.session)
        await world.settle()
        stays.app.binding.end(stays.session)
        await world.settle()
        last = await world.bind("alice", node=0)
        await last.send("<presence/>")
        assert "1" in bodies(await last.receive_all())


@pytest.mark.parametrize("has_ended", [True, False])
async def test_what_one_that_moved_has_acknowledged_is_not_given_it_again(
    redis_url: str, has_ended: bool
) -> None:
    async with World(nodes=3, plugins=OFFLINE, settings=several(redis_url)) as world:
        moves, stays, id, _ = await two_alices(world)
        again = await resume(world, moves, id, state(moves).sent, node=2)
        await drained(world, 0)
        await again.receive_all()
        await acknowledge(world, again)
        if has_ended:
            await again.send("</stream:stream>")
            again = await world.login("alice", node=2)
        stays.app.binding.end(stays.session)
        await world.settle()
        assert bodies(await again.receive_all()) == []


@pytest.mark.parametrize("first", [0, 1])
async def test_what_nobody_has_acknowledged_is_not_lost_where_seconds_differ(
    redis_url: str, first: int
) -> None:
    async with World(nodes=2, plugins=OFFLINE, settings=several(redis_url)) as world:
        now = world.apps[0].resumption.now
        world.apps[0].resumption.now = lambda: now() + 1.0  # or it came there a moment later
        alices = [*(await two_alices(world))[:2]]
        for alice in (alices[first], alices[1 - first]):
            alice.app.binding.end(alice.session)
            await world.settle()
        last = await world.bind("alice", node=0)
        await last.send("<presence/>")
        assert bodies(await last.receive_all()) == ["1"]


async def test_where_nobody_keeps_a_session_it_is_left_over_at_once(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "KEPT", 0)
    async with World(nodes=2, plugins=OFFLINE, settings=several(redis_url)) as world:
        alice = await world.login("alice", "r", node=0)
        bob = await world.login("bob", node=1)
        await enable(alice)
        await bob.send(chat("alice@localhost", "1"))
        await drained(world, 0)
        again = await world.bind("alice", node=1)
        await again.send("<presence/>")
        assert bodies(await again.receive_all()) == ["1"]


async def test_a_kept_session_is_only_for_its_account_and_what_it_was_sent(redis_url: str) -> None:
    async with World(nodes=2, settings=several(redis_url)) as world:
        alice = await world.login("alice", "r", node=0)
        id = await enable(alice)
        await alice.send("<presence/>")
        await drained(world, 0)
        mallory = await ready(world, "bob", node=1)
        assert (await ask_to_resume(mallory, id)).tag == f"{SM}failed"
        again = await ready(world, "alice", node=1)
        await again.send(f"<resume xmlns='{ns.SM}' previd='{id}' h='5'/>")
        await again.expect_closed("undefined-condition")
        again = await ready(world, "alice", node=1)
        assert (await ask_to_resume(again, id, 1)).tag == f"{SM}resumed"


@pytest.mark.parametrize("first", [0, 1, None])
async def test_of_two_on_two_nodes_that_end_one_sees_to_what_both_were_sent(
    redis_url: str, first: int | None
) -> None:
    async with World(nodes=2, plugins=OFFLINE, settings=several(redis_url)) as world:
        alices = [await world.login("alice", node=node) for node in (0, 1)]
        bob = await world.login("bob", node=0)
        for alice in alices:
            await alice.receive_all()
            await enable(alice)
        await bob.send(chat("alice@localhost", "1"))
        for alice in alices:
            assert bodies(await alice.receive_all()) == ["1"]
        order = alices if first is None else [alices[first], alices[1 - first]]
        for alice in order:
            await alice.drop()
            if first is not None:
                world.apps[alices.index(alice)].binding.end(alice.session)
                await world.settle()
        await world.advance(310)  # those that are left end at the same time
        again = await world.bind("alice", node=0)
        await again.send("<presence/>")
        assert bodies(await again.receive_all()) == ["1"]


async def test_who_has_moved_still_has_what_both_were_sent(redis_url: str) -> None:
    async with World(nodes=2, plugins=OFFLINE, settings=several(redis_url)) as world:
        for node in (0, 1):  # of the one that is left
            alice = await world.login("alice", "moves", node=0)
            other = await world.login("alice", "stays", node=node)
            bob = await world.login("bob", node=0)
            await alice.receive_all()
            id = await enable(alice)
            await other.receive_all()
            await enable(other)
            await bob.send(chat("alice@localhost", "1"))
            stanzas = await alice.receive_all()
            assert bodies(stanzas) == bodies(await other.receive_all()) == ["1"]
            alice = await resume(world, alice, id, count(stanzas), node=1)
            assert bodies(await alice.receive_all()) == []
            other.app.binding.end(other.session)
            await world.settle()
            assert bodies(await alice.receive_all()) == []
            await alice.send("</stream:stream>")
            await bob.send("</stream:stream>")
