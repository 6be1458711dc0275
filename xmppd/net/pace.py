"""How fast stanzas of one session are taken: a token bucket in front of the router (RFC 6120 13.12), turns,
and rests as long as the work that was caused, so that one with much to say does not keep everybody else
waiting.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass

from xmppd.stream.bucket import TokenBucket
from xmppd.xml.scan import Event
from xmppd.xml.stanza import Stanza

FEW = 4
"""Events of one read that are processed without looking at the time; nearly every read brings fewer."""

SLICE_SECONDS = 0.0003
"""How long the events of one read are processed before others have their turn."""

LONGEST_PAUSE = 1.0
"""Seconds after which a connection that waits looks up, so that it notices its end."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Comes before a stanza that is too early: nothing may be read for so many seconds, or, with 0, until it
    is this connection's turn again.
    """

    seconds: float


class Turns:
    """Whose turn it is among those that were stopped with work left, or with more to read: one in each turn
    of the loop, in order. However many there are, all others wait for one of them at most.
    """

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()

    def call(self, work: Callable[[], None]) -> None:
        """Call something when it is its turn."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._give)
        self._waiting.append(work)

    def next(self) -> asyncio.Future[None]:
        """Done when it is the caller's turn."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.call(lambda: None if turn.done() else turn.set_result(None))
        return turn

    def rest(self, seconds: float) -> Awaitable[None]:
        """Done after some time, or, with 0, when it is the caller's turn."""
        return asyncio.sleep(seconds) if seconds else self.next()

    def _give(self) -> None:
        work = self._waiting.popleft()
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._give)
        work()


def breathe(seconds: float = 0.0) -> Awaitable[None]:
    """Done when everybody else on the loop has had a turn, or for so long."""
    return asyncio.sleep(seconds)


class Slice:
    """The time for which whoever is at work may go on before others have their turn. One for all: nobody
    works beside another.
    """

    __slots__ = ("_began", "_clock")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """Somebody begins, or goes on after having waited."""
        self._began = self._clock()

    def spent(self) -> float:
        """Seconds since then, when they are more than a slice; otherwise 0."""
        seconds = self._clock() - self._began
        return seconds if seconds > SLICE_SECONDS else 0.0


class Tempo:
    """What all connections of one loop share of time. `clock` gives seconds that never jump, `share` is the
    part of the loop's time that what one connection sends may take while it sends much; 1: all.
    """

    __slots__ = ("clock", "share", "slice", "turns")

    def __init__(self, clock: Callable[[], float], share: float = 1.0) -> None:
        self.clock = clock
        self.share = share
        self.turns = Turns()
        self.slice = Slice()

    def rest(self, worked: float) -> float:
        """Seconds of rest after so many of work, for a connection that is to have no more than its share."""
        return min(worked / self.share - worked, LONGEST_PAUSE)


def paced(events: Iterable[Event], bucket: TokenBucket | None, tempo: Tempo) -> Iterator[Event | Pause]:
    """The same events, with a Pause where a slice of time is over, and before each stanza that is too early
    by the bucket, if there is one; none is ever dropped.

    Who meets a Pause asks for the next event after that time, and feeds nothing until all events are taken.
    """
    slice = tempo.slice
    slice.begin()
    for event in events:
        if spent := slice.spent():
            yield Pause(tempo.rest(spent))
            slice.begin()
        if bucket is not None and isinstance(event, Stanza):
            while seconds := bucket.take():
                yield Pause(min(seconds, LONGEST_PAUSE))
        yield event
