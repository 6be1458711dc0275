"""The rows of one person in all tables, and what names that person elsewhere."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from time import monotonic, perf_counter
from typing import Final

from xmppd.store.person import Person, nobody, wrong_with
from xmppd.store.table import Key, Store, Stored, Table, Value
from xmppd.store.transfer import patiently

PAGE: Final = 50
"""Rows that are read at once: of the largest kind some 12 MiB."""
REST_SECONDS: Final = 0.1
"""How long it is rested at most from reading a whole table, after each page as long as that took."""
NOBODY: Final = nobody("not declared")


def person_of(table: Table) -> Person:
    """Whom a table says that it is about."""
    return table.person or NOBODY


class Persons:
    """Finds rows in the `tables` that a server has now, and in those that nothing declares any more of which
    the store knows whom they are about. `look` first.
    """

    def __init__(self, store: Store, tables: Callable[[], Sequence[Table]]) -> None:
        self.store = store
        self._tables = tables
        self._stored: Sequence[Table] = ()
        self._looked: float | None = None

    async def look(self, within: float = 0.0) -> None:
        """Look which tables are there, unless that was done so many seconds ago; StoreError."""
        if self._looked is None or monotonic() - self._looked > within:
            self._stored = await patiently(self.store.stored_tables)
            self._looked = monotonic()

    @property
    def tables(self) -> list[Table]:
        """All, and those last by which the rows of others are found."""
        found = {table.name: table for table in self._tables()}
        every = {**{table.name: table for table in self._stored}, **found}.values()
        return sorted((it for it in every if it.name in found or not wrong_with(it, every)), key=_rank)

    @property
    def owned(self) -> list[Table]:
        """Those whose rows belong to a person, in the same order."""
        return [table for table in self.tables if person_of(table).is_owner]

    @property
    def mentioning(self) -> list[Table]:
        """Those in which a person may stand in the rows of others, or of nobody."""
        return [table for table in self.tables if person_of(table).mentions]

    async def partitions(self, table: Table, account: str) -> list[Key]:
        """The keys of the partitions that are this person's; some may have no rows."""
        through = person_of(table).through
        if through is None:
            return [(account,)]
        by_name = {it.name: it for it in self.tables}
        row = await patiently(lambda: self.store.get(by_name[through.table], (account,)))
        numbers = [row[name] for name in through.numbers if row[name] is not None] if row else []
        if not through.rest:
            return [(number,) for number in numbers]
        rest, found = by_name[through.rest], list[Key]()
        for number in numbers:
            rows = (await patiently(lambda at=number: self.store.scan(rest, (at,)))).rows  # type: ignore[misc]
            found += [(number, *(row[column] for column in rest.cluster)) for row in rows]
        return found

    async def pages(self, table: Table, account: str) -> AsyncIterator[Sequence[Stored]]:
        """The rows of this person in one table, with static columns, some at a time."""
        for partition in await self.partitions(table, account):
            async for entries in self._dump(table, partition):
                yield entries

    async def count(self, table: Table, account: str) -> int:
        """How many there are."""
        return sum([len(entries) async for entries in self.pages(table, account)])

    async def mentions(self, table: Table, account: str) -> AsyncIterator[Sequence[Stored]]:
        """Rows that are not this person's own and mention it: the whole table is read, half of the time."""
        about, own = mentions_of(table, account), set(await self._own(table, account))
        width, began = len(table.partition), perf_counter()
        async for entries in self._dump(table, None):
            found = [it for it in entries if it.key[:width] not in own and about(it)]
            took = min(perf_counter() - began, REST_SECONDS)
            if found:
                yield found
            await asyncio.sleep(took)
            began = perf_counter()

    @property
    def unknown(self) -> list[str]:
        """Tables of which nothing says whom they are about: nothing that is loaded declares them, and nobody
        has written it down.
        """
        known = {table.name for table in self.tables}
        return [table.name for table in self._stored if table.name not in known]

    async def _own(self, table: Table, account: str) -> list[Key]:
        return await self.partitions(table, account) if person_of(table).is_owner else []

    async def _dump(self, table: Table, partition: Key | None) -> AsyncIterator[Sequence[Stored]]:
        page: bytes | None = None
        limit = PAGE if partition is not None else 2 * PAGE
        while True:
            at = page
            dump = await patiently(
                lambda at=at: self.store.dump(table, partition=partition, limit=limit, page=at)  # type: ignore[misc]
            )
            if dump.entries:
                yield dump.entries
            if (page := dump.next) is None:
                return


def _rank(table: Table) -> tuple[int, str]:
    through = person_of(table).through
    return (2 if through is None else 0 if through.rest else 1), table.name


# names in texts


def forms_of(account: str) -> list[str]:
    """How an address is written in texts: as it is, and by JSON of ASCII alone."""
    return sorted({account, json.dumps(account)[1:-1]})


def pattern_of(account: str) -> re.Pattern[str]:
    """Finds an address in a text, in each form in which one of ours writes it; not as a part of another."""
    either = "|".join(map(re.escape, forms_of(account)))
    return re.compile(rf"(?<![^\s\"&'/:<>@,;()\[\]{{}}=|])(?:{either})(?![\w-]|\.\w)")


def mentions_of(
    table: Table, account: str, columns: Collection[str] | None = None
) -> Callable[[Stored], bool]:
    """Whether a row of this table mentions the account in one of `columns` (None: where people may stand)."""
    pattern = pattern_of(account)
    forms = [form.encode() for form in forms_of(account)]
    columns = person_of(table).mentions if columns is None else columns
    places = [(place, name) for place, name in enumerate(table.key) if name in columns]
    plain = [name for name in columns if name not in table.key]

    def is_found(stored: Stored) -> bool:
        keys = (stored.key[place] for place, _ in places if place < len(stored.key))
        return any(_names(value, forms, pattern) for value in keys) or any(
            _names(stored.values.get(name), forms, pattern) for name in plain
        )

    return is_found


def _names(value: Value, forms: Sequence[bytes], pattern: re.Pattern[str]) -> bool:
    if not isinstance(value, str | bytes):
        return False
    data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    if not any(form in data for form in forms):
        return False
    return pattern.search(data.decode("utf-8", "replace")) is not None


def masked(value: Value, pattern: re.Pattern[str], mask: str) -> Value:
    """The value with another text in place of the address."""
    if isinstance(value, bytes):
        return pattern.sub(mask, value.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
    return pattern.sub(mask, value) if isinstance(value, str) else value


def columns_of(table: Table) -> Iterable[tuple[str, str]]:
    """Each column with its type, those of the key first."""
    rest = (name for name in (*table.columns, *table.static) if name not in table.key)
    return ((name, table.type_of(name)) for name in itertools.chain(table.key, rest))
