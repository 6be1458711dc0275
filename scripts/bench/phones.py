"""Clients with stream management (XEP-0198) that write to each other while servers are killed; for `kill.py`.

Each has one session, resumes it when the connection ends, and binds anew when it is not to be had; half of
them then ask their archive for what is behind the last message they know (XEP-0313), the others never do.
What was not acknowledged is sent again, as it was. A message that has the id of one that came before
(XEP-0359) is not counted again. Some forget the id of their session when its server is killed, and are away
for longer when it stops.
"""

import asyncio
import base64
import contextlib
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol
from xml.etree.ElementTree import Element, XMLPullParser

from ledger import Ledger
from victim import PASSWORD

from xmppd import ns

HEADER = (
    f"<stream:stream to='localhost' version='1.0' xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAM}'>".encode()
)
PATIENCE = 30.0
BODY = f"{{{ns.CLIENT}}}body"
COUNTED = frozenset(f"{{{ns.CLIENT}}}{kind}" for kind in ("message", "presence", "iq"))
FORGETFUL = 0.3
"""How many of those whose server is killed come back without the id of their session."""
AWAY_SECONDS = 6.0
"""How long those may be away whose server stops."""
INF = float("inf")


class Place(Protocol):
    """Where clients may connect to."""

    port: int
    is_open: bool


@dataclass(slots=True)
class Life:
    """One connection of a client, to a server at this port; `session` is the id by which it is resumed, and
    `how` tells whether it was. `sought`: the id that it came with.
    """

    port: int
    began: float
    session: str = ""
    how: str = "logging in"
    ended: float = INF
    sought: str = ""


class Sent(NamedTuple):
    """One time that a message was sent, by which connection of its sender, to whom."""

    at: float
    life: Life
    to: str


class Got(NamedTuple):
    """One time that it came, by which connection of its receiver, and how; with an id of his archive that he
    did not know yet (`is_new`), before he was available (`is_early`).
    """

    at: float
    life: Life
    id: str
    how: str
    is_new: bool = True
    is_early: bool = False


