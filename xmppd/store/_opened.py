"""What the engines share beyond the checks of values: the tables in use, and the range that a scan walks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

from xmppd.errors import StoreBug, StoreUnavailable
from xmppd.store.table import Key, Table, Value
from xmppd.store.values import Shape, read_page_token


class OpenTable(Protocol):
    """One declaration in use, whatever an engine makes of it."""

    declaration: Table


OpenT = TypeVar("OpenT", bound=OpenTable)


class OpenTables(Generic[OpenT]):
    """The tables that a store has opened, and whether it was closed."""

    def __init__(self) -> None:
        self._tables: dict[str, OpenT] = {}
        self.is_closed = False

    def __iter__(self) -> Iterator[OpenT]:
        return iter(self._tables.values())

    def add(self, opened: dict[str, OpenT]) -> None:
        """Use these tables from now on, too."""
        self._tables = {**self._tables, **opened}

    def with_stored(self, stored: Sequence[Table], make: Callable[[Table], OpenT]) -> list[Table]:
        """Use those of these from now on, too, that are not in use; all of them, as they are in use."""
        new = {table.name: make(table) for table in stored if table.name not in self._tables}
        self._tables = {**new, **self._tables}
        return [self._tables[table.name].declaration for table in stored]

    def check_not_closed(self) -> None:
        """StoreUnavailable once the store was closed."""
        if self.is_closed:
            raise StoreUnavailable("the store was closed")

    def of(self, table: Table) -> OpenT:
        """The table in use; StoreUnavailable for a store that is not open, StoreBug for what it has not."""
        opened = self._tables.get(table.name)
        if opened is None or self.is_closed:
            self.check_not_closed()
            if not self._tables:
                raise StoreUnavailable("the store is not open")
            raise StoreBug(f"table {table.name} has not been opened")
        if opened.declaration is not table and opened.declaration != table:
            raise StoreBug(f"table {table.name} was opened with another declaration")
        return opened


class Bound(NamedTuple):
    """One end of a range of clustering prefixes."""

    operator: Literal[">=", ">", "<=", "<"]
    values: Key


class Range(NamedTuple):
    """The rows of one partition that a page is cut from; `kind` marks the tokens of its pages."""

    bounds: tuple[Bound, ...]
    ascending: bool
    kind: str

    @property
    def shape(self) -> tuple[tuple[str, int], ...]:
        """The bounds without their values: operators and how many columns each compares."""
        return tuple([(bound.operator, len(bound.values)) for bound in self.bounds])

    @property
    def values(self) -> list[Value]:
        """The values of all bounds."""
        return [value for bound in self.bounds for value in bound.values]


class Ends(NamedTuple):
    """The ends of a range as a caller gives them, prefixes of clustering values: `start` and `end` are
    within, `after` and `before` are not.
    """

    start: Key | None = None
    end: Key | None = None
    after: Key | None = None
    before: Key | None = None


def check_first(table: Table, *others: object) -> None:
    """StoreBug for a scan of the first rows of which more is asked."""
    if any(other is not None for other in others):
        raise StoreBug(f"table {table.name}: who asks for the first rows does not go on, nor looks for some")


def match_of(shape: Shape, match: Mapping[str, Value] | None, ends: Ends) -> Key:
    """The values that the last clustering columns have to have, in a range over the first; none, in any."""
    if match is None:
        return ()
    if any(end is not None and len(end) > 1 for end in ends):
        raise StoreBug(f"table {shape.table.name}: a range of rows that match is over the first column only")
    return shape.match(match)


def range_of(shape: Shape, ends: Ends, reverse: bool, page: bytes | None) -> Range:
    """The range between two prefixes, from behind the page that the token ends; StoreBug for wrong ones."""
    table = shape.table
    ascending = table.descending == reverse
    lower = _bound(shape, ">=", ends.start, ">", ends.after)
    upper = _bound(shape, "<=", ends.end, "<", ends.before)
    kind = "+" if ascending else "-"
    if page is not None:
        last = read_page_token(shape, kind, page, table.cluster)
        if not (_holds(lower, last) and _holds(upper, last)):
            raise StoreBug(f"table {table.name}: the page token is of a scan of other rows")
        lower, upper = (Bound(">", last), upper) if ascending else (lower, Bound("<", last))
    return Range(tuple(bound for bound in (lower, upper) if bound.values), ascending, kind)


def _bound(
    shape: Shape,
    within: Literal[">=", "<="],
    value: Key | None,
    beyond: Literal[">", "<"],
    other: Key | None,
) -> Bound:
    if not other:
        return Bound(within, shape.prefix(value) if value else ())
    if value:
        raise StoreBug(f"table {shape.table.name}: one end of a range is given twice")
    return Bound(beyond, shape.prefix(other))


def _holds(bound: Bound, key: Key) -> bool:
    """Whether the key of a row is on the right side of a bound."""
    values, some = bound.values, key[: len(bound.values)]
    if not values:
        return True
    if bound.operator in ("<", "<="):
        values, some = some, values
    return some > values or (some == values and len(bound.operator) == 2)
