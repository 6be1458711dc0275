"""What clients missed whose process was killed: found by the id of the session that they come back with, and
for those that come without one by what stands of their account.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from xmppd import hooks
from xmppd.plugin import Counter, Session, SessionSlot, Stanza, StanzaError, StoreError, cluster_signal

from .ids import LAST, MICROSECONDS, at_of, bound, moment_of, to_text
from .keeping import Lives
from .losses import Dead, Losses, after
from .preferences import Owner
from .query import Query
from .reading import Reader
from .recalling import CaughtUp
from .watermark import ALL, DEAD_SECONDS, in_turns

YOUNG_SECONDS: Final = 15.0
"""Sessions that began no longer before are looked at when the loss of a node is noticed."""
MET_SECONDS: Final = 20.0
"""How long after its start a node knows who is there; a mark that was not moved for so long is of nobody."""
MOST: Final = 1000
"""How many messages of one process are looked at for one client."""
AT_ONCE: Final = 16
"""For how many clients messages are read at once."""
SETTLED: Final = 500
"""Of how many processes it is noted that an account was given all."""
PROCESS_LETTERS: Final = 8
"""How an id of a session begins (`Server.process`)."""
NOTHING: Final = bound(LAST)
"""The point of a session whose client has been given what it missed."""
ANY: Final = "-"
"""Sought by a client that names no session, while processes are known that were killed; and in the place of
an id in the row that tells of which processes an account was given all.
"""

Row = Mapping[str, Any]
Span = tuple[bytes, bytes]
"""From which point on, and up to which, what a process has handed on may have been missed."""
Keep = Callable[[Sequence[tuple[str, int]], Callable[[str], int]], Awaitable[None]]
"""Keeps messages for an account, by their ids and the microseconds of these, and what tells that of any."""


class Young(NamedTuple):
    """A session that has come `until` when the loss of the node is noticed that had the one it sought."""

    session: Session
    node: str
    until: float


class Missed(Losses):
    """Who comes with the id of a session is given what that one missed. Nobody knows which devices were there
    without one: the first of an account that comes and acknowledges is given all that was not acknowledged
    for sure, if any was there and none came with its id before; and so is each that has the resource of a
    session which was behind.
    """

    returned = Counter("Messages that were kept again since their receiver's process was killed.")
    caught_up: SessionSlot[CaughtUp]
    lives: Lives

    async def _owner(self, account: str) -> Owner:
        raise NotImplementedError

    def _reader(self, owner: Owner) -> Reader:
        raise NotImplementedError

    async def start(self) -> None:
        """Processes before this one may have been killed."""
        await super().start()
        self._there: dict[str, str] = {}
        self._met: dict[str, float] = {}
        self._young: list[Young] = []
        self._dead: dict[str, Dead] = {}
        self._suspects: dict[str, str] = {}
        self._lost: set[str] = set()
        self._left: set[str] = set()
        self._places = asyncio.Semaphore(AT_ONCE)
        await self._find_dead(0.0)
        if self.server.has_other_nodes:
            self.works.tell(self.server.node, self.server.process)
            self.call_later(MET_SECONDS, self._look_for_dead, 2 * MET_SECONDS)

    # with the id of a session

    @hooks.messages_missed
    async def find_missed(self, session: Session, keep: Keep) -> None:
        """Its client wanted to resume a session that is not there, or comes without one: if that is because
        its process was killed, what it had not acknowledged is kept for it, once.
        """
        account, sought = session.account, session.login.sought
        if sought == ANY:
            await self._find_for_any(session, keep)
            return
        if sought.startswith(self.server.process) and not self.server.has_other_nodes:
            session.login.sought = ""
            return
        row = await self.behind.get(account, sought)
        process = row["process"] if row is not None else sought[:PROCESS_LETTERS]
        point = (row["point"] or b"") if row is not None else b""
        if point == NOTHING or process == self.server.process:  # it ended here, and was seen to
            session.login.sought = ""
            return
        found = None if process in self._left else await self.processes.get(ALL, process)
        if found is None:  # it was stopped in peace, or that is long ago
            session.login.sought = ANY if self._dead else ""
            await self._find_for_any(session, keep)
            return
        dead = dead_of(found)
        if self._is_there(process, dead.node):
            now = self.scope.clock()
            young = [one for one in self._young if one.until > now and one.session is not session]
            self._young = [*young, Young(session, dead.node, now + YOUNG_SECONDS)]
            await self.cover(session, min(point or dead.mark, dead.mark))  # it may be lost itself before that
            return
        span = min(point or dead.mark, dead.mark), self._end_of(process, dead)
        missed = await self._addressed(session, [span])
        await self._note_given(session, missed, keep, [done(session, sought, process)])

    async def _note_given(
        self, session: Session, missed: Mapping[str, int], keep: Keep, given: Iterable[Row]
    ) -> None:
        if missed:
            await keep(sorted(missed.items(), key=lambda one: one[1]), moment_of)
        for row in given:
            await self.behind.put(row, ttl=DEAD_SECONDS)
        session.login.sought = ""
        self.returned.inc(len(missed))
        self.has_covered(session)

    async def _addressed(self, session: Session, spans: Sequence[Span]) -> dict[str, int]:
        """What is in the archive between such points and was for the session, or for none that is there."""
        account, missed = session.account, dict[str, int]()
        try:
            owner = await self._owner(account)
        except StanzaError:
            return missed  # there is no archive
        first, last = min(point for point, _ in spans), max(end for _, end in spans)
        await self.cover(session, first)  # this process may be lost itself before all is kept
        await self._follow_clock(owner, account, first, last)
        try:
            horizon = await self.horizon(account, below=last)
        except StanzaError:  # another node hangs
            horizon = bound(self.server.ids.time.read())
        for point, end in spans:
            async with self._places:
                sent = await self._last(owner, account, point, min(end, horizon), MOST)
            read = self.caught_up[session]
            others = {one.full for one in self.server.locate(account) if one.full != session.full}
            async for id, raw in in_turns(sent):
                if not read.has(id) and is_for(raw, account, others):
                    missed[to_text(id)] = at_of(id)
        return missed

    async def _follow_clock(self, owner: Owner, account: str, point: bytes, end: bytes) -> None:
        """That of a process which is gone may have been ahead of ours: what it wrote last is in the past."""
        if self.server.has_other_nodes:
            for id, _ in await self._last(owner, account, point, end, 1):
                self.server.ids.time.see(at_of(id))

    async def _last(
        self, owner: Owner, account: str, point: bytes, end: bytes, count: int, peer: str = ""
    ) -> list[tuple[bytes, bytes]]:
        """The ids and stanzas of the last messages between two points, so many at most; with one peer alone,
        if it is said with whom.
        """
        query = Query("", point, end, (), peer, "", None, True, count, False)
        page = await self._reader(owner).page(query, self.lives.oldest(account), end)
        return [(message[0], message[-1]) for message in page.messages]

    # without one

    async def _find_for_any(self, session: Session, keep: Keep) -> None:
        """Keep what any session of the account may have missed whose process was killed, for the first that
        comes; and what one of this resource has that was behind. Who acknowledges nothing is given nothing
        again.
        """
        if session.login.sought != ANY or not self.server.acknowledges(session):
            return
        rows: dict[str, list[Row]] = {}
        settled: dict[str, bytes] = {}
        for row in (await self.behind.scan(session.account)).rows:
            if row["session"] == ANY:
                settled = settled_of(row["process"])
            else:
                rows.setdefault(row["process"], []).append(row)
        spans, given = list[Span](), list[Row]()
        now = bound(self.server.ids.time.read())
        for process, dead in [*self._dead.items()]:
            its = rows.get(process, ())
            # what was settled by who was cut off from one that went on was not
            is_settled = process in settled and dead.at <= settled[process]
            point = self._point_for(session, process, dead, its, is_settled=is_settled)
            if point is None:
                continue
            spans.append((point, min(self._end_of(process, dead), after(dead.mark))))
            given += [done(session, row["session"], process) for row in its if is_named(row, session)]
            settled.pop(process, None)
            settled[process] = now
        if spans:
            given.append(done(session, ANY, text_of(settled)))
        missed = await self._addressed(session, spans) if spans else {}
        await self._note_given(session, missed, keep, given)

    def _point_for(
        self, session: Session, process: str, dead: Dead, rows: Sequence[Row], *, is_settled: bool
    ) -> bytes | None:
        """From where on a session of an account with these rows of a process is given what was missed there;
        None where it has been, or another one, or nothing was.
        """
        if self._is_there(process, dead.node):
            return None
        named = [row for row in rows if is_named(row, session)]
        if any(row["point"] == NOTHING for row in named):
            return None
        is_had = is_settled or any(row["point"] == NOTHING for row in rows)
        points = [row["point"] for row in named or rows if row["point"] and row["point"] != NOTHING]
        if not named and (is_settled or (is_had and not points)):
            return None
        loss = self._loss_of(process, dead)
        if not rows and loss is not None and session.account not in loss:
            return None
        return min([dead.mark, *points])

    def comes(self, session: Session) -> None:
        """Whoever comes while it is known that processes were killed may have missed something."""
        if self._dead and not session.login.sought and not session.is_anonymous:
            session.login.sought = ANY

    # which processes there are

    async def _find_dead(self, seconds: float) -> None:
        """Find out which processes were killed, and look again at sessions that began no longer ago and
        could not know it.
        """
        rows = (await self.processes.scan(ALL)).rows
        gone = [row for row in rows if self._is_gone_as_it_seems(row["process"], row["node"])]
        dead = {row["process"]: dead_of(row) for row in gone if self._is_dead(row)}
        await self._learn_losses([*dead])
        is_news = bool(dead.keys() - self._dead.keys())
        self._dead = dead
        self._suspects = {row["process"]: row["node"] for row in gone if row["process"] not in dead}
        if is_news and seconds:
            since = self.now() - seconds
            async for session in in_turns([one for one in self.server.online() if one.since > since]):
                self.comes(session)
                if session.login.sought == ANY:
                    self.server.messages_left(session.account)

    def _is_dead(self, row: Mapping[str, Any]) -> bool:
        """Whether one that is not there was killed: else it may be about to be met."""
        if not self.server.has_other_nodes or row["process"] in self._lost:
            return True
        return at_of(row["mark"]) < self.server.ids.time.read() - int(MET_SECONDS * MICROSECONDS)

    def _is_gone_as_it_seems(self, process: str, node: str) -> bool:
        return process not in (self.server.process, *self._left) and not self._is_there(process, node)

    def may_have_lost_some(self) -> bool:
        """Whether a process may have been killed of which that is not known yet: it is not there and was a
        moment ago, or this node does not hear it.
        """
        if not self.server.hears_all_nodes():
            return True
        return any(self._is_gone_as_it_seems(process, node) for process, node in self._suspects.items())

    def _look_for_dead(self, seconds: float) -> None:
        self.spawn(self._look_again(seconds))

    async def _look_again(self, seconds: float) -> None:
        try:
            await self._find_dead(seconds)
        except StoreError as error:
            self.log.warning("store-failed", extra={"kind": "processes", "error": str(error)})
            self.call_later(YOUNG_SECONDS, self._look_for_dead, seconds + YOUNG_SECONDS)

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
        self._look_for_dead(YOUNG_SECONDS)
        self.call_later(MET_SECONDS, self._look_for_dead, MET_SECONDS + YOUNG_SECONDS)

    def _loses(self, process: str | None, node: str) -> None:
        """Another node may have come since, and knows only that it has not met this one."""
        if process is not None:
            self.misses(process, node)
            self._lost.add(process)
            self._suspects[process] = node
            since = self.scope.clock() - MET_SECONDS
            for other in [other for other, at in self._met.items() if at > since]:
                self.works_no_more.tell_node(other, node, process)
        self._is_gone(node)

    @cluster_signal
    def works(self, node: str, process: str) -> None:
        """A process of this name has that node's."""
        if node == self.server.node:
            return
        before, self._there[node] = self._there.get(node), process
        self._lost.discard(process)
        if before != process:
            self._loses(before, node)

    @cluster_signal
    def works_no_more(self, node: str, process: str) -> None:
        """Another node has lost a process that it knew, and this one may never have met."""
        if process not in self._lost and self._is_gone_as_it_seems(process, node):
            self._lost.add(process)
            self._suspects[process] = node
            self._look_for_dead(YOUNG_SECONDS)

    @hooks.node_runs
    def runs(self, node: str, plugins: Collection[str], anew: Collection[str]) -> None:
        """Where this plugin has just gone to work no process is known."""
        super().runs(node, plugins, anew)
        if self.name in anew:
            self.introduce(node)

    @hooks.node_met
    def introduce(self, node: str) -> None:
        """It does not know which process this is, nor whom this one has lost."""
        self._met[node] = self.scope.clock()
        self.works.tell_node(node, self.server.node, self.server.process)
        lately = bound(self.server.ids.time.read() - int(2 * MET_SECONDS * MICROSECONDS))
        lost = {one: dead.node for one, dead in self._dead.items() if dead.mark > lately} | self._suspects
        for process in lost.keys() & self._lost:
            self.works_no_more.tell_node(node, lost[process], process)

    @hooks.node_left
    def let_process_go(self, node: str) -> None:
        """It has seen to all, though its row may be there still."""
        self._met.pop(node, None)
        if process := self._there.pop(node, None):
            self._left.add(process)

    @hooks.node_lost
    def forget_process(self, node: str) -> None:
        """What it had is to be looked for."""
        self._met.pop(node, None)
        self._loses(self._there.pop(node, None), node)


