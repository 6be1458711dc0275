"""Random walks of who is muted, blocked, or hides, through all that can be said with all plugins of games: no
word of theirs reaches those whom it must not. Each word is another one, so that none is found by chance.
`XMPPD_TEST_UNHEARD` says how many.
"""

from __future__ import annotations

import os
import random
import re

import pytest
from gamerequests import FINE
from gameworld import call, everything

from xmppd import ns
from xmppd.testing import Client, World

RICH = "urn:xmppd:rich-presence:0"
ALICE, BOB, CAROL = (f"{name}@localhost" for name in ("alice", "bob", "carol"))
SEEDS = int(os.environ.get("XMPPD_TEST_UNHEARD", "2"))
STEPS = 60
WORD = re.compile(rb"zq[a-z]+q\d+q", re.IGNORECASE)
PIECES = (
    "<body>{}</body>",
    "<subject>{}</subject>",
    "<thread>{}</thread>",
    "<status>{}</status>",
    "<status xml:lang='de'>{}</status>",
    "<show>away</show>",
    "<show>{}</show>",
    "<priority>5</priority>",
    "<priority>{}</priority>",
    f"<nick xmlns='{ns.NICK}'>{{}}</nick>",
    "<x xmlns='{}'/>",
    "<x xmlns='urn:x' {}='1'>{}</x>",
    "<games><{}><st>{}</st></{}></games>",
    "<c xmlns='http://jabber.org/protocol/caps' node='{}' ver='x' hash='sha-1'/>",
    f"<html xmlns='{ns.XHTML_IM}'><body xmlns='http://www.w3.org/1999/xhtml'>{{}}</body></html>",
    f"<received xmlns='{ns.RECEIPTS}' id='{{}}'/>",
    f"<request xmlns='{ns.RECEIPTS}'/>",
    f"<displayed xmlns='{ns.CHAT_MARKERS}' id='{{}}'/>",
    f"<composing xmlns='{ns.CHAT_STATES}'>{{}}</composing>",
    f"<reactions xmlns='{ns.REACTIONS}' id='{{}}'><reaction>{{}}</reaction></reactions>",
    f"<ringing xmlns='{ns.JINGLE_MESSAGE}' id='{{}}'/>",
    f"<x xmlns='{ns.CONFERENCE}' jid='room@localhost' reason='{{}}'/>",
    f"<error type='cancel'><text xmlns='{ns.STANZA_ERRORS}'>{{}}</text></error>",
    f"<stanza-id xmlns='{ns.STANZA_ID}' id='{{}}' by='{{}}'/>",
    f"<private xmlns='{ns.CARBONS}'/>",
    "<platform xmlns='urn:xmppd:players:0' name='{}'/>",
    "<invite xmlns='urn:xmppd:invites:0' id='{}' target='{}'/>",
    f"<game xmlns='{RICH}' id='{{}}'/>",
)
ASKS = (
    "<vCard xmlns='vcard-temp'><FN>{}</FN></vCard>",
    f"<query xmlns='{ns.ROSTER}'><item jid='{{peer}}' name='{{}}'><group>{{}}</group></item></query>",
    f"<query xmlns='{ns.ROSTER}'><item jid='{{peer}}' subscription='remove'/></query>",
    "<query xmlns='jabber:iq:version'><name>{}</name></query>",
    "<query xmlns='jabber:iq:private'><x xmlns='urn:x'>{}</x></query>",
    f"<query xmlns='{ns.DISCO_INFO}' node='{{}}'/>",
    f"<query xmlns='{ns.DISCO_ITEMS}' node='{{}}'/>",
    f"<query xmlns='{ns.LAST}'>{{}}</query>",
    "<time xmlns='urn:xmpp:time'>{}</time>",
    f"<ping xmlns='{ns.PING}'>{{}}</ping>",
    "<x xmlns='urn:x' y='{}'>{}</x>",
    "<query xmlns='urn:xmpp:mam:2' queryid='{}'/>",
    "<pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='{}'><item>{}</item></publish></pubsub>",
    f"<game xmlns='{RICH}' id='chess'><state>{{{{&quot;mode&quot;: &quot;{{}}&quot;}}}}</state></game>",
    f"<game xmlns='{RICH}' id='chess'><state>{{{{}}}}</state><join secret='{{}}' for='friends'/></game>",
    "<request xmlns='urn:xmppd:friends:0' jid='{peer}'>{}</request>",
    "<note xmlns='urn:xmppd:friends:0' jid='{peer}'>{}</note>",
    "<groups xmlns='urn:xmppd:friends:0' jid='{peer}'><group>{}</group></groups>",
    "<invite xmlns='urn:xmppd:invites:0' to='{peer}' target='{}' game='{}'><payload>{}</payload></invite>",
    "<report xmlns='urn:xmppd:moderation:0' jid='{peer}' reason='{}'><text>{}</text></report>",
    "<query xmlns='jabber:iq:riotgames:roster'><item subscription='pending_out' jid='{peer}'/></query>",
    "<query xmlns='jabber:iq:riotgames:archive'><with>{peer}</with></query>",
    "<query xmlns='jabber:iq:riotgames:archive:read'><acknowledge with='{peer}' read='18000000000'/></query>",
    "<entitlements xmlns='urn:riotgames:entitlements'><token>{}</token></entitlements>",
)
TYPES = {
    "message": ("chat", "normal", "headline", "groupchat", "error", ""),
    "presence": (
        "",
        "",
        "",
        "unavailable",
        "subscribe",
        "subscribed",
        "unsubscribe",
        "unsubscribed",
        "probe",
        "error",
    ),
    "iq": ("get", "set", "set", "result", "error"),
}


