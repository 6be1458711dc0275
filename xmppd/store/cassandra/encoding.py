"""Values as they go to Cassandra (the native protocol, section 6), encoded here for less than by the driver.

Of a row of six values `bind` of the driver takes 5.1 us, `bound_to` 3.2, the encoders of its columns 1.0.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from cassandra.query import BatchStatement, BatchType, BoundStatement

from xmppd.store.table import ColumnType

_int = struct.Struct(">q").pack
_double = struct.Struct(">d").pack
encoded_seconds = struct.Struct(">i").pack
"""A life as it is sent."""
NO_MARK = _int(0)
"""What stands in the column `by:` of a row that no conditional write has made."""


def _bool(value: bool) -> bytes:
    return b"\1" if value else b"\0"


def _blob(value: bytes) -> bytes:
    return value


ENCODERS: Mapping[ColumnType, Callable[[Any], bytes]] = {
    "text": str.encode,
    "blob": _blob,
    "int": _int,
    "bool": _bool,
    "float": _double,
    "timestamp": _double,
}
"""How the values of each type go over the wire (the native protocol, section 6)."""


class EncodedRow(NamedTuple):
    """The CQL text that writes a row, its values as they go over the wire, and those of the partition key
    among them: bytes, or for several columns a tuple.
    """

    text: str
    values: Sequence[bytes | None]
    partition: Any


def bound_to(prepared: Any, values: Sequence[Any]) -> BoundStatement:
    """What `prepared.bind` makes of values that were checked, for a third of what that takes: it looks up for
    each value whether it has to be encrypted, and asks nothing of texts.
    """
    bound = BoundStatement(prepared)
    version = prepared.protocol_version
    bound.values = [
        value.encode()
        if type(value) is str
        else None
        if value is None
        else column.type.serialize(value, version)
        for value, column in zip(values, prepared.column_metadata, strict=True)
    ]
    return bound


class EncodedBatch(BatchStatement):  # type: ignore[misc]
    """Rows of any partitions whose values are encoded already."""

    def add_row(self, prepared: Any, row: EncodedRow) -> None:
        """Add a row of the statement that was prepared."""
        if not self._statements_and_parameters:
            self.keyspace = prepared.keyspace
            self.routing_key = routing_key(row.partition)
        self._statements_and_parameters.append((True, prepared.query_id, row.values))


def encoded_batch(prepared: Mapping[str, Any], rows: Sequence[EncodedRow]) -> EncodedBatch:
    """What writes these rows, by the statements that were prepared of their texts."""
    together = EncodedBatch(BatchType.UNLOGGED)
    together.is_idempotent = True
    for row in rows:
        together.add_row(prepared[row.text], row)
    return together


def routing_key(partition: bytes | tuple[bytes, ...]) -> bytes:
    """A partition key as Cassandra hashes it: several columns with their lengths."""
    if isinstance(partition, bytes):
        return partition
    return b"".join([struct.pack(f">H{len(part)}sB", len(part), part, 0) for part in partition])
