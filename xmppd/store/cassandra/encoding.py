"""Values as they go to Cassandra (the native protocol, section 6), encoded here for less than by the driver.

Of a row of six values `bind` of the driver takes 5.1 us, the encoders of its columns 1.0. What the driver
then makes of a row in a batch is another 3 us, which rows encoded here do not take.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from cassandra import ConsistencyLevel
from cassandra.cqltypes import BooleanType, BytesType, DoubleType, LongType, UTF8Type
from cassandra.protocol import ProtocolHandler
from cassandra.query import BatchStatement, BatchType, BoundStatement

from xmppd.store.table import ColumnType

_length = struct.Struct(">i").pack
_short = struct.Struct(">H").pack
_begin = struct.Struct(">iBH").pack
_begin_batch = struct.Struct(">BH").pack
_int = partial(struct.Struct(">iq").pack, 8)
_double = partial(struct.Struct(">id").pack, 8)
encoded_seconds = partial(struct.Struct(">ii").pack, 4)
"""A life as it is sent."""
NULL = _length(-1)
NO_MARK = _int(0)
"""What stands in the column `by:` of a row that no conditional write has made."""

_VERSION = 5
_ENVELOPE, _LENGTH_AT, _ROWS_AT = 9, 5, 12
"""Bytes before the body of a request, before its length there, and before the first row of a batch."""


def _bools(values: Sequence[Any]) -> list[bytes]:
    return [b"\0\0\0\1\1" if value else b"\0\0\0\1\0" for value in values]


def _blobs(values: Sequence[Any]) -> list[bytes]:
    return [_length(len(value)) + value for value in values]


def _texts(values: Sequence[Any]) -> list[bytes]:
    return [_length(len(value)) + value for value in map(str.encode, values)]


def _ints(values: Sequence[Any]) -> list[bytes]:
    return [*map(_int, values)]


def _doubles(values: Sequence[Any]) -> list[bytes]:
    return [*map(_double, values)]


ENCODERS: Mapping[ColumnType, Callable[[Sequence[Any]], list[bytes]]] = {
    "text": _texts,
    "blob": _blobs,
    "int": _ints,
    "bool": _bools,
    "float": _doubles,
    "timestamp": _doubles,
}
"""How the values of a column of each type go over the wire, each behind its length (the native protocol,
section 6).
"""


def encoded(encode: Callable[[Sequence[Any]], list[bytes]], values: Sequence[Any]) -> list[bytes]:
    """The values of a column, some of them perhaps None."""
    if None not in values:
        return encode(values)
    return [NULL if value is None else encode((value,))[0] for value in values]


class EncodedRow(NamedTuple):
    """What writes a row: CQL text, and its values as they go over the wire behind their number. `partition`:
    those of the partition key, each behind its length. `size`: about how many bytes Cassandra counts for it,
    never many fewer.
    """

    text: str
    values: bytes
    partition: bytes | tuple[bytes, ...]
    size: int


Encode = Callable[[Any], bytes]
"""Makes of a value that is not None what goes over the wire, its length before it."""
Decode = Callable[[bytes], Any]

_DOUBLE = struct.Struct(">d").unpack
_FLAGS_MORE, _SKIP_METADATA, _PAGED, _PAGE, _SERIAL, _VALUES = 2, 0x02, 0x08, 0x04, 0x10, 0x01
_HEAD = struct.Struct(">HiH").pack
_size = struct.Struct(">i").unpack_from


class Plan:
    """A statement that Cassandra has taken in: how its values are encoded, and its rows decoded."""

    __slots__ = (
        "begin",
        "columns",
        "decoders",
        "encoders",
        "head",
        "head_of_page",
        "key",
        "keyspace",
        "prepared",
        "query_id",
    )

    def __init__(self, prepared: Any) -> None:
        self.prepared = prepared
        self.query_id: bytes = prepared.query_id
        self.keyspace: str | None = prepared.keyspace
        self.key: Sequence[int] | None = prepared.routing_key_indexes
        self.columns = prepared.result_metadata
        self.encoders = [_encoder_of(column.type) for column in prepared.column_metadata]
        self.decoders = [_decoder_of(column[3]) for column in self.columns or ()]
        self.begin = b"\1" + _short(len(self.query_id)) + self.query_id
        """What stands before its values in a batch."""
        ids = (self.query_id, prepared.result_metadata_id or b"")
        known = _VALUES | _PAGE | _SERIAL | (_SKIP_METADATA if self.columns else 0)
        start = b"".join([part for it in ids for part in (_short(len(it)), it)])
        count = len(self.encoders)
        self.head = start + _HEAD(ConsistencyLevel.LOCAL_QUORUM, known, count)
        """What stands before its values where it is asked alone."""
        self.head_of_page = start + _HEAD(ConsistencyLevel.LOCAL_QUORUM, known | _PAGED, count)

    def encoded(self, values: Sequence[Any]) -> list[bytes]:
        """Values that were checked, each behind its length."""
        pairs = zip(values, self.encoders, strict=True)
        return [NULL if value is None else encode(value) for value, encode in pairs]

    def rows(self, data: bytes, has_state: bool, most: int) -> tuple[bytes | None, list[Any]] | None:
        """How to go on, and the rows, of which `data` begins with the number of columns' place; None for more
        than so many values.
        """
        at, state = 4, None
        if has_state:
            (length,) = _size(data, at)
            at += 4 + length
            state = data[at - length : at]
        (count,) = _size(data, at)
        at += 4
        decoders = self.decoders
        if count * len(decoders) > most:
            return None
        rows = []
        for _ in range(count):
            row: list[Any] = []
            for decode in decoders:
                (length,) = _size(data, at)
                at += 4
                if length < 0:
                    row.append(None)
                else:
                    end = at + length
                    row.append(decode(data[at:end]))
                    at = end
            rows.append(tuple(row))
        return state, rows


def _text_out(value: Any) -> bytes:
    data: bytes = value.encode()
    return _length(len(data)) + data


def _blob_out(value: Any) -> bytes:
    return _length(len(value)) + bytes(value)


def _bool_out(value: Any) -> bytes:
    return b"\0\0\0\1\1" if value else b"\0\0\0\1\0"


def _long_in(data: bytes) -> int | None:
    return int.from_bytes(data, "big", signed=True) if data else None


def _double_in(data: bytes) -> float | None:
    return float(_DOUBLE(data)[0]) if data else None


def _bool_in(data: bytes) -> bool | None:
    return data != b"\0" if data else None


def _encoder_of(kind: Any) -> Encode:
    if issubclass(kind, UTF8Type):
        return _text_out
    if issubclass(kind, BytesType):
        return _blob_out
    if issubclass(kind, LongType):
        return _int
    if issubclass(kind, DoubleType):
        return _double
    if issubclass(kind, BooleanType):
        return _bool_out
    return lambda value: _blob_out(kind.serialize(value, _VERSION))


def _decoder_of(kind: Any) -> Decode:
    if issubclass(kind, UTF8Type):
        return bytes.decode
    if issubclass(kind, BytesType):
        return bytes
    if issubclass(kind, LongType):
        return _long_in
    if issubclass(kind, DoubleType):
        return _double_in
    if issubclass(kind, BooleanType):
        return _bool_in
    return lambda data: kind.from_binary(data, _VERSION)


class Bound:
    """A statement with its values, encoded."""

    __slots__ = ("is_conditional", "plan", "values")

    def __init__(self, plan: Plan, values: Sequence[Any], *, is_conditional: bool = False) -> None:
        self.plan = plan
        self.values = plan.encoded(values)
        self.is_conditional = is_conditional

    @property
    def keyspace(self) -> str | None:
        """Where the table is."""
        return self.plan.keyspace

    @property
    def routing_key(self) -> bytes | None:
        """The partition key as Cassandra hashes it; None where there is none, or several."""
        key = self.plan.key
        if not key:
            return None
        if len(key) == 1:
            return self.values[key[0]][4:]
        return routing_key(tuple([self.values[place] for place in key]))

    def for_driver(self) -> BoundStatement:
        """The same as the driver has it."""
        bound = BoundStatement(self.plan.prepared)
        bound.values = [None if value is NULL else value[4:] for value in self.values]
        bound.is_idempotent = not self.is_conditional
        return bound


class Together:
    """Statements on one partition that take effect together."""

    __slots__ = ("body", "is_conditional", "keyspace", "routing_key", "statements")

    def __init__(self, statements: Sequence[Bound], *, is_conditional: bool) -> None:
        self.statements = statements
        self.is_conditional = is_conditional
        self.keyspace = statements[0].keyspace
        self.routing_key = statements[0].routing_key
        parts = [_begin_batch(BatchType.UNLOGGED.value, len(statements))]
        for it in statements:
            parts += (it.plan.begin, _short(len(it.values)), *it.values)
        self.body = parts

    def for_driver(self) -> BatchStatement:
        """The same as the driver has it."""
        batch = BatchStatement(BatchType.UNLOGGED)
        for it in self.statements:
            batch.add(it.for_driver())
        batch.is_idempotent = not self.is_conditional
        return batch


class EncodedRows(NamedTuple):
    """Rows as they stand in a request that writes them together."""

    number: int
    body: bytes


class EncodedBatch(BatchStatement):  # type: ignore[misc]
    """Rows of any partitions that are encoded already, with the statements prepared of their texts; of the
    driver, only `Requests` can send it.
    """

    is_conditional = False

    def __init__(self, prepared: Mapping[str, Any], rows: Sequence[EncodedRow]) -> None:
        super().__init__(BatchType.UNLOGGED)
        self.is_idempotent = True
        self.keyspace = prepared[rows[0].text].keyspace
        self.routing_key = routing_key(rows[0].partition)
        begins = {text: b"\1" + _short(len(it.query_id)) + it.query_id for text, it in prepared.items()}
        body = b"".join([part for row in rows for part in (begins[row.text], row.values)])
        self._statements_and_parameters = EncodedRows(len(rows), body)

    @property
    def body(self) -> Sequence[bytes]:
        """What stands in a request before how consistent it is to be."""
        rows = self._statements_and_parameters
        return _begin_batch(BatchType.UNLOGGED.value, rows.number), rows.body

    def for_driver(self) -> EncodedBatch:
        """The same as the driver has it."""
        return self


class Requests(ProtocolHandler):  # type: ignore[misc]
    """How requests go over the wire: as the driver has it, but for rows that are encoded."""

    @classmethod
    def encode_message(cls, msg: Any, *how: Any, **more: Any) -> bytes:
        """The whole envelope of a request."""
        rows = getattr(msg, "queries", None)
        if not isinstance(rows, EncodedRows):
            encoded: bytes = super().encode_message(msg, *how, **more)
            return encoded
        msg.queries = ()
        try:
            bare = super().encode_message(msg, *how, **more)
        finally:
            msg.queries = rows
        begin = _begin(len(bare) - _ENVELOPE + len(rows.body), bare[_ENVELOPE], rows.number)
        return b"".join((bare[:_LENGTH_AT], begin, rows.body, bare[_ROWS_AT:]))


def routing_key(partition: bytes | tuple[bytes, ...]) -> bytes:
    """A partition key as Cassandra hashes it: several columns with their lengths."""
    if isinstance(partition, bytes):
        return partition[4:]
    return b"".join([part[2:] + b"\0" for part in partition])
