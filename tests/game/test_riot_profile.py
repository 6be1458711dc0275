"""Another dialect of game clients: what they say from the login on, and how it is answered."""

import base64
from xml.etree.ElementTree import Element, tostring

import pytest
from gametokens import minted
from riotdialect import MECHANISM, OLDER, ROSTER, asked, auth, both, let_in, player, roster, world_of

from xmppd import ns
from xmppd.testing import START, Client, World, refusal

BLOCKED = "<item type='jid' value='bob@localhost' order='1' action='deny'/>"


async def outcome(world: World, xml: str) -> str:
    """How a login comes out: `success`, or the condition."""
    client, answer = await let_in(world, xml)
    await client.drop()
    name = answer.tag.rpartition("}")[2]
    return name if name == "success" else str(answer[0].tag).rpartition("}")[2]


def pushed(client: Client, got: list[Element]) -> list[tuple[str, str]]:
    """Whom the pushes among stanzas are about, and what is between the two now."""
    found = []
    for it in got:
        if it.get("type") == "set" and it.get("id", "").startswith("push"):
            assert it[0].tag == f"{{{ROSTER}}}query"
            found.append((it[0][0].get("jid", ""), it[0][0].get("subscription", "")))
    return found


def request(**attrs: str) -> str:
    said = "".join(f" {name}='{value}'" for name, value in attrs.items())
    return f"<query xmlns='{ROSTER}'><item{said}/></query>"


async def name(client: Client, text: str) -> None:
    answer = await asked(client, "set", f"<player xmlns='urn:xmppd:players:0' name='{text}'/>")
    assert answer.get("type") == "result"


# logins


@pytest.mark.asyncio
async def test_two_tokens_let_in_together() -> None:
    async with world_of() as world:
        assert await outcome(world, both()) == "success"
        one = minted("alice")
        assert await outcome(world, auth(("pas_token", one))) == "not-authorized"
        assert (
            await outcome(world, auth(("rso_token", one), ("pas_token", minted("bob")))) == "not-authorized"
        )
        assert await outcome(world, auth(("rso_token", one), ("pas_token", one[:-9]))) == "not-authorized"
        assert await outcome(world, auth(("rso_token", one), ("rso_token", one))) == "malformed-request"
        assert await outcome(world, auth(("rso_token", one), ("other", one))) == "malformed-request"
        assert await outcome(world, auth(("rso_token", f"<a>{one}</a>"))) == "malformed-request"


@pytest.mark.asyncio
async def test_one_token_as_text_lets_in_as_itself_or_in_base64() -> None:
    async with world_of() as world:
        token = minted("alice")
        assert await outcome(world, auth(mechanism=OLDER, text=token)) == "success"
        encoded = base64.b64encode(token.encode()).decode()
        assert await outcome(world, auth(mechanism=OLDER, text=encoded)) == "success"
        assert await outcome(world, auth(mechanism=OLDER, text="=%=")) == "malformed-request"
        assert await outcome(world, auth(mechanism=OLDER)) == "not-authorized"


@pytest.mark.asyncio
async def test_the_same_in_one_piece_with_the_login() -> None:
    async with world_of() as world:
        said = f"rso_token={minted('alice')}\0pas_token={minted('alice')}".encode()
        first = f"<initial-response>{base64.b64encode(said).decode()}</initial-response>"
        _, answer = await let_in(
            world, f"<authenticate xmlns='{ns.SASL2}' mechanism='{MECHANISM}'>{first}</authenticate>"
        )
        assert answer.tag == f"{{{ns.SASL2}}}success"
        assert answer.findtext(f"{{{ns.SASL2}}}authorization-identifier") == "alice@localhost"


@pytest.mark.asyncio
async def test_the_session_ends_with_the_first_of_the_tokens() -> None:
    async with world_of() as world:
        until = START + 60
        client, _ = await let_in(world, both(exp=until))
        await client.open()
        await client.bind()
        assert client.session.expires == until


@pytest.mark.asyncio
async def test_only_the_tokens_that_are_to_prove_are_looked_at() -> None:
    async with world_of(proving=["pas_token"]) as world:
        tokens = ("rso_token", "opaque"), ("pas_token", minted("alice"))
        assert await outcome(world, auth(*tokens)) == "success"


