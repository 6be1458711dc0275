"""Managed sessions of this node (XEP-0198): found by their ids, asked whether they are there, detached and
bounded.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from xmppd.core.managed import Managed, ManagedStream, ManagementRules, Route
from xmppd.core.output import SLICE_SECONDS
from xmppd.core.outstanding import Fellow, Former, Unacked
from xmppd.core.past import Past
from xmppd.core.questions import CallLater
from xmppd.core.quiet import beneath, wake
from xmppd.core.sessions import Session, Sessions
from xmppd.errors import StreamError
from xmppd.hooks import Hooks

log = logging.getLogger(__name__)

EVERY: Final = 5
"""Of so many stanzas at once an acknowledgement is asked for, of fewer after ASK_SECONDS."""
ASK_SECONDS: Final = 2.0
ACKNOWLEDGE_SECONDS: Final = 60.0
"""Who does not acknowledge for so long after he was asked is not there."""

LeftOver = Callable[[str, Iterable[Unacked]], None]
"""Sees to what a session, by its full JID, had not acknowledged when it ended."""


class Resumption:
    """The managed sessions. `end` ends one, `left_over` sees to what it had not acknowledged; `now` gives
    seconds since the epoch, `clock` seconds that never jump. Call `look` about once a second. `process` is a
    random name of this process, which the ids of sessions that began in it begin with.
    """

    def __init__(
        self,
        rules: ManagementRules,
        *,
        sessions: Sessions,
        route: Route,
        end: Callable[[Session, StreamError | None], None],
        left_over: LeftOver,
        hooks: Hooks,
        call_soon: Callable[[Callable[[], None]], object],
        call_later: CallLater,
        clock: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self.process = secrets.token_urlsafe(6)
        self.rules = rules
        self.route = route
        self.call_later = call_later
        self.now = now
        self._sessions = sessions
        self._end = end
        self._left_over = left_over
        self._hooks = hooks
        self._call_soon = call_soon
        self._clock = clock
        self._size = 0
        self._by_id: dict[str, Managed] = {}
        self._detached: dict[str, list[Managed]] = {}
        self._taken: dict[Managed, object] = {}
        self._past = Past(clock)
        self._ending: dict[str, Managed] = {}
        # In the order of when they are due: who has something unacknowledged, since when, or was asked.
        self._unasked: dict[Managed, float] = {}
        self._asked: dict[Managed, float] = {}

    def __len__(self) -> int:
        """How many sessions are detached."""
        return sum(map(len, self._detached.values()))

    @property
    def size(self) -> int:
        """Bytes that are kept for all."""
        return self._size

    # negotiation

    def manage(self, session: Session, stream: ManagedStream, *, resumable: bool, most: float = 0) -> Managed:
        """Begin to manage a session; `most`: seconds that its client wants it to be kept for, 0: as usual."""
        rules = self.rules
        is_kept = resumable and rules.seconds > 0 and not session.is_anonymous
        seconds = min(most or rules.seconds, rules.longest) if is_kept else 0.0
        id = f"{self.process}{secrets.token_urlsafe(16)}" if seconds else ""
        session.flush()  # what it was sent before is not counted
        managed = session.managed = Managed(session, stream, self, id, seconds)
        beneath(session, managed)
        if id:
            self._by_id[id] = managed
        return managed

    def revive(
        self, session: Session, id: str, state: Mapping[str, Any], unacked: Sequence[Unacked]
    ) -> Managed:
        """Go on with what another node gave of a session (`Handover`), whose client has not acknowledged
        that; its stream is still to be attached.
        """
        seconds = min(state["seconds"], self.rules.longest)
        managed = session.connection = session.managed = Managed(session, None, self, id, seconds)
        self._by_id[id] = managed
        managed.former = tuple(Former(*name) for name in state.get("former", ())) or None
        managed.revive(state["received"], state["sent"], unacked)
        return managed

    def find(self, id: str, account: str) -> Managed | None:
        """The session of that account to be resumed by this id."""
        managed = self._by_id.get(id)
        return managed if managed is not None and managed.session.account == account else None

    def waiting(self, second: int) -> list[Session]:
        """Those whose clients have not acknowledged all that they were sent up to that second, and that is
        known.
        """
        return [one.session for one in self._behind() if one.is_kept and not one.has_had(second)]

    def _behind(self) -> dict[Managed, None]:
        """All whose clients have not acknowledged something, and some more."""
        detached = (managed for some in self._detached.values() for managed in some)
        return dict.fromkeys((*self._unasked, *self._asked, *self._taken, *detached))

    def handled_of(self, id: str, account: str) -> int | None:
        """How many stanzas of one that is not to be resumed any more were handled, if that is known."""
        return self._past.handled(id, account)

    def sought(self, id: str, account: str) -> None:
        """A client came for a session: if that has ended here, and something of it is still under way, it
        sends that again.
        """
        managed = self._ending.get(id)
        if managed is not None and managed.session.account == account:
            del self._ending[id]
            managed.give_up()

    def take(self, managed: Managed, by: object, why: StreamError | None = None) -> None:
        """A stream resumes it, or it goes elsewhere: what it still has as one ends. It may yet be taken from
        `by` again.
        """
        self._forget_detached(managed)
        stream, managed.stream = managed.stream, None
        self._taken[managed] = by
        self._unasked.pop(managed, None)
        self._asked.pop(managed, None)
        wake(managed.session)  # whoever comes back is active (XEP-0352 5.2), and nothing is left in between
        if stream is not None:
            stream.managed = None
            stream.close(why or StreamError("conflict", "Another stream has resumed this session."))

    def is_taken(self, managed: Managed, by: object, *, is_gone: bool) -> bool:
        """Whether it is still there for who took it; if that `is_gone`, it is detached again."""
        if self._taken.get(managed) is not by:
            return False
        del self._taken[managed]
        if is_gone and not self.lost(managed):
            self._end(managed.session, None)
        return not is_gone and bool(managed.seconds)

    def release(self) -> None:
        """Give up the room of those that have ended: a dict keeps the table of its greatest size."""
        for table in (self._by_id, self._detached, self._taken, self._unasked, self._asked, self._ending):
            left = [*table.items()]
            table.clear()
            table.update(left)

    # what they tell

    def takers(self, session: Session) -> tuple[Fellow, ...]:
        """See `Keeper.takers`."""
        live = session.live
        if not live.is_split:
            return live.takers
        return (*live.open_to, *self._sessions.cluster.fellows(session))

    def must_ask(self, managed: Managed) -> bool:
        """See `Keeper.must_ask`."""
        if managed in self._asked:
            return False
        if managed.sent - managed.acked < EVERY:
            self._unasked.setdefault(managed, self._clock())
            return False
        self.asks(managed)
        return True

    def asks(self, managed: Managed) -> None:
        """See `Keeper.asks`."""
        self._unasked.pop(managed, None)
        self._asked.pop(managed, None)
        self._asked[managed] = self._clock()

    def heard(self, managed: Managed) -> None:
        """See `Keeper.heard`."""
        self._asked.pop(managed, None)
        self._unasked.pop(managed, None)
        if managed.sent > managed.acked:
            self._unasked[managed] = self._clock()

    def grown(self, managed: Managed, size: int) -> None:
        """See `Keeper.grown`."""
        self._size += size
        if size > 0:
            rules = self.rules
            if len(managed.unacked) > rules.stanzas or managed.size > rules.bytes:
                self._overflown(managed)
            if self._size > rules.together:
                self._relieve(managed, rules.together - rules.together // 16)

    def lost(self, managed: Managed) -> bool:
        """See `Keeper.lost`."""
        self._unasked.pop(managed, None)
        self._asked.pop(managed, None)
        session = managed.session
        if not managed.seconds:
            return False
        others = self._detached.setdefault(session.account, [])
        others.append(managed)
        managed.detached_at = self.now()
        self._hooks.tell(self._hooks.session_detached_signal, session)
        managed.timer = self.call_later(managed.seconds, lambda: self._expire(managed))
        log.info("session-detached", extra={"jid": session.full, "unacked": len(managed.unacked)})
        if len(others) > self.rules.detached:
            self._end(others[0].session, None)
        return True

    def waits(self, managed: Managed, stanzas: Sequence[bytes]) -> None:
        """See `Keeper.waits`."""
        self._hooks.tell(self._hooks.stanzas_waiting_signal, managed.session, stanzas)

    def over(self, managed: Managed) -> None:
        """See `Keeper.over`."""
        if managed.id:
            self._past.note(managed.id, managed.session.account, managed.h)
            if managed.is_busy:
                self._ending[managed.id] = managed
            else:
                self._ending.pop(managed.id, None)
        if managed.is_over:
            return
        managed.end()
        self._by_id.pop(managed.id, None)
        self._forget_detached(managed)
        self._taken.pop(managed, None)
        self._unasked.pop(managed, None)
        self._asked.pop(managed, None)
        self._sessions.cluster.had(managed.session, managed.unread_from)
        managed.forsake()
        self._left_over(managed.session.full, managed.left_over())
        managed.let_go()

    def failed(self, managed: Managed, error: StreamError) -> None:
        """See `Keeper.failed`."""
        self._end(managed.session, error)

    # bounds

    def keep_for(self, session: Session, seconds: float | None) -> None:
        """For how long a session that may be resumed waits for its client; None: as usual."""
        managed: Managed | None = session.managed
        if managed is not None and managed.seconds:
            managed.seconds = self.rules.seconds if seconds is None else seconds

    def _expire(self, managed: Managed) -> None:
        if managed.stream is None:
            self._end(managed.session, None)

    def _forget_detached(self, managed: Managed) -> None:
        if managed.timer is None:
            return
        managed.timer.cancel()
        managed.timer = None
        account = managed.session.account
        others = self._detached[account]
        others.remove(managed)
        if not others:
            del self._detached[account]

    def _overflown(self, managed: Managed) -> None:
        """More is kept than may be: a detached session ends, when whoever sends is done."""
        jid, count = managed.session.full, len(managed.unacked)
        if managed.stream is not None:
            log.warning("session-not-resumable", extra={"jid": jid, "unacked": count})
            managed.let_go()
        elif managed.seconds:
            log.warning("session-not-resumable", extra={"jid": jid, "unacked": count})
            managed.seconds = 0
            self._call_soon(lambda: self._end(managed.session, None))

    def _relieve(self, grown: Managed, left: int) -> None:
        """Keep no more than so many bytes: those with most go first."""
        size = self._size
        for managed in sorted({**self._behind(), grown: None}, key=lambda managed: -managed.size):
            if size <= left:
                break
            size -= managed.size
            self._overflown(managed)

    def look(self) -> None:
        """Ask who has something unacknowledged for long, and give up who does not answer."""
        end, now = time.perf_counter() + SLICE_SECONDS, self._clock()
        for waiting, seconds, act in (
            (self._unasked, ASK_SECONDS, Managed.ask),
            (self._asked, ACKNOWLEDGE_SECONDS, self._give_up),
        ):
            while waiting:
                managed, since = next(iter(waiting.items()))
                if since > now - seconds:
                    break
                del waiting[managed]
                act(managed)
                if time.perf_counter() > end:
                    self._call_soon(self.look)
                    return

    def _give_up(self, managed: Managed) -> None:
        stream = managed.stream
        if stream is not None:
            log.info("unacknowledged", extra={"jid": managed.session.full, "peer": stream.peer})
            stream.unheard()
