"""Clients of a cluster that remember all they sent, were told and were given, and go to another node when
theirs is gone; for `nemesis.py`.
"""

import asyncio
import contextlib
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

from ledger import Ledger
from nodes import Node
from oracle import items_of
from promises import Asked, Life, Sent
from stream import Refused, Stream
from victim import PASSWORD

RESOURCE = "client"
LOGIN_SECONDS = 10.0
ELEMENT = re.compile(rb"<(message|presence|iq|stream:error)\b([^>]*?)(?:/>|>(.*?)</\1>)", re.DOTALL)
ATTRIBUTE = re.compile(rb"(?:^| )(from|id|type|h)=['\"]([^'\"]*)['\"]")
CONDITION = re.compile(rb"<([a-z-]+) xmlns=['\"]urn:ietf:params:xml:ns:xmpp-stanzas")
STATUS = re.compile(rb"<status>([^<]*)")
PING = "<ping xmlns='urn:xmpp:ping'/>"
BEHIND = f"<iq type='get' id='behind' to='localhost'>{PING}</iq>"
ROSTER = "<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>"
REFUSAL = (
    "<iq type='error' id='{id}' to='{to}'><error type='cancel'>"
    "<feature-not-implemented xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
)
UNSEEN = -128
"""The priority of who has not heard of his own presence yet."""


class Log(Protocol):
    """What all clients share: where they may go, and what was sent by whom."""

    chance: Random
    sent: dict[str, Sent]
    asked: dict[str, Asked]
    lives: list[Life]
    failures: Counter[str]
    done: Counter[str]
    wrong: list[str]

    @property
    def open_nodes(self) -> Sequence[Node]: ...


