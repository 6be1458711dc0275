"""A node that is told to stop: contacts do not see those go who are back on another node within the grace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from several import CHAT, bodies, several

from xmppd import ns
from xmppd.cluster import grace
from xmppd.cluster.grace import Grace
from xmppd.errors import StreamError
from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio


def settings(redis_url: str, seconds: float = 60) -> Mapping[str, Any]:
    return {**several(redis_url), "cluster": {"grace": seconds}}


def left_of(world: World) -> list[int]:
    """How many pairs each node remembers of sessions that are expected."""
    return [len(world.cluster(node).presence.grace) for node in range(len(world.apps))]


async def friends(world: World) -> tuple[Client, Client, Client]:
    """alice on node 0, bob on node 1, carol on node 2, who see bob."""
    alice, bob = await world.login("alice", node=0), await world.login("bob", "game", node=1)
    carol = await world.login("carol", node=2)
    await world.befriend(alice, bob)
    await world.befriend(carol, bob)
    return alice, bob, carol


@pytest.mark.parametrize(("node", "sent_to"), [(0, ""), (2, ""), (0, "chat.example.org")])
async def test_who_is_back_in_time_is_not_seen_to_go(redis_url: str, node: int, sent_to: str) -> None:
    async with World(settings=settings(redis_url), nodes=3) as world:
        alice, bob, carol = await friends(world)
        world.apps[1].service.other_host = sent_to
        await world.drain(1)
        await world.advance(59)
        again = await world.bind("bob", "game", node=node)
        await alice.expect_nothing()
        await again.send("<presence><show>dnd</show></presence>")
        for client in (alice, carol):
            await client.expect(f"<presence from='{bob.jid}' to='{client.bare}'><show>dnd</show></presence>")
        assert left_of(world) == [0, 0, 0]
        await world.advance(120)
        for client in (alice, carol):
            await client.expect_nothing()
        await again.drop()
        for client in (alice, carol):
            await client.expect(f"<presence from='{bob.jid}' to='{client.bare}' type='unavailable'/>")


async def test_who_may_not_see_him_any_more_sees_him_go(redis_url: str) -> None:
    async with World(settings=settings(redis_url), plugins=("blocking",), nodes=3) as world:
        _, bob, carol = await friends(world)
        other = await world.bind("bob", "other", node=0)
        await world.drain(1)
        block = f"<block xmlns='{ns.BLOCKING}'><item jid='{carol.bare}'/></block>"
        assert (await other.ask("set", block)).get("type") == "result"
        again = await world.bind("bob", "game", node=2)
        await again.send("<presence/>")
        await world.advance(62)
        shown = [(tree.get("from"), tree.get("type")) for tree in await carol.receive_all()]
        assert shown == [(bob.jid, "unavailable")]


@pytest.mark.parametrize("comes", ["not", "bound", "and goes"])
async def test_who_is_not_back_is_gone_when_the_grace_is_over(redis_url: str, comes: str) -> None:
    async with World(settings=settings(redis_url), nodes=3) as world:
        alice, bob, carol = await friends(world)
        await world.drain(1)
        if comes != "not":
            again = await world.bind("bob", "game", node=0)
            if comes == "and goes":
                await again.drop()
        await world.advance(59)
        for client in (alice, carol):
            await client.expect_nothing()
        await world.advance(2)
        for client in (alice, carol):
            await client.expect(f"<presence from='{bob.jid}' to='{client.bare}' type='unavailable'/>")
            await client.expect_nothing()
        assert left_of(world) == [0, 0, 0]


async def test_contacts_on_the_node_that_stops_do_not_see_it_either(redis_url: str) -> None:
    async with World(settings=settings(redis_url), nodes=2) as world:
        alice, bob = await world.login("alice", node=1), await world.login("bob", "game", node=1)
        other = await world.login("bob", "pc", node=1)
        await world.befriend(alice, bob)
        world.apps[1].binding.end(bob.session, StreamError("system-shutdown"))
        for client in (alice, other):
            await client.expect_nothing()
        again = await world.login("bob", "game", node=0)
        for client in (alice, other):
            await client.expect(f"<presence from='{again.jid}' to='{client.bare}'/>")
            await client.expect_nothing()
        await world.advance(61)
        for client in (alice, other):
            await client.expect_nothing()


async def test_a_new_resource_takes_the_place_of_the_old_one(redis_url: str) -> None:
    async with World(settings=settings(redis_url), nodes=3) as world:
        alice, bob, carol = await friends(world)
        await world.drain(1)
        again = await world.login("bob", "another", node=0)
        for client in (alice, carol):
            await client.expect(f"<presence from='{again.jid}' to='{client.bare}'/>")
            await client.expect(f"<presence from='{bob.jid}' to='{client.bare}' type='unavailable'/>")
            await client.expect_nothing()
        assert left_of(world) == [0, 0, 0]


async def test_of_two_resources_each_is_expected_for_itself(redis_url: str) -> None:
    async with World(settings=settings(redis_url), nodes=3) as world:
        alice, bob, carol = await friends(world)
        pc, phone = await world.login("bob", "pc", node=1), await world.login("bob", "phone", node=0)
        for client in (alice, bob, carol):
            await client.receive_all()
        await world.drain(1)
        await phone.send("<presence><show>away</show></presence>")  # was there all the time
        again = await world.login("bob", "game", node=2)
        for client in (alice, carol):
            shown = [(tree.get("from"), tree.get("type")) for tree in await client.receive_all()]
            assert shown == [(phone.jid, None), (bob.jid, None)]
        for client in (phone, again):
            await client.receive_all()
        await world.advance(61)
        for client in (alice, carol, phone):
            await client.expect(f"<presence from='{pc.jid}' to='{client.bare}' type='unavailable'/>")
            await client.expect_nothing()
        await again.expect_nothing()


@pytest.mark.parametrize("node", [0, 2])
async def test_the_end_of_directed_presence_is_withheld_too(redis_url: str, node: int) -> None:
    async with World(settings=settings(redis_url), nodes=3) as world:
        alice, carol = await world.login("alice", node=0), await world.login("carol", node=0)
        dave, bob = await world.login("carol", "other", node=1), await world.login("bob", "game", node=1)
        for client in (alice, carol, dave):
            await bob.send(f"<presence to='{client.jid}'/>")
            await client.receive_all()
        world.apps[1].binding.end(bob.session, StreamError("system-shutdown"))
        for client in (alice, carol, dave):
            await client.expect_nothing()
        again = await world.login("bob", "game", node=node)
        await again.send(f"<presence to='{alice.jid}'/>")
        await alice.expect(f"<presence from='{bob.jid}' to='{alice.jid}'/>")
        await world.advance(2)
        await carol.expect_nothing()
        await world.advance(2)  # not more than who is back needs
        for client in (carol, dave):
            await client.expect(f"<presence from='{bob.jid}' to='{client.jid}' type='unavailable'/>")
        await world.advance(61)
        for client in (alice, carol, dave):
            await client.expect_nothing()
        assert left_of(world) == [0, 0, 0]


async def test_directed_presence_of_who_comes_by_another_resource_ends(redis_url: str) -> None:
    async with World(settings=settings(redis_url), nodes=3) as world:
        alice, bob = await world.login("alice", node=0), await world.login("bob", "game", node=1)
        await bob.send(f"<presence to='{alice.jid}'/>")
        await alice.receive_all()
        world.apps[1].binding.end(bob.session, StreamError("system-shutdown"))
        await world.login("bob", "phone", node=2)
        await alice.expect_nothing()
        await world.advance(4)
        await alice.expect(f"<presence from='{bob.jid}' to='{alice.jid}' type='unavailable'/>")
        await world.advance(61)
        await alice.expect_nothing()
        assert left_of(world) == [0, 0, 0]


async def test_meanwhile_it_is_as_if_it_were_not_there(redis_url: str) -> None:
    async with World(settings=settings(redis_url), nodes=3, plugins=("offline",)) as world:
        alice, bob, carol = await friends(world)
        await world.drain(1)
        await alice.send(CHAT.format(to=bob.jid, body="stored"))
        newcomer = await world.bind("carol", "new", node=0)
        await newcomer.send("<presence/>")
        assert {tree.get("from") for tree in await newcomer.receive_all()} == {newcomer.jid, carol.jid}
        await newcomer.send(f"<presence type='probe' to='{bob.bare}'/>")
        await newcomer.expect(f"<presence from='{bob.bare}' to='{newcomer.bare}' type='unavailable'/>")
        again = await world.bind("bob", "game", node=2)
        await again.send("<presence/>")
        assert await bodies(again) == ["stored"]
        await alice.expect(f"<presence from='{bob.jid}' to='{alice.bare}'/>")


async def test_who_says_farewell_or_dies_has_no_grace(redis_url: str) -> None:
    async with World(settings=settings(redis_url), nodes=3) as world:
        alice, bob, carol = await friends(world)
        await bob.send("<presence type='unavailable'><status>bye</status></presence>")
        for client in (alice, carol):
            assert (await client.receive()).get("type") == "unavailable"
        await bob.send("<presence/>")
        for client in (alice, carol):
            assert (await client.receive()).get("type") is None
        world.cut(1, 0)
        world.cut(1, 2)
        await world.advance(6)
        for client in (alice, carol):
            await client.expect(f"<presence from='{bob.jid}' to='{client.bare}' type='unavailable'/>")


async def test_without_a_grace_the_end_is_shown_at_once(redis_url: str) -> None:
    async with World(settings=settings(redis_url, 0), nodes=3) as world:
        alice, bob, carol = await friends(world)
        await bob.send(f"<presence to='{alice.jid}'/>")
        await alice.receive_all()
        await world.drain(1)
        for client in (alice, carol):
            await client.expect(f"<presence from='{bob.jid}' to='{client.bare}' type='unavailable'/>")
            await client.expect_nothing()


async def test_what_is_too_many_is_shown_at_once(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grace, "PAIRS", 1)
    async with World(settings=settings(redis_url), nodes=2) as world:
        alice, carol = await world.login("alice", node=0), await world.login("carol", node=0)
        bob = await world.login("bob", "game", node=1)
        await world.befriend(alice, bob)
        await world.befriend(carol, bob)
        await world.drain(1)
        shown = [await client.receive_all() for client in (alice, carol)]
        assert sorted(len(trees) for trees in shown) == [0, 1]
        assert left_of(world)[0] == 1


async def test_who_follows_no_more_is_shown_the_end(redis_url: str) -> None:
    async with World(settings=settings(redis_url), nodes=3) as world:
        alice, bob, carol = await friends(world)
        await world.drain(1)
        await world.app.contacts.send("bob@localhost", "carol@localhost", "unsubscribed", by="test")
        await world.settle()
        await carol.receive_all()
        await world.login("bob", "game", node=0)
        await alice.expect(f"<presence from='{bob.jid}' to='{alice.bare}'/>")
        await carol.expect_nothing()
        await world.advance(61)
        await carol.expect(f"<presence from='{bob.jid}' to='{carol.bare}' type='unavailable'/>")
        await alice.expect_nothing()


class Timers:
    """What is to be done later, and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: list[tuple[float, Any]] = []

    def call_later(self, seconds: float, do: Any) -> None:
        self.due.append((self.now + seconds, do))

    def pass_to(self, now: float) -> None:
        self.now = now
        due, self.due = [do for at, do in self.due if at <= now], [one for one in self.due if one[0] > now]
        for do in due:
            do()


