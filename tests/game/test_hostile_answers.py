"""What is wrong in each namespace of games is refused by the right condition; what is no XML ends the stream
of who sent it and no other's; spoofs have no effect; and what clients make up is not remembered.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
from gamerequests import (
    ALICE,
    BOB,
    EVENTS,
    FINE,
    FRIENDS,
    INVITES,
    LOGIN,
    MODERATION,
    PLAYERS,
    RICH,
    RIOT,
    URN,
)
from gameworld import answer_to, call, everything, greets

from xmppd import ns
from xmppd.testing import refusal

LONG = "x" * 10_240
BAD, MALFORMED, MISSING = "modify bad-request", "modify jid-malformed", "cancel item-not-found"
UNFIT, NOBODY = "modify not-acceptable", "cancel service-unavailable"
STATE = "<state>{}</state>"
LATEST = "9999-12-31 23:59:59.999999"

# Type, `to`, payload, and how it is answered: "" by a result.
ANSWERS = (
    ("get", "localhost", f"<player xmlns='{PLAYERS}'/>", BAD),
    ("get", "localhost", f"<player xmlns='{PLAYERS}' name='{LONG}'/>", MISSING),
    ("get", "localhost", f"<player xmlns='{PLAYERS}' name='a#b#c'/>", MISSING),
    ("get", "localhost", f"<player xmlns='{PLAYERS}' jid='{LONG}'/>", MISSING),
    ("set", "", f"<player xmlns='{PLAYERS}' name='{LONG}'/>", UNFIT),
    ("set", "", f"<player xmlns='{PLAYERS}' name='\u202eeoZ#EUW'/>", UNFIT),
    ("set", "", f"<player xmlns='{PLAYERS}' name='e{chr(0x301) * 9}mil#EUW'/>", UNFIT),
    ("set", "", f"<player xmlns='{PLAYERS}'/>", UNFIT),
    ("set", "localhost", f"<player xmlns='{PLAYERS}' name='Zoe#EUW'/>", NOBODY),
    ("set", "", f"<platform xmlns='{PLAYERS}' name='{LONG}'/>", MISSING),
    ("set", "", f"<request xmlns='{FRIENDS}'/>", BAD),
    ("set", "", f"<request xmlns='{FRIENDS}' jid='{LONG}@localhost'/>", MALFORMED),
    ("set", "", f"<request xmlns='{FRIENDS}' jid='{BOB}'>{LONG}</request>", UNFIT),
    ("set", "", f"<request xmlns='{FRIENDS}' jid='{ALICE}'/>", BAD),
    ("set", "", f"<request xmlns='{FRIENDS}' jid='x@elsewhere'/>", MISSING),
    ("get", "", f"<request xmlns='{FRIENDS}' jid='{BOB}'/>", NOBODY),
    ("set", BOB, f"<request xmlns='{FRIENDS}' jid='{BOB}'/>", NOBODY),
    ("set", "", f"<request xmlns='{FRIENDS[:-1]}1' jid='{BOB}'/>", NOBODY),
    ("set", "", f"<accept xmlns='{FRIENDS}' jid='{BOB}'/>", MISSING),
    ("set", "", f"<note xmlns='{FRIENDS}' jid='{BOB}'>x</note>", MISSING),
    ("set", "", f"<note xmlns='{FRIENDS}' jid='carol@localhost'>{LONG}</note>", UNFIT),
    ("set", "", f"<groups xmlns='{FRIENDS}' jid='carol@localhost'><group> </group></groups>", UNFIT),
    (
        "set",
        "",
        f"<groups xmlns='{FRIENDS}' jid='carol@localhost'>{'<group>g</group>' * 900}</groups>",
        "",
    ),
    ("set", "", f"<group xmlns='{FRIENDS}' name='{LONG}' priority='1'/>", UNFIT),
    ("set", "", f"<group xmlns='{FRIENDS}' name='a' priority='-1'/>", BAD),
    ("set", "", f"<group xmlns='{FRIENDS}' name='a' priority='{'9' * 400}'/>", BAD),
    ("set", "", f"<group xmlns='{FRIENDS}' name='a' priority='\u0661'/>", BAD),
    ("set", "", f"<game xmlns='{RICH}' id='{LONG}'>{STATE}</game>", MISSING),
    ("set", "", f"<game xmlns='{RICH}' id='chess'><state>{'[' * 1000}</state></game>", UNFIT),
    ("set", "", f"<game xmlns='{RICH}' id='chess'><state>[]</state></game>", UNFIT),
    ("set", "", f"<game xmlns='{RICH}' id='chess'><state>{{&quot;mode&quot;: 1e999}}</state></game>", UNFIT),
    (
        "set",
        "",
        f"<game xmlns='{RICH}' id='chess'><state>{{&quot;mode&quot;: &quot;\\ud800&quot;}}</state></game>",
        UNFIT,
    ),
    ("set", "", f"<game xmlns='{RICH}' id='chess'>{STATE}<join secret='{'x' * 513}'/></game>", UNFIT),
    ("set", "", f"<game xmlns='{RICH}' id='chess'>{STATE}<join secret='x' for='all'/></game>", UNFIT),
    ("set", BOB, f"<game xmlns='{RICH}' id='chess'>{STATE}</game>", NOBODY),
    ("get", BOB, f"<join xmlns='{RICH}' id='{LONG}'/>", MISSING),
    ("get", "nobody@localhost", f"<join xmlns='{RICH}' id='chess'/>", MISSING),
    ("set", "", f"<hidden xmlns='{RICH}'><friend>{LONG}</friend></hidden>", MALFORMED),
    ("set", "", f"<hidden xmlns='{RICH}'><group>{LONG}</group></hidden>", BAD),
    ("set", "", f"<hidden xmlns='{RICH}'>{'<all/>' * 1500}</hidden>", ""),
    ("set", "", f"<hidden xmlns='{RICH}'/>", ""),
    ("set", "", f"<invite xmlns='{INVITES}' to='{LONG}@localhost' target='m'/>", MALFORMED),
    ("set", "", f"<invite xmlns='{INVITES}' target='m'/>", MALFORMED),
    ("set", "", f"<invite xmlns='{INVITES}' to='{BOB}' target='{LONG}'/>", BAD),
    ("set", "", f"<invite xmlns='{INVITES}' to='{BOB}' target='m' game='{LONG}'/>", BAD),
    ("set", "", f"<invite xmlns='{INVITES}' to='{BOB}' target='m' kind='{LONG}'/>", BAD),
    ("set", "", f"<invite xmlns='{INVITES}' to='{BOB}' target='m' seconds='-1'/>", BAD),
    ("set", "", f"<invite xmlns='{INVITES}' to='{BOB}' target='m' seconds='{'9' * 40}'/>", BAD),
    ("set", "", f"<invite xmlns='{INVITES}' to='{BOB}' target='m' seconds='NaN'/>", BAD),
    ("set", "", f"<invite xmlns='{INVITES}' to='x@elsewhere' target='m'/>", NOBODY),
    ("set", "", f"<accept xmlns='{INVITES}' id='{LONG}'/>", MISSING),
    ("set", "", f"<cancel xmlns='{INVITES}'/>", MISSING),
    ("set", "", f"<report xmlns='{MODERATION}' jid='{BOB}'/>", BAD),
    ("set", "", f"<report xmlns='{MODERATION}' jid='{BOB}' reason='{LONG}'/>", BAD),
    ("set", "", f"<report xmlns='{MODERATION}' jid='{ALICE}' reason='spam'/>", BAD),
    ("set", "", f"<report xmlns='{MODERATION}' jid='@' reason='spam'/>", MALFORMED),
    ("set", "", f"<report xmlns='{MODERATION}' jid='{BOB}' reason='x'><text>{LONG}</text></report>", BAD),
    ("set", "", f"<appeal xmlns='{MODERATION}' id='{LONG}'>x</appeal>", MISSING),
    ("set", "", f"<appeal xmlns='{MODERATION}' id='x'/>", BAD),
    ("set", "", f"<sanctions xmlns='{MODERATION}'/>", NOBODY),
    ("set", "", f"<enable xmlns='{EVENTS}'><have resource='{LONG}' version='1'/></enable>", BAD),
    ("set", "", f"<enable xmlns='{EVENTS}'><have resource='a' version='-1'/></enable>", BAD),
    ("set", "", f"<enable xmlns='{EVENTS}'><have resource='a' version='{2**63}'/></enable>", BAD),
    ("set", "", f"<enable xmlns='{EVENTS}'><have resource='a' version='{2**63 - 1}'/></enable>", ""),
    (
        "set",
        "",
        f"<enable xmlns='{EVENTS}'>{'<have/>' * 257}</enable>",
        "modify policy-violation",
    ),
    ("set", "", f"<refresh xmlns='{LOGIN}'>{LONG}</refresh>", "cancel not-allowed"),
    ("set", "", f"<query xmlns='{RIOT}:roster'/>", BAD),
    ("set", "", f"<query xmlns='{RIOT}:roster'>{'<item/>' * 1000}</query>", BAD),
    ("set", "", f"<query xmlns='{RIOT}:roster'><item subscription='both' jid='{BOB}'/></query>", BAD),
    ("set", "", f"<query xmlns='{RIOT}:roster'><item subscription='pending_out'/></query>", BAD),
    (
        "set",
        "",
        f"<query xmlns='{RIOT}:roster'><item subscription='remove' puuid='{LONG}'/></query>",
        MALFORMED,
    ),
    ("set", "", f"<query xmlns='{ns.PRIVACY}'><add name='LOL'/></query>", BAD),
    ("set", "", f"<query xmlns='{ns.PRIVACY}'><add name='LOL'>{'<item/>' * 101}</add></query>", BAD),
    (
        "set",
        "",
        f"<query xmlns='{ns.PRIVACY}'><add name='LOL'><item type='jid' value='{LONG}'/></add></query>",
        MALFORMED,
    ),
    ("get", "", f"<query xmlns='{RIOT}:archive:list'><count>-5</count></query>", BAD),
    ("get", "", f"<query xmlns='{RIOT}:archive:list'><count>{'9' * 400}</count></query>", ""),
    ("get", "", f"<query xmlns='{RIOT}:archive:list'><since>{LONG}</since></query>", BAD),
    ("get", "", f"<query xmlns='{RIOT}:archive'/>", BAD),
    ("get", "", f"<query xmlns='{RIOT}:archive'><with>{LONG}</with></query>", MALFORMED),
    ("set", "", f"<query xmlns='{RIOT}:archive:read'><acknowledge with='{BOB}' read='x'/></query>", BAD),
    (
        "set",
        "",
        f"<query xmlns='{RIOT}:archive:read'><acknowledge with='{BOB}' read='{LATEST}'/></query>",
        "",
    ),
    ("set", "", f"<query xmlns='{RIOT}:session'><session mode='{LONG}'/></query>", BAD),
    ("set", "", f"<query xmlns='{RIOT}:rso'/>", BAD),
    ("set", "", f"<query xmlns='{RIOT}:rso'><access-token>x</access-token></query>", "cancel not-allowed"),
    ("set", "", f"<entitlements xmlns='{URN}:entitlements'/>", BAD),
    ("set", "", f"<rxep xmlns='{URN}:rxep'>{LONG}</rxep>", "cancel feature-not-implemented"),
)


@pytest.mark.asyncio
async def test_each_is_answered_as_it_should_be() -> None:
    async with everything() as world:
        alice = await world.login("alice", "pc")
        await call(world, "friend befriend", one=ALICE, other="carol@localhost")
        wrong = []
        for kind, to, payload, expected in ANSWERS:
            answer = await answer_to(alice, kind, payload, to)
            found = refusal(answer) if answer.get("type") == "error" else ""
            if found != expected:
                wrong.append((payload[:120], expected, found))
        assert wrong == []


PAYLOADS = {
    "a surrogate by entity": "<{0} jid='&#xD800;'/>",
    "nothing by entity": "<{0} jid='&#0;'/>",
    "no character by entity": "<{0} jid='&#xFFFF;'/>",
    "an unknown entity": "<{0} jid='&nbsp;'/>",
    "overlong bytes": b"<{0} jid='\xc0\xaf'/>",
    "a surrogate in bytes": b"<{0} jid='\xed\xa0\x80'/>",
    "half a character": b"<{0} jid='\xe2\x82'/>",
    "an attribute twice": "<{0} jid='a' jid='b'/>",
    "an unbound prefix": "<{0} x:jid='a'/>",
    "too deep": "<{0}>" + "<a>" * 100 + "</a>" * 100 + "</{1}>",
}


ENDS = ("not-well-formed", "policy-violation", "bad-namespace-prefix", "restricted-xml")


@pytest.mark.asyncio
@pytest.mark.parametrize("name", PAYLOADS)
async def test_what_is_no_xml_ends_one_stream(name: str) -> None:
    async with everything() as world:
        carol, dora = await world.login("carol"), await world.login("dora")
        await call(world, "friend befriend", one="carol@localhost", other="dora@localhost")
        for space in (FRIENDS, f"{RIOT}:roster"):
            alice = await world.login("alice")
            payload = PAYLOADS[name]
            tag = f"query xmlns='{space}'"
            if isinstance(payload, bytes):
                data = payload.replace(b"{0}", tag.encode())
            else:
                data = payload.replace("{0}", tag).replace("{1}", "query").encode()
            await alice.send(b"<iq type='set' id='x'>" + data + b"</iq>")
            error = (await alice.receive_all())[-1]
            assert error.tag == f"{{{ns.STREAM}}}error"
            assert error[0].tag.rpartition("}")[2] in ENDS
            assert await greets(carol, dora)


@pytest.mark.asyncio
async def test_spoofs_have_no_effect() -> None:
    """Pushes that are said by a client, answers to nobody's requests, and stanzas in the name of others."""
    async with everything() as world:
        alice, bob = await world.login("alice", "pc"), await world.login("bob", "pc")
        for payload in (f"<friends xmlns='{FRIENDS}'/>", f"<invites xmlns='{INVITES}'/>"):
            await answer_to(bob, "get", payload)
        invited = await answer_to(alice, "set", f"<invite xmlns='{INVITES}' to='{BOB}' target='m'/>")
        id = invited[0].get("id", "")
        await answer_to(alice, "set", f"<request xmlns='{FRIENDS}' jid='{BOB}'/>")
        await bob.receive_all()
        for kind in ("result", "error"):
            for number in range(4):
                for name in ("friends", "invite", "push_", "push"):
                    for to in ("", "localhost", ALICE, BOB, bob.jid):
                        address = f" to='{to}'" if to else ""
                        said = f"<accept xmlns='{INVITES}' id='{id}'/>"
                        await alice.send(f"<iq type='{kind}' id='{name}{number}'{address}>{said}</iq>")
        for said in (f"<accept xmlns='{INVITES}' id='{id}'/>", f"<accept xmlns='{FRIENDS}' jid='{ALICE}'/>"):
            await alice.send(f"<iq type='set' id='s' from='{bob.jid}'>{said}</iq>")
            await alice.send(f"<iq type='set' id='s' from='{bob.jid}' to='{BOB}'>{said}</iq>")
        push = f"<friends xmlns='{FRIENDS}'><friend jid='carol@localhost' state='friend'/></friends>"
        await alice.send(f"<iq type='set' id='s' from='localhost' to='{bob.jid}'>{push}</iq>")
        got = [it.get("from") for it in await bob.receive_all()]
        assert set(got) <= {alice.jid}, "all that she says is hers"
        assert (await world.plugin("friends").between(ALICE, BOB)).state == "asked"
        [row] = await call(world, "invite list", account=BOB)
        assert row["state"] == "pending"


