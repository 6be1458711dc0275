"""Archives that get very many messages a day. Each of theirs has a row by its peer, so that those with one of
many are found wherever they are; others have a row for each peer and day, and few messages between.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from xmppd.plugin import Person, Plugin, StoreError, Table, cluster_signal

from .filing import Filing
from .ids import DAY, LAST, MICROSECONDS, bound, day_of, month_of
from .preferences import ARCHIVE

MANY: Final = 2000
"""From how many messages a day on that one node writes."""
SOON: Final = 20 * MICROSECONDS
"""How much later each message has a row by its peer: by then all nodes know, or are given up."""
SAMPLED: Final = 7
"""Of so many writes those of one are counted, for as many."""
COUNTED: Final = 200_000
"""Of how many archives messages are counted."""

Begin = Callable[[str, int], object]


class Span(NamedTuple):
    """Between two bounds there may be messages with a peer. Of those of a `month` that `is_listed` each has a
    row by its peer, the others are on one day.
    """

    after: bytes
    before: bytes
    is_listed: bool = False
    month: int = 0


def spans_of(days: Sequence[int], since: bytes, after: bytes, before: bytes) -> list[Span]:
    """Where messages with a peer are between two bounds, the first span first: on these days, of which there
    is a row, and from `since` on (b"": never) by themselves. Days since then have a row where a node did not
    know that, or of before.
    """
    spans, at = list[Span](), since
    for day in sorted(days):
        start, end = bound(day * DAY), bound((day + 1) * DAY)
        if not since or start <= since:
            spans.append(Span(start, min(end, since) if since else end, month=month_of(start)))
            continue
        spans.append(Span(at, start, is_listed=True))
        spans.append(Span(start, end, month=month_of(start)))
        at = end
    if since:
        spans.append(Span(at, bound(LAST), is_listed=True))
    cut = (span._replace(after=max(span.after, after), before=min(span.before, before)) for span in spans)
    return [span for span in cut if span.after < span.before]


class Crowds:
    """Whose messages have a row by their peer from which id on (`since`); `begin` is told of an archive that
    gets so many, by account and owner.
    """

    def __init__(self, begin: Begin) -> None:
        self.since: dict[int, bytes] = {}
        self._begin = begin
        self._counts: dict[int, int] = {}
        self._day = 0
        self._writes = 0

    def wrote(self, filings: Sequence[Filing]) -> None:
        """Count messages that were written together, now and then."""
        self._writes += 1
        if self._writes % SAMPLED:
            return
        counts, day = self._counts, day_of(filings[0][0].id)
        if day > self._day or len(counts) > COUNTED:
            counts.clear()
            self._day = day
        for _, dialogue, _ in filings:
            for account, owner, _, _ in dialogue.folders:
                before = counts.get(owner, 0)
                counts[owner] = count = before + SAMPLED
                if count // MANY > before // MANY and owner not in self.since:
                    self._begin(account, owner)


class Crowded(Plugin):
    """Knows the archives that have rows by peer."""

    owners: Table

    by_peer = Table(
        partition=("owner", "month"),
        cluster=("peer", "id"),
        columns={"owner": "int", "month": "int", "id": "blob"},
        person=Person("owner", ARCHIVE, mentions={"peer": "kept"}),
    )

    async def start(self) -> None:
        """Of none is known that it has."""
        await super().start()
        self.crowds = Crowds(lambda account, owner: self.spawn(self._become_crowded(account, owner)))

    async def _become_crowded(self, account: str, owner: int) -> None:
        """Write rows by peer from soon on, and for good: it is tried again when as many more have come."""
        try:
            begin = self.server.ids.time.read() + SOON
            await self.owners.put_if({"account": account, "by_peer": begin}, {"uid": owner, "by_peer": None})
            row = await self.owners.get(account)
        except StoreError as error:
            self.log.warning("store-failed", extra={"kind": "archive", "error": str(error)})
            return
        if row is not None and row["uid"] == owner and row["by_peer"] is not None:
            self.crowd.tell(owner, row["by_peer"])

    @cluster_signal
    def crowd(self, owner: int, begin: int) -> None:
        """From that microsecond on each message of an archive has a row by its peer."""
        self.crowds.since[owner] = bound(begin)

    def note_crowd(self, row: Any) -> None:
        """The row of an owner was read."""
        if row["by_peer"] is not None:
            self.crowds.since[row["uid"]] = bound(row["by_peer"])

    def since(self, owner: int) -> bytes:
        """From which id on each message has a row by its peer; b"": never."""
        return self.crowds.since.get(owner, b"")
