"""A client's stream for tools that need many of them: asks and counts, and parses as little as it can."""

import asyncio
import base64
import re
from dataclasses import dataclass
from typing import cast

HEADER = (
    "<stream:stream to='localhost' version='1.0' xmlns='jabber:client'"
    " xmlns:stream='http://etherx.jabber.org/streams'>"
)
SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
BIND = "urn:ietf:params:xml:ns:xmpp-bind"
PATIENCE = 30.0
"""Seconds after which an answer is missing."""


class Refused(Exception):
    """The server answered with an error: its condition, and its type (RFC 6120 8.3.2)."""

    def __init__(self, condition: str, type: str = "") -> None:
        super().__init__(condition)
        self.type = type


@dataclass(slots=True)
class Counts:
    """How often each mark came in: a mark is one character that is written nowhere else."""

    messages: int = 0
    presences: int = 0
    errors: int = 0


class Stream(asyncio.Protocol):
    """One connection without TLS. Use `connect`; then `log_in` or `ask`. ConnectionError when it ends.

    Once `counts` is set, what comes in is counted and thrown away, but for answers that somebody waits for.
    """

    def __init__(self) -> None:
        self.counts: Counts | None = None
        self.is_over = False
        self.jid = ""
        self._transport: asyncio.WriteTransport
        self._seen = b""
        self._until: bytes | None = None
        self._found: asyncio.Future[bytes] | None = None
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._numbers = 0

    # the protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is not registered as one

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_over = True
        self._can_write.set()
        if self._found is not None and not self._found.done():
            self._found.set_exception(ConnectionResetError())

    def pause_writing(self) -> None:
        self._can_write.clear()

    def resume_writing(self) -> None:
        self._can_write.set()

    def data_received(self, data: bytes) -> None:
        if self.counts is not None:
            self.counts.messages += data.count(b"~")
            self.counts.presences += data.count(b"^")
            self.counts.errors += (self._seen[-5:] + data).count(b"<error")
            if self._found is None:
                self._seen = data[-5:]
                return
        self._seen += data
        self._look()

    def _look(self) -> None:
        if self._found is None or self._found.done() or self._until is None:
            return
        place = self._seen.find(self._until)
        if place < 0:
            return
        end = self._seen.find(b">", place + len(self._until) - 1) + 1
        if end:
            self._found.set_result(self._seen[:end])
            self._seen = self._seen[end:]

    # what one may do

    def write(self, xml: str | bytes) -> None:
        """Send; nobody waits."""
        if self.is_over:
            raise ConnectionResetError
        self._transport.write(xml if isinstance(xml, bytes) else xml.encode())

    async def drain(self) -> None:
        """Wait while the server takes nothing."""
        await self._can_write.wait()

    async def until(self, mark: bytes) -> bytes:
        """All that came up to the tag with this mark in it; TimeoutError."""
        if self.is_over:
            raise ConnectionResetError
        self._found, self._until = asyncio.get_running_loop().create_future(), mark
        self._look()
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._found
        finally:
            self._found = self._until = None

    async def ask(self, kind: str, payload: str, to: str = "") -> bytes:
        """Send an iq; everything that came up to and with its answer. Refused."""
        self._numbers += 1
        id = f"ask{self._numbers}."
        address = f" to='{to}'" if to else ""
        self.write(f"<iq type='{kind}' id='{id}'{address}>{payload}</iq>")
        mark = id.encode()
        seen = await self.until(mark)
        answer = seen[seen.rfind(b"<iq", 0, seen.find(mark)) :]
        if not answer.endswith(b"/>"):
            more = await self.until(b"</iq>")
            answer, seen = answer + more, seen + more
        if re.search(rb"type=['\"]error['\"]", answer[: answer.find(b">")]):
            conditions = re.findall(rb"<([a-z-]+) xmlns=['\"]urn:ietf:params:xml:ns:xmpp-stanzas", answer)
            types = re.findall(rb"<error[^>]* type=['\"](\w+)", answer)
            condition = conditions[0].decode() if conditions else "without a condition"
            raise Refused(condition, types[0].decode() if types else "")
        return seen

    async def ping(self) -> bytes:
        """Everything before this was dealt with; what came meanwhile."""
        return await self.ask("get", "<ping xmlns='urn:xmpp:ping'/>", to="localhost")

    async def open(self) -> None:
        """Open a stream, or open it anew."""
        self.write(HEADER)
        await self.until(b"</stream:features")

    def take_rest(self) -> bytes:
        """What came, and was asked for by nobody."""
        rest, self._seen = self._seen, b""
        return rest

    async def log_in(self, user: str, password: str, resource: str = "") -> None:
        """PLAIN, and a resource, the server's choice if none; Refused when the password is wrong."""
        await self.authenticate(user, password)
        await self.bind(resource)

    async def authenticate(self, user: str, password: str) -> None:
        """PLAIN; what is behind it is a stream that has no session. Refused."""
        await self.open()
        plain = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        self.write(f"<auth xmlns='{SASL}' mechanism='PLAIN'>{plain}</auth>")
        answer = await self.until(SASL.encode())
        if b"<success" not in answer:
            condition = (await self.until(b"</failure")).partition(b"/>")[0].decode().strip("<>")
            raise Refused(condition, "wait" if condition == "temporary-auth-failure" else "auth")
        await self.open()

    async def bind(self, resource: str = "") -> None:
        """A session. Refused."""
        wish = f"<resource>{resource}</resource>" if resource else ""
        bound = await self.ask("set", f"<bind xmlns='{BIND}'>{wish}</bind>")
        self.jid = bound.rpartition(b"<jid>")[2].partition(b"<")[0].decode()

    async def leave(self) -> None:
        """Close the stream as one should, and wait for the other side to do so."""
        self.write("</stream:stream>")
        await self.until(b"</stream:stream")
        self.cut()

    def cut(self) -> None:
        """Drop the connection."""
        self.is_over = True
        self._transport.abort()


async def connect(port: int) -> Stream:
    """A connection that has said nothing yet."""
    _, stream = await asyncio.get_running_loop().create_connection(Stream, "127.0.0.1", port)
    return stream
