"""Where rows of a log lie that is written by the hour: in one partition for each hour, and, of hours in which
very much happens, in one for each minute besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from xmppd.store.table import Row, Store, Table

OWN: Final = 5_000
"""Rows that a process writes into the partition of an hour; what comes then goes into those of minutes."""
END: Final = "-~"
"""How the id of a mark ends, which says that there is a partition of that minute: behind all others of it."""
HOUR: Final = "%Y-%m-%dT%H"
MINUTE: Final = "%Y-%m-%dT%H:%M"


class Hours:
    """Rows of a table whose partition is `hour`, with a descending clustering column `id` that `id_of` makes.
    `blank` has what else a row must have that is none.
    """

    def __init__(self, store: Store, table: Table, blank: Row) -> None:
        self._store = store
        self._table = table
        self._blank = blank
        self._hour = ""
        self._count = 0
        self._marked = ""

    def place(self, moment: float) -> str:
        """The partition of one more row, of a moment in seconds since the epoch."""
        hour = text_of(moment, HOUR)
        if hour != self._hour:
            self._hour, self._count = hour, 0
        self._count += 1
        return hour if self._count <= OWN else text_of(moment, MINUTE)

    async def mark(self, place: str, ttl: float) -> None:
        """Before a row is written there: have it found by who reads the hour. StoreError."""
        if ":" not in place or place == self._marked:
            return
        hour, _, _ = place.partition(":")
        await self._store.put(self._table, {**self._blank, "hour": hour, "id": mark_of(place)}, ttl=ttl)
        self._marked = place

    async def newest(self, hour: str, before: str, limit: int) -> tuple[Sequence[Row], str]:
        """The newest rows of an hour, older than an id ("": all), and the id before which to go on; "" when
        there are no more. StoreError.
        """
        chunk = await self._scan(hour, before, limit)
        low = chunk[-1]["id"] if len(chunk) == limit else ""
        found = [row for row in chunk if not row["id"].endswith(END)]
        minutes = [minute_of(row["id"]) for row in chunk if row["id"].endswith(END)]
        if before and await self._has_more(hour, minute_of(before)):
            minutes.insert(0, minute_of(before))
        for minute in minutes:
            some = await self._scan(minute, before, limit)
            found += some
            if len(some) == limit:
                low = max(low, some[-1]["id"])
            begin = f"{moment_of(minute):017d}"
            if sum(row["id"] >= begin for row in found) >= limit:
                low = max(low, begin)
                break
        found = sorted((row for row in found if row["id"] >= low), key=_id, reverse=True)
        return (found, low) if len(found) <= limit else (found[:limit], found[limit - 1]["id"])

    async def _scan(self, place: str, before: str, limit: int) -> Sequence[Row]:
        end = (before,) if before else None
        return (await self._store.scan(self._table, (place,), before=end, limit=limit)).rows

    async def _has_more(self, hour: str, minute: str) -> bool:
        return await self._store.get(self._table, (hour, mark_of(minute))) is not None


def text_of(moment: float, form: str) -> str:
    """The hour or the minute of a moment, UTC."""
    return datetime.fromtimestamp(moment, UTC).strftime(form)


def id_of(moment: float, random: str) -> str:
    """The id of a row: its microsecond, and some letters."""
    return f"{int(moment * 1_000_000):017d}-{random}"


def minute_of(id: str) -> str:
    """The minute in which a row with this id was made."""
    return text_of(int(id[:17]) / 1_000_000, MINUTE)


def moment_of(minute: str) -> int:
    """The microsecond at which a minute begins."""
    return int(datetime.fromisoformat(f"{minute}:00+00:00").timestamp()) * 1_000_000


def mark_of(minute: str) -> str:
    return f"{moment_of(minute) + 59_999_999:017d}{END}"


def _id(row: Row) -> Any:
    return row["id"]
