"""Who is where: each node tells of its own sessions, and of what changes about them only.

A place is told when a session is bound, when its availability or priority changes, and when it ends; it goes
before all that the session says, and its end behind that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from typing import Final

from xmppd.cluster.member import Member
from xmppd.cluster.mesh import Mesh
from xmppd.cluster.records import Gone, Have, Snapshot
from xmppd.cluster.records import Place as PlaceRecord
from xmppd.cluster.whereabouts import Place
from xmppd.core.binding import REPLACED, client_of, is_of
from xmppd.core.sessions import Session, Sessions
from xmppd.errors import StreamError

PIECE: Final = 200
"""Places in one record of a snapshot."""

STEP: Final = 256
"""Sessions here that are looked at before others have their turn."""


class Own:
    """What this node knows of a session of its own. `stamp`: when it was bound, in ms of the wall clock;
    `priority`: what the others were told of it, None: that it is not available; `knew`: numbers of sessions
    of its full JID on other nodes that it came after. `spots`: where its place stands that each was told at
    first, until it is available (`Trunk.spot`); `left`: where it stands that it is not available any more.
    """

    __slots__ = ("knew", "left", "priority", "spots", "stamp")

    def __init__(self, stamp: int) -> None:
        self.stamp = stamp
        self.priority: int | None = None
        self.knew: dict[Member, int] = {}
        self.spots: dict[Member, tuple[int, int]] = {}
        self.left: dict[Member, tuple[int, int]] = {}


class Places:
    """`moved` is told of each account with a place that is another one than before, `came` of each that
    became available elsewhere, `is_open` of each that takes messages there, `ceded` of each of which a
    session, here or there, leaves messages to others; `went` of the full JID of each that ended, `appeared`
    of that of each that became available here. `left` is told of each session here that is not available any
    more; `end` ends one. `lost_all` is told of a member that is gone without a farewell, and which accounts
    had sessions there when it was missed or some seconds before.
    """

    def __init__(
        self,
        mesh: Mesh,
        sessions: Sessions,
        *,
        moved: Callable[[str], None],
        came: Callable[[Member, PlaceRecord], None],
        is_open: Callable[[Member, str], None],
        ceded: Callable[[str], None],
        went: Callable[[Member, str], None],
        appeared: Callable[[str], None],
        left: Callable[[Session], None],
        end: Callable[[Session, StreamError | None], None],
        lost_all: Callable[[Member, Collection[str]], None],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._mesh = mesh
        self._sessions = sessions
        self._moved = moved
        self._came = came
        self._is_open = is_open
        self._ceded = ceded
        self._went = went
        self._appeared = appeared
        self._left = left
        self._end = end
        self._lost_all = lost_all
        self._now = now
        self._numbers = 0
        self._own: dict[int, Own] = {}

    # of this node

    def bound(self, session: Session) -> None:
        """See `Cluster.bound`."""
        self._numbers += 1
        session.number = self._numbers
        own = self._own[session.number] = Own(int(self._now() * 1000))
        for member in self._mesh.present():
            frame = self._mesh.mention(member, *self._place_of(member, session, None))
            member.young.put(session.full, frame)
            own.spots[member] = member.trunk.spot
        client = ""
        for place in self._mesh.places(session.account):
            client = client or client_of(session.login, session.resource)
            if place.resource == session.resource or is_of(client, place.resource):
                member = self._mesh.member(place.node)
                own.knew[member] = place.number
                self._have(member, session)
        self._moved(session.account)

    def shifted(self, session: Session) -> None:
        """See `Cluster.shifted`."""
        own = self._own[session.number]
        is_available = session.presence is not None and not session.is_over
        priority = session.priority if is_available else None
        for member in self._mesh.present():
            frame = self._tell(member, session, priority)
            if is_available and own.priority is None:
                member.young.put(session.full, frame)
                member.fresh.put(session.full, frame)
            elif not is_available:
                self._forget(member, session)
        if not is_available:
            self._left(session)
        elif own.priority is None:
            self._appeared(session.full)
        before, own.priority = own.priority, priority
        own.spots = {}
        own.left = {} if is_available else {member: member.trunk.spot for member in self._mesh.present()}
        self._moved(session.account)
        if _is_less(priority, before):
            self._ceded(session.account)

    def wanted(self, session: Session) -> None:
        """See `Cluster.wanted`."""
        priority = session.priority if session.presence is not None else None
        for member in self._mesh.present():
            self._tell(member, session, priority)

    def _tell(self, member: Member, session: Session, priority: int | None) -> int:
        """Tell a member of a place, instead of what it was to be told at first if that still waits; the
        number of the frame.
        """
        record, size = self._place_of(member, session, priority)
        spot = self._own[session.number].spots.get(member)
        if spot is None or not member.trunk.amend(spot, record):
            return self._mesh.send(member, record, size)
        self._mesh.pace(member)
        return spot[0]

    def ended(self, session: Session) -> None:
        """See `Cluster.ended`."""
        own = self._own.pop(session.number)
        for member in self._mesh.present():
            self._forget(member, session)
            gone = Gone(session.account, session.resource, session.number)
            spot = own.left.get(member)
            if spot != member.trunk.spot or not member.trunk.amend(spot, gone):
                self._mesh.send(member, gone, len(session.full) + 16)
        self._moved(session.account)
        if own.priority is not None:
            self._ceded(session.account)

    def _forget(self, member: Member, session: Session) -> None:
        """It is not available; a new session with its full JID may be."""
        current = self._sessions.by_full.get(session.full)
        if current is None or current is session:
            member.young.drop(session.full)
            member.fresh.drop(session.full)

    @staticmethod
    def _place_of(member: Member, session: Session, priority: int | None) -> tuple[PlaceRecord, int]:
        """The record of a place, and about how many bytes it has."""
        record = PlaceRecord(
            session.account,
            session.resource,
            priority,
            session.number,
            member.trunk.taken,
            bool(session.copies_since),
        )
        return record, len(session.full) + 24

    def _have(self, member: Member, session: Session) -> None:
        own = self._own[session.number]
        stamp = own.stamp, self._mesh.name
        knew = own.knew.get(member, 0)
        record = Have(session.account, session.resource, session.number, stamp, knew)
        self._mesh.send(member, record, len(session.full) + 48)

    # of other nodes

    def take(self, member: Member, record: PlaceRecord) -> None:
        """A session there is new, or another than before."""
        known = self._mesh.whereabouts.at(record.account, record.resource)
        old = next((place for place in known if place.node == member.index), None) if known else None
        if old is not None and old.number > record.number:
            return  # of one that has a successor
        place = Place(member.index, record.resource, record.number, record.priority, record.wants_copies)
        self._mesh.whereabouts.put(record.account, place)
        self._moved(record.account)
        is_new = old is None or old.number != record.number
        if is_new and old is not None:
            self._went(member, f"{record.account}/{record.resource}")
        if record.priority is not None:
            if is_new or old is None or old.priority is None:
                self._came(member, record)
            if record.priority >= 0:
                self._is_open(member, record.account)
        if old is not None and _is_less(record.priority, old.priority):
            self._ceded(record.account)
        if is_new:
            for held in self._rivals(record.account, record.resource):
                self._have(member, held)

    def take_gone(self, member: Member, record: Gone) -> None:
        """A session there ended."""
        if self._mesh.whereabouts.end(record.account, member.index, record.resource, record.number):
            self._moved(record.account)
            self._ceded(record.account)
            self._went(member, f"{record.account}/{record.resource}")
            if not member.is_gone:
                member.note_end(record.account)

    def take_have(self, member: Member, record: Have) -> None:
        """A full JID, or a client, is there and here: the session that the other came after ends, or else
        the one that was bound first by the clocks of both (RFC 6120 7.7.2.2).
        """
        for session in self._rivals(record.account, record.resource):
            self._decide(member, session, record)

    def _rivals(self, account: str, resource: str) -> list[Session]:
        """The sessions here that cannot be beside one there: of that full JID, or of the same client by
        another tag (XEP-0386 3.2).
        """
        live = self._sessions.accounts.get(account)
        if live is None:
            return []
        return [
            session
            for session in live.sessions
            if session.resource == resource or is_of(client_of(session.login, session.resource), resource)
        ]

    def _decide(self, member: Member, session: Session, record: Have) -> None:
        own = self._own[session.number]
        is_later = own.knew.get(member) == record.number
        if record.knew == session.number or (
            not is_later and (own.stamp, self._mesh.name) < tuple(record.stamp)
        ):
            self._end(session, StreamError("conflict", REPLACED))
        else:
            own.knew[member] = record.number
            self._have(member, session)

    def take_snapshot(self, member: Member, record: Snapshot) -> None:
        """Some of its sessions, or the last of them. What it had taken of us by then is what its frame
        acknowledged.
        """
        copied = frozenset(record.copied)
        for account, resource, priority, number in record.places:
            place = PlaceRecord(account, resource, priority, number, member.trunk.acked, number in copied)
            self.take(member, place)
        if record.is_last and not member.is_joined:
            member.is_joined = True
            self._look_at(member)

    # meeting and losing

    def met(self, member: Member) -> None:
        """Tell it of all sessions here."""
        steps = self._snapshots(member)
        self._sessions.rounds.do(f"\nsnapshot {member.index}", steps, is_short=False)

    def _snapshots(self, member: Member) -> Iterator[None]:
        piece: list[Session] = []
        for full in [*self._sessions.by_full]:
            session = self._sessions.by_full.get(full)
            if session is None:
                continue
            piece.append(session)
            if len(piece) >= PIECE:
                self._send_piece(member, piece, is_last=False)
                piece = []
                yield
            if member.is_gone:
                return
        self._send_piece(member, piece, is_last=True)
        member.is_told = True
        self._look_at(member)

    def _send_piece(self, member: Member, piece: list[Session], *, is_last: bool) -> None:
        places = [
            (s.account, s.resource, s.priority if s.presence is not None else None, s.number) for s in piece
        ]
        copied = [session.number for session in piece if session.copies_since]
        frame = self._mesh.send(member, Snapshot(places, is_last, copied), 64 * len(piece) + 16)
        for session in piece:
            self._own[session.number].spots.pop(member, None)
            member.young.put(session.full, frame)

    def _look_at(self, member: Member) -> None:
        if member.is_joined and member.is_told:
            for watcher in self._mesh.watchers:
                watcher.joined(member)

    def joined(self, member: Member) -> None:
        """Nothing more."""

    def lost(self, member: Member) -> Iterator[None]:
        """Forget its places, one after the other, and tell whose they were."""
        accounts = dict.fromkeys(member.ended_lately())
        for number, own in enumerate([*self._own.values()], 1):
            own.knew.pop(member, None)
            own.spots.pop(member, None)
            own.left.pop(member, None)
            if number % STEP == 0:
                yield
        for found in self._mesh.whereabouts.places_of(member.index):
            if found is not None:
                account, place = found
                accounts[account] = None
                self.take_gone(member, Gone(account, place.resource, place.number))
            yield
        if member.is_joined and not member.has_left:
            self._lost_all(member, accounts)


def _is_less(priority: int | None, before: int | None) -> bool:
    """Whether a session takes messages to its account after others that it went before."""
    return before is not None and (priority is None or priority < before)
