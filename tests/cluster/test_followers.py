"""Who is shown to a follower when his roster and that of whom he follows are known at different moments; and
what becomes of directed presence when two sessions have one name for a moment.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from several import several

from xmppd import ns
from xmppd.cluster.records import Directed, Place
from xmppd.core.shown import Late
from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio

ALICE, BOB = "alice@localhost", "bob@localhost"


async def seen(client: Client) -> list[tuple[str | None, str | None]]:
    """Who came or went."""
    shown = [(one.get("from"), one.get("type")) for one in await client.receive_all()]
    return [(full, kind) for full, kind in shown if full is not None and kind in (None, "unavailable")]


async def grant(world: World) -> Callable[[], Awaitable[None]]:
    """bob lets alice see him, on the first node: his half of it; and what does hers. So it is where she was
    expected (RFC 6121 3.4), or others make them friends.
    """
    contacts = world.apps[0].contacts
    late: Late = {}
    await contacts._say(BOB, ALICE, "subscribed", by="test", late=late)

    async def rest() -> None:
        await contacts.deliver(BOB, ALICE, "subscribed", by="test")
        contacts._presences.show(BOB, ALICE)
        await world.settle()

    return rest


@pytest.mark.parametrize("node", [1, 2])
async def test_who_comes_between_both_halves_of_a_grant_is_shown_whom_he_follows(
    redis_url: str, node: int
) -> None:
    async with World(settings=several(redis_url), nodes=3) as world:
        first = await world.login("bob", "first", node=0)
        asks = await world.login("alice", "first", node=1)
        await asks.send(f"<presence to='{BOB}' type='subscribe'/>")
        rest = await grant(world)
        await first.drop()
        bob = await world.login("bob", "game", node=node)
        await asks.drop()
        alice = await world.login("alice", "game", node=1)
        assert (bob.jid, None) not in await seen(alice)
        await rest()
        await world.advance(2)
        assert await seen(alice) == [(bob.jid, None)]
        await world.advance(60)
        await alice.expect_nothing()


async def test_whose_node_meets_another_one_between_both_halves_is_shown_who_is_there(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=3) as world:
        first, alice = await world.login("bob", "first", node=0), await world.login("alice", node=1)
        await alice.send(f"<presence to='{BOB}' type='subscribe'/>")
        rest = await grant(world)
        await first.drop()
        world.cut(1, 2)
        await world.advance(6)
        bob = await world.login("bob", "game", node=2)
        world.connect_nodes(1, 2, trunk=2)
        await world.settle()
        assert (bob.jid, None) not in await seen(alice)
        await rest()
        await world.advance(2)
        assert await seen(alice) == [(bob.jid, None)]


async def test_who_was_shown_when_it_was_granted_is_not_shown_again(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=3) as world:
        bobs = [await world.login("bob", f"at{node}", node=node) for node in range(3)]
        alice = await world.login("alice", node=0)
        await alice.send(f"<presence to='{BOB}' type='subscribe'/>")
        await bobs[1].send(f"<presence to='{ALICE}' type='subscribed'/>")
        await world.settle()
        shown = await seen(alice)
        assert sorted(full for full, kind in shown if kind is None) == [bob.jid for bob in bobs]
        await world.advance(60)
        await alice.expect_nothing()


@pytest.mark.parametrize("node", [0, 1])
async def test_who_comes_when_it_was_granted_by_an_old_roster_is_shown_all(redis_url: str, node: int) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        bob = await world.login("bob", node=0)
        asks = await world.login("alice", "first", node=0)
        await asks.send(f"<presence to='{BOB}' type='subscribe'/>")
        await asks.drop()
        await grant(world)
        world.apps[0].presences.show(BOB, ALICE)
        alice = await world.login("alice", "game", node=node)
        assert (bob.jid, None) not in await seen(alice)
        await world.advance(2)
        assert await seen(alice) == [(bob.jid, None)]


async def test_the_end_of_an_older_session_is_not_that_of_the_one_that_has_its_name(redis_url: str) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        bob = await world.login("bob", node=0)
        old = await world.login("alice", "game", node=1)
        world.cut(0, 1)
        await world.advance(6)
        new = await world.bind("alice", "game", node=0)
        await new.send(f"<presence to='{bob.jid}'/>")
        await bob.expect(f"<presence from='{new.jid}' to='{bob.jid}'/>")
        world.connect_nodes(0, 1, trunk=2)
        await old.send(f"<presence to='{bob.jid}'><show>dnd</show></presence>")
        await old.expect_closed("conflict")
        shown = [tree for tree in await bob.receive_all() if tree.get("from") == new.jid]
        assert [tree.get("type") for tree in shown] == [None] * len(shown)
        assert shown[-1].findtext(f"{{{ns.CLIENT}}}show") is None


async def test_who_is_shown_the_one_that_has_its_name_is_not_told_of_the_end_of_the_older_one(
    redis_url: str,
) -> None:
    async with World(settings=several(redis_url), nodes=2) as world:
        bobs = [await world.login("bob", f"at{number}", node=1) for number in range(2)]
        old = await world.login("alice", "game", node=1)
        await old.send(f"<presence to='{BOB}'/>")
        cluster = world.cluster(1)
        [member] = cluster.mesh.present()
        cluster.places.take(member, Place(ALICE, "game", 0, 99, 0))
        raw = f"<presence from='{old.jid}' to='{bobs[0].jid}'/>".encode()
        cluster.presence.take_directed(member, Directed(old.jid, bobs[0].jid, raw, is_end=False))
        for bob in bobs:
            await bob.receive_all()
        await old.drop()
        assert (old.jid, "unavailable") not in await seen(bobs[0])
        assert await seen(bobs[1]) == [(old.jid, "unavailable")]
