"""The outbox of this process: events are on disk, in order, before who caused them learns that it is done."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from xmppd.plugin import StoreError, XmppdError

if TYPE_CHECKING:
    from . import Webhooks

BUCKET: Final = 256
"""Rows of one partition."""
ROW_EVENTS: Final = 200
ROW_BYTES: Final = 262_144
PAUSES: Final = (0.05, 0.2, 1.0, 5.0)
"""Seconds from one try to write to the next; the last one for ever."""
SEEN_SECONDS: Final = 60.0
"""How often a process that has an outbox says so."""
STILL_SECONDS: Final = 300.0
DEAD_SECONDS: Final = 600.0
"""A process that has not said for so long that it lives writes nothing any more."""
OVER_SECONDS: Final = 60.0
"""After what time that counts of one that said that it stops."""
MOST: Final = 100
"""Processes that are looked at together, whether they can be forgotten."""
KIND: Final = "all"
CLOSE_SECONDS = 5.0
"""How long it is waited for what is still to be written when the plugin ends."""


@dataclass(slots=True)
class Ticket:
    """One event: in how many rows it still has to be written, and who waits for that."""

    left: int
    future: asyncio.Future[None]

    def written(self) -> None:
        """It is in one more."""
        self.left -= 1
        if not self.left and not self.future.done():
            self.future.set_result(None)

    def given_up(self) -> None:
        """Nobody writes it any more: who waits for it learns that nobody knows."""
        if not self.future.done():
            self.future.set_exception(StoreError("web hooks ended before an event was written"))
            self.future.exception()  # nobody may be waiting


@dataclass(slots=True)
class Queue:
    """What a subscription is to have: events to be written, and the sizes of the rows that it has not
    delivered. All rows below `head` are written.
    """

    events: deque[tuple[str, Ticket]] = field(default_factory=deque)
    next_row: int = 0
    head: int = 0
    rows: deque[tuple[int, int, int]] = field(default_factory=deque)
    count: int = 0
    bytes: int = 0
    lost: int = 0

    def delivered(self, row: int) -> None:
        """Rows up to this one are."""
        while self.rows and self.rows[0][0] <= row:
            _, count, size = self.rows.popleft()
            self.count -= count
            self.bytes -= size


class Outbox:
    """A row holds some events of one subscription, and is written when the one before is on disk: so whoever
    reads finds no gaps. What comes meanwhile is written together. A write that fails is tried again until it
    succeeds.
    """

    def __init__(self, plugin: Webhooks) -> None:
        self._plugin = plugin
        self.writer = secrets.token_hex(8)
        self._queues: dict[str, Queue] = {}
        self._task: asyncio.Task[Any] | None = None
        self._writing: list[Ticket] = []
        self._said: float | None = None
        self._row = plugin.outbox.writer(("subscription", "writer", "bucket", "row", "events"))
        self.written: Callable[[str], None] = lambda subscription: None

    @property
    def waiting(self) -> int:
        """Events of this process that are not delivered."""
        return sum(queue.count for queue in self._queues.values())

    def put(self, texts: Mapping[str, str]) -> asyncio.Future[None] | None:
        """Write an event, as it is for each subscription (by its id). Where one has as many as it may have it
        is lost, and counted. The future ends when it is on disk.
        """
        ticket = Ticket(0, asyncio.get_running_loop().create_future())
        config = self._plugin.config
        for subscription, text in texts.items():
            queue = self._queues.setdefault(subscription, Queue())
            if queue.count >= config.waiting or queue.bytes + len(text) > config.waiting_bytes:
                self._plugin.lost.inc()
                if not queue.lost:
                    self._plugin.log.warning("webhook-lost", extra={"subscription": subscription})
                queue.lost += 1
                continue
            queue.events.append((text, ticket))
            queue.count += 1
            queue.bytes += len(text)
            ticket.left += 1
        if not ticket.left:
            return None
        if self._task is None or self._task.done():
            self._task = self._plugin.spawn(self._write_all())
        return ticket.future

    def delivered(self, subscription: str, row: int) -> None:
        """Rows of this process up to this one are."""
        queue = self._queues.get(subscription)
        if queue is not None:
            queue.delivered(row)
            if queue.lost and queue.count < self._plugin.config.waiting // 2:
                self._plugin.log.warning(
                    "webhook-lost", extra={"subscription": subscription, "count": queue.lost}
                )
                queue.lost = 0

    def forget(self, subscription: str) -> None:
        """There is no such subscription any more: nobody waits for its events."""
        queue = self._queues.pop(subscription, None)
        for _, ticket in queue.events if queue is not None else ():
            ticket.written()

    async def close(self) -> None:
        """Write what there is, if the store takes it in some seconds."""
        if self._task is not None and not self._task.done():
            await asyncio.wait([self._task], timeout=CLOSE_SECONDS)
            self._task.cancel()
        for ticket in (*self._writing, *(it for queue in self._queues.values() for _, it in queue.events)):
            ticket.given_up()
        if self._said is not None and (self._task is None or not self._task.cancelling()):
            with suppress(StoreError):
                await self.say(is_over=True)

    async def _write_all(self) -> None:
        while waiting := [(name, queue) for name, queue in self._queues.items() if queue.events]:
            rows, tickets = [], []
            for name, queue in waiting:
                number = queue.next_row
                queue.next_row += 1
                some = [*_some(queue.events)]
                text = "\n".join(text for text, _ in some)
                queue.rows.append((number, len(some), sum(len(text) for text, _ in some)))
                rows.append(self._row.row(name, self.writer, number // BUCKET, number, text))
                tickets += [ticket for _, ticket in some]
            self._writing = tickets
            await self._write(rows)
            self._writing = []
            for ticket in tickets:
                ticket.written()
            for name, queue in waiting:
                queue.head = queue.next_row
                self.written(name)

    async def _write(self, rows: list[Any]) -> None:
        """Until it succeeds, or can never."""
        for attempt in range(1 << 30):
            try:
                await self.introduce()
                await self._plugin.outbox.write(rows, ttl=self._plugin.config.keep_days * 86400)
                return
            except StoreError:
                await self._plugin.pause(PAUSES[min(attempt, len(PAUSES) - 1)])
            except XmppdError:
                self._plugin.log.exception("webhook-not-written")
                return

    async def introduce(self) -> None:
        """Say that this process has an outbox, before it has; and once a minute, that it still lives: again
        where it stood still for so long that others may think it dead.
        """
        if self._said is None or self._plugin.now() - self._said > STILL_SECONDS:
            await self.say()

    async def say(self, *, is_over: bool = False) -> None:
        """That it lives, or writes nothing any more; StoreError."""
        plugin = self._plugin
        now = plugin.now()
        heads = {name: queue.head for name, queue in self._queues.items()}
        row = {
            "kind": KIND,
            "writer": self.writer,
            "node": plugin.server.node,
            "at": now - (DEAD_SECONDS - OVER_SECONDS if is_over else 0.0),
            "heads": json.dumps(heads),
        }
        await plugin.writers.put(row, ttl=plugin.config.keep_days * 86400 + 86400)
        self._said = now

    async def tidy(self) -> int:
        """Take processes off the list that write nothing any more, and of which each subscription has had
        all, so that it is no longer than what is under way; how many. StoreError.
        """
        plugin = self._plugin
        rows = (await plugin.writers.scan(KIND)).rows
        dead = [it for it in rows if it["writer"] != self.writer and plugin.now() - it["at"] > DEAD_SECONDS]
        count = 0
        for row in random.sample(dead, min(len(dead), MOST)):
            if not await plugin.foreseen.resolve(row["writer"]):
                continue
            heads = json.loads(row["heads"] or "{}")
            for it in [it for it in plugin.known.values() if it.collects]:
                if await self._is_left(it.id, row["writer"], heads.get(it.id, 0)):
                    break
            else:
                await plugin.writers.delete(KIND, row["writer"])
                count += 1
        return count

    async def _is_left(self, subscription: str, writer: str, head: int) -> bool:
        """Whether a subscription is not done with what a process wrote."""
        if await self._plugin.cursors.get(subscription, writer) is not None:
            return True
        for bucket in range(head // BUCKET + 1):
            if (await self._plugin.outbox.scan(subscription, writer, bucket, limit=1)).rows:
                return True
        return False


def _some(events: deque[tuple[str, Ticket]]) -> Iterable[tuple[str, Ticket]]:
    """As many as a row may have."""
    size = 0
    for count in range(ROW_EVENTS):
        if not events or (count and size + len(events[0][0]) > ROW_BYTES):
            return
        size += len(events[0][0])
        yield events.popleft()
