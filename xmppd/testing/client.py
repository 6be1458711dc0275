"""A client on a raw stream, joined to a server in memory."""

from __future__ import annotations

import asyncio
import base64
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element, XMLPullParser, canonicalize, fromstring, tostring

from xmppd import ns
from xmppd.core.sessions import Session
from xmppd.net.c2s.framing import DocumentFraming
from xmppd.net.c2s.stream import Stream
from xmppd.net.c2s.tcp import client_wire
from xmppd.net.wire import Wire

if TYPE_CHECKING:
    from xmppd.app import App
    from xmppd.testing.world import World

PASSWORD = "secret"
START = 1_700_000_000.0
DECLARATION = b"<?xml"
STREAM_HEADER = (
    f"<stream:stream xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAM}' to='{{domain}}' version='1.0'{{more}}>"
)


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        """Seconds since the epoch."""
        return START + self.seconds

    def monotonic(self) -> float:
        """Seconds since the world began."""
        return self.seconds


class MemoryTransport(asyncio.Transport):
    """The server's end of a connection in memory; what it writes goes to `receive`, the end to `lost`.

    While `stalled`, what it writes is held, and `clogged` is called when that is more than it should be.
    """

    def __init__(self, peer: str) -> None:
        super().__init__({"peername": (peer, 0)})
        self.receive: Callable[[bytes], None] = lambda data: None
        self.lost: Callable[[], None] = lambda: None
        self.clogged: Callable[[], None] = lambda: None
        self.stalled = False
        self.held = bytearray()
        self._high = 65536
        self._closing = False
        self._reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.stalled:
            was_clogged = len(self.held) > self._high
            self.held += data
            if len(self.held) > self._high and not was_clogged:
                self.clogged()
        elif not self._closing:
            self.receive(bytes(data))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self.lost)

    abort = close

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._reading

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True

    def can_write_eof(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Only the upper limit counts: what is held goes out at once, and whole."""
        if high is not None:
            self._high = high

    def get_write_buffer_size(self) -> int:
        return len(self.held)


class ProtectedWire(Wire):
    """A wire that says TLS protects it, with these channel bindings."""

    bindings: Mapping[str, bytes]

    @property
    def secure(self) -> bool:
        """It says so."""
        return True

    @property
    def can_encrypt(self) -> bool:
        """It does already."""
        return False

    def channel_bindings(self) -> Mapping[str, bytes]:
        """What it was given."""
        return self.bindings


def protected_wire(app: App, bindings: Mapping[str, bytes]) -> Wire:
    """A connection that says TLS protects it."""
    service = app.service
    wire = ProtectedWire(app.shared)
    wire.bindings = bindings
    wire.stream = Stream(service, wire, DocumentFraming(service.engine, service.limits_before_login))
    return wire


class Client:
    """A client on a raw stream. `send` takes XML, `expect` compares whole stanzas, canonically.

    With `bindings` the server takes its connection for one by TLS that has these channel bindings.
    """

    def __init__(
        self,
        world: World,
        app: App,
        peer: str,
        *,
        starttls: bool,
        bindings: Mapping[str, bytes] | None = None,
    ) -> None:
        self.world = world
        self.app = app
        self.jid = ""
        self.closed = False
        self.raw = b""
        self._inbox: deque[Element] = deque()
        self._parser: XMLPullParser[Any] = XMLPullParser(("start", "end"))
        self._depth = 0
        self.header: Mapping[str, str] = {}
        self.transport = MemoryTransport(peer)
        self.transport.receive = self._receive
        self.transport.lost = self._lost
        self._waiting: deque[bytes] = deque()
        if bindings is None:
            self._wire = client_wire(app.service, app.shared, starttls=starttls)
        else:
            self._wire = protected_wire(app, bindings)
        self.transport.clogged = self._wire.pause_writing
        self._wire.connection_made(self.transport)

    @property
    def bare(self) -> str:
        """The account's JID."""
        return self.jid.partition("/")[0]

    @property
    def session(self) -> Session:
        """The server's side of this client."""
        return self.app.sessions.by_full[self.jid]

    # sending

    async def send(self, xml: str | bytes) -> None:
        """Send bytes as they are, and let the server work until it is quiet."""
        await self.world.tell_each_other()
        self.write(xml)
        await self.world.settle()

    def write(self, xml: str | bytes) -> None:
        """Send bytes without letting the server finish its work."""
        data = xml.encode() if isinstance(xml, str) else xml
        view = self._wire.get_buffer(-1)
        for start in range(0, len(data), len(view)):
            self._waiting.append(data[start : start + len(view)])
        self.pump()

    def pump(self) -> bool:
        """Hand over what was written, as far as the server reads; whether anything moved."""
        moved = False
        while self._waiting and self.transport.is_reading() and not self.transport.is_closing():
            piece = self._waiting.popleft()
            self._wire.get_buffer(-1)[: len(piece)] = piece
            self._wire.buffer_updated(len(piece))
            moved = True
        return moved

    def stop_reading(self) -> None:
        """Take nothing from the wire any more."""
        self.transport.stalled = True

    async def read_on(self) -> None:
        """Take what has come together meanwhile, and go on reading."""
        self.transport.stalled = False
        held = bytes(self.transport.held)
        self.transport.held.clear()
        self._receive(held)
        self._wire.resume_writing()
        await self.world.settle()

    async def drop(self) -> None:
        """Break the connection without a word."""
        self.transport.close()
        await self.world.settle()

    def _lost(self) -> None:
        self.closed = True
        self._wire.connection_lost(None)

    # receiving

    def _receive(self, data: bytes) -> None:
        self.raw += data
        rest, *streams = data.split(DECLARATION)  # who sends a new header unasked may get both in one piece
        if rest:
            self._parse(rest)
        for stream in streams:
            self._parser, self._depth = XMLPullParser(("start", "end")), 0
            self._parse(DECLARATION + stream)

    def _parse(self, data: bytes) -> None:
        self._parser.feed(data)
        event: str
        tree: Element
        for event, tree in self._parser.read_events():  # type: ignore[misc, assignment]
            if event == "start":
                self._depth += 1
                if self._depth == 1:
                    self.header = tree.attrib
            else:
                self._depth -= 1
                if self._depth == 1:
                    self._inbox.append(tree)

    async def receive(self) -> Element:
        """The next element the server sent; AssertionError when there is none."""
        await self.world.settle()
        assert self._inbox, f"{self.jid or 'the client'} received nothing"
        return self._inbox.popleft()

    async def receive_all(self) -> list[Element]:
        """Everything received and not looked at yet."""
        await self.world.settle()
        found, self._inbox = list(self._inbox), deque()
        return found

    async def expect(self, xml: str) -> Element:
        """The next element must be this one; attributes with the value `*` must be there with any value."""
        found = await self.receive()
        assert _is_it(found, xml), f"received {tostring(found).decode()}"
        return found

    async def expect_each(self, *stanzas: str) -> None:
        """The next elements must be these: in this order where there is one node, else in any, for then
        they take different ways.
        """
        left = [*stanzas]
        while left:
            found = await self.receive()
            due = left if len(self.world.apps) > 1 else left[:1]
            fitting = [xml for xml in due if _is_it(found, xml)]
            assert fitting, f"received {tostring(found).decode()}"
            left.remove(fitting[0])

    async def expect_nothing(self) -> None:
        """Nothing may have been received."""
        await self.world.settle()
        received = [tostring(tree).decode() for tree in self._inbox]
        assert not received, f"{self.jid} received {received}"

    async def expect_closed(self, condition: str = "") -> None:
        """The stream must have been ended, with this stream error as the last element if one is named."""
        if condition:
            error = (await self.receive_all())[-1]
            assert error.tag == f"{{{ns.STREAM}}}error", tostring(error)
            assert error[0].tag == f"{{{ns.STREAM_ERRORS}}}{condition}", tostring(error)
        await self.world.settle()
        assert self._wire.ending_since is not None or self.closed, "the stream is still open"

    # what clients do

    async def open(self, domain: str = "localhost", more: str = "") -> Element:
        """Open a stream; its features."""
        await self.send(STREAM_HEADER.format(domain=domain, more=f" {more}" if more else ""))
        return await self.receive()

    async def authenticate(self, user: str, password: str = PASSWORD) -> Element:
        """Log in by PLAIN; the server's answer."""
        initial = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
        await self.send(f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>{initial}</auth>")
        return await self.receive()

    async def bind(self, resource: str = "") -> Element:
        """Bind a resource; the answer."""
        wanted = f"<resource>{resource}</resource>" if resource else ""
        answer = await self.ask("set", f"<bind xmlns='{ns.BIND}'>{wanted}</bind>", to="")
        self.jid = answer.findtext(f"{{{ns.BIND}}}bind/{{{ns.BIND}}}jid") or ""
        return answer

    async def ask(self, kind: str, payload: str, to: str = "", id: str = "ask") -> Element:
        """Send an iq and take its answer, which must be the next element."""
        address = f" to='{to}'" if to else ""
        await self.send(f"<iq type='{kind}' id='{id}'{address}>{payload}</iq>")
        return await self.receive()


def canonical(tree: Element) -> str:
    """The element's canonical form; its tail is left out."""
    tail, tree.tail = tree.tail, None
    try:
        return canonicalize(tostring(tree, encoding="unicode"))
    finally:
        tree.tail = tail


def refusal(answer: Element) -> str:
    """Type and condition of an error stanza ("cancel service-unavailable"); AssertionError for any other."""
    assert answer.get("type") == "error", tostring(answer).decode()
    error = answer.find(f"{{{ns.CLIENT}}}error")
    assert error is not None, tostring(answer).decode()
    assert error[0].tag.startswith(f"{{{ns.STANZA_ERRORS}}}"), tostring(answer).decode()
    return f"{error.get('type')} {error[0].tag.rpartition('}')[2]}"


def _is_it(found: Element, xml: str) -> bool:
    wanted = fromstring(f"<x xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAM}'>{xml}</x>")[0]
    _fill_in(wanted, found)
    return canonical(found) == canonical(wanted)


def _fill_in(wanted: Element, found: Element) -> None:
    """Replace every `*` of what is wanted by what was found there."""
    for key, value in list(wanted.items()):
        if value == "*" and found.get(key) is not None:
            wanted.set(key, found.get(key, ""))
    if wanted.text == "*" and found.text:
        wanted.text = found.text
    for child, other in zip(wanted, found, strict=False):
        _fill_in(child, other)
