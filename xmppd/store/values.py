"""What callers hand to a store, checked against the declarations before anything is queued.

Engine-neutral: every engine refuses the same things with the same words (StoreBug), and stores the values
returned here.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import re
from binascii import b2a_base64
from collections.abc import Callable, Mapping, Sequence

from xmppd.errors import StoreBug
from xmppd.store.table import ColumnType, Key, Table, Value

Check = Callable[[Value], Value]
"""Returns the value of one column in the form to be stored; StoreBug if it does not belong there."""

_JSON = json.JSONEncoder().encode
_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
_INT_END = 1 << 63


def _text(value: Value) -> str:
    if not isinstance(value, str):
        raise TypeError("is no str")
    if not value.isascii():
        value.encode()  # a lone surrogate has no UTF-8
    return value if type(value) is str else str.__str__(value)


def _blob(value: Value) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError("is no bytes")
    return value if type(value) is bytes else bytes(value)


def _int(value: Value) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("is no int")
    if not -_INT_END <= value < _INT_END:
        raise ValueError("does not fit into 64 bits")
    return int(value)


def _bool(value: Value) -> bool:
    if not isinstance(value, bool):
        raise TypeError("is no bool")
    return value


def _float(value: Value) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError("is no number")
    number = float(value)
    if number != number:  # engines disagree on what equals NaN and where it sorts
        raise ValueError("is not a number (NaN)")
    return number + 0.0  # and on whether -0.0 is 0.0


def _timestamp(value: Value) -> float:
    number = _float(value)
    if math.isinf(number):
        raise ValueError("is no moment in time")
    return number


_CONVERSIONS: Mapping[ColumnType, Callable[[Value], Value]] = {
    "text": _text,
    "blob": _blob,
    "int": _int,
    "bool": _bool,
    "float": _float,
    "timestamp": _timestamp,
}


def check_declaration(table: Table) -> None:
    """StoreBug with the reason if no engine could make this table."""
    names = [*table.key, *(c for c in table.columns if c not in table.key), *table.static]
    if not _NAME.fullmatch(table.name) or table.name.startswith("sqlite_"):
        raise StoreBug(f"{table.name!r} is no name for a table: lower-case letters, digits and _, at most 48")
    for name in names:
        if not _NAME.fullmatch(name):
            raise StoreBug(f"table {table.name}: {name!r} is no name for a column")
        if names.count(name) > 1:
            raise StoreBug(f"table {table.name}: the column {name} is declared twice")
        if table.type_of(name) not in _CONVERSIONS:
            raise StoreBug(f"table {table.name}: {table.type_of(name)!r} is no type for the column {name}")
    if not table.partition:
        raise StoreBug(f"table {table.name} has no partition key")
    if table.static and not table.cluster:
        raise StoreBug(
            f"table {table.name} has static columns but no clustering key: make them plain columns"
        )
    if table.order is not None and (
        table.order in table.key or table.columns.get(table.order) != "int" or table.static
    ):
        raise StoreBug(f"table {table.name}: `order` is no plain int column, or has static ones beside it")
    if table.ttl is not None:
        check_ttl(table, table.ttl)


def check_ttl(table: Table, ttl: float | None) -> float | None:
    """The life of a row in seconds, the table's default if `ttl` is None."""
    if ttl is None:
        return table.ttl
    if not 0 < ttl < math.inf:
        raise StoreBug(f"table {table.name}: {ttl!r} is no time to live in seconds")
    return ttl


def check_limit(table: Table, limit: int) -> int:
    """The number of rows of a page; a client may have asked for any."""
    if limit < 1:
        raise StoreBug(f"table {table.name}: a page of {limit} rows")
    return min(limit, 1 << 31)