class Phone(Ledger[str]):
    """One client, over all its connections. What it sent is remembered by its text, if it is a message, or
    "". `acked` are texts that the server has, and when it said so; `said`: each time that they were sent.
    `behind`: the id from which on it has not caught up, None where it has. `came`: each time that a text did;
    `got`: those of them that count, for they had another id than all before.
    """

    def __init__(
        self, name: str, places: Sequence[Place], chance: random.Random, *, asks: bool, resource: str = ""
    ) -> None:
        super().__init__()
        self.name = name
        self.resource = resource
        self.places = places
        self.chance = chance
        self.asks_archive = asks
        self.others: list[Phone] = []
        self.jid = ""
        self.is_ready = self.is_available = False
        self.pause = 0.05
        self.lag = 0.0
        self.noticed = 0.0
        self._away = 0.0
        self._is_hit = self._forgets = False
        self._place: Place | None = None
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.got: list[tuple[str, Got]] = []
        self.acked: dict[str, float] = {}
        self.said: dict[str, list[Sent]] = {}
        self.lives: list[Life] = []
        self.came: dict[str, list[Got]] = {}
        self.last = b""
        self.behind: bytes | None = None
        self._pages = 0
        self._numbers: Counter[str] = Counter()
        self._to = ""

    def hit(self, place: Place) -> None:
        """A server was killed: what it wrote and this client has not read does not come."""
        if place is self._place:
            self._is_hit = True
            self._forgets = bool(self.id) and self.chance.random() < FORGETFUL

    def left(self, place: Place) -> None:
        """A server is about to stop."""
        if place is self._place:
            self._away = self.chance.uniform(0, AWAY_SECONDS)

    # its life

    async def live(self, is_over: asyncio.Event) -> None:
        """Be there, and now and then not, until it is over; then be there once more, to stay."""
        while True:
            try:
                await self._connect()
                await self._talk(is_over)
            except (OSError, EOFError, TimeoutError):
                self.counts["connections that ended"] += 1
            finally:
                self.is_ready = False
                if self.lives:
                    self.lives[-1].ended = min(self.lives[-1].ended, time.monotonic())
            await self._be_away()

    async def look(self, seconds: float) -> None:
        """Be there once, for so many seconds."""
        await self._connect()
        try:
            async with asyncio.timeout(seconds):
                await self._read()
        finally:
            self._writer.transport.abort()

    async def _be_away(self) -> None:
        """Who comes without an id comes when the others have noticed that a server was killed."""
        away, self._away = self._away, 0.0
        self.counts["away while its server stopped"] += bool(away)
        if self._forgets:
            self._forgets, self.id, away = False, "", self.noticed
            self.counts["forgot its id"] += 1
        await asyncio.sleep(away + self.chance.uniform(0.02, 0.5))

    async def _connect(self) -> None:
        places = [place for place in self.places if place.is_open]
        if not places:
            raise ConnectionRefusedError
        self._place = place = self.chance.choice(places)
        self._is_hit, self.lag = False, self.chance.choice((0.0, 0.02, 0.3))
        self.lives.append(Life(place.port, time.monotonic(), sought=self.id))
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", place.port)
        try:
            async with asyncio.timeout(PATIENCE):
                await self._log_in()
        except BaseException:
            self._writer.transport.abort()
            raise

    async def _open(self) -> None:
        self._parser: XMLPullParser[Any] = XMLPullParser(("start", "end"))
        self._depth = 0
        self._writer.write(HEADER)
        await self._next(f"{{{ns.STREAM}}}features")

    async def _log_in(self) -> None:
        await self._open()
        plain = base64.b64encode(f"\0{self.name}\0{PASSWORD}".encode()).decode()
        self.write(f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>{plain}</auth>")
        if (await self._next()).tag != f"{{{ns.SASL}}}success":
            raise ConnectionRefusedError
        await self._open()
        if self.id:
            self.write(self.asking())
            answer = await self._next()
            if answer.tag == f"{{{ns.SM}}}resumed":
                self.counts["resumed"] += 1
                self.lives[-1].session, self.lives[-1].how = self.id, "resumed"
                self._acknowledged(int(answer.get("h", "0")))
                for _, xml, text in self.sent:
                    self.counts["sent again"] += bool(text)
                    self._note_sent(text)
                    self.write(xml)
                if self.behind is not None:
                    await self._catch_up()
                self.unsure.clear()
                return
            self.counts["not to be resumed"] += 1
        await self._begin()

    async def _begin(self) -> None:
        """A new session. What was not acknowledged to it may be there or not."""
        self.end()
        resource = f"<resource>{self.resource}</resource>" if self.resource else ""
        self.write(f"<iq type='set' id='bind'><bind xmlns='{ns.BIND}'>{resource}</bind></iq>")
        bound = await self._next(f"{{{ns.CLIENT}}}iq")
        self.jid = bound.findtext(f".//{{{ns.BIND}}}jid") or ""
        self.write(f"<enable xmlns='{ns.SM}' resume='true'/>")
        self.begin((await self._next(f"{{{ns.SM}}}enabled")).get("id", ""))
        self.is_available = False
        self.lives[-1].session, self.lives[-1].how = self.id, "bound"
        if self.asks_archive and self.behind is None:
            self.behind = self.last
        await self._catch_up()
        unsure, self.unsure = self.unsure, []
        for xml, text in unsure:
            self.counts["sent again"] += 1
            self._stanza(xml, text)

    async def _catch_up(self) -> None:
        """Ask for all of the archive behind what it knows, and then be available."""
        while self.behind is not None:
            self._pages += 1
            behind = f"<after>{base64.urlsafe_b64encode(self.behind).decode()}</after>" if self.behind else ""
            page = f"<set xmlns='{ns.RSM}'><max>100</max>{behind}</set>"
            id = f"page{self._pages}"
            self._stanza(f"<iq type='set' id='{id}'><query xmlns='{ns.MAM}'>{page}</query></iq>", "")
            while (stanza := await self._next()).get("id") != id:
                self._count(stanza)
                self._received(stanza)
            self._count(stanza)
            fin = stanza.find(f"{{{ns.MAM}}}fin")
            if fin is None:
                raise TimeoutError
            last = fin.findtext(f".//{{{ns.RSM}}}last")
            is_over = fin.get("complete") == "true"
            self.behind = None if is_over else base64.urlsafe_b64decode(last) if last else self.behind
        self._stanza("<presence/>", "")

    async def _talk(self, is_over: asyncio.Event) -> None:
        self.is_ready = True
        reading = asyncio.create_task(self._read())
        try:
            while not reading.done():
                await asyncio.sleep(self.pause * self.chance.uniform(0.5, 1.5))
                if is_over.is_set():
                    self.write(f"<r xmlns='{ns.SM}'/>")
                    await asyncio.sleep(0.5)
                    continue
                do = self.chance.random()
                if do < 0.004:
                    self.counts["cut"] += 1
                    return
                if do < 0.006:
                    await self._leave(reading)
                    return
                self._say()
        finally:
            reading.cancel()
            self._writer.transport.abort()
            with contextlib.suppress(asyncio.CancelledError, OSError, EOFError):
                await reading

    async def _leave(self, reading: asyncio.Task[None]) -> None:
        """End the session properly: what is acknowledged by then is known."""
        self.is_ready = False
        self.write(f"<r xmlns='{ns.SM}'/></stream:stream>")
        await asyncio.wait((reading,), timeout=PATIENCE)
        self.id = ""
        self.sent.clear()
        self.counts["left"] += 1
        await asyncio.sleep(self.chance.uniform(0.2, 2))

    def _say(self) -> None:
        other = self.chance.choice(self.others)
        self._numbers[other.name] += 1
        text = f"{self.name} to {other.name} {self._numbers[other.name]}"
        is_direct = other.is_ready and self.chance.random() < 0.4
        to = other.jid if is_direct else f"{other.name}@localhost"
        self._to = to
        self._stanza(self._message(to, text), text)
        self.write(f"<r xmlns='{ns.SM}'/>")
        self.counts["sent"] += 1

    @staticmethod
    def _message(to: str, text: str) -> str:
        return f"<message to='{to}' type='chat' id='{text.replace(' ', '.')}'><body>{text}</body></message>"

    # the wire

    def write(self, xml: str) -> None:
        """Send; nobody waits."""
        if self._writer.transport.is_closing():
            raise ConnectionResetError
        self._writer.write(xml.encode())

    def _note_sent(self, text: str) -> None:
        if text:
            former = self.said.setdefault(text, [])
            to = former[0].to if former else self._to
            former.append(Sent(time.monotonic(), self.lives[-1], to))

    def _stanza(self, xml: str, text: str) -> None:
        self._note_sent(text)
        self.note(xml, text)
        self.write(xml)

    async def _next(self, tag: str = "") -> Element:
        while True:
            for event, element in self._parser.read_events():
                self._depth += 1 if event == "start" else -1
                if event == "end" and self._depth == 1 and (not tag or element.tag == tag):
                    return element
            data = await self._reader.read(65536)
            if self.lag:
                await asyncio.sleep(self.lag)
            if not data or self._is_hit:
                raise EOFError  # what was on its way to it is lost
            self._parser.feed(data)

    async def _read(self) -> None:
        while True:
            stanza = await self._next()
            self._count(stanza)
            self._received(stanza)

    def _count(self, stanza: Element) -> None:
        self.h += stanza.tag in COUNTED

    def _received(self, stanza: Element) -> None:
        if stanza.tag == f"{{{ns.SM}}}r":
            late = self.chance.uniform(0, 1.5) if self.chance.random() < 0.2 else 0.0
            asyncio.get_running_loop().call_later(late, self._acknowledge, self._writer)
        elif stanza.tag == f"{{{ns.CLIENT}}}presence" and stanza.get("from") == self.jid:
            self.is_available = True  # as its server sees it
        elif stanza.tag == f"{{{ns.SM}}}a":
            self._acknowledged(int(stanza.get("h", "0")))
        elif (result := stanza.find(f"{{{ns.MAM}}}result")) is not None:
            id, text = result.get("id", ""), result.findtext(f".//{BODY}") or ""
            is_new = id not in self.seen and self._is_new(id, text)  # else it asked again
            self.counts["from the archive"] += is_new
            self._note_got(text, id, "in the archive", is_new=is_new)
        elif (text := stanza.findtext(BODY)) and stanza.get("type") != "error":
            id = next((one.get("id", "") for one in stanza.iterfind(f"{{{ns.STANZA_ID}}}stanza-id")), "")
            is_late = stanza.find(f"{{{ns.DELAY}}}delay") is not None
            is_new = bool(id) and self._is_new(id, text)
            self.counts["came late"] += is_new and is_late
            self._note_got(text, id, "stored" if is_late else "live", is_new=is_new)
            if not id:
                self.wrong.append(f"{self.name} was given {text!r} without an id")
        elif stanza.get("type") == "error" and text:
            self.wrong.append(f"{text!r} was refused")

    def _acknowledge(self, writer: asyncio.StreamWriter) -> None:
        if writer is self._writer and not writer.transport.is_closing():
            self.write(self.telling())

    def _acknowledged(self, h: int) -> None:
        for text in self.had(h):
            if text:
                self.acked[text] = time.monotonic()

    def _note_got(self, text: str, id: str, how: str, *, is_new: bool) -> None:
        got = Got(time.monotonic(), self.lives[-1], id, how, is_new, not self.is_available)
        self.came.setdefault(text, []).append(got)
        if is_new:
            self.got.append((text, got))

    def _is_new(self, id: str, text: str) -> bool:
        """Whether a message was not there before, and is not one that it sent itself."""
        self.last = max(self.last, base64.urlsafe_b64decode(id))
        if text.startswith(f"{self.name} to "):
            return False
        is_new = self.is_new(id)
        self.counts["came again"] += not is_new
        return is_new
