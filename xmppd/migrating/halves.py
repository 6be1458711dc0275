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
them those of a granter's.
"""
BOTH: Final = SOURCE | HERE

_INSERT = "insert into halves values (?, ?, ?, ?, ?)"
_SIDES = " | ".join(f"max(bits & {bit})" for bit in (1, 2, 4, 8))
_WHERE = "from halves where place in ({})"
_COUNT = (
    f"select sides, count(*) from (select {_SIDES} as sides {_WHERE} group by pair) "
    "where (sides & 5) != ((sides >> 1) & 5) group by sides"
)
_OTHERS = (
    f"select max(asker) as who, max(granter) as whom, {_SIDES} as sides {_WHERE} group by pair "
    "having (sides & 5) != ((sides >> 1) & 5) and (sides & 3) != ((sides >> 2) & 3) order by who, whom"
)


class Halves:
    """The halves of a source and of what stands here, of contacts at these `domains`. `file` is scratch.

    A subscription is known by a hash of its two, and has a `place`: the domains of both. Names are kept only
    with halves that are not the same in source and here, for whatever is told has one of these.
    """

    def __init__(self, file: Path, domains: Collection[str]) -> None:
        self._domains = frozenset(domains)
        self._places: dict[tuple[str, str], int] = {}
        self._states: dict[str, tuple[bool, bool]] = {}
        self._database = sqlite3.connect(file, isolation_level=None)
        for pragma in ("journal_mode = off", "synchronous = off", "temp_store = file"):
            self._database.execute(f"pragma {pragma}")
        self._database.execute(
            "create table halves (pair int, place int, bits int, asker text, granter text)"
        )
        self._database.execute("begin")

    def add(self, account: str, roster: Sequence[Sequence[str]], where: int) -> None:
        """A roster as it is packed, in `SOURCE`, `HERE`, or the same in `BOTH`."""
        rows: list[tuple[int, int, int, str | None, str | None]] = []
        places, states, is_same = self._places_of(account), self._states, where == BOTH
        for contact, value in roster:
            place = places.get(contact.rpartition("@")[2])
            if place is None:
                continue
            words = value.partition(SEPARATOR)[0]
            state = states.get(words)
            if state is None:
                found, _, _ = flags_of(words)
                state = states[words] = found.is_following, found.is_followed
            follows, is_followed = state
            if follows:
                names = (None, None) if is_same else (account, contact)
                rows.append((hash((account, contact)), place, where, *names))
            if is_followed:
                names = (None, None) if is_same else (contact, account)
                rows.append((hash((contact, account)), place, where * 2, *names))
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
            yield count, wrong(sides, SOURCE), wrong(sides, HERE)

    def others(self, domains: Collection[str]) -> Iterator[tuple[str, str, str, str]]:
        """Asker, granter, and what is wrong in the source and here, of those in which the two differ."""
        for asker, granter, sides in self._ask(_OTHERS, domains):
            yield asker, granter, wrong(sides, SOURCE), wrong(sides, HERE)

    def _ask(self, query: str, domains: Collection[str]) -> Iterator[Any]:
        within = frozenset(domains)
        places = [place for pair, place in self._places.items() if set(pair) <= within]
        return self._database.execute(query.format(",".join(map(str, places))))

    def close(self) -> None:
        """Done."""
        self._database.close()


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