def counted(thing: object, found: list[int], seen: set[int], depth: int = 0) -> None:
    """How much is in all containers that a plugin has."""
    if id(thing) in seen or depth > 3:
        return
    seen.add(id(thing))
    if isinstance(thing, dict | list | set | deque):
        found.append(len(thing))
    if isinstance(thing, dict):
        for value in list(thing.values())[:100]:
            counted(value, found, seen, depth + 1)
    elif type(thing).__module__.startswith("xmppd_plugins") and hasattr(thing, "__dict__"):
        for name, value in vars(thing).items():
            if name not in ("server", "scope", "log", "config"):
                counted(value, found, seen, depth + 1)


MANY = 300


@pytest.mark.asyncio
async def test_what_clients_make_up_is_not_remembered() -> None:
    """Names and ids of their own, each another one: neither in memory nor in tables."""
    names = ("players", "friends", "rich_presence", "invites", "game_events", "riot_profile", "game_login")
    async with everything(moderation={"rates": {"report": {"burst": 5, "per_second": 0.001}}}) as world:
        alice = await world.login("alice", "pc")
        plugins = [world.plugin(name) for name in names]
        before, after = list[int](), list[int]()
        for plugin in plugins:
            counted(plugin, before, set())
        asked = [it for it in FINE if it != "refresh"]
        for number in range(MANY):
            kind, to, payload = FINE[asked[number % len(asked)]]
            own = f"q{number}q"
            said = (
                payload.replace("'x'", f"'{own}'").replace("bob@", f"{own}@").replace("'chess'", f"'{own}'")
            )
            said = said.replace("Zoe#EUW", f"Zoe{number}#EUW").replace("'Raid'", f"'{own}'")
            alice.write(f"<iq type='{kind}' id='{number}'{f' to={to!r}' if to else ''}>{said}</iq>")
        for _ in range(20):
            await world.settle()
        for plugin in plugins:
            counted(plugin, after, set())
        assert sum(after) - sum(before) < MANY / 4, (sum(before), sum(after))
        rows = 0
        for plugin in (*plugins, world.plugin("moderation")):
            for table in tables_of(plugin):
                rows += len([row async for row in table.everything()])
        assert rows < MANY / 2, rows


def tables_of(plugin: Any) -> list[Any]:
    """The tables of a plugin."""
    return [
        value
        for name in dir(type(plugin))
        if not name.startswith("__") and hasattr(value := getattr(plugin, name, None), "everything")
    ]
