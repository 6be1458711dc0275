"""RFC 6121 3, beyond the usual way: repeats, pre-approval, requests to nobody, and who is told of what."""

from xml.etree.ElementTree import Element, fromstring

import pytest

from xmppd.errors import StoreUnavailable
from xmppd.testing import Client, World, canonical, refusal

GET = "<query xmlns='jabber:iq:roster'/>"


def presences(stanzas: list[Element]) -> list[tuple[str | None, str | None]]:
    """Type and sender of the presences among them."""
    return [(s.get("type"), s.get("from")) for s in stanzas if s.tag.endswith("presence")]


async def item(client: Client) -> dict[str, str]:
    """The only item of the client's roster."""
    result = await client.ask("get", GET)
    items = result.findall("*/{jabber:iq:roster}item")
    return dict(items[0].attrib) if items else {}


@pytest.mark.asyncio
async def test_a_request_granted_already_is_answered_by_the_server() -> None:  # 3.1.3
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        await alice.send("<presence type='subscribe' to='bob@localhost'/>")
        assert "subscribe" not in [kind for kind, _ in presences(await bob.receive_all())]
        await alice.receive_all()
        assert (await item(alice))["subscription"] == "both"


@pytest.mark.asyncio
async def test_a_request_that_waits_already_is_not_delivered_again() -> None:  # A.3.1
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send("<presence type='subscribe' to='bob@localhost'><status>one</status></presence>")
        await alice.send("<presence type='subscribe' to='bob@localhost'><status>two</status></presence>")
        assert presences(await bob.receive_all()) == [("subscribe", "alice@localhost")]


@pytest.mark.asyncio
async def test_a_request_to_nobody_is_met_with_silence() -> None:  # 8.5.1
    async with World() as world:
        alice = await world.login("alice")
        await alice.send("<presence type='subscribe' to='nobody@localhost'/>")
        assert presences(await alice.receive_all()) == []
        assert (await item(alice))["ask"] == "subscribe"


@pytest.mark.asyncio
async def test_a_request_goes_to_available_resources_answers_to_interested_ones() -> None:  # 3.1.3, 3.1.6
    async with World() as world:
        alice = await world.login("alice")
        interested, available, neither = [await world.bind("bob", name) for name in ("a", "b", "c")]
        await interested.ask("get", GET)
        await available.send("<presence/>")
        for client in (alice, interested, available):
            await client.receive_all()
        await alice.send("<presence type='subscribe' to='bob@localhost'/>")
        assert presences(await available.receive_all()) == [("subscribe", "alice@localhost")]
        assert presences(await interested.receive_all()) == []
        await available.send("<presence type='subscribe' to='alice@localhost'/>")
        await alice.send("<presence type='subscribed' to='bob@localhost'/>")
        kinds = [kind for kind, _ in presences(await interested.receive_all())]
        assert kinds == ["subscribed"]
        assert presences(await available.receive_all()) == [(None, alice.jid)]
        await neither.expect_nothing()


@pytest.mark.asyncio
async def test_pre_approval_can_be_taken_back() -> None:  # 3.4.2
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await bob.send("<presence type='subscribed' to='alice@localhost'/>")
        await bob.send("<presence type='unsubscribed' to='alice@localhost'/>")
        await bob.receive_all()
        await alice.expect_nothing()
        await alice.send("<presence type='subscribe' to='bob@localhost'/>")
        assert presences(await bob.receive_all()) == [("subscribe", "alice@localhost")]


@pytest.mark.asyncio
async def test_pre_approval_shows_presence_at_once() -> None:  # 3.4.2, 3.1.5
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await bob.send("<presence type='subscribed' to='alice@localhost'/>")
        await alice.send("<presence type='subscribe' to='bob@localhost'/>")
        shown = presences(await alice.receive_all())
        if len(world.apps) > 1:  # bob shows himself from his node, and alice's says that he granted it
            shown.sort(key=str)
        assert shown == [("subscribed", "bob@localhost"), (None, bob.jid)]
        await bob.receive_all()
        assert (await item(bob))["subscription"] == "from"


@pytest.mark.asyncio
async def test_a_contact_keeps_its_name_through_every_change() -> None:  # 2.1.2, 3.1.2
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        named = "<item jid='bob@localhost' name='Bob'><group>G</group></item>"
        await alice.ask("set", f"<query xmlns='jabber:iq:roster'>{named}</query>")
        await alice.receive_all()
        await world.befriend(alice, bob)
        await bob.send("<presence type='unsubscribed' to='alice@localhost'/>")
        await alice.receive_all()
        assert await item(alice) == {"jid": "bob@localhost", "name": "Bob", "subscription": "from"}


@pytest.mark.asyncio
async def test_the_language_of_a_request_lasts() -> None:  # RFC 6120 8.1.5
    async with World() as world:
        alice = await world.bind("alice", lang="de")
        await alice.send("<presence type='subscribe' to='bob@localhost'><status>hallo</status></presence>")
        bob = await world.login("bob")
        await bob.send("<presence type='unavailable'/><presence/>")
        request = (await bob.receive_all())[-1]
        assert request.findtext("{jabber:client}status") == "hallo"
        assert request.get("{http://www.w3.org/XML/1998/namespace}lang") == "de"


