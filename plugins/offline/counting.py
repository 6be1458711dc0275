"""How much is kept for each account, so that no more is than may be."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

from xmppd.plugin import NonNegativeInt, PluginConfig, Value, cluster_signal

from .insured import Insured
from .queue import PAGE, Queue, size_of

COUNTED = 2048
"""Of how many accounts it is remembered what they hold, so that it need not be read for each message."""
TELL_SECONDS = 0.05
"""How long what was stored here is gathered before other nodes are told how much it is."""
RECOUNT_SECONDS = 10.0
"""How soon the messages of a full queue are counted again where several nodes store: by reading them all."""


class OfflineConfig(PluginConfig):
    """How many messages are kept for one account, and how many bytes of them. `until_acknowledged`: so are,
    where nothing is archived, those that are given to somebody who acknowledges (XEP-0198), until he does.
    """

    max_messages: NonNegativeInt = 1000
    max_bytes: NonNegativeInt = 2_097_152
    until_acknowledged: bool = False


class Counting(Insured):
    """Rows hold running totals, so the newest and the oldest tell how much there is. Where several nodes
    write to one queue those may be too low: each tells the others how much it stores, and who has to count
    counts every message. So the bounds hold but for what is stored just then.
    """

    config: OfflineConfig

    async def start(self) -> None:
        """Nothing is counted yet."""
        await super().start()
        self._node = secrets.token_hex(4)
        self._queues: WeakValueDictionary[str, Queue] = WeakValueDictionary()
        self._counted: dict[str, Queue] = {}
        self._untold: dict[str, tuple[int, int]] = {}

    async def _count(self, account: str, queue: Queue) -> None:
        """Read how much is kept. For who holds the lock."""
        await queue.quiet()
        if self.server.has_other_nodes:
            await self._count_all(account, queue)
        else:
            await self._look_up(account, queue)
        self._counted[account] = queue
        if len(self._counted) > COUNTED:
            del self._counted[next(iter(self._counted))]

    async def _look_up(self, account: str, queue: Queue) -> None:
        """By the totals of this node, which alone stores: too many where some were forgotten in between."""
        oldest = (await self.oldest(account, 1)).rows
        start = (oldest[0]["id"],) if oldest else None
        newest = oldest and (await self.queue.scan(account, start=start, limit=1, reverse=True)).rows
        queue.empty()
        queue.counted_at = None
        if newest and oldest:
            queue.last = int(newest[0]["id"][:16], 16)
            queue.put = newest[0]["messages"], newest[0]["bytes"]
            queue.gone = oldest[0]["messages"] - 1, oldest[0]["bytes"] - size_of(oldest[0])

    async def _count_all(self, account: str, queue: Queue) -> None:
        """By all messages that are there. The totals go on from those of the newest."""
        counted_at = self.scope.clock()
        rows: Sequence[Mapping[str, Any]] = (await self.oldest(account, PAGE)).rows
        messages = size = 0
        put = 0, 0
        while rows:
            messages += len(rows)
            size += sum(map(size_of, rows))
            queue.last = int(rows[-1]["id"][:16], 16)
            put = rows[-1]["messages"], rows[-1]["bytes"]
            if len(rows) < PAGE:
                break
            rows = (await self.queue.scan(account, start=(f"{rows[-1]['id']}!",), limit=PAGE)).rows
        queue.put, queue.gone, queue.counted_at = put, (put[0] - messages, put[1] - size), counted_at

    def _is_counted(self, queue: Queue) -> bool:
        """Whether the messages of a queue were counted one by one, and lately."""
        counted_at = queue.counted_at
        return counted_at is not None and self.scope.clock() - counted_at < RECOUNT_SECONDS

    async def _count_again(self, account: str, queue: Queue) -> None:
        """One by one, unless somebody else has just done so."""
        async with queue.gate:
            if not self._is_counted(queue):
                await queue.quiet()
                await self._count_all(account, queue)

    def _has_room(self, queue: Queue, size: int) -> bool:
        """Whether one message more of so many bytes may be kept; for who knows how much is."""
        assert queue.put is not None
        messages, before = queue.put[0] - queue.gone[0], queue.put[1] - queue.gone[1]
        return messages < self.config.max_messages and before + size <= self.config.max_bytes

    def _row(self, queue: Queue, stanza: bytes, ref: str) -> dict[str, Value] | None:
        """The row of a message but for its own id; None when more would be kept than may be."""
        assert queue.put is not None
        size = len(stanza or ref)
        if not self._has_room(queue, size):
            return None
        messages, size = queue.put = queue.put[0] + 1, queue.put[1] + size
        return {"stanza": stanza or None, "ref": ref or None, "messages": messages, "bytes": size}

    def _tell(self, account: str, size: int) -> None:
        """Other nodes should know of a message of so many bytes."""
        if not self.server.has_other_nodes:
            return
        if not self._untold:
            self.call_later(TELL_SECONDS, self._tell_others)
        messages, before = self._untold.get(account, (0, 0))
        self._untold[account] = messages + 1, before + size

    def _tell_others(self) -> None:
        untold, self._untold = self._untold, {}
        self.changed.tell(self._node, {account: [*amount] for account, amount in untold.items()})

    def _tell_deleted(self, account: str) -> None:
        """They should count again, and at once: there is room."""
        if self.server.has_other_nodes:
            self._untold.pop(account, None)
            self.changed.tell(self._node, {account: None})

    @cluster_signal
    def changed(self, node: str, amounts: dict[str, list[int] | None]) -> None:
        """A node has stored so many messages and bytes for these accounts, or (None) deleted some."""
        if node == self._node:
            return
        for account, amount in amounts.items():
            queue = self._queues.get(account)
            if queue is not None and queue.put is not None:
                put = queue.put
                queue.put = (put[0] + amount[0], put[1] + amount[1]) if amount is not None else None
