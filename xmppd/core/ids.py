"""Ids in the order of time, over all nodes and whatever their clocks do; and up to which of them all that is
acknowledged can be read.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, NamedTuple

from xmppd.errors import StoreError
from xmppd.store.person import nobody
from xmppd.store.table import Delete, Row, Store, Table

NODE_CLOCK: Final = Table(
    "node_clock",
    partition=("name",),
    cluster=("node",),
    columns={"at": "int"},
    ttl=86_400.0,
    person=nobody("clocks of processes"),
)
"""One partition, `ALL`: by process, where its hybrid clock was."""

ALL: Final = "all"

LOOK_SECONDS: Final = 10.0
"""How often a node says where its clock is, and looks where the others' are."""

FRESH_SECONDS: Final = 20.0
"""How old the last look may be when an id is given."""

WRITE_SECONDS: Final = 20.0
"""How long the write of a row with such an id may take, from then on."""

SETTLED_SECONDS: Final = 60.0
"""After so long whoever gave an id without knowing of a look has written its row: the two above, and a third
for clocks that do not run equally fast.
"""

AHEAD_SECONDS: Final = 60.0
"""By how much ids may be ahead of the clock of this machine before that is worth a word."""

EVERYTHING: Final = 1 << 64
"""Larger than any id."""

log = logging.getLogger(__name__)


class HybridClock:
    """Microseconds since the epoch that never go back, and are never behind what was seen of other clocks
    (a hybrid logical clock); it is ahead of `now` where that is behind. `last` was given or seen last.
    """

    __slots__ = ("_now", "last")

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.last = 0

    def next(self, after: int = 0) -> int:
        """Larger than all that was given or seen, and than `after`."""
        at, last = int(self._now() * 1_000_000), self.last
        if at <= last:
            at = last + 1
        if at <= after:
            at = after + 1
        self.last = at
        return at

    def see(self, at: int) -> None:
        """Another clock was there."""
        if at > self.last:
            self.last = at

    def read(self) -> int:
        """What time it is; the next id is not smaller."""
        return max(self.last, int(self._now() * 1_000_000))


class Moment(NamedTuple):
    """When something was, by all that tells of time: a clock that nobody sets, the wall clock, and the hybrid
    one.
    """

    clock: float
    wall: float
    hybrid: int


class Ids:
    """Gives ids by a hybrid clock. `is_shared`: other nodes write to the store as well.

    Ids alone do not say that nothing smaller will be written: a clock may be behind, a node cut off from all
    others, a write under way. So each node writes into the store where its clock is, reads where the others
    are, and gives no id without having looked lately. What a node said there some time ago, all have seen,
    and so nothing smaller is written any more: it is `settled`. Only durations count, by clocks that nobody
    sets, so it makes no difference how wrong `now` is. What must not have taken long is judged by whichever
    clock says that it took longest: a machine that stood still may learn of that by one of them alone, and a
    wall clock that was set costs a look or a second write.
    """

    def __init__(
        self,
        store: Store,
        now: Callable[[], float],
        clock: Callable[[], float],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self.is_shared = False
        self.time = HybridClock(now)
        self._store = store
        self._now = now
        self._clock = clock
        self._spawn = spawn
        self._node = secrets.token_hex(4)
        self._looked: Moment | None = None
        self._looking: asyncio.Future[None] | None = None
        self._said: deque[tuple[float, int]] = deque()
        self._settled = 0
        self._is_ahead = False

    async def begin(self) -> Moment:
        """To be awaited before ids are given; they may be until there is another `await`. The moment from
        which the write of their rows counts (`is_overdue`). StoreError.
        """
        if self.is_shared and (self._looked is None or self._since(self._looked) > FRESH_SECONDS):
            await asyncio.shield(self._look())
        return self._moment()

    def _moment(self) -> Moment:
        return Moment(self._clock(), self._now(), self.time.read())

    def _since(self, moment: Moment) -> float:
        """How many seconds ago that may have been."""
        clock, wall, hybrid = self._moment()
        return max(clock - moment.clock, wall - moment.wall, (hybrid - moment.hybrid) / 1_000_000)

    def is_overdue(self, since: Moment) -> bool:
        """Whether a write has taken so long that its id may have been counted as settled before the row was
        there: then it may be deleted unread even now, and has to be replaced by one with a newer id.
        """
        return self.is_shared and self._since(since) > WRITE_SECONDS

    def settled(self) -> int:
        """Who reads from now on finds all rows that were, or ever will be, written by an id that is not
        larger, but for those that are overdue.
        """
        if not self.is_shared:
            return EVERYTHING
        due = self._clock() - SETTLED_SECONDS
        while self._said and self._said[0][0] <= due:
            self._settled = max(self._settled, self._said.popleft()[1])
        return self._settled

    def tick(self) -> None:
        """Called every second."""
        if self.is_shared and (self._looked is None or self._since(self._looked) >= LOOK_SECONDS):
            self._look()

    def _look(self) -> asyncio.Future[None]:
        """Say and see where clocks are; whoever asks meanwhile waits for the same."""
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_future()
            self._spawn(self._looked_at(self._looking))
        return self._looking

    async def _looked_at(self, end: asyncio.Future[None]) -> None:
        began = self._moment()
        try:
            row: Row = {"name": ALL, "node": self._node, "at": self.time.read()}
            await self._store.put(NODE_CLOCK, row)
            rows = (await self._store.scan(NODE_CLOCK, (ALL,))).rows
        except StoreError as error:
            end.set_exception(error)
            end.exception()  # perhaps nobody waits
        else:
            self._take({row["node"]: row["at"] for row in rows})
            self._looked = began
            end.set_result(None)
        finally:
            self._looking = None
            if not end.done():
                end.cancel()

    def _take(self, clocks: dict[str, int]) -> None:
        """What counts as said is what is read: a write may lose against an older one of the same node, where
        the clocks of an engine's nodes differ.
        """
        said = clocks.get(self._node)
        if said is not None:
            self._said.append((self._clock(), said))
        self.settled()
        farthest = max(clocks, key=lambda node: clocks[node], default="")
        self.time.see(clocks.get(farthest, 0))
        ahead = self.time.last / 1_000_000 - self._now()
        if self._is_ahead != (ahead > AHEAD_SECONDS):
            self._is_ahead = not self._is_ahead
            if self._is_ahead:
                log.warning("clock-behind", extra={"seconds": round(ahead, 1), "farthest": farthest})
            else:
                log.info("clock-right", extra={"seconds": round(ahead, 1)})


def removal(ids: Sequence[str], settled: int) -> list[Delete]:
    """The deletes of the first messages of a queue: of all that is settled at once, for on some engines each
    delete of a single row makes later reads slower. Between the others somebody may still write.
    """
    old = [number for number in ids if int(number[:16], 16) <= settled]
    at_once = [Delete((old[-1],), through=True)] if old else []
    return [*at_once, *(Delete((number,)) for number in ids[len(old) :])]
