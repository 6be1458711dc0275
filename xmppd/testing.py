"""An in-memory server for tests: our own, and those of plugin authors.

    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await alice.send("<message to='bob@localhost' type='chat'><body>hi</body></message>")
        await bob.expect("<message type='chat' ...><body>hi</body></message>")

Everything is real (streams, SASL, router, SQLite in memory) but sockets and time: connections are joined in
memory, and time stands still until `world.advance(seconds)`.
"""

from __future__ import annotations

import asyncio
import base64
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self
from xml.etree.ElementTree import Element, XMLPullParser, canonicalize, fromstring, tostring

from xmppd import ns
from xmppd.app import App
from xmppd.config import Config
from xmppd.core.sessions import Session
from xmppd.encryption import certificates
from xmppd.engines import prepare_folder
from xmppd.net.c2s.tcp import client_wire
from xmppd.parts.http import HttpError, HttpResponse
from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Store

PASSWORD = "secret"
START = 1_700_000_000.0
LASTING_SECONDS = 0.02
"""How long a task of a plugin may do nothing before it counts as one that waits for what comes."""
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


class Client:
    """A client on a raw stream. `send` takes XML, `expect` compares whole stanzas, canonically."""

    def __init__(self, world: World, peer: str, *, starttls: bool) -> None:
        self.world = world
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
        self._wire = client_wire(world.app.service, world.app.shared, starttls=starttls)
        self.transport.clogged = self._wire.pause_writing
        self._wire.connection_made(self.transport)

    @property
    def bare(self) -> str:
        """The account's JID."""
        return self.jid.partition("/")[0]

    @property
    def session(self) -> Session:
        """The server's side of this client."""
        return self.world.app.sessions.by_full[self.jid]

    # sending

    async def send(self, xml: str | bytes) -> None:
        """Send bytes as they are, and let the server work until it is quiet."""
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
        if data.startswith(b"<?xml"):
            self._parser, self._depth = XMLPullParser(("start", "end")), 0
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
        wanted = fromstring(f"<x xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAM}'>{xml}</x>")[0]
        _fill_in(wanted, found)
        assert canonical(found) == canonical(wanted), f"received {tostring(found).decode()}"
        return found

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


