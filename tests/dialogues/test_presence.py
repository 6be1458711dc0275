"""RFC 6121 4: who sees whom."""

import asyncio

import pytest

from xmppd.core import presence
from xmppd.testing import Client, World


async def friends(world: World) -> tuple[Client, Client]:
    """Two clients who see each other's presence."""
    alice, bob = await world.login("alice"), await world.login("bob")
    await world.befriend(alice, bob)
    return alice, bob


def shown(client: Client, to: str, inner: str = "", kind: str = "") -> str:
    """A presence as it arrives."""
    of_type = f" type='{kind}'" if kind else ""
    return f"<presence from='{client.jid}' to='{to}'{of_type}>{inner}</presence>"


@pytest.mark.asyncio
async def test_initial_presence_reaches_followers_and_own_resources_and_brings_theirs() -> None:
    async with World() as world:
        alice, bob = await friends(world)
        second = await world.bind("bob", "second")
        await second.send("<presence><show>away</show></presence>")
        away = "<show>away</show>"
        await alice.expect(shown(second, "alice@localhost", away))
        await bob.expect(shown(second, "bob@localhost", away))
        received = {stanza.get("from") for stanza in await second.receive_all()}
        assert received == {alice.jid, bob.jid, second.jid}


@pytest.mark.asyncio
async def test_changes_are_broadcast_as_they_are() -> None:
    async with World() as world:
        alice, bob = await friends(world)
        inner = "<status>in a game</status><x xmlns='urn:game'><level n='7'/></x>"
        await bob.send(f"<presence id='p1' xml:lang='de'>{inner}</presence>")
        await alice.expect(
            f"<presence from='{bob.jid}' to='alice@localhost' id='p1' xml:lang='de'>{inner}</presence>"
        )


@pytest.mark.asyncio
async def test_strangers_see_nothing() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await bob.send("<presence><status>hi</status></presence>")
        await bob.receive_all()
        await alice.expect_nothing()


@pytest.mark.asyncio
async def test_a_follower_only_sees_one_way() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send("<presence type='subscribe' to='bob@localhost'/>")
        await bob.send("<presence type='subscribed' to='alice@localhost'/>")
        await alice.receive_all(), await bob.receive_all()
        await bob.send("<presence><show>dnd</show></presence>")
        await alice.expect(shown(bob, "alice@localhost", "<show>dnd</show>"))
        await bob.receive_all()
        await alice.send("<presence><show>dnd</show></presence>")
        await bob.expect_nothing()


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["said", "closed", "broken"])
async def test_unavailable_is_seen_however_the_session_ends(how: str) -> None:
    async with World() as world:
        alice, bob = await friends(world)
        if how == "said":
            await bob.send("<presence type='unavailable'><status>bye</status></presence>")
        elif how == "closed":
            await bob.send("</stream:stream>")
        else:
            await bob.drop()
        inner = "<status>bye</status>" if how == "said" else ""
        await alice.expect(shown(bob, "alice@localhost", inner, "unavailable"))


@pytest.mark.asyncio
async def test_unavailable_twice_is_told_once() -> None:
    async with World() as world:
        alice, bob = await friends(world)
        await bob.send("<presence type='unavailable'/><presence type='unavailable'/>")
        await bob.drop()
        assert len(await alice.receive_all()) == 1


@pytest.mark.asyncio
async def test_last_words_are_shown_to_who_comes_later() -> None:
    async with World() as world:
        alice, bob = await friends(world)
        await alice.drop()
        await bob.send("<presence type='unavailable'><status>back at nine</status></presence>")
        alice = await world.bind("alice")
        await alice.send("<presence/>")
        last = [stanza for stanza in await alice.receive_all() if stanza.get("type") == "unavailable"]
        assert [stanza.findtext("{jabber:client}status") for stanza in last] == ["back at nine"]
        assert last[0].get("from") == bob.jid
        delay = last[0].find("{urn:xmpp:delay}delay")
        assert delay is not None and delay.get("stamp") == "2023-11-14T22:13:20.000Z"


@pytest.mark.asyncio
async def test_who_comes_back_and_leaves_silently_has_no_last_words() -> None:
    async with World() as world:
        alice, bob = await friends(world)
        await alice.drop()
        await bob.send("<presence type='unavailable'><status>old</status></presence>")
        await bob.send("<presence/>")
        await bob.drop()
        alice = await world.bind("alice")
        await alice.send("<presence/>")
        assert [stanza.get("from") for stanza in await alice.receive_all()] == [alice.jid]


@pytest.mark.asyncio
@pytest.mark.parametrize("to", ["bob@localhost", "bob@localhost/one"])
async def test_directed_presence_and_its_end(to: str) -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob", "one")
        await alice.send(f"<presence to='{to}'><status>psst</status></presence>")
        await bob.expect(f"<presence from='{alice.jid}' to='{to}'><status>psst</status></presence>")
        await alice.drop()
        await bob.expect(f"<presence from='{alice.jid}' to='{to}' type='unavailable'/>")


