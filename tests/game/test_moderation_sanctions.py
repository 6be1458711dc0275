"""Plugin moderation: sanctions, on live sessions and later ones, and that who is muted is heard by nobody."""

import tempfile
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, tostring

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmppd import ns
from xmppd.errors import CommandError, SaslError
from xmppd.store.sqlite.store import SqliteStore
from xmppd.testing import Client, World, refusal
from xmppd.testing.client import Clock

NS = "urn:xmppd:moderation:0"
BODY = f"{{{ns.CLIENT}}}body"
TEXT = f"{{{ns.STANZA_ERRORS}}}text"


def world(*plugins: str, **config: Any) -> World:
    return World(plugins=("disco", *plugins, "moderation"), plugin_config={"moderation": config})


async def call(world: World, name: str, **arguments: Any) -> Any:
    result = await world.apps[-1].commands.call(f"moderation {name}", arguments)
    await world.settle()
    return result


async def impose(world: World, kind: str, who: str = "alice", **more: Any) -> str:
    made = await call(world, "sanction", account=f"{who}@localhost", kind=kind, **more)
    return str(made["id"])


async def say(client: Client, text: str = "hi", to: str = "bob@localhost", kind: str = "chat") -> None:
    await client.send(f"<message to='{to}' type='{kind}'><body>{text}</body></message>")


async def said(client: Client) -> list[str]:
    return [one.findtext(BODY) or "" for one in await client.receive_all() if one.find(BODY) is not None]


def detail(answer: Element) -> Element:
    return next(part for part in answer.iter() if part.tag.startswith(f"{{{NS}}}"))


@pytest.mark.asyncio
async def test_a_mute_holds_at_once_for_all_sessions_and_ends_by_itself() -> None:
    async with world() as it:
        alice, second, bob = await it.login("alice"), await it.login("alice"), await it.login("bob")
        await it.befriend(alice, bob)
        await alice.send("<presence><show>dnd</show><status>in a match</status></presence>")
        for client in (alice, second, bob):
            await client.receive_all()
        id = await impose(it, "mute", minutes=1, reason="Insults.", note="Write to us.")
        for client in (alice, second):
            got = [one for one in await client.receive_all() if one.find(BODY) is not None]
            assert len(got) == 1
            sanction = got[0].find(f"{{{NS}}}sanction")
            assert sanction is not None
            assert (sanction.get("id"), sanction.get("kind"), sanction.get("scope")) == (id, "mute", "all")
            assert sanction.findtext(f"{{{NS}}}note") == "Write to us."
            await say(client)
            answer = await client.receive()
            assert refusal(answer) == "cancel not-allowed"
            assert "Insults." in answer[-1].findtext(TEXT, "")
            assert detail(answer).get("id") == id
        shown = [one for one in await bob.receive_all() if one.get("from") == alice.jid]
        presence = [one for one in shown if one.tag.endswith("presence")][-1]
        assert presence.findtext(f"{{{ns.CLIENT}}}show") == "dnd"
        assert presence.find(f"{{{ns.CLIENT}}}status") is None
        await it.advance(61)
        assert await said(alice) == ["You can chat again."]
        await say(alice)
        assert await said(bob) == ["hi"]


@pytest.mark.asyncio
async def test_players_are_told_in_their_language() -> None:
    texts = {"fr.mute-forever": "Tu es muet. {reason}"}
    async with world(texts=texts) as it:
        clients = []
        for name, lang in (("alice", "de-AT"), ("bob", "fr"), ("carol", "xx")):
            client = it.connect()
            await client.open(more=f"xml:lang='{lang}'")
            await client.authenticate(name)
            await client.open(more=f"xml:lang='{lang}'")
            await client.bind()
            await client.send("<presence/>")
            await client.receive_all()
            await impose(it, "mute", name, reason="!")
            clients.append(await said(client))
        assert clients == [
            ["Du kannst nicht mehr chatten. !"],
            ["Tu es muet. !"],
            ["You cannot chat any more. !"],
        ]