class Shape:
    """One declaration as checks. Every method raises StoreBug that names table and column."""

    def __init__(self, table: Table) -> None:
        check_declaration(table)
        self.table = table
        self.plain = tuple(column for column in table.columns if column not in table.key)
        self._checks = {column: self._check(column) for column in (*table.key, *self.plain, *table.static)}
        self._texts = frozenset(
            name for name in self._checks if table.type_of(name) == "text" and table.partition != (name,)
        )
        self._key_checks = tuple(self._checks[column] for column in table.key)
        self._cluster_checks = tuple(self._checks[column] for column in table.cluster)
        self._is_blob_first = bool(table.cluster) and table.type_of(table.cluster[0]) == "blob"
        self._is_text = len(table.partition) == 1 and table.type_of(table.partition[0]) == "text"

    def match(self, match: Mapping[str, Value]) -> Key:
        """The values of all clustering columns behind the first, in their order."""
        columns = self.table.cluster[1:]
        if not columns or set(match) != set(columns):
            wrong = f"what rows have to match is {columns or 'nothing'}, not {list(match)}"
            raise StoreBug(f"table {self.table.name}: {wrong}")
        return tuple([self._checks[column](match[column]) for column in columns])

    def key(self, key: Key) -> Key:
        """The values of a whole key."""
        if len(key) != len(self._key_checks):
            raise StoreBug(f"table {self.table.name}: a key is {self.table.key}, not {len(key)} values")
        return tuple([check(value) for check, value in zip(self._key_checks, key, strict=True)])

    def keys(self, values: Sequence[Value]) -> list[Key]:
        """Whole keys, of one value each."""
        if len(self._key_checks) != 1:
            raise StoreBug(f"table {self.table.name}: a key is {self.table.key}, not one value")
        check = self._key_checks[0]
        return [(check(value),) for value in values]

    def partition(self, partition: Key) -> Key:
        """The values of a whole partition key."""
        if self._is_text and len(partition) == 1:  # as nearly all are
            [name] = partition
            if type(name) is str and name and name.isascii():
                return (name,)
        if len(partition) != len(self.table.partition):
            wrong = f"a partition key is {self.table.partition}, not {len(partition)} values"
            raise StoreBug(f"table {self.table.name}: {wrong}")
        return tuple([check(value) for check, value in zip(self._key_checks, partition, strict=False)])

    def partitions(self, values: Sequence[Value]) -> list[Key]:
        """Whole partition keys, of one value each."""
        if len(self.table.partition) != 1:
            raise StoreBug(
                f"table {self.table.name}: a partition key is {self.table.partition}, not one value"
            )
        check = self._key_checks[0]
        return [(check(value),) for value in values]

    def prefix(self, prefix: Key) -> Key:
        """The values of some first clustering columns."""
        if len(prefix) == 1 and self._is_blob_first and type(prefix[0]) is bytes:
            return (prefix[0],)
        checks = self._cluster_checks
        if len(prefix) > len(checks):
            wrong = f"clustering columns are {self.table.cluster}, not {len(prefix)} values"
            raise StoreBug(f"table {self.table.name}: {wrong}")
        return tuple([check(value) for check, value in zip(checks, prefix, strict=False)])

    def prefixes(self, keys: Sequence[Key]) -> list[Key]:
        """Prefixes of clustering values, all of one length, in clustering order and each once."""
        if len({len(key) for key in keys}) > 1 or () in keys:
            raise StoreBug(f"table {self.table.name}: keys are not some clustering values, the same of each")
        checked = {self.prefix(key) for key in keys}
        return sorted(checked, reverse=self.table.descending)

    def cluster(self, cluster: Key) -> Key:
        """The values of all clustering columns."""
        if len(cluster) != len(self.table.cluster):
            wrong = f"clustering columns are {self.table.cluster}, not {len(cluster)} values"
            raise StoreBug(f"table {self.table.name}: {wrong}")
        return self.prefix(cluster)

    def row_checks(self, columns: Sequence[str], key: Sequence[str]) -> tuple[Check, ...]:
        """The checks of the columns of a row to be written: `key` must be among them, all others plain."""
        if self.table.order is not None:
            raise StoreBug(f"table {self.table.name}: rows with an order are written by `put_newest` only")
        return self._row_checks(columns, key)

    def newest(self, row: Mapping[str, Value]) -> dict[str, Value]:
        """A whole row of a table whose rows have an order: all columns in the order of the declaration."""
        table = self.table
        if table.order is None:
            raise StoreBug(f"table {table.name}: its rows have no order")
        given = tuple(row)
        checks = self._row_checks(given, (*table.key, table.order))
        checked = {column: check(row[column]) for column, check in zip(given, checks, strict=True)}
        if checked[table.order] is None:
            raise StoreBug(f"table {table.name}: the row has no {table.order}")
        return {column: checked.get(column) for column in (*table.key, *self.plain)}

    def _row_checks(self, columns: Sequence[str], key: Sequence[str]) -> tuple[Check, ...]:
        for part in key:
            if part not in columns:
                raise StoreBug(f"table {self.table.name}: the row lacks {part}, which each has to have")
        return tuple(self._checks[self._known(column, (*key, *self.plain))] for column in columns)

    def column(self, column: str, values: Sequence[Value]) -> Sequence[Value]:
        """The values of one column in many rows; texts, the most usual, are looked at together."""
        if column in self._texts and set(map(type, values)) == {str}:
            with contextlib.suppress(UnicodeEncodeError):  # it is told below which one it is
                "".join(values).encode()  # type: ignore[arg-type]
                return values
        check = self._checks[column]
        return [check(value) for value in values]

    def check(self, column: str, value: Value) -> Value:
        """The value of one column that there is."""
        return self._checks[column](value)

    def selected(self, columns: Sequence[str]) -> tuple[str, ...]:
        """Columns to be read of each row, of the key and plain ones."""
        allowed = (*self.table.key, *self.plain)
        if not columns or not set(columns) <= set(allowed):
            raise StoreBug(f"table {self.table.name}: {list(columns)} are not some of the columns {allowed}")
        return tuple(columns)

    def plain_values(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """What a condition expects in plain columns."""
        return self._some(values, self.plain)

    def present_values(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """What a condition expects in plain columns of a row that is there: one value at least."""
        expected = self.plain_values(values)
        if all(value is None for value in expected.values()):
            raise StoreBug(f"table {self.table.name}: no value is expected, which would be no row")
        return expected

    def static_values(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Values for static columns, or what a condition expects there."""
        return self._some(values, self.table.static)

    def through(self, prefix: Key) -> Key:
        """The first clustering values up to which rows are deleted."""
        if not prefix:
            raise StoreBug(f"table {self.table.name}: up to which row to delete must be said")
        return self.prefix(prefix)

    def distinct(self, touched: Sequence[Key], ranges: Sequence[Key] = ()) -> None:
        """Refuse a batch that touches one row twice: which write wins would depend on the engine.

        `touched` are clustering values; an empty tuple stands for every row of the partition. `ranges` are
        values up to which all rows are deleted.
        """
        twice = len(set(touched)) < len(touched) or (len(touched) > 1 and () in touched)
        within = any(cluster[: len(end)] <= end for end in ranges for cluster in touched)
        if twice or within or len(ranges) > 1:
            raise StoreBug(f"table {self.table.name}: a batch touches one row twice")

    def _some(
        self, values: Mapping[str, Value], allowed: Sequence[str] | Mapping[str, ColumnType]
    ) -> dict[str, Value]:
        if not values:
            raise StoreBug(f"table {self.table.name}: no columns to write or to compare")
        return {column: self._checks[self._known(column, allowed)](value) for column, value in values.items()}

    def _known(self, column: str, allowed: Sequence[str] | Mapping[str, ColumnType]) -> str:
        if column in allowed:
            return column
        if column in self.table.static:
            raise StoreBug(f"table {self.table.name}: {column} is static, only `batch(static=...)` writes it")
        if column in self._checks:
            raise StoreBug(f"table {self.table.name}: {column} is not expected here")
        raise StoreBug(f"table {self.table.name} has no column {column}")

    def _check(self, column: str) -> Check:
        table = self.table.name
        convert = _CONVERSIONS[self.table.type_of(column)]
        is_key = column in self.table.key
        must_say = self.table.partition == (column,)  # Cassandra has no empty partition key

        def check(value: Value) -> Value:
            if value is None and not is_key:
                return None
            try:
                if must_say and value in ("", b""):
                    raise ValueError("is empty, which the only column of a partition key cannot be")
                return convert(value)
            except (TypeError, ValueError, OverflowError) as error:
                raise StoreBug(f"table {table}, column {column}: {type(value).__name__} {error}") from None

        return check


class Columns:
    """The values of some columns of many rows, in order: the columns are checked once, and values of the
    usual types at no cost to speak of.

    Of such values two things are left to whoever stores them, and must fail there: an integer of more than 64
    bits, and a text that has no UTF-8.
    """

    def __init__(self, shape: Shape, columns: Sequence[str]) -> None:
        if len(set(columns)) < len(columns):
            raise StoreBug(f"table {shape.table.name}: a column is named twice")
        self.names = tuple(columns)
        self._table = shape.table
        self._checks = shape.row_checks(columns, shape.table.key)
        kinds = [shape.table.type_of(column) for column in columns]
        self._usual: set[tuple[type, ...]] = set()
        self._has_numbers = not {"float", "timestamp"}.isdisjoint(kinds)  # which may be NaN
        alone = columns.index(shape.table.partition[0]) if len(shape.table.partition) == 1 else None
        self._not_empty = alone if alone is not None and kinds[alone] in ("text", "blob") else None

    def checked(self, values: tuple[Value, ...]) -> Sequence[Value]:
        """The values to be stored; StoreBug."""
        kinds = tuple(map(type, values))
        if kinds in self._usual and (self._not_empty is None or values[self._not_empty]):
            return values
        if len(values) != len(self._checks):
            wrong = f"a row is {', '.join(self.names)}, not {len(values)} values"
            raise StoreBug(f"table {self._table.name}: {wrong}")
        checked = [check(value) for check, value in zip(self._checks, values, strict=True)]
        if not self._has_numbers and tuple(map(type, checked)) == kinds:
            self._usual.add(kinds)
        return checked

    def all_checked(self, rows: Sequence[tuple[Value, ...]]) -> Sequence[Sequence[Value]]:
        """The values of many rows to be stored; StoreBug."""
        if rows and self._not_empty is None and (kinds := tuple(map(type, rows[0]))) in self._usual:
            with contextlib.suppress(ValueError):  # they are not of one length
                columns = zip(kinds, zip(*rows, strict=True), strict=True)
                if all({*map(type, column)} == {kind} for kind, column in columns):
                    return rows
        return [self.checked(values) for values in rows]


def page_token(kind: str, key: Key) -> bytes:
    """The place of a row from which the next page goes on; `kind` tells scans apart that walk differently."""
    parts = [f'"{b2a_base64(v, newline=False).decode()}"' if type(v) is bytes else _JSON(v) for v in key]
    return f'["{kind}",{",".join(parts)}]'.encode()


def read_page_token(shape: Shape, kind: str, token: bytes, columns: Sequence[str]) -> Key:
    """The values of `columns` in a token of `kind`; StoreBug for anything else: clients may have made it."""
    try:
        found, *parts = json.loads(token)
        if found != kind or not parts or len(parts) != len(columns):
            raise ValueError("of another scan")
        for place, column in enumerate(columns):
            if shape.table.type_of(column) == "blob":
                parts[place] = base64.b64decode(parts[place], validate=True)
    except (ValueError, TypeError, RecursionError) as error:
        raise StoreBug(f"table {shape.table.name}: no page token of this scan: {error}") from None
    return tuple(shape.check(column, value) for column, value in zip(columns, parts, strict=True))