@pytest.mark.asyncio
@pytest.mark.parametrize("secret", ["secret", minted("alice")])
async def test_a_prefix_before_the_password_is_not_of_it(secret: str) -> None:
    async with world_of() as world:
        tries = (f"AIR_{secret}", True), (secret, True), (f"AIR_AIR_{secret}", False), ("AIR_", False)
        for typed, came_out in tries:
            client = world.connect()
            await client.open()
            answer = await client.authenticate("alice", typed)
            assert (answer.tag == f"{{{ns.SASL}}}success") is came_out, typed
            await client.drop()


@pytest.mark.asyncio
async def test_other_domains_do_not_have_the_dialect() -> None:
    async with world_of(domains=["other.example"]) as world:
        assert await outcome(world, both()) == "invalid-mechanism"
        alice = await world.login("alice")
        assert (
            refusal(await asked(alice, "get", f"<query xmlns='{ROSTER}'/>")) == "cancel service-unavailable"
        )
        bob = world.connect()
        await bob.open()
        assert (await bob.authenticate("bob", "AIR_secret")).tag == f"{{{ns.SASL}}}failure"
        assert (await bob.authenticate("bob")).tag == f"{{{ns.SASL}}}success"
        features = await bob.open()
        assert features.find("{urn:riotgames:rxep}rxep") is None
        await bob.bind()
        await bob.send(f"<message to='{alice.bare}' type='chat'><body>hi</body></message>")
        assert (await alice.receive()).get("stamp") is None


# from the login to the first presence


@pytest.mark.asyncio
async def test_all_that_a_client_says_at_its_login_at_once() -> None:
    async with world_of() as world:
        client, answer = await let_in(world, both())
        assert answer.tag == f"{{{ns.SASL}}}success"
        features = await client.open()
        assert features.find("{urn:riotgames:rxep}rxep") is not None
        said = (
            "<iq id='_xmpp_bind1' type='set'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
            "<puuid-mode enabled='true'/><resource>RC-77</resource></bind></iq>"
            "<iq id='xmpp_entitlements_0' type='set'><entitlements xmlns='urn:riotgames:entitlements'>"
            "<token xmlns=''>abc.def</token></entitlements></iq>"
            "<iq id='set_rxep_1' type='set'><rxep xmlns='urn:riotgames:rxep'>"
            "&lt;last-online-state enabled='true' /&gt;</rxep></iq>"
            "<iq id='_xmpp_session1' type='set'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'>"
            "<platform>riot</platform></session></iq>"
            "<iq id='roster_1' type='get'><query xmlns='jabber:iq:riotgames:roster' last_state='true'/></iq>"
            "<iq id='privacy_update_1' type='get'><query xmlns='jabber:iq:privacy'><list name='LOL'/></query>"
            "</iq>"
            "<iq id='update_session_active_1' type='set'><query xmlns='jabber:iq:riotgames:session'>"
            "<session mode='active'/></query></iq>"
            "<presence id='presence_1'><games><keystone><st>chat</st></keystone></games></presence>"
        )
        await client.send(said)
        got = await client.receive_all()
        assert [it.get("id") for it in got] == [
            "_xmpp_bind1",
            "xmpp_entitlements_0",
            "set_rxep_1",
            "_xmpp_session1",
            "roster_1",
            "privacy_update_1",
            "update_session_active_1",
            "presence_1",
        ]
        assert {it.get("type") for it in got[:-1]} == {"result"}
        assert got[0][0][0].text == "alice@localhost/RC-77"
        assert (got[5][0][0].get("name"), len(got[5][0][0])) == ("LOL", 0)


