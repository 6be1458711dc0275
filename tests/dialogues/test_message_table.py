"""The table of docs/messages.md, row by row: archives, who gets it, copies, and when nobody is there."""

from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

import pytest

from xmppd import ns
from xmppd.testing import Client, World, refusal

pytestmark = pytest.mark.asyncio

BODY = f"{{{ns.CLIENT}}}body"
WRAPPED = f"{{{ns.FORWARD}}}forwarded"
STATE = f"<active xmlns='{ns.CHAT_STATES}'/>"


@dataclass(frozen=True)
class Row:
    """A message, by its type and what is in it, to the account, a resource that is there or one that is gone;
    in how many of the two archives it is, whether the first device gets it, which devices get copies of it,
    what the sender is told, and what becomes of it when nobody is there.
    """

    kind: str
    inner: str
    to: str = "bob@localhost"
    archived: int = 2
    live: bool = True
    copies: str = "sender receiver"
    error: str = ""
    away: str = "kept"


def hint(name: str) -> str:
    return f"<body>x</body><{name} xmlns='{ns.HINTS}'/>"


UNAVAILABLE = "cancel service-unavailable"
ROWS = {
    "chat to the account": Row("chat", "<body>x</body>"),
    "normal to the account": Row("normal", "<body>x</body>"),
    "to a resource": Row("chat", "<body>x</body>", to="{bob}"),
    "chat to a gone resource": Row("chat", "<body>x</body>", to="bob@localhost/gone"),
    "normal to a gone resource": Row(
        "normal",
        "<body>x</body>",
        to="bob@localhost/gone",
        archived=0,
        live=False,
        copies="sender",
        error=UNAVAILABLE,
        away=UNAVAILABLE,
    ),
    "chat state": Row("chat", STATE, archived=0, away="dropped"),
    "no-store": Row("chat", hint("no-store"), archived=0, away=UNAVAILABLE),
    "no-permanent-store": Row("chat", hint("no-permanent-store"), archived=0, away="kept"),
    "no-copy": Row("chat", hint("no-copy"), copies=""),
    "private": Row("chat", f"<body>x</body><private xmlns='{ns.CARBONS}'/>", copies=""),
    "headline": Row("headline", "<body>x</body>", archived=0, copies="", away="dropped"),
    "groupchat": Row(
        "groupchat", "<body>x</body>", archived=0, live=False, copies="", error=UNAVAILABLE, away=UNAVAILABLE
    ),
}


def world() -> World:
    return World(plugins=("archive", "offline", "carbons", "blocking"))


async def device(w: World, user: str, resource: str, priority: int, *, carbons: bool) -> Client:
    client = await w.bind(user, resource)
    if carbons:
        answer = await client.ask("set", f"<enable xmlns='{ns.CARBONS}'/>")
        assert answer.get("type") == "result"
    await client.send(f"<presence><priority>{priority}</priority></presence>")
    await client.receive_all()
    return client


def is_it(stanza: Element) -> bool:
    return stanza.tag.endswith("}message") and stanza.get("id") == "m" and stanza.get("type") != "error"


async def archived(client: Client) -> int:
    await client.receive_all()
    await client.send(f"<iq type='set' id='q'><query xmlns='{ns.MAM}'/></iq>")
    return sum(stanza.find(f"{{{ns.MAM}}}result") is not None for stanza in await client.receive_all())


async def send(client: Client, row: Row, **to: Any) -> None:
    target = row.to.format(**to)
    await client.send(f"<message id='m' type='{row.kind}' to='{target}'>{row.inner}</message>")


@pytest.mark.parametrize("name", ROWS)
async def test_while_somebody_is_there(name: str) -> None:
    row = ROWS[name]
    async with world() as w:
        alice = await device(w, "alice", "desk", 0, carbons=False)
        phone = await device(w, "alice", "phone", 0, carbons=True)
        bob = await device(w, "bob", "desk", 5, carbons=False)
        other = await device(w, "bob", "phone", 0, carbons=True)
        for client in (alice, phone, bob, other):
            await client.receive_all()
        await send(alice, row, bob=bob.jid)
        told, got = await alice.receive_all(), await bob.receive_all()
        sent, received = await phone.receive_all(), await other.receive_all()
        assert [refusal(stanza) for stanza in told] == [row.error] * bool(row.error)
        assert sum(map(is_it, got)) == row.live
        copies = [
            who
            for who, all in (("sender", sent), ("receiver", received))
            if any(stanza.find(f".//{WRAPPED}") is not None for stanza in all)
        ]
        assert copies == row.copies.split()
        assert sum(map(is_it, received)) == (row.kind == "headline")
        assert await archived(alice) + await archived(bob) == row.archived


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.away and row.to != "{bob}"])
async def test_while_nobody_is(name: str) -> None:
    row = ROWS[name]
    async with world() as w:
        alice = await device(w, "alice", "desk", 0, carbons=False)
        await send(alice, row)
        told = [refusal(stanza) for stanza in await alice.receive_all()]
        bob = await w.bind("bob")
        await bob.send("<presence/>")
        kept = sum(map(is_it, await bob.receive_all()))
        became = told[0] if told else "kept" if kept else "dropped"
        assert became == row.away
        assert await archived(bob) == (row.archived > 0)
