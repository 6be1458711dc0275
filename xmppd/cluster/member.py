"""Another node, as this one knows it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, Protocol

from xmppd.cluster.trunk import Trunk
from xmppd.errors import StanzaError

CLOSE_SECONDS: Final = 0.001
"""How soon after one write the next one waits a little, so that more goes out at once."""

PACE_SECONDS: Final = 0.050
"""How soon after one write the next one follows of what nobody waits for: a frame costs more than what is in
it.
"""

LINGER_SECONDS: Final = 0.005
"""How long what has time waits for something to go with."""

ENDED_SECONDS: Final = 10.0
"""For how long after the end of a session its node may still see to what was not acknowledged."""

FOREVER: Final = float("inf")


class Carrier(Protocol):
    """What carries frames to one node: a connection."""

    def write(self, frames: list[bytes]) -> None:
        """Send them, each with its length."""

    def close(self) -> None:
        """End it; nothing is told of that."""


class Letter(Protocol):
    """What was posted and comes back: exactly one of `settled` and `missed` is called, once."""

    def opened(self) -> None:
        """It is in a queue there; one of the others follows."""

    def settled(self) -> None:
        """The other node took it."""

    def missed(self, error: StanzaError) -> None:
        """Nobody takes it: the other node says so, or is given up."""


class Marks:
    """Names, each until the other node has acknowledged the frame with that number: `frames`, to be read."""

    __slots__ = ("_order", "frames")

    def __init__(self) -> None:
        self.frames: dict[str, int] = {}
        self._order: deque[tuple[int, str]] = deque()

    def __contains__(self, name: object) -> bool:
        return name in self.frames

    def put(self, name: str, frame: int) -> None:
        """Mark a name until then; frames come in their order."""
        self.frames[name] = frame
        self._order.append((frame, name))

    def drop(self, name: str) -> None:
        """It is marked no more; harmless if it was not."""
        self.frames.pop(name, None)

    def acknowledged(self, frame: int) -> None:
        """Forget what waited for frames up to this one."""
        order, frames = self._order, self.frames
        while order and order[0][0] <= frame:
            until, name = order.popleft()
            if frames.get(name) == until:
                del frames[name]

    def behind(self, frame: int) -> Iterable[str]:
        """The names that wait for a frame behind this one."""
        found: list[str] = []
        for until, name in reversed(self._order):
            if until <= frame:
                break
            if self.frames.get(name) == until:
                found.append(name)
        return [*dict.fromkeys(reversed(found))]


class Member:
    """A node from when it is met until it is given up.

    `index` stands for it in the whereabouts. `carrier` is None while there is no connection. `is_joined`: all
    its places are known here; `is_told`: all of ours were sent there. `is_due`: it is written to in this
    turn, or soon. `add` has it written to at the end of this turn, behind sessions, and `is_writing` says
    whether any of them wait for that. `young` are the sessions of this node that are new or became available,
    until it has acknowledged that, `fresh` those among them that became available since it was met; `missing`
    are accounts of which a message of its was missed, until it has heard of that. `ended`: when which
    accounts had a session end there, for ENDED_SECONDS.
    `was_silent`: it was given up because nothing was heard of it; `has_left`: it said that it stops.
    `directed` are the sessions there that sent directed presence here, each with the addresses that it went
    to.
    """

    __slots__ = (
        "_add",
        "_call_later",
        "_clock",
        "_due_at",
        "_flushed",
        "_is_urgent",
        "_is_writing",
        "carrier",
        "directed",
        "ended",
        "fresh",
        "full",
        "has_left",
        "incarnation",
        "index",
        "is_due",
        "is_gone",
        "is_joined",
        "is_told",
        "missing",
        "name",
        "trunk",
        "was_silent",
        "young",
    )

    def __init__(
        self,
        name: str,
        incarnation: int,
        index: int,
        trunk: Trunk[Letter],
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
        add: Callable[[Member], None],
        is_writing: Callable[[], bool],
    ) -> None:
        self.name = self.full = name
        self.incarnation = incarnation
        self.index = index
        self.trunk = trunk
        self.carrier: Carrier | None = None
        self.is_joined = False
        self.is_told = False
        self.is_gone = False
        self.has_left = False
        self.was_silent = False
        self.young = Marks()
        self.fresh = Marks()
        self.missing = Marks()
        self.directed: dict[str, set[str]] = {}
        self.ended: deque[tuple[float, str]] = deque()
        self._clock = clock
        self._call_later = call_later
        self._add = add
        self._is_writing = is_writing
        self._flushed = float("-inf")
        self.is_due = False
        self._is_urgent = False
        self._due_at = FOREVER

    @property
    def pause(self) -> float:
        """Seconds until what nobody waits for may be written; not above 0: at once."""
        return self._flushed + PACE_SECONDS - self._clock()

    @property
    def lingers(self) -> bool:
        """Whether what is queued is written soon, whatever else happens."""
        return self._due_at != FOREVER

    @property
    def is_paced(self) -> bool:
        """Whether what nobody waits for is written in time without more ado."""
        return self._due_at <= self._flushed + PACE_SECONDS

    def linger(self, seconds: float) -> None:
        """Write what is queued in so many seconds, if nothing else makes that sooner."""
        due_at = self._clock() + seconds
        if due_at < self._due_at:
            self._due_at = due_at
            self._call_later(seconds, lambda: self._write_on(due_at))

    def _write_on(self, due_at: float) -> None:
        if due_at != self._due_at:
            return  # an earlier time was set since
        self._due_at = FOREVER
        if self.trunk.is_waiting and not self.is_gone:
            self.write_behind()

    def flush(self) -> None:
        """Write what is queued: now, or in a millisecond where something was written just before."""
        if self._is_urgent or self._clock() - self._flushed >= CLOSE_SECONDS:
            self.write()
        elif self.is_due:
            self._call_later(CLOSE_SECONDS, self.write_behind)

    def write_behind(self) -> None:
        """Write what is queued, and what has to be acknowledged, when sessions were written what they wait
        for: what was taken is theirs, though this process be killed at any moment.
        """
        if not self._is_writing():
            self.write()
        elif not self._is_urgent:
            self._is_urgent = True
            self._add(self)

    def write(self) -> None:
        """Write what is queued, and what has to be acknowledged."""
        self.is_due = self._is_urgent = False
        if self.carrier is not None:
            self._flushed = self._clock()
            if frames := self.trunk.flush():
                self.carrier.write(frames)

    def draw(self, end: float) -> bool:
        """It has no bursts."""
        return False

    @property
    def is_settled(self) -> bool:
        """Whether it took all that it was told."""
        return self.carrier is None or (self.trunk.acked == self.trunk.sent and not self.trunk.is_waiting)

    def acknowledged(self) -> None:
        """It took frames: forget what waited for that."""
        acked = self.trunk.acked
        self.young.acknowledged(acked)
        self.fresh.acknowledged(acked)
        self.missing.acknowledged(acked)

    def note_end(self, account: str) -> None:
        """A session of this account ended there."""
        now, ended = self._clock(), self.ended
        ended.append((now, account))
        while ended[0][0] < now - ENDED_SECONDS:
            ended.popleft()

    def ended_lately(self) -> Iterator[str]:
        """The accounts of which a session ended there a moment ago."""
        since = self._clock() - ENDED_SECONDS
        return (account for at, account in self.ended if at >= since)

    def __repr__(self) -> str:
        return f"<Member {self.name}>"


Take = Callable[[Member, Any], None]
"""Takes one kind of record."""