class Speaker:
    """Makes stanzas out of all that there is; each has words of its own."""

    def __init__(self, seed: int, name: str) -> None:
        self.chance = random.Random(seed)
        self.name = name
        self.count = 0

    def word(self) -> str:
        self.count += 1
        return f"zq{self.name}q{self.count}q"

    def filled(self, pattern: str, peer: str) -> str:
        places = pattern.count("{}")
        if pattern.startswith("<games>"):
            word = self.word()
            return pattern.format(word, word, word)
        return pattern.format(*(self.word() for _ in range(places)), peer=peer)

    def stanza(self, targets: tuple[str, ...], kinds: tuple[str, ...] = ("message", "presence", "iq")) -> str:
        chance = self.chance
        kind, to = chance.choice(kinds), chance.choice(targets)
        peer = to.partition("/")[0] if "@" in to else targets[0].partition("/")[0]
        type_ = chance.choice(TYPES[kind])
        if kind == "iq":
            if chance.random() < 0.3:
                _, own, payload = FINE[chance.choice([it for it in FINE if it != "refresh"])]
                to = chance.choice((own, to))
                content = re.sub(r"(?<==')(x|hi|m|g|why|Raid|a)(?=')", lambda _: self.word(), payload)
            else:
                content = self.filled(chance.choice(ASKS), peer)
                to = chance.choice(("", to))
        else:
            content = "".join(self.filled(it, peer) for it in chance.sample(PIECES, chance.randrange(3)))
        attrs = f" to='{to}'" if to else ""
        attrs += f" type='{type_}'" if type_ else ""
        attrs += f" id='{self.word()}'" if chance.random() < 0.8 or kind == "iq" else ""
        attrs += " xml:lang='de'" if chance.random() < 0.2 else ""
        return f"<{kind}{attrs}>{content}</{kind}>"


def words(client: Client, name: str) -> list[bytes]:
    """The words of somebody that a client was sent since it was asked last, in whatever part of a stanza."""
    found = [word for word in WORD.findall(client.raw) if word.lower().startswith(f"zq{name}q".encode())]
    client.raw = b""
    return found


