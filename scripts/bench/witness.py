"""Clients of a cluster that remember all they sent, were told and were given, and go to another node when
theirs is gone; for `nemesis.py`.
"""

import asyncio
import contextlib
import random
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence

from nodes import Node
from promises import Life, Sent
from stream import Refused, Stream
from victim import PASSWORD

RESOURCE = "client"
LOGIN_SECONDS = 10.0
ELEMENT = re.compile(rb"<(message|presence|iq|stream:error)\b([^>]*?)(?:/>|>(.*?)</\1>)", re.DOTALL)
ATTRIBUTE = re.compile(rb"(?:^| )(from|id|type)=['\"]([^'\"]*)['\"]")
CONDITION = re.compile(rb"<([a-z-]+) xmlns=['\"]urn:ietf:params:xml:ns:xmpp-stanzas")
PING = "<iq type='get' id='behind' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>"


class Line(Stream):
    """One connection of a client. Once it `is_live`, stanzas are taken as they come."""

    def __init__(self, client: "Client", node: Node) -> None:
        super().__init__()
        self.client = client
        self.node = node
        self.is_live = False
        self.is_left = False
        self.view: dict[str, float] = {}
        """Full JIDs that are shown as available, and since when."""
        self.life = Life(client.name, node.index, time.monotonic())
        self.pinged: list[Sent] = []
        self.pinged_at: float | None = None
        self._behind: list[Sent] = []
        self._rest = b""

    async def enter(self) -> None:
        """Log in, and be available."""
        await self.log_in(self.client.name, PASSWORD, RESOURCE)
        self.is_live = True
        self.write("<presence/>")
        self._take(self.take_rest())

    def data_received(self, data: bytes) -> None:
        if self.is_live:
            self._take(data)
        else:
            super().data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.life.ended = time.monotonic()

    def _take(self, data: bytes) -> None:
        now = time.monotonic()
        data, end = self._rest + data, 0
        for found in ELEMENT.finditer(data):
            end = found.end()
            kind, head, body = found.groups()
            attributes = {key.decode(): value.decode() for key, value in ATTRIBUTE.findall(head)}
            if kind == b"message":
                self._take_message(attributes, body or b"", now)
            elif kind == b"presence":
                self._take_presence(attributes, now)
            elif kind == b"iq" and attributes.get("id") == "behind":
                self._take_answer(attributes, now)
        self._rest = data[end:]

    def _take_message(self, attributes: dict[str, str], body: bytes, now: float) -> None:
        id = attributes.get("id", "")
        if attributes.get("type") == "error":
            condition = CONDITION.search(body)
            self.client.crew.sent[id].error = condition[1].decode() if condition else "without a condition"
        else:
            self.life.arrived.append((now, id))
            if self.client.full not in self.view:  # its own presence has not come back
                self.life.early.add(id)

    def _take_presence(self, attributes: dict[str, str], now: float) -> None:
        sender = attributes.get("from", "")
        match attributes.get("type"):
            case None:
                self.view.setdefault(sender, now)
            case "unavailable":
                self.view.pop(sender, None)

    def _take_answer(self, attributes: dict[str, str], now: float) -> None:
        if attributes.get("type") == "result" and not self.is_left:
            for message in self.pinged:
                message.acked = now
        self.pinged, self.pinged_at = [], None
        self._ping()

    def say(self, message: Sent, to: str) -> None:
        """Send a message; a ping goes behind it, or behind a later one."""
        self.write(
            f"<message to='{to}' id='{message.id}' type='chat'><body>{message.number}</body></message>"
        )
        self._behind.append(message)
        if self.pinged_at is None:
            self._ping()

    def _ping(self) -> None:
        if self._behind and not self.is_over:
            self.pinged, self._behind = self._behind, []
            self.pinged_at = time.monotonic()
            self.write(PING)

    @property
    def is_quiet(self) -> bool:
        """All that was sent is acknowledged."""
        return self.pinged_at is None

    def leave_it(self, *, politely: bool) -> None:
        """The client goes elsewhere, and reads on here until this side ends, too."""
        self.is_left = True
        if politely and not self.is_over:
            self.write("</stream:stream>")


