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
    came to nothing; `ready` is done when that may be, and raises why it was not written.
    """

    __slots__ = ("_is_written", "_under_way", "error", "id", "owners", "ready")

    def __init__(self, under_way: UnderWay, id: bytes, owners: Sequence[int]) -> None:
        self._under_way = under_way
        self._is_written = False
        self.id = id
        self.owners = owners
        self.error: BaseException | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def is_written(self) -> bool:
        """Whether it is known what became of it."""
        return self._is_written

    def written(self, error: BaseException | None = None) -> None:
        """It is in all of the archives, or in none."""
        self._is_written = True
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
        if (
            entry.is_written
            and not entry.ready.done()
            and all(self._is_first(entry, o) for o in entry.owners)
        ):
            if entry.error is None:
                entry.ready.set_result(None)
            else:
                entry.ready.set_exception(entry.error)

    def _is_first(self, entry: Entry, owner: int) -> bool:
        return self._archives[owner][0] is entry

    def end(self, entry: Entry) -> None:
        """It is not under way any more."""
        for owner in entry.owners:
            entries = self._archives.get(owner)
            if entries is None or entry not in entries:
                continue
            entries.remove(entry)
            if entries:
                self.look(entries[0])
            else:
                del self._archives[owner]
