"""Which messages are being archived: so that whoever has seen one of an archive has seen all before it.

A client catches up behind the last message that it saw. So no message of an archive is shown, live or in a
page, while an older one of that archive is under way.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence


class Entry:
    """One message under way into the archives of `owners`. `shown` is to be called when it was handed on, or
    came to nothing; `ready` is done when that may be, and raises why it was not written. `is_written`: it is
    known what became of it.
    """

    __slots__ = ("_under_way", "error", "id", "is_written", "owners", "ready")

    def __init__(self, under_way: UnderWay, id: bytes, owners: Sequence[int]) -> None:
        self._under_way = under_way
        self.is_written = False
        self.id = id
        self.owners = owners
        self.error: BaseException | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def written(self, error: BaseException | None = None) -> None:
        """It is in all of the archives, or in none."""
        self.is_written = True
        self.error = error
        self._under_way.look(self)

    def shown(self) -> None:
        """It was handed on, or never will be."""
        self._under_way.end(self)


class UnderWay:
    """All messages under way, by archive, the oldest first."""

    def __init__(self) -> None:
        self._archives: dict[int, deque[Entry]] = {}

    def __len__(self) -> int:
        """Of how many archives."""
        return len(self._archives)

    def begin(self, id: bytes, owners: Sequence[int]) -> Entry:
        """Another one, younger than all others."""
        entry = Entry(self, id, owners)
        for owner in owners:
            self._archives.setdefault(owner, deque()).append(entry)
        return entry

    def horizon(self, owner: int) -> bytes:
        """The oldest that is under way into an archive; b"" for none."""
        entries = self._archives.get(owner)
        return entries[0].id if entries else b""

    def look(self, entry: Entry) -> None:
        """Let it go on if it is the oldest of all its archives."""
        if not entry.is_written or entry.ready.done():
            return
        for owner in entry.owners:
            if self._archives[owner][0] is not entry:
                return
        if entry.error is None:
            entry.ready.set_result(None)
        else:
            entry.ready.set_exception(entry.error)

    def end(self, entry: Entry) -> None:
        """It is not under way any more."""
        for owner in entry.owners:
            entries = self._archives.get(owner)
            if entries is None:
                continue
            if entries[0] is entry:
                entries.popleft()
            elif entry in entries:
                entries.remove(entry)
            if entries:
                self.look(entries[0])
            else:
                del self._archives[owner]