class World:
    """A server with its own time. `accounts` are made with the password "secret"; `settings` change the
    configuration, after those that all worlds have in `common`.
    """

    common: Mapping[str, Mapping[str, Any]] = MappingProxyType({})

    @staticmethod
    def engine(now: Callable[[], float]) -> Store:
        """The store of a world that was given none."""
        return SqliteStore(":memory:", now=now)

    def __init__(
        self,
        *,
        accounts: tuple[str, ...] = ("alice", "bob", "carol"),
        plugins: tuple[str, ...] = (),
        plugin_folders: tuple[Path, ...] = (),
        plugin_config: Mapping[str, Mapping[str, Any]] | None = None,
        settings: Mapping[str, Any] | None = None,
        store: Store | None = None,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="xmppd-test-")
        self._accounts = accounts
        self._store = store
        self.clock = Clock()
        self.clients: list[Client] = []
        given: dict[str, Any] = {
            "server": {"data_folder": self._folder.name},
            "auth": {"plain_without_tls": True, "iterations": 4096},
            "tls": {"required": False},
            "limits": {"loop_share": 1.0},  # a rest is in real time
            "plugins": {"enabled": plugins, "folders": plugin_folders, "config": plugin_config or {}},
        }
        for section, values in (*self.common.items(), *(settings or {}).items()):
            given[section] = {**given.get(section, {}), **values}
        self.config = Config.model_validate(given)
        self.app: App

    async def __aenter__(self) -> Self:
        prepare_folder(self.config)
        store = self._store or self.engine(self.clock.now)
        self.app = App(self.config, store=store, now=self.clock.now, clock=self.clock.monotonic)
        self.app.shared.certificates = certificates(self.config)
        self.app.accounts.gone_seconds = 0.0  # nobody else is there, whatever the configuration says
        await self.app.open()
        for name in self._accounts:
            await self.app.accounts.create(f"{name}@localhost", PASSWORD)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.app.close()
        self._folder.cleanup()

    def plugin(self, name: str) -> Any:
        """A plugin at work, to look at its tables, counters and slots."""
        return next(loaded.plugin for loaded in self.app.loader.loaded if loaded.name == name)

    async def http(
        self,
        method: str,
        path: str,
        *,
        token: str = "",
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> HttpResponse:
        """What the server's own HTTP answers; `token` is one of those of the setting `http.tokens`."""

        async def read(most: int) -> bytes:
            if len(body) > most:
                raise HttpError(413)
            return body

        given = {name.lower(): value for name, value in (headers or {}).items()}
        if token:
            given["authorization"] = f"Bearer {token}"
        response = await self.app.routes.serve(method, path, given, read, "127.0.0.1")
        await self.settle()
        return response

    def connect(self, peer: str = "127.0.0.1", *, starttls: bool = True) -> Client:
        """A client that has said nothing yet."""
        client = Client(self, peer, starttls=starttls)
        self.clients.append(client)
        return client

    async def bind(self, user: str, resource: str = "", lang: str = "") -> Client:
        """A client with a bound resource that has not sent presence."""
        client = self.connect()
        more = f"xml:lang='{lang}'" if lang else ""
        await client.open(more=more)
        answer = await client.authenticate(user)
        assert answer.tag == f"{{{ns.SASL}}}success", tostring(answer)
        await client.open(more=more)
        answer = await client.bind(resource or f"{user}-{len(self.clients)}")
        assert client.jid, tostring(answer)
        return client

    async def guest(self) -> Client:
        """A client that logged in by ANONYMOUS (`auth.anonymous` must be on) and has not sent presence."""
        client = self.connect()
        await client.open()
        await client.send(f"<auth xmlns='{ns.SASL}' mechanism='ANONYMOUS'>=</auth>")
        answer = await client.receive()
        assert answer.tag == f"{{{ns.SASL}}}success", tostring(answer)
        await client.open()
        await client.bind()
        return client

    async def login(self, user: str, resource: str = "", priority: int = 0) -> Client:
        """A client that asked for its roster and is available; what it received so far is forgotten."""
        client = await self.bind(user, resource)
        await client.send(f"<iq type='get' id='roster'><query xmlns='{ns.ROSTER}'/></iq>")
        shown = f"<presence><priority>{priority}</priority></presence>" if priority else "<presence/>"
        await client.send(shown)
        await client.receive_all()
        return client

    async def befriend(self, one: Client, other: Client) -> None:
        """Make two accounts see each other's presence; what their clients receive on the way is forgotten."""
        await one.send(f"<presence type='subscribe' to='{other.bare}'/>")
        await other.send(f"<presence type='subscribed' to='{one.bare}'/>")
        await other.send(f"<presence type='subscribe' to='{one.bare}'/>")
        await one.send(f"<presence type='subscribed' to='{other.bare}'/>")
        for client in self.clients:
            await client.receive_all()

    @property
    def is_sending(self) -> bool:
        """Whether something waits for the next turn of the loop to be sent."""
        return self.app.cork.is_due or self.app.sessions.rounds.is_due

    async def settle(self) -> None:
        """Let the server work until nothing moves any more."""
        quiet = 0
        while quiet < 3:
            await asyncio.sleep(0)
            moved = sum(client.pump() for client in self.clients) > 0 or self.is_sending
            if self.app.jobs:
                moved = await self.app.jobs.settle() or moved
            elif self.app.lasting:
                moved = await self.app.lasting.settle(LASTING_SECONDS) or moved
            quiet = 0 if moved else quiet + 1

    async def advance(self, seconds: float) -> None:
        """Let time pass, a second at a time or until the next timer is due, with what the server does in the
        course of it.
        """
        end = self.clock.seconds + seconds
        while self.clock.seconds < end:
            due = self.app.timers.due
            step = min(self.clock.seconds + 1.0, end, end if due is None else max(due, self.clock.seconds))
            self.clock.seconds = step
            self.app.service.sweep()
            while self.app.timers.tick():
                await self.settle()
        await self.settle()


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


def _fill_in(wanted: Element, found: Element) -> None:
    """Replace every `*` of what is wanted by what was found there."""
    for key, value in list(wanted.items()):
        if value == "*" and found.get(key) is not None:
            wanted.set(key, found.get(key, ""))
    if wanted.text == "*" and found.text:
        wanted.text = found.text
    for child, other in zip(wanted, found, strict=False):
        _fill_in(child, other)
