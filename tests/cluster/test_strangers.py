"""Who is shown somebody that his own roster does not list, for a kill came between the two halves of what
they did: he sees him end as everybody does, when the node of that one is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from several import several

from xmppd import ns
from xmppd.cluster import strangers
from xmppd.core.friendships import Friendships
from xmppd.errors import StoreError
from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio

ALICE, BOB = "alice@localhost", "bob@localhost"


async def seen(client: Client) -> list[tuple[str | None, str | None]]:
    """Who came or went."""
    shown = [(one.get("from"), one.get("type")) for one in await client.receive_all()]
    return [(full, kind) for full, kind in shown if full is not None and kind in (None, "unavailable")]


def die_behind(writes: int, world: World, node: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a node make some changes of rosters, and none after them."""
    made: list[str] = []
    change = world.apps[node].rosters.change

    async def make(account: str, *arguments: Any, **words: Any) -> Any:
        if len(made) == writes:
            raise StoreError("killed")
        made.append(account)
        return await change(account, *arguments, **words)

    monkeypatch.setattr(world.apps[node].rosters, "change", make)


Act = Callable[[World, Client, Client], Any]


async def _ends(world: World, alice: Client, bob: Client) -> None:
    await alice.send(f"<presence to='{BOB}' type='unsubscribe'/>")


async def _grants(world: World, alice: Client, bob: Client) -> None:
    await bob.send(f"<presence to='{ALICE}' type='subscribed'/>")


async def _removes(world: World, alice: Client, bob: Client) -> None:
    item = f"<item jid='{ALICE}' subscription='remove'/>"
    await bob.send(f"<iq type='set' id='r'><query xmlns='{ns.ROSTER}'>{item}</query></iq>")


async def _befriends(world: World, alice: Client, bob: Client) -> None:
    app = world.apps[1]
    rosters = Friendships(app.rosters, app.contacts, app.accounts)
    with suppress(StoreError):
        await rosters.befriend(BOB, ALICE)


@pytest.mark.parametrize("writes", [1, 2])
@pytest.mark.parametrize(
    ("act", "before"),
    [
        pytest.param(_ends, "both", id="ends"),
        pytest.param(_grants, "asked", id="grants"),
        pytest.param(_removes, "both", id="removes"),
        pytest.param(_befriends, "", id="befriends"),
    ],
)
async def test_a_kill_between_both_halves_leaves_nobody_in_view(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, act: Act, before: str, writes: int
) -> None:
    async with World(settings=several(redis_url), nodes=3) as world:
        alice, bob = await world.login("alice", node=0), await world.login("bob", node=1)
        if before == "both":
            await world.befriend(alice, bob)
        elif before:
            await alice.send(f"<presence to='{BOB}' type='subscribe'/>")
        for node in (0, 1):
            die_behind(writes, world, node, monkeypatch)
        await act(world, alice, bob)
        await world.settle()
        await alice.drop()
        alice = await world.login("alice", "game", node=2)
        await alice.receive_all()
        await bob.send("<presence><show>dnd</show></presence>")
        await world.settle()
        shown = await seen(alice)
        world.cut(1, 2)
        await world.advance(6)
        assert (shown + await seen(alice))[-1:] in ([], [(bob.jid, "unavailable")])


async def test_what_is_remembered_is_bounded_and_goes_with_who_is_shown_it(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strangers, "MOST", 1)
    async with World(settings=several(redis_url), nodes=2) as world:
        alice = await world.login("alice", node=0)
        others = [await world.login(name, node=1) for name in ("bob", "carol")]
        kept = world.cluster(0).presence.strangers
        for other in others:
            await world.befriend(alice, other)
            await alice.send(f"<presence to='{other.bare}' type='unsubscribe'/>")
        await world.settle()
        assert len(kept) == 1
        await alice.send("<presence type='unavailable'/>")
        await world.settle()
        assert len(kept) == 0
        await alice.send("<presence/>")
        await world.settle()
        world.cut(0, 1)
        await world.advance(6)
        assert len(kept) == 0


async def test_who_asks_how_a_session_is_shown_is_answered_by_directed_presence_as_well(
    redis_url: str,
) -> None:
    """Though it was not shown it before: it was shown another one of that name."""
    async with World(settings=several(redis_url), nodes=2) as world:
        alice, bob = await world.login("alice", node=0), await world.login("bob", "r", node=1)
        await bob.send(f"<presence to='{alice.jid}'><status>here</status></presence>")
        await seen(alice)
        presence = world.cluster(0).presence
        presence.directed.seen.forget(alice.session, bob.jid)
        [place] = presence._mesh.places(bob.bare)
        presence._ask(alice.session, bob.jid, place.node, place.number)
        await world.settle()
        assert presence._asked == {}
        assert await seen(alice) == [(bob.jid, None)]
