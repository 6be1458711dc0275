"""The clients of `nodesmodel`: what they send, one stanza after the other, and what they believe by what they
are sent.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, NamedTuple, Protocol

from xmppd import ns
from xmppd.core.binding import SHUTDOWN, Binding
from xmppd.core.later import Later
from xmppd.core.router import Router
from xmppd.core.sessions import Session
from xmppd.errors import StreamError
from xmppd.stream.sasl import Login, Tenure
from xmppd.xml.stanza import Stanza

DOMAIN = "x"
PING = "{urn:xmpp:ping}ping"
QUERY = f"{{{ns.ROSTER}}}query"

FROM = re.compile(rb" from='([^']*)'")
TYPE = re.compile(rb"^<[a-z]+[^>]* type='([a-z]*)'")
STATUS = re.compile(rb"<status>([^<]*)</status>")
NUMBER = re.compile(rb" id='([0-9]*)'")
ID = re.compile(rb"^<[a-z]+[^>]* id='([^']*)'")
ITEM = re.compile(rb"<item jid='([^']*)' subscription='([a-z]*)'")


class World(Protocol):
    """What clients know of the world they are in."""

    random: random.Random
    sent: dict[int, Sent]

    def time(self) -> float: ...
    def delivered(self, client: Client, number: int, *, was_stored: bool) -> None: ...
    def refused(self, number: int) -> None: ...
    def handled(self, client: Client, number: int) -> None: ...
    def answered(self, client: Client, number: int) -> None: ...
    def came(self, full: str) -> None: ...
    def ended(self, client: Client, *, is_moved: bool) -> None: ...
    def parted(self, client: Client, words: str) -> None: ...
    def seen_to_go(self, viewer: Client, full: str) -> None: ...


class Home(Protocol):
    """The node that a client is connected to."""

    name: str
    is_dead: bool
    binding: Binding
    router: Router

    def spawn(self, work: Coroutine[Any, Any, Any]) -> object: ...
    def call(self, step: Callable[..., object], *args: Any) -> None: ...


class Sent(NamedTuple):
    """One message or question: its sender's client, its number among all, and to whom."""

    client: Client
    number: int
    to: str
    at: float


class Parting(NamedTuple):
    """When a client was not available any more, and what it said last."""

    at: float
    client: Client
    words: str


class Wire:
    """What a session writes to: its client takes all of it, at once."""

    peer = "client"
    secure = True
    clogged = False

    def __init__(self, client: Client) -> None:
        self._client = client

    def write(self, data: bytes) -> None:
        self._client.receive(data)

    def write_all(self, stanzas: Sequence[bytes]) -> None:
        for data in stanzas:
            self._client.receive(data)

    def close(self, error: StreamError | None) -> None:
        """Its session is over."""
        if self._client.status:
            self._client.world.parted(self._client, "")
        self._client.world.ended(self._client, is_moved=error is not None and error.condition == SHUTDOWN)
        self._client.leave()


