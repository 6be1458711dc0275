"""The rosters kept in memory: whole, read-only, small."""

from __future__ import annotations

import sys
import zlib
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from xmppd.core.roster.item import SEPARATOR, RosterItem, flags_of
from xmppd.store.table import Row
from xmppd.xml.roster import count_items, replace_item, roster_item

_WEIGHT = 400
"""Bytes of a cached roster without its contents: the object, two tuples, its place in the cache."""

_WORTH_IT = 1024
"""Bytes of packed items from which on they are kept compressed (those of 50 contacts to an eighth)."""

_COMPRESSED = b"x"
"""What zlib's output begins with; packed items begin with `<`."""


@dataclass(frozen=True, slots=True)
class Roster:
    """One account's roster at one version: who sees whom, and the items packed for the wire.

    `followers` see the account's presence, and the account sees that of `following`; both are sorted.
    `requests` are the subscription requests that wait for an answer, with what their stanzas hold. `shelf` is
    `packed` as `shelved` made it; there are no item objects, they would take three times the memory.
    """

    account: str
    version: int
    followers: tuple[str, ...] = ()
    following: tuple[str, ...] = ()
    requests: tuple[tuple[str, bytes], ...] = ()
    shelf: bytes = b""

    @property
    def packed(self) -> bytes:
        """Every item that is not hidden, as XML."""
        return zlib.decompress(self.shelf) if self.shelf.startswith(_COMPRESSED) else self.shelf

    def is_follower(self, contact: str) -> bool:
        """Whether the contact sees the account's presence."""
        return _has(self.followers, contact)

    def is_following(self, contact: str) -> bool:
        """Whether the account sees the contact's presence."""
        return _has(self.following, contact)

    @property
    def size(self) -> int:
        """The number of items that are not hidden."""
        return count_items(self.packed)

    @property
    def weight(self) -> int:
        """About how many bytes of memory it takes; contacts are interned and not counted."""
        pointers = len(self.followers) + len(self.requests) * 10
        if self.following is not self.followers:
            pointers += len(self.following)
        return _WEIGHT + len(self.shelf) + 8 * pointers + sum(len(request) for _, request in self.requests)

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
            shelved(replace_item(self.packed, contact, item.packed if item is not None else "")),
        )


def shelved(packed: bytes) -> bytes:
    """Packed items as they are kept while nobody asks for them."""
    return packed if len(packed) < _WORTH_IT else zlib.compress(packed, 1)


def roster_of(account: str, version: int, rows: Sequence[Row]) -> Roster:
    """The roster in the item rows of one partition of `ROSTER`."""
    followers: list[str] = []
    following: list[str] = []
    requests: list[tuple[str, bytes]] = []
    packed: list[str] = []
    intern = sys.intern
    for row in rows:
        contact = intern(row["name"])
        words, name, request, *groups = row["value"].split(SEPARATOR)
        state, approved, hidden = flags_of(words)
        subscription, ask, pending_in = state.parts
        if subscription in ("both", "from"):
            followers.append(contact)
        if subscription in ("both", "to"):
            following.append(contact)
        if pending_in:
            requests.append((contact, request.encode()))
        if not hidden:
            packed.append(roster_item(contact, subscription, name, groups, ask=ask, approved=approved))
    seen_by = tuple(sorted(followers))
    sees = seen_by if following == followers else tuple(sorted(following))
    return Roster(account, version, seen_by, sees, tuple(sorted(requests)), shelved("".join(packed).encode()))


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
