"""What of an outbox is being delivered: in order for each account, none held up by another that is stuck."""

from __future__ import annotations

import json
from bisect import insort
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

ALL: Final = 1 << 30
EVERY_ID: Final = "~"
"""Behind all ids of events."""


@dataclass(frozen=True, slots=True)
class Bound:
    """Which events may be sent: those told `before` a moment, not behind the id `upto`, and read by a pass
    that came before the one of this number.
    """

    before: float = float("inf")
    upto: str = EVERY_ID
    passes: int = ALL


FREE: Final = Bound()


@dataclass(slots=True)
class Row:
    """One row of a writer: how many of its events are still to be delivered."""

    number: int
    left: int


@dataclass(slots=True, eq=False)
class Item:
    """One event of a row. `attempts` have failed for which it may be to blame; `taken`: what was accepted of
    the others when the last one did.
    """

    id: str
    account: str
    text: str
    time: float
    row: Row
    seen: int = 0
    """The pass in which it was read."""
    attempts: int = 0
    taken: int = -1

    def is_free(self, bound: Bound) -> bool:
        """Whether it may be sent."""
        return self.time < bound.before and self.id <= bound.upto and self.seen < bound.passes

    def __lt__(self, other: Item) -> bool:
        return self.id < other.id


@dataclass(slots=True)
class Lane:
    """The events of one account, oldest first. It is `busy` while some are under way, and rests until `due`.
    After a failure it shares a batch with fewer others (`company`), at last none, and brings fewer events
    (`most`).
    """

    items: list[Item] = field(default_factory=list)
    busy: bool = False
    due: float = 0.0
    company: int = ALL
    most: int = ALL


Batch = Sequence[Item]


class Window:
    """The events that were read and not delivered. What is added goes behind what is under way."""

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}
        self._rows: dict[str, deque[Row]] = {}
        self.done_up_to: dict[str, int] = {}
        """By writer: all rows up to this one are delivered."""
        self.count = 0
        self.bytes = 0
        self.accepted = 0
        """How many were, in all."""

    def has(self, writer: str) -> bool:
        """Whether anything of it is still to be delivered."""
        return writer in self._rows

    def add(self, writer: str, number: int, events: Iterable[str], seen: int = 0) -> str:
        """One more row of a writer, behind those of it that were added, read in the pass `seen`. The greatest
        id in it.
        """
        texts = [*events]
        row, last = Row(number, len(texts)), ""
        self._rows.setdefault(writer, deque()).append(row)
        for text in texts:
            known = json.loads(text)
            item = Item(known["id"], known["account"], text, known["time"], row, seen)
            lane = self._lanes.setdefault(item.account, Lane())
            last = max(last, item.id)
            insort(lane.items, item, lo=self._under_way(lane))
            self.count += 1
            self.bytes += len(text)
        if not texts:
            self._settle(writer)
        return last

    @staticmethod
    def _under_way(lane: Lane) -> int:
        """How many at its beginning were tried, and stay there."""
        return next((n for n, it in enumerate(lane.items) if it.taken < 0), len(lane.items))

    def take(self, now: float, most: int, most_bytes: int, bound: Bound) -> Batch:
        """Events for one request, in order; none where all is busy, rests, or is not within the `bound`."""
        found: list[Item] = []
        size, lanes, company = 0, 0, ALL
        for lane in self._lanes.values():
            if lane.busy or lane.due > now or not lane.items:
                continue
            if lanes and lanes + 1 > min(company, lane.company):
                continue
            some = 0
            for item in lane.items[: min(lane.most, most - len(found))]:
                if not item.is_free(bound) or (found and size + len(item.text) > most_bytes):
                    break
                found.append(item)
                size += len(item.text)
                some += 1
            if some:
                lane.busy = True
                lanes += 1
                company = min(company, lane.company)
            if len(found) >= most or size >= most_bytes or lanes >= company:
                break
        for item in found:
            item.taken = max(item.taken, 0)
        return sorted(found)

    def next_due(self, now: float) -> float | None:
        """When the first lane that rests may go on; None where none rests."""
        return min(
            (it.due for it in self._lanes.values() if it.items and not it.busy and it.due > now), default=None
        )

    def delivered(self, batch: Batch) -> None:
        """They were accepted."""
        self.accepted += len(batch)
        for lane in self._lanes_of(batch):
            lane.company = lane.most = ALL
            lane.due = 0.0
        self.drop(batch)

    def drop(self, batch: Batch) -> None:
        """They are done with."""
        gone = {id(item) for item in batch}
        for account in {item.account for item in batch}:
            lane = self._lanes[account]
            lane.items = [item for item in lane.items if id(item) not in gone]
            lane.busy = False
            if not lane.items:
                del self._lanes[account]
        for item in batch:
            item.row.left -= 1
            self.count -= 1
            self.bytes -= len(item.text)
        for writer in [*self._rows]:
            self._settle(writer)

    def put_back(self, batch: Batch) -> None:
        """They were not delivered, and none of them is to blame."""
        for lane in self._lanes_of(batch):
            lane.busy = False

    def split(self, batch: Batch, due: float) -> Item | None:
        """They were refused, one or the other of them maybe for what it is: the next attempts find out which.
        The event itself, where it was alone.
        """
        lanes = self._lanes_of(batch)
        for lane in lanes:
            lane.busy = False
            lane.company = max(1, len(lanes) // 2)
            lane.due = due
        if len(lanes) == 1:
            lanes[0].most = max(1, len(batch) // 2)
        return batch[0] if len(batch) == 1 else None

    def rest(self, item: Item, until: float) -> None:
        """Its account waits until then."""
        self._lanes[item.account].due = until

    def _lanes_of(self, batch: Batch) -> list[Lane]:
        return [self._lanes[account] for account in dict.fromkeys(item.account for item in batch)]

    def _settle(self, writer: str) -> None:
        rows = self._rows[writer]
        while rows and not rows[0].left:
            self.done_up_to[writer] = rows.popleft().number
        if not rows:
            del self._rows[writer]

    @property
    def oldest(self) -> float | None:
        """When the oldest of them was told."""
        return min((lane.items[0].time for lane in self._lanes.values() if lane.items), default=None)


def payload(subscription: str, delivery: str, now: float, batch: Batch) -> bytes:
    """The body of a request."""
    about: dict[str, Any] = {"subscription": subscription, "delivery": delivery, "sent": round(now, 3)}
    head = json.dumps(about, ensure_ascii=False)
    return f'{head[:-1]}, "events": [{", ".join(item.text for item in batch)}]}}'.encode()
