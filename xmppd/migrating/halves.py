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

_INSERT = "insert into halves values (?, ?, ?)"
_UNPAIRED = (
    "select asker, granter, sum(distinct bits) as sides from halves group by asker, granter "
    "having (sides & 5) != ((sides >> 1) & 5) order by asker, granter"
)


class Halves:
    """The halves of a source and of what stands here, of contacts at these `domains`. `file` is scratch."""

    def __init__(self, file: Path, domains: Collection[str]) -> None:
        self._domains = frozenset(domains)
        self._database = sqlite3.connect(file, isolation_level=None)
        for pragma in ("journal_mode = off", "synchronous = off", "temp_store = file"):
            self._database.execute(f"pragma {pragma}")
        self._database.execute("create table halves (asker text, granter text, bits int)")
        self._database.execute("begin")

    def add(self, account: str, roster: Sequence[Sequence[str]], where: int) -> None:
        """A roster as it is packed, in `SOURCE`, `HERE`, or the same in `BOTH`."""
        rows: list[tuple[str, str, int]] = []
        for contact, value in roster:
            if contact.rpartition("@")[2] not in self._domains:
                continue
            state, _, _ = flags_of(value.partition(SEPARATOR)[0])
            if state.is_following:
                rows.append((account, contact, where))
            if state.is_followed:
                rows.append((contact, account, where * 2))
        self._database.executemany(_INSERT, rows)

    def unpaired(self, domains: Collection[str]) -> Iterator[tuple[str, str, str, str]]:
        """Asker, granter, and what is wrong in the source and here ("" for nothing), of each subscription
        between accounts at `domains` of which a half is missing in one of the two.
        """
        self._database.execute("commit")
        for asker, granter, sides in self._database.execute(_UNPAIRED):
            if asker.rpartition("@")[2] in domains and granter.rpartition("@")[2] in domains:
                yield asker, granter, wrong(sides, SOURCE), wrong(sides, HERE)

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
    for asker, granter, source, here in halves.unpaired(domains):
        counts["one-sided in the source"] += bool(source)
        counts["one-sided here"] += bool(here)
        counts["one-sided in only one"] += source != here
        if source != here:
            what = {"account": asker, "what": "one-sided", "of": granter}
            tell({**what, "source": source or None, "here": here or None})
    return counts
