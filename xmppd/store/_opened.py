"""What the engines share beyond the checks of values: the tables in use, and the range that a scan walks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

from xmppd.errors import StoreBug, StoreUnavailable
from xmppd.store.table import Key, Table
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

    def check_not_closed(self) -> None:
        """StoreUnavailable once the store was closed."""
        if self.is_closed:
            raise StoreUnavailable("the store was closed")

    def of(self, table: Table) -> OpenT:
        """The table in use; StoreUnavailable for a store that is not open, StoreBug for what it has not."""
        self.check_not_closed()
        opened = self._tables.get(table.name)
        if opened is None:
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


def range_of(shape: Shape, bounds: tuple[Key | None, Key | None], reverse: bool, page: bytes | None) -> Range:
    """The range between two prefixes, from behind the page that the token ends; StoreBug for wrong ones."""
    table = shape.table
    ascending = table.descending == reverse
    start, end = (shape.prefix(bound) if bound else () for bound in bounds)
    lower, upper = Bound(">=", start), Bound("<=", end)
    kind = "+" if ascending else "-"
    if page is not None:
        after = read_page_token(shape, kind, page, table.cluster)
        if after[: len(start)] < start or (end and after[: len(end)] > end):
            raise StoreBug(f"table {table.name}: the page token is of a scan of other rows")
        lower, upper = (Bound(">", after), upper) if ascending else (lower, Bound("<", after))
    return Range(tuple(bound for bound in (lower, upper) if bound.values), ascending, kind)
