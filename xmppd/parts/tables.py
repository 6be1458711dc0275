"""Tables of a plugin's own."""

from __future__ import annotations

import asyncio
import copy
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from xmppd.parts.part import Part
from xmppd.store import table as port
from xmppd.store.person import Person, wrong_with
from xmppd.store.table import Delete, Page, Prepared, Put, Row, RowWriter, Store, Tuples, Value

if TYPE_CHECKING:
    from xmppd.server import Server


class Table(Part):
    """A table of the plugin's own; the store creates and migrates it from this declaration.

    Arguments are those of `xmppd.store.table.Table`; its name becomes `<plugin>_<attribute>`. The operations
    are those of the store's port: what they await is durable when they return, and nothing is atomic across
    partitions. Without `person`, which says whom its rows are about, the plugin is not loaded.
    """

    def __init__(
        self,
        *,
        partition: Sequence[str],
        cluster: Sequence[str] = (),
        columns: Mapping[str, port.ColumnType],
        static: Mapping[str, port.ColumnType] | None = None,
        ttl: float | None = None,
        descending: bool = False,
        heap: bool = False,
        order: str | None = None,
        person: Person | None = None,
    ) -> None:
        caller = sys._getframe(1)
        self.place = f"{caller.f_code.co_filename}:{caller.f_lineno}"
        self.declaration = port.Table(
            partition=tuple(partition),
            cluster=tuple(cluster),
            columns=dict(columns),
            static=dict(static or {}),
            ttl=ttl,
            descending=descending,
            heap=heap,
            order=order,
            person=person,
        )
        self._store: Store

    def bind(self, plugin: str, attribute: str, server: Server) -> Self:
        """The table of one server."""
        bound = copy.copy(self)
        bound.declaration = self.declaration.named(f"{plugin}_{attribute}")
        bound._store = server.store
        return bound

    async def get(self, *key: Value) -> Row | None:
        """One row by its whole key."""
        return await self._store.get(self.declaration, key)

    async def get_many(self, partitions: Sequence[Value]) -> list[Row | None]:
        """The rows of some keys of one column, for less than one by one; see `Store.get_many`."""
        return await self._store.get_many(self.declaration, partitions)

    async def scan_many(
        self, partitions: Sequence[Value], *, start: port.Key | None = None, end: port.Key | None = None
    ) -> list[list[Row]]:
        """All rows of some partitions, for less than one by one; see `Store.scan_many`."""
        return await self._store.scan_many(self.declaration, partitions, start=start, end=end)

    async def get_static(self, *partition: Value) -> Row | None:
        """The static columns of one partition."""
        return await self._store.get_static(self.declaration, partition)

    async def scan(
        self,
        *partition: Value,
        start: port.Key | None = None,
        end: port.Key | None = None,
        after: port.Key | None = None,
        before: port.Key | None = None,
        limit: int | None = None,
        reverse: bool = False,
        page: bytes | None = None,
    ) -> Page:
        """Rows of one partition in clustering order; see `Store.scan`."""
        return await self._store.scan(
            self.declaration,
            partition,
            start=start,
            end=end,
            after=after,
            before=before,
            limit=limit,
            reverse=reverse,
            page=page,
        )

    async def scan_columns(
        self,
        *partition: Value,
        columns: Sequence[str],
        start: port.Key | None = None,
        end: port.Key | None = None,
        after: port.Key | None = None,
        before: port.Key | None = None,
        match: Mapping[str, Value] | None = None,
        examine: int | None = None,
        limit: int | None = None,
        first: int | None = None,
        reverse: bool = False,
        page: bytes | None = None,
    ) -> Tuples:
        """Some columns of rows of one partition as tuples; see `Store.scan_columns`."""
        return await self._store.scan_columns(
            self.declaration,
            partition,
            columns,
            start=start,
            end=end,
            after=after,
            before=before,
            match=match,
            examine=examine,
            limit=limit,
            first=first,
            reverse=reverse,
            page=page,
        )

    def stream(
        self,
        *partition: Value,
        columns: Sequence[str],
        start: port.Key | None = None,
        end: port.Key | None = None,
        after: port.Key | None = None,
        before: port.Key | None = None,
        reverse: bool = False,
    ) -> AsyncIterator[list[tuple[Any, ...]]]:
        """All rows of one partition, some columns of each, in pieces; see `Store.stream`."""
        return self._store.stream(
            self.declaration,
            partition,
            columns,
            start=start,
            end=end,
            after=after,
            before=before,
            reverse=reverse,
        )

    async def get_rows(self, *partition: Value, keys: Sequence[port.Key]) -> list[Row]:
        """Rows of one partition by the beginnings of their keys; see `Store.get_rows`."""
        return await self._store.get_rows(self.declaration, partition, keys)

    async def some(self, *, limit: int = 1000, page: bytes | None = None) -> Page:
        """Rows of all partitions, and the token of those that follow; for tools. See `Store.scan_all`."""
        return await self._store.scan_all(self.declaration, limit=limit, page=page)

    async def everything(self) -> AsyncIterator[Row]:
        """All rows of all partitions, page by page; for tools."""
        page: bytes | None = None
        while True:
            found = await self.some(page=page)
            for row in found.rows:
                yield row
            page = found.next
            if page is None:
                return

    async def put(self, row: Mapping[str, Value], *, ttl: float | None = None) -> None:
        """Write the given columns of one row (an upsert)."""
        await self._store.put(self.declaration, row, ttl=ttl)

    async def put_newest(self, row: Mapping[str, Value], *, ttl: float | None = None) -> None:
        """Write a whole row unless a newer one is there; see `Store.put_newest`."""
        await self._store.put_newest(self.declaration, row, ttl=ttl)

    def writer(self, columns: Sequence[str]) -> RowWriter:
        """What makes rows that have these columns, for `write` of this table or of another; see
        `Store.writer`. Make it once.
        """
        return self._store.writer(self.declaration, columns)

    def write(self, rows: Sequence[Prepared], *, ttl: float | None = None) -> asyncio.Future[Any]:
        """Write rows of any tables with one wait; see `Store.write`."""
        return self._store.write(rows, ttl=ttl)

    async def put_if(
        self, row: Mapping[str, Value], expect: Mapping[str, Value] | None, *, ttl: float | None = None
    ) -> bool:
        """Write only if the row is absent (None) or holds what is expected; whether it was written."""
        return await self._store.put_if(self.declaration, row, expect, ttl=ttl)

    async def delete(self, *key: Value) -> None:
        """Delete a row, or by the partition key alone a whole partition."""
        await self._store.delete(self.declaration, key)

    async def delete_if(self, *key: Value, expect: Mapping[str, Value]) -> bool:
        """Delete a row only if it holds what is expected; whether it was deleted; see `Store.delete_if`."""
        return await self._store.delete_if(self.declaration, key, expect)

    async def batch(
        self,
        *partition: Value,
        writes: Sequence[Put | Delete],
        static: Mapping[str, Value] | None = None,
        expect: Mapping[str, Value] | None = None,
    ) -> bool:
        """Apply writes of one partition atomically; see `Store.batch`."""
        return await self._store.batch(self.declaration, partition, writes, static=static, expect=expect)


def wrong_in(parts: Mapping[str, Part], plugin: str) -> str:
    """Where a plugin declares a table that does not say well whom its rows are about, and what is wrong; ""
    when all do.
    """
    found = [
        (it.place, it.declaration.named(f"{plugin}_{name}"))
        for name, it in parts.items()
        if isinstance(it, Table)
    ]
    for place, table in found:
        if problem := wrong_with(table, [other for _, other in found]):
            return f"{place}: the table {table.name}: {problem}"
    return ""
