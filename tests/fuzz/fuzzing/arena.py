"""The fuzzed server with its clients, all in memory: carries out operations, and holds what comes out against
the oracle.

An operation is a list that JSON can hold, so that a run can be kept, repeated and shortened:
`["login", slot]`, `["send", slot, text, cuts]`, `["drop", slot]`, `["stranger", text, cuts]`, `["wait"]`.
Bytes are written as UTF-8 with surrogate escapes. What cannot be done at the moment is passed over.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import logging
import time
from collections import Counter
from types import TracebackType
from typing import Any, Self
from xml.etree.ElementTree import ParseError, fromstring

from fuzzing.jids import ACCOUNTS, BARE, DOMAIN, SLOTS
from fuzzing.model import Login
from fuzzing.reference import CLIENT, CLOSE, Input, Tree, received
from fuzzing.requests import Oracle
from xmppd import ns
from xmppd.core.sessions import Session
from xmppd.net.c2s.tcp import client_wire
from xmppd.net.wire import READ_SIZE
from xmppd.testing import PASSWORD, STREAM_HEADER, MemoryTransport, World

Op = list[Any]
STANZA_BYTES = 10_000
OFFLINE_LIMIT = 20
HANG_SECONDS = 20.0
SETTINGS = {"limits": {"stanza_bytes": STANZA_BYTES, "connections_before_login": 0}}
PLUGINS = ("disco", "ping", "version", "time", "last", "vcard", "private", "offline", "announce")


class Finding(Exception):
    """The server did what it must not do. `kind` is one word or two, the rest says what it was."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind


class Ears(logging.Handler):
    """Hears what is logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.heard.append(f"{record.getMessage()} {error!r}")


class Wire:
    """A connection to the server, from the client's end."""

    def __init__(self, world: World) -> None:
        self.out: list[bytes] = []
        self.transport = MemoryTransport("127.0.0.1")
        self.transport.receive = self.out.append
        self.connection = client_wire(world.app.service, world.app.shared, starttls=True)
        self.stream = self.connection.stream
        self.transport.lost = lambda: self.connection.connection_lost(None)
        self.connection.connection_made(self.transport)

    @property
    def closed(self) -> bool:
        """Whether the server has ended the stream."""
        return self.connection.ending_since is not None or self.connection.transport is None

    @property
    def refused(self) -> bool:
        """Whether that was because of a bound."""
        return self.closed and b"<policy-violation" in b"".join(self.out)

    def push(self, data: bytes) -> None:
        """Hand over bytes as if they had come from the network."""
        self.connection.get_buffer(-1)[: len(data)] = data
        self.connection.buffer_updated(len(data))

    def taken(self) -> bytes:
        """What the server has written since the last call."""
        data = b"".join(self.out)
        self.out.clear()
        return data


class Seat:
    """One client of the fuzzed world, logged in or not."""

    def __init__(self, index: int) -> None:
        name, self.resource, self.lang = SLOTS[index]
        self.account = f"{name}@{DOMAIN}"
        self.name = name
        self.wire: Wire | None = None
        self.login: Login
        self.input: Input


def encoded(data: bytes) -> str:
    """Bytes as JSON can hold them."""
    return data.decode("utf-8", "surrogateescape")


def pieces(text: str, cuts: list[int]) -> list[bytes]:
    """The bytes of an operation, cut at some places."""
    data = text.encode("utf-8", "surrogateescape")
    ends = [*sorted(cut for cut in cuts if 0 < cut < len(data)), len(data)]
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


