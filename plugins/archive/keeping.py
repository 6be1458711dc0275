"""How long messages are kept, and how they are deleted: when their time is over, by a command, with their
account. All that belongs to one owner is listed here.
"""

from __future__ import annotations

import asyncio
from array import array
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from xmppd.plugin import Delete, Table

from .ids import MICROSECONDS, bound, day_of, month_of, month_of_day

DAY_SECONDS: Final = 86_400.0
INDEX_LIFE: Final = 2 * DAY_SECONDS
"""How much longer than the messages of a day the row lives by which they are found. Those of months, a dozen
a year, stay until they are deleted: whatever time was kept to before, all that there is can be found.
"""
DELETED_AT_ONCE: Final = 100
"""Rows that one write deletes."""
READ_AT_ONCE: Final = 500
"""Rows of a whole table between which nobody else is served."""

Row = Mapping[str, Any]


class Lives:
    """How long messages are kept: `days` (0: for ever), in some domains others. Today's may live for longer,
    by what was so before or is so on other nodes.
    """

    def __init__(self, days: float, domains: Mapping[str, float], now: Callable[[], float]) -> None:
        self._days = days
        self._domains = domains
        self._now = now
        self._longer: dict[str, tuple[float, float]] = {}

    def days_of(self, domain: str) -> float:
        """How many days, 0 for ever."""
        return self._domains.get(domain, self._days)

    def of(self, account: str) -> float | None:
        """Seconds that messages in the archive of this account live; None: for ever."""
        days = self.days_of(account.rpartition("@")[2]) if self._domains else self._days
        return days * DAY_SECONDS or None

    def longer(self, domain: str, days: float, until: float) -> None:
        """Until that moment there may be messages of the same day that live for so many days."""
        known, before = self._longer.get(domain, (days, 0.0))
        if before > self._now():
            days, until = days and known and max(days, known), max(until, before)
        self._longer[domain] = days, until

    def longest_of(self, account: str) -> float | None:
        """Seconds that any message of today lives in this archive; None: for ever."""
        life = self.of(account)
        days, until = self._longer.get(account.rpartition("@")[2], (0.0, 0.0)) if self._longer else (0.0, 0.0)
        if life is None or until <= self._now():
            return life
        return max(life, days * DAY_SECONDS) if days else None

    def index_of(self, account: str) -> float | None:
        """Seconds that a row lives by which messages of a day are found; None: for ever."""
        life = self.longest_of(account)
        return None if life is None else life + INDEX_LIFE

    def oldest(self, account: str) -> int:
        """The microsecond before which nothing is shown any more."""
        life = self.of(account)
        return max(0, int((self._now() - life) * MICROSECONDS)) if life else 0


class Writers:
    """What makes the rows of a message: its own, and those by which it is found."""

    def __init__(self, messages: Table, days: Table, months: Table, by_peer: Table) -> None:
        self.message = messages.writer(("owner", "month", "id", "peer", "stanza"))
        self.day = days.writer(("owner", "peer", "day"))
        self.month = months.writer(("owner", "month"))
        self.by_peer = by_peer.writer(("owner", "month", "peer", "id"))


class Month(NamedTuple):
    """What an archive has of one month: how much, and its ends."""

    month: int
    messages: int
    size: int
    first: bytes
    last: bytes


