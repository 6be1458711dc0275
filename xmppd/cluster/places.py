"""Who is where: each node tells of its own sessions, and of what changes about them only.

A place is told when a session is bound, when its availability or priority changes, and when it ends; it goes
before all that the session says, and its end behind that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

from xmppd.cluster.member import Member
from xmppd.cluster.mesh import Mesh
from xmppd.cluster.records import Gone, Have, Snapshot
from xmppd.cluster.records import Place as PlaceRecord
from xmppd.cluster.whereabouts import Place
from xmppd.core.binding import REPLACED
from xmppd.core.sessions import Session, Sessions
from xmppd.errors import StreamError

PIECE: Final = 1000
"""Places in one record of a snapshot."""


class Places:
    """`moved` is told of each account with a place that is another one than before, `came` of each that
    became available elsewhere, `went` of the full JID of each that ended. `end` ends a session here.
    """

    def __init__(
        self,
        mesh: Mesh,
        sessions: Sessions,
        *,
        moved: Callable[[str], None],
        came: Callable[[Member, PlaceRecord], None],
        went: Callable[[Member, str], None],
        end: Callable[[Session, StreamError | None], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._mesh = mesh
        self._sessions = sessions
        self._moved = moved
        self._came = came
        self._went = went
        self._end = end
        self._now = now
        self._numbers = 0
        self._told: set[str] = set()
        self._stamps: dict[str, int] = {}

    # of this node

    def bound(self, session: Session) -> None:
        """See `Cluster.bound`."""
        self._numbers += 1
        session.number = self._numbers
        self._stamps[session.full] = int(self._now() * 1000)
        for member in self._mesh.present():
            self._tell(member, session, None)
        for place in self._mesh.whereabouts.at(session.account, session.resource):
            self._have(self._mesh.member(place.node), session, knew=place.number)
        self._moved(session.account)

    def shifted(self, session: Session) -> None:
        """See `Cluster.shifted`."""
        is_available = session.presence is not None and not session.is_over
        is_first = is_available and session.full not in self._told
        for member in self._mesh.present():
            frame = self._tell(member, session, session.priority if is_available else None)
            if is_first:
                member.young[session.full] = frame
            elif not is_available:
                member.young.pop(session.full, None)
        (self._told.add if is_available else self._told.discard)(session.full)
        self._moved(session.account)

    def ended(self, session: Session) -> None:
        """See `Cluster.ended`."""
        is_last = session.full not in self._sessions.by_full  # else there is a new one of that name
        if is_last:
            self._told.discard(session.full)
            self._stamps.pop(session.full, None)
        for member in self._mesh.present():
            if is_last:
                member.young.pop(session.full, None)
            self._mesh.send(
                member, Gone(session.account, session.resource, session.number), len(session.full) + 16
            )
        self._moved(session.account)

    def _tell(self, member: Member, session: Session, priority: int | None) -> int:
        record = PlaceRecord(session.account, session.resource, priority, session.number, member.trunk.taken)
        return self._mesh.send(member, record, len(session.full) + 24)

    def _have(self, member: Member, session: Session, *, knew: int) -> None:
        stamp = self._stamps.get(session.full, 0), self._mesh.name
        record = Have(session.account, session.resource, session.number, stamp, knew)
        self._mesh.send(member, record, len(session.full) + 48)

    # of other nodes

    def take(self, member: Member, record: PlaceRecord) -> None:
        """A session there is new, or another than before."""
        place = Place(member.index, record.resource, record.number, record.priority)
        old = self._mesh.whereabouts.put(record.account, place)
        self._moved(record.account)
        if record.priority is not None and (
            old is None or old.priority is None or old.number != record.number
        ):
            self._came(member, record)
        if old is None or old.number != record.number:
            held = self._sessions.by_full.get(f"{record.account}/{record.resource}")
            if held is not None:
                self._have(member, held, knew=0)

    def take_gone(self, member: Member, record: Gone) -> None:
        """A session there ended."""
        if self._mesh.whereabouts.end(record.account, member.index, record.resource, record.number):
            self._moved(record.account)
            self._went(member, f"{record.account}/{record.resource}")

    def take_have(self, member: Member, record: Have) -> None:
        """A full JID is there and here: the one that was known to the other's bind ends, else the one that
        was bound first (RFC 6120 7.7.2.2).
        """
        full = f"{record.account}/{record.resource}"
        session = self._sessions.by_full.get(full)
        if session is None:
            return
        if record.knew == session.number:
            self._end(session, StreamError("conflict", REPLACED))
            return
        [*theirs] = [
            p for p in self._mesh.whereabouts.at(record.account, record.resource) if p.node == member.index
        ]
        if not theirs or theirs[0].number != record.number:
            return  # it has gone meanwhile
        mine = self._stamps.get(full, 0), self._mesh.name
        if mine < record.stamp:
            self._end(session, StreamError("conflict", REPLACED))
        else:
            self._have(member, session, knew=0)

    def take_snapshot(self, member: Member, record: Snapshot) -> None:
        """Some of its sessions, or the last of them."""
        for account, resource, priority, number in record.places:
            self.take(member, PlaceRecord(account, resource, priority, number, member.trunk.sent))
        if record.is_last and not member.is_joined:
            member.is_joined = True
            for watcher in self._mesh.watchers:
                watcher.joined(member)

    # meeting and losing

    def met(self, member: Member) -> None:
        """Tell it of all sessions here."""
        steps = self._snapshots(member)
        self._sessions.rounds.do(f"\nsnapshot {member.index}", steps, is_short=False)

    def _snapshots(self, member: Member) -> Iterator[None]:
        piece: list[tuple[str, str, int | None, int]] = []
        for full in [*self._sessions.by_full]:
            session = self._sessions.by_full.get(full)
            if session is None:
                continue
            is_available = session.presence is not None
            priority = session.priority if is_available else None
            piece.append((session.account, session.resource, priority, session.number))
            if is_available:
                member.young[full] = member.trunk.queued + 1
            if len(piece) >= PIECE:
                self._send_piece(member, piece, is_last=False)
                piece = []
                yield
            if member.is_gone:
                return
        self._send_piece(member, piece, is_last=True)

    def _send_piece(
        self, member: Member, piece: list[tuple[str, str, int | None, int]], *, is_last: bool
    ) -> None:
        frame = self._mesh.send(member, Snapshot(piece, is_last), 64 * len(piece) + 16)
        for account, resource, priority, _ in piece:
            if priority is not None:
                member.young[f"{account}/{resource}"] = frame

    def joined(self, member: Member) -> None:
        """Nothing more."""

    def lost(self, member: Member) -> Iterator[None]:
        """Forget its places, one after the other."""
        for found in self._mesh.whereabouts.places_of(member.index):
            if found is not None:
                account, place = found
                self.take_gone(member, Gone(account, place.resource, place.number))
            yield
