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
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

from xmppd import hooks, ns
from xmppd.plugin import (
    Counter,
    Kept,
    Person,
    Session,
    SessionSlot,
    Stanza,
    StanzaError,
    StoreError,
    Table,
    cluster_signal,
    escape_attribute,
    every,
    nobody,
)

from .ids import ID_LETTERS, LAST, MICROSECONDS, at_of, bound, from_text, to_text
from .keeping import Lives
from .ordered import Ordered
from .preferences import Owner
from .query import Query
from .reading import Archived, Reader, archived
from .recalling import CaughtUp

LOOK_SECONDS: Final = 2.0
"""How often it is written down how far all have got."""
BEHIND_SECONDS: Final = 6.0
"""How far the mark is behind the clock: a client that answers has acknowledged what is older. What is
younger may come to it twice.
"""
FAR: Final = int(BEHIND_SECONDS * MICROSECONDS)
"""How far the point of a row may be below what its session has not acknowledged."""
KEPT_SECONDS: Final = 15.0
"""How long a row stays at least, also behind its session: what that had not acknowledged is stored then."""
DEAD_SECONDS: Final = 3 * 86_400.0
"""How long after the end of a process a client may come back."""
REFRESH_SECONDS: Final = 3600.0
YOUNG_SECONDS: Final = 15.0
"""Sessions that began no longer before are looked at when the loss of a node is noticed."""
SLACK_SECONDS: Final = 60.0
"""How much younger than its last mark a message may be that a process of several has handed on."""
MOST: Final = 1000
"""How many messages are looked at for one client."""
SLICE_SECONDS: Final = 0.0003
PROCESS_LETTERS: Final = 8
"""How an id of a session begins (`Server.process`)."""
ALL: Final = "all"
NOTHING: Final = bound(LAST)
"""The point of a session whose client has been given what it missed."""
STANZA_ID: Final = f"<stanza-id xmlns='{ns.STANZA_ID}' by='"

T = TypeVar("T")
Keep = Callable[[Sequence[tuple[str, int]]], Awaitable[None]]
"""Keeps messages for an account, by their ids and the microseconds of these."""


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
class Progress:
    """How far the sessions of this process have got, over all instances of the plugin: `holder` is the one at
    work. `mark` is what is written, `written_at` when. `under_way`: when that was seen, the oldest message.
    """

    began: bytes = b""
    mark: bytes = b""
    written_at: float = 0.0
    holder: object = None
    rows: dict[Session, Behind] = field(default_factory=dict)
    under_way: deque[tuple[float, bytes]] = field(default_factory=deque)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Young(NamedTuple):
    """A session that has come `until` when the loss of the node is noticed that had the one it sought."""

    session: Session
    node: str
    until: float


