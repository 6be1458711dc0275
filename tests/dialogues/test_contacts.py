"""RFC 6121 2 and 3: rosters and subscriptions between two accounts."""

import pytest

from xmppd.testing import Client, World

ROSTER = "jabber:iq:roster"


async def roster(client: Client, ver: str | None = None) -> list[tuple[str, str, str]]:
    """The client's roster as (contact, subscription, ask), sorted."""
    attribute = "" if ver is None else f" ver='{ver}'"
    result = await client.ask("get", f"<query xmlns='{ROSTER}'{attribute}/>")
    items = result.findall(f"*/{{{ROSTER}}}item")
    return sorted((i.get("jid", ""), i.get("subscription", ""), i.get("ask", "")) for i in items)


def push(client: Client, item: str) -> str:
    """A roster push as it arrives."""
    return f"<iq type='set' id='*' to='{client.jid}'><query xmlns='{ROSTER}' ver='*'>{item}</query></iq>"


@pytest.mark.asyncio
async def test_a_set_is_pushed_to_interested_resources_only() -> None:
    async with World() as world:
        alice, second = await world.login("alice"), await world.login("alice", "second")
        silent = await world.bind("alice", "silent")
        await alice.receive_all()
        item = "<item jid='bob@localhost' name='Bob'><group>Friends</group></item>"
        await alice.send(f"<iq type='set' id='s1'><query xmlns='{ROSTER}'>{item}</query></iq>")
        pushed = "<item jid='bob@localhost' name='Bob' subscription='none'><group>Friends</group></item>"
        await alice.expect(push(alice, pushed))
        await alice.expect(f"<iq type='result' id='s1' to='{alice.jid}'/>")
        await second.expect(push(second, pushed))
        await silent.expect_nothing()
        assert await roster(second) == [("bob@localhost", "none", "")]


@pytest.mark.asyncio
async def test_versions_spare_what_is_known() -> None:
    async with World() as world:
        alice = await world.login("alice")
        await alice.send(
            f"<iq type='set' id='s'><query xmlns='{ROSTER}'><item jid='bob@localhost'/></query></iq>"
        )
        await alice.receive_all()
        full = await alice.ask("get", f"<query xmlns='{ROSTER}' ver=''/>")
        version = full[0].get("ver")
        assert len(full[0]) == 1 and version
        same = await alice.ask("get", f"<query xmlns='{ROSTER}' ver='{version}'/>")
        assert same.get("type") == "result" and len(same) == 0
        other = await alice.ask("get", f"<query xmlns='{ROSTER}' ver='nonsense'/>")
        assert len(other[0]) == 1


@pytest.mark.asyncio
async def test_the_whole_way_to_friendship() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send(
            "<presence type='subscribe' to='bob@localhost/phone' id='x'><status>me!</status></presence>"
        )
        await alice.expect(push(alice, "<item jid='bob@localhost' subscription='none' ask='subscribe'/>"))
        await bob.expect(
            "<presence type='subscribe' from='alice@localhost' to='bob@localhost' id='x'>"
            "<status>me!</status></presence>"
        )
        await bob.send("<presence type='subscribed' to='alice@localhost'/>")
        await bob.expect(push(bob, "<item jid='alice@localhost' subscription='from'/>"))
        await alice.expect("<presence type='subscribed' from='bob@localhost' to='alice@localhost'/>")
        pushed = push(alice, "<item jid='bob@localhost' subscription='to'/>")
        await alice.expect_each(pushed, f"<presence from='{bob.jid}' to='alice@localhost'/>")
        await bob.send("<presence type='subscribe' to='alice@localhost'/>")
        await alice.send("<presence type='subscribed' to='bob@localhost'/>")
        await alice.receive_all(), await bob.receive_all()
        assert await roster(alice) == [("bob@localhost", "both", "")]
        assert await roster(bob) == [("alice@localhost", "both", "")]


@pytest.mark.asyncio
async def test_a_request_waits_for_who_is_away_and_is_shown_at_every_login() -> None:
    async with World() as world:
        alice = await world.login("alice")
        await alice.send("<presence type='subscribe' to='bob@localhost'><status>hi</status></presence>")
        request = (
            "<presence type='subscribe' from='alice@localhost' to='bob@localhost'>"
            "<status>hi</status></presence>"
        )
        for _ in range(2):
            bob = await world.bind("bob")
            await bob.send("<presence/>")
            await bob.expect(f"<presence from='{bob.jid}' to='bob@localhost'/>")
            await bob.expect(request)
            assert await roster(bob) == []
            await bob.drop()


@pytest.mark.asyncio
async def test_a_refusal() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send("<presence type='subscribe' to='bob@localhost'/>")
        await bob.send("<presence type='unsubscribed' to='alice@localhost'/>")
        await alice.receive_all(), await bob.receive_all()
        assert await roster(alice) == [("bob@localhost", "none", "")]
        assert await roster(bob) == []


@pytest.mark.asyncio
async def test_pre_approval_lets_a_later_request_through_at_once() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await bob.send("<presence type='subscribed' to='alice@localhost'/>")
        await bob.expect(push(bob, "<item jid='alice@localhost' subscription='none' approved='true'/>"))
        await alice.expect_nothing()
        await alice.send("<presence type='subscribe' to='bob@localhost'/>")
        assert not [s for s in await bob.receive_all() if s.get("type") == "subscribe"]
        await alice.receive_all()
        assert await roster(alice) == [("bob@localhost", "to", "")]


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["unsubscribe", "unsubscribed"])
async def test_an_end_hides_presence_at_once(kind: str) -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        await alice.send(f"<presence type='{kind}' to='bob@localhost'/>")
        blind, seen = (alice, bob) if kind == "unsubscribe" else (bob, alice)
        gone = [s for s in await blind.receive_all() if s.get("type") == "unavailable"]
        assert [s.get("from") for s in gone] == [seen.jid]
        await seen.receive_all()
        await seen.send("<presence><show>away</show></presence>")
        await blind.expect_nothing()


