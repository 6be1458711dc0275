"""Records that are made as things happen, for one reader who takes them as he can."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

MOST: Final = 1000
"""Records that wait for a reader."""
MOST_BYTES: Final = 1_048_576
"""Their size, as far as who makes them says it."""
USUAL_BYTES: Final = 256
"""The size of a record of which nothing is said."""

Record = Mapping[str, Any]
"""What JSON can hold: `what` it is, and what there is to it."""


class Feed:
    """A queue of records. What comes while it is full is dropped, and the reader is told how many those were
    (`{"what": "dropped", "count": 3}`) where they would have stood. `closed` is called once: when the reader
    leaves, or nothing more comes.
    """

    def __init__(self, closed: Callable[[], None], most: int = MOST, most_bytes: int = MOST_BYTES) -> None:
        self._closed: Callable[[], None] | None = closed
        self._most = most
        self._left = self._most_bytes = most_bytes
        self._waiting: deque[tuple[Record, int]] = deque()
        self._lost = 0
        self._reader: asyncio.Future[None] | None = None
        self.on_put: Callable[[], None] | None = None
        """Called when something can be taken, for who does not wait in `next`."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes."""
        return self._closed is None

    def put(self, record: Record, size: int = USUAL_BYTES) -> None:
        """Add one, or count it as dropped."""
        if self._closed is None:
            return
        if len(self._waiting) >= self._most or size > self._left:
            self._lost += 1
        else:
            if self._lost:
                self._tell_lost()
            self._waiting.append((record, size))
            self._left -= size
        self._wake()

    def note(self, text: str, **more: Any) -> None:
        """Add what is to be said of the feed itself."""
        self.put({"what": "note", "note": text, **more})

    def close(self) -> None:
        """Nothing more comes; what waits can still be taken. Harmless if repeated."""
        closed, self._closed = self._closed, None
        if closed is not None:
            closed()
            self._wake()

    def take(self) -> Record | None:
        """The next one, None if there is none now."""
        if not self._waiting and self._lost:
            self._tell_lost()
        if not self._waiting:
            return None
        record, size = self._waiting.popleft()
        self._left += size
        return record

    async def next(self, seconds: float) -> Record | None:
        """The next one; None when there was none for so many seconds, or the feed is over."""
        record = self.take()
        if record is not None or self.is_over:
            return record
        self._reader = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait((self._reader,), timeout=seconds)
        finally:
            self._reader = None
        return self.take()

    def _tell_lost(self) -> None:
        """It has room beside the bounds: there is one for each time that the queue was full."""
        self._waiting.append(({"what": "dropped", "count": self._lost}, 0))
        self._lost = 0

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
        if self.on_put is not None:
            self.on_put()