class Line(Stream):
    """One connection of a client. Once it `is_live`, stanzas are taken as they come. `session` tells that it
    has from others.

    `view` has the full JIDs that are shown as available, each with its status. `priority` and `status` are
    what was sent last, `possible` what its server may go by: by status the priority of its own presence that
    came back last, and of all that were sent since. `directed`: by name, the
    connections that were sent directed presence, and when. `roster`: by name, the subscription of whoever is
    in it, once it was asked for.
    """

    def __init__(self, client: "Client", node: Node) -> None:
        super().__init__()
        self.client = client
        self.node = node
        self.is_live = False
        self.is_left = False
        self.elements = ELEMENT
        self.session = object()
        self.view: dict[str, str] = {}
        self.priority = 0
        self.possible = {"": UNSEEN}
        self.status = ""
        self.directed: dict[str, tuple[Line, float]] = {}
        self.roster: dict[str, str] | None = None
        self.life = Life(client.name, node.index, time.monotonic())
        self.pinged: list[Sent] = []
        self.pinged_at: float | None = None
        self._behind: list[Sent] = []
        self._rest = b""
        self._takes: dict[bytes, Callable[[dict[str, str], bytes, float], None]] = {
            b"message": self._take_message,
            b"presence": self._take_presence,
            b"iq": self._take_iq,
        }

    async def enter(self) -> None:
        """Log in, and be available."""
        await self.log_in(self.client.name, PASSWORD, RESOURCE)
        self.is_live = True
        self.show(0)
        self._take(self.take_rest())

    def data_received(self, data: bytes) -> None:
        if self.is_live:
            self._take(data)
        else:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.life.ended = time.monotonic()

    # what comes

    def _take(self, data: bytes) -> None:
        now = time.monotonic()
        data, end = self._rest + data, 0
        for found in self.elements.finditer(data):
            end = found.end()
            kind, head, body = found.groups()
            self._came(kind)
            if take := self._takes.get(kind):
                attributes = {key.decode(): value.decode() for key, value in ATTRIBUTE.findall(head)}
                take(attributes, body or b"", now)
        self._rest = data[end:]

    def _came(self, kind: bytes) -> None:
        """Nobody counts."""

    def _take_message(self, attributes: dict[str, str], body: bytes, now: float) -> None:
        id = attributes.get("id", "")
        if attributes.get("type") == "error":
            condition = CONDITION.search(body)
            message = self.client.crew.sent[id]
            message.error, message.refused = condition[1].decode() if condition else "no condition", now
        else:
            self.life.arrived.append((now, id))
            if min(self.possible.values()) < 0:
                self.life.early.add(id)

    def _take_presence(self, attributes: dict[str, str], body: bytes, now: float) -> None:
        sender = attributes.get("from", "")
        match attributes.get("type"):
            case None:
                status = STATUS.search(body)
                self.view[sender] = status[1].decode() if status else ""
                if sender == self.client.full and self.view[sender] in self.possible:
                    while next(iter(self.possible)) != self.view[sender]:
                        del self.possible[next(iter(self.possible))]
            case "unavailable":
                self.view.pop(sender, None)
            case "subscribed" if sender.partition("@")[0] == self.client.followed:
                self.client.is_granted = self.client.wish
            case "subscribe" if not self.is_over:
                self.send(f"<presence type='subscribed' to='{sender}'/>")

    def _take_iq(self, attributes: dict[str, str], body: bytes, now: float) -> None:
        id, kind, sender = attributes.get("id", ""), attributes.get("type"), attributes.get("from", "")
        if id == "behind":
            self._take_answer(attributes, now)
        elif id == "roster" and kind == "result":
            self.roster = {
                item["jid"].partition("@")[0]: item.get("subscription", "none")
                for item in items_of(b"<iq>" + body)
            }
        elif kind == "get" and "/" in sender and not self.is_over:
            answer = REFUSAL if id.endswith("7") else "<iq type='result' id='{id}' to='{to}'/>"
            self.send(answer.format(id=id, to=sender))
        elif id.startswith("q-"):
            asked = self.client.crew.asked.get(id)
            if asked is None or asked.life.who != self.client.name:
                self.client.crew.wrong.append(f"{self.client.name} was given an answer to {id}, not his")
            else:  # on this connection, or on one before it: to others they are one
                asked.answers.append((now, kind or "", sender))
                asked.lives.append(self.life)

    def _take_answer(self, attributes: dict[str, str], now: float) -> None:
        if attributes.get("type") == "result" and not self.is_left:
            for message in self.pinged:
                message.acked = now
        self.pinged, self.pinged_at = [], None
        self._ping()

    # what is sent

    def send(self, xml: str, message: Sent | None = None) -> None:
        """Send a stanza."""
        self.write(xml)

    def say(self, message: Sent, to: str) -> None:
        """Send a message; a ping goes behind it, or behind a later one."""
        self.send(written(message, to), message)
        self._behind.append(message)
        if self.pinged_at is None:
            self._ping()

    def _ping(self) -> None:
        if self._behind and not self.is_over:
            self.pinged, self._behind = self._behind, []
            self.pinged_at = time.monotonic()
            self.write(BEHIND)

    def show(self, priority: int) -> None:
        """Be available with this priority, and a status that was never shown before."""
        self.client.shown += 1
        self.priority, self.status = priority, str(self.client.shown)
        self.possible[self.status] = priority
        self.send(f"<presence><status>{self.status}</status><priority>{priority}</priority></presence>")

    def direct(self, other: "Line") -> None:
        """Show it to the session of somebody who is no contact."""
        self.directed[other.client.name] = (other, time.monotonic())
        self.send(f"<presence to='{other.client.full}'><status>{self.status}</status></presence>")

    def leave_it(self, *, politely: bool) -> None:
        """The client goes elsewhere, and reads on here until this side ends, too."""
        self.is_left = True
        self.life.left = time.monotonic()
        if politely and not self.is_over:
            self.write("</stream:stream>")


def written(message: Sent, to: str) -> str:
    """A message as it is sent."""
    return f"<message to='{to}' id='{message.id}' type='chat'><body>{message.number}</body></message>"


