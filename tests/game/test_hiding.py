"""Who appears offline looks like who is offline: whatever somebody else tries, on one node and on two."""

import re
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import tostring

import pytest

from xmppd import ns
from xmppd.testing import Client, World, refusal

NS = "urn:xmppd:rich-presence:0"
PLUGINS = ("rich_presence", "last", "disco", "version", "ping", "offline", "carbons", "archive", "blocking")
OF_GAMES = ("players", "friends", "invites", "game_events", "moderation")
CONFIG = {
    "rich_presence": {"games": {"go": {"says": {}}}, "window": 0.0},
    "invites": {"offline": "refuse", "message": ""},
}
HIDDEN = f"<hidden xmlns='{NS}'>%s</hidden>"
ALL, FRIEND = "<all/>", "<friend>alice@localhost</friend>"
GROUP = "<group>school</group>"
BOB = "bob@localhost"

Try = Callable[[World, Client, Client | None], Coroutine[Any, Any, None]]


def world_of(without: str = "") -> World:
    plugins = tuple(name for name in (*PLUGINS, *OF_GAMES) if name != without)
    return World(plugins=plugins, plugin_config=CONFIG)


async def hide(client: Client, what: str) -> None:
    await client.send(f"<iq type='set' id='hide'>{HIDDEN % what}</iq>")
    [answer] = [it for it in await client.receive_all() if it.get("id") == "hide"]
    assert answer.get("type") == "result", tostring(answer)


async def group(client: Client, *names: str) -> None:
    """Have alice in these groups of the roster."""
    groups = "".join(f"<group>{name}</group>" for name in names)
    item = f"<query xmlns='{ns.ROSTER}'><item jid='alice@localhost'>{groups}</item></query>"
    await client.send(f"<iq type='set' id='group'>{item}</iq>")
    await client.receive_all()


async def got(client: Client) -> list[str]:
    """What came, without what is another one each time."""
    found = []
    for it in await client.receive_all():
        text = tostring(it, encoding="unicode")
        text = re.sub(r"(stamp|queryid|since)=\"[^\"]*\"", r'\1="*"', text)
        text = re.sub(r"(<ns\d+:stanza-id[^>]* id)=\"[^\"]*\"", r'\1="*"', text)
        text = re.sub(r"id=\"push\d+\"", 'id="push"', text)
        found.append(re.sub(r"AAY[\w-]{13}", "*", text))
    return found


async def quiet(world: World, client: Client, bob: Client | None) -> None:
    """Bob does all that nobody is to see."""
    if bob is not None:
        await bob.send("<presence><show>away</show><status>secretly</status></presence>")
        await bob.send(f"<iq type='set' id='g'><game xmlns='{NS}' id='go'><state>{{}}</state></game></iq>")
        await bob.send("<presence to='alice@localhost'/>")
        await bob.send(f"<presence to='{client.jid}'/>")
        other = await world.login("bob", "phone")
        await other.send("<presence type='unavailable'><status>bye</status></presence>")
        await other.drop()


async def spoken(world: World, client: Client, bob: Client | None) -> None:
    """His client answers by itself what it is written."""
    asked = f"<request xmlns='{ns.RECEIPTS}'/><markable xmlns='{ns.CHAT_MARKERS}'/>"
    await client.send(f"<message to='{BOB}' type='chat' id='m1'><body>there?</body>{asked}</message>")
    if bob is not None:
        got = [it.findtext(f"{{{ns.CLIENT}}}body") for it in await bob.receive_all()]
        assert got == ["there?"] or "offline" not in {it.name for it in world.app.loader.loaded}
        for said in (
            f"<received xmlns='{ns.RECEIPTS}' id='m1'/>",
            f"<displayed xmlns='{ns.CHAT_MARKERS}' id='m1'/>",
            f"<composing xmlns='{ns.CHAT_STATES}'/>",
            f"<x:received xmlns:x='{ns.RECEIPTS.replace('r', '&#114;', 1)}' id='m1'/>",
        ):
            await bob.send(f"<message to='alice@localhost' type='chat'>{said}</message>")
    await client.send(f"<iq type='get' id='c'><query xmlns='{ns.CONVERSATIONS}'/></iq>")


