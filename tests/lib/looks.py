"""What slixmpp is shown of an account by whatever server it logs in to, stanza by stanza."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from xml.etree.ElementTree import Element, fromstring

from slixmpp import ClientXMPP
from slixmpp.exceptions import IqError
from slixmpp.stanza import Message, Presence
from slixmpp.xmlstream import StanzaBase
from truth import canonical

from xmppd import ns

SECONDS = 30.0
"""How long anything may take on a busy machine."""

PRIVATE: Final = ("{storage:bookmarks}storage", "{roster:delimiter}roster", "{app:settings}x")
ADDED: Final = (f"{{{ns.DELAY}}}delay", f"{{{ns.LEGACY_DELAY}}}x", f"{{{ns.STANZA_ID}}}stanza-id")
"""Children of a message that come from servers."""


@dataclass
class Look:
    """What an account is shown. Stanzas are canonical texts: prefixes, quotes and order of attributes are
    free.

    `roster` is by contact, `requests` by who asks: the children of the presence. `blocks` are empty where the
    server does not serve XEP-0191. `stamps` are those that the server gave to the messages of `offline`, in
    seconds since the epoch.
    """

    roster: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: dict[str, list[str]] = field(default_factory=dict)
    vcard: str = ""
    private: dict[str, str] = field(default_factory=dict)
    blocks: list[str] = field(default_factory=list)
    offline: list[str] = field(default_factory=list)
    stamps: list[float] = field(default_factory=list)


class Onlooker:
    """slixmpp as the client of one account. It answers nobody."""

    def __init__(
        self, jid: str, password: str, port: int, context: ssl.SSLContext | None, mechanism: str
    ) -> None:
        self._port = port
        self._stanzas: list[Element] = []
        self._arrived = asyncio.Event()
        self._outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gone = asyncio.Event()
        xmpp = self._xmpp = ClientXMPP(jid, password)
        xmpp.use_ipv6 = False
        xmpp.auto_authorize, xmpp.auto_subscribe = None, False
        xmpp.enable_direct_tls = False
        xmpp.enable_starttls, xmpp.enable_plaintext = context is not None, context is None
        if context is not None:
            xmpp.ssl_context = context
        mechanisms = xmpp.plugin["feature_mechanisms"]
        mechanisms.use_mech = mechanism
        mechanisms.unencrypted_plain = mechanisms.unencrypted_scram = (
            True  # where it is asked for TLS, it is used
        )
        xmpp.add_filter("in", self._keep)
        xmpp.add_event_handler("session_start", lambda _: self._settle(""))
        xmpp.add_event_handler("failed_all_auth", lambda _: self._settle(f"{jid} is refused by {mechanism}"))
        xmpp.add_event_handler("connection_failed", lambda why: self._settle(f"{jid}: {why}"))
        xmpp.add_event_handler("disconnected", self._disconnected)

    async def look(self, awaited: Look | None = None) -> Look:
        """Log in, and look at everything; an `awaited` look says for how many stanzas to wait."""
        self._xmpp.connect("127.0.0.1", self._port)
        async with asyncio.timeout(SECONDS):
            await self._outcome
        try:
            found = await self._ask_for_all()
            self._xmpp.send_presence()
            await self._ask("get", f"<ping xmlns='{ns.PING}'/>", to=self._xmpp.boundjid.domain)
            if awaited is not None:
                await self._wait(len(awaited.requests), len(awaited.offline))
            self._sort(found)
        finally:
            self._xmpp.disconnect()
            async with asyncio.timeout(SECONDS):
                await self._gone.wait()
            if self._xmpp._run_out_filters is not None:
                self._xmpp._run_out_filters.cancel()
        return found

    async def _ask_for_all(self) -> Look:
        roster = await self._ask("get", f"<query xmlns='{ns.ROSTER}'/>")
        found = Look(roster=items_in(roster))
        found.vcard = canonical((await self._ask("get", f"<vCard xmlns='{ns.VCARD}'/>"))[0])
        for tag in PRIVATE:
            namespace, _, name = tag[1:].partition("}")
            answer = await self._ask(
                "get", f"<query xmlns='{ns.PRIVATE}'><{name} xmlns='{namespace}'/></query>"
            )
            found.private[tag] = canonical(answer[0][0])
        blocks = await self._ask("get", f"<blocklist xmlns='{ns.BLOCKING}'/>")
        found.blocks = sorted(item.get("jid", "") for tree in blocks for item in tree)
        return found

    def _sort(self, found: Look) -> None:
        for tree in self._stanzas:
            if tree.tag == f"{{{ns.CLIENT}}}presence" and tree.get("type") == "subscribe":
                asks = tree.get("from", "").partition("/")[0]
                found.requests[asks] = sorted(map(canonical, tree))
            elif tree.tag == f"{{{ns.CLIENT}}}message":
                attrs = {key: tree.get(key, "") for key in ("from", "type", "id")}
                inner = [canonical(child) for child in tree if child.tag not in ADDED]
                found.offline.append(f"{attrs} {inner}")
                found.stamps += [stamp_of(child) for child in tree if child.tag == ADDED[0]]

    async def _wait(self, requests: int, messages: int) -> None:
        async with asyncio.timeout(SECONDS):
            while True:
                found = Look()
                self._sort(found)
                if len(found.requests) >= requests and len(found.offline) >= messages:
                    return
                self._arrived.clear()
                await self._arrived.wait()

    async def _ask(self, kind: str, payload: str, to: str = "") -> Element:
        iq = self._xmpp.make_iq(ito=to or None, itype=kind)
        iq.append(fromstring(payload))
        try:
            answer = await iq.send(timeout=SECONDS)
        except IqError as error:
            if payload.startswith("<vCard"):  # none is an error to some servers (XEP-0054 3.1)
                return element_around(payload)
            if payload.startswith("<blocklist") and error.condition == "service-unavailable":
                return Element("nothing")
            raise AssertionError(f"{payload}: {error.condition}") from None
        found: Element = answer.xml
        return found

    def _keep(self, stanza: StanzaBase) -> StanzaBase:
        if isinstance(stanza, Message | Presence):
            self._stanzas.append(stanza.xml)
            self._arrived.set()
        return stanza

    def _settle(self, why: str) -> None:
        if self._outcome.done():
            return
        self._xmpp.cancel_connection_attempt()
        if why:
            self._outcome.set_exception(AssertionError(why))
        else:
            self._outcome.set_result(None)

    def _disconnected(self, reason: Any) -> None:
        self._gone.set()
        self._settle(f"{self._xmpp.boundjid} was disconnected: {reason}")


def element_around(payload: str) -> Element:
    around = Element(f"{{{ns.CLIENT}}}iq")
    around.append(fromstring(payload))
    return around


def stamp_of(delay: Element) -> float:
    return datetime.fromisoformat(delay.get("stamp", "")).timestamp()


def items_in(answer: Element) -> dict[str, dict[str, Any]]:
    """The items of an answer to a roster get, by contact: what is not there is empty."""
    found = {}
    for item in answer[0]:
        shown: dict[str, Any] = {
            key: item.get(key, "") for key in ("subscription", "ask", "approved", "name")
        }
        shown["groups"] = sorted(group.text or "" for group in item)
        found[item.get("jid", "")] = shown
    return found


async def look_at(
    accounts: Iterable[tuple[str, str]],
    port: int,
    context: ssl.SSLContext | None = None,
    *,
    mechanisms: Sequence[str] = ("SCRAM-SHA-1", "PLAIN"),
    awaited: dict[str, Look] | None = None,
) -> dict[str, Look]:
    """Look at accounts (JID, password), a few at a time, logged in by one mechanism after the other."""
    room = asyncio.Semaphore(4)

    async def one(number: int, jid: str, password: str) -> tuple[str, Look]:
        async with room:
            mechanism = mechanisms[number % len(mechanisms)]
            onlooker = Onlooker(jid, password, port, context, mechanism)
            return jid, await onlooker.look((awaited or {}).get(jid))

    looks = [one(number, jid, password) for number, (jid, password) in enumerate(accounts)]
    return dict(await asyncio.gather(*looks))


def differences(before: Look, after: Look) -> list[str]:
    """In what two looks differ, one sentence each."""
    out = []
    for what in ("roster", "requests", "private"):
        old, new = getattr(before, what), getattr(after, what)
        out += [
            f"{what} {key}: {old.get(key)} has become {new.get(key)}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)
        ]
    for what in ("vcard", "blocks", "offline"):
        old, new = getattr(before, what), getattr(after, what)
        if old != new:
            out.append(f"{what}: {old} has become {new}")
    if len(before.stamps) != len(after.stamps) or any(
        abs(a - b) > 1 for a, b in zip(before.stamps, after.stamps, strict=True)
    ):
        out.append(f"stamps: {before.stamps} have become {after.stamps}")
    return out


def compare(before: dict[str, Look], after: dict[str, Look]) -> None:
    """Nothing may be another, of nobody."""
    assert before.keys() == after.keys()
    found = [f"{name}: {one}" for name in before for one in differences(before[name], after[name])]
    assert not found, f"{len(found)} differences:\n" + "\n".join(found[:20])