class Client:
    """One account with one session, which is wanted somewhere unless it `is_away`.

    `lines` makes its connections. `ledger` and `former` are what is known of its session, and the last
    connection that had it, where that outlives one.

    `followed`: whose presence it is subscribed to now and then, or ""; `wish`: whether it wants to be, since
    `wished`; `is_granted`: that was granted since.
    """

    def __init__(
        self, crew: Log, name: str, contacts: Sequence[str], followed: str, lines: Callable[..., Line] = Line
    ) -> None:
        self.crew = crew
        self.lines = lines
        self.ledger: Ledger[Sent | None] = Ledger()
        self.former: Line | None = None
        self.name = name
        self.full = f"{name}@localhost/{RESOURCE}"
        self.contacts = contacts
        self.followed = followed
        self.wish = False
        self.wished = 0.0
        self.is_granted = False
        self.is_away = False
        self.line: Line | None = None
        self.old: list[Line] = []
        self.shown = 0
        self.numbers: Counter[str] = Counter()
        self.waits: list[float] = []
        """How long it took to be served again, each time."""

    @property
    def is_online(self) -> bool:
        """Whether it has a connection that works as far as it knows."""
        return self.line is not None and not self.line.is_over

    @property
    def there(self) -> Line | None:
        """The connection that works."""
        return self.line if self.line is not None and not self.line.is_over else None

    async def live(self) -> None:
        """Be online wherever that is possible, until cancelled."""
        since = time.monotonic()
        while True:
            if self.is_online or self.is_away:
                since = time.monotonic()
            elif await self._log_in():
                self.waits.append(time.monotonic() - since)
            await asyncio.sleep(0.05)

    async def _log_in(self) -> bool:
        nodes = self.crew.open_nodes
        if not nodes:
            return False
        node = self.crew.chance.choice(nodes)
        line = self.lines(self, node)
        try:
            async with asyncio.timeout(LOGIN_SECONDS):
                await asyncio.get_running_loop().create_connection(lambda: line, node.host, node.port)
                await line.enter()
        except (OSError, TimeoutError, Refused) as error:
            self.crew.failures[f"{type(error).__name__} {error}".strip()] += 1
            self._drop(line)
            await asyncio.sleep(0.1)
            return False
        if self.line is not None:
            self.old.append(self.line)
        self.old = [old for old in self.old if not old.is_over]
        self.line = line
        self.crew.lives.append(line.life)
        return True

    @staticmethod
    def _drop(line: Line) -> None:
        with contextlib.suppress(AttributeError):  # there was no connection
            line.cut()

    def leave(self, *, politely: bool) -> None:
        """Give up the connection that is there, but for what still comes on it."""
        if self.line is not None:
            self.line.leave_it(politely=politely)
            self.old.append(self.line)
            self.line = None

    def say(self, receiver: "Client", *, to_full: bool) -> None:
        """One message, if there is a connection."""
        if (line := self.there) is None:
            return
        self.numbers[receiver.name] += 1
        number = self.numbers[receiver.name]
        to = receiver.full if to_full else f"{receiver.name}@localhost"
        id = f"{self.name}-{receiver.name}-{number}"
        message = Sent(id, self.name, receiver.name, number, time.monotonic(), to=to, node=line.node.index)
        self.crew.sent[id] = message
        line.say(message, to)

    def ask(self, receiver: "Client") -> None:
        """One iq to the session of somebody, who may be there or not."""
        if (line := self.there) is None:
            return
        id = f"q-{self.name}-{len(self.crew.asked)}"
        self.crew.asked[id] = Asked(id, receiver.full, time.monotonic(), line.life)
        line.send(f"<iq type='get' id='{id}' to='{receiver.full}'>{PING}</iq>")

    def follow(self, *, wish: bool) -> None:
        """Ask for a subscription, or end it; or do so once more."""
        if (line := self.there) is not None and self.followed:
            self.is_granted = self.is_granted and wish
            self.wish, self.wished = wish, time.monotonic()
            line.send(f"<presence type='{'' if wish else 'un'}subscribe' to='{self.followed}@localhost'/>")
