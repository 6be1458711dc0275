"""Where sessions are on other nodes: all places of the cluster but our own, packed into one bytes object for
each account.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

SEVERAL: Final = 0
"""In the place of a node's index: several places follow, each with the length of its resource."""

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

    While all accounts are gone through (`places_of`) none goes out of `_packed` and none comes into it:
    who ended has nothing there and is in `_ended`, who came is in `_late`. `_is_plain`: neither of that.
    """

    __slots__ = ("_count", "_ended", "_is_plain", "_late", "_packed", "_walks")

    def __init__(self) -> None:
        self._packed: dict[str, bytes] = {}
        self._late: dict[str, bytes] = {}
        self._ended: list[str] = []
        self._walks = 0
        self._is_plain = True
        self._count = 0

    def __len__(self) -> int:
        """How many sessions there are."""
        return self._count

    def __contains__(self, account: object) -> bool:
        """Whether the account has a session on another node."""
        if self._is_plain:
            return account in self._packed
        return bool(self._packed.get(account)) or account in self._late  # type: ignore[call-overload]

    def accounts(self) -> list[str]:
        """All that have sessions on other nodes."""
        if self._is_plain:
            return [*self._packed]
        return [*(account for account, packed in self._packed.items() if packed), *self._late]

    def spread(self, accounts: Collection[str]) -> dict[int, list[str]]:
        """Those of them that have available sessions on other nodes, by node: quick where none has any."""
        packed_of = self._packed.get if self._is_plain else self._packed_of
        found: dict[int, list[str]] = {}
        if self._is_plain and self._packed.keys().isdisjoint(accounts):
            return found
        for account, packed in zip(accounts, map(packed_of, accounts), strict=True):  # the look-ups as one
            if not packed:
                continue
            first = packed[0]
            if first != SEVERAL:
                if packed[1] != UNAVAILABLE:
                    if first in found:
                        found[first].append(account)
                    else:
                        found[first] = [account]
            else:
                for node in self.available(account):
                    found.setdefault(node, []).append(account)
        return found

    def put(self, account: str, place: Place) -> Place | None:
        """A session is there now; the place of the same node and resource that it takes, if there was one."""
        if self._is_plain and account not in self._packed:
            self._packed[account] = _pack((place,))
            self._count += 1
            return None
        places = self.of(account)
        for index, old in enumerate(places):
            if old.node == place.node and old.resource == place.resource:
                self._keep(account, _pack((*places[:index], place, *places[index + 1 :])))
                return old
        self._keep(account, _pack((*places, place)))
        self._count += 1
        return None

    def end(self, account: str, node: int, resource: str, number: int) -> bool:
        """That very session is over; whether it was there. A later one with its resource stays."""
        places = self.of(account)
        left = tuple(
            place
            for place in places
            if place.node != node or place.resource != resource or place.number != number
        )
        if len(left) == len(places):
            return False
        self._count -= 1
        if left:
            self._keep(account, _pack(left))
        else:
            self._drop(account)
        return True

    def of(self, account: str) -> tuple[Place, ...]:
        """The places of an account, the oldest first."""
        packed = self._packed_of(account)
        return () if packed is None else _unpack(packed)

    def at(self, account: str, resource: str) -> tuple[Place, ...]:
        """The places of a full JID: more than one while its owner is being found out."""
        if self._is_plain and account not in self._packed:
            return ()
        return tuple(place for place in self.of(account) if place.resource == resource)

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
        packed = self._packed.get(account) or (None if self._is_plain else self._late.get(account))
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
        if packed is None:
            return ()
        if packed[0] != SEVERAL:
            return packed[:1] if packed[1] != UNAVAILABLE else ()  # bytes are a collection of numbers
        return {place.node for place in _unpack(packed) if place.priority is not None}

    def places_of(self, node: int) -> Iterator[tuple[str, Place] | None]:
        """All places of a node, with their accounts; None now and then, so that it can be done in slices.
        Anything may change meanwhile: of the accounts that are there at first, places are given as they are
        when it is the account's turn; those that come may be given, too.
        """
        self._walks += 1
        self._is_plain = False
        try:
            for index, (account, packed) in enumerate(self._packed.items(), 1):
                if packed and (packed[0] == node or (packed[0] == SEVERAL and node in packed)):
                    yield from _those_of(node, account, packed)
                if index % PIECE == 0:
                    yield None
            for account in [*self._late]:
                packed = self._late.get(account, b"")
                if packed:
                    yield from _those_of(node, account, packed)
        finally:
            self._walks -= 1
        yield from self._tidied()

    def _packed_of(self, account: str) -> bytes | None:
        return self._packed.get(account) or (None if self._is_plain else self._late.get(account))

    def _keep(self, account: str, packed: bytes) -> None:
        if self._is_plain or account in self._packed:
            self._packed[account] = packed
        else:
            self._late[account] = packed

    def _drop(self, account: str) -> None:
        if self._is_plain:
            del self._packed[account]
        elif account in self._late:
            del self._late[account]
        else:
            self._packed[account] = b""
            self._ended.append(account)

    def _tidied(self) -> Iterator[None]:
        """Have all in one place again, in slices, unless all are gone through once more meanwhile."""
        packed, late, ended = self._packed, self._late, self._ended
        while not self._walks and (late or ended):
            for account in (ended.pop() for _ in range(min(PIECE, len(ended)))):
                if packed.get(account) == b"":
                    del packed[account]
            for account, places in (late.popitem() for _ in range(min(PIECE, len(late)))):
                packed[account] = places
            yield None
        self._is_plain = not (self._walks or late or ended)


def _those_of(node: int, account: str, packed: bytes) -> Iterator[tuple[str, Place]]:
    return ((account, place) for place in _unpack(packed) if place.node == node)


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
