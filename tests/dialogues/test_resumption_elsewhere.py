"""A session that is resumed on another node than the one that has it (XEP-0198 5)."""

import pytest
from managing import ASK, SM, ask_to_resume, bodies, count, enable, ready, resume, state
from several import several

from xmppd import ns
from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio

OFFLINE = ("offline",)


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
        assert not any(app.resumption._all for app in world.apps)