async def looks_around(client: Client, at: str) -> None:
    """All by which one finds out of another what can be found out."""
    for number, (to, payload) in enumerate(
        (
            (at, "<vCard xmlns='vcard-temp'/>"),
            (at, f"<query xmlns='{ns.LAST}'/>"),
            (at, f"<query xmlns='{ns.DISCO_INFO}'/>"),
            (at, f"<query xmlns='{ns.DISCO_ITEMS}'/>"),
            (at, f"<join xmlns='{RICH}' id='chess'/>"),
            ("", "<friends xmlns='urn:xmppd:friends:0'/>"),
            ("", "<invites xmlns='urn:xmppd:invites:0'/>"),
            ("", f"<query xmlns='{ns.ROSTER}'/>"),
            ("", "<query xmlns='jabber:iq:riotgames:roster' last_state='true'/>"),
            ("", "<query xmlns='jabber:iq:riotgames:archive:list'/>"),
            ("", f"<query xmlns='jabber:iq:riotgames:archive'><with>{at}</with></query>"),
            ("localhost", f"<player xmlns='urn:xmppd:players:0' jid='{at}'/>"),
        )
    ):
        address = f" to='{to}'" if to else ""
        client.write(f"<iq type='get' id='look{number}'{address}>{payload}</iq>")
    client.write("<iq type='set' id='mam'><query xmlns='urn:xmpp:mam:2' queryid='m'/></iq>")
    client.write(f"<presence type='probe' to='{at}'/>")
    await client.world.settle()


async def comes_again(world: World, name: str, at: str) -> Client:
    """Another client, which is given what waited."""
    late = await world.bind(name)
    await late.send("<presence/>")
    await looks_around(late, at)
    return late


