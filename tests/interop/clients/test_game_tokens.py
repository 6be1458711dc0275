"""slixmpp logs in by tokens of a game's own service, and is told of events of its back end."""

import time
from typing import Any
from xml.etree.ElementTree import Element

import pytest
from bearer import told
from gametokens import NS, issuer, minted

from xmppd.admin.client import request

EVENTS = "urn:xmppd:game-events:0"


def game(own_server: Any) -> Any:
    plugins = {"enabled": ["disco", "ping", "game_login", "game_events"]}
    return own_server(plugins={**plugins, "config": {"game_login": {"issuers": [issuer()]}}})


def account(server: Any, name: str, **claims: Any) -> Any:
    now = int(time.time())
    token = minted(name, iat=now, exp=now + 60, **claims)
    return server.account("any")._replace(jid=f"{name}@localhost", password=token)


def ask(server: Any, name: str, **arguments: Any) -> Any:
    return request(server.folder / "data" / "xmppd.sock", name, arguments)


@pytest.mark.asyncio
@pytest.mark.parametrize("mechanism", ["PLAIN", "OAUTHBEARER"])
async def test_a_player_comes_by_a_token_and_is_told_of_events(own_server, client, mechanism):
    server = game(own_server)
    ask(server, "user add", account="kiva@localhost", password="never used")
    ask(server, "game-events push", resource="wallet", version=3, to=["kiva"])
    kiva = client(account(server, "kiva"), server=server)
    kiva.use_mechanism(mechanism)
    await kiva.login()
    assert (kiva.mechanism, kiva.bare) == (mechanism, "kiva@localhost")
    iq = kiva.xmpp.make_iq_set()
    iq.append(Element(f"{{{EVENTS}}}enable"))
    await iq.send()
    first = await kiva.take("an event", lambda it: it.xml.find(f"{{{EVENTS}}}event") is not None)
    assert first.xml.find(f"{{{EVENTS}}}event").get("version") == "3"
    outcome = ask(server, "game-events push", resource="wallet", version=4, to=["kiva"])
    assert (outcome["reached"], outcome["sessions"]) == (1, 1)
    again = await kiva.take("an event", lambda it: it.xml.find(f"{{{EVENTS}}}event") is not None)
    assert again.xml.find(f"{{{EVENTS}}}event").get("version") == "4"
    fresh = kiva.xmpp.make_iq_set()
    refresh = Element(f"{{{NS}}}refresh")
    refresh.text = minted("kiva", iat=int(time.time()), exp=int(time.time()) + 600, jti="t2")
    fresh.append(refresh)
    answer = await fresh.send()
    assert answer.xml.find(f"{{{NS}}}refreshed") is not None
    ask(server, "game-login revoke", account="kiva@localhost")
    await kiva.disconnected()


@pytest.mark.asyncio
@pytest.mark.parametrize("mechanism", ["PLAIN", "OAUTHBEARER"])
async def test_a_token_that_does_not_hold_is_refused(own_server, client, mechanism):
    server = game(own_server)
    kiva = client(account(server, "kiva", aud="elsewhere"), server=server)
    kiva.use_mechanism(mechanism)
    told.clear()
    assert await kiva.refused() == ["not-authorized"]
    assert told == ([{"status": "invalid_token"}] if mechanism == "OAUTHBEARER" else [])