@pytest.mark.asyncio
async def test_a_mute_is_lifted_and_noted() -> None:
    async with world() as it:
        alice, bob = await it.login("alice"), await it.login("bob")
        id = await impose(it, "mute", reason="x")
        await alice.receive_all()
        await call(it, "note", account="alice@localhost", id=id, note="We look at it.")
        answer = await alice.ask("get", f"<sanctions xmlns='{NS}'/>")
        assert answer[0][0].findtext(f"{{{NS}}}note") == "We look at it."
        assert (await call(it, "lift", account="alice@localhost", id=id))["state"] == "lifted"
        assert await said(alice) == ["You can chat again."]
        await say(alice)
        assert await said(bob) == ["hi"]
        assert len((await alice.ask("get", f"<sanctions xmlns='{NS}'/>"))[0]) == 0
        assert await call(it, "sanctions", account="alice@localhost") == []
        [row] = await call(it, "sanctions", account="alice@localhost", all=True)
        assert (row["id"], row["state"], row["note"]) == (id, "lifted", "We look at it.")
        again = await call(it, "lift", account="alice@localhost", id=id)
        assert again["state"] == "lifted"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"kind": "burn"}, "kind must be"),
        ({"kind": "mute", "scope": "world"}, "scope must be"),
        ({"kind": "ban", "scope": "direct"}, "scope must be"),
        ({"kind": "mute", "minutes": 0.0}, "minutes must be"),
        ({"kind": "mute", "reason": "\x07"}, "reason must"),
        ({"kind": "mute", "reason": "x" * 1001}, "reason must"),
        ({"kind": "mute", "account": "nobody@localhost"}, "there is no account"),
    ],
)
async def test_what_makes_no_sense_is_refused(arguments: dict[str, Any], why: str) -> None:
    async with world() as it:
        with pytest.raises(CommandError, match=why):
            await call(it, "sanction", **{"account": "alice@localhost", **arguments})
        with pytest.raises(CommandError, match="there is no sanction"):
            await call(it, "lift", account="alice@localhost", id="x")


@pytest.mark.asyncio
async def test_a_ban_ends_sessions_and_lets_nobody_in() -> None:
    async with world() as it:
        alice, second, bob = await it.login("alice"), await it.login("alice"), await it.login("bob")
        id = await impose(it, "ban", minutes=10, reason="Cheats.")
        for client in (alice, second):
            await client.expect_closed("policy-violation")
        with pytest.raises((AssertionError, SaslError), match="account-disabled"):
            await it.login("alice")
        assert sum(plugin.kept_out.value for plugin in it.plugins("moderation")) >= 1
        await call(it, "lift", account="alice@localhost", id=id)
        await say(await it.login("alice"))
        assert await said(bob) == ["hi"]


@pytest.mark.asyncio
async def test_scopes_of_a_mute() -> None:
    async with world() as it:
        alice, bob = await it.login("alice"), await it.login("bob")
        await it.befriend(alice, bob)
        await impose(it, "mute", scope="groups")
        for client in (alice, bob):
            await client.receive_all()
        await say(alice)
        assert await said(bob) == ["hi"]
        await say(alice, kind="groupchat", to="room@localhost")
        assert refusal(await alice.receive()) == "cancel not-allowed"
        await impose(it, "mute", scope="direct")
        await alice.receive_all()
        await say(alice)
        assert refusal(await alice.receive()) == "cancel not-allowed"
        await alice.send("<presence><status>still there</status></presence>")
        [got] = [one for one in await bob.receive_all() if one.tag.endswith("presence")]
        assert got.findtext(f"{{{ns.CLIENT}}}status") == "still there"


@pytest.mark.asyncio
async def test_who_may_write_little_does() -> None:
    async with world(limited={"burst": 2, "per_second": 0.1}) as it:
        alice, bob = await it.login("alice"), await it.login("bob")
        await impose(it, "chat-limit", minutes=5)
        await alice.receive_all()
        for _ in range(3):
            await say(alice)
        answer = await alice.receive()
        assert refusal(answer) == "wait policy-violation"
        assert detail(answer).get("seconds") == "10"
        assert await said(bob) == ["hi", "hi"]
        await it.advance(10)
        await say(alice)
        assert await said(bob) == ["hi"]


