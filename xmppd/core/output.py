"""The last hop of a stanza: out-lists, the cork that writes each of them once in a turn of the loop, and what
a session writes to.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from xmppd.errors import StreamError

log = logging.getLogger(__name__)

LARGE = 16384
"""Bytes of a stanza that is not worth joining with others."""

MANY = 64
"""Copies for one session that are joined at most, so that what waits is bounded."""

SLICE_SECONDS = 0.0003
"""How long copies are written in one turn of the loop: whatever else is to be done waits no longer for a
broadcast to thousands.
"""

KEPT_BYTES = 4_194_304
"""How much is kept for a session that cannot be written to, where nothing else is said."""


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
        """Whether more is unsent than the client should leave unread."""

    def write(self, data: bytes) -> None:
        """Send one stanza now."""

    def write_all(self, stanzas: Sequence[bytes]) -> None:
        """Send several stanzas now; the list is the caller's again afterwards."""

    def close(self, error: StreamError | None) -> None:
        """End the stream, with an error or without."""


class Nowhere:
    """The connection of a session that has none: it is detached, or over. What is written to it is gone."""

    __slots__ = ()
    peer: Final = ""
    secure: Final = False
    clogged: Final = False

    def write(self, data: bytes) -> None:
        """Nobody reads it."""

    def write_all(self, stanzas: Sequence[bytes]) -> None:
        """Nobody reads them."""

    def close(self, error: StreamError | None) -> None:
        """There is no stream."""


NOWHERE: Final = Nowhere()


class Kept(list[bytes]):
    """The out-list of a session that must not be written to now. It is never false, so nobody has it written.
    Of more than `bound` bytes `overflown` is told, once, and what comes after that is dropped.
    """

    __slots__ = ("_left", "_overflown")

    def __init__(self, before: Sequence[bytes], bound: int, overflown: Callable[[], object]) -> None:
        super().__init__(before)
        self._left = bound - sum(map(len, before))
        self._overflown: Callable[[], object] | None = overflown

    def __bool__(self) -> bool:
        return True

    def append(self, data: bytes) -> None:
        """Keep a stanza."""
        self._left -= len(data)
        if self._left >= 0:
            super().append(data)
        elif self._overflown is not None:
            overflown, self._overflown = self._overflown, None
            overflown()


class Outlet(Protocol):
    """Whom the cork writes for: a session."""

    @property
    def full(self) -> str:
        """Who it is, for the log."""

    def flush(self) -> None:
        """Write what is queued."""


class Cork:
    """The sessions with output waiting. Each is written to once per turn of the event loop, but for those
    that only wait for copies of what went to many: they come last, as many in a turn as SLICE_SECONDS allow.

    `kept_bytes` is how much is kept for one of them that cannot be written to.
    """

    __slots__ = ("_clock", "_dirty", "_is_due", "_patient", "call_soon", "kept_bytes")

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        clock: Callable[[], float] = time.perf_counter,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self.kept_bytes = kept_bytes
        self.call_soon = call_soon
        self._clock = clock
        self._is_due = False
        self._dirty: list[Outlet] = []
        self._patient: deque[Outlet] = deque()

    def add(self, session: Outlet) -> None:
        """Have the session's out-list written at the end of this turn; called when its first bytes
        come in.
        """
        if not self._is_due:
            self._is_due = True
            self.call_soon(self.flush)
        self._dirty.append(session)

    def add_patient(self, session: Outlet) -> None:
        """The same, at the end of this turn or of one of the next."""
        if not self._is_due:
            self._is_due = True
            self.call_soon(self.flush)
        self._patient.append(session)

    def flush(self) -> None:
        """Write the waiting out-lists."""
        self._is_due = False
        dirty, self._dirty = self._dirty, []
        for session in dirty:
            self._write(session)
        patient = self._patient
        if not patient:
            return
        end = self._clock() + SLICE_SECONDS
        while patient:
            self._write(patient.popleft())
            if self._clock() > end:
                break
        if patient and not self._is_due:
            self._is_due = True
            self.call_soon(self.flush)

    @staticmethod
    def _write(session: Outlet) -> None:
        try:
            session.flush()
        except Exception:  # of one connection: all others are written to
            log.exception("write-failed", extra={"jid": session.full})
