"""The whole layer of games over real sockets: players whose client knows it (slixmpp, with the stanzas of
docs/game-protocol.md) beside standard ones, on a server with what config/game.yaml loads.
"""

import asyncio
import itertools
import time
from pathlib import Path
from types import SimpleNamespace
from xml.etree.ElementTree import fromstring

import jwt
import pytest
import pytest_asyncio
from bearer import OAuthBearer
from gametokens import issuer, minted
from slixmpp import exceptions
from slixmpp.exceptions import IqError
from slixmpp.stanza.error import Error
from terminals import ENTER

from xmppd.admin.client import request
from xmppd.configfile import shipped
from xmppd.document import read_document

LAYER = ("players", "friends", "rich-presence", "invites", "moderation", "game-events")
PLAYERS, FRIENDS, PRESENCE, INVITES, MODERATION, EVENTS = (f"urn:xmppd:{it}:0" for it in LAYER)
STANZAS = "urn:ietf:params:xml:ns:xmpp-stanzas"
SECONDS = 20.0
KEY = "a key for tests, of 32 characters"
SAYS = {"mode": {"type": "string"}, "size": {"type": "integer", "maximum": 19}}
CHESS = {"name": "Chess", "status": "Playing {mode}", "says": {"properties": SAYS}}
FILE = read_document((shipped("config") / "game.yaml").read_text(), "game.yaml")
SETTINGS = {
    "plugins": {
        "enabled": FILE.data["plugins"]["enabled"],
        "config": {
            "game_login": {"issuers": [issuer()]},
            "players": {"rename_days": 0},
            "rich_presence": {"games": {"chess": CHESS}},
            "invites": {"key": KEY},
            "moderation": {"words": str(Path(__file__).parents[2] / "game" / "words")},
        },
    }
}
numbers = itertools.count(1)


async def ask(player, kind, xml, to=None):
    """What stands in the result of a request."""
    iq = player.xmpp.make_iq(itype=kind, ito=to)
    iq.append(fromstring(xml))
    return next(iter((await iq.send(timeout=SECONDS)).xml), None)


async def refusal(asked):
    """The error that a request is answered by: its type, its condition, and what else stands in it."""
    with pytest.raises(IqError) as caught:
        await asked
    return read(caught.value.iq.xml)


def read(stanza):
    error = stanza.find("{jabber:client}error")
    conditions = [it.tag.rpartition("}")[2] for it in error if it.tag.startswith(f"{{{STANZAS}}}")]
    rest = [it for it in error if not it.tag.startswith(f"{{{STANZAS}}}")]
    return error.get("type"), conditions[0], rest


def item(subscription, ask=""):
    return {"subscription": subscription, "ask": ask, "name": "", "groups": []}


@pytest.fixture
def call(module_server):
    """Does what the game's back end does, by a command: `call("friend befriend", one=..., other=...)`."""

    def run(command, **arguments):
        return request(module_server.folder / "data" / "xmppd.sock", command, arguments)

    return run


@pytest_asyncio.fixture
async def player(module_server, client):
    """Logs a game's client in by a token: `await player("kiva")`; by the jid of one, that one again."""

    async def come(name, mechanism="PLAIN"):
        now = int(time.time())
        name = name.partition("@")[0] if "@" in name else f"{name}{next(numbers)}"
        token = minted(name, iat=now, exp=now + 600)
        account = SimpleNamespace(jid=f"{name}@localhost", password=token)
        one = client(account, "game", server=module_server)
        one.watched |= {FRIENDS, INVITES}
        one.use_mechanism(mechanism)
        await one.login()
        assert (one.mechanism, one.bare) == (mechanism, account.jid)
        return one

    return come


@pytest_asyncio.fixture
async def bob(module_server, client, call):
    """Somebody with a standard client, and with a name that the game gave him."""
    account = module_server.account("bob")
    bob = await client(account, "desk", server=module_server).login()
    bob.name = f"{account.name.capitalize()}#ONE"
    call("player rename", account=bob.bare, name=bob.name)
    await bob.message(bob.bare)  # which his client is told, and does not know
    return bob


async def listed(player):
    """The list of friends, by jid; from now on the client is told of changes."""
    found = await ask(player, "get", f"<friends xmlns='{FRIENDS}'/>")
    return {it.get("jid"): it for it in found.findall(f"{{{FRIENDS}}}friend")}


async def pushed(player, state):
    """The next push of a friend, which must say this."""
    [friend] = await player.pushed(f"{{{FRIENDS}}}friends")
    assert friend.get("state") == state
    return friend


# names