@pytest.mark.asyncio
async def test_who_may_write_little_does_on_all_nodes_together() -> None:
    limited = {"burst": 2, "per_second": 0.001}
    about = {"plugins": ("disco", "moderation"), "plugin_config": {"moderation": {"limited": limited}}}
    async with World(**about, nodes=2) as it:
        one, two, bob = await it.login("alice"), await it.login("alice"), await it.login("bob")
        assert one.app is not two.app
        await impose(it, "chat-limit", minutes=5)
        for client in (one, two):
            await client.receive_all()
            await say(client)
            await it.advance(1)
        for client in (one, two):
            await say(client)
            assert refusal(await client.receive()) == "wait policy-violation"
        assert await said(bob) == ["hi", "hi"]


@pytest.mark.asyncio
async def test_who_comes_later_is_reminded_and_held() -> None:
    async with world() as it:
        bob = await it.login("bob")
        await impose(it, "mute", minutes=5, reason="x")
        alice = await it.bind("alice")
        await alice.send("<presence><status>fish</status></presence>")
        assert len(await said(alice)) == 1
        await say(alice)
        assert refusal(await alice.receive()) == "cancel not-allowed"
        assert b"fish" not in b"".join([tostring(one) for one in await bob.receive_all()])


@pytest.mark.own_engine
@pytest.mark.asyncio
async def test_sanctions_outlive_a_restart(tmp_path: Path) -> None:
    settings = {"plugins": ("disco", "moderation"), "nodes": 1}
    file = tmp_path / "xmppd.sqlite"
    async with World(store=SqliteStore(str(file), now=Clock().now), **settings) as it:
        await impose(it, "mute", minutes=50)
    async with World(store=SqliteStore(str(file), now=Clock().now), accounts=(), **settings) as it:
        alice = await it.login("alice")
        await alice.receive_all()
        await say(alice)
        assert refusal(await alice.receive()) == "cancel not-allowed"


@pytest.mark.asyncio
async def test_a_reload_forgets_nothing() -> None:
    async with world() as it:
        alice = await it.login("alice")
        await impose(it, "mute", minutes=50)
        await alice.receive_all()
        await alice.app.loader.reload("moderation", it.config)
        await it.settle()
        await say(alice)
        assert refusal(await alice.receive()) == "cancel not-allowed"


@pytest.mark.asyncio
async def test_what_a_node_was_not_told_it_finds() -> None:
    """A signal may be lost; the store has it all the same."""
    async with world() as it:
        alice = await it.login("alice")
        plugins = it.plugins("moderation")
        for plugin in plugins:
            plugin._stand = lambda account, after: None  # it hears nothing
        await impose(it, "mute", minutes=50)
        for plugin in plugins:
            del plugin._stand
        await say(alice)
        await alice.receive_all()
        for plugin in plugins:
            await plugin._look()
        await it.settle()
        await alice.receive_all()
        await say(alice)
        assert refusal(await alice.receive()) == "cancel not-allowed"


@pytest.mark.asyncio
async def test_who_has_the_name_next_has_done_nothing() -> None:
    async with world() as it:
        await impose(it, "mute")
        await it.app.commands.call("user remove", {"account": "alice@localhost"})
        await it.app.accounts.create("alice@localhost", "secret")
        await it.settle()
        await it.advance(6)
        alice, bob = await it.login("alice"), await it.login("bob")
        await say(alice)
        assert await said(bob) == ["hi"]


# heard by nobody

