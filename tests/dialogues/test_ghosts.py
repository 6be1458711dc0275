"""Presence around an await: who was shown a session hears of its end, whatever changed meanwhile."""

import asyncio

import pytest

from xmppd.testing import Client, World

TURNS = range(0, 40, 2)
"""How many turns of the loop pass between a change and what crosses it."""


async def step(count: int) -> None:
    """Let so many turns of the loop pass."""
    for _ in range(count):
        await asyncio.sleep(0)


async def last_shown(viewer: Client, of: str) -> str | None:
    """The type of the last presence the viewer was shown of a full JID."""
    shown = [s for s in await viewer.receive_all() if s.tag.endswith("presence") and s.get("from") == of]
    return shown[-1].get("type") if shown else "nothing"


END = {
    "said": "<presence type='unavailable'/>",
    "closed": "</stream:stream>",
}

CANCELS = {
    "unsubscribed": "<presence type='unsubscribed' to='bob@localhost'/>",
    "remove": "<iq type='set' id='r'><query xmlns='jabber:iq:roster'>"
    "<item jid='bob@localhost' subscription='remove'/></query></iq>",
}


@pytest.mark.asyncio
@pytest.mark.parametrize("how", END)
@pytest.mark.parametrize("cancel", CANCELS)
async def test_a_logout_right_after_a_cancellation_leaves_no_ghost(cancel: str, how: str) -> None:
    async with World() as world:
        for turns in TURNS:
            alice, other = await world.login("alice", "one"), await world.login("alice", "two")
            bob = await world.login("bob")
            await world.befriend(alice, bob)
            other.write(CANCELS[cancel])
            await step(turns)
            alice.write(END[how])
            assert await last_shown(bob, alice.jid) == "unavailable", turns
            for client in (alice, other, bob):
                await client.drop()


@pytest.mark.asyncio
@pytest.mark.parametrize("how", END)
async def test_a_logout_while_a_follower_goes_leaves_no_ghost(how: str) -> None:
    async with World() as world:
        for turns in TURNS:
            alice, bob = await world.login("alice"), await world.login("bob")
            await world.befriend(alice, bob)
            bob.write("<presence type='unsubscribe' to='alice@localhost'/>")
            await step(turns)
            alice.write(END[how])
            assert await last_shown(bob, alice.jid) == "unavailable", turns
            await alice.drop(), await bob.drop()


@pytest.mark.asyncio
async def test_another_nodes_cancellation_hides_who_is_here() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        await world.app.rosters.outbound_subscription("alice@localhost", "bob@localhost", "unsubscribed")
        cached = world.app.rosters.cached("alice@localhost")
        assert cached is not None
        world.app.elsewhere.roster_loaded(cached)  # as a notice of another node leads to it
        assert await last_shown(bob, alice.jid) == "unavailable"
        await world.app.rosters.inbound_subscription("alice@localhost", "bob@localhost", "subscribe")
        await world.app.rosters.outbound_subscription("alice@localhost", "bob@localhost", "subscribed")
        cached = world.app.rosters.cached("alice@localhost")
        assert cached is not None
        world.app.elsewhere.roster_loaded(cached)
        assert await last_shown(bob, alice.jid) is None
