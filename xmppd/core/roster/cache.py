"""The rosters kept in memory: whole, read-only, small."""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from xmppd.core.roster.item import SEPARATOR, RosterItem, flags_of
from xmppd.core.roster.shelf import EMPTY, Shelf, ShelfBuilder
from xmppd.store.table import Row
from xmppd.xml.roster import count_asking, parsed_item, roster_item


class UnknownItem(Exception):
    """What is in memory does not tell how an item is: the store has to be asked."""


_WEIGHT = 500
"""Bytes of a cached roster without its contents: the object, its shelf, the tuples, its place in the
cache.
"""

_BLOCK_WEIGHT = 100
"""Bytes of a block beside its contents."""


@dataclass(frozen=True, slots=True)
class Roster:
    """One account's roster at one version: who sees whom, and the items packed for the wire.

    `followers` see the account's presence, and the account sees that of `following`; both are sorted.
    `requests` are the subscription requests that wait for an answer, with their whole stanzas. `shelf`
    has the items; there are no item objects, they would take three times the memory.
    """

    account: str
    version: int
    followers: tuple[str, ...] = ()
    following: tuple[str, ...] = ()
    requests: tuple[tuple[str, bytes], ...] = ()
    shelf: Shelf = EMPTY

    @property
    def packed(self) -> bytes:
        """Every item that is not hidden, as XML."""
        return self.shelf.packed

    def is_follower(self, contact: str) -> bool:
        """Whether the contact sees the account's presence."""
        names = self.followers
        index = bisect_left(names, contact)  # `_has`, in the loops of those who are shown
        return index < len(names) and names[index] == contact

    def is_following(self, contact: str) -> bool:
        """Whether the account sees the contact's presence."""
        return _has(self.following, contact)

    def is_asked_by(self, contact: str) -> bool:
        """Whether a request of that contact waits for an answer."""
        return any(contact == asker for asker, _ in self.requests)

    @property
    def size(self) -> int:
        """The number of items that are not hidden."""
        return self.shelf.count

    @property
    def length(self) -> int:
        """The bytes of these items as XML."""
        return self.shelf.length

    @property
    def asking(self) -> int:
        """The number of contacts whom the account asks for more than it sees: what people wrote may add to
        it, and nothing takes from it.
        """
        return count_asking(self.shelf.packed)

    @property
    def weight(self) -> int:
        """About how many bytes of memory it takes; contacts are interned and not counted."""
        pointers = len(self.followers) + len(self.requests) * 10
        if self.following is not self.followers:
            pointers += len(self.following)
        items = sum(map(len, self.shelf.blocks)) + _BLOCK_WEIGHT * len(self.shelf.blocks)
        return _WEIGHT + items + 8 * pointers + sum(len(request) for _, request in self.requests)

    def item(self, contact: str) -> RosterItem | None:
        """The item of a contact, as the store has it at this version; UnknownItem."""
        request = next((data for name, data in self.requests if name == contact), None)
        packed = self.shelf.find(contact)
        if not packed:
            if request is None:
                return None
            return RosterItem(contact, pending_in=True, request=request, hidden=True)
        if (parsed := parsed_item(packed)) is None:
            raise UnknownItem(contact)
        subscription, ask, approved, name, groups = parsed
        pending = request is not None
        return RosterItem(contact, subscription, ask, pending, approved, name, groups, request or b"")

    def changed(self, contact: str, item: RosterItem | None, version: int) -> Roster:
        """The roster at a newer version, with the contact's item replaced (None: removed)."""
        contact = sys.intern(contact)
        followers = _with(self.followers, contact, wanted=item is not None and item.state.is_followed)
        following = _with(self.following, contact, wanted=item is not None and item.state.is_following)
        requests = tuple(request for request in self.requests if request[0] != contact)
        if item is not None and item.pending_in:
            requests = tuple(sorted((*requests, (contact, item.request))))
        return Roster(
            self.account,
            version,
            followers,
            followers if following == followers else following,
            requests,
            self.shelf.put(contact, item.packed if item is not None else ""),
        )


class RosterBuilder:
    """A roster in the making, from the item rows of one partition of `ROSTER`."""

    def __init__(self, account: str) -> None:
        self._account = account
        self._followers: list[str] = []
        self._following: list[str] = []
        self._requests: list[tuple[str, bytes]] = []
        self._items = ShelfBuilder()

    def add(self, rows: Sequence[Row]) -> None:
        """Add rows that come behind all that were added, by contact."""
        intern = sys.intern
        for row in rows:
            contact = intern(row["name"])
            words, name, request, *groups = row["value"].split(SEPARATOR)
            state, approved, hidden = flags_of(words)
            subscription, ask, pending_in = state.parts
            if subscription in ("both", "from"):
                self._followers.append(contact)
            if subscription in ("both", "to"):
                self._following.append(contact)
            if pending_in:
                self._requests.append((contact, request.encode()))
            if not hidden:
                item = roster_item(contact, subscription, name, groups, ask=ask, approved=approved)
                self._items.add(contact, item)

    def done(self, version: int) -> Roster:
        """The roster at this version."""
        seen_by = tuple(sorted(self._followers))
        sees = seen_by if self._following == self._followers else tuple(sorted(self._following))
        requests = tuple(sorted(self._requests))
        return Roster(self._account, version, seen_by, sees, requests, self._items.done())


def roster_of(account: str, version: int, rows: Sequence[Row]) -> Roster:
    """The roster in the item rows of one partition of `ROSTER`, sorted by contact."""
    builder = RosterBuilder(account)
    builder.add(rows)
    return builder.done(version)


class RosterCache:
    """The rosters used last, up to a number of bytes (the last one always stays); a newer version wins."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._bytes = 0
        self._rosters: OrderedDict[str, Roster] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rosters)

    @property
    def bytes(self) -> int:
        """The weight of all rosters kept."""
        return self._bytes

    def get(self, account: str) -> Roster | None:
        """The account's roster if it is here; it counts as used now."""
        roster = self._rosters.get(account)
        if roster is not None:
            self._rosters.move_to_end(account)
        return roster

    def keep(self, roster: Roster) -> Roster:
        """Keep the roster unless a newer one is here; the newest of both."""
        old = self._rosters.get(roster.account)
        if old is not None and old.version >= roster.version:
            return old
        self.drop(roster.account)
        self._rosters[roster.account] = roster
        self._bytes += roster.weight
        while self._bytes > self._max and len(self._rosters) > 1:
            self.drop(next(iter(self._rosters)))
        return roster

    def clear(self) -> None:
        """Forget all rosters."""
        self._rosters.clear()
        self._bytes = 0

    def drop(self, account: str) -> None:
        """Forget the account's roster."""
        roster = self._rosters.pop(account, None)
        if roster is not None:
            self._bytes -= roster.weight


def _has(names: tuple[str, ...], name: str) -> bool:
    index = bisect_left(names, name)
    return index < len(names) and names[index] == name


def _with(names: tuple[str, ...], name: str, *, wanted: bool) -> tuple[str, ...]:
    """The sorted names with or without that one; the same tuple when nothing changes."""
    index = bisect_left(names, name)
    if (index < len(names) and names[index] == name) == wanted:
        return names
    return (*names[:index], name, *names[index:]) if wanted else names[:index] + names[index + 1 :]
