"""Every row of some tables from one store into another, whatever their engines; a killed one goes on later.

How far it got is kept in the target itself, in `COPIES`, and only after what it speaks of is durable: so a
page may be written twice, which is harmless, and none is left out.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from xmppd.errors import CommandError, StoreTimeout, StoreUnavailable
from xmppd.store.person import nobody
from xmppd.store.pipeline import Pipeline
from xmppd.store.table import Store, Stored, Table, Value

COPIES = Table(
    "store_copy",
    partition=("copy",),
    cluster=("name",),
    columns={"page": "blob", "entries": "int", "total": "int", "done": "bool"},
    static={"source": "text", "begun": "timestamp"},
    person=nobody("how far a copy of the store is"),
)
"""In the target, while it is filled: one row for each table, with its size and the token of its next page."""

COPY = ("copy",)
PAGE = 500
"""Entries read, and written, at a time."""
IN_FLIGHT = 8
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds to wait, each time the store fails, before it is asked again."""

Found = TypeVar("Found")


class Progress(Protocol):
    """Who is told how it goes."""

    def begin(self, what: str, total: int | None = None, done: int = 0) -> None:
        """Another stage, of so many rows if that is known, of which some were done earlier."""

    def advance(self, rows: int) -> None:
        """So many more are done."""

    def end(self) -> None:
        """The stage is done."""


@dataclass(slots=True)
class Way:
    """How far one table got: `entries` of `total` were written, `page` is the token of what comes next."""

    table: Table
    total: int
    entries: int = 0
    page: bytes | None = None
    done: bool = False


class Transfer:
    """One copy of `tables` from `source`, which the operator knows as `name`, into `target`; both are open.

    `target` has `COPIES` open too.
    """

    def __init__(
        self,
        source: Store,
        target: Store,
        tables: Sequence[Table],
        *,
        name: str,
        progress: Progress,
        now: Callable[[], float],
    ) -> None:
        self._source = source
        self._target = target
        self._tables = tables
        self._name = name
        self._progress = progress
        self._now = now

    async def run(self) -> int:
        """Copy what is not copied yet; how many entries the source has. CommandError: the target is no good
        for it; StoreError: run it again to go on.
        """
        ways = await self._begin()
        done = sum(way.entries for way in ways)
        self._progress.begin("copying", sum(way.total for way in ways), done)
        for way in ways:
            if not way.done:
                await self._copy(way)
        self._progress.end()
        return sum(way.total for way in ways)

    async def forget(self) -> None:
        """The copy is complete and compared: the target is an installation like any other."""
        await patiently(lambda: self._target.delete(COPIES, COPY))

    async def _begin(self) -> list[Way]:
        """Take the target for this copy, or find out how far it got."""
        static = await self._target.get_static(COPIES, COPY)
        if static is None:
            await self._check_empty()
            mark: dict[str, Value] = {"source": self._name, "begun": self._now()}
            await self._target.batch(COPIES, COPY, [], static=mark, expect={"source": None})
            static = await self._target.get_static(COPIES, COPY)
        if static is None or static["source"] != self._name:
            other = static["source"] if static else "nothing"
            raise CommandError(f"the target is being filled from {other}, not from {self._name}")
        rows = (await self._target.scan(COPIES, COPY)).rows
        known = {row["name"]: row for row in rows}
        unknown = [table for table in self._tables if table.name not in known]
        if unknown:
            await self._count(unknown)
            known = {row["name"]: row for row in (await self._target.scan(COPIES, COPY)).rows}
        return [self._way(table, known[table.name]) for table in self._tables]

    @staticmethod
    def _way(table: Table, row: dict[str, object]) -> Way:
        total, entries, page = row["total"], row["entries"], row["page"]
        assert (
            isinstance(total, int) and isinstance(entries, int) and (page is None or isinstance(page, bytes))
        )
        return Way(table, total, entries, page, row["done"] is True)

    async def _check_empty(self) -> None:
        for table in self._tables:
            if (await self._target.dump(table, limit=1)).entries:
                raise CommandError(
                    f"the target has rows already (table {table.name}): copy into an empty file or keyspace"
                )

    async def _count(self, tables: Iterable[Table]) -> None:
        self._progress.begin("counting")
        for table in tables:
            total = await count(self._source, table, self._progress)
            await self._save(Way(table, total))
        self._progress.end()

    async def _copy(self, way: Way) -> None:
        page, more = way.page, True
        async with Pipeline(IN_FLIGHT) as pipeline:
            while more:
                read = functools.partial(self._source.dump, way.table, limit=PAGE, page=page)
                dump = await patiently(read)
                page, more = dump.next, dump.next is not None
                then = functools.partial(self._written, way, len(dump.entries), page)
                await pipeline.add(self._write(way.table, dump.entries), then)
            await pipeline.finish()

    async def _write(self, table: Table, entries: Sequence[Stored]) -> None:
        await patiently(lambda: self._target.restore(table, entries))

    async def _written(self, way: Way, entries: int, page: bytes | None) -> None:
        way.entries, way.page, way.done = way.entries + entries, page, page is None
        await self._save(way)
        self._progress.advance(entries)

    async def _save(self, way: Way) -> None:
        row = {"entries": way.entries, "total": way.total, "page": way.page, "done": way.done}
        key = {"copy": COPY[0], "name": way.table.name}
        await patiently(lambda: self._target.put(COPIES, {**key, **row}))


async def count(store: Store, table: Table, progress: Progress) -> int:
    """How many entries a table has."""
    total, page = 0, None
    while True:
        dump = await patiently(functools.partial(store.dump, table, limit=PAGE, page=page))
        total += len(dump.entries)
        progress.advance(len(dump.entries))
        page = dump.next
        if page is None:
            return total


async def patiently(ask: Callable[[], Awaitable[Found]]) -> Found:
    """What a call that may be repeated gives, asked again some times while the store cannot answer."""
    for pause in PAUSES:
        try:
            return await ask()
        except (StoreUnavailable, StoreTimeout):
            await asyncio.sleep(pause)
    return await ask()
