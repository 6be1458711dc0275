"""Nodes that die in the midst of an invite: all agree on what became of it, and it ends in time."""

from __future__ import annotations

import pytest
from inviting import ALICE, BOB, NS, answer, ask, friends, id_of, pending, pushes, world_of
from mortal import Mortal

from xmppd.testing import Client, World

WRITES = range(1, 5)


async def reborn(world: World) -> None:
    """Another process: nothing is remembered."""
    for app in world.apps:
        await app.loader.reload("invites", app.config)
    await world.settle()


async def do(world: World, clients: dict[str, Client], deed: str, id: str) -> None:
    alice, bob = clients["alice"], clients["bob"]
    if deed == "invite":
        await ask(alice, f"<invite xmlns='{NS}' to='{BOB}' kind='match' target='m-2' seconds='60'/>")
    elif deed == "block":
        await bob.send(
            f"<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='{ALICE}'/></block></iq>"
        )
        await world.settle()
    else:
        await answer(alice if deed == "cancel" else bob, deed, id)


async def states(world: World, account: str) -> dict[str, str]:
    rows = await world.app.commands.call("invite list", {"account": account})
    return {row["id"]: row["state"] for row in rows}


@pytest.mark.asyncio
@pytest.mark.parametrize("is_done", [False, True])
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("deed", ["invite", "accept", "decline", "cancel", "block"])
async def test_both_see_the_same_after_a_kill(deed: str, write: int, is_done: bool) -> None:
    async with world_of("blocking", pending=3) as world:
        alice, bob = await friends(world)
        clients = {"alice": alice, "bob": bob}
        for client in (alice, bob):
            await pending(client)
        id = await id_of(alice, seconds="60")
        deaths = [Mortal(world, "invites_", node=node) for node in range(len(world.apps))]
        for mortal in deaths:
            mortal.die_at(write, is_done=is_done)
        await do(world, clients, deed, id)
        for mortal in deaths:
            mortal.revive()
        await reborn(world)
        for client in (alice, bob):
            await pushes(world, client)
        assert await states(world, ALICE) == await states(world, BOB)
        mine = list((await ask(alice, f"<invites xmlns='{NS}'/>", "get"))[0])
        theirs = list((await ask(bob, f"<invites xmlns='{NS}'/>", "get"))[0])
        assert [dict(it.attrib) for it in mine] == [dict(it.attrib) for it in theirs]
        if deed == "invite":
            again = await id_of(alice, target="m-2", game="", seconds="60")
            assert [one for one, state in (await states(world, BOB)).items() if state == "pending"].count(
                again
            ) == 1
        await world.advance(70)
        for client in (alice, bob):
            assert await pending(client) == []
        left = await states(world, ALICE)
        assert left == await states(world, BOB)
        assert "pending" not in left.values()
        if deed != "block":
            for number in range(3):
                assert await id_of(alice, target=f"n-{number}")


@pytest.mark.asyncio
@pytest.mark.one_node
@pytest.mark.parametrize("deed", ["accept", "decline", "cancel"])
async def test_who_is_on_another_node_learns_how_it_ended(deed: str) -> None:
    """The node on which it was answered dies before it tells the others."""
    async with world_of(nodes=2) as world:
        here, there = ("bob", "alice") if deed == "cancel" else ("alice", "bob")
        clients = {here: await world.login(here, node=0), there: await world.login(there, node=1)}
        await world.befriend(*clients.values())
        for client in clients.values():
            await pending(client)
        id = await id_of(clients["alice"], seconds="60")
        mortal = Mortal(world, "invites_", node=1)
        mortal.die_at(1, is_done=True)
        await do(world, clients, deed, id)
        world.cut(0, 1)
        mesh = world.cluster(0).mesh
        mesh.give_up(next(iter(mesh.members.values())), "it was killed")
        await pushes(world, clients[here])
        await world.advance(61)
        ended = {"accept": "accepted", "decline": "declined", "cancel": "cancelled"}[deed]
        assert await pushes(world, clients[here]) == [ended]
        assert await pending(clients[here]) == []
        assert await states(world, ALICE) == await states(world, BOB) == {id: ended}


@pytest.mark.asyncio
async def test_who_invited_somebody_that_is_removed_is_told() -> None:
    async with world_of() as world:
        alice, _ = await friends(world)
        await pending(alice)
        await id_of(alice)
        await world.app.server.remove_account(BOB)
        await world.settle()
        assert await pushes(world, alice) == ["pending", "declined"]
        assert await pending(alice) == []


@pytest.mark.asyncio
@pytest.mark.parametrize("who", ["alice", "bob"])
async def test_invites_follow_who_is_renamed(who: str) -> None:
    async with world_of() as world:
        alice, bob = await friends(world)
        id = await id_of(alice, seconds="600")
        await world.app.commands.call("account rename", {"old": f"{who}@localhost", "new": "zoe@localhost"})
        await world.settle()
        names = {"alice": "alice", "bob": "bob", who: "zoe"}
        alice, bob = [await world.login(names[name]) for name in ("alice", "bob")]
        pair = [(f"{names['alice']}@localhost", f"{names['bob']}@localhost")]
        assert await pending(alice) == await pending(bob) == pair
        assert await answer(alice if who == "bob" else bob, "cancel" if who == "bob" else "accept", id) == (
            "cancelled" if who == "bob" else "accepted"
        )
        for client in (alice, bob):
            assert len(await pushes(world, client)) == 1
