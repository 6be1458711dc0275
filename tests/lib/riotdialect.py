"""Worlds that speak the dialect of `riot_profile`, and clients of it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from xml.etree.ElementTree import Element

from gametokens import game, minted

from xmppd import ns
from xmppd.testing import Client, World

PLUGINS = ("players", "friends", "last", "blocking", "privacy", "riot_profile")
MECHANISM, OLDER = "X-Riot-RSO-PAS", "X-Riot-RSO"
ROSTER = "jabber:iq:riotgames:roster"


@asynccontextmanager
async def world_of(*plugins: str, nodes: int = 0, **config: Any) -> AsyncIterator[World]:
    """A world that speaks it."""
    others = {"riot_profile": {"without_tls": True, **config}}
    async with game(*PLUGINS, *plugins, nodes=nodes, others=others) as world:
        yield world


def auth(*tokens: tuple[str, str], mechanism: str = MECHANISM, text: str = "") -> str:
    """What asks to be let in, with tokens by name, or a text."""
    children = "".join(f"<{name}>{token}</{name}>" for name, token in tokens)
    return f"<auth mechanism='{mechanism}' xmlns='{ns.SASL}'>{text}{children}</auth>"


def both(player: str = "alice", **claims: Any) -> str:
    """The same with the two tokens of a player."""
    return auth(("rso_token", minted(player)), ("pas_token", minted(player, affinity="eu1", **claims)))


async def let_in(world: World, xml: str, *, node: int | None = None) -> tuple[Client, Element]:
    """A client that has asked to be let in, and the answer."""
    client = world.connect(node=node)
    await client.open()
    await client.send(xml)
    return client, await client.receive()


async def player(world: World, name: str, *, node: int | None = None) -> Client:
    """One who has logged in as the dialect's clients do, and has his list."""
    client, answer = await let_in(world, both(name), node=node)
    assert answer.tag == f"{{{ns.SASL}}}success"
    await client.open()
    await client.send(
        f"<iq id='_xmpp_bind1' type='set'><bind xmlns='{ns.BIND}'>"
        "<puuid-mode enabled='true'/><resource>RC-1234</resource></bind></iq>"
    )
    bound = await client.receive()
    assert bound.get("id") == "_xmpp_bind1"
    client.jid = bound[0][0].text or ""
    await roster(client)
    await client.send("<presence/>")
    await client.receive_all()
    return client


async def roster(client: Client, **attrs: str) -> dict[str, Element]:
    """The items of the list, by jid."""
    said = "".join(f" {name}='{value}'" for name, value in attrs.items())
    answer = await asked(client, "get", f"<query xmlns='{ROSTER}'{said}/>")
    return {item.get("jid", ""): item for item in answer[0]}


async def asked(client: Client, kind: str, payload: str, to: str = "") -> Element:
    """The answer to a request; what else came stays to be received."""
    address = f" to='{to}'" if to else ""
    await client.send(f"<iq type='{kind}' id='q_1'{address}>{payload}</iq>")
    got = await client.receive_all()
    (answer,) = [it for it in got if it.get("id") == "q_1"]
    client.others = [it for it in got if it is not answer]  # type: ignore[attr-defined]
    return answer
