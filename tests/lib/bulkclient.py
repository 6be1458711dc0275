"""A small client for hundreds of streams at once, by TCP or TLS; logs in by PLAIN or SCRAM."""

from __future__ import annotations

import asyncio
import base64
import ssl
from typing import Any
from xml.etree.ElementTree import Element, XMLPullParser
from xml.sax.saxutils import escape

from scramp import ScramClient
from tokens import Tokens

from xmppd import ns

SECONDS = 30.0
"""How long anything may take on a busy machine."""

REGISTER = "jabber:iq:register"


class Refused(Exception):
    """The server says no: the condition."""


class Stream:
    """One stream to a server on loopback. Elements that nobody waited for are kept in `others`."""

    def __init__(self, domain: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.domain = domain
        self.jid = ""
        self.others: list[Element] = []
        self._port = port
        self._tls = tls
        self._numbers = 0
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def connect(self) -> Stream:
        """Connect (with direct TLS if there is a context), and open the stream."""
        self._reader, self._writer = await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=self._tls, server_hostname=self.domain if self._tls else None
        )
        await self.open()
        return self

    async def open(self) -> Element:
        """Open a stream, for the first time or again; its features."""
        self._parser: XMLPullParser[Any] = XMLPullParser(("start", "end"))
        self._tokens = Tokens()
        self._depth = 0
        self._inbox: list[Element] = []
        self.write(
            f"<?xml version='1.0'?><stream:stream xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAM}'"
            f" to='{self.domain}' version='1.0'>"
        )
        return await self.receive()

    def write(self, xml: str) -> None:
        """Send without waiting."""
        self._writer.write(xml.encode())

    async def receive(self) -> Element:
        """The next element; EOFError at the end of the connection."""
        async with asyncio.timeout(SECONDS):
            while not self._inbox:
                data = await self._reader.read(65536)
                if not data:
                    raise EOFError
                self._parser.feed(self._tokens.whole(data))
                event: str
                tree: Element
                for event, tree in self._parser.read_events():
                    self._depth += 1 if event == "start" else -1
                    if event == "end" and self._depth == 1:
                        self._inbox.append(tree)
        return self._inbox.pop(0)

    async def ask(self, kind: str, payload: str, to: str = "") -> Element:
        """Send an iq; its answer, or Refused."""
        self._numbers += 1
        id = f"b{self._numbers}"
        address = f" to='{to}'" if to else ""
        self.write(f"<iq type='{kind}' id='{id}'{address}>{payload}</iq>")
        while True:
            found = await self.receive()
            if found.tag == f"{{{ns.CLIENT}}}iq" and found.get("id") == id:
                if found.get("type") == "error":
                    raise Refused(f"{payload}: {''.join(found.itertext())}")
                return found
            self.others.append(found)

    async def fence(self) -> None:
        """All that was sent before has been dealt with."""
        await self.ask("get", f"<ping xmlns='{ns.PING}'/>", to=self.domain)

    async def register(self, user: str, password: str) -> None:
        """Make an account (XEP-0077 3.1)."""
        fields = f"<username>{escape(user)}</username><password>{escape(password)}</password>"
        await self.ask("set", f"<query xmlns='{REGISTER}'>{fields}</query>", to=self.domain)

    async def login(self, user: str, password: str, mechanism: str = "PLAIN") -> None:
        """Log in, and bind; Refused."""
        if mechanism == "PLAIN":
            self._auth(mechanism, f"\0{user}\0{password}")
        else:
            client = ScramClient([mechanism], user, password)
            self._auth(mechanism, client.get_client_first())
            challenge = self._told(await self.receive(), "challenge")
            client.set_server_first(challenge)
            self.write(f"<response xmlns='{ns.SASL}'>{base64_of(client.get_client_final())}</response>")
        final = self._told(await self.receive(), "success")
        if mechanism != "PLAIN":
            client.set_server_final(final)
        await self.open()
        bound = await self.ask("set", f"<bind xmlns='{ns.BIND}'/>")
        self.jid = bound.findtext(f"{{{ns.BIND}}}bind/{{{ns.BIND}}}jid") or ""

    def _auth(self, mechanism: str, data: str) -> None:
        self.write(f"<auth xmlns='{ns.SASL}' mechanism='{mechanism}'>{base64_of(data)}</auth>")

    def _told(self, answer: Element, name: str) -> str:
        if answer.tag != f"{{{ns.SASL}}}{name}":
            raise Refused(", ".join(child.tag for child in answer))
        return base64.b64decode(answer.text or "").decode()

    def close(self) -> None:
        """End the stream without waiting for the server's end."""
        if not self._writer.is_closing():
            self.write("</stream:stream>")
            self._writer.close()


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
