"""Subscriptions that only one of two rosters knows: how many a source has, how many there are here, and which
are in one of the two only.

Every subscription has two halves: the asker's (`to`) and the granter's (`from`), see
`xmppd.core.roster.repair`. They are put into a file as they are read and sorted in the end, so memory does
not grow with them.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from xmppd.core.roster.item import SEPARATOR, flags_of
from xmppd.core.roster.repair import problem_of

SOURCE: Final = 1
HERE: Final = 4
"""Where a roster is; together: it is the same in both. These are the bits of an asker's half, the double of
them those of a granter's. Of two accounts, what the first asks of the second is in the lower four bits and
what the second asks of the first in the upper.
"""
BOTH: Final = SOURCE | HERE
_UPPER: Final = 16

_INSERT = "insert into halves values (?, ?, ?, ?, ?)"
_SIDES = " | ".join(f"max(bits & {1 << bit})" for bit in range(8))
_WHERE = "from halves where place in ({})"
_COUNT = (
    f"select sides, count(*) from (select {_SIDES} as sides {_WHERE} group by pair) "
    "where (sides & 85) != ((sides >> 1) & 85) group by sides"
)
_OTHERS = (
    f"select max(first), max(second), {_SIDES} as sides {_WHERE} group by pair "
    "having (sides & 85) != ((sides >> 1) & 85) and (sides & 51) != ((sides >> 2) & 51) order by 1, 2"
)


class Halves:
    """The halves of a source and of what stands here, of contacts at these `domains`. `file` is scratch.

    Two accounts are known by a hash of both names, in order, and have a `place`: their domains. Their names
    are kept only with what is not the same in source and here, for whatever is told has some of that.
    """

    def __init__(self, file: Path, domains: Collection[str]) -> None:
        self._domains = frozenset(domains)
        self._places: dict[tuple[str, str], int] = {}
        self._bits: dict[tuple[str, int, bool], int] = {}
        self._database = sqlite3.connect(file, isolation_level=None)
        for pragma in ("journal_mode = off", "synchronous = off", "temp_store = file"):
            self._database.execute(f"pragma {pragma}")
        self._database.execute("create table halves (pair int, place int, bits int, first text, second text)")
        self._database.execute("begin")

    def add(self, account: str, roster: Sequence[Sequence[str]], where: int) -> None:
        """A roster as it is packed, in `SOURCE`, `HERE`, or the same in `BOTH`."""
        rows: list[tuple[int, int, int, str | None, str | None]] = []
        places, known, is_same = self._places_of(account), self._bits, where == BOTH
        for contact, value in roster:
            place = places.get(contact.rpartition("@")[2])
            if place is None:
                continue
            is_first = account < contact
            kind = value.partition(SEPARATOR)[0], where, is_first
            bits = known.get(kind)
            if bits is None:
                bits = known[kind] = bits_of(*kind)
            if bits:
                names = (account, contact) if is_first else (contact, account)
                rows.append((hash(names), place, bits, *((None, None) if is_same else names)))
        self._database.executemany(_INSERT, rows)

    def _places_of(self, account: str) -> dict[str, int]:
        """The place of an account's subscriptions, by the domain of the other."""
        own = account.rpartition("@")[2]
        return {domain: self._places.setdefault((own, domain), len(self._places)) for domain in self._domains}

    def counts(self, domains: Collection[str]) -> Iterator[tuple[int, str, str]]:
        """How many subscriptions between accounts at `domains` have a half that is missing in the source or
        here, by what is wrong in the one and in the other ("" for nothing).
        """
        for sides, count in self._ask(_COUNT, domains):
            for some in (sides, sides // _UPPER):
                yield count, wrong(some, SOURCE), wrong(some, HERE)

    def others(self, domains: Collection[str]) -> Iterator[tuple[str, str, str, str]]:
        """Asker, granter, and what is wrong in the source and here, of those in which the two differ."""
        for first, second, sides in self._ask(_OTHERS, domains):
            for asker, granter, some in ((first, second, sides), (second, first, sides // _UPPER)):
                source, here = wrong(some, SOURCE), wrong(some, HERE)
                if source != here:
                    yield asker, granter, source, here

    def _ask(self, query: str, domains: Collection[str]) -> Iterator[Any]:
        within = frozenset(domains)
        places = [place for pair, place in self._places.items() if set(pair) <= within]
        return self._database.execute(query.format(",".join(map(str, places))))

    def close(self) -> None:
        """Done."""
        self._database.close()


def bits_of(words: str, where: int, is_first: bool) -> int:
    """The bits of an item that begins with these words, of an account that is the first of the two or not."""
    state, _, _ = flags_of(words)
    asks, grants = (1, 2 * _UPPER) if is_first else (_UPPER, 2)
    return where * (asks * state.is_following + grants * state.is_followed)


def wrong(sides: int, where: int) -> str:
    """What is wrong with a subscription in one of the two."""
    asking = "to" if sides & where else ""
    granting = "from" if sides & (where * 2) else ""
    return problem_of(asking, granting)


def compare(halves: Halves, domains: Collection[str], tell: Callable[[dict[str, Any]], None]) -> Counter[str]:
    """Tell of those that are in one of the two only; how many both have."""
    words = ("one-sided in the source", "one-sided here", "one-sided in only one")
    counts: Counter[str] = Counter(dict.fromkeys(words, 0))
    for count, source, here in halves.counts(domains):
        counts["one-sided in the source"] += count * bool(source)
        counts["one-sided here"] += count * bool(here)
        counts["one-sided in only one"] += count * (source != here)
    if counts["one-sided in only one"]:
        for asker, granter, source, here in halves.others(domains):
            what = {"account": asker, "what": "one-sided", "of": granter}
            tell({**what, "source": source or None, "here": here or None})
    return counts
