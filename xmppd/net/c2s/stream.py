"""A client's stream: negotiation by the table of rows, then stanzas to the router (RFC 6120 4 to 7)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Iterator, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from xmppd import ns
from xmppd.core.later import Later, Line
from xmppd.core.managed import Managed, Route
from xmppd.core.sessions import Session
from xmppd.errors import StreamError
from xmppd.net.pace import FEW, Pause, paced
from xmppd.stream import opening as openings
from xmppd.stream.bucket import TokenBucket
from xmppd.stream.link import Framing, Link
from xmppd.stream.rows import Phase, Waiting
from xmppd.stream.sasl import Login
from xmppd.xml import build
from xmppd.xml.scan import Event, StreamClose, StreamOpen
from xmppd.xml.stanza import Stanza

if TYPE_CHECKING:
    from xmppd.net.c2s.service import Service

log = logging.getLogger(__name__)

PING = build.serialize(build.element(f"{{{ns.PING}}}ping"))


class Negotiation:
    """What is known of a stream that is not bound yet; given up when it is."""

    __slots__ = ("greeted", "kept", "login", "mark", "phase", "sender")

    def __init__(self) -> None:
        self.phase = Phase.HEADER
        self.greeted = False
        self.sender = ""
        self.mark = 0
        self.login: Login | None = None
        self.kept: dict[str, Any] = {}


class Stream:
    """One client, whatever carries it. It is its session's connection once a resource is bound."""

    __slots__ = (
        "_awaited",
        "_backlog",
        "_bucket",
        "_line",
        "_negotiation",
        "_service",
        "_unsaid",
        "_waiting",
        "domain",
        "framing",
        "lang",
        "link",
        "managed",
        "nudged",
        "pinged",
        "session",
    )

    def __init__(self, service: Service, link: Link, framing: Framing) -> None:
        framing.stepwise = True
        self.link = link
        self.framing = framing
        self.session: Session | None = None
        self.managed: Managed | None = None
        self.domain = ""
        self.lang = ""
        self.nudged = False
        self.pinged = False
        self._service = service
        self._negotiation: Negotiation | None = Negotiation()
        self._bucket: TokenBucket | None = None
        self._line: Line | None = None
        self._awaited: list[Awaitable[None]] | None = None
        self._backlog: Iterator[Event | Pause] | None = None
        self._unsaid: list[bytes] | None = None
        self._waiting = False

    # what it is

    @property
    def peer(self) -> str:
        """The client's address, for operators."""
        return self.link.peer

    @property
    def secure(self) -> bool:
        """Whether TLS protects it."""
        return self.link.secure

    @property
    def clogged(self) -> bool:
        """Whether more is unsent than should be."""
        return self.link.clogged

    @property
    def phase(self) -> Phase:
        """Where it stands."""
        return Phase.BOUND if self._negotiation is None else self._negotiation.phase

    @property
    def account(self) -> str:
        """Who has logged in, "" before that."""
        login = self.login
        return login.account if login is not None else ""

    @property
    def login(self) -> Login | None:
        """How, None before that."""
        if self._negotiation is not None:
            return self._negotiation.login
        return self.session.login if self.session is not None else None

    @property
    def sender(self) -> str:
        """See `Negotiable.sender`."""
        return self._negotiation.sender if self._negotiation is not None else ""

    @property
    def is_exposed(self) -> bool:
        """Whether TLS is required, and not there yet."""
        return self._service.rules.must_encrypt and self.link.can_encrypt

    @property
    def kept(self) -> MutableMapping[str, Any]:
        """See `Negotiable.kept`."""
        assert self._negotiation is not None
        return self._negotiation.kept

    @property
    def mark(self) -> int:
        """See `Negotiable.mark`."""
        assert self._negotiation is not None
        return self._negotiation.mark

    @mark.setter
    def mark(self, mark: int) -> None:
        assert self._negotiation is not None
        self._negotiation.mark = mark

    @property
    def route(self) -> Route:
        """Who takes its stanzas."""
        return self._service.route if self.managed is None else self.managed.take

    # what its link tells

    def begun(self) -> None:
        """The link is there; the client may be one too many."""
        refusal = self._service.admit(self)
        if refusal is not None:
            self.close(refusal)

    def received(self, data: bytes) -> None:
        """See `Carried.received`."""
        self.pinged = self.nudged = False
        if self.session is None:
            self._negotiate(data)
        else:
            events = self.framing.feed(data)
            count, bucket = len(events), self._bucket
            is_free = count <= FEW and (bucket is None or bucket.take_all(count))
            self._run(iter(events) if is_free else paced(events, bucket, self._service.tempo))

    def drained(self) -> None:
        """See `Carried.drained`."""
        if self.session is not None:
            self.session.drained()
        self._go_on()

    def broken(self) -> None:
        """See `Carried.broken`."""
        self._service.forget(self)
        session, self.session = self.session, None
        self._line = None  # it has this one, too, until all is over
        if session is not None and (self.managed is None or not self.managed.lost()):
            self._service.binding.end(session)

    @property
    def is_bound(self) -> bool:
        """Whether it has bound a resource, though its session may have ended since."""
        return self._negotiation is None

    def unheard(self) -> None:
        """Nobody is at the other end any more; a session that is managed may go on without it."""
        silence = StreamError("connection-timeout")
        if self.managed is not None and self.managed.lost():
            self.close(silence)
        else:
            self.fail(silence)

    @property
    def is_busy(self) -> bool:
        """See `Carried.is_busy`."""
        return self._waiting or self._backlog is not None

    # events in their order

    def _run(self, events: Iterator[Event | Pause]) -> None:
        """Process what was read, up to the first stanza whose handler has to wait."""
        route, taken = self.route, self._service.rows.bound
        link, session = self.link, self.session
        try:
            for event in events:
                if event.__class__ is Stanza and session is not None and event.kind not in taken:
                    line = self._line
                    if line is not None and (line.is_ahead or event.kind == "iq"):
                        waiting = self._in_line(session, event)
                    else:
                        waiting = route(session, event)
                else:
                    waiting = self._meet(event)
                    route = self.route
                session = self.session
                if waiting is not None:
                    if isinstance(waiting, Later):
                        line = self._line
                        waiting = line.add(waiting) if line is not None else self._follow(waiting)
                    if waiting is not None:
                        self._wait(waiting, events)
                        return
                if link.ending_since is not None:
                    return
                if link.clogged:
                    self._backlog = events
                    return
        except StreamError as error:
            self.fail(error)
        except Exception as error:  # noqa: BLE001 - a mistake of ours ends this stream, and no other
            self._give_up(error)

    def _follow(self, later: Later) -> Waiting:
        """Read on while the end of this is awaited; what to wait for first when too much is under way."""
        if self._line is None:
            self._line = Line(self._service.spawn, self._outcome)
            if self.session is not None:
                self.session.line = self._line
        return self._line.add(later)

    def _in_line(self, session: Session, stanza: Stanza) -> Waiting:
        """A stanza of whom something is under way. A message has its effects in its turn, whatever else has
        to wait for that: an answer tells that all before is done, and a presence must not overtake anything.
        """
        assert self._line is not None
        waiting = None
        if stanza.kind == "message":
            waiting = self.route(session, stanza)
            if waiting is None or isinstance(waiting, Later):
                return waiting
        if (rest := self._line.until(0)) is not None:
            return self._then(rest, session, stanza, waiting)
        return waiting or self.route(session, stanza)

    async def _then(self, rest: Awaitable[None], session: Session, stanza: Stanza, waiting: Waiting) -> None:
        await rest
        if waiting is None:
            if self.session is not session:
                return  # its client sends it again if it resumes the session
            waiting = self.route(session, stanza)
        if isinstance(waiting, Later):
            waiting = self._follow(waiting)
        if waiting is not None:
            await waiting

    def _wait(self, waiting: Awaitable[None], rest: Iterator[Event | Pause]) -> None:
        """Stop reading until a handler is done, then go on with what was read before."""
        self._waiting = True
        self._backlog = rest
        if self._awaited is not None:
            self._awaited.append(waiting)
            return
        self.link.regulate()
        self._service.spawn(self._resume([waiting]))

    async def _resume(self, awaited: list[Awaitable[None]]) -> None:
        """Wait for a handler, go on, and wait here again for the next one that has to be waited for."""
        self._awaited = awaited
        try:
            while awaited:
                await self._outcome(awaited.pop())
                self._waiting = False
                self._go_on()
        finally:
            self._awaited = None

    async def _outcome(self, waiting: Awaitable[None]) -> None:
        try:
            await waiting
        except StreamError as error:
            self.fail(error)
        except Exception as error:  # noqa: BLE001 - a mistake of ours ends this stream, and no other
            self._give_up(error)

    def _go_on(self) -> None:
        """Process what was read before, and then read on, unless something is in the way."""
        if self._must_stop():
            return
        backlog, self._backlog = self._backlog, None
        if backlog is not None:
            self._service.tempo.slice.begin()  # waiting is no work
            self._run(backlog)
        if not self._must_stop():
            self._negotiate(b"")
        self.link.regulate()

    def _must_stop(self) -> bool:
        """Whether nothing may be processed now: a handler waits, our output does, or this is the end."""
        return self._waiting or self.link.clogged or self.link.is_over

    def _give_up(self, error: Exception) -> None:
        log.error("stream-failed", exc_info=error, extra={"jid": self.account, "peer": self.peer})
        self.fail(StreamError("internal-server-error"))

    # what a session and the service say

    def write(self, data: bytes) -> None:
        """Send one first-level element now, or, while it negotiates, with all else that is said to what was
        read.
        """
        if self._unsaid is None:
            self.link.write(data)
        else:
            self.write_all((data,))

    def write_all(self, elements: Sequence[bytes]) -> None:
        """Send several."""
        if self._unsaid is None:
            self.link.write_all(elements)
            return
        self._unsaid += elements
        if self.session is not None:
            self._say()  # what sessions are sent is bounded elsewhere

    def _say(self) -> None:
        unsaid, self._unsaid = self._unsaid, None
        if unsaid:
            self.link.write_all(unsaid)

    def close(self, error: StreamError | None) -> None:
        """End the stream from our side (RFC 6120 4.4, 4.9)."""
        self.session = self._backlog = None
        last = [] if error is None else [build.stream_error(error)]
        if self._negotiation is not None and not self._negotiation.greeted:
            domain = self.domain or self._service.default_domain
            last.insert(0, self.framing.header(domain, "", self._service.lang))
        self._say()
        self.link.finish([*last, self.framing.end()])

    def fail(self, error: StreamError | None) -> None:
        """End the stream because of the client; its session goes first, so that nothing more is sent
        to it.
        """
        session = self.session
        if session is not None:
            self._service.binding.end(session, error)
        else:
            if error is not None and not self.link.is_over:
                self._service.reports.tell("stream-refused", self.peer, reason=error.condition)
            self.close(error)

    def depart(self, error: StreamError) -> None:
        """End the stream because this node stops."""
        if self.session is not None:
            self._service.depart(self.session, error)
        else:
            self.fail(error)

    def ping(self, id: str) -> None:
        """Ask the client whether it is still there (XEP-0199)."""
        session = self.session
        if session is not None:
            head = build.start_tag("iq", {"type": "get", "id": id, "from": self.domain, "to": session.full})
            session.send(head + b">" + PING + b"</iq>")

    # negotiation

    def _negotiate(self, data: bytes) -> None:
        """One first-level element at a time: each may change how the bytes behind it are to be read. What is
        said to all of them is written once.
        """
        if self._negotiation is not None:
            self._unsaid = []
        while events := self.framing.feed(data):
            data = b""
            self._run(iter(events))
            if self._must_stop():
                break
        self._say()

    def _meet(self, event: Event | Pause) -> Waiting:
        """An event of a stream that is not bound, or anything but a stanza on one that is."""
        if isinstance(event, Stanza):
            return self._element(event)
        if isinstance(event, StreamOpen):
            self._open(event)
        elif isinstance(event, StreamClose):
            return self.ended()
        elif isinstance(event, Pause):
            self.link.heard = self._service.tempo.clock()  # it is we who do not listen
            return self._service.tempo.turns.rest(event.seconds)
        else:
            self.fail(event)
        return None

    def _element(self, stanza: Stanza) -> Waiting:
        rows = self._service.rows
        if self.session is not None:
            return rows.bound[stanza.kind](self, stanza)
        return rows.negotiator(self, stanza)(self, stanza)

    def ended(self) -> Waiting:
        """See `Negotiable.ended`."""
        if self.managed is not None:
            self.managed.closing()
        if self._line is not None and (rest := self._line.until(0)) is not None:
            return self._end_later(rest)
        self.fail(None)
        return None

    async def _end_later(self, rest: Awaitable[None]) -> None:
        await rest
        self.ended()

    def _open(self, opening: StreamOpen) -> None:
        """Answer a stream header with ours and the features of the moment (RFC 6120 4.3)."""
        service, negotiation = self._service, self._negotiation
        assert negotiation is not None
        try:
            domain = openings.domain_of(opening, service.domains)
            if negotiation.login is not None and domain != self.domain:
                raise StreamError("not-authorized", "The domain changed in mid-stream.")
        except StreamError as error:
            self.fail(error)
            return
        self.domain = domain
        self.lang = openings.lang_of(opening)
        negotiation.greeted = True
        negotiation.mark = service.mark()
        negotiation.phase = Phase.LOGIN if negotiation.login is None else Phase.BIND
        negotiation.sender = openings.sender_of(opening)
        header = self.framing.header(domain, negotiation.sender, service.lang)
        self.write_all((header, service.rows.features(self)))

    def exchanging(self, is_going_on: bool, phase: Phase = Phase.EXCHANGE) -> None:
        """See `Negotiable.exchanging`."""
        assert self._negotiation is not None
        self._negotiation.phase = phase if is_going_on else Phase.LOGIN

    def reopen(self) -> None:
        """See `Negotiable.reopen`."""
        assert self._negotiation is not None
        self._negotiation.phase = Phase.HEADER
        self._negotiation.greeted = False
        self.framing.restart()

    def encrypt(self) -> None:
        """See `Negotiable.encrypt`. Plaintext that is here already is thrown away."""
        assert self._negotiation is not None
        self._negotiation.phase = Phase.HEADER
        self._negotiation.greeted = False
        self.framing.restart(discard=True)
        self._say()
        self.link.start_tls(self.domain)

    def authenticated(self, login: Login) -> None:
        """See `Negotiable.authenticated`."""
        negotiation = self._negotiation
        assert negotiation is not None
        negotiation.login = login
        negotiation.phase = Phase.BIND
        negotiation.kept.clear()
        log.info("login", extra={"jid": login.account, "peer": self.peer})

    def bound(self, session: Session) -> None:
        """Stanzas flow from now on, as those of this session."""
        service = self._service
        self.session = session
        session.line = self._line  # and no more that of a stream before, where it is resumed
        self._negotiation = None
        self.framing.limits = service.limits
        self.framing.stepwise = False
        if service.rules.stanza_rate:
            self._bucket = TokenBucket(service.rules.stanza_rate, service.rules.stanza_burst)
        service.has_bound(self)
