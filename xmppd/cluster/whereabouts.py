"""Where sessions are on other nodes: all places of the cluster but our own, packed into one bytes object for
each account.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from itertools import filterfalse
from typing import Final, NamedTuple

SEVERAL: Final = 0
"""In the place of a node's index: several places follow, each with the length of its resource."""

MOST: Final = 262_144
"""Accounts in one dictionary."""

PIECE: Final = 256
"""Accounts that are looked at before who asks for all places of a node may do something else."""

UNAVAILABLE: Final = 0
"""In the place of a priority; others have 128 added."""

COPIES: Final = 1
"""A flag of a place: it wants copies."""

LEAST: Final = 128
"""The least priority that takes messages to the account, as it is kept."""


class Place(NamedTuple):
    """A session on another node. `node`: the index of that in this process, 1 to 255; `number`: of the
    session, counted by its node; `priority`: None while it is not available; `wants_copies`: of its account's
    messages (XEP-0280).
    """

    node: int
    resource: str
    number: int
    priority: int | None
    wants_copies: bool = False


class Whereabouts:
    """Account -> its places. Of each node and full JID there is at most one.

    One place is: node (1 byte), priority (1), flags (1), number (4), resource. Several: `SEVERAL`, then each
    with the length of the resource (2) before it. A priority of -128 counts as -127.

    Accounts are in a dictionary of at most `most`, those that are more in another one, and so on: a larger
    one would take long when it grows. Most clusters have one. `_idle` are those of them with no available
    session.
    """

    __slots__ = ("_count", "_idle", "_most", "_tables")

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._tables: list[dict[str, bytes]] = [{}]
        self._idle: set[str] = set()
        self._count = 0

    def __len__(self) -> int:
        """How many sessions there are."""
        return self._count

    def __contains__(self, account: object) -> bool:
        """Whether the account has a session on another node."""
        for table in self._tables:  # noqa: SIM110 - as `Mesh._is_full`
            if account in table:
                return True
        return False

    def accounts(self) -> list[str]:
        """All that have sessions on other nodes."""
        return [account for table in self._tables for account in table]

    def spread(self, accounts: Collection[str]) -> dict[int, list[str]]:
        """Those of them that have available sessions on other nodes, by node."""
        found: defaultdict[int, list[str]] = defaultdict(list)
        for table in self._tables:
            if not table or table.keys().isdisjoint(accounts):  # looks at all in half the time
                continue
            there = [*filter(table.__contains__, accounts)]
            for account, packed in zip(there, map(table.__getitem__, there), strict=True):
                node = packed[0]
                if node == SEVERAL:
                    for node in _available(packed):
                        found[node].append(account)
                elif packed[1] != UNAVAILABLE:
                    found[node].append(account)
        return found

    def absent(self, accounts: Sequence[str]) -> Sequence[str]:
        """Those of them that have no available session on another node."""
        idle = self._idle
        if idle and not idle.isdisjoint(accounts):
            there = frozenset(account for account in accounts if account in self and account not in idle)
            return [*filterfalse(there.__contains__, accounts)]
        for table in self._tables:
            accounts = [*filterfalse(table.__contains__, accounts)]
        return accounts

    def put(self, account: str, place: Place) -> Place | None:
        """A session is there now; the place of the same node and resource that it takes, if there was one."""
        table = self._table_of(account)
        if table is None:
            self._count += 1
            self._keep(self._table_with_room(), account, (place,))
            return None
        places = _unpack(table[account])
        for index, old in enumerate(places):
            if old.node == place.node and old.resource == place.resource:
                self._keep(table, account, (*places[:index], place, *places[index + 1 :]))
                return old
        self._keep(table, account, (*places, place))
        self._count += 1
        return None

    def end(self, account: str, node: int, resource: str, number: int) -> bool:
        """That very session is over; whether it was there. A later one with its resource stays."""
        table = self._table_of(account)
        if table is None:
            return False
        places = _unpack(table[account])
        left = tuple(
            place
            for place in places
            if place.node != node or place.resource != resource or place.number != number
        )
        if len(left) == len(places):
            return False
        self._count -= 1
        if left:
            self._keep(table, account, left)
        else:
            del table[account]
            self._idle.discard(account)
            if not table and len(self._tables) > 1:
                self._tables = [table for table in self._tables if table]
        return True

    def of(self, account: str) -> tuple[Place, ...]:
        """The places of an account, the oldest first."""
        packed = self._packed_of(account)
        return () if packed is None else _unpack(packed)

    def at(self, account: str, resource: str) -> tuple[Place, ...]:
        """The places of a full JID: more than one while its owner is being found out."""
        packed = self._packed_of(account)
        if packed is None:
            return ()
        return tuple(place for place in _unpack(packed) if place.resource == resource)

    def is_only(self, account: str, node: int) -> bool:
        """Whether the account has one session on other nodes, and that on this one."""
        packed = self._packed_of(account)
        return packed is not None and packed[0] == node

    def nodes(self, account: str) -> frozenset[int]:
        """On which nodes the account has sessions."""
        packed = self._packed_of(account)
        if packed is None:
            return frozenset()
        if packed[0] != SEVERAL:
            return frozenset((packed[0],))
        return frozenset(place.node for place in _unpack(packed))

    def only_taker(self, account: str) -> int:
        """On which node the account has its only session, if that has a priority that is not negative; 0
        where that is not so.
        """
        packed = self._packed_of(account)
        return packed[0] if packed is not None and packed[1] >= LEAST else 0  # SEVERAL is 0, too

    def wants_copies(self, account: str) -> bool:
        """Whether any session of the account there wants copies."""
        packed = self._packed_of(account)
        if packed is None:
            return False
        if packed[0] != SEVERAL:
            return bool(packed[2] & COPIES)
        return any(place.wants_copies for place in _unpack(packed))

    def available(self, account: str) -> Collection[int]:
        """On which nodes the account has sessions that are available."""
        packed = self._packed_of(account)
        return () if packed is None else _available(packed)

    def places_of(self, node: int) -> Iterator[tuple[str, Place] | None]:
        """All places of a node, with their accounts; None now and then, so that it can be done in slices.
        Anything may change meanwhile: of the accounts that are there at first, places are given as they are
        when it is the account's turn; those that come may be given, too.
        """
        looked_at = 0
        for table in [*self._tables]:
            names = [*table]
            for account, packed in zip(names, map(table.get, names), strict=True):
                if packed is not None and (packed[0] == node or (packed[0] == SEVERAL and node in packed)):
                    yield from _those_of(node, account, packed)
                looked_at += 1
                if looked_at % PIECE == 0:
                    yield None

    def _keep(self, table: dict[str, bytes], account: str, places: tuple[Place, ...]) -> None:
        packed = table[account] = _pack(places)
        if _available(packed):
            self._idle.discard(account)
        else:
            self._idle.add(account)

    def _packed_of(self, account: str) -> bytes | None:
        for table in self._tables:
            packed = table.get(account)
            if packed is not None:
                return packed
        return None

    def _table_of(self, account: str) -> dict[str, bytes] | None:
        for table in self._tables:
            if account in table:
                return table
        return None

    def _table_with_room(self) -> dict[str, bytes]:
        for table in self._tables:
            if len(table) < self._most:
                return table
        self._tables.append({})
        return self._tables[-1]


