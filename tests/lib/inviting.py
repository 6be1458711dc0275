"""Invites as clients make, answer and see them."""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element

from xmppd.testing import Client, World, refusal

NS = "urn:xmppd:invites:0"
KEY = "a key for tests, of 32 characters"
ALICE, BOB, CAROL = "alice@localhost", "bob@localhost", "carol@localhost"


def world_of(*plugins: str, nodes: int | None = None, **config: Any) -> World:
    given = {"message": "", "key": KEY, **config}
    return World(plugins=("invites", *plugins), plugin_config={"invites": given}, nodes=nodes)


async def ask(client: Client, payload: str, kind: str = "set") -> Element:
    await client.send(f"<iq type='{kind}' id='asked'>{payload}</iq>")
    answers, rest = [], []
    for it in await client.receive_all():
        (answers if it.get("id") == "asked" else rest).append(it)
    client.pushed = [*getattr(client, "pushed", []), *rest]  # type: ignore[attr-defined]
    [answer] = answers
    return answer


async def invite(client: Client, to: str = BOB, **more: str) -> Element:
    attrs = {"kind": "match", "target": "m-1", "game": "chess", **more}
    payload = attrs.pop("payload", "")
    said = "".join(f" {name}='{value}'" for name, value in attrs.items() if value)
    return await ask(client, f"<invite xmlns='{NS}' to='{to}'{said}><payload>{payload}</payload></invite>")


async def id_of(client: Client, to: str = BOB, **more: str) -> str:
    answer = await invite(client, to, **more)
    assert answer.get("type") == "result", refusal(answer)
    return answer[0].get("id", "")


async def answer(client: Client, what: str, id: str) -> str:
    """The state that it comes to, or the refusal."""
    got = await ask(client, f"<{what} xmlns='{NS}' id='{id}'/>")
    return refusal(got) if got.get("type") == "error" else got[0].get("state", "")


async def pending(client: Client) -> list[tuple[str, str]]:
    """Those that a client is told of, from whom and to whom; it is told of changes from then on."""
    got = await ask(client, f"<invites xmlns='{NS}'/>", "get")
    return [(it.get("from", ""), it.get("to", "")) for it in got[0]]


async def pushes(world: World, client: Client) -> list[str]:
    """The states that a client was pushed."""
    await world.settle()
    got = [*getattr(client, "pushed", []), *await client.receive_all()]
    client.pushed = []  # type: ignore[attr-defined]
    return [
        it[0].get("state", "") for it in got if it.get("type") == "set" and it[0].tag == f"{{{NS}}}invite"
    ]


async def friends(world: World) -> tuple[Client, Client]:
    alice, bob = await world.login("alice"), await world.login("bob")
    await world.befriend(alice, bob)
    return alice, bob
