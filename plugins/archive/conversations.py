"""The conversations of an account, the one with the newest message first, and what of them was not read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from xmppd import ns
from xmppd.plugin import Element, StanzaError, Table, escape_attribute

from .content import Said, said_in
from .ids import MICROSECONDS, at_of, bound, stamp_of, to_text
from .query import SET, id_of, moment_of, peer_of, size_of
from .reading import Archived
from .seeking import Seeker, head_of, in_turns, weight_of

QUERY: Final = f"{{{ns.CONVERSATIONS}}}query"
READ: Final = f"{{{ns.CONVERSATIONS}}}read"
MOST: Final = 2000
"""How many messages are gone through for a list,"""
WEIGHT: Final = 10_000
"""and when long ones count as several."""
UNREAD: Final = 99
"""How many unread messages are counted of a conversation."""
BYTES: Final = 128 * 1024
"""A page has no more conversations than have their last messages in so many bytes, but one."""

INNER: Final = f"<message xmlns='{ns.CLIENT}'".encode()


OWN: Final = "own"
OTHER: Final = "other"
"""Whose reading a row tells of: that of the archive's owner, or of who the conversation is with."""


class Shown(NamedTuple):
    """Up to which id a conversation was read by the owner of the archive, and by who it is with (b"": not
    known).
    """

    own: bytes = b""
    other: bytes = b""


UNSEEN: Final = Shown()


@dataclass(frozen=True, slots=True)
class ListQuery:
    """Conversations whose last message is of before the id `before` and not of before the id, or what ids of
    a moment begin with, `since` (each b"": no such bound); `size` at most. Only that with `peer` ("": all).
    """

    since: bytes
    before: bytes
    peer: str
    size: int


@dataclass(slots=True)
class Conversation:
    """What was found of one. `start` is how messages of the peer begin. `is_exact`: `unread` is how many
    messages there are that were not read; else there are that many, and perhaps more. `is_settled`: nothing
    older matters any more.
    """

    peer: str
    shown: Shown
    start: bytes
    last: Archived | None = None
    unread: int = 0
    is_exact: bool = False
    is_settled: bool = False

    def unread_attrs(self) -> dict[str, str]:
        """How many messages were not read, as it is told."""
        return {"unread": str(self.unread), **({} if self.is_exact else {"more": "true"})}


class Talk(NamedTuple):
    """A conversation as other plugins are told of it: whom it is with, when the last message came (seconds
    since the epoch), that message, and when that came up to which it was read (0.0: not known).
    """

    peer: str
    at: float
    stanza: bytes
    read: float


def talk_of(one: Conversation) -> Talk:
    """What others are told of a conversation on a page."""
    assert one.last is not None
    read = at_of(one.shown.own) / MICROSECONDS if one.shown.own else 0.0
    return Talk(one.peer, at_of(one.last.id) / MICROSECONDS, one.last.stanza, read)


class Walk:
    """Goes through the archive of an account from the newest message on, until a page is known. `weight` is
    through how many it went, long ones as several.
    """

    def __init__(self, account: str, query: ListQuery) -> None:
        self._account = account
        self._query = query
        self._own = _start_of(account)
        self._all: dict[str, Conversation] = {}
        self._open = 0
        self._bytes = 0
        self._size = query.size
        self._is_late = False
        self.examined = 0
        self.weight = 0
        self.page: list[Conversation] = []
        self.is_complete = True
        self.is_bounded = False

    def peers_in(self, rows: Sequence[Archived]) -> list[str]:
        """Those of them with whom nothing was seen yet: `take` is told how far these were read."""
        return list(dict.fromkeys(row.peer for row in rows if row.peer not in self._all))

    def take(self, rows: Iterable[Archived], shown: Mapping[str, Shown]) -> bool:
        """Look at the next ones; whether that is enough."""
        for row in rows:
            if self.examined == MOST or self.weight >= WEIGHT:
                self.is_bounded = True
                return True
            self.examined += 1
            self.weight += weight_of(row.stanza)
            if row.id < self._query.since:
                self._is_late = True
            if self._is_late and not self._open:
                return True
            one = self._all.get(row.peer)
            if one is None:
                seen = shown.get(row.peer, UNSEEN)
                one = self._all[row.peer] = Conversation(row.peer, seen, _start_of(row.peer))
            if not one.is_settled and self._look(one, row):
                return True
            if one.is_settled and self._query.peer:
                return True
        return False

    def end(self) -> None:
        """All that there is was looked at."""
        for one in self.page:
            one.is_exact = one.is_exact or not one.is_settled

    def _look(self, one: Conversation, row: Archived) -> bool:
        """At one message; whether the page is full and all is known of it."""
        if one.last is not None and row.id <= one.shown.own:
            one.is_exact = True
            return self._settle(one)
        said = said_in(row.stanza)
        if said is Said.NOTHING:
            return False
        if one.last is None:
            if not self._is_listed(one, row):
                one.is_settled = True
                return not self.is_complete and not self._open
            if row.id <= one.shown.own:
                one.is_exact = True
                return self._settle(one)
        if said is Said.NEW and not self._is_own(one, row):
            if one.unread == UNREAD:
                return self._settle(one)
            one.unread += 1
        return False

    def _is_listed(self, one: Conversation, row: Archived) -> bool:
        """Put a conversation on the page, of which this is the last message, if it is for this page."""
        before = self._query.before
        if self._is_late or (before and row.id >= before):
            return False
        if len(self.page) == self._size or (self.page and self._bytes > BYTES):
            self.is_complete = False
            self._size = len(self.page)
            return False
        one.last = row
        self._bytes += len(row.stanza)
        self._open += 1
        self.page.append(one)
        return True

    def _settle(self, one: Conversation) -> bool:
        one.is_settled = True
        self._open -= 1
        return not self.is_complete and not self._open

    def _is_own(self, one: Conversation, row: Archived) -> bool:
        """Whether the owner wrote a message."""
        if row.peer == self._account or row.stanza.startswith(self._own):
            return True
        if row.stanza.startswith(one.start):
            return False
        return head_of(row.stanza).get("from", "").partition("/")[0] == self._account