def presence(type: str, to: str) -> Try:
    async def attempt(world: World, client: Client, bob: Client | None) -> None:
        await client.send(f"<presence type='{type}' to='{to}'/>")

    return attempt


def iq(payload: str, to: str) -> Try:
    async def attempt(world: World, client: Client, bob: Client | None) -> None:
        await client.send(f"<iq type='get' id='i' to='{to}'>{payload}</iq>")
        await client.send(f"<iq type='result' id='i' to='{to}'/>")

    return attempt


def own(kind: str, payload: str) -> Try:
    """What she asks her own account."""

    async def attempt(world: World, client: Client, bob: Client | None) -> None:
        await client.send(f"<iq type='{kind}' id='o'>{payload}</iq>")

    return attempt


def message(type: str, content: str, to: str) -> Try:
    async def attempt(world: World, client: Client, bob: Client | None) -> None:
        await client.send(f"<message type='{type}' id='m' to='{to}'>{content}</message>")

    return attempt


async def again(world: World, client: Client, bob: Client | None) -> None:
    """Another session of hers comes."""
    other = await world.bind("alice", "pc2")
    await other.send(f"<iq type='get' id='r'><query xmlns='{ns.ROSTER}'/></iq>")
    await other.send("<presence/>")
    world.seen = await got(other)  # type: ignore[attr-defined]


async def leaves(world: World, client: Client, bob: Client | None) -> None:
    """He leaves for good, with a word, and she asks again."""
    if bob is not None:
        await bob.send("<presence type='unavailable'><status>really bye</status></presence>")
        await bob.drop()
    await client.send(f"<presence type='probe' to='{BOB}'/>")
    await client.send(f"<iq type='get' id='i' to='{BOB}'><query xmlns='{ns.LAST}'/></iq>")
    await again(world, client, bob)


STATE = f"<active xmlns='{ns.CHAT_STATES}'/>"
NO_STORE = f"<body>x</body><no-store xmlns='{ns.HINTS}'/>"
PAYLOADS = {
    "last": f"<query xmlns='{ns.LAST}'/>",
    "info": f"<query xmlns='{ns.DISCO_INFO}'/>",
    "items": f"<query xmlns='{ns.DISCO_ITEMS}'/>",
    "caps": f"<query xmlns='{ns.DISCO_INFO}' node='http://x#y'/>",
    "version": "<query xmlns='jabber:iq:version'/>",
    "ping": "<ping xmlns='urn:xmpp:ping'/>",
    "join": f"<join xmlns='{NS}' id='go'/>",
    "unknown": "<x xmlns='urn:x'/>",
}
TRIES: dict[str, Try] = {"quiet": quiet, "spoken": spoken, "again": again}
INVITE = f"<invite xmlns='urn:xmppd:invites:0' to='{BOB}' kind='match' target='m'/>"
REQUEST = f"<request xmlns='urn:xmppd:friends:0' jid='{BOB}'/>"
PLAYER = f"<player xmlns='urn:xmppd:players:0' jid='{BOB}'/>"
TRIES |= {"list": own("get", "<friends xmlns='urn:xmppd:friends:0'/>"), "invite": own("set", INVITE)}
TRIES |= {"player": own("get", PLAYER), "request": own("set", REQUEST)}
for to in (BOB, f"{BOB}/pc", f"{BOB}/other"):
    TRIES |= {f"probe {to}": presence("probe", to), f"directed {to}": presence("unavailable", to)}
    TRIES |= {f"{name} {to}": iq(payload, to) for name, payload in PAYLOADS.items()}
    for kind in ("chat", "normal", "headline", "groupchat", "error"):
        TRIES[f"{kind} {to}"] = message(kind, "<body>hi</body>", to)
        TRIES[f"{kind} unkept {to}"] = message(kind, NO_STORE, to)
        TRIES[f"{kind} state {to}"] = message(kind, STATE, to)
