"""RFC 6121 4.6: presence for one entity, and that it always hears of the end."""

import pytest

from xmppd.core import presence, rounds
from xmppd.testing import Client, World


async def friends(world: World) -> tuple[Client, Client]:
    """Alice, who has not sent presence, and Bob, who sees hers once she does."""
    alice, bob = await world.login("alice"), await world.login("bob", "one")
    await world.befriend(alice, bob)
    await alice.drop()
    alice = await world.bind("alice")
    await alice.ask("get", "<query xmlns='jabber:iq:roster'/>")
    await bob.receive_all()
    return alice, bob


async def end(client: Client, how: str) -> None:
    """End a session's availability."""
    if how == "said":
        await client.send("<presence type='unavailable'/>")
    else:
        await client.drop()


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["said", "broken"])
@pytest.mark.parametrize("to", ["bob@localhost", "bob@localhost/one"])
async def test_its_end_is_told_though_there_never_was_initial_presence(to: str, how: str) -> None:
    async with World() as world:
        alice, bob = await world.bind("alice"), await world.login("bob", "one")
        await alice.send(f"<presence to='{to}'/>")
        await bob.receive_all()
        await end(alice, how)
        await bob.expect(f"<presence type='unavailable' from='{alice.jid}' to='{to}'/>")
        await bob.expect_nothing()


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["said", "broken"])
async def test_a_follower_who_got_nothing_else_is_told_too(how: str) -> None:
    async with World() as world:
        alice, bob = await friends(world)
        await alice.send(f"<presence to='{bob.jid}'/>")
        await bob.receive_all()
        await end(alice, how)
        await bob.expect(f"<presence type='unavailable' from='{alice.jid}' to='{bob.jid}'/>")
        await bob.expect_nothing()


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["said", "broken"])
async def test_a_resource_that_is_not_available_itself_is_told_too(how: str) -> None:
    async with World() as world:
        alice, bob = await friends(world)
        silent = await world.bind("bob", "silent")
        await alice.send(f"<presence/><presence to='{silent.jid}'/><presence to='{bob.jid}'/>")
        await silent.receive_all(), await bob.receive_all()
        await end(alice, how)
        await silent.expect(f"<presence type='unavailable' from='{alice.jid}' to='{silent.jid}'/>")
        await silent.expect_nothing()
        await bob.expect(f"<presence type='unavailable' from='{alice.jid}' to='bob@localhost'/>")
        await bob.expect_nothing()


@pytest.mark.asyncio
async def test_own_resources_are_told_once() -> None:
    async with World() as world:
        alice, other = await world.login("alice"), await world.login("alice", "other")
        await alice.send(f"<presence to='{other.jid}'/><presence to='{alice.jid}'/>")
        await alice.receive_all(), await other.receive_all()
        await alice.send("<presence type='unavailable'/>")
        for client in (alice, other):
            await client.expect(f"<presence type='unavailable' from='{alice.jid}' to='alice@localhost'/>")
            await client.expect_nothing()


@pytest.mark.asyncio
async def test_an_error_does_not_take_it_back() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send(f"<presence to='{bob.jid}'/><presence type='error' to='{bob.jid}'/>")
        await bob.receive_all()
        await alice.drop()
        await bob.expect(f"<presence type='unavailable' from='{alice.jid}' to='{bob.jid}'/>")


@pytest.mark.asyncio
async def test_it_is_no_part_of_later_broadcasts() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send(f"<presence to='{bob.jid}'/>")
        await bob.receive_all()
        await alice.send("<presence><show>away</show></presence>")
        await bob.expect_nothing()


@pytest.mark.asyncio
async def test_directed_unavailable_leaves_a_follower_in_the_broadcasts() -> None:
    async with World() as world:
        alice, bob = await friends(world)
        await alice.send(f"<presence/><presence type='unavailable' to='{bob.jid}'/>")
        await bob.receive_all()
        await alice.send("<presence><show>away</show></presence>")
        assert (await bob.receive()).findtext("{jabber:client}show") == "away"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("who", "kind"), [("alice", "unsubscribed"), ("bob", "unsubscribe"), ("alice", "remove")]
)
async def test_the_end_of_a_subscription_ends_it(who: str, kind: str) -> None:
    async with World(settings={"iqs": {"from_strangers": "refuse"}}) as world:
        alice, bob = await friends(world)
        await alice.send(f"<presence/><presence to='{bob.jid}'/>")
        sender, other = (alice, bob) if who == "alice" else (bob, alice)
        if kind == "remove":
            item = f"<item jid='{other.bare}' subscription='remove'/>"
            await sender.send(f"<iq type='set' id='r'><query xmlns='jabber:iq:roster'>{item}</query></iq>")
        else:
            await sender.send(f"<presence type='{kind}' to='{other.bare}'/>")
        gone = [s for s in await bob.receive_all() if s.get("type") == "unavailable"]
        assert [s.get("from") for s in gone] == [alice.jid]
        await bob.send(f"<iq type='get' id='q' to='{alice.jid}'><x xmlns='urn:x'/></iq>")
        assert (await bob.receive()).get("type") == "error"
        await alice.drop()
        await bob.expect_nothing()


@pytest.mark.asyncio
async def test_so_many_entities_and_no_more() -> None:
    async with World() as world:
        alice = await world.bind("alice")
        await alice.send("".join(f"<presence to='n{n}@localhost'/>" for n in range(1000)))
        await alice.expect_nothing()
        await alice.send("<presence to='n1@localhost'/><presence id='p' to='more@localhost'/>")
        error = await alice.receive()
        assert error.get("id") == "p"
        assert error.find("*/{urn:ietf:params:xml:ns:xmpp-stanzas}resource-constraint") is not None


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["said", "broken"])
async def test_the_end_of_many_is_told_in_slices_and_completely(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "STEP", 1)
    monkeypatch.setattr(rounds, "SLICE_SECONDS", -1.0)
    async with World(accounts=("alice", *(f"u{n}" for n in range(9)))) as world:
        alice = await world.bind("alice")
        others = [await world.bind(f"u{n}", "r" * 1000) for n in range(9)]
        await alice.send("".join(f"<presence to='{other.jid}'/>" for other in others))
        for other in others:
            await other.receive_all()
        await end(alice, how)
        for other in others:
            await other.expect(f"<presence type='unavailable' from='{alice.jid}' to='{other.jid}'/>")


@pytest.mark.asyncio
async def test_an_end_that_comes_late_does_not_end_what_was_shown_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(presence, "STEP", 1)
    monkeypatch.setattr(rounds, "SLICE_SECONDS", -1.0)
    async with World(accounts=("alice", *(f"u{n}" for n in range(9)))) as world:
        alice = await world.bind("alice", "phone")
        others = [await world.bind(f"u{n}") for n in range(9)]
        show = "".join(f"<presence to='{other.jid}'/>" for other in others)
        await alice.send(show)
        await alice.send(f"<presence type='unavailable'/>{show}")
        for other in others:
            assert [s.get("type") for s in await other.receive_all()][-1] is None
