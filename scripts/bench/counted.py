"""Connections of clients with stream management (XEP-0198): who loses one resumes the session by another,
sends again what was not acknowledged, and counts nothing whose id (XEP-0359) came before; for `nemesis.py`.
"""

import asyncio
import re
import time

from ledger import Ledger
from nodes import Node
from promises import Sent
from victim import PASSWORD
from witness import RESOURCE, Client, Line, written

from xmppd import ns

ELEMENT = re.compile(rb"<(message|presence|iq|stream:error|a|r)\b([^>]*?)(?:/>|>(.*?)</\1>)", re.DOTALL)
COUNTED = frozenset((b"message", b"presence", b"iq"))
STANZA_ID = re.compile(rb"<stanza-id\b[^>]*>")
VALUE = re.compile(rb"\b(?:id|h)=['\"]([^'\"]*)['\"]")
DIRECTED = re.compile("<presence to='([^@]*)@")
ASK = f"<r xmlns='{ns.SM}'/>"
AGAIN_SECONDS = 0.05
"""How soon it is asked again how much is handled, where that was not all."""
SLOW, SLOW_SECONDS = 0.2, 1.5
"""How many acknowledgements are late, and by how much at most."""
CARRIED = ("session", "view", "priority", "possible", "status", "directed", "roster")
"""What a connection takes over from the one before whose session it resumes."""


class Counted(Line):
    """A connection that a session may outlive: what it knows of that is taken over by the next one. `ledger`
    is None before it has one, and once the session went on without it.
    """

    def __init__(self, client: Client, node: Node) -> None:
        super().__init__(client, node)
        self.ledger: Ledger[Sent | None] | None = None
        self.elements = ELEMENT
        self._own = f"{client.name}@localhost".encode()
        self._takes |= {b"a": self._take_acknowledgement, b"r": self._take_request}

    async def enter(self) -> None:
        """Log in, and resume the session or begin another one."""
        ledger = self.client.ledger
        await self.authenticate(self.client.name, PASSWORD)
        if not (ledger.id and await self._resume(ledger)):
            await self._begin(ledger)
        self._ask()
        self._take(self.take_rest())

    async def _resume(self, ledger: Ledger[Sent | None]) -> bool:
        self.write(ledger.asking())
        answer = await self.until(ns.SM.encode())
        if b"<resumed" not in answer:
            await self.until(b"</failed")
            self.client.crew.done["sessions that were not to be resumed"] += 1
            return False
        self.client.crew.done["sessions that were resumed"] += 1
        self._goes_on(ledger)
        for name in CARRIED:
            setattr(self, name, getattr(self.client.former, name))
        self.client.former = self
        self._had(answer)
        for _, xml, message in ledger.sent:
            self._sent_again(message)
            self._directs_again(xml)
            self.write(xml)
        return True

    def _directs_again(self, xml: str) -> None:
        """It goes to whoever has that name by now."""
        if (found := DIRECTED.match(xml)) is not None and found[1] in self.directed:
            self.directed[found[1]] = self.directed[found[1]][0], time.monotonic()

    async def _begin(self, ledger: Ledger[Sent | None]) -> None:
        ledger.end()
        await self.bind(RESOURCE)
        self.write(f"<enable xmlns='{ns.SM}' resume='true'/>")
        before, _, enabled = (await self.until(ns.SM.encode())).rpartition(b"<enabled")
        self.is_live = True
        self._take(before)
        self._goes_on(ledger)
        ledger.begin(VALUE.findall(enabled)[0].decode())
        self.client.former = self
        self.show(0)
        unsure, ledger.unsure = ledger.unsure, []
        for xml, message in unsure:
            self._sent_again(message)
            self.send(xml, message)

    def _sent_again(self, message: Sent | None) -> None:
        if message is not None:
            self.client.crew.done["messages sent again"] += 1
            message.again.append((time.monotonic(), self.life.node))

    def _goes_on(self, ledger: Ledger[Sent | None]) -> None:
        self.is_live = True
        self.ledger = ledger

    # what comes

    def _came(self, kind: bytes) -> None:
        if self.ledger is not None:
            self.ledger.h += kind in COUNTED

    def _take_message(self, attributes: dict[str, str], body: bytes, now: float) -> None:
        if attributes.get("type") != "error":
            own = [tag for tag in STANZA_ID.findall(body) if self._own in tag]
            if not own:
                self.client.crew.wrong.append(f"{self.client.name} was given {attributes} without an id")
                super()._take_message(attributes, body, now)
                return
            own_id = VALUE.findall(own[0])[0].decode()
            if not self.client.ledger.is_new(own_id):
                self.client.crew.done["messages that came again by their id"] += 1
                return
            self.life.kept.setdefault(attributes.get("id", ""), []).append(own_id)
        super()._take_message(attributes, body, now)

    def _take_acknowledgement(self, attributes: dict[str, str], body: bytes, now: float) -> None:
        self.pinged_at = None
        self._had(f"h='{attributes['h']}'".encode())
        asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._ask)

    def _had(self, told: bytes) -> None:
        [h, *_] = VALUE.findall(told)
        for message in self.ledger.had(int(h)) if self.ledger is not None else ():
            if message is not None and message.acked is None:
                message.acked = time.monotonic()

    def _take_request(self, attributes: dict[str, str], body: bytes, now: float) -> None:
        chance = self.client.crew.chance
        late = chance.uniform(0, SLOW_SECONDS) if chance.random() < SLOW else 0.0
        asyncio.get_running_loop().call_later(late, self._acknowledge)

    # what is sent

    def send(self, xml: str, message: Sent | None = None) -> None:
        if self.ledger is not None:
            self.ledger.note(xml, message)
        if not self.is_over:
            self.write(xml)

    def say(self, message: Sent, to: str) -> None:
        """Send a message; it is asked for its acknowledgement, unless that is asked for already."""
        self.send(written(message, to), message)
        self._ask()

    def _ask(self) -> None:
        is_due = self.ledger is not None and bool(self.ledger.sent) and self.pinged_at is None
        if is_due and not (self.is_over or self.is_left):
            self.pinged_at = time.monotonic()
            self.write(ASK)

    def _acknowledge(self) -> None:
        if self.ledger is not None and not (self.is_over or self.is_left):
            self.write(self.ledger.telling())

    def leave_it(self, *, politely: bool) -> None:
        """End the session, or the connection alone."""
        self.is_left = True
        self.life.left = time.monotonic()
        if politely and self.ledger is not None and not self.is_over:
            self.write(
                f"{self.ledger.telling()}{ASK}</stream:stream>"
            )  # else its requests are answered again
            self.client.ledger = self.ledger.after()
        else:
            self.ledger = None
            self.cut()
