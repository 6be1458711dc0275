"""Whole tables of Cassandra read, and written again, as they are: with the end of each row, for tools."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence

from xmppd.errors import StoreBug
from xmppd.store.cassandra.calls import LONGEST_TTL, Found, OpenTable, Statement
from xmppd.store.cassandra.cql import ROW_MARK
from xmppd.store.table import Dump, Key, Stored, Value
from xmppd.store.values import check_limit, page_token, read_page_token

ROW, STATIC = "row", "static"
"""Kinds of tokens: a page ended with a row, or with the static columns of a partition."""

TOGETHER = 50
"""How many entries are restored by one batch."""
PARTITIONS = 10
"""Of how many partitions at most: with more Cassandra warns. Ten rows take a third of ten writes."""
SHARED_BYTES = 4096
"""The most in a batch of several partitions: beyond 5 KiB Cassandra warns, beyond 50 KiB it refuses them
(`batch_size_warn_threshold`, `batch_size_fail_threshold`). A batch of one partition it does not measure so.
"""
BATCH_BYTES = 1 << 20
"""The most in any batch that is not a single row: one must fit into half a segment of the commit log."""
ROW_BYTES = 48
VALUE_BYTES = 8
"""What Cassandra counts beside the bytes of the values: for each row, and for each value."""

Read = Callable[[Statement], Awaitable[list[Found]]]
Write = Callable[[Sequence[Statement]], Awaitable[None]]


class TableDump:
    """Dumps of one declared table, and what is restored into it. StoreBug for what does not fit it.

    A page is not of one moment, and neither are the static columns and all rows of a large partition.
    """

    def __init__(self, opened: OpenTable) -> None:
        self._opened = opened
        self._cql = opened.cql
        self._shape = opened.shape
        self._table = opened.declaration
        self._width = len(self._cql.partition)
        self._key_width = len(self._cql.key)
        self._valued = (*self._cql.plain, ROW_MARK, *self._cql.static)

    # reading

    async def read(self, read: Read, partition: Key | None, limit: int, page: bytes | None) -> Dump:
        """Some of what is there, from the place that `page` marks."""
        limit = min(check_limit(self._table, limit), (1 << 31) - 2)
        fixed = () if partition is None else self._shape.partition(partition)
        last: Sequence[Value] = () if page is None else self._read_token(page, fixed)
        entries: list[Stored] = []
        while True:
            rest = self._rest(last, fixed, limit + 1 - len(entries))
            if rest is not None:
                entries += self._entries(await read(rest), known=tuple(last[: self._width]))
            wanted = limit + 1 - len(entries)
            if fixed or wanted <= 0:
                break
            found = await read(self._following(last, wanted))
            entries += self._entries(found, known=())
            if len(found) < wanted or len(entries) > limit:
                break
            last = found[-1]  # some of what was found were partitions with nothing in them
        if len(entries) <= limit:
            return Dump(entries, None)
        del entries[limit:]
        key = entries[-1].key
        return Dump(entries, page_token(STATIC if self._is_static(key) else ROW, key))

    def _read_token(self, page: bytes, fixed: Key) -> Key:
        """The key of the last row given, or the partition key of the last static columns."""
        if self._cql.static and page.startswith(f'["{STATIC}"'.encode()):
            last = read_page_token(self._shape, STATIC, page, self._cql.partition)
        else:
            last = read_page_token(self._shape, ROW, page, self._cql.key)
        if last[: len(fixed)] != fixed:
            raise StoreBug(f"table {self._table.name}: the page token is of another partition")
        return last

    def _rest(self, last: Sequence[Value], fixed: Key, limit: int) -> Statement | None:
        """What to ask for the rows of a partition behind `last`; None when there cannot be any."""
        if not last:
            return (self._cql.dump_range(()), (*fixed, limit)) if fixed else None
        if len(last) == self._width and self._cql.cluster:
            return self._cql.dump_range(()), (*last, limit)
        if not self._cql.cluster or last[self._width] is None:
            return None
        operator = "<" if self._table.descending else ">"
        text = self._cql.dump_range(((operator, self._key_width - self._width),))
        return text, (*last[: self._key_width], limit)

    def _following(self, last: Sequence[Value], limit: int) -> Statement:
        """What to ask for the partitions behind the one of `last`, or all."""
        return self._cql.dump_all(bool(last)), (*last[: self._width], limit)

    def _entries(self, found: Sequence[Found], known: Key) -> Iterator[Stored]:
        """What lies under each key; the static columns of the partition `known` were given before."""
        now = time.time()
        for row in found:
            partition = tuple(row[: self._width])
            if partition != known:
                known = partition
                static = self._stored(row, partition, self._cql.static, now)
                if static.values:
                    yield static
            if not self._cql.cluster or row[self._width] is not None:
                yield self._stored(row, tuple(row[: self._key_width]), (*self._cql.plain, ROW_MARK), now)

    def _stored(self, row: Found, key: Key, columns: Sequence[str], now: float) -> Stored:
        """Some columns of what was found: keys, then values, then how long each still has to live."""
        values: dict[str, Value] = {}
        lives: list[Value] = []
        for column in columns:
            place = self._key_width + self._valued.index(column)
            if row[place] is not None:
                values[column] = row[place]
                lives.append(row[place + len(self._valued)])
        values.pop(ROW_MARK, None)
        seconds = [life for life in lives if isinstance(life, int)]
        ends = bool(lives) and len(seconds) == len(lives)
        return Stored(key, values, now + max(seconds) if ends else None)

    def _is_static(self, key: Key) -> bool:
        return len(key) == self._width and bool(self._cql.cluster)

    # writing

    async def write(self, write: Write, entries: Sequence[Stored]) -> None:
        """Write entries as they were; those that have expired are left out."""
        now = time.time()
        by_partition: dict[Key, list[Statement]] = {}
        for entry in entries:
            statement = self._put(entry, now)
            if entry.expires is None or entry.expires > now:
                by_partition.setdefault(entry.key[: self._width], []).append(statement)
        await asyncio.gather(*map(write, batches(list(by_partition.values()))))

    def _put(self, entry: Stored, now: float) -> Statement:
        life = 0.0 if entry.expires is None else max(entry.expires - now, 1.0)
        seconds = 0 if life > LONGEST_TTL else math.ceil(life)
        if self._is_static(entry.key):
            partition, static = self._shape.partition(entry.key), self._shape.static_values(entry.values)
            text = self._cql.update_static(tuple(static), ())
            return text, (seconds, *static.values(), *partition)
        key = self._shape.key(entry.key)
        values = self._shape.plain_values(entry.values) if entry.values else {}
        columns = {**dict(zip(self._cql.key, key, strict=True)), **values}
        if self._table.order is not None and columns.get(self._table.order) is not None:
            return self._opened.insert_newest(columns, seconds)
        return self._opened.insert(columns, seconds)


def batches(partitions: Sequence[list[Statement]]) -> Iterator[list[Statement]]:
    """The statements of each partition, cut into batches; those of small partitions several in one."""
    together: list[Statement] = []
    count = size = 0
    for statements in partitions:
        *full, (rest, rest_size) = _pieces(statements)
        for piece, _ in full:
            yield piece
        fits = len(together) + len(rest) <= TOGETHER and size + rest_size <= SHARED_BYTES
        if together and (count == PARTITIONS or not fits):
            yield together
            together, count, size = [], 0, 0
        together, count, size = together + rest, count + 1, size + rest_size
    if together:
        yield together


def _pieces(statements: Sequence[Statement]) -> Iterator[tuple[list[Statement], int]]:
    """The statements of one partition in pieces for one batch each, with their bytes."""
    piece: list[Statement] = []
    size = 0
    for statement in statements:
        more = _size(statement)
        if piece and (len(piece) == TOGETHER or size + more > BATCH_BYTES):
            yield piece, size
            piece, size = [], 0
        piece.append(statement)
        size += more
    yield piece, size


def _size(statement: Statement) -> int:
    """About how many bytes Cassandra counts for a row; never many fewer."""
    size = ROW_BYTES
    for value in statement[1]:
        if isinstance(value, bytes):
            size += VALUE_BYTES + len(value)
        elif isinstance(value, str):
            size += VALUE_BYTES + len(value) * (1 if value.isascii() else 4)
        else:
            size += 2 * VALUE_BYTES
    return size
