"""Logins whose time is over: their sessions are told of, and closed when nobody gives them more."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

from xmppd.core.sessions import Session
from xmppd.errors import StreamError
from xmppd.hooks import Hooks

OVER = "Log in again: the time of this login is over."


class Expiry:
    """Knows when sessions expire. `grace` is how many seconds plugins have to renew one, `now` gives seconds
    since the epoch. Sessions that never expire cost nothing.
    """

    def __init__(
        self,
        hooks: Hooks,
        end: Callable[[Session, StreamError | None], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        now: Callable[[], float],
        grace: float,
    ) -> None:
        self._hooks = hooks
        self._end = end
        self._spawn = spawn
        self._now = now
        self.grace = grace
        self._due: list[tuple[float, int, Session, float]] = []
        self._numbers = itertools.count()

    def watch(self, session: Session) -> None:
        """A session was bound, or was given another end."""
        if (expires := session.login.expires) is not None:
            self._add(expires, session, expires)

    def _add(self, moment: float, session: Session, expires: float) -> None:
        heapq.heappush(self._due, (moment, next(self._numbers), session, expires))

    def look(self) -> None:
        """Tell of sessions that expired, and end those that did some time ago."""
        now = self._now()
        while self._due and self._due[0][0] <= now:
            moment, _, session, expires = heapq.heappop(self._due)
            if session.is_over or session.login.expires != expires:
                continue
            if moment < expires + self.grace:
                self._add(expires + self.grace, session, expires)
                if self._hooks.session_expired_signal:
                    self._spawn(self._hooks.tell_in_order(self._hooks.session_expired_signal, session))
            else:
                self._end(session, StreamError("reset", OVER))
