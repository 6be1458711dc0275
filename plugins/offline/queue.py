"""What a node knows of the messages that wait for one account."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from xmppd import hooks
from xmppd.plugin import Value

PAGE = 100
"""How many messages are read at once."""
BATCH = 64
BATCH_BYTES = 131_072
"""How many messages for one account are written at once."""
Fresh = tuple[dict[str, Value], asyncio.Future[hooks.Drop]]
"""A row that gets its id when it is written, and what is done then."""


class Queue:
    """What this node knows of the messages of one account, and who is at work there.

    `last` is the newest id; `put` and `gone` count messages and bytes since the queue was last empty, both
    None until they were read. `writing` counts the rows that are to be written, `fresh` are those of them
    whose batch has not begun; nobody writes while `gate` is held and `writing` is 0. Whoever delivers holds
    `lock`, and lets the gate go while his client has to read. `counted_at` is when all messages were counted
    one by one, None where that was not done.
    """

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.gate = asyncio.Lock()
        self.writing = 0
        self.is_at_work = False
        self.fresh: deque[Fresh] = deque()
        self.settled: asyncio.Future[None] | None = None
        self.last = 0
        self.put: tuple[int, int] | None = None
        self.gone = (0, 0)
        self.counted_at: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether a message may be put behind the others now."""
        return self.put is not None and not self.gate.locked()

    @asynccontextmanager
    async def ajar(self) -> AsyncIterator[None]:
        """The gate is let go meanwhile. For who holds it, and has it again at the end, however often he is
        cancelled before: otherwise he would let go of what is somebody else's by then.
        """
        self.gate.release()
        try:
            yield
        finally:
            cancelled: asyncio.CancelledError | None = None
            while True:
                try:
                    await self.gate.acquire()
                    break
                except asyncio.CancelledError as error:
                    cancelled = error
            if cancelled is not None:
                raise cancelled

    def empty(self) -> None:
        """Nothing is kept now."""
        self.put = self.gone = (0, 0)

    def batch(self) -> list[Fresh]:
        """The next rows to write, each with the end to be told."""
        rows, size = [self.fresh.popleft()], 0
        while self.fresh and len(rows) < BATCH:
            size += size_of(self.fresh[0][0])
            if size > BATCH_BYTES:
                break
            rows.append(self.fresh.popleft())
        return rows

    def wrote(self, count: int) -> None:
        """So many rows are written; who holds the gate may be waiting for the last one."""
        self.writing -= count
        if not self.writing and self.settled is not None and not self.settled.done():
            self.settled.set_result(None)

    async def quiet(self) -> None:
        """Wait until nobody writes. For who holds the gate."""
        if self.writing:
            self.settled = asyncio.get_running_loop().create_future()
            await self.settled
            self.settled = None


def size_of(row: Mapping[str, Any]) -> int:
    """How many bytes of a message are kept: of one that is in an archive its id alone."""
    return len(row["stanza"] or row["ref"])
