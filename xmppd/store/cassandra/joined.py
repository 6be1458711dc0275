"""Rows written without a condition, those of one turn of the event loop joined into few batches.

A batch of rows of several partitions costs Cassandra and us a third of as many requests, and is atomic in
each partition only. Values are encoded here, which takes a fifth of the time that the driver's `bind` takes.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import Iterator, Sequence, Set
from operator import itemgetter
from typing import Any, NamedTuple

from xmppd.errors import StoreBug, StoreError, StoreTimeout, StoreUnavailable
from xmppd.store._turns import Turnstile
from xmppd.store.cassandra.calls import OpenTable
from xmppd.store.cassandra.cql import ROW_MARK
from xmppd.store.cassandra.encoding import ENCODERS, NO_MARK, NULL, EncodedRow, encoded, encoded_seconds
from xmppd.store.cassandra.link import Link
from xmppd.store.table import Prepared, Value
from xmppd.store.values import Columns

PARTITIONS = 10
"""The most partitions of one batch: with more Cassandra warns
(`unlogged_batch_across_partitions_warn_threshold`).
"""
BYTES = 5100
"""The most in a batch of several partitions, as Cassandra counts: beyond 5 KiB it warns
(`batch_size_warn_threshold`). One of a single partition it does not measure.
"""
PARTITION_BYTES = 29
ROW_BYTES = 21
CELL_BYTES = 20
MARK_BYTES = 28
LIFE_BYTES = 12
"""What Cassandra 5 counts beside the bytes of the values (its warnings tell): for each partition, whose key
it leaves out, for each row, for each value outside the key, for `ROW_MARK`, and for a row that ends.
"""
LENGTH_BYTES = 4
"""What stands before each value on its way."""
NUMBERS, NUMBER_BYTES = ("int", "float", "timestamp"), 8
COUNT_BYTES = 2

_count = struct.Struct(">H").pack


class RowWriter:
    """Implements `xmppd.store.table.RowWriter`."""

    __slots__ = ("_columns", "_encoders", "_marked", "_opened", "_partition", "_plain", "_text", "_uncounted")

    def __init__(self, opened: OpenTable, columns: Sequence[str]) -> None:
        self._opened = opened
        self._columns = Columns(opened.shape, columns)
        names = self._columns.names
        self._encoders = [ENCODERS[opened.declaration.type_of(column)] for column in names]
        self._plain = [place for place, column in enumerate(names) if column in opened.cql.plain]
        places = [names.index(column) for column in opened.cql.partition]
        self._partition = itemgetter(*places)
        numbers = [column for column in opened.cql.partition if opened.declaration.type_of(column) in NUMBERS]
        self._uncounted = COUNT_BYTES + len(names) * LENGTH_BYTES + len(numbers) * NUMBER_BYTES
        self._text = opened.cql.insert(names)
        self._marked = opened.cql.insert((*names, ROW_MARK))

    def row(self, *values: Value) -> Prepared:
        """The row that has these values, encoded."""
        return self.rows((values,))

    def rows(self, rows: Sequence[tuple[Value, ...]]) -> Prepared:
        """The rows that have these values, encoded."""
        checked = self._columns.all_checked(rows)
        try:
            columns = zip(self._encoders, zip(*checked, strict=True), strict=False)
            values = [encoded(encode, column) for encode, column in columns]
        except (struct.error, UnicodeEncodeError) as error:
            raise StoreBug(f"table {self._opened.declaration.name}: {error}") from None
        return self, list(zip(*values, strict=True))

    def statements(self, rows: Sequence[Sequence[bytes]], ttl: float | None) -> Iterator[EncodedRow]:
        """What writes encoded rows."""
        seconds = self._opened.seconds(ttl)
        end, partition, plain = encoded_seconds(seconds), self._partition, self._plain
        count = len(self._encoders) + 1
        size = ROW_BYTES + len(plain) * CELL_BYTES - self._uncounted - len(end)
        if seconds:
            size += LIFE_BYTES
        first = plain[0] if plain and not seconds else None
        for values in rows:
            # See `OpenTable.insert`.
            if first is None or (values[first] is NULL and all(values[place] is NULL for place in plain)):
                body = b"".join((_count(count + 1), *values, NO_MARK, end))
                yield EncodedRow(self._marked, body, partition(values), size + MARK_BYTES + len(body))
            else:
                body = b"".join((_count(count), *values, end))
                yield EncodedRow(self._text, body, partition(values), size + len(body))


class Call:
    """One write that was asked for: who waits for it, and how many batches have some of it."""

    __slots__ = ("done", "errors", "left", "pieces", "rows")

    def __init__(self, rows: Sequence[EncodedRow], done: asyncio.Future[None]) -> None:
        self.rows = rows
        self.done = done
        self.pieces = 0
        self.left = 0
        self.errors: list[StoreError] = []

    def outcome(self) -> StoreError | None:
        """What to tell when nothing is under way any more: "nothing was written" only if that is so."""
        if not self.errors:
            return None
        if len(self.errors) == self.pieces and all(isinstance(e, StoreUnavailable) for e in self.errors):
            return self.errors[0]
        worst = next((error for error in self.errors if not isinstance(error, StoreUnavailable)), None)
        return worst or StoreTimeout(f"some of it was not written: {self.errors[0]}")


class Piece(NamedTuple):
    """Rows that may not be cut, their bytes as Cassandra counts them but for those of their partitions."""

    rows: Sequence[EncodedRow]
    partitions: Set[object]
    size: int


class Batch:
    """Rows for one request, and the calls that they belong to."""

    __slots__ = ("calls", "partitions", "rows", "size")

    def __init__(self) -> None:
        self.rows: list[EncodedRow] = []
        self.calls: list[Call] = []
        self.partitions: set[object] = set()
        self.size = 0

    def fits(self, piece: Piece) -> bool:
        """Whether these rows may be joined to it."""
        if not self.rows:
            return True
        count = len(self.partitions | piece.partitions)
        return count <= PARTITIONS and self.size + piece.size + count * PARTITION_BYTES <= BYTES

    def add(self, call: Call, piece: Piece) -> None:
        """Join rows of a call."""
        self.rows += piece.rows
        self.partitions |= piece.partitions
        self.size += piece.size
        if not self.calls or self.calls[-1] is not call:
            self.calls.append(call)
            call.pieces += 1
            call.left += 1


def batches(calls: Sequence[Call]) -> Iterator[Batch]:
    """The rows of these calls in their order, cut into batches. Those that a call has of one partition stay
    together, and if they can, all that it has.
    """
    batch = Batch()
    for call in calls:
        for piece in _pieces(call.rows):
            if not batch.fits(piece):
                yield batch
                batch = Batch()
            batch.add(call, piece)
    if batch.rows:
        yield batch


def _pieces(rows: Sequence[EncodedRow]) -> Sequence[Piece]:
    """The rows of one call in pieces."""
    by_partition: dict[object, list[EncodedRow]] = {}
    for row in rows:
        by_partition.setdefault(row.partition, []).append(row)
    size = sum([row.size for row in rows])
    count = len(by_partition)
    if rows and count <= PARTITIONS and size + count * PARTITION_BYTES <= BYTES:
        return [Piece(rows, by_partition.keys(), size)]
    return [Piece(some, {key}, sum([row.size for row in some])) for key, some in by_partition.items()]


class Joiner:
    """Writes rows at the end of the loop's turn. At most `bound` calls are accepted and not yet done; who
    waits for room longer than `patience` seconds is turned away.
    """

    def __init__(self, link: Link, *, bound: int, patience: float) -> None:
        self._link = link
        self._turnstile = Turnstile(bound, patience)
        self._fresh: deque[Call] = deque()
        self._tries: set[asyncio.Task[None]] = set()

    async def room(self) -> None:
        """Wait for room for one call; StoreUnavailable."""
        await self._turnstile.room()

    def write(self, rows: Sequence[EncodedRow]) -> asyncio.Future[None]:
        """Write rows; StoreUnavailable at once when there is no room, or the store is known to be dead."""
        loop = asyncio.get_running_loop()
        self._link.check()
        if not self._turnstile.take():
            raise StoreUnavailable("too many writes are waiting")
        call = Call(rows, loop.create_future())
        if not self._fresh:
            loop.call_soon(self._send)
        self._fresh.append(call)
        self._link.begin()
        return call.done

    def close(self) -> None:
        """Turn away who waits for room. What was accepted is finished while the link is closed."""
        self._turnstile.close()

    def _send(self) -> None:
        calls = list(self._fresh)
        self._fresh.clear()
        for call in calls:
            if not call.rows:
                self._end(call)
        for batch in list(batches(calls)):
            self._try(batch)

    def _try(self, batch: Batch) -> None:
        """Send a batch, at once if that takes no waiting."""
        try:
            answer = self._link.try_write(batch.rows)
        except StoreError as error:
            self._failed(batch, error)
            return
        if answer is None:
            self._spawn(batch, None)
            return

        def answered(answer: asyncio.Future[Any]) -> None:
            error = self._link.error_of(answer)
            if error is None:
                self._settle(batch.calls, None)
            else:
                self._failed(batch, error)

        answer.add_done_callback(answered)

    def _failed(self, batch: Batch, error: StoreError) -> None:
        """Try again, which does no harm. If Cassandra refuses the statements, only whose they are is told."""
        if not isinstance(error, StoreBug):
            self._spawn(batch, error)
        elif len(batch.calls) == 1:
            self._settle(batch.calls, error)
        else:
            for call in batch.calls:
                alone = Batch()
                alone.rows = [row for row in batch.rows if any(row is own for own in call.rows)]
                alone.calls = [call]
                self._spawn(alone, None)

    def _spawn(self, batch: Batch, first: StoreError | None) -> None:
        task = asyncio.get_running_loop().create_task(self._patiently(batch, first))
        self._tries.add(task)
        task.add_done_callback(self._tries.discard)

    async def _patiently(self, batch: Batch, first: StoreError | None) -> None:
        """Send a batch when there is a slot, several times if need be. `first` is how it failed before."""
        try:
            await self._link.write_encoded(batch.rows)
        except StoreBug as error:
            self._failed(batch, error)
        except StoreUnavailable as error:
            self._settle(batch.calls, first if isinstance(first, StoreTimeout) else error)
        except StoreTimeout as error:
            self._settle(batch.calls, error)
        else:
            self._settle(batch.calls, None)

    def _settle(self, calls: Sequence[Call], error: StoreError | None) -> None:
        for call in calls:
            if error is not None:
                call.errors.append(error)
            call.left -= 1
            if call.left == 0:
                self._end(call)

    def _end(self, call: Call) -> None:
        self._link.end()
        self._turnstile.give_back(1)
        if call.done.done():
            return  # nobody waits any more
        error = call.outcome()
        if error is None:
            call.done.set_result(None)
        else:
            call.done.set_exception(error)
