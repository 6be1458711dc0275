"""What a login brings waits for a client that reads slowly, and says how things stand when it is read."""

import asyncio
import itertools
from collections.abc import Callable

import pytest
from slowly import LIMITS, read_slowly

from xmppd import ns
from xmppd.testing import Client, World
from xmppd.xml.build import element, stanza_of

KIB = 1024


def crowd(count: int) -> tuple[str, ...]:
    return tuple(f"friend{n}" for n in range(count))


async def with_friends(world: World, count: int, size: int) -> tuple[Client, list[Client]]:
    """A client that is not available yet, and contacts that are, each with so long a presence."""
    alice = await world.login("alice")
    friends = [await world.login(name) for name in crowd(count)]
    for friend in friends:
        await world.befriend(alice, friend)
        await friend.send(f"<presence><status>{'x' * size}</status></presence>")
    await alice.send("<presence type='unavailable'/>")
    for client in (alice, *friends):
        await client.receive_all()
    return alice, friends


@pytest.mark.asyncio
async def test_a_slow_reader_with_talkative_contacts_is_not_cut_off_at_login() -> None:
    async with World(accounts=("alice", *crowd(12)), settings={"limits": LIMITS}) as world:
        alice, friends = await with_friends(world, 12, 10_000)
        alice.stop_reading()
        await alice.send("<presence/>")
        assert len(alice.transport.held) < LIMITS["write_buffer_hard"] and not alice.closed
        first, *shown = await read_slowly(alice)
        assert first == alice.jid and sorted(shown) == sorted(friend.jid for friend in friends)


@pytest.mark.asyncio
async def test_what_is_shown_is_how_things_stand_when_it_is_read() -> None:
    async with World(accounts=("alice", *crowd(12)), settings={"limits": LIMITS}) as world:
        alice, friends = await with_friends(world, 12, 10_000)
        by_name = sorted(friends, key=lambda friend: friend.jid)
        alice.stop_reading()
        await alice.send("<presence/>")
        last, former, changed = by_name[-1], by_name[-2], by_name[-3]
        await last.send("<presence type='unavailable'/>")
        await former.send("<presence type='unsubscribed' to='alice@localhost'/>")
        await changed.send("<presence><show>dnd</show></presence>")
        shown = await read_slowly(alice)
        assert f"{last.jid} unavailable" in shown and last.jid not in shown
        assert former.jid not in shown[shown.index(f"{former.jid} unavailable") :]
        assert set(shown) >= {friend.jid for friend in by_name[:-2]}
        told = alice.raw[alice.raw.rindex(changed.jid.encode()) :]
        assert b"<show>dnd</show>" in told, "the older presence came last"


@pytest.mark.asyncio
async def test_requests_wait_for_a_slow_reader_too_and_only_open_ones_are_shown() -> None:
    async with World(accounts=("alice", *crowd(20)), settings={"limits": LIMITS}) as world:
        askers = [await world.login(name) for name in crowd(20)]
        for asker in askers:
            await asker.send(
                f"<presence type='subscribe' to='alice@localhost'><x>{'x' * 4000}</x></presence>"
            )
        await askers[9].send("<presence type='unsubscribe' to='alice@localhost'/>")
        alice = await world.bind("alice")
        alice.stop_reading()
        await alice.send("<presence/>")
        await askers[8].send("<presence type='unsubscribe' to='alice@localhost'/>")
        shown = await read_slowly(alice)
        expected = sorted(f"{a.bare} subscribe" for a in askers if a not in askers[8:10])
        assert shown == [alice.jid, *expected]


@pytest.mark.asyncio
async def test_what_a_client_asks_is_answered_behind_what_its_login_brings() -> None:
    async with World(accounts=("alice", "bob", *crowd(5))) as world:
        alice, friends = await with_friends(world, 5, 10)
        bob = await world.login("bob")
        await bob.send("<presence type='subscribe' to='alice@localhost'/>")
        ticks = itertools.count()
        world.app.cork.clock = lambda: next(ticks) * 0.0002  # a slice is long enough for one stanza
        alice.write(b"<presence/><iq type='get' id='last'><query xmlns='jabber:iq:roster'/></iq>")
        await world.settle()
        before, found, _ = alice.raw.partition(b"id='last'")
        assert found and b"type='subscribe'" in before
        shown = {friend for friend in friends if friend.jid.encode() in before.rpartition(b"unavailable")[2]}
        # What other nodes show comes when they have answered.
        assert shown >= {friend for friend in friends if friend.app is alice.app}
        assert all(friend.jid.encode() in alice.raw.rpartition(b"unavailable")[2] for friend in friends)


