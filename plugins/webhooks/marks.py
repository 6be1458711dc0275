"""What this process is about to do and to tell: written down before it is done, so that whoever comes after a
kill finds out whether it was, and tells it.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from xmppd.plugin import Event, StoreError

from .outbox import CLOSE_SECONDS, DEAD_SECONDS
from .subscription import ENCODER, MESSAGES

if TYPE_CHECKING:
    from . import Webhooks

MOST: Final = 20_000
"""Marks of one process at a time. What comes beyond has to wait for others to go."""
ROWS: Final = 200
BYTES: Final = 262_144
"""How many, and how large ones, are written at once."""
CLEAR_SECONDS: Final = 0.5
"""How soon those that are told are taken out where no others take their places."""
DOUBT_SECONDS: Final = 30.0
"""How long after it failed it is found out what became of an act: what was on its way has arrived."""
OPEN_SECONDS: Final = 300.0
"""The same where nobody said that it came to nothing. No act takes so long."""
FIRST_SECONDS: Final = 10.0
"""How long nobody is let in while that is found out of a process that was killed."""
LOOK_SECONDS: Final = 10.0
PAGE: Final = 100


class Mark:
    """One event that is about to happen, in one slot of this process."""

    __slots__ = ("_marks", "at", "future", "id", "is_over", "slot", "text")

    def __init__(self, marks: Marks, id: str, slot: int, text: str, at: float) -> None:
        self._marks = marks
        self.id = id
        self.slot = slot
        self.text = text
        self.at = at
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_over = False

    def written(self) -> asyncio.Future[None]:
        """It is on disk when this is done; StoreError."""
        return self.future

    def drop(self) -> None:
        """It did not happen, or is told: it goes."""
        if not self.is_over:
            self.is_over = True
            self._marks.free(self)

    def doubt(self) -> None:
        """It may have happened: that is found out later."""
        self.at = min(self.at, self._marks.now() - OPEN_SECONDS + DOUBT_SECONDS)


class Marks:
    """The marks of this process are rows of one partition, in slots that are used again: so one write does
    for each act, and as many rows are there as acts were under way at once.
    """

    def __init__(self, plugin: Webhooks) -> None:
        self._plugin = plugin
        self._free: list[int] = []
        self._slots = 0
        self._stale: set[int] = set()
        self._waiting: deque[Mark] = deque()
        self._task: asyncio.Task[Any] | None = None
        self._is_clearing = False
        self._row = plugin.marks.writer(("writer", "slot", "event"))
        self.open: dict[str, Mark] = {}
        """Those that are neither told nor given up, by the ids of their events."""

    def now(self) -> float:
        """Seconds of the server's own clock."""
        return self._plugin.scope.clock()

    def keeps(self, kind: str, account: str) -> bool:
        """Whether a subscription may want it."""
        return any(it.is_about(account) for it in self._plugin.wanting(kind))

    def begin(self, event: Event, about: Mapping[str, Any]) -> Mark:
        """Begin to write one; StoreError where too many are under way."""
        if len(self.open) >= MOST:
            raise StoreError(f"{MOST} acts wait to be told")
        whole = event.as_json()
        if event.kind == MESSAGES and not any(it.bodies for it in self._plugin.wanting(event.kind)):
            whole["data"] = {**event.data, "body": None}
        if self._free:
            slot = self._free.pop()
        else:
            slot, self._slots = self._slots, self._slots + 1
        mark = Mark(self, event.id, slot, text_of(whole, about), self.now())
        self.open[event.id] = mark
        self._waiting.append(mark)
        self._wake()
        return mark

    def told(self, id: str, waiting: asyncio.Future[None] | None) -> None:
        """The event of this id is safe when this is done."""
        mark = self.open.get(id)
        if mark is None:
            return
        if waiting is None:
            mark.drop()
        else:
            waiting.add_done_callback(lambda it: it.cancelled() or it.exception() or mark.drop())

    def free(self, mark: Mark) -> None:
        """Its slot may be had by another one, as soon as it is written."""
        if not mark.future.done():
            mark.future.add_done_callback(lambda _: self.free(mark))
            return
        del self.open[mark.id]
        self._free.append(mark.slot)
        self._stale.add(mark.slot)
        self._clear_soon()

    def _clear_soon(self) -> None:
        if not self._is_clearing:
            self._is_clearing = True
            self._plugin.call_later(CLEAR_SECONDS, self._clear)

    def _clear(self) -> None:
        self._is_clearing = False
        self._wake(is_all=True)

    def _wake(self, *, is_all: bool = False) -> None:
        if (self._waiting or (is_all and self._stale)) and (self._task is None or self._task.done()):
            self._task = self._plugin.spawn(self._write_all())

    async def _write_all(self) -> None:
        """What waits; and what is told, where nothing does."""
        while self._waiting or self._stale:
            marks, size = [], 0
            while self._waiting and len(marks) < ROWS and (not marks or size < BYTES):
                marks.append(self._waiting.popleft())
                size += len(marks[-1].text)
            texts = {mark.slot: mark.text for mark in marks}
            stale = set() if marks else {*self._stale}
            self._stale -= {*texts, *stale}
            try:
                await self._write({**texts, **dict.fromkeys(stale, "")})
            except StoreError as error:
                self._stale |= {*texts, *stale}
                for mark in marks:
                    mark.future.set_exception(error)
                    mark.future.exception()  # nobody may be waiting
                if not marks:
                    self._clear_soon()
                    return
            else:
                for mark in marks:
                    mark.future.set_result(None)
                if marks and not self._waiting:
                    return

    async def _write(self, texts: Mapping[int, str]) -> None:
        plugin = self._plugin
        await plugin.boxes.introduce()
        rows = [self._row.row(plugin.boxes.writer, slot, text) for slot, text in texts.items()]
        await plugin.marks.write(rows, ttl=plugin.config.keep_days * 86400)

    # what nobody says anything of any more

    async def look(self) -> None:
        """Find out what became of acts of which that is not known; StoreError."""
        due = [mark for mark in self.open.values() if self.now() - mark.at >= OPEN_SECONDS]
        for mark in due[:PAGE]:
            if mark.future.done() and not mark.is_over and await self._resolve(mark.text):
                mark.drop()

    async def begin_behind(self) -> None:
        """Tell what the process before this one did, before anybody does anything newer: that has to be told
        behind it. What is left after some seconds is told later.
        """
        if self._plugin.known:
            await asyncio.wait([self._plugin.spawn(self._recover())], timeout=FIRST_SECONDS)

    async def _recover(self) -> None:
        with suppress(StoreError):  # it is looked again
            await self.recover()

    async def recover(self) -> None:
        """Tell what processes did that write nothing any more, and did not tell; StoreError."""
        plugin = self._plugin
        for row in (await plugin.writers.scan("all")).rows:
            writer = row["writer"]
            if writer != plugin.boxes.writer and self.is_dead(row):
                await self.resolve(writer)

    def is_dead(self, row: Mapping[str, Any]) -> bool:
        """Whether a process is gone: this one is in its place, or it has not said for long that it lives."""
        plugin = self._plugin
        is_mine = not plugin.server.has_other_nodes or row["node"] == plugin.server.node
        return is_mine or bool(plugin.now() - row["at"] > DEAD_SECONDS)

    async def resolve(self, writer: str) -> bool:
        """All marks of a process that is gone; whether none is left. StoreError."""
        is_whole, page = True, await self._plugin.marks.scan(writer, limit=PAGE)
        while True:
            for row in page.rows:
                if row["event"] and not await self._resolve(row["event"]):
                    is_whole = False
                else:
                    await self._plugin.marks.delete(writer, row["slot"])
            if page.next is None:
                return is_whole
            page = await self._plugin.marks.scan(writer, limit=PAGE, page=page.next)

    async def _resolve(self, text: str) -> bool:
        """Tell an event if it happened; False where no plugin tells such now. StoreError."""
        found = json.loads(text)
        whole, events = found["event"], self._plugin.server.events
        kind = events.kinds.get(whole["kind"])
        if kind is None:
            return False
        try:
            data = await events.happened(kind, whole["account"], whole["data"], found["about"])
        except StoreError:
            raise
        except Exception:
            self._plugin.log.exception("webhook-not-found-out")
            data = whole["data"]
        if data is None:
            return True
        event = Event(**{**whole, "data": data})
        if (waiting := self._plugin.put(event)) is not None:
            await waiting
        self._plugin.recovered.inc()
        return True

    async def close(self) -> None:
        """Take out what is told."""
        if self._task is not None and not self._task.done():
            await asyncio.wait([self._task], timeout=CLOSE_SECONDS)
            self._task.cancel()
        for mark in self.open.values():
            if not mark.future.done():
                mark.future.set_exception(StoreError("web hooks ended before an act was noted"))
                mark.future.exception()  # nobody may be waiting
        if not self.open and self._slots:
            with suppress(StoreError):
                await self._plugin.marks.delete(self._plugin.boxes.writer)


def text_of(event: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """A mark as it is kept."""
    return ENCODER.encode({"event": event, "about": about})