@pytest.mark.asyncio
async def test_attributes_are_in_single_quotes() -> None:
    async with world_of() as world:
        alice = await player(world, "alice")
        raw = bytearray()
        write = alice.transport.write

        def heard(data: bytes) -> None:
            raw.extend(data)
            write(data)

        alice.transport.write = heard  # type: ignore[method-assign]
        await asked(alice, "get", f'<query xmlns="{ROSTER}" last_state="true"/>')
        assert b"id='q_1'" in raw
        assert b'"' not in raw


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("payload", "wanted"),
    [
        ("<rxep xmlns='urn:riotgames:rxep'><last-online-state enabled='true'/></rxep>", True),
        ("<rxcep xmlns='urn:riotgames:rxep'><last-online-state enabled='true'/></rxcep>", True),
        ("<rxep xmlns='urn:riotgames:rxep'>&lt;last-online-state enabled=\"true\" /&gt;</rxep>", True),
        ("<rxep xmlns='urn:riotgames:rxep'><last-online-state enabled='false'/></rxep>", False),
    ],
)
async def test_spellings_of_opting_in(payload: str, wanted: bool) -> None:
    async with world_of() as world:
        alice, bob = await player(world, "alice"), await player(world, "bob")
        await world.befriend(alice, bob)
        assert (await asked(alice, "set", payload)).get("type") == "result"
        await bob.drop()
        await world.advance(60)
        item = (await roster(alice))["bob@localhost"]
        assert (item.find(f"{{{ROSTER}}}last_online") is not None) is wanted


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("payload", "condition"),
    [
        ("<rxep xmlns='urn:riotgames:rxep'/>", "cancel feature-not-implemented"),
        ("<entitlements xmlns='urn:riotgames:entitlements'/>", "modify bad-request"),
        ("<query xmlns='jabber:iq:riotgames:session'><session mode='idle'/></query>", "modify bad-request"),
        (request(jid="bob@localhost"), "modify bad-request"),
        (request(jid="bob@localhost", subscription="both"), "modify bad-request"),
        (request(subscription="pending_out"), "modify bad-request"),
        (request(puuid="a@b", subscription="pending_out"), "modify jid-malformed"),
        (request(jid="nobody@localhost", subscription="pending_out"), "cancel item-not-found"),
        (request(jid="bob@elsewhere", subscription="pending_out"), "cancel item-not-found"),
        (request(jid="alice@localhost", subscription="pending_out"), "modify bad-request"),
        (f"<query xmlns='{ROSTER}'><item/><item/></query>", "modify bad-request"),
    ],
)
async def test_what_is_refused(payload: str, condition: str) -> None:
    async with world_of() as world:
        alice = await player(world, "alice")
        assert refusal(await asked(alice, "set", payload)) == condition


@pytest.mark.asyncio
async def test_a_guest_has_none_of_it() -> None:
    async with World(plugins=("friends", "riot_profile"), settings={"auth": {"anonymous": True}}) as world:
        guest = await world.guest()
        assert refusal(await asked(guest, "get", f"<query xmlns='{ROSTER}'/>")) == "cancel not-allowed"


@pytest.mark.asyncio
async def test_a_session_says_who_one_is() -> None:
    async with world_of() as world:
        alice = await player(world, "alice")
        await name(alice, "Zoe#EUW")
        answer = await asked(
            alice, "set", f"<session xmlns='{ns.SESSION}'><platform>riot</platform></session>"
        )
        (ids, shown) = answer[0]
        assert (ids.get("name"), ids.get("tagline"), shown.text) == ("Zoe", "EUW", "Zoe")


# friends


@pytest.mark.asyncio
async def test_a_request_that_is_asked_back_makes_friends() -> None:
    async with world_of() as world:
        alice, bob = await player(world, "alice"), await player(world, "bob")
        await name(bob, "Bob#ONE")
        who = "<item subscription='pending_out'><id name='Bob' tagline='ONE'/></item>"
        asks = f"<query xmlns='{ROSTER}'>{who}</query>"
        assert (await asked(alice, "set", asks)).get("type") == "result"
        assert pushed(alice, alice.others) == [("bob@localhost", "pending_out")]  # type: ignore[attr-defined]
        assert pushed(bob, await bob.receive_all()) == [("alice@localhost", "pending_in")]
        assert (await roster(alice))["bob@localhost"].get("subscription") == "pending_out"
        assert (await roster(bob))["alice@localhost"].get("subscription") == "pending_in"

        accepts = request(puuid="alice", subscription="pending_out")
        assert (await asked(bob, "set", accepts)).get("type") == "result"
        assert pushed(bob, bob.others) == [("alice@localhost", "both")]  # type: ignore[attr-defined]
        assert pushed(alice, await alice.receive_all()) == [("bob@localhost", "both")]

        assert (await asked(alice, "set", request(jid="bob@localhost", subscription="remove"))).get(
            "id"
        ) == "q_1"
        assert pushed(alice, alice.others) == [("bob@localhost", "remove")]  # type: ignore[attr-defined]
        assert pushed(bob, await bob.receive_all()) == [("alice@localhost", "remove")]
        assert await roster(alice) == await roster(bob) == {}


@pytest.mark.asyncio
@pytest.mark.parametrize("who", ["alice", "bob"])
async def test_who_asked_or_was_asked_may_end_it(who: str) -> None:
    async with world_of() as world:
        alice, bob = await player(world, "alice"), await player(world, "bob")
        await asked(alice, "set", request(jid="bob@localhost", subscription="pending_out"))
        doer, other = (alice, "bob@localhost") if who == "alice" else (bob, "alice@localhost")
        await bob.receive_all()
        await asked(doer, "set", request(jid=other, subscription="remove"))
        assert pushed(doer, doer.others) == [(other, "remove")]  # type: ignore[attr-defined]
        assert await roster(alice) == await roster(bob) == {}