TOKEN = "zxqheard"
OTHERS = (
    "bob@localhost",
    "BOB",
    "carol@localhost",
    "echo.localhost",
    f"room@echo.localhost/{TOKEN}",
    "localhost",
    "alice@localhost",
    "",
)
PRESENCES = (None, "unavailable", "subscribe", "subscribed", "unsubscribe", "unsubscribed", "probe", "error")
TYPES = ("chat", "normal", "headline", "groupchat", "error", None, TOKEN)
PIECES = (
    f"<body>{TOKEN}</body>",
    f"<subject>{TOKEN}</subject>",
    f"<thread>{TOKEN}</thread>",
    f"<status>{TOKEN}</status>",
    f"<show>{TOKEN}</show>",
    "<show>away</show>",
    f"<priority>{TOKEN}</priority>",
    f"<nick xmlns='{ns.NICK}'>{TOKEN}</nick>",
    f"<x xmlns='{TOKEN}'/>",
    f"<x xmlns='urn:x' {TOKEN}='1'/>",
    f"<c xmlns='http://jabber.org/protocol/caps' node='{TOKEN}' ver='x' hash='sha-1'/>",
    f"<html xmlns='{ns.XHTML_IM}'><body xmlns='http://www.w3.org/1999/xhtml'>{TOKEN}</body></html>",
    f"<received xmlns='{ns.RECEIPTS}' id='{TOKEN}'/>",
    f"<composing xmlns='http://jabber.org/protocol/chatstates'>{TOKEN}</composing>",
    f"<reactions xmlns='{ns.REACTIONS}' id='x'><reaction>{TOKEN}</reaction></reactions>",
    f"<x xmlns='{ns.CONFERENCE}' jid='room@localhost' reason='{TOKEN}'/>",
    f"<error type='cancel'><text xmlns='{ns.STANZA_ERRORS}'>{TOKEN}</text></error>",
    f"<body><![CDATA[{TOKEN}]]></body>",
)
GAME = "urn:xmppd:rich-presence:0"
SAYS = {"chess": {"name": "Chess", "status": "{mode}", "says": {"properties": {"mode": {"type": "string"}}}}}
IQS = (
    f"<vCard xmlns='vcard-temp'><FN>{TOKEN}</FN></vCard>",
    f"<query xmlns='jabber:iq:roster'><item jid='bob@localhost' name='{TOKEN}'/></query>",
    f"<query xmlns='jabber:iq:version'><name>{TOKEN}</name></query>",
    f"<query xmlns='jabber:iq:private'><x xmlns='urn:x'>{TOKEN}</x></query>",
    f"<x xmlns='urn:x'>{TOKEN}</x>",
    f"<ping xmlns='{ns.PING}'>{TOKEN}</ping>",
    f"<game xmlns='{GAME}' id='chess'><state>{{&quot;mode&quot;: &quot;{TOKEN}&quot;}}</state></game>",
    f"<game xmlns='{GAME}' id='chess'><join secret='{TOKEN}' for='friends'/></game>",
    f"<player xmlns='urn:xmppd:players:0' name='{TOKEN}#EUW'/>",
    f"<request xmlns='urn:xmppd:friends:0' jid='carol@localhost'>{TOKEN}</request>",
    f"<invite xmlns='urn:xmppd:invites:0' to='bob@localhost' kind='{TOKEN}' target='{TOKEN}' game='chess'/>",
    f"<block xmlns='{ns.BLOCKING}'><item jid='dora@localhost'/></block>",
)
stanzas = st.one_of(
    st.tuples(
        st.just("message"),
        st.sampled_from(OTHERS),
        st.sampled_from(TYPES),
        st.lists(st.sampled_from(PIECES), max_size=3),
    ),
    st.tuples(
        st.just("presence"),
        st.sampled_from(OTHERS),
        st.sampled_from(PRESENCES),
        st.lists(st.sampled_from(PIECES), max_size=3),
    ),
    st.tuples(
        st.just("iq"),
        st.sampled_from(OTHERS),
        st.sampled_from(("get", "set", "result", "error")),
        st.lists(st.sampled_from(IQS), min_size=1, max_size=1),
    ),
)


def written(stanza: tuple[str, str, str | None, list[str]], jid: str, number: int) -> str:
    kind, to, type_, children = stanza
    attrs = f" to='{jid if to == 'BOB' else to}'" if to else ""
    attrs += f" type='{type_}'" if type_ else ""
    return f"<{kind} id='{TOKEN}{number}' xml:lang='en'{attrs}>{''.join(children)}</{kind}>"


