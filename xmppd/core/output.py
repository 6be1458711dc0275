"""The last hop of a stanza: out-lists, the cork that writes each of them once in a turn of the loop, and what
a session writes to.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

from xmppd.errors import StreamError

log = logging.getLogger(__name__)

LARGE = 16384
"""Bytes of a stanza that is not worth joining with others."""

MANY = 64
"""Copies for one session that are joined at most, so that what waits is bounded."""

MOST = 256
"""Stanzas of bursts that are joined at most."""

SLICE_SECONDS = 0.0003
"""How long copies are written in one turn of the loop: whatever else is to be done waits no longer for a
broadcast to thousands.
"""

KEPT_BYTES = 4_194_304
"""How much is kept for a session that cannot be written to, where nothing else is said."""

PATIENCE_SECONDS = 5.0
"""How long what a client asks waits for it to read what came before the answer."""


class Connection(Protocol):
    """What a session needs of the wire that carries it."""

    @property
    def peer(self) -> str:
        """The client's address, for operators."""

    @property
    def secure(self) -> bool:
        """Whether TLS protects the stream."""

    @property
    def clogged(self) -> bool:
        """Whether more is unsent than the client should leave unread: bursts wait. When that is over,
        `Session.drained` is called.
        """

    def write(self, data: bytes) -> None:
        """Send one stanza now."""

    def write_all(self, stanzas: Sequence[bytes]) -> None:
        """Send several stanzas now; the list is the caller's again afterwards."""

    def close(self, error: StreamError | None) -> None:
        """End the stream, with an error or without."""


class Nowhere:
    """The connection of a session that is over. What is written to it is gone."""

    __slots__ = ()
    peer: Final = ""
    secure: Final = False
    clogged: Final = True

    def write(self, data: bytes) -> None:
        """Nobody reads it."""

    def write_all(self, stanzas: Sequence[bytes]) -> None:
        """Nobody reads them."""

    def close(self, error: StreamError | None) -> None:
        """There is no stream."""


NOWHERE: Final = Nowhere()


class Kept(list[bytes]):
    """The out-list of a session that must not be written to yet: it is there from the beginning, so nobody
    has it written. Of more than `bound` bytes `overflown` is told, once, and what comes then is dropped.
    """

    __slots__ = ("_left", "_overflown")

    def __init__(self, bound: int, overflown: Callable[[], object]) -> None:
        super().__init__()
        self._left = bound
        self._overflown: Callable[[], object] | None = overflown

    def append(self, data: bytes) -> None:
        """Keep a stanza."""
        self._left -= len(data)
        if self._left >= 0:
            super().append(data)
        elif self._overflown is not None:
            overflown, self._overflown = self._overflown, None
            overflown()


class Burst:
    """Stanzas that are drawn from an iterator, some at a time, as somebody can take them."""

    __slots__ = ("_done", "_pieces")

    def __init__(self, pieces: Iterator[Sequence[bytes]]) -> None:
        self._pieces = pieces
        self._done: asyncio.Future[None] | None = None

    def next(self) -> Sequence[bytes] | None:
        """The next stanzas; None when there are no others, or none can be made."""
        try:
            return next(self._pieces, None)
        except Exception:  # a mistake of ours costs the rest of this burst, and nothing else
            log.exception("burst-failed")
            return None

    def done(self) -> asyncio.Future[None]:
        """What is done when all were drawn, or nobody will draw the rest."""
        if self._done is None:
            self._done = asyncio.get_running_loop().create_future()
        return self._done

    def finish(self) -> None:
        """No more is drawn."""
        if self._done is not None and not self._done.done():
            self._done.set_result(None)


