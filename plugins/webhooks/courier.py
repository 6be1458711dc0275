"""Delivers what one subscription has, on the node that holds its lease."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from xmppd.plugin import Delete, HttpAnswer, HttpFailed, StoreError

from .lease import BEAT_SECONDS, Lease
from .outbox import BUCKET, DEAD_SECONDS
from .requests import post, retry_after
from .subscription import ACTIVE, Subscription
from .window import EVERY_ID, Batch, Bound, Item, Window

if TYPE_CHECKING:
    from . import Webhooks

EVENTS: Final = 5000
BYTES: Final = 8_388_608
"""So much of an outbox is in memory."""
ROWS: Final = 8
"""Rows read at a time."""
LOOK_SECONDS: Final = 2.0
"""How often is looked for what nobody told of."""
PURGE_SECONDS: Final = 60.0
MOVE_SECONDS: Final = 0.5
"""How often it is written down how far it is, at most."""
AWAY: Final = frozenset((401, 403, 404, 405, 407, 408, 421, 425, 429, 502, 503, 504))
"""What a receiver answers that is not there, or not what it should be; no event is to blame."""


class Courier:
    """One subscription on this node. Where another one has the lease it waits for that."""

    def __init__(self, plugin: Webhooks, subscription: Subscription) -> None:
        self.subscription = subscription
        self._plugin = plugin
        self.lease = Lease(plugin, subscription.id)
        self.window = Window()
        self._next: dict[str, int] = {}
        self._moved: dict[str, int] = {}
        self._behind: dict[str, int] = {}
        self._last: dict[str, str] = {}
        self._unread: set[str] = set()
        self._passes = self._complete = 0
        self._upto = EVERY_ID
        """Of writers of which there is more than is read: the last id that is, and whose those are; how many
        times was read, in whole; up to which id may be sent."""
        self._is_fresh = False
        self._drained: set[str] = set()
        self._gone: set[str] = set()
        self._failed = 0
        self._until = 0.0
        self._sent = float("-inf")
        self._requests = 0
        self._wakes = asyncio.Event()
        self._is_told = True
        self._refusals = 0
        self._refusing: set[str] = set()
        self._look = self._move = self._purge = 0.0
        self._is_over = False

    @property
    def is_open(self) -> bool:
        """Whether the circuit is: so many requests failed in a row that only one at a time is tried."""
        return self._failed >= self._plugin.config.open_after

    def wake(self) -> None:
        """There may be something to do."""
        self._is_told = True
        self._wakes.set()

    def close(self) -> None:
        """End when what is under way is."""
        self._is_over = True
        self.wake()

    async def run(self) -> None:
        """Until it is closed."""
        while not self._is_over:
            try:
                if not self.lease.is_held and not await self._take():
                    await self._wait(min(BEAT_SECONDS, self._plugin.config.lease / 4))
                    continue
                await self._step()
            except StoreError:
                await self._wait(1.0)
        try:
            await self._move_on(anyway=True)
            await self.lease.give_up()
        except StoreError:
            pass  # another one waits for it, and delivers some once more

    async def _take(self) -> bool:
        if self._requests or not await self.lease.take():
            return False
        self.window = Window()
        self._moved = await self.lease.rows()
        self._behind = {}
        self._last, self._unread = {}, set()
        self._passes = self._complete = 0
        self._drained, self._gone = set(), set()
        self._next = {writer: row + 1 for writer, row in self._moved.items()}
        self._look = 0.0
        return True

    async def _step(self) -> None:
        now = self._plugin.scope.clock()
        if self.subscription.state == ACTIVE:
            if self._is_told or now >= self._look or self._has_room:
                self._is_told = False
                await self._read()
                is_shared = self._is_fresh and self._plugin.server.has_other_nodes
                self._look = now + (self._plugin.config.settle if is_shared else LOOK_SECONDS)
            self._send()
        if not self.lease.is_held:
            return
        await self._move_on()
        await self._wait(self._rest())

    @property
    def _has_room(self) -> bool:
        """Whether what was left unread for want of room can be read now."""
        return bool(self._unread) and (
            self.window.count < EVENTS // 2 or not all(map(self.window.has, self._unread))
        )

    def _rest(self) -> float:
        """Seconds until there is something to do by itself."""
        now = self._plugin.scope.clock()
        moments = [max(now, self._look) if self.subscription.state == ACTIVE else now + LOOK_SECONDS]
        if (due := self.window.next_due(now)) is not None:
            moments.append(due)
        moments += [it for it in (self._until, self._sent + self._plugin.config.gather) if it > now]
        if self.window.done_up_to:
            moments.append(self._move)
        if self.window.count and not self._requests and self._plugin.server.has_other_nodes:
            moments.append(now + self._plugin.config.settle)
        return max(0.01, min(moments) - now)

    async def _wait(self, seconds: float) -> None:
        timer = self._plugin.call_later(seconds, self._wakes.set)
        await self._wakes.wait()
        self._wakes.clear()
        timer.cancel()

    # what there is

    async def _read(self) -> None:
        """What comes next of each writer, as long as there is room; StoreError. What was read waits for the
        next pass where others write, too: what was acknowledged before it happened is read by then. And what
        is behind all that is read of a writer waits until more of that is.
        """
        plugin = self._plugin
        self._passes += 1
        self._is_fresh = False
        rows = (await plugin.writers.scan("all")).rows
        self._forget({row["writer"] for row in rows})
        for row in rows:
            writer = row["writer"]
            is_dead = writer != plugin.boxes.writer and plugin.now() - row["at"] > DEAD_SECONDS
            if writer in self._drained and not is_dead:  # it stood still
                self._drained.discard(writer)
                self._gone.discard(writer)
            if writer in self._drained or not await self._read_from(writer, row["heads"] or ""):
                continue
            if is_dead and self._next.get(writer, 0) == self._moved.get(writer, -1) + 1:
                self._drained.add(writer)
        self._complete = self._passes
        self._upto = min((self._last[writer] for writer in self._unread), default=EVERY_ID)
        plugin.waiting.set(plugin.boxes.waiting)
        oldest = self.window.oldest
        plugin.behind(self.subscription.name, 0.0 if oldest is None else max(0.0, plugin.now() - oldest))

    async def _read_from(self, writer: str, heads: str) -> bool:
        """Whether all that a writer has is read. By its `heads` what ended unread is passed over. Of each
        something is in hand, or nothing that is behind it could be sent.
        """
        self._unread.discard(writer)
        while (self.window.count < EVENTS and self.window.bytes < BYTES) or not self.window.has(writer):
            number = self._next.get(writer, 0)
            page = await self._plugin.outbox.scan(
                self.subscription.id, writer, number // BUCKET, start=(number,), limit=ROWS
            )
            for row in page.rows:
                last = self.window.add(writer, row["row"], row["events"].split("\n"), self._passes)
                self._last[writer] = max(last, self._last.get(writer, ""))
                self._next[writer] = row["row"] + 1
                self._is_fresh = True
            if not page.rows:
                head = json.loads(heads).get(self.subscription.id, 0) if heads else 0
                bucket = number // BUCKET + 1
                if bucket * BUCKET > head:
                    return True
                self._next[writer] = bucket * BUCKET
        self._unread.add(writer)
        return False

    def _forget(self, known: set[str]) -> None:
        """Processes that are on the list no more."""
        self._unread &= known
        for writer in [it for it in self._next if it not in known and not self.window.has(it)]:
            if writer not in self.window.done_up_to:
                for told in (self._next, self._moved, self._last, self._behind):
                    told.pop(writer, None)
        self._drained &= known
        self._gone &= known

    # requests

    def _send(self) -> None:
        """As many requests as there may be."""
        plugin, config = self._plugin, self._plugin.config
        now = plugin.scope.clock()
        bound = Bound(upto=self._upto)
        if plugin.server.has_other_nodes:
            bound = Bound(plugin.now() - config.settle, self._upto, self._complete)
        parallel = 1 if self._failed else config.parallel
        while now >= self._until and self._requests < parallel and self.lease.is_held and not self._is_over:
            if self.window.count < config.batch and now < self._sent + config.gather:
                return  # each request costs both ends more than many events in it
            batch = self.window.take(now, config.batch, config.batch_bytes, bound)
            if not batch:
                return
            self._requests += 1
            self._sent = now
            plugin.spawn(self._deliver(batch))

    async def _deliver(self, batch: Batch) -> None:
        window, plugin = self.window, self._plugin
        try:
            answer = await post(plugin.client, self.subscription, batch, plugin.now(), plugin.server.version)
            if 200 <= answer.status < 300:
                self._failed, self._until = 0, 0.0
                self._refusals = 0
                self._refusing.clear()
                window.delivered(batch)
                plugin.delivered.inc(len(batch))
                for item in batch:
                    plugin.lag.observe(max(0.0, plugin.now() - item.time))
            else:
                await self._refused(batch, answer)
        except HttpFailed as error:
            window.put_back(batch)
            self._away(str(error))
        except BaseException:
            window.put_back(batch)
            raise
        finally:
            self._requests -= 1
            self._wakes.set()

    def _away(self, why: str, pause: float = 0.0) -> None:
        """Nobody is there to take anything: that is no event's fault."""
        config = self._plugin.config
        self._plugin.failed.inc()
        self._failed += 1
        if self._failed == config.open_after:
            extra = {"subscription": self.subscription.name, "reason": why}
            self._plugin.log.warning("webhook-failing", extra=extra)
        most = min(config.pause_most, config.pause * 2 ** min(self._failed - 1, 20))
        self._until = self._plugin.scope.clock() + max(pause, most * random.uniform(0.5, 1.0))

    async def _refused(self, batch: Batch, answer: HttpAnswer) -> None:
        """It was answered with no for an answer."""
        window, config, status = self.window, self._plugin.config, answer.status
        why = f"it answered {status}"
        if status == 410:
            window.put_back(batch)
            await self._plugin.gone(self.subscription)
            return
        if status in AWAY or status < 400:
            window.put_back(batch)
            self._away(why, retry_after(answer.headers, self._plugin.now()))
            return
        now = self._plugin.scope.clock()
        if status >= 500:
            self._refusals += 1
            self._refusing.update(item.account for item in batch)
        if min(self._refusals, len(self._refusing)) >= config.open_after:  # it is not about one account
            self._failed = max(self._failed, config.open_after - 1)
            self._away(why)
        else:
            self._plugin.failed.inc()
        item = window.split(batch, now + config.pause * random.uniform(0.5, 1.0))
        if item is not None:
            await self._blamed(item, status)

    async def _blamed(self, item: Item, status: int) -> None:
        """An event that was alone was refused. Unless it may be that all are, it is to blame."""
        config, plugin = self._plugin.config, self._plugin
        if status < 500 or self.window.accepted > item.taken:
            item.attempts += 1
        item.taken = self.window.accepted
        is_old = plugin.now() - item.time > config.give_up_hours * 3600
        if item.attempts >= config.attempts or is_old:
            try:
                await plugin.bury(self.subscription, item, f"it answered {status}")
            except StoreError:
                self.window.rest(item, plugin.scope.clock() + 5.0)
            else:
                self.window.drop([item])
            return
        pause = min(config.pause_most, config.pause * 2 ** min(item.attempts, 20))
        self.window.rest(item, plugin.scope.clock() + pause * random.uniform(0.5, 1.0))

    # how far it is

    async def _move_on(self, *, anyway: bool = False) -> None:
        """Write down how far it is, and delete what is behind; StoreError."""
        now = self._plugin.scope.clock()
        done, gone = self.window.done_up_to, sorted(self._drained - self._gone)
        is_due = bool(done) and (anyway or now >= self._move)
        if not self.lease.is_held:
            return
        if self._behind and now >= self._purge:
            await self._clear(now)
        if not (is_due or gone or self.lease.is_beat_due):
            return
        self.window.done_up_to = {}
        self._move = now + MOVE_SECONDS
        for writer in gone:  # first: without its row it would be read from the beginning
            bucket = self._next.get(writer, 0) // BUCKET
            await self._plugin.outbox.delete(self.subscription.id, writer, bucket)
        try:
            is_held = await self.lease.move(done, gone)
        except StoreError:
            self.window.done_up_to = {**done, **self.window.done_up_to}
            raise
        if is_held:
            self._gone.update(gone)
            self._tell(done)
            await self._clean(done)

    async def _clean(self, done: Mapping[str, int]) -> None:
        """Delete whole partitions as soon as they are behind."""
        for writer, row in done.items():
            for bucket in range(max(self._moved.get(writer, 0), 0) // BUCKET, row // BUCKET):
                await self._plugin.outbox.delete(self.subscription.id, writer, bucket)
            self._moved[writer] = self._behind[writer] = row

    async def _clear(self, now: float) -> None:
        """Delete what else is behind, once a minute: one mark for many rows."""
        self._purge = now + PURGE_SECONDS
        behind, self._behind = self._behind, {}
        for writer, row in behind.items():
            await self._plugin.outbox.batch(
                self.subscription.id, writer, row // BUCKET, writes=[Delete((row,), through=True)]
            )

    def _tell(self, done: Mapping[str, int]) -> None:
        for writer, row in done.items():
            if writer == self._plugin.boxes.writer:
                self._plugin.boxes.delivered(self.subscription.id, row)
            else:
                self._plugin.rows_delivered.tell(writer, self.subscription.id, row)
