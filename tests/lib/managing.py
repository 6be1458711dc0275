"""Clients that have stream management (XEP-0198) enabled."""

from __future__ import annotations

from xml.etree.ElementTree import Element, tostring

from xmppd import ns
from xmppd.core.managed import Managed
from xmppd.testing import Client, World

SM = f"{{{ns.SM}}}"
ASK = f"<r xmlns='{ns.SM}'/>"


async def enable(client: Client, more: str = " resume='true'") -> str:
    """Enable it; the id that was given."""
    await client.send(f"<enable xmlns='{ns.SM}'{more}/>")
    answer = await client.receive()
    assert answer.tag == f"{SM}enabled", tostring(answer)
    return answer.get("id", "")


async def managed(
    world: World, user: str, resource: str = "", *, node: int | None = None
) -> tuple[Client, str]:
    """An available client, and the id by which its session is resumed. What it is sent counts from now on."""
    client = await world.login(user, resource, node=node)
    return client, await enable(client)


async def ready(world: World, user: str, *, node: int | None = None) -> Client:
    """A client that has logged in and has no session."""
    client = world.connect(node=node)
    await client.open()
    assert (await client.authenticate(user)).tag == f"{{{ns.SASL}}}success"
    await client.open()
    return client


async def ask_to_resume(client: Client, id: str, h: int = 0) -> Element:
    """Ask to resume a session; the answer."""
    await client.send(f"<resume xmlns='{ns.SM}' previd='{id}' h='{h}'/>")
    return await client.receive()


async def resume(world: World, old: Client, id: str, h: int = 0, *, node: int | None = None) -> Client:
    """A client that has resumed that session."""
    client = await ready(world, old.bare.partition("@")[0], node=node)
    answer = await ask_to_resume(client, id, h)
    assert answer.tag == f"{SM}resumed" and answer.get("previd") == id, tostring(answer)
    client.jid = old.jid
    return client


def state(client: Client) -> Managed:
    """What the server keeps of it."""
    found = client.session.managed
    assert isinstance(found, Managed)
    return found


def bodies(stanzas: list[Element]) -> list[str]:
    """What was said in the messages among these."""
    return [
        stanza.findtext(f"{{{ns.CLIENT}}}body") or ""
        for stanza in stanzas
        if stanza.tag == f"{{{ns.CLIENT}}}message"
    ]


def count(stanzas: list[Element]) -> int:
    """How many of these are counted."""
    return sum(
        stanza.tag in {f"{{{ns.CLIENT}}}{kind}" for kind in ("message", "presence", "iq")}
        for stanza in stanzas
    )
