"""Sessions that go on working while engines fail, and remember what they were told; for `faults.py`.

Each does one thing after the other, at most `pace` a second. What is refused with an error of type wait is
tried again, as another change; any other error, a lost connection and an answer that does not come is wrong.
"""

import asyncio
import contextlib
import random
import re
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from oracle import Fact, items_of
from stream import Refused, Stream, connect
from victim import PASSWORD, ROSTER, Server

CONTACTS = 10
"""Of one session that changes a roster."""
LAG = 5.0
"""Seconds after which every server has to know of a change that another one made, while there is a store."""
ERROR = re.compile(
    rb"<message[^>]* type=['\"]error['\"].*?<error[^>]* type=['\"](\w+)['\"][^>]*><([a-z-]+)", re.DOTALL
)
REGISTER = "jabber:iq:register"


@dataclass(frozen=True, slots=True)
class Event:
    """What became of one thing that was asked for; `refusal` says how it was refused, or is empty."""

    at: float
    who: int
    kind: str
    took: float
    refusal: str


class Journal:
    """What happened, and what of it must not have happened."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.wrong: list[str] = []
        self.lag = LAG

    @contextlib.contextmanager
    def asking(self, who: int, kind: str) -> Iterator[None]:
        """Inside, something is asked for. Refused is kept in the journal and passed on."""
        began = time.monotonic()
        refusal = ""
        try:
            yield
        except Refused as refused:
            refusal = f"{refused.type} {refused}"
            raise
        except (ConnectionError, EOFError, TimeoutError) as error:
            refusal = type(error).__name__
            raise
        finally:
            now = time.monotonic()
            self.events.append(Event(now, who, kind, now - began, refusal))

    def since(self, moment: float, until: float = float("inf")) -> list[Event]:
        """The events of a time."""
        return [event for event in self.events if moment <= event.at < until]


class Member:
    """A client with one session, that works until it is told to stop."""

    kind = ""
    share = 1.0
    """Of the pace of the crew."""

    def __init__(self, name: str, server: Server, journal: Journal) -> None:
        self.name = name
        self.server = server
        self.journal = journal
        self.chance = random.Random(name)
        self.pace = 1.0
        self.count = 0
        self.is_resting = False

    async def begin(self) -> None:
        """Log in."""
        self.stream = await self.server.log_in(self.name)

    async def work(self, may_work: asyncio.Event) -> None:
        """Until it is cancelled, or until something happens that must not; at rest while it may not."""
        await asyncio.sleep(self.chance.random() / self.pace)
        while True:
            self.is_resting = True
            while not may_work.is_set():
                await may_work.wait()
            self.is_resting = False
            next_due = time.monotonic() + 1 / self.pace
            self.count += 1
            try:
                with self.journal.asking(id(self), self.kind):
                    await self.step()
            except Refused as refused:
                if refused.type != "wait":
                    self.journal.wrong.append(f"{self.name}: {self.kind} refused: {refused.type} {refused}")
            except (ConnectionError, EOFError, TimeoutError) as error:
                self.journal.wrong.append(f"{self.name}: {type(error).__name__} instead of an answer")
                self.is_resting = True
                return
            await asyncio.sleep(max(0.0, next_due - time.monotonic()))

    async def step(self) -> None:
        """One thing."""
        raise NotImplementedError


class Contact(Fact):
    """The name of a contact, and what it was for the last while."""

    def __init__(self) -> None:
        super().__init__()
        self.past: deque[tuple[float, str | None]] = deque(maxlen=40)
        """Until when there may have been what."""

    @contextlib.contextmanager
    def change(self, value: str | None) -> Iterator[None]:
        """As before."""
        passing = self.possible
        with super().change(value):
            yield
        now = time.monotonic()
        self.past += [(now, name) for name in passing]

    def visible(self, since: float) -> set[str | None]:
        """What may have been seen from that moment until now."""
        return {*self.possible, *(name for until, name in self.past if until >= since)}


class RosterKeeper(Member):
    """Adds, renames and removes contacts of an account that another session changes too."""

    kind = "roster"

    def __init__(self, number: int, part: int, server: Server, journal: Journal) -> None:
        super().__init__(f"roster{number}", server, journal)
        self.chance = random.Random(f"{number}/{part}")
        self.contacts = {f"contact{part}-{n}@localhost": Contact() for n in range(CONTACTS)}

    async def step(self) -> None:
        jid, contact = self.chance.choice(list(self.contacts.items()))
        is_there = contact.value is not None and not contact.unsettled
        name = None if is_there and self.chance.random() < 0.2 else f"name {self.count}"
        what = "subscription='remove'" if name is None else f"name='{name}'"
        item = f"<item jid='{jid}' {what}/>"
        with contact.change(name):
            await self.stream.ask("set", f"<query xmlns='{ROSTER}'>{item}</query>")


class Sender(Member):
    """Writes to an account that is away, as another session does."""

    kind = "message"

    def __init__(self, number: int, part: int, server: Server, journal: Journal) -> None:
        super().__init__(f"sender{number}-{part}", server, journal)
        self.receiver = f"away{number}"
        self.kept: list[str] = []
        self.doubtful: set[str] = set()

    async def step(self) -> None:
        text = f"{self.name} {self.count}"
        self.doubtful.add(text)
        self.stream.write(
            f"<message to='{self.receiver}@localhost' type='chat'><body>{text}</body></message>"
        )
        if error := ERROR.search(await self.stream.ping()):
            raise Refused(error[2].decode(), error[1].decode())
        self.doubtful.discard(text)
        self.kept.append(text)


class Talker(Member):
    """Writes to itself, who is online: nothing that needs a store."""

    kind = "chat"

    async def begin(self) -> None:
        await super().begin()
        self.stream.write("<presence><priority>-1</priority></presence>")

    async def step(self) -> None:
        text = f"{self.name} {self.count}"
        self.stream.write(f"<message to='{self.stream.jid}' type='chat'><body>{text}</body></message>")
        if text.encode() not in await self.stream.ping():
            self.journal.wrong.append(f"{self.name}: a message to who is online has not come")


class Reader(Member):
    """Logs in anew and reads the roster of somebody who is at work, which must not be an old one."""

    kind = "login"
    share = 0.5

    def __init__(self, name: str, server: Server, journal: Journal, keepers: list[RosterKeeper]) -> None:
        super().__init__(name, server, journal)
        self.keepers = keepers

    async def begin(self) -> None:
        """It has no session that stays."""

    async def step(self) -> None:
        keeper = self.chance.choice(self.keepers)
        began = time.monotonic()
        stream = await self.server.log_in(keeper.name)
        try:
            found = names_of(await stream.ask("get", f"<query xmlns='{ROSTER}'/>"))
        finally:
            stream.cut()
        lag = 0.0 if keeper.server is self.server else self.journal.lag
        for jid, contact in keeper.contacts.items():
            if found.get(jid) not in contact.visible(began - lag):
                past = [(round(until - began, 3), name) for until, name in contact.past][-3:]
                seen = found.get(jid)
                self.journal.wrong.append(
                    f"{keeper.name}: {jid} is shown as {seen!r}, not {contact.possible} after {past}"
                )


class Registrar(Member):
    """Makes accounts in-band."""

    kind = "account"
    share = 0.2

    def __init__(self, name: str, server: Server, journal: Journal) -> None:
        super().__init__(name, server, journal)
        self.made: list[str] = []

    async def begin(self) -> None:
        """It has no session that stays."""

    async def step(self) -> None:
        stream = await connect(self.server.port)
        try:
            await stream.open()
            name = f"{self.name}-{self.count}"
            fields = f"<username>{name}</username><password>{PASSWORD}</password>"
            await stream.ask("set", f"<query xmlns='{REGISTER}'>{fields}</query>")
            self.made.append(name)
        finally:
            stream.cut()


class Crew:
    """50 sessions on one or more servers, and six clients that come and go."""

    def __init__(self, servers: list[Server], pace: float) -> None:
        self.journal = Journal()
        self._may_work = asyncio.Event()
        self._working: list[asyncio.Task[None]] = []

        def server(number: int) -> Server:
            return servers[number % len(servers)]

        def pairs(count: int) -> list[tuple[int, int, Server, Journal]]:
            return [(n, part, server(part), self.journal) for n in range(count) for part in (0, 1)]

        self.keepers = [RosterKeeper(*each) for each in pairs(12)]
        self.senders = [Sender(*each) for each in pairs(11)]
        self.talkers = [Talker(f"talker{n}", server(n), self.journal) for n in range(4)]
        self.readers = [Reader(f"reader{n}", server(n), self.journal, self.keepers) for n in range(4)]
        self.registrars = [Registrar(f"registrar{n}", server(n), self.journal) for n in range(2)]
        self.members = [*self.keepers, *self.senders, *self.talkers, *self.readers, *self.registrars]
        for member in self.members:
            member.pace = pace * member.share

    def accounts(self) -> set[str]:
        """Which have to be there at the start."""
        return {m.name for m in (*self.keepers, *self.senders, *self.talkers)} | {
            sender.receiver for sender in self.senders
        }

    async def start(self) -> None:
        """Begin to work."""
        await asyncio.gather(*(member.begin() for member in self.members))
        self._may_work.set()
        self._working = [asyncio.create_task(member.work(self._may_work)) for member in self.members]

    @contextlib.asynccontextmanager
    async def rest(self) -> AsyncIterator[None]:
        """Inside, nothing is on its way; the sessions stay."""
        self._may_work.clear()
        while not all(member.is_resting for member in self.members):  # noqa: ASYNC110 - for a few turns
            await asyncio.sleep(0.01)
        yield
        self._may_work.set()

    async def stop(self) -> None:
        """End the sessions. For a crew at rest."""
        for task in self._working:
            task.cancel()
        results = await asyncio.gather(*self._working, return_exceptions=True)
        self.journal.wrong += [f"the load failed: {r!r}" for r in results if isinstance(r, Exception)]
        for member in (*self.keepers, *self.senders, *self.talkers):
            member.stream.cut()

    # what is there afterwards

    async def rosters(self, server: Server) -> dict[str, dict[str, str]]:
        """Names of all contacts in all rosters, as new logins are shown them."""
        found = {}
        for name in sorted({keeper.name for keeper in self.keepers}):
            stream = await server.log_in(name)
            found[name] = names_of(await stream.ask("get", f"<query xmlns='{ROSTER}'/>"))
            stream.cut()
        return found

    def check_rosters(self, found: dict[str, dict[str, str]], where: str) -> None:
        """Hold them against what was answered. Nothing may be on its way."""
        for keeper in self.keepers:
            roster = found[keeper.name]
            for jid, contact in keeper.contacts.items():
                if roster.get(jid) not in contact.possible:
                    self.journal.wrong.append(
                        f"{where}, {keeper.name}: {jid} is {roster.get(jid)!r}, not {contact.possible}"
                    )

    async def check_messages(self, server: Server) -> int:
        """Take all that were kept, and hold them against what was answered; how many there were."""
        took = 0
        for name in sorted({sender.receiver for sender in self.senders}):
            found = await bodies(server, name)
            took += len(found)
            twice = [text for text, times in Counter(found).items() if times > 1]
            if twice or await bodies(server, name):
                self.journal.wrong.append(f"{name}: delivered twice: {twice[:5]}")
            for sender in (s for s in self.senders if s.receiver == name):
                mine = [text for text in found if text.startswith(f"{sender.name} ")]
                kept = [text for text in mine if text not in sender.doubtful]
                if kept != sender.kept:
                    lost = [text for text in sender.kept if text not in kept]
                    self.journal.wrong.append(f"{sender.name}: {len(lost)} lost or out of order: {lost[:5]}")
        return took

    async def check_accounts(self, server: Server) -> int:
        """Log in to all that were made; how many there were."""
        names = [name for registrar in self.registrars for name in registrar.made]
        for name in names:
            try:
                (await server.log_in(name)).cut()
            except Refused as refused:
                self.journal.wrong.append(f"{name} was made, and cannot log in: {refused}")
        return len(names)


def names_of(answer: bytes) -> dict[str, str]:
    """The names in a roster result; AssertionError when a contact is there twice."""
    items = items_of(answer)
    found = {item["jid"]: item.get("name", "") for item in items}
    assert len(found) == len(items), "a contact is there twice"
    return found


async def bodies(server: Server, user: str) -> list[str]:
    """What was kept for somebody who comes online now."""
    stream: Stream = await server.log_in(user)
    stream.write("<presence/>")
    seen = await stream.ping() + await stream.ping()
    await stream.leave()
    return [body.decode() for body in re.findall(rb"<body>([^<]*)</body>", seen)]
