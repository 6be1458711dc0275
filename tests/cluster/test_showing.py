"""What other nodes show of contacts waits for a client that reads slowly, and is how things stand by then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from several import several
from slowly import LIMITS, read_slowly

from xmppd.cluster import answers, showing
from xmppd.testing import Client, World

pytestmark = pytest.mark.asyncio

COUNT = 12


def settings(redis_url: str) -> Mapping[str, Any]:
    return {**several(redis_url), "limits": LIMITS}


def crowd() -> tuple[str, ...]:
    return tuple(f"friend{number:02}" for number in range(COUNT))


def waiting(world: World) -> int:
    """How many presences wait on the first node."""
    return len(world.cluster(0).presence.showing)


async def with_slow_reader(world: World) -> tuple[Client, list[Client]]:
    """alice on the first node, who reads nothing, and contacts on the second with long presences."""
    alice = await world.login("alice", node=0)
    contacts = [await world.login(name, node=1) for name in crowd()]
    for contact in contacts:
        await world.befriend(alice, contact)
        await contact.send(f"<presence><status>{'x' * 10_000}</status></presence>")
    await alice.send("<presence type='unavailable'/>")
    for client in (alice, *contacts):
        await client.receive_all()
    alice.stop_reading()
    await alice.send("<presence/>")
    return alice, contacts


async def test_who_reads_slowly_is_shown_contacts_as_fast_as_he_reads(redis_url: str) -> None:
    async with World(accounts=("alice", *crowd()), settings=settings(redis_url), nodes=2) as world:
        alice, contacts = await with_slow_reader(world)
        assert COUNT / 2 < waiting(world) < COUNT
        assert len(alice.transport.held) < LIMITS["write_buffer_hard"] and not alice.closed
        assert await read_slowly(alice) == [alice.jid, *(contact.jid for contact in contacts)]
        assert not waiting(world)


async def test_what_is_newer_takes_the_place_of_what_waits(redis_url: str) -> None:
    async with World(accounts=("alice", *crowd()), settings=settings(redis_url), nodes=2) as world:
        alice, contacts = await with_slow_reader(world)
        changed, gone, former, left = contacts[-4:]
        await changed.send("<presence><show>dnd</show></presence>")
        await gone.send("<presence type='unavailable'/>")
        await former.send(f"<presence type='unsubscribed' to='{alice.bare}'/>")
        await left.drop()
        shown = await read_slowly(alice)
        assert [name for name in shown if changed.jid in name] == [changed.jid]
        assert b"<show>dnd</show>" in alice.raw[alice.raw.rindex(changed.jid.encode()) :]
        for contact in (gone, former, left):
            assert [name for name in shown if contact.jid in name] == [f"{contact.jid} unavailable"]
        assert {contact.jid for contact in contacts[:-3]} <= {*shown}


async def test_who_is_on_a_node_that_is_lost_is_not_shown_any_more(redis_url: str) -> None:
    async with World(accounts=("alice", *crowd()), settings=settings(redis_url), nodes=2) as world:
        alice, contacts = await with_slow_reader(world)
        world.cut(0, 1)
        await world.advance(6)
        assert not waiting(world)
        shown = await read_slowly(alice)
        assert [shown[-1 - number] for number in range(COUNT)] == [
            f"{contact.jid} unavailable" for contact in reversed(contacts)
        ]


async def test_who_is_expected_elsewhere_is_not_shown_any_more(redis_url: str) -> None:
    async with World(accounts=("alice", *crowd()), settings=settings(redis_url), nodes=2) as world:
        alice, contacts = await with_slow_reader(world)
        await world.drain(1)
        assert not waiting(world)
        assert len(await read_slowly(alice)) < COUNT
        await world.advance(61)
        assert sorted(await read_slowly(alice)) == [f"{contact.jid} unavailable" for contact in contacts]


async def test_what_is_shown_again_waits_once(redis_url: str) -> None:
    async with World(accounts=("alice", *crowd()), settings=settings(redis_url), nodes=2) as world:
        alice, contacts = await with_slow_reader(world)
        await alice.send(f"<presence type='probe' to='{contacts[0].bare}'/>")
        cluster = world.cluster(0)
        [member] = cluster.mesh.members.values()
        cluster.presence.joined(member)  # has all of them show themselves
        await world.settle()
        assert waiting(world) == COUNT
        assert {*await read_slowly(alice)} == {alice.jid, *(contact.jid for contact in contacts)}


@pytest.mark.parametrize("is_over", [True, False])
async def test_who_leaves_leaves_nothing_behind(redis_url: str, is_over: bool) -> None:
    async with World(accounts=("alice", *crowd()), settings=settings(redis_url), nodes=2) as world:
        alice, _ = await with_slow_reader(world)
        assert waiting(world)
        if is_over:
            await alice.drop()
        else:
            world.app.presences.lost(alice.session)
            assert len(await read_slowly(alice)) < COUNT
        assert not waiting(world)
        assert not world.cluster(0).presence.showing.due


async def with_less_room(world: World, monkeypatch: pytest.MonkeyPatch) -> tuple[Client, list[Client]]:
    """The same where no more than three of the presences wait, and then two are asked for at once."""
    monkeypatch.setattr(showing, "BYTES", 20_000)
    monkeypatch.setattr(showing, "AGAIN", 2)
    return await with_slow_reader(world)


def nothing_waits(world: World) -> bool:
    there = world.cluster(0).presence.showing
    return not (there.size or there.due or there._left_out)


async def test_what_waits_is_bounded_in_bytes_and_all_is_shown(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with World(accounts=("alice", *crowd()), settings=settings(redis_url), nodes=2) as world:
        alice, contacts = await with_less_room(world, monkeypatch)
        assert world.cluster(0).presence.showing.size < 20_000 + answers.SHOWN_BYTES + 11_000
        assert waiting(world) < COUNT / 2
        assert sorted(await read_slowly(alice)) == sorted([alice.jid, *(contact.jid for contact in contacts)])
        assert nothing_waits(world)


async def test_what_was_left_out_is_shown_as_it_is_by_then(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with World(accounts=("alice", *crowd()), settings=settings(redis_url), nodes=2) as world:
        alice, contacts = await with_less_room(world, monkeypatch)
        changed, gone = contacts[-2:]
        await changed.send("<presence><show>dnd</show></presence>")
        await gone.send("<presence type='unavailable'/>")
        shown = await read_slowly(alice)
        assert {contact.jid for contact in contacts[:-2]} <= {*shown}
        assert [name for name in shown if gone.jid in name][-1] == f"{gone.jid} unavailable"
        assert [name for name in shown if changed.jid in name][-1] == changed.jid
        assert b"<show>dnd</show>" in alice.raw[alice.raw.rindex(changed.jid.encode()) :]
        assert nothing_waits(world)


@pytest.mark.parametrize("is_lost", [True, False])
async def test_nothing_is_left_of_what_was_left_out(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, is_lost: bool
) -> None:
    async with World(accounts=("alice", *crowd()), settings=settings(redis_url), nodes=2) as world:
        alice, contacts = await with_less_room(world, monkeypatch)
        if is_lost:
            world.cut(0, 1)
            await world.advance(6)
            shown = await read_slowly(alice)
            assert {contact.jid for contact in contacts}.isdisjoint({*shown[-COUNT:]})
        else:
            await alice.drop()
        assert nothing_waits(world)