TRIES |= {
    "asks for nothing new": presence("subscribe", BOB),
    "leaves": leaves,
    "asks": presence("subscribe", BOB),
    "parts": presence("unsubscribe", BOB),
}
TRIES |= {"refuses": presence("unsubscribed", BOB), "asks again": presence("subscribe", BOB)}


async def seen(how: str, without: str = "") -> dict[str, list[str]]:
    """What alice sees by each try where bob is offline, or hides in some way from her."""
    found: dict[str, list[str]] = {}
    async with world_of(without) as world:
        alice, bob = await world.login("alice", "pc"), await world.login("bob", "pc")
        await world.befriend(alice, bob)
        await group(bob, "school")
        carol = await world.login("carol")
        await world.befriend(bob, carol)
        there = bob if how else None
        if how:
            await hide(bob, how)
        else:
            await bob.drop()
        for client in (alice, carol):
            found[f"left {client.bare}"] = await got(client)
        if how and how != ALL:
            assert found.pop(f"left {carol.bare}") == []
        await world.advance(40)
        await bob.receive_all()
        for name, attempt in TRIES.items():
            world.seen = []  # type: ignore[attr-defined]
            await attempt(world, alice, there)
            await world.settle()
            found[name] = [*await got(alice), *world.seen]  # type: ignore[attr-defined]
            if there is not None:
                await there.receive_all()
            if how and how != ALL and name.startswith("probe"):
                await carol.send(f"<presence type='probe' to='{BOB}'/>")
                assert any(f'from="{BOB}/pc"' in it and "unavail" not in it for it in await got(carol))
    return found


@pytest.mark.asyncio
@pytest.mark.parametrize("how", [ALL, GROUP, FRIEND])
async def test_who_hides_looks_as_who_is_offline(how: str) -> None:
    expected, found = await seen(""), await seen(how)
    assert {name: it for name, it in found.items() if it != expected[name]} == {}


@pytest.mark.asyncio
@pytest.mark.parametrize("without", ["offline", "archive"])
async def test_who_hides_looks_as_who_is_offline_where_less_is_kept(without: str) -> None:
    expected, found = await seen("", without), await seen(ALL, without)
    assert {name: it for name, it in found.items() if it != expected[name]} == {}


async def seen_of_who_comes(how: str) -> list[str]:
    """What alice sees of bob, who left with a word, and in one case came again hiding since he was away."""
    async with world_of() as world:
        alice, bob = await world.login("alice", "pc"), await world.login("bob", "pc")
        await world.befriend(alice, bob)
        await group(bob, "school")
        await bob.send("<presence type='unavailable'><status>gone fishing</status></presence>")
        await bob.drop()
        await world.advance(20)
        await alice.receive_all()
        if how:
            options = {
                "all": {"all": True},
                "group": {"group": ["school"]},
                "friend": {"friend": ["alice@localhost"]},
            }
            await world.app.commands.call("presence hide", {"account": BOB, **options[how]})
            bob = await world.login("bob", "pc")
            await bob.send("<presence><status>secretly</status></presence>")
        await world.advance(5)
        world.seen = []  # type: ignore[attr-defined]
        await leaves(world, alice, bob if how else None)
        await world.settle()
        return [*await got(alice), *world.seen]  # type: ignore[attr-defined]


@pytest.mark.asyncio
@pytest.mark.parametrize("how", ["all", "group", "friend"])
async def test_who_comes_hiding_is_seen_as_he_left(how: str) -> None:
    expected = await seen_of_who_comes("")
    assert any("gone fishing" in it for it in expected) and any('seconds="25"' in it for it in expected)
    assert await seen_of_who_comes(how) == expected