@pytest.mark.asyncio
async def test_removing_a_contact_ends_both_subscriptions() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        item = "<item jid='bob@localhost' subscription='remove'/>"
        await alice.send(f"<iq type='set' id='r'><query xmlns='{ROSTER}'>{item}</query></iq>")
        await alice.receive_all()
        types = [s.get("type") for s in await bob.receive_all() if s.tag.endswith("presence")]
        assert types == ["unsubscribe", "unsubscribed", "unavailable"]
        assert await roster(alice) == []
        assert await roster(bob) == [("alice@localhost", "none", "")]
        await bob.send("<presence><show>away</show></presence>")
        await alice.expect_nothing()


@pytest.mark.asyncio
async def test_everything_is_still_there_after_the_server_forgot() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        await alice.drop(), await bob.drop()
        world.app.rosters.forget("alice@localhost")
        alice = await world.login("alice")
        assert await roster(alice) == [("bob@localhost", "both", "")]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("item", "condition"),
    [
        ("", "bad-request"),
        ("<item/>", "bad-request"),
        ("<item jid='a@localhost'/><item jid='b@localhost'/>", "bad-request"),
        ("<item jid='a@localhost'><group>x</group><group>x</group></item>", "bad-request"),
        ("<item jid='a@localhost'><group/></item>", "not-acceptable"),
        (f"<item jid='a@localhost' name='{'n' * 2000}'/>", "not-acceptable"),
        ("<item jid='ghost@localhost' subscription='remove'/>", "item-not-found"),
    ],
)
async def test_sets_that_are_refused(item: str, condition: str) -> None:
    async with World() as world:
        alice = await world.login("alice")
        error = await alice.ask("set", f"<query xmlns='{ROSTER}'>{item}</query>")
        assert error.get("type") == "error"
        assert error.find(f"*/{{urn:ietf:params:xml:ns:xmpp-stanzas}}{condition}") is not None
        assert await roster(alice) == []


@pytest.mark.asyncio
async def test_nobody_else_touches_a_roster() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        for kind in ("get", "set"):
            item = "<item jid='x@localhost'/>" if kind == "set" else ""
            payload = f"<query xmlns='{ROSTER}'>{item}</query>"
            for to in ("bob@localhost", bob.jid):
                error = await alice.ask(kind, payload, to=to)
                assert error.find("*/{urn:ietf:params:xml:ns:xmpp-stanzas}forbidden") is not None
        await bob.expect_nothing()
        assert await roster(bob) == []


@pytest.mark.asyncio
async def test_nobody_subscribes_to_themselves_or_to_a_domain() -> None:
    async with World() as world:
        alice = await world.login("alice")
        for to in ("alice@localhost", "localhost"):
            await alice.send(f"<presence type='subscribe' to='{to}'/>")
            error = await alice.receive()
            assert error.find("*/{urn:ietf:params:xml:ns:xmpp-stanzas}bad-request") is not None
        assert await roster(alice) == []


@pytest.mark.asyncio
async def test_a_removed_account_leaves_no_half_friendships() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        await world.app.server.remove_account("bob@localhost")
        await world.settle()
        await bob.expect_closed("not-authorized")
        kinds = [s.get("type") for s in await alice.receive_all() if s.tag.endswith("presence")]
        assert "unsubscribe" in kinds and "unsubscribed" in kinds
        assert await roster(alice) == [("bob@localhost", "none", "")]
        assert not await world.app.server.account_exists("bob@localhost")


@pytest.mark.asyncio
async def test_a_set_that_changes_nothing_is_pushed_all_the_same() -> None:
    async with World() as world:
        alice = await world.login("alice")
        item = "<item jid='bob@localhost' name='Bob'/>"
        for _ in range(2):
            await alice.send(f"<iq type='set' id='s'><query xmlns='{ROSTER}'>{item}</query></iq>")
            await alice.expect(push(alice, "<item jid='bob@localhost' name='Bob' subscription='none'/>"))
            await alice.expect(f"<iq type='result' id='s' to='{alice.jid}'/>")


@pytest.mark.asyncio
async def test_the_log_says_who_did_it() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        item = "<item jid='bob@localhost' subscription='remove'/>"
        await alice.send(f"<iq type='set' id='r'><query xmlns='{ROSTER}'>{item}</query></iq>")
        rosters = world.app.rosters
        of_alice, of_bob = [
            [(entry.by, entry.what) for entry in await rosters.log(client.bare)] for client in (alice, bob)
        ]
        assert of_alice == [
            (alice.jid, "sent subscribe"),
            (bob.jid, "received subscribed"),
            (bob.jid, "received subscribe"),
            (alice.jid, "sent subscribed"),
            (alice.jid, "remove"),
        ]
        assert of_bob == [
            (alice.jid, "received subscribe"),
            (bob.jid, "sent subscribed"),
            (bob.jid, "sent subscribe"),
            (alice.jid, "received subscribed"),
            (alice.jid, "received unsubscribe"),
            (alice.jid, "received unsubscribed"),
        ]


@pytest.mark.asyncio
async def test_the_log_names_whose_approval_granted() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await bob.send("<presence type='subscribed' to='alice@localhost'/>")
        await alice.send("<presence type='subscribe' to='bob@localhost'/>")
        entries = await world.app.rosters.log("alice@localhost")
        assert [(entry.by, entry.what) for entry in entries] == [
            (alice.jid, "sent subscribe"),
            ("bob@localhost", "received subscribed"),
        ]
