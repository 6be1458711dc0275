"""What managed sessions (XEP-0198) miss when their process is killed: found in the archive, and given to
their clients when these come back and find no session to resume.

As a rule nothing is written for a message or a session. Every few seconds a process writes up to where all of
its managed sessions have acknowledged what is in the archives, which is its `mark`, and a row for each that
is behind that.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from xmppd import hooks, ns
from xmppd.plugin import (
    Kept,
    KeptSession,
    Person,
    Session,
    StoreError,
    Table,
    escape_attribute,
    every,
    nobody,
)

from .ids import ID_LETTERS, MICROSECONDS, at_of, bound, from_text
from .ordered import Ordered

LOOK_SECONDS: Final = 2.0
"""How often it is written down how far all have got."""
BEHIND_SECONDS: Final = 6.0
"""How far the mark is behind the clock at most: a client that answers has acknowledged what is older. What is
younger than the mark may come to it twice.
"""
NEAR_SECONDS: Final = 2.0
"""How far it is at least."""
LOOKED_AT: Final = 2000
"""Of so many sessions it is found out how far they have got; where more have not acknowledged something, the
mark is where it is at most.
"""
TURNS: Final = 3
"""Of the loop, until what is handed on stands among what is not acknowledged."""
NEAR: Final = int(NEAR_SECONDS * MICROSECONDS)
FAR: Final = int(BEHIND_SECONDS * MICROSECONDS)
"""How far the point of a row may be below what its session has not acknowledged."""
KEPT_SECONDS: Final = 15.0
"""How long a row stays at least, also behind its session: what that had not acknowledged is stored then."""
DEAD_SECONDS: Final = 3 * 86_400.0
"""How long after the end of a process a client may come back."""
REFRESH_SECONDS: Final = 3600.0
SLICE_SECONDS: Final = 0.0003
ALL: Final = "all"
STANZA_ID: Final = f"<stanza-id xmlns='{ns.STANZA_ID}' by='"

T = TypeVar("T")


@dataclass(slots=True)
class Behind:
    """The row of a session: `point` is not above what its client has not acknowledged (b"": it is not behind,
    but its id does not tell the process). `first` and `count` are of what it had not when that was looked at.
    """

    id: str
    point: bytes
    since: float
    is_moved: bool = False
    first: bytes | None = None
    count: int = 0
    over_at: float | None = None


@dataclass(slots=True)
class Left:
    """The row of a session that a node which stopped has left to this one, until that is over."""

    account: str
    over_at: float | None = None


@dataclass(slots=True)
class Progress:
    """How far the sessions of this process have got, over all instances of the plugin: `holder` is the one at
    work. `mark` is what is written, `written_at` when. `under_way`: when that was seen, the oldest message.
    `rows` and `left` are the rows that are written, of sessions and by the ids of those that are kept here.
    """

    began: bytes = b""
    mark: bytes = b""
    written_at: float = 0.0
    holder: object = None
    rows: dict[Session, Behind] = field(default_factory=dict)
    left: dict[str, Left] = field(default_factory=dict)
    under_way: deque[tuple[float, bytes]] = field(default_factory=deque)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Watermark(Ordered):
    """`processes` has the mark of each process that was not stopped in peace; `behind` the sessions that are
    behind that of theirs, or moved to another process than their ids tell.
    """

    processes = Table(
        partition=("name",),
        cluster=("process",),
        columns={"node": "text", "mark": "blob", "at": "blob"},
        person=nobody("how far a process has got"),
    )
    behind = Table(
        partition=("account",),
        cluster=("session",),
        columns={"process": "text", "resource": "text", "point": "blob"},
        person=Person("account"),
    )
    progress = Kept(Progress)

    async def start(self) -> None:
        """What is archived from now on may be missed."""
        await super().start()
        self.order.on_old = self._cover_old
        state = self.progress
        state.holder = self
        if not state.began:
            state.began = state.mark = bound(self.server.ids.time.read())
        await self._write_mark(state.mark)

    async def stop(self) -> None:
        """All that was not acknowledged has been seen to, unless another instance goes on."""
        await super().stop()
        if self.progress.holder is self:
            await self.processes.delete(ALL, self.server.process)

    # how far they have got

    async def _write_mark(self, mark: bytes) -> None:
        row = {"name": ALL, "process": self.server.process, "node": self.server.node, "mark": mark}
        at = bound(self.server.ids.time.read())
        await self.processes.put({**row, "at": at}, ttl=DEAD_SECONDS)
        self.progress.mark, self.progress.written_at = mark, self.scope.clock()

    async def _write_row(self, session: Session, row: Behind) -> None:
        values = {"process": self.server.process, "resource": session.resource, "point": row.point}
        key = {"account": session.account, "session": row.id}
        await self.behind.put({**key, **values}, ttl=DEAD_SECONDS)
        self.progress.rows[session] = row

    @every(LOOK_SECONDS)
    async def note_how_far(self) -> None:
        """Write down up to where all have got, after rows of those who have not, and before rows are deleted
        that say no more.
        """
        state, clock, now = self.progress, self.scope.clock(), self.server.ids.time.read()
        under_way = state.under_way
        under_way.append((clock, self.order.oldest()))
        while under_way[0][0] < clock - BEHIND_SECONDS - LOOK_SECONDS:
            under_way.popleft()
        is_old = clock - state.written_at > REFRESH_SECONDS
        has_news = self.server.has_other_nodes or self.order.newest >= state.mark or is_old
        if not has_news and not state.rows:
            return
        late = bound(now - FAR)
        given = [id for account, raw in self.server.given_away() if (id := id_in(raw, account)) is not None]
        farthest = min([late, *given, *(id for _, id in under_way if id)])
        nearest = min([bound(now - NEAR), *given, *(id for _, id in list(under_way)[-1:] if id)])
        second = int(self.now() - BEHIND_SECONDS) + 1
        async with state.lock:
            try:
                mark = max(state.mark, *map(before, (farthest, await self._nearer(nearest, late))))
                await self._note_those_behind(mark, second)
                if has_news:
                    await self._write_mark(mark)
                await self._forget_rows()
                await self._forget_left()
            except StoreError as error:
                self.log.warning("store-failed", extra={"kind": "watermark", "error": str(error)})

    async def _nearer(self, nearest: bytes, late: bytes) -> bytes:
        """Up to where all have got that are not covered by rows, `nearest` at most; b"": nobody knows. Who
        has not acknowledged something of before `late` has a row then.
        """
        rows, state, clock = self.progress.rows, self.progress, self.scope.clock()
        self.order.floor = max(state.mark, nearest)  # nothing older comes from other nodes now
        for _ in range(TURNS):
            await asyncio.sleep(0)  # what was not under way any more is written to its sessions
        waiting = self.server.waiting(int(self.now()) + 1)
        if len(waiting) > LOOKED_AT:
            return b""
        async for session in in_turns(waiting):
            row = rows.get(session)
            oldest = self._oldest_live(session)
            if not oldest or (row is not None and row.point and row.point <= oldest):
                continue
            if oldest >= max(state.mark, late):
                nearest = min(nearest, oldest)
            elif key := self._key(session):
                is_moved = row is not None and row.is_moved
                await self._write_row(session, Behind(key, bound(at_of(oldest)), clock, is_moved))
        return nearest

    def _oldest_live(self, session: Session) -> bytes:
        """The smallest id of what a client has not acknowledged and that is not kept for it until then: ids
        come in their order. b"" of nothing.
        """
        stored = {id(raw) for raw in self.server.stored(session).values()}
        for raw in self.server.unacknowledged(session):
            found = id_in(raw, session.account) if id(raw) not in stored else None
            if found is not None:
                return found
        return b""

    async def _note_those_behind(self, mark: bytes, second: int) -> None:
        rows, clock = self.progress.rows, self.scope.clock()
        async for session in in_turns(self.server.waiting(second)):
            row = rows.get(session)
            oldest = self._oldest(session, row)
            if not oldest or oldest >= mark:
                continue
            point = bound(at_of(oldest))
            if row is not None and row.point and row.point <= point:
                is_young = clock - row.since < KEPT_SECONDS  # more may be about to be given
                if is_young or at_of(point) - at_of(row.point) < FAR:
                    continue
            if key := self._key(session):
                unacknowledged, is_moved = (
                    self.server.unacknowledged(session),
                    row is not None and row.is_moved,
                )
                new = Behind(key, point, clock, is_moved, unacknowledged[0], len(unacknowledged))
                await self._write_row(session, new)

    async def _forget_rows(self) -> None:
        state, clock = self.progress, self.scope.clock()
        async for session in in_turns([*state.rows]):
            row = state.rows[session]
            if session.is_over:
                row.over_at = clock if row.over_at is None else row.over_at
                if clock - row.over_at < KEPT_SECONDS:
                    continue
                del state.rows[session]
                if not self.server.has_moved(session):  # else its node has a row of its own
                    await self.behind.delete(session.account, row.id)
            elif clock - row.since >= KEPT_SECONDS:
                oldest = self._oldest(session, row)
                if oldest and oldest < state.mark:
                    row.since = clock if await self._is_refreshed(session, row, clock) else row.since
                elif not row.is_moved:
                    del state.rows[session]
                    await self.behind.delete(session.account, row.id)
                elif row.point or clock - row.since > REFRESH_SECONDS:
                    await self._write_row(session, Behind(row.id, b"", clock, is_moved=True))

    async def _forget_left(self) -> None:
        """Rows of sessions that are not kept any more, unless they go on here or elsewhere: those have it."""
        state, clock = self.progress, self.scope.clock()
        there = {row.id for row in state.rows.values()} if state.left else ()
        async for id, left in in_turns([*state.left.items()]):
            if self.server.keeps(id):
                continue
            left.over_at = clock if left.over_at is None else left.over_at
            if clock - left.over_at < KEPT_SECONDS:
                continue
            row = None if id in there else await self.behind.get(left.account, id)
            if row is not None and row["process"] == self.server.process:
                await self.behind.delete(left.account, id)
            del state.left[id]

    async def _is_refreshed(self, session: Session, row: Behind, clock: float) -> bool:
        """Whether a row has got another life, since it is old."""
        if clock - row.since < REFRESH_SECONDS:
            return False
        await self._write_row(session, row)
        return True

    def _oldest(self, session: Session, row: Behind | None) -> bytes:
        """The smallest id of what a client has not acknowledged, b"" of nothing; if its row was made of the
        same and less, that is not looked at again.
        """
        unacknowledged = self.server.unacknowledged(session)
        oldest, count = b"", 0
        if row is not None and row.point and unacknowledged and unacknowledged[0] is row.first:
            oldest, count = row.point, row.count
        for raw in unacknowledged[count:]:
            id = id_in(raw, session.account)
            if id is not None and (not oldest or id < oldest):
                oldest = id
        if count and row is not None and oldest == row.point:
            row.count = len(unacknowledged)
        return oldest

    def _key(self, session: Session) -> str:
        """What tells its row from others: the id by which it is resumed, or what is as good; "" for one that
        another node has now.
        """
        if self.server.has_moved(session):
            return ""
        return self.server.resumption_id(session) or f"{self.server.process}{session.number}"

    async def cover(self, session: Session, oldest: bytes) -> None:
        """A session is about to be given messages from this id on that another one missed, as soon as these
        are found, or it is known that this one was lost.
        """
        key, point, state = self._key(session), bound(at_of(oldest)), self.progress
        if not key:
            return
        async with state.lock:
            row = state.rows.get(session)
            if row is not None and row.point and row.point <= point:
                row.since = self.scope.clock()
                return
            is_moved = row is not None and row.is_moved
            await self._write_row(session, Behind(key, point, self.scope.clock(), is_moved))

    def has_covered(self, session: Session) -> None:
        """They are kept for its account now: the row is needed no longer for these."""
        if (row := self.progress.rows.get(session)) is not None:
            row.since = min(row.since, self.scope.clock() - KEPT_SECONDS)

    def _cover_old(self, account: str, id: bytes) -> None:
        """Sessions of an account may be given something that is older than what all have acknowledged."""
        for session in self.server.sessions(account):
            if self.server.acknowledges(session):
                self.spawn(self._cover_now(session, id))

    async def _cover_now(self, session: Session, id: bytes) -> None:
        try:
            await self.cover(session, id)
        except StoreError as error:
            self.log.warning("store-failed", extra={"kind": "watermark", "error": str(error)})

    @hooks.session_kept
    async def cover_kept(self, kept: KeptSession) -> None:
        """A node stops and leaves a session: what its client has not acknowledged may be below the mark."""
        ids = [id for raw in kept.unacknowledged if (id := id_in(raw, kept.account)) is not None]
        if not ids:
            return
        key = {"account": kept.account, "session": kept.id, "resource": kept.resource}
        values = {"process": self.server.process, "point": bound(at_of(min(ids)))}
        async with self.progress.lock:
            await self.behind.put({**key, **values}, ttl=DEAD_SECONDS)
            self.progress.left[kept.id] = Left(kept.account)

    @hooks.session_resumed
    async def take_over(self, session: Session) -> None:
        """Its id tells of another process, where it is not any more."""
        id, state = self.server.resumption_id(session), self.progress
        async with state.lock:
            oldest = self._oldest(session, None)
            row = Behind(id, bound(at_of(oldest)) if oldest else b"", self.scope.clock(), is_moved=True)
            await self._write_row(session, row)


def before(id: bytes) -> bytes:
    """In front of this id and others of its microsecond; b"" of none."""
    return id and bound(at_of(id))


def id_in(raw: bytes, account: str) -> bytes | None:
    """By which id a message that was sent to an account is in its archive."""
    mark = f"{STANZA_ID}{escape_attribute(account)}' id='".encode()
    start = raw.rfind(mark) + len(mark)
    return from_text(raw[start : start + ID_LETTERS].decode(errors="replace")) if start >= len(mark) else None


async def in_turns(some: Sequence[T]) -> AsyncIterator[T]:
    """Each of them, in slices of the loop's time."""
    end = time.perf_counter() + SLICE_SECONDS
    for one in some:
        if time.perf_counter() > end:
            await asyncio.sleep(0)
            end = time.perf_counter() + SLICE_SECONDS
        yield one