class Keeper:
    """Deletes what belongs to owners. `others` are tables of which an owner has one partition each."""

    def __init__(self, messages: Table, days: Table, months: Table, by_peer: Table, *others: Table) -> None:
        self._messages = messages
        self._by_peer = by_peer
        self._days = days
        self._months = months
        self._others = others

    async def months_of(self, owner: int) -> list[int]:
        """The months of which there may be messages, the oldest first."""
        return [row["month"] for row in (await self._months.scan(owner)).rows]

    async def month(self, owner: int, month: int) -> Month | None:
        """What there is of a month; None: nothing."""
        count, size, first, last = 0, 0, b"", b""
        async for rows in self._messages.stream(owner, month, columns=("id", "stanza")):
            first, last = first or rows[0][0], rows[-1][0]
            count += len(rows)
            size += sum([len(stanza) for _, stanza in rows])
        return Month(month, count, size, first, last) if count else None

    async def drop(self, owner: int, also: Iterable[int] = ()) -> None:
        """Delete all that belongs to an owner, of the months that its rows name and of these. What says where
        something is goes last, so that a repeat finds what an interruption left.
        """
        for month in {*await self.months_of(owner), *also}:
            await self._by_peer.delete(owner, month)
            await self._messages.delete(owner, month)
        for table in (*self._others, self._days, self._months):
            await table.delete(owner)

    async def count(self, owner: int, also: Iterable[int] = ()) -> dict[str, int]:
        """How many messages, days with a peer and months belong to an owner, of the same months as `drop`
        deletes.
        """
        months = {*await self.months_of(owner), *also}
        messages = days = 0
        for month in months:
            async for rows in self._messages.stream(owner, month, columns=("id",)):
                messages += len(rows)
        async for rows in self._days.stream(owner, columns=("day",)):
            days += len(rows)
        return {"messages": messages, "days": days, "months": len(months)}

    async def prune(self, owner: int, before: int) -> int:
        """Delete what is from before this microsecond; how many messages that were."""
        edge, deleted = bound(before), 0
        for month in await self.months_of(owner):
            if month > month_of(edge):
                break
            deleted += await self._prune_month(owner, month, edge)
            if month < month_of(edge):
                await self._by_peer.delete(owner, month)
                await self._messages.delete(owner, month)
                await self._prune_days(owner, edge)
                await self._months.delete(owner, month)
        await self._prune_days(owner, edge)
        return deleted

    async def _prune_month(self, owner: int, month: int, edge: bytes) -> int:
        deleted = 0
        has_peers = bool((await self._by_peer.scan_columns(owner, month, columns=("id",), first=1)).rows)
        async for rows in self._messages.stream(owner, month, columns=("id", "peer"), before=(edge,)):
            deleted += len(rows)
            if month == month_of(edge):
                old = [Delete((peer, id)) for id, peer in rows] if has_peers else []
                for start in range(0, len(old), DELETED_AT_ONCE):
                    await self._by_peer.batch(owner, month, writes=old[start : start + DELETED_AT_ONCE])
                await self._messages.batch(owner, month, writes=[Delete(rows[-1][:1], through=True)])
        return deleted

    async def _prune_days(self, owner: int, edge: bytes) -> None:
        async for rows in self._days.stream(owner, columns=("peer", "day")):
            old = [Delete((peer, day)) for peer, day in rows if day < day_of(edge)]
            for start in range(0, len(old), DELETED_AT_ONCE):
                await self._days.batch(owner, writes=old[start : start + DELETED_AT_ONCE])


class Numbers:
    """Many numbers of owners, eight bytes each."""

    def __init__(self, numbers: array[int]) -> None:
        self._numbers = array("q", sorted(numbers))

    def __contains__(self, number: int) -> bool:
        place = bisect_left(self._numbers, number)
        return place < len(self._numbers) and self._numbers[place] == number


async def everything(table: Table) -> AsyncIterator[Row]:
    """All rows of a table, with all others served between some and the next."""
    count = 0
    async for row in table.everything():
        yield row
        count += 1
        if count % READ_AT_ONCE == 0:
            await asyncio.sleep(0)


async def unknown(owners: Table, tables: Sequence[Table]) -> dict[int, set[int]]:
    """Owners of rows in these tables of whom nothing is known, each with the months of which there are rows:
    not before these rows are read, and not after, for an owner is there before what belongs to it.
    """
    known, found = await _all(owners), dict[int, set[int]]()
    for table in tables:
        async for row in everything(table):
            if row["owner"] not in known:
                months = found.setdefault(row["owner"], set())
                if "month" in row or "day" in row:
                    months.add(row["month"] if "month" in row else month_of_day(row["day"]))
    if found:
        known = await _all(owners)
    return {owner: months for owner, months in found.items() if owner not in known}


async def _all(owners: Table) -> Numbers:
    numbers = array("q")
    async for row in everything(owners):
        numbers.append(row["uid"])
    return Numbers(numbers)