class Client:
    """A session and what it was sent. `view` is whom it sees, by full JID, each with what he says, since
    `viewed_since`, when it became available or was not any more; `roster`
    its contacts with their subscriptions, None if it never asked. `directed`: to whom it sent presence, and
    what and when; `left`: when it stopped taking messages; `asked` are questions that it was asked and
    answers; `heard` are the last words of sessions that it saw go.
    """

    def __init__(self, world: World, node: Home, account: str, resource: str) -> None:
        self.world = world
        self.node = node
        self.view: dict[str, str] = {}
        self.viewed_since = world.time()
        self.roster: dict[str, str] | None = None
        self.status = ""
        self.directed: dict[str, tuple[str, float]] = {}
        self.undirected: set[str] = set()
        self.asked: set[int] = set()
        self.heard: dict[str, str] = {}
        self.left: list[float] = []
        self.is_going = False
        self._queue: list[Callable[[], Stanza]] = []
        self._is_sending = False
        self.session: Session = node.binding.bind(
            Login(f"{account}@{DOMAIN}", Tenure(1, 1)), resource, Wire(self), ""
        )
        self.session.begin(b"")

    @property
    def is_over(self) -> bool:
        """Whether it is gone, or its node is."""
        return self.session.is_over or self.node.is_dead

    @property
    def is_idle(self) -> bool:
        """Whether all that it had to say was taken."""
        return not self._is_sending

    # what it is sent

    def receive(self, data: bytes) -> None:
        """Something was written to it."""
        if not data or self.node.is_dead:
            return
        found = TYPE.match(data)
        kind = found[1] if found is not None else b""
        if data.startswith(b"<message"):
            number = NUMBER.search(data)
            if number is not None and kind == b"error":
                self.world.refused(int(number[1]))
            elif number is not None:
                self.world.delivered(self, int(number[1]), was_stored=b"<delay" in data)
        elif data.startswith(b"<presence"):
            self._see(data, kind)
        else:
            self._iq(data, kind)

    def _see(self, data: bytes, kind: bytes) -> None:
        sender, status = FROM.search(data), STATUS.search(data)
        if sender is not None and kind == b"unavailable" and sender[1].decode() == self.session.full:
            self.view = {}  # what it is shown from now on is of its next presence
        elif sender is not None and kind == b"unavailable":
            if self.view.pop(full := sender[1].decode(), None) is not None:
                self.heard[full] = status[1].decode() if status is not None else ""
                self.world.seen_to_go(self, full)
        elif sender is not None and not kind and status is not None:
            self.view[sender[1].decode()] = status[1].decode()

    def _iq(self, data: bytes, kind: bytes) -> None:
        id = ID.match(data)
        if id is None:
            return
        name = id[1].decode()
        if kind == b"get":
            self.asked.add(int(name[1:]))
            sender = FROM.search(data)
            if sender is not None:
                self.node.spawn(self._answer(sender[1].decode(), name))
        elif kind == b"set":
            self._learn(data)
        elif name.startswith("q"):
            self.world.answered(self, int(name[1:]))
        elif name.startswith("r") and kind == b"result":
            self.roster = {}
            self._learn(data)

    def _learn(self, data: bytes) -> None:
        if self.roster is None:
            return
        for contact, subscription in ITEM.findall(data):
            if subscription == b"remove":
                self.roster.pop(contact.decode(), None)
            else:
                self.roster[contact.decode()] = subscription.decode()

    async def _answer(self, to: str, name: str) -> None:
        await asyncio.sleep(self.world.random.choice((0.0, 0.0, 0.3)))
        self.send("iq", {"type": "result", "to": to, "id": name})

    # what it does

    def leave(self) -> None:
        """It takes no messages from now on: what it was just given of what was stored may come again."""
        self.left.append(self.world.time())

    def end(self) -> None:
        """Close the connection."""
        self.is_going = True
        self.node.call(self.node.binding.end, self.session)

    def show(self, status: str, priority: int, words: str = "") -> None:
        """Send presence; "": unavailable, with some last words perhaps."""

        def make() -> Stanza:
            if not status or priority < 0:
                self.leave()
            if self.status and not status:
                self.world.parted(self, words)
            self.status = status
            if not status:
                self.world.ended(self, is_moved=False)
            elif self.session.presence is None:
                self.viewed_since = self.world.time()
                self.world.came(self.session.full)
            if status:
                return stanza("presence", {}, f"<priority>{priority}</priority><status>{status}</status>")
            self.view = {}
            self.viewed_since = self.world.time()
            self.directed = {}
            return stanza("presence", {"type": "unavailable"}, f"<status>{words}</status>" if words else "")

        self._put(make)

    def direct(self, to: str, status: str) -> None:
        """Send directed presence; "": that it has ended."""

        def make() -> Stanza:
            if status:
                self.directed[to] = status, self.world.time()
                return stanza("presence", {"to": to}, f"<status>{status}</status>")
            self.directed.pop(to, None)
            self.undirected.add(to)
            return stanza("presence", {"to": to, "type": "unavailable"})

        self._put(make)

    def write(self, number: int) -> None:
        """Send a message."""
        attrs = {"to": self.world.sent[number].to, "type": "chat", "id": str(number)}
        self._put(lambda: stanza("message", attrs, "<body>hi</body>"))

    def ask(self, number: int, to: str) -> None:
        """Ask another session something."""
        self.send("iq", {"type": "get", "to": to, "id": f"q{number}"}, "<ping xmlns='urn:xmpp:ping'/>", PING)

    def want_roster(self) -> None:
        """Ask for the contacts."""
        self.send("iq", {"type": "get", "id": "r"}, f"<query xmlns='{ns.ROSTER}'/>", QUERY)

    def remove(self, contact: str) -> None:
        """Remove a contact."""
        item = f"<query xmlns='{ns.ROSTER}'><item jid='{contact}' subscription='remove'/></query>"
        self.send("iq", {"type": "set", "id": "s"}, item, QUERY)

    def subscribe(self, contact: str, kind: str) -> None:
        """Send a subscription stanza."""
        self.send("presence", {"to": contact, "type": kind})

    def send(self, kind: str, attrs: dict[str, str], content: str = "", payload: str = "") -> None:
        """Send a stanza."""
        self._put(lambda: stanza(kind, attrs, content, payload))

    def _put(self, make: Callable[[], Stanza]) -> None:
        """Send one when all before it may be followed."""
        self._queue.append(make)
        if not self._is_sending:
            self._is_sending = True
            self.node.call(self._begin)

    def _begin(self) -> None:
        self.node.spawn(self._send_on())

    async def _send_on(self) -> None:
        while self._queue and not self.is_over:
            made = self._queue.pop(0)()
            number = int(made.id) if made.kind == "message" and made.id else 0
            waiting = self.node.router.take(self.session, made)
            if isinstance(waiting, Later):
                self.node.spawn(self._handled(number, waiting))
            elif waiting is not None:
                await self._handled(number, waiting)
            elif number:
                self.world.handled(self, number)
        self._is_sending = False

    async def _handled(self, number: int, waiting: Awaitable[Any]) -> None:
        await waiting
        if number:
            self.world.handled(self, number)


def stanza(kind: str, attrs: dict[str, str], content: str = "", payload: str = "") -> Stanza:
    """What a client writes."""
    head = kind + "".join(f" {name}='{value}'" for name, value in attrs.items())
    raw = f"<{head}>{content}</{kind}>" if content else f"<{head}/>"
    return Stanza(kind, dict(attrs), raw.encode(), 0, payload)
