"""Whom the rows of a table are about: declared with each table, and all that data rights go by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from xmppd.store.table import Table

Fate = Literal["kept", "masked", "deleted"]
"""What becomes of a row of somebody else that mentions a person who is erased: it stays as it is, a text that
is no name of anybody takes the place of the address in that column, or the row goes.
"""
FATES = ("kept", "masked", "deleted")


@dataclass(frozen=True, slots=True)
class Through:
    """Whose a number is: `table`, by its whole name, has a row for each person, with such numbers in
    `numbers`. `rest` is the table whose rows, in a partition by that number alone, have the values of the
    other partition columns; "": there are none.
    """

    table: str
    numbers: tuple[str, ...]
    rest: str = ""


@dataclass(frozen=True, slots=True)
class Person:
    """`column`, the first one of the partition key, is the bare JID of the person whose rows these are, or a
    number that is found `through` another table; "": they are nobody's. `mentions` are columns in which other
    people may stand, and what becomes of that (`Fate`) when one of them is erased. `secret` are columns that
    are described in an export, and not given: what each is. `why` says why there is nobody. What `stays`
    keeps late writes out after an account has gone, and goes when none can come any more.
    """

    column: str = ""
    through: Through | None = None
    mentions: Mapping[str, Fate] = field(default_factory=dict)
    secret: Mapping[str, str] = field(default_factory=dict)
    why: str = ""
    stays: bool = False

    @property
    def is_owner(self) -> bool:
        """Whether the rows go with the person."""
        return bool(self.column)


def nobody(why: str) -> Person:
    """A table in which no person stands; `why` is one sentence for who reads it."""
    return Person(why=why)


def wrong_with(table: Table, tables: Iterable[Table]) -> str:
    """What is wrong with the declaration of a table among these; "" for nothing."""
    person = table.person
    if person is None:
        return "it does not say which person its rows are about"
    if not (person.column or person.mentions or person.why):
        return "it names neither a column nor, for want of a person, the reason"
    if person.column and person.column != table.partition[0]:
        return f"the person must be the first partition column, {table.partition[0]}, not {person.column}"
    for column in (*person.mentions, *person.secret):
        if column not in table.key and column not in table.columns and column not in table.static:
            return f"it has no column {column}"
    if wrong := [fate for fate in person.mentions.values() if fate not in FATES]:
        return f"{wrong[0]!r} is none of {', '.join(FATES)}"
    return _wrong_with_way(table, person.through, {it.name: it for it in tables})


def _wrong_with_way(table: Table, through: Through | None, tables: Mapping[str, Table]) -> str:
    alone = len(table.partition) == 1
    if through is None:
        return (
            ""
            if alone or not table.person or not table.person.column
            else "its partition is not one person's"
        )
    for name in filter(None, (through.table, through.rest)):
        if name not in tables:
            return f"there is no table {name}"
    if missing := [name for name in through.numbers if name not in tables[through.table].columns]:
        return f"the table {through.table} has no column {missing[0]}"
    rest = tables[through.rest].cluster if through.rest else ()
    return "" if table.partition[1:] == rest else "nothing says which partitions are one person's"
