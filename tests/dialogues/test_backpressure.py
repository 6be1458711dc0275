"""Nobody fills the memory: not who leaves everything unread, and not who asks faster than he reads."""

import pytest

from xmppd.testing import World

ITEMS = 100
GET = "<iq type='get' id='{}'><query xmlns='jabber:iq:roster'/></iq>"


async def with_contacts(world: World) -> None:
    """Give alice a roster of some 40 KB."""
    alice = await world.login("alice")
    for n in range(ITEMS):
        item = f"<item jid='contact-number-{n}@localhost' name='{'n' * 340}'/>"
        alice.write(f"<iq type='set' id='s{n}'><query xmlns='jabber:iq:roster'>{item}</query></iq>")
    await world.settle()
    await alice.drop()


@pytest.mark.asyncio
async def test_who_asks_and_does_not_read_is_not_read_from_in_the_middle_of_a_read() -> None:
    async with World(settings={"limits": {"write_buffer_soft": 100_000}}) as world:
        await with_contacts(world)
        alice = await world.login("alice", "one")
        alice.stop_reading()
        await alice.send("".join(GET.format(n) for n in range(60)))
        assert not alice.closed and not alice.transport.is_reading()
        assert len(alice.transport.held) < 300_000
        ids: list[str | None] = []
        while len(ids) < 60:
            alice.stop_reading()
            await alice.read_on()
            received = await alice.receive_all()
            assert received
            ids += [stanza.get("id") for stanza in received]
        assert ids == [str(n) for n in range(60)]
        assert alice.transport.is_reading()


@pytest.mark.asyncio
async def test_what_waited_for_a_slow_reader_goes_on_in_order() -> None:
    async with World(settings={"limits": {"write_buffer_soft": 100_000}}) as world:
        await with_contacts(world)
        alice, bob = await world.login("alice", "one"), await world.login("bob")
        alice.stop_reading()
        message = f"<message to='{bob.jid}' id='m'><body>x</body></message>"
        await alice.send("".join(GET.format(n) for n in range(20)) + message + "</stream:stream>")
        await bob.expect_nothing()
        await alice.read_on()
        assert (await bob.receive()).get("id") == "m"
        assert [s.get("id") for s in await alice.receive_all()] == [str(n) for n in range(20)]
        assert alice.raw.endswith(b"</stream:stream>")


@pytest.mark.asyncio
async def test_who_leaves_too_much_unread_is_cut_off() -> None:
    limits = {"write_buffer_soft": 10_000, "write_buffer_hard": 50_000}
    async with World(settings={"limits": limits}) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        bob.stop_reading()
        for _ in range(80):
            await alice.send(f"<message to='{bob.jid}'><body>{'x' * 1000}</body></message>")
        assert bob.closed and bob.jid not in world.app.sessions.by_full
        assert "unavailable" in [s.get("type") for s in await alice.receive_all()]