async def test_the_tables_of_a_grace() -> None:
    timers, late, back = Timers(), [], []
    is_back = lambda full, names: back.append((full, {*names}))  # noqa: E731
    expected = Grace(60.0, lambda: timers.now, timers.call_later, late.extend, is_back)
    assert expected.hold("bob@x/1", "alice@x")
    timers.pass_to(30.0)
    assert expected.hold("bob@x/2", "alice@x") and expected.hold("bob@x/2", "carol@x")
    assert expected.hold("bob@x/2", "alice@x", is_directed=True)
    assert len(expected) == 4
    expected.came("bob@x/2")
    assert not expected.shown("bob@x/2", "carol@x") and len(expected) == 3
    expected.came("bob@x/3")
    assert expected.shown("bob@x/3", "alice@x") == ["bob@x/1", "bob@x/2"]
    assert len(expected) == 1 and expected
    assert not expected.shown("bob@x/3", "alice@x")
    timers.pass_to(33.0)
    assert back == [("bob@x/2", {"alice@x"})]
    assert not expected and not len(expected) and not expected._of
    timers.pass_to(90.0)
    assert not late
    timers.pass_to(99.0)
    assert not timers.due, "nothing is left to be done"


async def test_who_moves_again_is_expected_anew() -> None:
    timers, late, back = Timers(), [], []
    is_back = lambda full, names: back.append((full, {*names}))  # noqa: E731
    expected = Grace(60.0, lambda: timers.now, timers.call_later, late.extend, is_back)
    assert expected.hold("bob@x/1", "alice@x")
    timers.pass_to(50.0)
    assert expected.hold("bob@x/1", "alice@x")
    expected.came("bob@x/1")
    assert expected.hold("bob@x/1", "alice@x", is_directed=True)
    timers.pass_to(51.0)
    expected.came("bob@x/1")
    timers.pass_to(52.0)
    assert expected.hold("bob@x/1", "carol@x", is_directed=True)
    timers.pass_to(111.0)
    assert not (late or back) and expected.take("bob@x/1") is None
    timers.pass_to(112.0)
    assert late == ["bob@x/1"]
