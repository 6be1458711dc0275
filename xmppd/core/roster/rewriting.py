"""Many items of a roster replaced at once: what to write, and in which pieces an engine takes it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from xmppd.core.roster.item import ITEM
from xmppd.core.roster.log import LogEntry
from xmppd.store.table import Delete, Put

Packed = Mapping[str, str]
"""Items by contact, each as `value_of` packs it."""

EditAll = Callable[[Packed], Packed]
"""Makes all new items of all old ones; it may be called several times."""

Write = Callable[[int, int, Sequence[Put | Delete]], Awaitable[tuple[bool, bool]]]
"""Writes to a roster and moves its version from the first number to the second; whether it was the first."""

PIECE_BYTES = 30_000
"""About how much is written at once: Cassandra refuses batches of more than 50 KiB as it comes."""


class Rewrite(NamedTuple):
    """All items before and after, and the version that stands: the one read, or the one made."""

    old: Packed
    new: Packed
    version: int

    async def write(
        self, put: Write, entry: LogEntry, now: Callable[[], float], log_seconds: float
    ) -> int | None:
        """Write it piece by piece, with `entry` in the log for the last (`log_seconds` 0: no log). The
        version that stands then; None if somebody else wrote meanwhile.
        """
        version = self.version
        writes = self.differences
        for start, end in pieces(writes):
            at = now()
            newer = max(version + 1, int(at * 1000))
            is_logged = end == len(writes) and log_seconds > 0
            line = replace(entry, version=newer, before=version, at=at)
            log = [line.put(log_seconds)] if is_logged else []
            is_written, _ = await put(version, newer, [*writes[start:end], *log])
            if not is_written:
                return None
            version = newer
        return version

    @property
    def differences(self) -> list[Put | Delete]:
        """What is to be written, by contact."""
        if not self.old:
            return [Put({"part": ITEM, "name": it, "value": self.new[it]}) for it in sorted(self.new)]
        writes: list[Put | Delete] = []
        for contact in sorted(self.old.keys() | self.new.keys()):
            value = self.new.get(contact)
            if value is None:
                writes.append(Delete((ITEM, contact)))
            elif value != self.old.get(contact):
                writes.append(Put({"part": ITEM, "name": contact, "value": value}))
        return writes


def pieces(writes: Sequence[Put | Delete]) -> Iterator[tuple[int, int]]:
    """Where each piece of about PIECE_BYTES begins and ends."""
    start = size = 0
    for number, write in enumerate(writes, 1):
        size += 100 + (len(str(write.row["value"])) if isinstance(write, Put) else 0)
        if size > PIECE_BYTES:
            yield start, number
            start, size = number, 0
    if start < len(writes):
        yield start, len(writes)