@pytest.mark.asyncio
async def test_a_name_is_one_players_and_may_be_changed(player):
    kiva, jax = await player("kiva"), await player("jax", OAuthBearer.name)
    told = await ask(kiva, "set", f"<player xmlns='{PLAYERS}' name='Kiva#EUW'/>")
    assert (told.get("jid"), told.get("name")) == (kiva.bare, "Kiva#EUW")
    await kiva.take("its name", lambda it: it.xml.find(f"{{{PLAYERS}}}player") is not None)
    looked = await ask(jax, "get", f"<player xmlns='{PLAYERS}' name='kiva#euw'/>", "localhost")
    assert (looked.get("jid"), looked.get("name")) == (kiva.bare, "Kiva#EUW")
    for taken in ("KIVA#EUW", "\u041aiva#euw"):
        refused = await refusal(ask(jax, "set", f"<player xmlns='{PLAYERS}' name='{taken}'/>"))
        assert refused[:2] == ("cancel", "conflict")
    await ask(kiva, "set", f"<player xmlns='{PLAYERS}' name='Kiwi#EUW'/>")
    renamed = await kiva.take("its name", lambda it: it.xml.find(f"{{{PLAYERS}}}player") is not None)
    assert renamed.xml[0].get("name") == "Kiwi#EUW"
    gone = await refusal(ask(jax, "get", f"<player xmlns='{PLAYERS}' name='Kiva#EUW'/>", "localhost"))
    assert gone[:2] == ("cancel", "item-not-found")
    looked = await ask(jax, "get", f"<player xmlns='{PLAYERS}' name='Kiwi#EUW'/>", "localhost")
    assert looked.get("jid") == kiva.bare


# friends


@pytest.mark.asyncio
async def test_a_player_asks_by_name_and_a_standard_client_accepts(player, bob):
    kiva = await player("kiva")
    assert await listed(kiva) == {}
    asked = await ask(kiva, "set", f"<request xmlns='{FRIENDS}' name='{bob.name}'>Good game!</request>")
    assert (asked.get("jid"), asked.get("state"), asked.get("name")) == (bob.bare, "asking", bob.name)
    assert (await bob.presence(kiva.bare, "subscribe"))["status"] == "Good game!"
    assert await bob.roster() == {}

    bob.xmpp.send_presence_subscription(pto=kiva.bare, ptype="subscribed")
    assert await bob.push(kiva) == item("both")
    await bob.presence(kiva)
    await kiva.presence(bob)
    friend = await pushed(kiva, "friend")
    assert (friend.get("jid"), friend.get("name")) == (bob.bare, bob.name)
    assert await bob.roster() == {kiva.bare: item("both")}
    assert "game" in bob.xmpp.client_roster[kiva.bare].resources
    assert (await listed(kiva))[bob.bare].get("online") == "true"

    gone = await ask(kiva, "set", f"<remove xmlns='{FRIENDS}' name='{bob.name}'/>")
    assert gone.get("state") == "none"
    assert (await bob.push(kiva))["subscription"] == "remove"
    await bob.presence(kiva.jid, "unavailable")
    assert (await bob.roster(), await listed(kiva)) == ({}, {})
    await bob.expect_nothing()


@pytest.mark.asyncio
async def test_a_standard_client_asks_and_a_player_declines_or_accepts(player, bob):
    kiva = await player("kiva")
    await listed(kiva)
    bob.xmpp.send_presence_subscription(pto=kiva.bare, ptype="subscribe")
    assert await bob.push(kiva) == item("none", "subscribe")
    assert (await pushed(kiva, "asked")).get("name") == bob.name
    await ask(kiva, "set", f"<decline xmlns='{FRIENDS}' jid='{bob.bare}'/>")
    assert (await bob.push(kiva))["subscription"] == "remove"

    bob.xmpp.send_presence_subscription(pto=kiva.bare, ptype="subscribe")
    assert await bob.push(kiva) == item("none", "subscribe")
    await pushed(kiva, "asked")
    await ask(kiva, "set", f"<accept xmlns='{FRIENDS}' name='{bob.name}'/>")
    assert await bob.push(kiva) == item("both")
    await bob.presence(kiva)
    await kiva.presence(bob)
    await bob.xmpp.del_roster_item(kiva.bare)
    assert (await bob.push(kiva))["subscription"] == "remove"
    await pushed(kiva, "none")
    assert (await bob.roster(), await listed(kiva)) == ({}, {})
    missing = await refusal(ask(kiva, "set", f"<remove xmlns='{FRIENDS}' jid='{bob.bare}'/>"))
    assert missing[:2] == ("cancel", "item-not-found")