class Watermark(Ordered):
    """`processes` has the mark of each process that was not stopped in peace; `behind` the sessions that are
    behind that of theirs, or moved to another process than their ids tell.
    """

    processes = Table(
        partition=("name",),
        cluster=("process",),
        columns={"node": "text", "mark": "blob"},
        person=nobody("how far a process has got"),
    )
    behind = Table(
        partition=("account",),
        cluster=("session",),
        columns={"process": "text", "point": "blob"},
        person=Person("account"),
    )
    progress = Kept(Progress)
    returned = Counter("Messages that were kept again since their receiver's process was killed.")
    caught_up: SessionSlot[CaughtUp]
    lives: Lives

    async def _owner(self, account: str) -> Owner:
        raise NotImplementedError

    def _reader(self, owner: Owner) -> Reader:
        raise NotImplementedError

    async def start(self) -> None:
        """What is archived from now on may be missed."""
        await super().start()
        self._there: dict[str, str] = {}
        self._young: list[Young] = []
        state = self.progress
        state.holder = self
        if not state.began:
            state.began = state.mark = bound(self.server.ids.time.read())
        await self._write_mark(state.mark)
        if self.server.has_other_nodes:
            self.works.tell(self.server.node, self.server.process)

    async def stop(self) -> None:
        """All that was not acknowledged has been seen to, unless another instance goes on."""
        await super().stop()
        if self.progress.holder is self:
            await self.processes.delete(ALL, self.server.process)

    # how far they have got

    async def _write_mark(self, mark: bytes) -> None:
        row = {"name": ALL, "process": self.server.process, "node": self.server.node, "mark": mark}
        await self.processes.put(row, ttl=DEAD_SECONDS)
        self.progress.mark, self.progress.written_at = mark, self.scope.clock()

    async def _write_row(self, session: Session, row: Behind) -> None:
        values = {"process": self.server.process, "point": row.point}
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
        mark = max(state.mark, min([late, *given, *(id for _, id in under_way if id)]))
        second = int(self.now() - BEHIND_SECONDS) + 1
        async with state.lock:
            try:
                await self._note_those_behind(mark, second)
                if has_news:
                    await self._write_mark(mark)
                await self._forget_rows()
            except StoreError as error:
                self.log.warning("store-failed", extra={"kind": "watermark", "error": str(error)})

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
            if id := self.server.resumption_id(session):
                unacknowledged, is_moved = (
                    self.server.unacknowledged(session),
                    row is not None and row.is_moved,
                )
                new = Behind(id, point, clock, is_moved, unacknowledged[0], len(unacknowledged))
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
                if self.server.resumption_id(session):  # else the node that has it now has a row of its own
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

    async def cover(self, session: Session, oldest: bytes) -> None:
        """A session is about to be given messages from this id on that another one missed, as soon as it is
        known that this one was lost.
        """
        id, point, state = self.server.resumption_id(session), bound(at_of(oldest)), self.progress
        if not id:
            return
        async with state.lock:
            row = state.rows.get(session)
            if row is not None and row.point and row.point <= point:
                row.since = self.scope.clock()
                return
            is_moved = row is not None and row.is_moved
            await self._write_row(session, Behind(id, point, self.scope.clock(), is_moved))

    @hooks.session_resumed
    async def take_over(self, session: Session) -> None:
        """Its id tells of another process, where it is not any more."""
        id, state = self.server.resumption_id(session), self.progress
        async with state.lock:
            oldest = self._oldest(session, None)
            row = Behind(id, bound(at_of(oldest)) if oldest else b"", self.scope.clock(), is_moved=True)
            await self._write_row(session, row)

    # what was missed

    @hooks.messages_missed
    async def find_missed(self, session: Session, keep: Keep) -> None:
        """Its client wanted to resume a session that is not there: if that is because its process was killed,
        what it had not acknowledged is kept for it, once.
        """
        account, sought = session.account, session.login.sought
        if sought.startswith(self.server.process) and not self.server.has_other_nodes:
            session.login.sought = ""
            return
        row = await self.behind.get(account, sought)
        process = row["process"] if row is not None else sought[:PROCESS_LETTERS]
        point = (row["point"] or b"") if row is not None else b""
        is_over = point == NOTHING or process == self.server.process  # it ended here, and was seen to
        dead = None if is_over else await self.processes.get(ALL, process)
        if dead is None:  # or it was stopped in peace, or that is long ago
            session.login.sought = ""
            return
        mark: bytes = dead["mark"]
        if self._is_there(process, dead["node"]):
            now = self.scope.clock()
            young = [one for one in self._young if one.until > now and one.session is not session]
            self._young = [*young, Young(session, dead["node"], now + YOUNG_SECONDS)]
            await self.cover(session, min(point or mark, mark))  # it may be lost itself before that is known
            return
        missed = await self._addressed(session, min(point or mark, mark), mark)
        if missed:
            await keep(missed)
        done = {"account": account, "session": sought, "process": process, "point": NOTHING}
        await self.behind.put(done, ttl=DEAD_SECONDS)
        session.login.sought = ""
        self.returned.inc(len(missed))

    async def _addressed(self, session: Session, point: bytes, mark: bytes) -> list[tuple[str, int]]:
        """What is in the archive from this point on and was for the session, or for none that is there."""
        account, end = session.account, self.progress.began
        if self.server.has_other_nodes or end < mark:  # or the clock was set back
            end = bound(at_of(mark) + int((BEHIND_SECONDS + SLACK_SECONDS) * MICROSECONDS))
        try:
            owner = await self._owner(account)
        except StanzaError:
            return []  # there is no archive
        if self.server.has_other_nodes:
            for message in await self._last(owner, account, point, end, 1):
                self.server.ids.time.see(at_of(message.id))  # the clock that is gone may have been ahead
        try:
            horizon = await self.horizon(account)
        except StanzaError:  # another node hangs
            horizon = bound(self.server.ids.time.read())
        read = self.caught_up[session]
        others = {one.full for one in self.server.locate(account) if one.full != session.full}
        return [
            (to_text(id), at_of(id))
            for id, _, raw in await self._last(owner, account, point, min(end, horizon), MOST)
            if not read.has(id) and is_for(raw, account, others)
        ]

    async def _last(
        self, owner: Owner, account: str, point: bytes, end: bytes, count: int
    ) -> Sequence[Archived]:
        """The last messages between two points, so many at most."""
        query = Query("", point, end, (), "", "", None, True, count, False)
        page = await self._reader(owner).page(query, self.lives.oldest(account), end)
        return archived(page.messages)

    # which processes there are

    def _is_there(self, process: str, node: str) -> bool:
        """Whether a process still has sessions, as far as is known here."""
        if node not in self.server.other_nodes():
            return False
        return self._there.get(node, process) == process

    def _is_gone(self, node: str) -> None:
        """The process of a node is gone: look for what those missed who came before that was known."""
        young, self._young = self._young, []
        for one in young:
            if one.until < self.scope.clock() or one.session.is_over:
                continue
            if one.node == node:
                self.server.messages_left(one.session.account)
            else:
                self._young.append(one)

    @cluster_signal
    def works(self, node: str, process: str) -> None:
        """A process of this name has that node's."""
        if node == self.server.node:
            return
        before, self._there[node] = self._there.get(node), process
        if before != process:
            self._is_gone(node)

    @hooks.node_met
    def introduce(self, node: str) -> None:
        """It does not know which process this is."""
        self.works.tell_node(node, self.server.node, self.server.process)

    @hooks.node_lost
    def forget_process(self, node: str) -> None:
        """What it had is to be looked for."""
        self._there.pop(node, None)
        self._is_gone(node)


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


def is_for(raw: bytes, account: str, others: Collection[str]) -> bool:
    """Whether a message was sent to the account by somebody else, and not to one of these resources."""
    attrs = Stanza("message", {}, raw).xml
    to, sender, kind = attrs.get("to", ""), attrs.get("from", ""), attrs.get("type", "normal")
    if to.partition("/")[0] != account or sender.partition("/")[0] == account:
        return False
    return to not in others and kind not in ("groupchat", "headline", "error")
