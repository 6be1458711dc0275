"""What tests of archives have in common: what is said and asked, and what was found (XEP-0313)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.etree.ElementTree import Element

from plugins.archive.ids import Pool, day_of, month_of
from xmppd import ns
from xmppd.testing import Client, World

DAY = 86_400
BODY = f"{{{ns.CLIENT}}}body"
RESULT = f"{{{ns.MAM}}}result"
FIN = f"{{{ns.MAM}}}fin"
STANZA_ID = f"{{{ns.STANZA_ID}}}stanza-id"


def world(*more: str, **about: Any) -> World:
    return World(plugins=("archive", *more), **about)


def later(w: World, *, days: float) -> None:
    """By the calendar alone: nodes that hear nothing of each other for days are not connected any more."""
    w.skews[:] = [skew + days * 86_400.0 for skew in w.skews]


async def chat(client: Client, to: str, *texts: str) -> None:
    for text in texts:
        await client.send(f"<message to='{to}' id='{text}' type='chat'><body>{text}</body></message>")


def field(name: str, *values: str) -> str:
    return f"<field var='{name}'>{''.join(f'<value>{value}</value>' for value in values)}</field>"


def form(*fields: str) -> str:
    return f"<x xmlns='{ns.DATA_FORM}' type='submit'>{field('FORM_TYPE', ns.MAM)}{''.join(fields)}</x>"


def page(inner: str = "") -> str:
    return f"<set xmlns='{ns.RSM}'>{inner}</set>"


class Found:
    """What a client was given: `texts` in the order of coming, `ids`, and the `fin`."""

    def __init__(self, stanzas: Sequence[Element]) -> None:
        results = [found for stanza in stanzas if (found := stanza.find(RESULT)) is not None]
        self.results = results
        self.messages = [result.find(f".//{{{ns.CLIENT}}}message") for result in results]
        self.texts = [message.findtext(BODY) for message in self.messages if message is not None]
        self.ids = [result.get("id") or "" for result in results]
        [fin] = [found for stanza in stanzas if (found := stanza.find(FIN)) is not None]
        self.is_complete = fin.get("complete") == "true"
        self.first = fin.findtext(f".//{{{ns.RSM}}}first")
        self.last = fin.findtext(f".//{{{ns.RSM}}}last")


async def ask(client: Client, inner: str = "", attrs: str = "", to: str = "") -> list[Element]:
    address = f" to='{to}'" if to else ""
    await client.receive_all()
    await client.send(f"<iq type='set' id='q'{address}><query xmlns='{ns.MAM}'{attrs}>{inner}</query></iq>")
    return await client.receive_all()


async def find(client: Client, inner: str = "", attrs: str = "") -> Found:
    return Found(await ask(client, inner, attrs))


async def put(w: World, uid: int, *days_ago: float, peer: str = "bob@localhost") -> list[bytes]:
    """Messages of so many days ago."""
    plugin, ids = w.plugin("archive"), []
    for days in days_ago:
        id = Pool().new_id(int((plugin.now() - days * DAY) * 1e6))
        stanza = f"<message from='{peer}'><body>{days}</body></message>".encode()
        row = {"owner": uid, "month": month_of(id), "id": id, "peer": peer, "stanza": stanza}
        await plugin.messages.put(row)
        await plugin.days.put({"owner": uid, "peer": peer, "day": day_of(id)})
        await plugin.months.put({"owner": uid, "month": month_of(id)})
        ids.append(id)
    return ids
