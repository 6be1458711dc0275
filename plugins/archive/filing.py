"""How messages come into archives: those of one turn of the loop are written together, and if that fails each
is written by itself.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from xmppd.plugin import Lru, Prepared, StoreTimeout, StoreUnavailable, Table

from .ids import DAY, bound, day_of, month_of_day
from .keeping import Lives, Writers
from .under_way import Entry

DAYS: Final = 200_000
"""Of how many days and peers it is remembered that they are noted; to note one twice is harmless."""
AT_ONCE: Final = 64
BYTES_AT_ONCE: Final = 262_144
"""How many messages are written together, and about how many bytes of them: the store does such a piece of
work at a stretch.
"""
TRIES: Final = 20
"""How often a write whose outcome is unknown is made again."""

Day = tuple[int, str, int]
"""The number of an archive's owner, a peer, and a day on which there is anything with him."""


class Folder(NamedTuple):
    """What the archive of `account`, whose number is `owner`, has with a `peer` (a bare JID). Messages there
    live for `life` seconds (None: for ever).
    """

    account: str
    owner: int
    peer: str
    life: float | None


class Dialogue:
    """What one account says to the other, the `receiver`, and where that is kept: in the `folders` of these
    `accounts`, the sender's first. `is_sent`: there is one of a sender who is somebody else. `named`: what
    the id begins with that the receiver is told, b"" where he keeps nothing. Of a day it is noted that there
    is anything: its ids are from `begins` on and before `ends`, and in this `month`. All is so as long as
    there were no more `changes` to archives.
    """

    __slots__ = ("accounts", "begins", "changes", "ends", "folders", "is_sent", "month", "named", "receiver")

    def __init__(
        self,
        receiver: str,
        folders: Sequence[Folder],
        accounts: Sequence[str],
        *,
        is_sent: bool,
        named: bytes,
        changes: int,
    ) -> None:
        self.receiver = receiver
        self.folders = folders
        self.accounts = accounts
        self.is_sent = is_sent
        self.named = named
        self.changes = changes
        self.begins = self.ends = b""
        self.month = 0

    def note(self, day: int) -> None:
        """There is something of that day."""
        self.begins, self.ends = bound(day * DAY), bound((day + 1) * DAY)
        self.month = month_of_day(day)


Filing = tuple[Entry, Dialogue, bytes]
"""A message that is to be written by the id of its entry, and what is to be written."""


class Writes(NamedTuple):
    """Rows by the seconds that they live, those first by which others are found; how many are messages; the
    days that are noted by these, and of which dialogues.
    """

    rows: Mapping[float | None, Sequence[Prepared]]
    count: int
    days: Sequence[Day]
    noted: Sequence[tuple[Dialogue, int]]