@pytest.mark.asyncio
async def test_what_an_item_says() -> None:
    async with world_of() as world:
        alice, bob = await player(world, "alice"), await player(world, "bob")
        await name(bob, "Bob#ONE")
        await world.befriend(alice, bob)
        friends = "urn:xmppd:friends:0"
        await asked(alice, "set", f"<note xmlns='{friends}' jid='bob@localhost'>good healer</note>")
        item = (await roster(alice, last_state="true"))["bob@localhost"]
        shape = {str(it.tag).rpartition("}")[2]: (dict(it.attrib), it.text) for it in item.iter()}
        ids = {"name": "Bob", "tagline": "ONE"}
        assert shape["item"][0] == {
            "jid": "bob@localhost",
            "puuid": "bob",
            "subscription": "both",
            "name": "Bob",
        }
        assert (shape["id"][0], shape["riot"][0], shape["lol"][0]) == (ids, ids, {"name": "Bob"})
        assert shape["group"] == ({"priority": "0"}, "**Default")
        assert (shape["note"][1], shape["state"][1]) == ("good healer", "online")

        await bob.drop()
        await world.advance(60)
        item = (await roster(alice, last_state="true"))["bob@localhost"]
        assert item.findtext(f"{{{ROSTER}}}state") == "offline"
        last = item.findtext(f"{{{ROSTER}}}last_online") or ""
        assert len(last) == len("2026-11-30 01:02:03.456"), tostring(item)
        assert (last[10], last[19]) == (" ", ".")


@pytest.mark.asyncio
async def test_groups_have_priorities_and_their_changes_are_pushed() -> None:
    async with world_of() as world:
        alice, bob = await player(world, "alice"), await player(world, "bob")
        await world.befriend(alice, bob)
        await asked(alice, "set", "<group xmlns='urn:xmppd:friends:0' name='Guild' priority='7'/>")
        await alice.receive_all()
        moves = f"<query xmlns='{ns.ROSTER}'><item jid='bob@localhost'><group>Guild</group></item></query>"
        await asked(alice, "set", moves)
        assert pushed(alice, alice.others) == [("bob@localhost", "both")]  # type: ignore[attr-defined]
        group = (await roster(alice))["bob@localhost"].find(f"{{{ROSTER}}}group")
        assert group is not None
        assert (group.get("priority"), group.text) == ("7", "Guild")


@pytest.mark.asyncio
async def test_who_did_not_ask_for_the_list_is_not_told() -> None:
    async with world_of() as world:
        alice, bob, other = await player(world, "alice"), await world.login("bob"), await player(world, "bob")
        await asked(alice, "set", request(jid="bob@localhost", subscription="pending_out"))
        assert pushed(bob, await bob.receive_all()) == []
        assert pushed(other, await other.receive_all()) == [("alice@localhost", "pending_in")]


@pytest.mark.asyncio
async def test_nothing_is_pushed_after_what_is_newer() -> None:
    async with world_of() as world:
        alice, bob = await player(world, "alice"), await player(world, "bob")
        await world.befriend(alice, bob)
        await alice.receive_all()
        for version, subscription in ((2**52, "remove"), (2**52 - 1, "both"), (2**52, "both")):
            for plugin in world.plugins("riot_profile"):
                plugin.changed(alice.bare, bob.bare, version, subscription)
        await world.settle()
        assert pushed(alice, await alice.receive_all()) == [(bob.bare, "remove")]


# blocks