@pytest.mark.asyncio
async def test_last_words_wait_for_a_slow_reader() -> None:
    async with World(accounts=("alice", *crowd(20)), settings={"limits": LIMITS}) as world:
        alice, friends = await with_friends(world, 20, 10)
        for friend in friends:
            status = "x" * 4000
            await friend.send(f"<presence type='unavailable'><status>{status}</status></presence>")
        await world.settle()
        alice.stop_reading()
        await alice.send("<presence/>")
        *away, back = sorted(friends, key=lambda friend: friend.jid)
        await back.send("<presence/>")
        shown = await read_slowly(alice)
        assert sorted(shown) == sorted([alice.jid, *(f"{it.jid} unavailable" for it in away), back.jid])


@pytest.mark.asyncio
async def test_who_leaves_in_the_middle_leaves_nothing_behind() -> None:
    async with World(accounts=("alice", *crowd(12)), settings={"limits": LIMITS}) as world:
        alice, _ = await with_friends(world, 12, 10_000)
        alice.stop_reading()
        await alice.send("<presence/>")
        session = alice.session
        done = session.give(iter([b"<x/>"]))
        assert done is not None
        await alice.drop()
        await done
        assert session._bursts is None and session.give(iter([b"<x/>"])) is None


@pytest.mark.asyncio
async def test_a_login_with_a_thousand_contacts_holds_up_nobody() -> None:
    """No time is asserted, but that the work is divided: no turn of the loop draws everything."""
    async with World() as world:
        alice = await world.login("alice")
        drawn: list[int] = []

        def stanzas():
            for number in range(5000):
                drawn.append(number)
                yield b"<message id='%d'/>" % number

        waiting = alice.session.give(stanzas())
        assert waiting is not None and 0 < len(drawn) < 5000
        most, before = 0, len(drawn)
        while not waiting.done():
            await asyncio.sleep(0)
            most, before = max(most, len(drawn) - before), len(drawn)
        assert most < 5000
        received = await alice.receive_all()
        assert [s.get("id") for s in received] == [str(n) for n in range(5000)]


@pytest.mark.asyncio
@pytest.mark.parametrize("to", ["", " to='bob@localhost'", " type='subscribe' to='bob@localhost'"])
async def test_a_presence_that_is_too_long_is_refused(to: str) -> None:
    async with World(settings={"limits": {"presence_bytes": 2048}}) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        await alice.send(f"<presence id='p'{to}><status>{'x' * 2048}</status></presence>")
        refused = await alice.receive()
        assert refused.get("type") == "error" and refused.get("id") == "p"
        assert refused[0][0].tag.endswith("}policy-violation")
        await bob.expect_nothing()
        await alice.send(f"<presence{to}><status>{'x' * 1900}</status></presence>")
        assert all(stanza.get("type") != "error" for stanza in await alice.receive_all())


@pytest.mark.one_node("each process has its own memory")
@pytest.mark.asyncio
async def test_all_together_are_bounded_and_the_greediest_goes_first() -> None:
    limits = {**LIMITS, "write_buffer_hard": 200_000, "unsent_bytes": 200_000}
    names = ("alice", *crowd(6))
    async with World(accounts=names, settings={"limits": limits}) as world:
        alice = await world.login("alice")
        deaf = [await world.login(name) for name in crowd(6)]
        for client in deaf:
            client.stop_reading()
        message = f"<body>{'x' * 5000}</body></message>"
        for round_ in range(10):
            for client in deaf[: 6 if round_ < 4 else 5]:
                await alice.send(f"<message to='{client.jid}'>{message}")
            await alice.send(f"<message to='{deaf[0].jid}'>{message}")
        assert deaf[0].closed, "the greediest"
        assert not deaf[5].closed, "the most modest"
        assert sum(len(c.transport.held) for c in deaf if not c.closed) < 200_000 * 1.1
        assert alice.jid in world.app.sessions.by_full