class Arena:
    """A server, its clients and the oracle."""

    def __init__(self, plugins: tuple[str, ...] = PLUGINS) -> None:
        config = {"offline": {"max_messages": OFFLINE_LIMIT}} if "offline" in plugins else {}
        self.world = World(accounts=ACCOUNTS, plugins=plugins, plugin_config=config, settings=SETTINGS)
        self.oracle = Oracle(BARE, offline_limit=OFFLINE_LIMIT)
        self.seats = [Seat(index) for index in range(len(SLOTS))]
        self.counts: Counter[str] = Counter()
        self.ears = Ears()
        self._gone: list[tuple[Wire, Login, bool]] = []

    async def __aenter__(self) -> Self:
        logging.getLogger().addHandler(self.ears)
        await self.world.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.getLogger().removeHandler(self.ears)
        for seat in self.seats:
            if seat.wire is not None:
                seat.input.close()
        await self.world.__aexit__(kind, error, trace)

    # operations

    async def do(self, op: Op) -> None:
        """Carry out one operation."""
        match op:
            case ["send", int(slot), str(text), list(cuts)]:
                await self._send(self.seats[slot], pieces(text, cuts))
            case ["login", int(slot)]:
                await self._login(self.seats[slot])
            case ["drop", int(slot)]:
                await self._drop(self.seats[slot])
            case ["stranger", str(text), list(cuts)]:
                await self._stranger(pieces(text, cuts))
            case ["wait"]:
                self.world.clock.seconds += 1
                self.world.app.service.sweep()
            case _:
                raise ValueError(f"no operation: {op}")

    async def _idle(self, wire: Wire) -> None:
        """Wait until the connection has processed what it was given, and reads on."""
        deadline = time.monotonic() + HANG_SECONDS
        while (wire.stream.is_busy or not wire.transport.is_reading()) and not wire.closed:
            await asyncio.sleep(0)
            await self.world.app.jobs.settle()
            if time.monotonic() > deadline:
                raise Finding("hang", "a handler does not come to an end")
        while self.world.is_sending:  # noqa: ASYNC110 - copies for many come in later turns
            await asyncio.sleep(0)

    async def give(self, wire: Wire, data: list[bytes]) -> None:
        """Hand over bytes, each piece, and each read of it, when the one before was processed."""
        for piece in data:
            for start in range(0, len(piece), READ_SIZE):
                if wire.closed:
                    return
                wire.push(piece[start : start + READ_SIZE])
                await self._idle(wire)

    async def _send(self, seat: Seat, data: list[bytes]) -> None:
        wire = seat.wire
        if wire is None:
            return
        for piece in data:
            seat.input.feed(piece)
        await self.give(wire, data)
        ended = self._take(seat, wire)
        if wire.closed:
            early = seat.input.near or is_open(b"".join(data))
            if not ended and not seat.input.excess and not seat.input.broken and not early:
                raise Finding("closed", f"{seat.login.full} was sent away for {data}")
            self._end(seat, lenient=False)
        elif ended or seat.input.excess:
            raise Finding("not closed", f"{seat.login.full} should have been sent away for {data}")
        elif seat.input.broken:
            if not wire.stream.framing.pending:
                raise Finding("not closed", f"{seat.login.full} sent what is not XML: {data}")
            await self._drop(seat)

    def _take(self, seat: Seat, wire: Wire) -> bool:
        """Tell the oracle what was sent; whether it ends the stream."""
        trees, seat.input.trees = seat.input.trees, []
        for tree, near in trees:
            if near and wire.refused:
                return True
            self.counts["stanzas"] += 1
            if not self.oracle.take(seat.login, tree):
                return True
        return seat.input.ended

    def _end(self, seat: Seat, *, lenient: bool) -> None:
        """The session is over; what it received is looked at later."""
        wire, seat.wire = seat.wire, None
        assert wire is not None
        self.oracle.step += 1
        self.oracle.lost(seat.login)
        seat.input.close()
        self._gone.append((wire, seat.login, lenient))
        wire.transport.close()

    async def _drop(self, seat: Seat) -> None:
        wire = seat.wire
        if wire is None:
            return
        await asyncio.sleep(0)
        self._end(seat, lenient=True)
        await asyncio.sleep(0)

    async def _login(self, seat: Seat) -> None:
        """Log in; whoever has the resource is replaced."""
        wire = Wire(self.world)
        lang = f" xml:lang='{seat.lang}'" if seat.lang else ""
        header = STREAM_HEADER.format(domain=DOMAIN, more=lang).encode()
        initial = base64.b64encode(f"\0{seat.name}\0{PASSWORD}".encode()).decode()
        auth = f"<auth xmlns='{ns.SASL}' mechanism='PLAIN'>{initial}</auth>".encode()
        resource = f"<bind xmlns='{ns.BIND}'><resource>{seat.resource}</resource></bind>"
        await self.give(wire, [header, auth, header, f"<iq type='set' id='b'>{resource}</iq>".encode()])
        if seat.wire is not None:
            if not seat.wire.closed:
                raise Finding("not closed", f"{seat.login.full} was not replaced")
            self._end(seat, lenient=False)
        await asyncio.sleep(0)
        bound = wire.taken()
        full = f"{seat.account}/{seat.resource}"
        if wire.closed or f"<jid>{full}</jid>".encode() not in bound:
            raise Finding("login", f"{full} got {bound!r}")
        seat.wire = wire
        seat.input = Input()
        seat.input.stanza_bytes = STANZA_BYTES
        seat.login = Login(seat.account, seat.resource, seat.lang)
        self.oracle.accounts[seat.account].logins[seat.resource] = seat.login
        self.counts["logins"] += 1

    async def _stranger(self, data: list[bytes]) -> None:
        """Somebody who never logs in. Whatever it is sent must be XML, and let nobody in."""
        wire = Wire(self.world)
        self.counts["openings"] += 1
        await self.give(wire, data)
        await asyncio.sleep(0)
        said = wire.taken()
        if said:
            try:
                root = fromstring(said if said.endswith(CLOSE) else said + CLOSE)
            except ParseError as error:
                raise Finding("output", f"a stranger who sent {data} received {said!r}: {error}") from None
            known = (
                f"{{{ns.STREAM}}}features",
                f"{{{ns.STREAM}}}error",
                f"{{{ns.SASL}}}failure",
                "challenge",
            )
            for child in root:
                if not child.tag.endswith((*known, f"{{{ns.TLS}}}proceed", f"{{{ns.TLS}}}failure")):
                    raise Finding("stranger", f"{data} was answered by {said!r}")
        wire.transport.close()
        await asyncio.sleep(0)

    # what came out

    async def check(self) -> None:
        """Let the server come to rest, and compare."""
        await self.rest()
        for wire, login, lenient in self._gone:
            self._compare(wire, login, lenient=lenient, gone=True)
        self._gone.clear()
        for seat in self.seats:
            if seat.wire is not None:
                if seat.wire.closed:
                    raise Finding("closed", f"{seat.login.full} was sent away: {seat.wire.taken()!r}")
                self._compare(seat.wire, seat.login, lenient=False, gone=False)
        self.listen()

    def listen(self) -> None:
        """Nothing may have failed."""
        app = self.world.app
        if self.ears.heard or app.router.errors or app.jobs.failed:
            raise Finding("error", f"{self.ears.heard} {app.router.errors} {app.jobs.failed}")

    async def rest(self) -> None:
        """Wait until nothing moves any more."""
        deadline = time.monotonic() + HANG_SECONDS
        quiet = 0
        while quiet < 3:
            await asyncio.sleep(0)
            quiet = 0 if self.world.is_sending else quiet + 1
            if self.world.app.jobs:
                await self.world.app.jobs.settle()
                quiet = 0
            if time.monotonic() > deadline:
                raise Finding("hang", "the server does not come to rest")

    def _compare(self, wire: Wire, login: Login, *, lenient: bool, gone: bool) -> None:
        data = wire.taken()
        due, login.due = login.due, []
        perhaps = login.perhaps
        if data:
            try:
                trees, closed = received(data)
            except ValueError as error:
                raise Finding("output", f"{login.full} received {data!r}: {error}") from None
            if closed and trees and trees[-1][0] == f"{{{ns.STREAM}}}error":
                trees.pop()
            self.counts["deliveries"] += len(trees)
            rest = iter(due)
            waiting: list[tuple[int, Any]] = []
            upcoming = next(rest, None)
            for tree in trees:
                if not waiting and upcoming is not None:
                    step = upcoming[0]
                    while upcoming is not None and upcoming[0] == step:
                        waiting.append(upcoming)
                        upcoming = next(rest, None)
                if not remove(waiting, tree) and not remove_any(perhaps, tree) and not is_ping(tree):
                    soon = [expected for _, expected in waiting][:5]
                    raise Finding("delivery", f"{login.full} received {tree}, was to receive {soon}")
            due = [*waiting, *([upcoming] if upcoming else []), *rest]
        if due and not lenient:
            raise Finding("missing", f"{login.full} never received {[expected for _, expected in due][:5]}")
        perhaps.clear()

    async def finish(self, *, compare: bool = True) -> None:
        """Nothing may have grown beyond its bound. Send everybody away; nothing may be left of them."""
        self._measure()
        if compare:
            await self.check()
        for seat in self.seats:
            await self._drop(seat)
        if compare:
            await self.check()
        await self.rest()
        self._gone.clear()
        self._look_for_rest()

    def _measure(self) -> None:
        """What clients can make grow has a bound (docs/architecture.md)."""
        app = self.world.app
        sizes = {
            "directed": (
                max((len(s.directed or ()) for s in app.sessions.by_full.values()), default=0),
                1_000,
            ),
            "slots": (max((len(s.slots or ()) for s in app.sessions.by_full.values()), default=0), 10),
            "sessions": (len(app.sessions.by_full), len(SLOTS)),
            "last presence": (len(app.last_seen._known), len(ACCOUNTS) + 10),
            "roster bytes": (app.rosters.cache["roster_bytes"], 64 << 20),
            "unsure rosters": (app.rosters.cache["rosters_unsure"], 0),
        }
        if any(size > bound for size, bound in sizes.values()):
            raise Finding("grown", f"{sizes}")

    def _look_for_rest(self) -> None:
        """Nobody is there any more."""
        app = self.world.app
        service, offline, gone = app.service, self.world.plugin("offline"), gc.collect()
        left = {
            "sessions": len(app.sessions.by_full),
            "accounts": len(app.sessions.accounts),
            "connections": len(service.connections),
            "strangers": len(service._strangers),
            "addresses": len(service._per_network),
            "jobs": len(app.jobs),
            "roster locks": len(app.rosters._locks),
            "roster loads": len(app.rosters._loading),
            "leaving": len(self.world.plugin("last")._leaving),
            "offline queues": len(offline._queues) - len(offline._counted),
            "offline writes": sum(queue.writing for queue in offline._queues.values()),
            "session objects": sum(isinstance(found, Session) for found in gc.get_objects()),
        }
        if any(left.values()):
            raise Finding("left over", f"{left} after {gone}")


def remove(waiting: list[tuple[int, Any]], tree: Tree) -> bool:
    """Take what was expected and has come off the list."""
    for index, (_, expected) in enumerate(waiting):
        if expected.fits(tree):
            del waiting[index]
            return True
    return False


def remove_any(perhaps: list[Any], tree: Tree) -> bool:
    """The same for what may come at any time."""
    for index, expected in enumerate(perhaps):
        if expected.fits(tree):
            del perhaps[index]
            return True
    return False


def is_open(data: bytes) -> bool:
    """Whether bytes may end within markup, of which a parser may say more than the reference does yet."""
    if data.rpartition(b">")[2].strip() or b"<!" in data or b"<?" in data:
        return True
    return "\ufffd" in data.decode(errors="replace")


def is_ping(tree: Tree) -> bool:
    """Whether the server only asks if the client is there."""
    attrs = dict(tree[1])
    return tree[0] == f"{{{CLIENT}}}iq" and attrs.get("from") == DOMAIN and attrs["id"].startswith("ping")