@pytest.mark.asyncio
async def test_who_is_not_hidden_any_more_is_seen_at_once() -> None:
    async with world_of() as world:
        alice, bob = await world.login("alice", "pc"), await world.login("bob", "pc")
        await world.befriend(alice, bob)
        await group(bob, "school")
        await alice.receive_all()

        async def types(what: str) -> list[str | None]:
            await hide(bob, what)
            await world.settle()
            return [it.get("type") for it in await alice.receive_all()]

        assert await types(ALL) == ["unavailable"]
        assert await types(GROUP) == [], "he is as hidden as before"
        assert await types(FRIEND + GROUP) == []
        assert await types("") == [None]
        assert await types(GROUP) == ["unavailable"]
        await group(bob)
        assert [it.get("type") for it in await alice.receive_all()] == [None]
        await group(bob, "school", "work")
        assert [it.get("type") for it in await alice.receive_all()] == ["unavailable"]
        assert [row["to"] for row in await world.app.commands.call("presence hidden", {"account": BOB})] == [
            "group"
        ]
        rows = await world.app.commands.call("presence why", {"owner": BOB, "viewer": "alice@localhost"})
        assert [row["rule"] for row in rows if not row["is_so"]] == ["not-hidden"]
        await bob.send(f"<iq type='get' id='h'>{HIDDEN % ''}</iq>")
        assert "school" in tostring(await bob.receive(), encoding="unicode")


@pytest.mark.asyncio
async def test_what_is_written_to_who_hides_reaches_him_in_order() -> None:
    async with world_of() as world:
        alice, bob = await world.login("alice", "pc"), await world.login("bob", "pc")
        await world.befriend(alice, bob)
        await hide(bob, ALL)
        for number in range(5):
            to = BOB if number % 2 else f"{BOB}/pc"
            await alice.send(f"<message type='chat' to='{to}'><body>{number}</body></message>")
        await world.settle()
        bodies = [it.findtext(f"{{{ns.CLIENT}}}body") for it in await bob.receive_all()]
        assert bodies == ["0", "1", "2", "3", "4"]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("what", "refused"),
    [
        ("<x/>", "modify bad-request"),
        ("<group/>", "modify bad-request"),
        ("<friend>@</friend>", "modify jid-malformed"),
        ("".join(f"<group>{number}</group>" for number in range(301)), "cancel resource-constraint"),
    ],
)
async def test_what_one_cannot_hide_from(what: str, refused: str) -> None:
    async with world_of() as world:
        bob = await world.login("bob")
        await bob.send(f"<iq type='set' id='h'>{HIDDEN % what}</iq>")
        assert refusal(await bob.receive()) == refused


@pytest.mark.asyncio
async def test_the_last_words_and_rules_of_a_removed_account_are_nobodys() -> None:
    async with world_of() as world:
        bob = await world.login("bob")
        await hide(bob, ALL)
        await world.app.server.remove_account(BOB)
        await world.settle()
        plugin = world.plugin("rich_presence")
        assert [row async for row in plugin.rules.everything()] == []
        assert not any(BOB in it.away for it in world.plugins("rich_presence"))


@pytest.mark.asyncio
async def test_no_receipt_is_made_up_for_who_hides(tmp_path: Path) -> None:
    (tmp_path / "any.txt").write_text("[shadow]\ngold\n")
    plugins = ("rich_presence", "offline", "moderation")
    async with World(plugins=plugins, plugin_config={"moderation": {"words": str(tmp_path)}}) as world:
        alice, bob = await world.login("alice", "pc"), await world.login("bob", "pc")
        await world.befriend(alice, bob)
        receipt = f"<received xmlns='{ns.RECEIPTS}' id='x'/>"
        await bob.send(f"<message to='alice@localhost' type='chat'><body>hello</body>{receipt}</message>")
        await alice.receive_all()
        asked = f"<body>gold</body><request xmlns='{ns.RECEIPTS}'/>"
        said = f"<message to='{BOB}' type='chat' id='m1'>{asked}</message>"
        await alice.send(said)
        assert len(await alice.receive_all()) == 1, "he hears nothing, and she is told that it arrived"
        await hide(bob, ALL)
        await alice.receive_all()
        await alice.send(said)
        assert await alice.receive_all() == []
