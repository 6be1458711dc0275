"""slixmpp shows what it plays, joins somebody's game, and invites."""

from typing import Any
from xml.etree.ElementTree import Element, SubElement

import pytest

from xmppd.admin.client import request

PRESENCE = "urn:xmppd:rich-presence:0"
INVITES = "urn:xmppd:invites:0"
GAMES = {"chess": {"says": {"properties": {"mode": {"type": "string"}}}, "status": "Playing {mode}"}}


async def ask(player: Any, kind: str, payload: Element, to: str | None = None) -> Any:
    iq = player.xmpp.make_iq(itype=kind, ito=to)
    iq.append(payload)
    answer = await iq.send()
    return next(iter(answer.xml), None)


@pytest.mark.asyncio
async def test_two_players_see_and_invite_each_other(own_server, client):
    enabled = ["disco", "ping", "rich_presence", "invites"]
    server = own_server(plugins={"enabled": enabled, "config": {"rich_presence": {"games": GAMES}}})
    players = []
    for name in ("kiva", "jax"):
        jid = f"{name}@localhost"
        request(server.folder / "data" / "xmppd.sock", "user add", {"account": jid, "password": "geheim"})
        players.append(client(server.account("any")._replace(jid=jid, password="geheim"), server=server))
    kiva, jax = players
    request(
        server.folder / "data" / "xmppd.sock",
        "roster befriend",
        {"one": "kiva@localhost", "other": "jax@localhost"},
    )
    await kiva.login()
    await jax.login()
    await ask(jax, "get", Element(f"{{{INVITES}}}invites"))

    game = Element(f"{{{PRESENCE}}}game", {"id": "chess"})
    SubElement(game, f"{{{PRESENCE}}}state").text = '{"mode": "blitz"}'
    SubElement(game, f"{{{PRESENCE}}}join", {"secret": "lobby-1"})
    await ask(kiva, "set", game)
    seen = await jax.take("what kiva plays", lambda it: it.xml.find(f"{{{PRESENCE}}}games") is not None)
    assert seen.xml.findtext(f".//{{{PRESENCE}}}state") == '{"mode":"blitz"}'
    assert seen["status"] == "Playing blitz"
    joined = await ask(jax, "get", Element(f"{{{PRESENCE}}}join", {"id": "chess"}), "kiva@localhost")
    assert joined.get("secret") == "lobby-1"

    wanted = {"to": "jax@localhost", "kind": "match", "target": "m-1"}
    made = await ask(kiva, "set", Element(f"{{{INVITES}}}invite", wanted))
    pushed = await jax.take("an invite", lambda it: it.xml.find(f"{{{INVITES}}}invite") is not None)
    assert pushed.xml.find(f"{{{INVITES}}}invite").get("id") == made.get("id")
    accepted = await ask(jax, "set", Element(f"{{{INVITES}}}accept", {"id": made.get("id")}))
    assert accepted.get("state") == "accepted"
