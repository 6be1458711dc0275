"""Messages that wait for an account and are in its archive: given back by their ids, stamped, but for those
that a session has asked its archive for.
"""

from __future__ import annotations

from typing import Final

from .ids import LAST, bound
from .query import Query
from .reading import Page

MOST: Final = 32
"""How many pages of one session are remembered."""


class CaughtUp:
    """What one session has read of its archive before it was available, as ranges of ids: from one on, up to
    another one.
    """

    __slots__ = ("_ranges",)

    def __init__(self) -> None:
        self._ranges: list[tuple[bytes, bytes]] = []

    def note(self, query: Query, page: Page, horizon: bytes) -> None:
        """It was given a page; those with one peer, by ids or by words say nothing of others."""
        if query.peer or query.ids is not None or query.words is not None or len(self._ranges) >= MOST:
            return
        start = query.after + b"\0" if query.after else b""
        end = min((id for id in (query.before, horizon) if id), default=bound(LAST))
        if not page.is_complete:
            if not page.messages:
                return
            if query.reverse:
                start = page.messages[0][0]
            else:
                end = page.messages[-1][0] + b"\0"
        self._ranges.append((start, end))

    def has(self, id: bytes) -> bool:
        """Whether it was given the message of this id, if there is one."""
        return any(start <= id < end for start, end in self._ranges)