@pytest.mark.asyncio
@pytest.mark.parametrize("to", ["nobody@localhost", "nobody@localhost/x", "bob@localhost/ghost", "localhost"])
@pytest.mark.parametrize("kind", ["", " type='unavailable'", " type='error'"])
async def test_presence_for_who_is_not_there_is_ignored(to: str, kind: str) -> None:  # 8.5.1, 8.5.3.2.2
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send(f"<presence to='{to}'{kind}/>")
        await alice.expect_nothing()
        await bob.expect_nothing()


@pytest.mark.asyncio
@pytest.mark.parametrize("answer", ["<iq type='result' id='{}'/>", "<iq type='error' id='{}'/>"])
async def test_answers_to_pushes_are_taken(answer: str) -> None:  # 2.1.6
    async with World() as world:
        alice = await world.login("alice")
        await alice.send("<presence type='subscribe' to='bob@localhost'/>")
        pushed = await alice.receive()
        await alice.send(answer.format(pushed.get("id")))
        await alice.expect_nothing()


@pytest.mark.asyncio
async def test_presence_comes_back_with_the_next_initial_presence() -> None:  # 4.2.2, 4.5.2
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        await alice.send("<presence type='unavailable'/>")
        await alice.receive_all(), await bob.receive_all()
        await bob.send("<presence><show>away</show></presence>")
        await alice.expect_nothing()
        await bob.receive_all()
        await alice.send("<presence/>")
        assert set(presences(await alice.receive_all())) == {(None, alice.jid), (None, bob.jid)}
        assert presences(await bob.receive_all()) == [(None, alice.jid)]


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["bob", "nobody"])
async def test_a_request_that_is_too_long_changes_nothing(name: str) -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        long = f"<status>{'x' * 10_001}</status>"
        await alice.send(f"<presence type='subscribe' id='s' to='{name}@localhost'>{long}</presence>")
        (error,) = await alice.receive_all()
        assert refusal(error) == "modify policy-violation"
        assert await item(alice) == {}
        await bob.expect_nothing()


@pytest.mark.asyncio
async def test_a_request_that_finds_no_room_tells_no_more_than_one_to_nobody() -> None:
    async with World() as world:
        alice = await world.login("alice")
        for number in range(200):
            await world.app.rosters.inbound_subscription("bob@localhost", f"s{number}@x", "subscribe")
        seen = []
        for name in ("bob", "nobody"):
            await alice.send(f"<presence type='subscribe' id='s' to='{name}@localhost'/>")
            (push,) = await alice.receive_all()
            seen.append(sorted(set(push[0][0].items()) - {("jid", f"{name}@localhost")}))
        assert seen[0] == seen[1] == [("ask", "subscribe"), ("subscription", "none")]


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["subscribe", "subscribed"])
async def test_who_has_no_room_for_a_contact_reaches_nobody(kind: str) -> None:
    async with World(settings={"limits": {"roster_items": 1}}) as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        if kind == "subscribed":
            await bob.send("<presence type='subscribe' to='alice@localhost'/>")
            await alice.receive_all(), await bob.receive_all()
        await alice.ask("set", "<query xmlns='jabber:iq:roster'><item jid='carol@localhost'/></query>")
        await alice.receive_all()
        await alice.send(f"<presence type='{kind}' to='bob@localhost'/>")
        (error,) = await alice.receive_all()
        assert refusal(error) == "wait resource-constraint"
        await bob.expect_nothing()


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["subscribe", "subscribed", "unsubscribe", "unsubscribed"])
async def test_a_subscription_stanza_arrives_whole(kind: str) -> None:  # 3.1.3
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        if kind in ("subscribe", "subscribed"):
            await bob.send("<presence type='unsubscribed' to='alice@localhost'/>")
            await alice.send("<presence type='unsubscribed' to='bob@localhost'/>")
        if kind == "subscribed":
            await bob.send("<presence type='subscribe' to='alice@localhost'/>")
        await alice.receive_all(), await bob.receive_all()
        inner = "text<status>hi</status><nick xmlns='http://jabber.org/protocol/nick'>A<b/>l</nick>"
        head = f"<presence type='{kind}' id='s1' xml:lang='fr' from='{{}}' to='bob@localhost'>"
        await alice.send(f"{head.format(alice.jid)}{inner}</presence>")
        (arrived,) = [s for s in await bob.receive_all() if s.get("type") == kind]
        wanted = fromstring(f"<x xmlns='jabber:client'>{head.format(alice.bare)}{inner}</presence></x>")[0]
        assert canonical(arrived) == canonical(wanted)
        if kind == "subscribe":
            await bob.send("<presence type='unavailable'/><presence/>")
            again = (await bob.receive_all())[-1]
            assert canonical(again) == canonical(wanted)


@pytest.mark.asyncio
async def test_a_grant_that_is_cut_short_waits_for_its_answer_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send("<presence type='subscribe' to='bob@localhost'/>")

        async def fail(*_: object, **__: object) -> None:
            raise StoreUnavailable("killed")

        with monkeypatch.context() as killed:
            for app in world.apps:
                killed.setattr(app.rosters, "outbound_subscription", fail)
            await bob.send("<presence type='subscribed' to='alice@localhost'/>")
        assert (None, bob.jid) not in presences(await alice.receive_all())
        await bob.drop()
        bob = await world.bind("bob")
        await bob.ask("get", GET)
        await bob.send("<presence/>")
        assert ("subscribe", "alice@localhost") in presences(await bob.receive_all())
        await alice.receive_all()
        await bob.send("<presence type='subscribed' to='alice@localhost'/>")
        assert presences(await alice.receive_all()) == [(None, bob.jid)]
        assert [(await item(one))["subscription"] for one in (alice, bob)] == ["to", "from"]