class Client:
    """One account with one session, which is wanted somewhere unless it `is_away`."""

    def __init__(self, crew: "Crew", name: str, contacts: Sequence[str]) -> None:
        self.crew = crew
        self.name = name
        self.full = f"{name}@localhost/{RESOURCE}"
        self.contacts = contacts
        self.is_away = False
        self.line: Line | None = None
        self.old: list[Line] = []
        self.numbers: Counter[str] = Counter()

    @property
    def is_online(self) -> bool:
        """Whether it has a connection that works as far as it knows."""
        return self.line is not None and not self.line.is_over

    async def live(self) -> None:
        """Be online wherever that is possible, until cancelled."""
        while True:
            if not self.is_away and not self.is_online:
                await self._log_in()
            await asyncio.sleep(0.05)

    async def _log_in(self) -> None:
        nodes = [node for node in self.crew.nodes if node.is_open]
        if not nodes:
            return
        node = self.crew.chance.choice(nodes)
        line = Line(self, node)
        try:
            async with asyncio.timeout(LOGIN_SECONDS):
                await asyncio.get_running_loop().create_connection(lambda: line, "127.0.0.1", node.port)
                await line.enter()
        except (OSError, TimeoutError, Refused) as error:
            self.crew.failures[f"{type(error).__name__} {error}".strip()] += 1
            self._drop(line)
            await asyncio.sleep(0.2)
            return
        if self.line is not None:
            self.old.append(self.line)
        self.line = line
        self.crew.lives.append(line.life)

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
        line = self.line
        if line is None or line.is_over:
            return
        self.numbers[receiver.name] += 1
        number = self.numbers[receiver.name]
        message = Sent(
            f"{self.name}-{receiver.name}-{number}", self.name, receiver.name, number, time.monotonic()
        )
        self.crew.sent[message.id] = message
        line.say(message, receiver.full if to_full else f"{receiver.name}@localhost")


class Crew:
    """All clients. Each knows `contacts` others, who sit beside it in a ring."""

    def __init__(self, nodes: Sequence[Node], count: int, contacts: int, chance: random.Random) -> None:
        self.nodes = nodes
        self.chance = chance
        self.sent: dict[str, Sent] = {}
        self.lives: list[Life] = []
        self.failures: Counter[str] = Counter()
        near = [step for distance in range(1, contacts // 2 + 1) for step in (distance, -distance)]
        names = [f"user{number}" for number in range(count)]
        self.clients = {
            name: Client(self, name, [names[(number + step) % count] for step in near])
            for number, name in enumerate(names)
        }

    async def talk(self, rate: float) -> None:
        """Send `rate` messages a second, until cancelled; most of them to contacts."""
        clients = [*self.clients.values()]
        began, count = time.monotonic(), 0
        while True:
            await asyncio.sleep(0.01)
            due = int((time.monotonic() - began) * rate)
            for _ in range(min(due - count, 100)):
                client = self.chance.choice(clients)
                other = self.clients[self.chance.choice(client.contacts)]
                if self.chance.random() < 0.2:
                    other = self.chance.choice(clients)
                if other is not client:
                    client.say(other, to_full=self.chance.random() < 0.3)
            count = due

    def of(self, node: Node) -> list[Client]:
        """Who is connected with a node."""
        return [client for client in self.clients.values() if client.is_online and client.line.node is node]  # type: ignore[union-attr]

    # what is wrong with what they see

    def problems(self) -> Iterator[str]:
        """Where what clients see is not the truth."""
        now = time.monotonic()
        for client in self.clients.values():
            line = client.line
            if line is None or line.is_over:
                if not client.is_away:
                    yield f"{client.name} is not online"
                continue
            if client.is_away:
                yield f"{client.name} should be away"
            if line.pinged_at is not None and line.pinged_at < now - 3:
                waits = now - line.pinged_at
                yield f"{client.name} waits for an answer of node {line.node.index} since {waits:.1f} s"
            yield from self._views(client, line)
            for old in client.old:
                if not old.is_over:
                    yield f"{client.name} has another session on node {old.node.index}"

    def _views(self, client: Client, line: Line) -> Iterator[str]:
        for name in (*client.contacts, client.name):
            contact = self.clients[name]
            if contact.is_online and contact.full not in line.view:
                where = contact.line.node.index if contact.line is not None else -1
                yield f"{client.name} on node {line.node.index} does not see {name} on node {where}"
            if not contact.is_online and contact.full in line.view:
                yield f"{client.name} on node {line.node.index} sees {name}, who is away"