def dead_of(row: Row) -> Dead:
    """A process as it stands in `processes`."""
    return Dead(row["node"], row["mark"], row["at"] or b"")


def settled_of(text: str) -> dict[str, bytes]:
    """From a row: of which processes an account was given all, and when."""
    return {name: bytes.fromhex(at) for name, _, at in (one.partition(":") for one in text.split())}


def text_of(settled: Mapping[str, bytes]) -> str:
    """For a row: the same of those that were settled last."""
    return " ".join(f"{name}:{at.hex()}" for name, at in [*settled.items()][-SETTLED:])


def is_named(row: Row, session: Session) -> bool:
    """Whether a row is of a session of this resource."""
    return bool(row["resource"] == session.resource)


def done(session: Session, key: str, process: str) -> Row:
    """The row that notes that a session was given what another one missed, or any of some processes."""
    return {
        "account": session.account,
        "session": key,
        "process": process,
        "resource": session.resource,
        "point": NOTHING,
    }


def is_for(raw: bytes, account: str, others: Collection[str]) -> bool:
    """Whether a message was sent to the account by somebody else, and not to one of these resources."""
    attrs = Stanza("message", {}, raw).xml
    to, sender, kind = attrs.get("to", ""), attrs.get("from", ""), attrs.get("type", "normal")
    if to.partition("/")[0] != account or sender.partition("/")[0] == account:
        return False
    return to not in others and kind not in ("groupchat", "headline", "error")
