"""Stream management of one session (XEP-0198): what its client sends is counted, and what it is sent is kept
until its client has it. It stands between a session and its stream, and goes on without one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from xmppd import ns
from xmppd.core.later import Act, Later, Pending
from xmppd.core.output import Connection
from xmppd.core.outstanding import Awaited, Fellow, Former, Outstanding, Unacked
from xmppd.core.questions import Timer
from xmppd.core.sessions import Session
from xmppd.errors import StreamError
from xmppd.xml.stanza import Stanza

MODULO: Final = 1 << 32
"""Counters on the wire are unsigned and have 32 bits (XEP-0198 4)."""

REQUEST: Final = f"<r xmlns='{ns.SM}'/>".encode()

NEVER: Final = 1 << 62
"""A second that does not come."""

APART: Final = 2
"""So many seconds later a message may have been sent to one session of an account than to another: clocks of
nodes differ, and it is on its way, or written, for a while.
"""

ANSWER_SECONDS: Final = 1.0
"""How long a request to acknowledge waits for what is under way."""

FINISH_SECONDS: Final = 2.0
"""How long who resumes a session waits for what it sent before to be handled: it would send that again."""

Route = Callable[[Session, Stanza], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class ManagementRules:
    """A client that does not say how long its session shall be kept for it has `seconds`, others at most
    `longest`; so many `detached` ones an account. Of what it has not acknowledged so many `stanzas` and
    `bytes` are kept for one session, and bytes `together` for all. `location`: where a client should come
    back to, "" for wherever it finds.
    """

    seconds: float = 300.0
    longest: float = 600.0
    detached: int = 3
    stanzas: int = 1000
    bytes: int = 1_048_576
    together: int = 268_435_456
    location: str = ""


class ManagedStream(Connection, Protocol):
    """A stream as stream management sees it."""

    managed: Any
    """The `Managed` of its session, which takes its stanzas, or None."""

    def unheard(self) -> None:
        """Nobody is at the other end any more."""


class Keeper(Protocol):
    """What all that are managed have in common."""

    route: Route
    rules: ManagementRules
    now: Callable[[], float]
    call_later: Callable[[float, Callable[[], None]], Timer]

    def takers(self, session: Session) -> tuple[Fellow, ...]:
        """Who takes messages to its account now, on all nodes."""

    def must_ask(self, managed: Managed) -> bool:
        """More is sent; whether it ends with a request to acknowledge."""

    def asks(self, managed: Managed) -> None:
        """It ends with one."""

    def heard(self, managed: Managed) -> None:
        """Some was acknowledged."""

    def grown(self, managed: Managed, size: int) -> None:
        """So many bytes more are kept, or less."""

    def lost(self, managed: Managed) -> bool:
        """Its stream is gone; whether it goes on without."""

    def waits(self, managed: Managed, stanzas: Sequence[bytes]) -> None:
        """It was sent these while it is without a stream."""

    def over(self, managed: Managed) -> None:
        """Its session has ended, or its last stanza was handled after that."""

    def failed(self, managed: Managed, error: StreamError) -> None:
        """What it sent before its stream was gone ends it."""


class Managed:
    """The connection of a managed session. `stream` is None while it is detached; `seconds` is how long it
    may be so, 0: not at all. Stanzas are numbered from 1 and counters never begin anew here, but on the wire.

    `received`: stanzas of the client; `sent`: to it, of which it `acked` some. The others are `unacked`, as
    they were written, `size` bytes in all, unless they were too many (`is_kept`). `detached_at`: when it was
    detached last, in seconds since the epoch, 0: never here. `era`: how often what the client sent was given
    up. `is_given`: another node has the session now; `is_over`: nobody has it: its client has acknowledged
    what it was sent before the second `unread_from`. On other nodes it had its `former` names. What is idle
    has no list of anything.
    """

    __slots__ = (
        "_again",
        "_asked",
        "_awaited",
        "_expected",
        "_idle",
        "_keeper",
        "_outstanding",
        "_pending",
        "acked",
        "detached_at",
        "era",
        "former",
        "id",
        "is_given",
        "is_kept",
        "is_over",
        "received",
        "seconds",
        "sent",
        "session",
        "stream",
        "timer",
        "unread_from",
    )

    def __init__(
        self, session: Session, stream: ManagedStream | None, keeper: Keeper, id: str, seconds: float
    ) -> None:
        self.id = id
        self.session = session
        self.stream: ManagedStream | None = None
        self.seconds = seconds
        self.received = 0
        self.sent = self.acked = 0
        self.is_kept = True
        self.is_given = False
        self.era = self._again = 0
        self.is_over = False
        self.unread_from = 0
        self.detached_at = 0.0
        self.former: tuple[Former, ...] | None = None
        self.timer: Timer | None = None
        self._keeper = keeper
        self._outstanding: Outstanding | None = None
        self._expected: dict[int, Awaited] | None = None
        self._awaited: dict[int, Awaited] | None = None
        self._pending: list[int] | None = None
        self._asked: tuple[int, Timer] | None = None
        self._idle: asyncio.Future[None] | None = None
        if stream is not None:
            self.attach(stream)

    # its stream

    def attach(self, stream: ManagedStream) -> None:
        """Go on with this stream; nothing is written to it yet."""
        self.stream = stream
        stream.managed = self

    def resend(self) -> None:
        """Write what the client has not acknowledged, in order and as it was."""
        if self.stream is not None and self._outstanding is not None:
            self._keeper.asks(self)
            self.stream.write_all((*self._outstanding.raw, REQUEST))
        self.session.drained()

    def ask(self) -> None:
        """Request an acknowledgement."""
        if self.stream is not None:
            self._keeper.asks(self)
            self.stream.write(REQUEST)

    def revive(self, received: int, sent: int, unacked: Sequence[Unacked]) -> None:
        """Go on where a session on another node ended: its counters, and what is unacknowledged."""
        self.received, self.sent, self.acked = received, sent, sent - len(unacked)
        if unacked:
            outstanding = self._outstanding = Outstanding()
            for number, one in enumerate(unacked, self.acked):
                takers = (self.session, *one.others) if one.others else ()
                outstanding.add((one.raw,), number, one.second, takers)
                if one.is_stored:
                    self._awaits(number + 1, Awaited(one.raw, _nobody, is_stored=True))
            self._keeper.grown(self, outstanding.size)

    def lost(self) -> bool:
        """The stream is gone; whether the session goes on without."""
        self.stream = None
        return self._keeper.lost(self)

    def closing(self) -> None:
        """The client ends its session (XEP-0198 7): it is not to be resumed."""
        self.seconds = 0

    def let_go(self) -> None:
        """Keep nothing from now on, so that it cannot be resumed."""
        self.seconds = 0
        self.is_kept = False
        outstanding, self._outstanding = self._outstanding, None
        if outstanding is not None:
            self._keeper.grown(self, -outstanding.size)
        self._wait_no_more(lambda one: not one.is_stored)

    def forsake(self) -> None:
        """Its client will acknowledge nothing more of what is kept for its account."""
        for one in [*(self._awaited or {}).values(), *(self._expected or {}).values()]:
            if one.is_stored:
                one.told(False)

    def disown(self, sent: int) -> None:
        """Up to this number it is seen to elsewhere what its client has not acknowledged."""
        self._wait_no_more(lambda one: True, sent)
        self.acknowledged(sent % MODULO)

    def _wait_no_more(self, is_due: Callable[[Awaited], bool], most: int | None = None) -> None:
        unsent = self._expected or {}
        for waiting in (self._awaited or {}, unsent if most is None else {}):
            for key, one in [*waiting.items()]:
                if is_due(one) and (most is None or key <= most):
                    del waiting[key]
                    one.told(False)

    # as its session's connection

    @property
    def peer(self) -> str:
        """The client's address, "" while it is detached."""
        return "" if self.stream is None else self.stream.peer

    @property
    def secure(self) -> bool:
        """Whether TLS protects the stream."""
        return self.stream is not None and self.stream.secure

    @property
    def clogged(self) -> bool:
        """Whether bursts wait: for the client to come back, to read, or to acknowledge."""
        stream = self.stream
        return stream is None or stream.clogged or len(self.unacked) > self._keeper.rules.stanzas // 2

    @property
    def unacked(self) -> list[bytes]:
        """What its client has not acknowledged, in order; not to be changed."""
        return [] if self._outstanding is None else self._outstanding.raw

    @property
    def size(self) -> int:
        """How many bytes that is."""
        return 0 if self._outstanding is None else self._outstanding.size

    def write(self, data: bytes) -> None:
        """Send one stanza."""
        self.write_all((data,))

    def write_all(self, stanzas: Sequence[bytes]) -> None:
        """Send several, and keep them until they are acknowledged."""
        self._keep(stanzas)
        stream = self.stream
        if stream is not None:
            stream.write_all((*stanzas, REQUEST) if self._keeper.must_ask(self) else stanzas)
        elif self.timer is not None:
            self._keeper.waits(self, stanzas)

    def close(self, error: StreamError | None) -> None:
        """The session is over."""
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.close(error)
        self._keeper.over(self)

    def _keep(self, stanzas: Sequence[bytes]) -> None:
        before = self.sent
        self.sent += len(stanzas)
        if self._expected:
            self._note(stanzas, before)
        if not self.is_kept:
            return
        outstanding, keeper = self._outstanding, self._keeper
        if outstanding is None:
            outstanding = self._outstanding = Outstanding()
        size = outstanding.add(stanzas, before, int(keeper.now()), keeper.takers(self.session))
        keeper.grown(self, size)

    # what its client acknowledges

    def acknowledged(self, h: int) -> None:
        """The client has handled so many (XEP-0198 4). StreamError when it was sent fewer."""
        count = (h - self.acked) % MODULO
        if count > self.sent - self.acked:
            if count >= MODULO // 2:
                return  # less than it has acknowledged before
            raise too_high(h, self.sent)
        was_clogged = self.clogged
        self.acked += count
        outstanding = self._outstanding
        if outstanding is not None and count:
            self._keeper.grown(self, -outstanding.remove(count, self.acked))
            if not outstanding.raw:
                self._outstanding = None
        if self._awaited:
            self._tell(self.acked)
        self._keeper.heard(self)
        if was_clogged:
            self.session.drained()

    def end(self) -> None:
        """Nobody has it."""
        self.is_over = True
        self.unread_from = self.had_until

    @property
    def had_until(self) -> int:
        """Before which second its client has acknowledged all that it was sent; 0: nobody knows."""
        if not self.is_kept:
            return 0
        return NEVER if self._outstanding is None else self._outstanding.second

    def has_had(self, second: int) -> bool:
        """Whether its client has acknowledged all that was sent up to that second."""
        return second < self.had_until

    def when_had(self, raw: bytes, told: Callable[[bool], None], *, is_stored: bool = False) -> None:
        """Tell when the client has acknowledged this stanza, which was just sent to the session or is about
        to be, or when that is not waited for any more. One that `is_stored` is kept for its account until it
        was: nobody has to see to it when the session ends.
        """
        if self._expected is None:
            self._expected = {}
        self._expected[id(raw)] = Awaited(raw, told, is_stored)

    def stored(self) -> Iterator[tuple[int, bytes]]:
        """What is unacknowledged of that, each with its number."""
        return ((number, one.raw) for number, one in (self._awaited or {}).items() if one.is_stored)

    def when_stored_had(self, number: int, told: Callable[[bool], None]) -> None:
        """Tell when the client has acknowledged one of those, unless it has."""
        if self._awaited is not None and (one := self._awaited.get(number)) is not None:
            self._awaited[number] = one._replace(told=told)

    def _note(self, stanzas: Sequence[bytes], before: int) -> None:
        """Number those that somebody waits for."""
        expected = self._expected
        for number, raw in enumerate(stanzas, before + 1):
            if expected and (one := expected.pop(id(raw), None)) is not None:
                self._awaits(number, one)
        self._expected = expected or None

    def _awaits(self, number: int, one: Awaited) -> None:
        if self._awaited is None:
            self._awaited = {}
        self._awaited[number] = one

    def _tell(self, count: int) -> None:
        awaited = self._awaited
        while awaited and (first := next(iter(awaited))) <= count:
            awaited.pop(first).told(True)
        self._awaited = awaited or None

    def left(self) -> Iterator[Unacked]:
        """What it has not, in order."""
        outstanding = self._outstanding
        if outstanding is None:
            return iter(())
        stored = frozenset(number for number, _ in self.stored()) if self._awaited else ()
        return outstanding.left(self.acked, self.session, stored)

    def left_over(self) -> list[Unacked]:
        """Those of them that somebody has to see to when nobody has the session: not what is stored, nor what
        the client has answered.
        """
        found = self._outstanding
        if found is None:
            return []
        return [one for one in self.left() if not (one.is_stored or found.is_answered(one.raw))]

    # what its client sends

    @property
    def handled(self) -> int:
        """How many of its stanzas are: those before the first one that is still under way."""
        return self._through - self._again

    @property
    def _through(self) -> int:
        """The number of the last of them."""
        return self._pending[0] - 1 if self._pending else self.received

    @property
    def h(self) -> int:
        """The same as it stands on the wire."""
        return self.handled % MODULO

    def take(self, session: Session, stanza: Stanza) -> Awaitable[None] | None:
        """Route one, and count it as handled when its effects are durable."""
        if stanza.kind == "iq" and self._outstanding is not None:
            self._outstanding.answered(stanza)
        waiting = self._keeper.route(session, stanza)
        number = self.received = self.received + 1
        if waiting is None:
            return None
        if self._pending is None:
            self._pending = [number]
        else:
            self._pending.append(number)
        return self._followed(number, waiting)

    def _followed(self, number: int, waiting: Awaitable[None] | None) -> Awaitable[None] | None:
        """What has to be awaited of it, after which it counts."""
        if waiting is None:
            self._finished(number)
            return None
        if isinstance(waiting, Pending):
            waiting.act = partial(self._act, number, waiting.act)
            return waiting
        rest = self._finish(number, waiting)
        return Later(rest, waiting.size) if isinstance(waiting, Later) else rest

    def _act(self, number: int, act: Act, pending: Pending) -> Awaitable[None] | None:
        """It is its turn."""
        try:
            waiting = act(pending)
        except StreamError as error:
            self._failed(error)
            self._finished(number)
            raise
        return self._followed(number, waiting)

    async def _finish(self, number: int, waiting: Awaitable[None]) -> None:
        try:
            await waiting
        except StreamError as error:
            self._failed(error)
            raise
        finally:
            self._finished(number)

    def _failed(self, error: StreamError) -> None:
        if self.stream is None:
            self._keeper.failed(self, error)

    def _finished(self, number: int) -> None:
        pending = self._pending
        if pending is None or number not in pending:
            return  # it was given up
        pending.remove(number)
        if not pending:
            self._pending = None
        if self._asked is not None and self._through >= self._asked[0]:
            self._answer()
        if not self._pending and self._idle is not None:
            let_go(self._idle)
        if self.session.is_over:
            self._keeper.over(self)

    def asked(self) -> None:
        """The client wants to know how many; what is under way is waited for, but not for long."""
        if not self._pending:
            self._answer()
        elif self._asked is None:
            self._asked = self.received, self._keeper.call_later(ANSWER_SECONDS, self._answer)

    def _answer(self) -> None:
        asked, self._asked = self._asked, None
        if asked is not None:
            asked[1].cancel()
        self.session.flush()  # answers to what is acknowledged come first
        if self.stream is not None:
            self.stream.write(f"<a xmlns='{ns.SM}' h='{self.h}'/>".encode())

    def idle(self, seconds: float) -> asyncio.Future[None] | None:
        """What is done when nothing of the client is under way, or so much later; None if nothing is."""
        if not self._pending:
            return None
        idle = self._idle = asyncio.get_running_loop().create_future()
        timer = self._keeper.call_later(seconds, lambda: let_go(idle))
        idle.add_done_callback(lambda _: timer.cancel())
        return idle

    @property
    def is_busy(self) -> bool:
        """Whether anything that its client sent is not handled yet."""
        return bool(self._pending)

    def give_up(self) -> None:
        """What is still under way is not waited for, and what of it nobody has begun is begun no more: its
        client sends it again. No number of those is used twice, for they may yet end.
        """
        self._again += self.received - self._through
        self.era += 1
        self._pending = None


def _nobody(is_had: bool) -> None:
    """Nobody is told yet."""


def let_go(waiting: asyncio.Future[None]) -> None:
    """Nobody waits for this any more; harmless if repeated."""
    if not waiting.done():
        waiting.set_result(None)


def too_high(h: int, sent: int) -> StreamError:
    """What ends the stream of who acknowledges what it was not sent (XEP-0198 6)."""
    sent %= MODULO
    text = f"You acknowledged {h} stanzas, but I only sent you {sent} so far."
    extra = f"<handled-count-too-high xmlns='{ns.SM}' h='{h}' send-count='{sent}'/>"
    return StreamError("undefined-condition", text, extra=extra.encode())
