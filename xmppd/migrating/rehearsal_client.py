"""A client as people have one (RFC 6120, 6121): it logs in, looks at what is its own, and changes nothing.

Certificates are not checked: it talks to servers of this machine.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import secrets
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Literal, Self
from xml.etree.ElementTree import Element

from xmppd import ns
from xmppd.core.credentials import MOST_ITERATIONS
from xmppd.errors import StreamError, XmppdError
from xmppd.stream.forms import scram_form
from xmppd.stream.scram import ALGORITHMS, BadPassword
from xmppd.xml.build import escape_attribute
from xmppd.xml.engine import Engine
from xmppd.xml.limits import Limits
from xmppd.xml.scan import Scanner, StreamClose, StreamOpen
from xmppd.xml.stanza import Stanza

SECONDS: Final = 60.0
"""How long the server may take for an answer."""
READ: Final = 1 << 18
RESOURCE: Final = "rehearsal"

LIMITS: Final = Limits(
    stanza_bytes=1 << 27,
    depth=1000,
    attributes=1000,
    elements=1 << 24,
    pieces=1 << 26,
    markup_bytes=1 << 27,
    tag_bytes=1 << 24,
    expanded_bytes=1 << 27,
    header_bytes=1 << 16,
    name_bytes=1 << 16,
)
"""The server is ours, and is believed."""


class NoAnswer(XmppdError):
    """The server did not go on: the text says why."""


class LoginFailed(XmppdError):
    """The server refused a login; the text is the condition (RFC 6120 6.5)."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where clients connect."""

    host: str
    port: int
    tls: Literal["starttls", "direct", "none"]