@pytest.mark.asyncio
async def test_profanity_is_asked_and_sees_a_friend_who_plays(module_server, player, profanity):
    account = module_server.account("carol")
    kiva, carol = await player("kiva"), await profanity(module_server, account)
    await listed(kiva)
    await ask(kiva, "set", f"<request xmlns='{FRIENDS}' jid='{account.jid}'/>")
    await carol.see(f"authorization request from {kiva.bare}")
    carol.type(f"/sub allow {kiva.bare}{ENTER}")
    await pushed(kiva, "friend")
    await carol.see(f"++ {kiva.bare} (game) is online")
    await ask(kiva, "set", blitz())
    await carol.see("Playing blitz")
    await ask(kiva, "set", f"<remove xmlns='{FRIENDS}' jid='{account.jid}'/>")
    await carol.see("removed")
    carol.type(f"/quit{ENTER}")
    await asyncio.to_thread(carol.wait)


# rich presence


def blitz(mode="blitz", size=8):
    state = f'{{"mode": "{mode}", "size": {size}}}'
    return f"<game xmlns='{PRESENCE}' id='chess'><state>{state}</state><join secret='lobby'/></game>"


@pytest_asyncio.fixture
async def mates(player, bob, call):
    """A player, and a friend of his with a standard client."""
    kiva = await player("kiva")
    call("friend befriend", one=kiva.bare, other=bob.bare)
    await bob.push(kiva)
    await bob.presence(kiva)
    await kiva.presence(bob)
    return kiva, bob


@pytest.mark.asyncio
async def test_what_a_player_plays_is_seen_if_it_is_of_the_schema(mates):
    kiva, bob = mates
    await ask(kiva, "set", blitz())
    seen = await bob.presence(kiva)
    assert seen["status"] == "Playing blitz"
    assert seen.xml.findtext("{urn:xmpp:gaming:0}game/{urn:xmpp:gaming:0}name") == "Chess"
    assert seen.xml.findtext(f".//{{{PRESENCE}}}state") == '{"mode":"blitz","size":8}'
    assert "lobby" not in str(seen)
    kind, condition, [mistake] = await refusal(ask(kiva, "set", blitz(size=99)))
    assert (kind, condition, mistake.get("path")) == ("modify", "not-acceptable", "/size")
    join = await ask(bob, "get", f"<join xmlns='{PRESENCE}' id='chess'/>", kiva.bare)
    assert join.get("secret") == "lobby"
    await bob.expect_nothing()


@pytest.mark.asyncio
async def test_who_appears_offline_is_not_there_for_that_friend(mates, player, call):
    kiva, bob = mates
    jax = await player("jax")
    call("friend befriend", one=kiva.bare, other=jax.bare)
    await jax.presence(kiva)
    hide = f"<hidden xmlns='{PRESENCE}'><friend>{bob.bare}</friend></hidden>"
    await ask(kiva, "set", hide)
    await bob.presence(kiva.jid, "unavailable")
    await ask(kiva, "set", blitz("rapid"))
    assert (await jax.presence(kiva))["status"] == "Playing rapid"
    found = await refusal(ask(bob, "get", f"<join xmlns='{PRESENCE}' id='chess'/>", kiva.bare))
    assert found[:2] == ("cancel", "item-not-found")
    away = await bob.plugin["xep_0012"].get_last_activity(kiva.bare, timeout=SECONDS)
    assert away["last_activity"]["seconds"] >= 0
    bob.xmpp.send_message(mto=kiva.bare, mbody="are you there?", mtype="chat")
    assert (await kiva.message(bob.jid))["body"] == "are you there?"
    await bob.expect_nothing()
    await ask(kiva, "set", f"<hidden xmlns='{PRESENCE}'/>")
    assert (await bob.presence(kiva))["status"] == "Playing rapid"


# invites