class Lists:
    """Makes lists of the conversations in the archive of one owner; `shown` is the table of who has read how
    far.
    """

    def __init__(self, seeker: Seeker, shown: Table, owner: int) -> None:
        self._seeker = seeker
        self._shown = shown
        self._owner = owner

    async def page(self, account: str, query: ListQuery, after: bytes, before: bytes) -> Walk:
        """What was asked for by the account that the archive is of, of what is between two ids."""
        walk = Walk(account, query)
        async for rows in self._seeker.newest(query.peer, after, before):
            shown = await self._read_up_to(walk.peers_in(rows))
            for piece in in_turns(rows):
                if walk.take(piece, shown):
                    return walk
                await asyncio.sleep(0)
        walk.end()
        return walk

    async def _read_up_to(self, peers: Sequence[str]) -> Mapping[str, Shown]:
        found: dict[str, dict[str, bytes]] = {}
        if peers:
            for row in await self._shown.get_rows(self._owner, keys=[(peer,) for peer in peers]):
                found.setdefault(row["peer"], {})[row["side"]] = row["id"]
        return {peer: Shown(ids.get(OWN, b""), ids.get(OTHER, b"")) for peer, ids in found.items()}


def _start_of(account: str) -> bytes:
    """How what sessions of an account send begins."""
    return f"<message from='{escape_attribute(account)}/".encode()


def list_query_of(payload: Element, size: int, most: int) -> ListQuery:
    """What is asked for, `size` conversations where that is not said, `most` in any case.

    StanzaError bad-request, jid-malformed, item-not-found, feature-not-implemented.
    """
    since, before = payload.get("since", ""), b""
    if (page := payload.find(SET)) is not None:
        for name in ("index", "before"):
            if page.find(f"{{{ns.RSM}}}{name}") is not None:
                raise StanzaError("feature-not-implemented", "Conversations are listed from the newest on.")
        size = size_of(page, size)
        if text := page.findtext(f"{{{ns.RSM}}}after", ""):
            before = id_of(text)
    return ListQuery(
        since=bound(moment_of(since, "since", 0)) if since else b"",
        before=before,
        peer=peer_of(payload.get("with", ""))[0],
        size=min(size, most),
    )


def listed(account: str, walk: Walk) -> bytes:
    """A page of conversations as it is sent."""
    ended = " complete='true'" if walk.is_complete else ""
    ended += " more='true'" if walk.is_bounded else ""
    parts = [f"<query xmlns='{ns.CONVERSATIONS}'{ended}>".encode()]
    for one in walk.page:
        assert one.last is not None
        about = {"with": escape_attribute(one.peer), "id": to_text(one.last.id), **one.unread_attrs()}
        attrs = "".join(f" {name}='{value}'" for name, value in about.items())
        parts += (
            f"<conversation{attrs}>".encode(),
            read_mark(account, one.shown.own),
            read_mark(one.peer, one.shown.other) if one.peer != account else b"",
            f"<forwarded xmlns='{ns.FORWARD}'><delay xmlns='{ns.DELAY}'"
            f" stamp='{stamp_of(one.last.id)}'/>".encode(),
            INNER,
            one.last.stanza[len("<message") :],
            b"</forwarded></conversation>",
        )
    ends = ""
    if walk.page:
        first, last = (to_text(one.last.id) for one in (walk.page[0], walk.page[-1]) if one.last is not None)
        ends = f"<first>{first}</first><last>{last}</last>"
    parts.append(f"<set xmlns='{ns.RSM}'>{ends}</set></query>".encode())
    return b"".join(parts)


def read_mark(by: str, id: bytes) -> bytes:
    """Up to which message somebody has read; nothing where that is not known."""
    if not id:
        return b""
    return f"<read by='{escape_attribute(by)}' id='{to_text(id)}' stamp='{stamp_of(id)}'/>".encode()