@pytest.mark.asyncio
async def test_one_stanza_is_never_too_much_for_who_reads() -> None:
    limits = {"write_buffer_soft": 10_000, "write_buffer_hard": 30_000}
    async with World(settings={"limits": limits}) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        bob.stop_reading()
        await alice.send(f"<message to='{bob.jid}'><body>{'x' * 60_000}</body></message>")
        assert not bob.closed
        await bob.read_on()
        assert len(await bob.receive_all()) == 1


async def in_rounds(world: World, count: int) -> tuple[Client, list[Client]]:
    """A client with many contacts who are online, and no time for more than a step of work in a turn."""
    alice, friends = await with_friends(world, count, 10)
    await alice.send("<presence/>")
    for client in (alice, *friends):
        await client.receive_all()
    world.app.sessions.rounds._clock = iter(range(10**9)).__next__
    return alice, friends


@pytest.mark.asyncio
async def test_a_broadcast_to_many_is_divided_and_its_sender_waits_for_it() -> None:
    async with World(accounts=("alice", *crowd(40))) as world:
        alice, friends = await in_rounds(world, 40)
        last = max(friends, key=lambda friend: friend.bare)
        alice.write("<presence><show>dnd</show></presence>")
        alice.write(f"<message to='{last.jid}' id='m'><body>x</body></message>")
        assert world.app.sessions.rounds.is_due
        await world.settle()
        for friend in friends:
            received = await friend.receive_all()
            kinds = ["presence", "message"] if friend is last else ["presence"]
            assert [stanza.tag.partition("}")[2] for stanza in received] == kinds


@pytest.mark.asyncio
async def test_who_loses_sight_in_the_middle_is_not_shown_what_comes_then() -> None:
    async with World(accounts=("alice", *crowd(40))) as world:
        alice, friends = await in_rounds(world, 40)
        last = max(friends, key=lambda friend: friend.bare)
        held: list[Callable[[], None]] = []
        world.app.sessions.rounds._call_soon = held.append
        alice.write("<presence><show>dnd</show></presence>")
        assert world.app.sessions.rounds.is_due
        await world.app.contacts.send("alice@localhost", last.bare, "unsubscribed", by="test")
        world.app.sessions.rounds._call_soon = asyncio.get_running_loop().call_soon
        held.pop()()
        await world.settle()
        shown = [stanza.get("type") for stanza in await last.receive_all() if stanza.get("from") == alice.jid]
        assert shown == ["unavailable"]


@pytest.mark.asyncio
async def test_an_end_in_the_middle_of_a_broadcast_comes_last_and_before_the_next_session() -> None:
    async with World(accounts=("alice", *crowd(40))) as world:
        alice, friends = await in_rounds(world, 40)
        session = alice.session
        alice.write("<presence><show>dnd</show></presence>")
        assert world.app.sessions.rounds.is_due
        world.app.binding.end(session)
        assert world.app.sessions.rounds.is_due
        again = world.app.sessions.add(session.login, session.resource, alice._wire.stream, "")
        world.app.sessions.cluster.bound(again)
        again.live.roster = session.live.roster
        world.app.sessions.rounds.finish("nobody")
        waiting = world.app.presences.update(again, stanza_of(element(f"{{{ns.CLIENT}}}presence", {})))
        if waiting is not None:
            await waiting
        await world.settle()
        for friend in friends:
            shown = [s.get("type") for s in await friend.receive_all() if s.get("from") == alice.jid]
            assert shown in ([None, "unavailable", None], ["unavailable", None])


@pytest.mark.asyncio
async def test_plugins_are_told_of_an_end_when_all_have_been_told() -> None:
    async with World(accounts=("alice", *crowd(40)), plugins=("last",)) as world:
        alice, friends = await in_rounds(world, 40)
        told: list[int] = []
        hook = world.app.hooks.session_closed_signal

        def watch(session: object) -> None:
            told.append(sum(b"unavailable" in friend.raw for friend in friends))

        world.app.hooks.session_closed_signal = (*hook, watch)
        await alice.drop()
        await world.settle()
        assert told == [40]