@pytest.mark.asyncio
async def test_an_invite_is_one_for_all_who_are_told_of_it(mates, player, call):
    kiva, bob = mates
    jax = await player("jax")
    call("friend befriend", one=kiva.bare, other=jax.bare)
    for one in (kiva, jax):
        await ask(one, "get", f"<invites xmlns='{INVITES}'/>")
    wanted = f"<invite xmlns='{INVITES}' to='{{}}' kind='match' target='m-17' game='chess' seconds='60'/>"
    made = await ask(kiva, "set", wanted.format(jax.bare))
    got = await jax.pushed(f"{{{INVITES}}}invite")
    assert (got.get("id"), got.get("state"), got.get("from")) == (made.get("id"), "pending", kiva.bare)
    accepted = await ask(jax, "set", f"<accept xmlns='{INVITES}' id='{made.get('id')}'/>")
    assert accepted.get("state") == "accepted"
    states = [(await kiva.pushed(f"{{{INVITES}}}invite")).get("state") for _ in range(2)]
    assert states == ["pending", "accepted"]
    token = accepted.findtext(f"{{{INVITES}}}token")
    claims = jwt.decode(token, KEY, algorithms=["HS256"])
    assert (claims["sub"], claims["state"], claims["target"]) == (jax.bare, "accepted", "m-17")
    late = await refusal(ask(kiva, "set", f"<cancel xmlns='{INVITES}' id='{made.get('id')}'/>"))
    assert late[:2] == ("cancel", "conflict")

    await ask(kiva, "set", wanted.format(bob.bare))
    said = await bob.message(kiva.bare)
    assert (said["type"], said["body"]) == ("chat", f"{kiva.bare} invites you to m-17.")
    stranger = await refusal(ask(bob, "set", wanted.format(jax.bare)))
    assert stranger[:2] == ("cancel", "service-unavailable")


# moderation


@pytest.mark.asyncio
async def test_what_is_said_is_filtered_and_who_is_muted_is_not_heard(mates, call):
    kiva, bob = mates
    kiva.xmpp.send_message(mto=bob.bare, mbody="that D4rn dragon", mtype="chat")
    assert (await bob.message(kiva.jid))["body"] == "that **** dragon"
    kiva.xmpp.send_message(mto=bob.bare, mbody="drop d\u0435ad", mtype="chat")
    kind, condition, _ = read((await kiva.message(bob.bare)).xml)
    assert (kind, condition) == ("modify", "policy-violation")

    call("moderation sanction", account=kiva.bare, kind="mute", reason="Insults.")
    told = await kiva.message("localhost")
    assert "Insults." in told["body"] and told.xml.find(f"{{{MODERATION}}}sanction").get("kind") == "mute"
    kiva.xmpp.send_message(mto=bob.bare, mbody="hello?", mtype="chat")
    kind, condition, [muted] = read((await kiva.message(bob.bare)).xml)
    assert (kind, condition, muted.tag) == ("cancel", "not-allowed", f"{{{MODERATION}}}muted")
    await bob.presence(kiva)  # with nothing of what he said of himself
    await bob.expect_nothing()


@pytest.mark.asyncio
async def test_who_writes_too_often_is_told_how_long_to_wait(mates):
    kiva, bob = mates
    for number in range(60):
        kiva.xmpp.send_message(mto=bob.bare, mbody=f"buy gold {number}", mtype="chat")
    kind, condition, [retry] = read((await kiva.message(bob.bare)).xml)
    assert (kind, condition) == ("wait", "policy-violation")
    assert retry.tag == f"{{{MODERATION}}}retry" and int(retry.get("seconds")) >= 1
    assert (await bob.message(kiva.jid))["body"] == "buy gold 0"


@pytest.mark.asyncio
async def test_slixmpp_hears_that_it_asks_too_often_when_it_is_taught(player, monkeypatch):
    monkeypatch.setattr(Error, "conditions", {*Error.conditions, "policy-violation"})
    monkeypatch.setitem(exceptions._DEFAULT_ERROR_TYPES, "policy-violation", "modify")
    kiva = await player("kiva")

    async def look_up(name):
        with pytest.raises(IqError) as caught:
            await ask(kiva, "get", f"<player xmlns='{PLAYERS}' name='{name}#ONE'/>", to="localhost")
        return caught.value

    for number in range(200):
        refused = await look_up(f"Nobody{number}")
        if refused.condition != "item-not-found":
            break
    assert refused.condition == "policy-violation"
    [retry] = read(refused.iq.xml)[2]
    assert int(retry.get("seconds")) >= 1


# events


@pytest.mark.asyncio
async def test_what_the_back_end_said_meanwhile_is_told_at_the_login(player, call):
    kiva = await player("kiva")
    await kiva.logout()
    for version in (6, 7):
        outcome = call("game-events push", resource="store/offers", version=version, to=[kiva.bare])
        assert (outcome["kept"], outcome["reached"]) == (1, 0)
    kiva = await player(kiva.bare)
    await ask(kiva, "set", f"<enable xmlns='{EVENTS}'/>")
    event = (await kiva.message("localhost")).xml.find(f"{{{EVENTS}}}event")
    assert (event.get("resource"), event.get("version")) == ("store/offers", "7")
    await kiva.expect_nothing()
