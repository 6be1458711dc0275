"""Pages of an archive, read month by month in the direction that was asked for; nothing is ever counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from functools import partial
from itertools import groupby, repeat
from typing import Any, Final, NamedTuple

from xmppd.plugin import Stanza, StanzaError, Table

from .crowds import Span, spans_of
from .ids import DAY, LAST, bound, day_of, month_of
from .query import Query

DAYS_AT_ONCE: Final = 16
"""Of how many days messages with one peer are looked for side by side, at most."""
EXAMINED: Final = 1000
"""How many messages of a day are looked at in one request for those with one peer."""
SIFTED: Final = 50
SIFTED_AT_ONCE: Final = 200
"""How many messages with a peer are read at once, at first and at most, when only those with a full JID are
wanted.
"""
LOOKED_AT: Final = 5000
"""How many of them are looked at for one page, long ones as several."""
LOOKED_THROUGH: Final = 20_000
"""After how many of others a page with a peer ends early, if it has any: it is 5 ms until then."""
LARGE: Final = 1024
"""Bytes of a message that count as one more message."""
PIECE: Final = 1 << 18
"""Bytes that messages may have which are read at once, where more than a page of them may be needed."""
TURN: Final = 16_384
"""Bytes of messages that are looked at in one turn of the loop."""


_BEGIN: Final = bound(0)
_END: Final = bound(LAST)


Row = tuple[Any, ...]
"""Some columns of an archived message: the id is the first of them, the stanza the last."""


class Archived(NamedTuple):
    """One message of an archive."""

    id: bytes
    peer: str
    stanza: bytes


class Page(NamedTuple):
    """Messages in the order of time, without their peers if it is one with anybody, and whether there are no
    more of those that were asked for. `looked_at`: the first and the last id of what was looked at, where
    that was more than what was found.
    """

    messages: Sequence[Row]
    is_complete: bool
    looked_at: tuple[bytes, ...] = ()

    @property
    def ends(self) -> tuple[bytes, ...]:
        """From where on, in either direction, the next page is; nothing for an empty one."""
        found = self.messages
        return self.looked_at or ((found[0][0], found[-1][0]) if found else ())


class Reader:
    """Reads the archive of one owner from the tables of all."""

    def __init__(
        self,
        log: Table,
        days: Table,
        months: Table,
        owner: int,
        by_peer: Table | None = None,
        since: bytes = b"",
    ) -> None:
        """From the id `since` on each message has a row in `by_peer` (b"": none has)."""
        self._log = log
        self._by_peer = by_peer
        self._since = since
        self._days = days
        self._months = months
        self._owner = owner
        self._looked = 0

    async def page(self, query: Query, oldest: int, horizon: bytes, newest: bytes = b"") -> Page:
        """What was asked for: nothing of before the microsecond `oldest`, nor from `horizon` on (b"": no such
        bound). No id is as large as `newest` (b"": nobody knows). StanzaError item-not-found when an id that
        has to be there is not.
        """
        if query.ids is not None:
            return Page(await self._all_of(query.ids, oldest), is_complete=True)
        after, before = between(query, oldest, horizon)
        if not query.peer:
            return await self._page(after, before, query, oldest, newest)
        await self._check(query.named, oldest)
        self._looked = 0
        if query.address:
            async with aclosing(self._with(after, before, query)) as pieces:
                is_wanted = partial(is_with, address=query.address)
                return await sifted(pieces, query, is_wanted, enough=query.size + 1, most=LOOKED_AT)
        found: list[Archived] = []
        async with aclosing(self._with(after, before, query)) as pieces:
            async for some in pieces:
                found += some
                if len(found) > query.size or (found and self._looked >= LOOKED_THROUGH):
                    return _cut(found, query)
        return Page(_in_order(found, query), is_complete=True)

    async def _page(self, after: bytes, before: bytes, query: Query, oldest: int, newest: bytes) -> Page:
        """Messages with anybody between two bounds. The month in which they begin is read before it is looked
        up which have any: nearly always it is enough. An id that has to be there and is the bound is read
        with what is behind it.
        """
        reverse, size = query.reverse, query.size
        edge = before if reverse else after
        is_read = edge in query.named and after < before
        await self._check([id for id in query.named if id != edge or not is_read], oldest)
        if after >= before:
            return Page([], is_complete=True)
        until = min(before, newest) if newest else before
        first, last = month_of(after), month_of(until)
        if reverse:
            first, last = month_of(edge) if is_read else last, first
        is_known = after > _BEGIN if not reverse else until < _END
        months = [first] if is_known else await self._months_of(after, before, reverse=reverse)
        found = list[Row]()
        while months:
            for month in months:
                some, is_more = await self._some_of(
                    month,
                    after,
                    before,
                    max(size - len(found), 1),
                    reverse=reverse,
                    named=edge if is_read else b"",
                )
                is_read = False
                found += some
                if is_more or len(found) > size:
                    return _cut(found, query)
            if not is_known or first == last:
                break
            is_known = False
            months = [m for m in await self._months_of(after, before, reverse=reverse) if m != first]
        return Page(_in_order(found, query), is_complete=True)

    async def _some_of(
        self, month: int, after: bytes, before: bytes, size: int, *, reverse: bool, named: bytes
    ) -> tuple[list[Row], bool]:
        """The first messages of a month between two bounds, `size` at most, and whether there are more. The
        bound that is `named` has to be there (b"": neither).
        """
        ends: dict[str, tuple[bytes]] = {"after": (after,), "before": (before,)}
        if named:
            del ends["before" if reverse else "after"]
            ends["end" if reverse else "start"] = (named,)
        page = await self._log.scan_columns(
            self._owner,
            month,
            columns=("id", "stanza"),
            first=size + 2 if named else size + 1,
            reverse=reverse,
            **ends,
        )
        found: list[Row] = page.rows
        if named:
            if not found or found[0][0] != named:
                raise _missing()
            del found[0]
        is_more = len(found) > size
        return found[:size], is_more

    async def ends(self, oldest: int, horizon: bytes) -> tuple[bytes, bytes] | None:
        """The ids of the first and the last message; None of an empty archive."""
        after, before = bound(oldest), horizon or bound(LAST)
        months = await self._months_of(after, before, reverse=False)
        first = await self._end(months, after, before, reverse=False)
        last = await self._end(months[::-1], after, before, reverse=True) if first else None
        return (first, last) if first and last else None

    async def _end(
        self, months: Sequence[int], after: bytes, before: bytes, *, reverse: bool
    ) -> bytes | None:
        """The id of the first message between two bounds in the first of these months that has one."""
        for month in months:
            page = await self._log.scan_columns(
                self._owner,
                month,
                columns=("id",),
                after=(after,),
                before=(before,),
                first=1,
                reverse=reverse,
            )
            for (id,) in page.rows:
                found: bytes = id
                return found
        return None

    async def _by_months(
        self, after: bytes, before: bytes, size: int, *, reverse: bool, most: int
    ) -> AsyncIterator[list[Archived]]:
        """All messages, read in pieces of `size`, each larger than the one before up to `most`."""
        for month in await self._months_of(after, before, reverse=reverse):
            token: bytes | None = None
            while True:
                page = await self._log.scan_columns(
                    self._owner,
                    month,
                    columns=Archived._fields,
                    after=(after,),
                    before=(before,),
                    limit=size,
                    reverse=reverse,
                    page=token,
                )
                found = archived(page.rows)
                size = next_size(size, most, found)
                yield found
                if (token := page.next) is None:
                    break

    async def _months_of(self, after: bytes, before: bytes, *, reverse: bool) -> list[int]:
        """The months between two bounds that have any message."""
        page = await self._months.scan(
            self._owner, start=(month_of(after),), end=(month_of(before),), reverse=reverse
        )
        return [row["month"] for row in page.rows]

    async def _days_of(
        self, peer: str, after: bytes, before: bytes, *, reverse: bool, limit: int | None = None
    ) -> list[int]:
        """The days between two bounds on which there are messages with a peer, `limit` at most."""
        first, last = (peer, day_of(after)), (peer, day_of(before))
        page = await self._days.scan(self._owner, start=first, end=last, limit=limit, reverse=reverse)
        return [row["day"] for row in page.rows]

    async def _spans(
        self, peer: str, after: bytes, before: bytes, *, reverse: bool, limit: int | None = None
    ) -> tuple[list[Span], bytes]:
        """Where messages with a peer are between two bounds, in the direction walked. Who walks backward may
        have `limit` days at most, and is told before which id others may be (b"": there are none).
        """
        days = await self._days_of(peer, after, before, reverse=reverse, limit=limit)
        rest = bound(days[-1] * DAY) if limit is not None and len(days) == limit else b""
        spans = list[Span]()
        for span in spans_of(days, self._since, max(after, rest), before):
            if not span.is_listed:
                spans.append(span)
                continue
            for month in await self._months_of(span.after, span.before, reverse=False):
                spans.append(span._replace(month=month))
        return spans[::-1] if reverse else spans, rest if rest > after else b""

    async def _with(self, after: bytes, before: bytes, query: Query) -> AsyncGenerator[list[Archived], None]:
        """Those with one peer: by the days on which there are any, or by their own rows. Of ever more days
        the first messages are read at once, which are no more than two pages together.
        """
        peer, reverse, count = query.peer, query.reverse, 2
        spans, _ = await self._spans(peer, after, before, reverse=reverse)
        size = max(query.size + 1, SIFTED if query.address else 1)
        while spans:
            some, spans = spans[:count], spans[count:]
            count = min(2 * count, DAYS_AT_ONCE)
            share = min(size, -(-2 * size // len(some)))
            begun = await asyncio.gather(*(self._piece(span, peer, share, reverse=reverse) for span in some))
            for span, (found, token) in zip(some, begun, strict=True):
                yield found
                more = size
                while token is not None:
                    await asyncio.sleep(0)
                    more = next_size(more, SIFTED_AT_ONCE, found) if query.address else size
                    found, token = await self._piece(span, peer, more, reverse=reverse, token=token)
                    yield found

    async def _all_in(
        self, span: Span, peer: str, size: int, *, reverse: bool, most: int = 0
    ) -> AsyncIterator[list[Archived]]:
        """All with a peer in a span, in pieces of `size`, or each larger than the last, up to `most`."""
        token: bytes | None = None
        while True:
            found, token = await self._piece(span, peer, size, reverse=reverse, token=token)
            size = next_size(size, most, found) if most else size
            yield found
            if token is None:
                break

    async def _piece(
        self, span: Span, peer: str, size: int, *, reverse: bool, token: bytes | None = None
    ) -> tuple[list[Archived], bytes | None]:
        """Some with a peer in a span, `size` at most, and where they go on; None: there are no more."""
        if span.is_listed:
            return await self._listed(span, peer, size, reverse=reverse, token=token)
        page = await self._log.scan_columns(
            self._owner,
            span.month,
            columns=Archived._fields,
            after=(span.after,),
            before=(span.before,),
            match={"peer": peer},
            examine=EXAMINED,
            limit=size,
            reverse=reverse,
            page=token,
        )
        is_full = len(page.rows) == size
        self._looked += EXAMINED if page.next is not None and not is_full else len(page.rows)
        return archived(page.rows), page.next

    async def _listed(
        self, span: Span, peer: str, size: int, *, reverse: bool, token: bytes | None
    ) -> tuple[list[Archived], bytes | None]:
        """The same where each message has a row by its peer."""
        assert self._by_peer is not None
        page = await self._by_peer.scan_columns(
            self._owner,
            span.month,
            columns=("id",),
            after=(peer, span.after),
            before=(peer, span.before),
            limit=size,
            reverse=reverse,
            page=token,
        )
        found = await self.found([id for (id,) in page.rows])
        return found[::-1] if reverse else found, page.next

    async def _all_of(self, ids: Sequence[bytes], oldest: int) -> list[Archived]:
        """The messages of these ids in the order of time; item-not-found when one is missing, or from before
        the microsecond `oldest`.
        """
        if any(id < bound(oldest) for id in ids):
            raise StanzaError("item-not-found", "There is no message of this id any more.")
        found = await self.found(ids)
        if len(found) < len(ids):
            raise _missing()
        return found

    async def _check(self, ids: Sequence[bytes], oldest: int) -> None:
        """item-not-found when a message of one of these ids is not there."""
        if ids:
            await self._all_of(ids, oldest)

    async def found(self, ids: Sequence[bytes]) -> list[Archived]:
        """Those of the messages of these ids that are there, in the order of time."""
        found: list[Archived] = []
        for month, some in _by_month(ids):
            rows = await self._log.get_rows(self._owner, month, keys=[(id,) for id in some])
            found += [Archived(row["id"], row["peer"], row["stanza"]) for row in rows]
        return found


def archived(rows: Sequence[Row]) -> list[Archived]:
    """Rows of the columns of an archived message."""
    return list(map(tuple.__new__, repeat(Archived), rows))


async def sifted(
    pieces: AsyncIterator[list[Archived]],
    query: Query,
    is_wanted: Callable[[Archived], bool],
    *,
    enough: int,
    most: int,
    is_over: Callable[[], bool] = lambda: False,
) -> Page:
    """The page of those that are wanted. When there are `enough`, when about `most` were looked at, long ones
    as several, or when it `is_over`, it ends with the last that was looked at, be it wanted or not: who asks
    for what is behind it goes on there. One that has more than a page ends with that.
    """
    found, looked = list[Archived](), 0
    async for piece in pieces:
        for message in piece:
            if is_wanted(message):
                found.append(message)
            if len(found) > query.size:
                return _cut(found, query)
            most -= weight_of(message.stanza)
            if len(found) == enough or most <= 0 or is_over():
                return _until(message, found, query)
            looked += len(message.stanza)
            if looked >= TURN:
                looked = 0
                await asyncio.sleep(0)
    return Page(_in_order(found, query), is_complete=True)


def between(query: Query, oldest: int, horizon: bytes) -> tuple[bytes, bytes]:
    """The bounds of what was asked for."""
    before = min((b for b in (query.before, horizon) if b), default=_END)
    return max(query.after, bound(oldest)), before


def _missing() -> StanzaError:
    return StanzaError("item-not-found", "There is no message of this id here.")


def _cut(found: Sequence[Row], query: Query) -> Page:
    """The page where there are more than these, or these are more."""
    return Page(_in_order(found[: query.size], query), is_complete=False)


def _until(last: Archived, found: list[Archived], query: Query) -> Page:
    """The page that ends with the last message that was looked at."""
    first = found[0].id if found else last.id
    ends = (last.id, first) if query.reverse else (first, last.id)
    return Page(_in_order(found, query), is_complete=False, looked_at=ends)


def weight_of(stanza: bytes) -> int:
    """As how many messages one counts that is gone through."""
    return 1 + len(stanza) // LARGE


def is_with(message: Archived, address: str) -> bool:
    """Whether a message is from or to a full JID ("": anybody)."""
    if not address:
        return True
    if address.encode() not in message.stanza and b"&" not in message.stanza:
        return False
    attrs = Stanza("message", {}, message.stanza).xml
    return address in (attrs.get("from"), attrs.get("to"))


def next_size(size: int, most: int, found: Sequence[Archived]) -> int:
    """How many messages to read after `size` of which these came: twice as many, `most` at most, and no more
    than may be read at once.
    """
    read = sum([len(message.stanza) for message in found])
    return max(1, min(2 * size, most, PIECE * len(found) // read if read else most))


def _by_month(ids: Sequence[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    for month, some in groupby(sorted(ids), month_of):
        yield month, list(some)


def _in_order(found: Sequence[Row], query: Query) -> Sequence[Row]:
    return found[::-1] if query.reverse else found