def _those_of(node: int, account: str, packed: bytes) -> Iterator[tuple[str, Place]]:
    return ((account, place) for place in _unpack(packed) if place.node == node)


def _available(packed: bytes) -> Collection[int]:
    if packed[0] != SEVERAL:
        return packed[:1] if packed[1] != UNAVAILABLE else ()  # bytes are a collection of numbers
    return {place.node for place in _unpack(packed) if place.priority is not None}


def _pack(places: tuple[Place, ...]) -> bytes:
    if len(places) == 1:
        place = places[0]
        return _head(place) + place.resource.encode()
    parts = [bytes((SEVERAL,))]
    for place in places:
        resource = place.resource.encode()
        parts += (_head(place), len(resource).to_bytes(2, "big"), resource)
    return b"".join(parts)


def _head(place: Place) -> bytes:
    assert place.node != SEVERAL
    priority = UNAVAILABLE if place.priority is None else max(1, place.priority + 128)
    flags = COPIES if place.wants_copies else 0
    return bytes((place.node, priority, flags)) + place.number.to_bytes(4, "big")


def _unpack(packed: bytes) -> tuple[Place, ...]:
    if packed[0] != SEVERAL:
        return (_place(packed, 0, packed[7:]),)
    places = []
    start = 1
    while start < len(packed):
        end = start + 9 + int.from_bytes(packed[start + 7 : start + 9], "big")
        places.append(_place(packed, start, packed[start + 9 : end]))
        start = end
    return tuple(places)


def _place(packed: bytes, start: int, resource: bytes) -> Place:
    priority = packed[start + 1]
    return Place(
        packed[start],
        resource.decode(),
        int.from_bytes(packed[start + 3 : start + 7], "big"),
        None if priority == UNAVAILABLE else priority - 128,
        bool(packed[start + 2] & COPIES),
    )
