"""Tables in the order of their accounts, read side by side: one pass over each, no query for an account."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

from xmppd.migrate.source import LONGEST_VALUE

Key = tuple[str, str]
"""Domain and local part: accounts come in the order of these, which for SQLite is that of their bytes."""

MOST_BYTES: Final = 4 * LONGEST_VALUE
"""All rows of one account in one table together."""


class TooMuch(ValueError):
    """An account with more than fits into memory."""


class Beside:
    """The rows of one table, which begin with domain, local part and their size in letters, and are in the
    order of the first two.

    `orphans` is told of rows that belong to no account: of whom, and how many.
    """

    def __init__(self, rows: Iterator[Any], orphans: Callable[[str, int], None]) -> None:
        self._groups = groupby(rows, itemgetter(0, 1))
        self._orphans = orphans
        self._key: Key | None
        self._rows: Iterator[Any]
        self._step()

    def _step(self) -> None:
        self._key, self._rows = next(self._groups, (None, iter(())))

    def of(self, key: Key) -> list[Any]:
        """The rows of one account; accounts are asked for in order. TooMuch, and then they are passed."""
        self._pass(key)
        found: list[Any] = []
        if self._key != key:
            return found
        left = MOST_BYTES
        for row in self._rows:
            left -= row[2] + 100
            if left < 0:
                self._step()
                raise TooMuch(f"more than {MOST_BYTES} bytes of one kind")
            found.append(row)
        self._step()
        return found

    def end(self) -> None:
        """There are no more accounts."""
        self._pass(None)

    def _pass(self, key: Key | None) -> None:
        while self._key is not None and (key is None or self._key < key):
            domain, local = self._key
            self._orphans(f"{local}@{domain}", sum(1 for _ in self._rows))
            self._step()


def size_of(columns: Iterable[str]) -> str:
    """The expression for the size of a row: what its columns have in letters."""
    return " + ".join(f"ifnull(length({column}), 0)" for column in columns) or "0"