@pytest.mark.asyncio
async def test_a_block_is_added_to_the_list_and_taken_from_it() -> None:
    async with world_of() as world:
        alice, bob = await player(world, "alice"), await player(world, "bob")
        shows = "<query xmlns='jabber:iq:privacy'><list name='LOL'/></query>"
        assert len((await asked(alice, "get", shows))[0][0]) == 0
        adds = f"<query xmlns='jabber:iq:privacy'><add name='LOL'>{BLOCKED}</add></query>"
        assert (await asked(alice, "set", adds, to="localhost")).get("from") == "localhost"
        (item,) = (await asked(alice, "get", shows))[0][0]
        assert dict(item.attrib) == {"type": "jid", "value": "bob@localhost", "action": "deny", "order": "1"}
        await bob.send(f"<message to='{alice.bare}' type='chat' id='m'><body>hi</body></message>")
        assert [it.get("id") for it in await alice.receive_all()] == []
        await asked(alice, "set", adds.replace("add", "remove"))
        assert len((await asked(alice, "get", shows))[0][0]) == 0


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("payload", "condition"),
    [
        ("<add name='LOL'/>", "modify bad-request"),
        ("<replace name='LOL'><item/></replace>", "modify bad-request"),
        ("<add name='LOL'><item type='group' value='x' action='deny'/></add>", "modify bad-request"),
        ("<add name='LOL'><item type='jid' value='@' action='deny'/></add>", "modify jid-malformed"),
        (f"<add name='LOL'>{BLOCKED * 101}</add>", "modify bad-request"),
        ("<add name='other'/>", "modify bad-request"),
    ],
)
async def test_changes_of_the_list_that_are_refused(payload: str, condition: str) -> None:
    async with world_of() as world:
        alice = await player(world, "alice")
        answer = await asked(alice, "set", f"<query xmlns='jabber:iq:privacy'>{payload}</query>")
        assert refusal(answer) == condition


@pytest.mark.asyncio
async def test_other_lists_are_those_of_the_standard() -> None:
    async with world_of() as world:
        alice = await player(world, "alice")
        asks = "<query xmlns='jabber:iq:privacy'><list name='blocklist'/></query>"
        assert refusal(await asked(alice, "get", asks)) == "cancel item-not-found"


# presence and messages


@pytest.mark.asyncio
async def test_games_are_shown_to_friends_as_they_are_and_bounded() -> None:
    async with world_of(games_bytes=500) as world:
        alice, bob = await player(world, "alice"), await player(world, "bob")
        await world.befriend(alice, bob)
        await bob.receive_all()
        games = "<games><keystone><st>chat</st><s.t>1</s.t></keystone><other><p>{}</p></other></games>"
        await alice.send(f"<presence><show>mobile</show>{games.format('e30=')}</presence>")
        (shown,) = await bob.receive_all()
        assert shown.findtext("{jabber:client}games/{jabber:client}other/{jabber:client}p") == "e30="
        await alice.receive_all()
        await alice.send(f"<presence id='p2'>{games.format('x' * 500)}</presence>")
        assert refusal(await alice.receive()) == "modify not-acceptable"
        await bob.expect_nothing()
        await alice.send(f"<presence id='p3'><status>{'x' * 600}</status>{games.format('')}</presence>")
        assert len(await bob.receive_all()) == 1


@pytest.mark.asyncio
async def test_chat_is_stamped_by_the_server_alone() -> None:
    async with world_of() as world:
        alice, bob = await player(world, "alice"), await player(world, "bob")
        await alice.send(
            f"<message to='{bob.bare}' type='chat' id='1700000000000:1' stamp='2001-01-01 00:00:00.000'>"
            "<body>gg &amp; wp</body></message>"
        )
        (message,) = await bob.receive_all()
        assert message.get("id") == "1700000000000:1"
        assert message.get("stamp") == "2023-11-14 22:13:20.000"
        assert message.findtext("{jabber:client}body") == "gg & wp"


@pytest.mark.asyncio
async def test_friends_on_two_nodes_are_pushed_to() -> None:
    async with world_of(nodes=2) as world:
        alice, bob = await player(world, "alice", node=0), await player(world, "bob", node=1)
        await asked(alice, "set", request(jid="bob@localhost", subscription="pending_out"))
        assert pushed(bob, await bob.receive_all()) == [("alice@localhost", "pending_in")]
        await asked(bob, "set", request(jid="alice@localhost", subscription="pending_out"))
        assert pushed(alice, await alice.receive_all())[-1] == ("bob@localhost", "both")
        assert (await roster(alice, last_state="true"))["bob@localhost"].findtext(
            f"{{{ROSTER}}}state"
        ) == "online"


@pytest.mark.asyncio
async def test_who_has_the_name_of_somebody_removed_is_pushed_to() -> None:
    async with world_of() as world:
        alice, bob = await player(world, "alice"), await player(world, "bob")
        for kind in ("pending_out", "remove") * 3:
            await asked(alice, "set", request(jid=bob.bare, subscription=kind))
        await world.app.commands.call("user remove", {"account": bob.bare})
        await world.settle()
        bob = await player(world, "bob")
        await asked(alice, "set", request(jid=bob.bare, subscription="pending_out"))
        assert pushed(bob, await bob.receive_all()) == [("alice@localhost", "pending_in")]