ECHO = """
from xmppd.plugin import Plugin, service

class Echo(Plugin):
    heard = []
    @service("echo", category="component", type="echo", title="Echo", features=())
    async def answer(self, origin, stanza, to):
        self.heard.append(stanza.raw + to.full.encode())
"""


FREE = {"rates": {verb: {"per_second": 0.0} for verb in ("message", "presence", "request", "iq")}}
PLUGINS = ("disco", "vcard", "private", "blocking", "offline", "carbons", "version", "last", "ping")


async def make_friends(it: World, one: Client, other: Client) -> None:
    await it.app.commands.call("friend befriend", {"one": one.bare, "other": other.bare})
    await it.settle()
    for client in (one, other):
        await client.receive_all()


async def heard_of(sent: list[Any], is_first: bool) -> list[bytes]:
    """What others hear of what a muted player sends, and find of him later."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "echo.py").write_text(ECHO)
        async with World(
            plugins=(*PLUGINS, "echo", "moderation", "players", "friends", "rich_presence", "invites"),
            plugin_folders=(Path(folder),),
            plugin_config={
                "moderation": FREE,
                "rich_presence": {"games": SAYS, "key": TOKEN[:2] * 16},
                "invites": {"senders": "anybody", "key": TOKEN[:2] * 16},
            },
        ) as it:
            if is_first:
                await impose(it, "mute")
            alice, bob, carol = await it.login("alice"), await it.login("bob"), await it.login("carol")
            await make_friends(it, alice, bob)
            if not is_first:
                await alice.send(f"<presence><status>{TOKEN}</status></presence>")
                await impose(it, "mute")
            for client in (alice, bob, carol):
                await client.receive_all()
            for number, stanza in enumerate(sent):
                await alice.send(written(stanza, bob.jid, number))
            heard = [tostring(one) for client in (bob, carol) for one in await client.receive_all()]
            late = await it.bind("bob")
            await late.send("<presence/>")
            heard += [tostring(one) for one in await late.receive_all()]
            for asked in ("<vCard xmlns='vcard-temp'/>", f"<query xmlns='{ns.LAST}'/>"):
                heard.append(tostring(await bob.ask("get", asked, to="alice@localhost")))
            for plugin in it.plugins("echo"):
                heard += plugin.heard
                plugin.heard.clear()
    return [one for one in heard if TOKEN.encode() in one]


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", ["message", "presence", "iq"])
async def test_no_stanza_of_who_is_muted_is_heard(kind: str) -> None:
    """Each by itself, to anybody."""
    types = {"message": TYPES, "presence": PRESENCES, "iq": ("get", "set", "result", "error")}[kind]
    sent = [
        (kind, to, type_, [piece])
        for to in OTHERS
        for type_ in types
        for piece in (IQS if kind == "iq" else PIECES)
    ]
    assert await heard_of(sent, is_first=False) == []


@pytest.mark.asyncio
@settings(max_examples=8)
@given(st.lists(stanzas, min_size=1, max_size=12), st.booleans())
async def test_no_stanzas_of_who_is_muted_are_heard(sent: list[Any], is_first: bool) -> None:
    assert await heard_of(sent, is_first) == []


@pytest.mark.asyncio
@settings(max_examples=8)
@given(st.lists(stanzas, min_size=1, max_size=12))
async def test_no_stanzas_of_who_is_blocked_are_heard(sent: list[Any]) -> None:
    async with World(plugins=(*PLUGINS, "moderation"), plugin_config={"moderation": FREE}) as it:
        alice, bob = await it.login("alice"), await it.login("bob")
        await it.befriend(alice, bob)
        await bob.ask("set", f"<block xmlns='{ns.BLOCKING}'><item jid='alice@localhost'/></block>")
        await bob.receive_all()
        for number, stanza in enumerate(sent):
            await alice.send(written(stanza, bob.jid, number))
        heard = [tostring(one) for one in await bob.receive_all()]
        late = await it.bind("bob")
        await late.send("<presence/>")
        heard += [tostring(one) for one in await late.receive_all()]
        assert [one for one in heard if TOKEN.encode() in one] == []
