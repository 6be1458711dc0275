"""Two stores compared entry by entry: does the target hold what the source holds, and nothing else?

The source is walked by pages, and each partition is met with the same partition of the target, in step, for
both are in clustering order. Then the target is walked for partitions that the source does not have.
"""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from xmppd.store.pipeline import Pipeline
from xmppd.store.table import Key, Store, Stored, Table
from xmppd.store.transfer import PAGE, Progress, patiently

PARTITIONS = 32
"""How many partitions are compared at a time."""
LIFE_SECONDS = 30.0
"""How far apart the ends of two entries may be: engines count whole seconds, from when a write comes in."""
LONGEST_SECONDS = 19 * 365 * 86400.0
"""Some engine cannot let anything end later than in 20 years."""
EXAMPLES = 5


@dataclass(slots=True)
class Findings:
    """What was found of one table. `missing`, `different`: in the target; `extra`: not in the source."""

    table: str
    entries: int = 0
    missing: int = 0
    different: int = 0
    extra: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def is_equal(self) -> bool:
        """Whether both hold the same."""
        return not (self.missing or self.different or self.extra)

    def note(self, what: str, key: Key) -> None:
        """Remember the first few, to be shown."""
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"{self.table} {key!r} {what}")


class Comparison:
    """Compares `tables` of two open stores; `now` tells the time for entries about to end."""

    def __init__(self, source: Store, target: Store, *, progress: Progress, now: Callable[[], float]) -> None:
        self._source = source
        self._target = target
        self._progress = progress
        self._now = now

    async def run(self, tables: Sequence[Table], total: int | None) -> list[Findings]:
        """What is found of each table; `total` is the number of entries, if known."""
        found = [Findings(table.name) for table in tables]
        self._progress.begin("comparing", total)
        for table, findings in zip(tables, found, strict=True):
            await self._compare(table, findings)
        self._progress.end()
        self._progress.begin("looking for more in the target", sum(f.entries - f.missing for f in found))
        for table, findings in zip(tables, found, strict=True):
            await self._look_for_more(table, findings)
        self._progress.end()
        return found

    async def _compare(self, table: Table, findings: Findings) -> None:
        check: PartitionCheck | None = None
        async with Pipeline(PARTITIONS) as pipeline:
            async for partition, entries in pieces(self._source, table):
                if check is not None and check.partition != partition:
                    await pipeline.add(check.finish())
                    check = None
                if check is None:
                    check = PartitionCheck(self._target, table, partition, findings, self._now)
                await pipeline.add(check.compare(entries))
                findings.entries += len(entries)
                self._progress.advance(len(entries))
            if check is not None:
                await pipeline.add(check.finish())
            await pipeline.finish()

    async def _look_for_more(self, table: Table, findings: Findings) -> None:
        async with Pipeline(PARTITIONS) as pipeline:
            async for partition, entries in pieces(self._target, table):
                await pipeline.add(self._is_known(table, partition, entries, findings))
                self._progress.advance(len(entries))
            await pipeline.finish()

    async def _is_known(
        self, table: Table, partition: Key, entries: Sequence[Stored], findings: Findings
    ) -> None:
        """Count the entries of a partition that the source does not have."""
        ask = functools.partial(self._source.dump, table, partition=partition, limit=1)
        if (await patiently(ask)).entries:
            return
        for entry in entries:
            if not is_ending(entry, self._now()):
                findings.extra += 1
                findings.note("is not in the source", entry.key)


class PartitionCheck:
    """One partition of the target, read on as far as what is compared with it."""

    def __init__(
        self, target: Store, table: Table, partition: Key, findings: Findings, now: Callable[[], float]
    ) -> None:
        self.partition = partition
        self._target = target
        self._table = table
        self._findings = findings
        self._now = now
        self._turn = asyncio.Lock()
        self._read: deque[Stored] = deque()
        self._page: bytes | None = None
        self._is_read = False

    async def compare(self, entries: Sequence[Stored]) -> None:
        """The next entries of the source's partition, in order."""
        async with self._turn:
            for entry in entries:
                other = await self._next()
                while other is not None and self._comes_before(other.key, entry.key):
                    self._extra(self._read.popleft())
                    other = await self._next()
                if other is None or other.key != entry.key:
                    self._missing(entry)
                else:
                    self._pair(entry, self._read.popleft())

    async def finish(self) -> None:
        """The source has no more of this partition: what the target has is too much."""
        async with self._turn:
            while await self._next() is not None:
                self._extra(self._read.popleft())

    async def _next(self) -> Stored | None:
        """The entry of the target that comes next."""
        while not self._read and not self._is_read:
            ask = functools.partial(
                self._target.dump, self._table, partition=self.partition, limit=PAGE, page=self._page
            )
            dump = await patiently(ask)
            self._read.extend(dump.entries)
            self._page, self._is_read = dump.next, dump.next is None
        return self._read[0] if self._read else None

    def _comes_before(self, key: Key, other: Key) -> bool:
        if len(key) != len(other):
            return len(key) < len(other)  # static columns come first
        return key > other if self._table.descending else key < other

    def _missing(self, entry: Stored) -> None:
        if not is_ending(entry, self._now()):
            self._findings.missing += 1
            self._findings.note("is missing in the target", entry.key)

    def _extra(self, entry: Stored) -> None:
        if not is_ending(entry, self._now()):
            self._findings.extra += 1
            self._findings.note("is not in the source", entry.key)

    def _pair(self, entry: Stored, other: Stored) -> None:
        if entry.values != other.values:
            names = {name for name, _ in entry.values.items() ^ other.values.items()}
            what = f"differs in {', '.join(sorted(names))}"
        elif not end_alike(entry.expires, other.expires, self._now()):
            what = "ends at another time"
        else:
            return
        self._findings.different += 1
        self._findings.note(what, entry.key)


def is_ending(entry: Stored, now: float) -> bool:
    """Whether the entry has ended meanwhile, or may have in one of the stores."""
    return entry.expires is not None and entry.expires <= now + LIFE_SECONDS


def end_alike(one: float | None, other: float | None, now: float) -> bool:
    """Whether two entries live equally long. What ends after `LONGEST_SECONDS` may as well never end."""
    one, other = (None if end is not None and end > now + LONGEST_SECONDS else end for end in (one, other))
    if one is None or other is None:
        return one is other
    return abs(one - other) <= LIFE_SECONDS


async def pieces(store: Store, table: Table) -> AsyncIterator[tuple[Key, list[Stored]]]:
    """All entries of a table: those of one partition that came in one page, with the partition's key."""
    width, page = len(table.partition), None
    while True:
        dump = await patiently(functools.partial(store.dump, table, limit=PAGE, page=page))
        for partition, group in groupby(dump.entries, lambda entry: entry.key[:width]):
            yield partition, list(group)
        page = dump.next
        if page is None:
            return