async def three(world: World) -> list[Client]:
    clients = [await world.login(name, "pc") for name in ("alice", "bob", "carol")]
    for one, other in ((ALICE, BOB), (ALICE, CAROL), (BOB, CAROL)):
        await call(world, "friend befriend", one=one, other=other)
    for client in clients:
        client.write("<iq type='get' id='i'><invites xmlns='urn:xmppd:invites:0'/></iq>")
        client.write("<iq type='get' id='f'><friends xmlns='urn:xmppd:friends:0'/></iq>")
        client.write("<iq type='get' id='r'><query xmlns='jabber:iq:riotgames:roster'/></iq>")
        client.write(f"<iq type='set' id='c'><enable xmlns='{ns.CARBONS}'/></iq>")
    await world.settle()
    for client in clients:
        await client.receive_all()
        client.raw = b""
    return clients


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_no_word_of_who_is_muted_is_heard(seed: int) -> None:
    async with everything() as world:
        alice, bob, carol = await three(world)
        speaker, others = Speaker(seed, "a"), Speaker(1000 + seed, "b")
        heard: list[bytes] = []
        id = (await call(world, "moderation sanction", account=ALICE, kind="mute"))["id"]
        assert words(bob, "a") == []
        targets = (BOB, bob.jid, CAROL, carol.jid, "localhost", ALICE, alice.jid, "nobody@localhost")
        for step in range(STEPS):
            sent = speaker.stanza(targets)
            await alice.send(sent)
            if step % 5 == 0:
                await bob.send(others.stanza((ALICE, alice.jid)))
            heard = words(bob, "a") + words(carol, "a")
            assert heard == [], sent
            if alice.closed:
                alice = await world.login("alice", "pc")
            if step % 20 == 19:
                await alice.drop()
                word = speaker.word()  # a resource, and a language, are seen by all
                alice = await world.bind("alice", f"{word}pc", lang=word)
                await alice.send("<presence/>")
        for who in ("bob", "carol"):
            late = await comes_again(world, who, ALICE)
            assert words(late, "a") == []
        await call(world, "moderation lift", account=ALICE, id=id)
        await call(world, "friend befriend", one=ALICE, other=BOB)
        await alice.send(f"<message type='chat' to='{BOB}'><body>{speaker.word()}</body></message>")
        assert words(bob, "a") != []


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_no_word_of_who_is_blocked_is_heard_nor_hears_he_any(seed: int) -> None:
    async with everything() as world:
        alice, bob, _ = await three(world)
        speakers = {"alice": Speaker(seed, "a"), "bob": Speaker(500 + seed, "b")}
        await bob.send(
            f"<iq type='set' id='b'><block xmlns='{ns.BLOCKING}'><item jid='{ALICE}'/></block></iq>"
        )
        for client in (alice, bob):
            words(client, "a"), words(client, "b")
        for step in range(STEPS):
            sent = speakers["alice"].stanza((BOB, bob.jid))
            await alice.send(sent)
            assert words(bob, "a") == [], sent
            if alice.closed:
                alice = await world.login("alice", "pc")
            said = speakers["bob"].stanza((ALICE, alice.jid), ("message", "presence"))
            alice.raw = b""
            await bob.send(said)
            assert words(alice, "b") == [], said
            if bob.closed:
                bob = await world.login("bob", "pc")
            if step % 20 == 10:
                await looks_around(alice, BOB)
                assert words(alice, "b") == []
        late = await comes_again(world, "bob", ALICE)
        assert words(late, "a") == []
        late = await comes_again(world, "alice", BOB)
        assert words(late, "b") == []


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_no_word_of_who_hides_is_seen_that_he_does_not_write_himself(seed: int) -> None:
    """He writes her no message with a text; all else comes of his clients, and shows that he is there."""
    quiet = tuple(it for it in PIECES if "<body>" not in it and "reaction" not in it and "subject" not in it)
    async with everything(moderation={}) as world:
        alice, bob, _ = await three(world)
        speaker, others = Speaker(seed, "b"), Speaker(700 + seed, "a")
        how = speaker.chance.choice(("<all/>", f"<friend>{ALICE}</friend>"))
        await bob.send(f"<iq type='set' id='h'><hidden xmlns='{RICH}'>{how}</hidden></iq>")
        await alice.receive_all()
        alice.raw = b""
        chance = speaker.chance
        for step in range(STEPS):
            kind = chance.choice(("presence", "directed", "message", "iq", "say", "answer"))
            filling = "".join(speaker.filled(it, ALICE) for it in chance.sample(quiet, 2))
            to = chance.choice((ALICE, alice.jid))
            if kind == "presence":
                sent = f"<presence>{filling}</presence>"
            elif kind == "directed":
                type_ = chance.choice(("", " type='unavailable'", " type='probe'"))
                sent = f"<presence to='{to}'{type_}>{filling}</presence>"
            elif kind == "message":
                spoken = [it for it in quiet if "<received" in it or "<displayed" in it or "<composing" in it]
                piece = speaker.filled(chance.choice(spoken), ALICE)
                sent = f"<message id='{speaker.word()}' type='chat' to='{to}'>{piece}</message>"
                if chance.random() < 0.3:
                    filling += "<error type='cancel'/>"
                    sent = f"<message id='{speaker.word()}' type='error' to='{to}'>{filling}</message>"
            elif kind == "say":
                state = f"<state>{{&quot;mode&quot;: &quot;{speaker.word()}&quot;}}</state>"
                said = f"{state}<join secret='{speaker.word()}'/>"
                sent = f"<iq type='set' id='s'><game xmlns='{RICH}' id='chess'>{said}</game></iq>"
            elif kind == "answer":
                type_ = chance.choice(("result", "error"))
                sent = f"<iq type='{type_}' id='{speaker.word()}' to='{alice.jid}'/>"
            else:
                asked = speaker.filled(chance.choice(ASKS[3:11]), ALICE)
                sent = f"<iq type='get' id='{speaker.word()}' to='{to}'>{asked}</iq>"
            await bob.send(sent)
            assert words(alice, "b") == [], sent
            said = others.stanza((BOB, f"{BOB}/pc"), ("presence", "iq"))
            if "unsubscribe" not in said and "remove" not in said and "block" not in said:
                await alice.send(said)
            await looks_around(alice, BOB)
            assert words(alice, "b") == [], said
            if alice.closed:
                alice = await world.login("alice", "pc")
            if step % 20 == 19:
                await bob.drop()
                bob = await world.bind("bob", f"{speaker.word()}pc")
                await bob.send(f"<presence><status>{speaker.word()}</status></presence>")
        await bob.send(f"<iq type='set' id='h'><hidden xmlns='{RICH}'/></iq>")
        await call(world, "friend befriend", one=ALICE, other=BOB)
        await bob.send(f"<presence><status>{speaker.word()}</status></presence>")
        assert words(alice, "b") != []