class Filer:
    """Writes messages, and tells their entries. `pause` waits a while before a write is made again; `spawn`
    begins a task; `count` is told of how many archives got one, `wrote` of what was written together. From an
    id of `since` on messages of an owner have a row by their peer.
    """

    def __init__(
        self,
        table: Table,
        writers: Writers,
        lives: Lives,
        *,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        pause: Callable[[], Awaitable[None]],
        count: Callable[[int], None],
        since: Mapping[int, bytes],
        wrote: Callable[[Sequence[Filing]], None],
    ) -> None:
        self._table = table
        self._writers = writers
        self._lives = lives
        self._spawn = spawn
        self._pause = pause
        self._count = count
        self._since = since
        self._told = wrote
        self._noted: Lru[Day, bool] = Lru(DAYS)
        self._filings: list[Filing] = []
        self._size = 0

    def file(self, filing: Filing) -> None:
        """Have a message written at the end of this turn of the loop."""
        filings = self._filings
        if not filings:
            asyncio.get_running_loop().call_soon(self._write)
        filings.append(filing)
        size = self._size = self._size + filing[0].size
        if size >= BYTES_AT_ONCE or len(filings) >= AT_ONCE:
            self._write()

    def _write(self) -> None:
        filings, self._filings, self._size = self._filings, [], 0
        if not filings:
            return  # there were so many that they did not wait for the end of the turn
        try:
            writes = self._writes(filings)
            if len(writes.rows) > 1:
                self._spawn(self._write_in_turn(filings, writes))
                return
            [(life, rows)] = writes.rows.items()
            writing = self._table.write(rows, ttl=life)
        except Exception as error:  # noqa: BLE001 - their senders are told in their turn
            self._failed(filings, error)
        else:
            writing.add_done_callback(partial(self._wrote, filings, writes))

    def _writes(self, filings: Iterable[Filing]) -> Writes:
        """The rows of messages: their own, and those of the day and the month where these are not noted."""
        index: dict[float | None, dict[tuple[object, ...], Prepared]] = {}
        messages: dict[float | None, list[tuple[int, int, bytes, str, bytes]]] = defaultdict(list)
        days: list[Day] = []
        noted: list[tuple[Dialogue, int]] = []
        for entry, dialogue, raw in filings:
            id = entry.id
            if dialogue.begins <= id < dialogue.ends:
                month = dialogue.month
            else:
                day = day_of(id)
                month = month_of_day(day)
                days += self._index(index, dialogue, id, day, month)
                if not (self._since and any(folder.owner in self._since for folder in dialogue.folders)):
                    noted.append((dialogue, day))
            for _, owner, peer, life in dialogue.folders:
                messages[life].append((owner, month, id, peer, raw))
        rows = {life: [*found.values()] for life, found in index.items()}
        for life, some in messages.items():
            if self._since and (listed := [*self._listed(some)]):
                rows.setdefault(life, []).append(self._writers.by_peer.rows(listed))
            rows.setdefault(life, []).append(self._writers.message.rows(some))
        return Writes(rows, sum(map(len, messages.values())), days, noted)

    def _index(
        self,
        index: dict[float | None, dict[tuple[object, ...], Prepared]],
        dialogue: Dialogue,
        id: bytes,
        day: int,
        month: int,
    ) -> Iterable[Day]:
        """Add the rows by which messages of a day are found; the days that are noted by them. Where a message
        has a row by its peer there is none for the day: who knows of none does not look at all of it.
        """
        for account, owner, peer, _ in dialogue.folders:
            if (since := self._since.get(owner)) is not None and id >= since:
                if self._noted.get((owner, "", month)) is None:
                    index.setdefault(None, {})[owner, month] = self._writers.month.row(owner, month)
                    yield owner, "", month
            elif self._noted.get((owner, peer, day)) is None:
                index.setdefault(None, {})[owner, month] = self._writers.month.row(owner, month)
                days = index.setdefault(self._lives.index_of(account), {})
                days[owner, peer, day] = self._writers.day.row(owner, peer, day)
                yield owner, peer, day

    def _listed(
        self, messages: Sequence[tuple[int, int, bytes, str, bytes]]
    ) -> Iterator[tuple[int, int, str, bytes]]:
        """The rows by peer of those of these messages that have any."""
        for owner, month, id, peer, _ in messages:
            if (since := self._since.get(owner)) is not None and id >= since:
                yield owner, month, peer, id

    def _wrote(self, filings: Sequence[Filing], writes: Writes, writing: asyncio.Future[Any]) -> None:
        if writing.cancelled():
            self._failed(filings, unknown())
        elif (error := writing.exception()) is not None:
            self._failed(filings, error)
        else:
            self._done(filings, writes)

    async def _write_in_turn(self, filings: Sequence[Filing], writes: Writes) -> None:
        """Write rows that live for different times: what others are found by is there before them."""
        try:
            for life, rows in writes.rows.items():
                await self._table.write(rows, ttl=life)
        except Exception as error:  # noqa: BLE001 - their senders are told in their turn
            self._failed(filings, error)
        except BaseException:
            for entry, _, _ in filings:
                entry.written(unknown())
            raise
        else:
            self._done(filings, writes)

    def _done(self, filings: Sequence[Filing], writes: Writes) -> None:
        for day_with_peer in writes.days:
            self._noted.put(day_with_peer, True)
        for dialogue, day in writes.noted:
            dialogue.note(day)
        self._count(writes.count)
        self._told(filings)
        for entry, _, _ in filings:
            entry.written()

    def _failed(self, filings: Sequence[Filing], error: BaseException) -> None:
        """Nothing was written; or nobody knows, or it is not all of them that the store refuses."""
        is_told = isinstance(error, StoreUnavailable) or (
            len(filings) == 1 and not isinstance(error, StoreTimeout)
        )
        for filing in filings:
            if is_told:
                filing[0].written(error)
            else:
                self._spawn(self._write_surely(filing))

    async def _write_surely(self, filing: Filing) -> None:
        """Write one until it is known that it is written, for its rows are the same each time."""
        entry = filing[0]
        try:
            for _ in range(TRIES):
                writes = self._writes([filing])
                try:
                    for life, rows in writes.rows.items():
                        await self._table.write(rows, ttl=life)
                    break
                except StoreTimeout:
                    await self._pause()
            else:
                entry.written(unknown())
                return
        except BaseException as failure:
            entry.written(failure if isinstance(failure, Exception) else unknown())
            if not isinstance(failure, Exception):
                raise
        else:
            self._done([filing], writes)


def unknown() -> StoreTimeout:
    """What became of a write that nobody can tell."""
    return StoreTimeout("nobody knows whether the message was archived")