@pytest.mark.asyncio
async def test_directed_presence_that_was_taken_back_is_not_ended_again() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send(f"<presence to='{bob.jid}'/><presence type='unavailable' to='{bob.jid}'/>")
        assert len(await bob.receive_all()) == 2
        await alice.drop()
        await bob.expect_nothing()


@pytest.mark.asyncio
async def test_a_follower_hears_of_the_end_once() -> None:
    async with World() as world:
        alice, bob = await friends(world)
        await bob.send(f"<presence to='{alice.jid}'/>")
        await alice.receive_all()
        await bob.drop()
        assert len(await alice.receive_all()) == 1


@pytest.mark.asyncio
async def test_a_probe_by_a_follower_is_answered() -> None:
    async with World() as world:
        alice, bob = await friends(world)
        await bob.send("<presence><show>xa</show></presence>")
        await alice.receive_all()
        await alice.send("<presence type='probe' to='bob@localhost'/>")
        await alice.expect(shown(bob, "alice@localhost", "<show>xa</show>"))


@pytest.mark.asyncio
@pytest.mark.parametrize("priority", ["128", "-129", "x", "", "1.0", "12345678901234567890", "--1"])
async def test_priorities_that_are_none(priority: str) -> None:
    async with World() as world:
        alice = await world.bind("alice")
        await alice.send(f"<presence id='p'><priority>{priority}</priority></presence>")
        error = await alice.receive()
        assert error.get("type") == "error" and error.get("id") == "p"
        assert error.find("*/{urn:ietf:params:xml:ns:xmpp-stanzas}bad-request") is not None
        assert alice.session.presence is None


@pytest.mark.asyncio
@pytest.mark.parametrize(("text", "value"), [("127", 127), ("-128", -128), ("+5", 5), (" 3 ", 3), ("0", 0)])
async def test_priorities(text: str, value: int) -> None:
    async with World() as world:
        alice = await world.bind("alice")
        await alice.send(f"<presence><priority>{text}</priority></presence>")
        assert alice.session.priority == value


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "stanza", ["<presence type='nonsense'/>", "<presence type='nonsense' to='bob@localhost'/>"]
)
async def test_types_that_are_none(stanza: str) -> None:
    async with World() as world:
        alice = await world.login("alice")
        await alice.send(stanza)
        error = await alice.receive()
        assert error.find("*/{urn:ietf:params:xml:ns:xmpp-stanzas}bad-request") is not None


@pytest.mark.asyncio
async def test_presence_errors_are_delivered_and_never_answered() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send(
            f"<presence type='error' to='{bob.jid}'/><presence type='error' to='nobody@localhost'/>"
        )
        await bob.expect(f"<presence from='{alice.jid}' to='{bob.jid}' type='error'/>")
        await alice.expect_nothing()


@pytest.mark.asyncio
async def test_who_broadcasts_too_much_waits_and_nothing_is_lost() -> None:
    limits = {"presence_copy_rate": 50, "presence_copy_burst": 6}
    async with World(settings={"limits": limits}) as world:
        alice, bob = await friends(world)
        await bob.receive_all()
        alice.write("".join(f"<presence id='{n}'/>" for n in range(12)) + "<presence type='unavailable'/>")
        assert not alice.transport.is_reading()
        await bob.send("<presence/>")
        await world.settle()
        assert [
            stanza.get("id") for stanza in await bob.receive_all() if stanza.get("from") == alice.jid
        ] == [
            *map(str, range(12)),
            None,
        ]
        assert alice.transport.is_reading()


@pytest.mark.asyncio
async def test_without_a_limit_on_copies_nobody_waits() -> None:
    limits = {"presence_copy_rate": 0, "presence_copy_burst": 1}
    async with World(settings={"limits": limits}) as world:
        alice, bob = await friends(world)
        await bob.receive_all()
        alice.write("<presence/>" * 4)
        assert alice.transport.is_reading()


@pytest.mark.one_node("time jumps while presence is on its way, and nodes trust each other for 3 s only")
@pytest.mark.asyncio
async def test_the_rate_of_copies_is_kept_by_presence_that_makes_more_than_a_second_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with World(settings={"limits": {"presence_copy_rate": 2, "presence_copy_burst": 1}}) as world:
        alice, bob = await friends(world)
        for number in range(5):
            await (await world.bind("bob", f"more{number}")).send("<presence/>")
        await bob.receive_all()

        def pass_time(seconds: float) -> asyncio.Future[None]:
            world.clock.seconds += seconds
            passed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            passed.set_result(None)
            return passed

        monkeypatch.setattr(presence, "pause", pass_time)
        monkeypatch.setattr(world.app.presences, "_clock", world.clock.monotonic)
        alice.session.paid_until = 0.0
        await alice.send("<presence/>" * 6)
        assert len(await bob.receive_all()) == 6
        assert world.clock.seconds > 5 * 7 / 2 - 1, "seven copies each"