def patiently(drawn: asyncio.Future[None]) -> asyncio.Future[None]:
    """Done when a burst is, or after PATIENCE_SECONDS: who reads so slowly is heard all the same. It may be
    left alone.
    """
    loop = asyncio.get_running_loop()
    end: asyncio.Future[None] = loop.create_future()
    impatient = loop.call_later(PATIENCE_SECONDS, lambda: None if end.done() else end.set_result(None))

    def drawn_at_last(_: asyncio.Future[None]) -> None:
        impatient.cancel()
        if not end.done():
            end.set_result(None)

    drawn.add_done_callback(drawn_at_last)
    return end


class Bursts:
    """Those of one session, one after the other; `is_due` says that the cork has it on its list."""

    __slots__ = ("is_due", "queue")

    def __init__(self) -> None:
        self.queue: deque[Burst] = deque()
        self.is_due = False


class Outlet(Protocol):
    """Whom the cork writes for: a session."""

    @property
    def full(self) -> str:
        """Who it is, for the log."""

    def flush(self) -> None:
        """Write what is queued."""

    def draw(self, end: float) -> bool:
        """Queue what bursts hold until `end`; whether to go on in the next turn."""


class Cork:
    """The sessions with output waiting. Each is written to once per turn of the event loop, but for those
    that only wait for copies of what went to many: they come last, as many in a turn as SLICE_SECONDS allow.
    Then bursts are drawn for as long. Other nodes are written to behind all sessions but those: what a node
    acknowledges its clients were written.

    `kept_bytes` is how much is kept for one of them that cannot be written to, `is_due` whether any waits.
    """

    __slots__ = ("_dirty", "_givers", "_last", "_patient", "call_soon", "clock", "is_due", "kept_bytes")

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        clock: Callable[[], float] = time.perf_counter,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self.kept_bytes = kept_bytes
        self.call_soon = call_soon
        self.clock = clock
        self.is_due = False
        self._dirty: list[Outlet] = []
        self._last: list[Outlet] = []
        self._patient: deque[Outlet] = deque()
        self._givers: deque[Outlet] = deque()

    def add(self, session: Outlet) -> None:
        """Have the session's out-list written at the end of this turn; called when its first bytes
        come in.
        """
        if not self.is_due:
            self.is_due = True
            self.call_soon(self.flush)
        self._dirty.append(session)

    def add_last(self, node: Outlet) -> None:
        """Have another node written to at the end of this turn, behind sessions."""
        if not self.is_due:
            self.is_due = True
            self.call_soon(self.flush)
        self._last.append(node)

    def add_patient(self, session: Outlet) -> None:
        """The same, at the end of this turn or of one of the next."""
        if not self.is_due:
            self.is_due = True
            self.call_soon(self.flush)
        self._patient.append(session)

    def add_giver(self, session: Outlet) -> None:
        """Have the session's bursts drawn from the next turn on."""
        if not self.is_due:
            self.is_due = True
            self.call_soon(self.flush)
        self._givers.append(session)

    def flush(self) -> None:
        """Write the waiting out-lists."""
        self.is_due = False
        dirty, self._dirty = self._dirty, []
        for session in dirty:
            self._write(session)
        if self._last:
            last, self._last = self._last, []
            for node in last:
                self._write(node)
        if self._patient:
            self._write_some(self._patient)
        if self._givers:
            self._give_some(self._givers)
        if (self._patient or self._givers) and not self.is_due:
            self.is_due = True
            self.call_soon(self.flush)

    def _write_some(self, patient: deque[Outlet]) -> None:
        end = self.clock() + SLICE_SECONDS
        while patient:
            self._write(patient.popleft())
            if self.clock() > end:
                break

    def _give_some(self, givers: deque[Outlet]) -> None:
        end = self.clock() + SLICE_SECONDS
        while givers:
            session = givers.popleft()
            if session.draw(end):
                givers.append(session)
            self._write(session)
            if self.clock() > end:
                break

    @staticmethod
    def _write(session: Outlet) -> None:
        try:
            session.flush()
        except Exception:  # of one connection: all others are written to
            log.exception("write-failed", extra={"jid": session.full})