class RehearsalClient:
    """One connection. Elements that come meanwhile and are no answers are kept in `others`. Whatever waits
    raises NoAnswer when nothing comes, or the connection ends.
    """

    def __init__(self, place: Place, domain: str) -> None:
        self._place = place
        self._domain = domain
        self._scanner = Scanner(Engine(), LIMITS)
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._inbox: list[Stanza] = []
        self._numbers = 0
        self.others: list[Stanza] = []
        self.mechanisms: Sequence[str] = ()

    async def __aenter__(self) -> Self:
        """Connect, with TLS where the place has it."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        place = self._place
        try:
            async with asyncio.timeout(SECONDS):
                self._reader, self._writer = await asyncio.open_connection(
                    place.host,
                    place.port,
                    ssl=context if place.tls == "direct" else None,
                    server_hostname=self._domain if place.tls == "direct" else None,
                )
                await self._open()
                if place.tls == "starttls":
                    self._write(f"<starttls xmlns='{ns.TLS}'/>")
                    await self._receive(f"{{{ns.TLS}}}proceed")
                    await self._writer.start_tls(context, server_hostname=self._domain)
                    await self._open()
        except (OSError, TimeoutError) as error:
            await self._close()
            raise NoAnswer(f"nobody answers at port {place.port} of {place.host}: {error}") from None
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._write("</stream:stream>")
        await self._close()

    async def _close(self) -> None:
        if hasattr(self, "_writer"):
            self._writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(SECONDS):
                    await self._writer.wait_closed()

    # the stream

    def _write(self, xml: str) -> None:
        self._writer.write(xml.encode())

    async def _open(self) -> Element:
        """Open a stream; its features."""
        self._scanner.restart(discard=True)
        domain = escape_attribute(self._domain)
        self._write(
            f"<?xml version='1.0'?><stream:stream xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAM}' "
            f"to='{domain}' version='1.0'>"
        )
        features = (await self._receive(f"{{{ns.STREAM}}}features")).xml
        names = features.iterfind(f"{{{ns.SASL}}}mechanisms/{{{ns.SASL}}}mechanism")
        self.mechanisms = [name.text or "" for name in names]
        return features

    async def _receive(self, *kinds: str) -> Stanza:
        """The next element, which has to be one of these kinds."""
        found = await self._next()
        if kinds and found.kind not in kinds:
            raise NoAnswer(f"the server said {found.kind}")
        return found

    async def _next(self) -> Stanza:
        try:
            async with asyncio.timeout(SECONDS):
                while not self._inbox:
                    data = await self._reader.read(READ)
                    if not data:
                        raise NoAnswer("the connection ended")
                    self._feed(data)
        except TimeoutError:
            raise NoAnswer(f"nothing came for {SECONDS:.0f} seconds") from None
        except OSError as error:
            raise NoAnswer(f"the connection broke: {error}") from None
        return self._inbox.pop(0)

    def _feed(self, data: bytes) -> None:
        events = self._scanner.feed(data)
        while events:
            for event in events:
                match event:
                    case Stanza():
                        self._inbox.append(event)
                    case StreamOpen():
                        pass
                    case StreamClose():
                        raise NoAnswer("the stream ended")
                    case StreamError():
                        raise NoAnswer(f"the server sent what is no stream: {event}")
            events = self._scanner.feed(b"")

    # logging in

    async def log_in(self, name: str, password: str, mechanism: str) -> None:
        """By one mechanism (RFC 6120 6); LoginFailed. Another one may be tried afterwards."""
        if mechanism == "PLAIN":
            await self._plain(name, password)
        else:
            await self._scram(name, password, mechanism)
        await self._open()

    async def log_in_by_best(self, name: str, password: str) -> str:
        """By the strongest mechanism of SCRAM that works, all that are offered one after the other; which
        one. LoginFailed with the last condition.
        """
        failure = LoginFailed("no mechanism of SCRAM is offered")
        for mechanism in SCRAM:
            if mechanism not in self.mechanisms:
                continue
            try:
                await self.log_in(name, password, mechanism)
            except LoginFailed as error:
                failure = error
            else:
                return mechanism
        raise failure

    async def _plain(self, name: str, password: str) -> None:
        """RFC 4616."""
        await self._say("auth", f"\0{name}\0{password}".encode(), " mechanism='PLAIN'")

    async def _scram(self, name: str, password: str, mechanism: str) -> None:
        """RFC 5802, without channel binding; LoginFailed also where the server does not know the keys."""
        exchange = ScramExchange(name, password, ALGORITHMS[mechanism])
        challenge = await self._say("auth", exchange.first, f" mechanism='{mechanism}'")
        final = await self._say("response", exchange.answer(challenge))
        if not exchange.is_signed(final):
            raise LoginFailed("the server's signature is wrong")

    async def _say(self, tag: str, data: bytes, attributes: str = "") -> bytes:
        """One message of an exchange; what the server says to it."""
        text = base64.b64encode(data).decode() or "="
        self._write(f"<{tag} xmlns='{ns.SASL}'{attributes}>{text}</{tag}>")
        names = ("challenge", "success", "failure")
        found = await self._receive(*(f"{{{ns.SASL}}}{word}" for word in names))
        if found.kind == f"{{{ns.SASL}}}failure":
            condition = next(iter(found.xml), None)
            raise LoginFailed("failure" if condition is None else condition.tag.rpartition("}")[2])
        if found.kind.endswith("}success"):
            self._scanner.restart(discard=True)
        return base64.b64decode((found.xml.text or "").strip("= \n") + "==")

    # afterwards

    async def bind(self) -> str:
        """Bind a resource (RFC 6120 7); the full JID."""
        request = f"<bind xmlns='{ns.BIND}'><resource>{RESOURCE}-{secrets.token_hex(4)}</resource></bind>"
        answer = await self.ask("set", request)
        return "" if answer is None else answer.findtext(f"{{{ns.BIND}}}jid") or ""

    async def ask(self, kind: str, payload: str) -> Element | None:
        """Send an iq to the account itself; the payload of the result, None for an error or none."""
        self._numbers += 1
        id = f"r{self._numbers}"
        self._write(f"<iq type='{kind}' id='{id}'>{payload}</iq>")
        while True:
            found = await self._next()
            if found.kind == "iq" and found.id == id:
                break
            self.others.append(found)
        if found.type != "result":
            return None
        return next(iter(found.xml), None)

    async def appear(self) -> None:
        """Be available with a negative priority, so that messages that wait are not delivered (RFC 6121
        4.7.2.3), and wait until the server has dealt with that.
        """
        self._write("<presence><priority>-1</priority></presence>")
        await self.ask("get", f"<query xmlns='{ns.ROSTER}'/>")

    @property
    def requests(self) -> set[str]:
        """Who asked to subscribe, of those told so far."""
        return {
            stanza.attrs.get("from", "").partition("/")[0]
            for stanza in self.others
            if stanza.kind == "presence" and stanza.type == "subscribe"
        }


SCRAM: Final = ("SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1")
"""The strongest first."""


class ScramExchange:
    """The client's side of SCRAM (RFC 5802) with the hash `algorithm`; LoginFailed for a password that none
    can have, and for a server that does not keep to it.
    """

    def __init__(self, name: str, password: str, algorithm: str, nonce: str = "") -> None:
        try:
            self._password = scram_form(password).encode()
        except BadPassword as error:
            raise LoginFailed(str(error)) from None
        self._algorithm = algorithm
        self._nonce = nonce or secrets.token_urlsafe(18)
        escaped = name.replace("=", "=3D").replace(",", "=2C")
        self._bare = f"n={escaped},r={self._nonce}"
        self._signature = b""

    @property
    def first(self) -> bytes:
        """What the client says first."""
        return f"n,,{self._bare}".encode()

    def answer(self, challenge: bytes) -> bytes:
        """The proof for what the server said."""
        values = values_of(challenge)
        try:
            salt, iterations = base64.b64decode(values["s"], validate=True), int(values["i"])
        except (KeyError, ValueError):
            raise LoginFailed("the challenge is none of SCRAM") from None
        nonce = values.get("r", "")
        if not nonce.startswith(self._nonce) or not 0 < iterations <= MOST_ITERATIONS:
            raise LoginFailed("the challenge has another nonce, or too many iterations")
        salted = hashlib.pbkdf2_hmac(self._algorithm, self._password, salt, iterations)
        unsigned = f"c=biws,r={nonce}"
        message = b",".join((self._bare.encode(), challenge, unsigned.encode()))
        key = hmac.digest(salted, b"Client Key", self._algorithm)
        stored = hashlib.new(self._algorithm, key).digest()
        signature = hmac.digest(stored, message, self._algorithm)
        proof = bytes(left ^ right for left, right in zip(key, signature, strict=True))
        self._signature = hmac.digest(
            hmac.digest(salted, b"Server Key", self._algorithm), message, self._algorithm
        )
        return f"{unsigned},p={base64.b64encode(proof).decode()}".encode()

    def is_signed(self, final: bytes) -> bool:
        """Whether the server knows the keys, too."""
        signature = values_of(final).get("v", "")
        with contextlib.suppress(ValueError):
            return hmac.compare_digest(base64.b64decode(signature, validate=True), self._signature)
        return False


def values_of(message: bytes) -> Mapping[str, str]:
    """The attributes of a message of SCRAM."""
    parts = message.decode("utf-8", "replace").split(",")
    return {name: value for name, _, value in (part.partition("=") for part in parts)}
