"""Directed presence between nodes (RFC 6121 4.6), and sessions that are resumed on another node (XEP-0198):
what such a one has sent is shown again to who was shown it, and what such a one was shown ends for it, too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final

from xmppd.cluster.grace import Grace
from xmppd.cluster.member import Member
from xmppd.cluster.mesh import Mesh
from xmppd.cluster.records import Ask, Directed
from xmppd.core.presence import Presences
from xmppd.core.sessions import LiveAccount, Session, Sessions, to_stamp
from xmppd.xml import build

DIRECTED: Final = 100_000
"""Pairs of sender and address that are remembered of directed presence from other nodes, and as many of
sender and session here that was shown it.
"""


class Seen:
    """Which sessions here were shown directed presence, by whom (a full JID), and not its end. A name may
    be another's by now, a session is not: so whoever shows itself again is shown to these alone.
    """

    def __init__(self) -> None:
        self._by_viewer: dict[Session, set[str]] = {}
        self._size = 0

    def __len__(self) -> int:
        """How many pairs are remembered."""
        return self._size

    def note(self, viewer: Session, sender: str) -> None:
        """It is shown that."""
        if self._size < DIRECTED:
            senders = self._by_viewer.setdefault(viewer, set())
            self._size += sender not in senders
            senders.add(sender)

    def forget(self, viewer: Session, sender: str) -> None:
        """It is shown its end. Harmless where there was nothing."""
        senders = self._by_viewer.get(viewer)
        if senders is not None and sender in senders:
            senders.remove(sender)
            self._size -= 1
            if not senders:
                del self._by_viewer[viewer]

    def has(self, viewer: Session, sender: str) -> bool:
        """Whether it was shown that."""
        return sender in self._by_viewer.get(viewer, ())

    def of(self, viewer: Session) -> Collection[str]:
        """All whom it was shown so."""
        return self._by_viewer.get(viewer, ())

    def ended(self, viewer: Session) -> None:
        """It is over."""
        self._size -= len(self._by_viewer.pop(viewer, ()))


class RemoteDirected:
    """Hands directed presence over, and remembers who was shown it. `end` shows a session here the end of
    another one, unless there is one of that name; `asks` notes that a node is asked for that, and `answered`
    that it is known.
    """

    def __init__(
        self,
        mesh: Mesh,
        sessions: Sessions,
        presences: Presences,
        grace: Grace,
        *,
        end: Callable[[Session, str], None],
        asks: Callable[[Session, str, int, int], None],
        answered: Callable[[Session, str], bool],
    ) -> None:
        self.seen = Seen()
        self.size = 0
        """How many pairs of sender and address are remembered, of all members."""
        self._mesh = mesh
        self._sessions = sessions
        self._presences = presences
        self._grace = grace
        self._end = end
        self._asks = asks
        self._answered = answered

    # what sessions here send

    def send(
        self,
        sender: str,
        address: str,
        stanza: bytes,
        *,
        is_end: bool,
        is_moved: bool = False,
        is_again: bool = False,
    ) -> None:
        """See `Cluster.direct`. What is shown `is_again` is for who was shown it alone."""
        if self._grace and not (is_moved or is_again):
            self._grace.forget(sender, address, is_directed=True)
        account, _, resource = address.partition("/")
        is_asked = is_end and any(sender in member.directed for member in self._mesh.present())
        if sender and not (is_moved or is_again or is_asked):
            self._told(self._viewers(account, address if resource else ""), sender, is_end=is_end)
        nodes = {
            place.node
            for place in self._mesh.places(account)
            if (place.resource == resource if resource else place.priority is not None)
        }
        for node in nodes:
            record = Directed(sender, address, stanza, is_end, is_moved, is_again)
            self._mesh.send(self._mesh.member(node), record, len(stanza) + len(sender) + 64)

    def show_again(self, session: Session, address: str, stanza: bytes) -> None:
        """See `Others.show_again`."""
        self._show_again(session.full, address, stanza)
        self.send(session.full, address, stanza, is_end=False, is_again=True)

    def _show_again(self, full: str, address: str, raw: bytes) -> bool:
        """Show it to the sessions here, of an address, that were shown it, or for which it was asked; whether
        there are any.
        """
        account, _, resource = address.partition("/")
        viewers = self._viewers(account, address if resource else "")
        seen = [viewer for viewer in viewers if self._answered(viewer, full) or self.seen.has(viewer, full)]
        if seen:
            unseen = {viewer.full for viewer in viewers if viewer not in seen}
            self._presences.direct_here(account, address, raw, but=unseen)
            self._told(seen, full, is_end=False)
            self._grace.forget(full, address, is_directed=True)
        return bool(seen)

    # what sessions here are sent

    def take(self, member: Member, record: Directed) -> None:
        """Directed presence for one address; who was sent it is told when its sender's node is lost. Not for
        sessions that its node does not know of yet: it was for others, and nobody tells these of its end.
        """
        sender, address = record.sender, record.to
        if record.is_again:
            is_there = self._show_again(sender, address, record.raw)
        else:
            is_there = self._take(member, record)
        if not sender:
            return
        shown = member.directed.get(sender)
        if record.is_end:
            if shown is not None and address in shown:
                shown.remove(address)
                self.size -= 1
                if not shown:
                    del member.directed[sender]
        elif is_there and self.size < DIRECTED and self._is_from(member, sender):
            if shown is None:
                shown = member.directed[sender] = set()
            self.size += address not in shown
            shown.add(address)

    def _take(self, member: Member, record: Directed) -> bool:
        """Show it here; whether anybody is there."""
        account, _, resource = record.to.partition("/")
        but: Collection[str] = ()
        viewers = self._viewers(account, record.to if resource else "")
        if record.is_end:
            but = self.sent_again(record.sender, record.to, member)
        elif record.sender:
            but = {viewer.full for viewer in viewers if viewer.full in member.young}
        if record.is_moved and self._grace.hold(record.sender, record.to, is_directed=True):
            return False
        is_there = self._presences.direct_here(account, record.to, record.raw, but=but)
        self._grace.forget(record.sender, record.to, is_directed=True)
        if record.sender and not record.is_moved:
            told = [viewer for viewer in viewers if viewer.full not in but]
            self._told(told, record.sender, is_end=record.is_end)
        return is_there

    def _told(self, viewers: Iterable[Session], sender: str, *, is_end: bool) -> None:
        for viewer in viewers:
            if is_end:
                self.seen.forget(viewer, sender)
            else:
                self.seen.note(viewer, sender)
                self._answered(viewer, sender)

    def _is_from(self, member: Member, full: str) -> bool:
        account, _, resource = full.partition("/")
        return any(place.node == member.index for place in self._mesh.whereabouts.at(account, resource))

    # its end

    def tell_end(self, full: str, shown: Iterable[str], *, has_broadcasts: bool) -> None:
        """Those that a session sent directed presence see it end, unless they see its broadcasts if it
        `has_broadcasts`, or another session of that name sent them some.
        """
        sender = full.partition("/")[0]
        head = build.start_tag("presence", {"from": full, "type": "unavailable"})
        for address in shown:
            account, _, resource = address.partition("/")
            live = self._sessions.accounts.get(account)
            if live is None or (has_broadcasts and live.available and _follows(live, sender)):
                continue
            but = self.sent_again(full, address, None)
            self._presences.direct_here(account, address, head + to_stamp(address) + b"/>", but=but)
            viewers = self._viewers(account, address if resource else "")
            self._told([one for one in viewers if one.full not in but], full, is_end=True)

    def sent_again(
        self, full: str, address: str, but: Member | None, *, is_own: bool = False
    ) -> Collection[str]:
        """As `Cluster.sent_directed`; the other one is not on a node, and may be on this one but for an end
        that `is_own`.
        """
        here = self._sessions.by_full.get(full) if not is_own else None
        if here is not None and here.directed is None:
            here = None
        members = [member for member in self._mesh.present() if member is not but and full in member.directed]
        if here is None and not members:
            return ()
        found: set[str] = set()
        account, _, resource = address.partition("/")
        for viewer in self._viewers(account, address if resource else ""):
            if not self.seen.has(viewer, full):
                continue  # it has its name from another one
            for _, raw in here.directed_to(viewer.full) if here is not None else ():
                self._presences.direct_here(account, viewer.full, raw)
                found.add(viewer.full)
            for member in members:
                if not member.directed[full].isdisjoint((account, viewer.full)):
                    self._mesh.send(member, Ask(viewer.full, full), len(full) + 64)
                    found.add(viewer.full)
        return found

    def _viewers(self, account: str, full: str) -> Sequence[Session]:
        """The session of that name, or all of an account that are available."""
        if full:
            session = self._sessions.by_full.get(full)
            return (session,) if session is not None else ()
        live = self._sessions.accounts.get(account)
        return live.available if live is not None else ()

    def went(self, member: Member, full: str) -> None:
        """A session there has ended, and has said so to whom it sent directed presence."""
        self.size -= len(member.directed.pop(full, ()))

    def lost(self, member: Member) -> Iterator[None]:
        """Its sessions are at their end."""
        for full, shown in member.directed.items():
            self.size -= len(shown)
            self.tell_end(full, shown, has_broadcasts=True)
            yield
        member.directed = {}

    # sessions here that came from another node

    def came(self, viewer: Session, senders: Iterable[str]) -> None:
        """It was shown these there. Whoever has ended meanwhile, or shows itself to it no more, could not
        tell it so: it is looked for them when who moves as well has had time to come.
        """
        for sender in senders:
            self.seen.note(viewer, sender)

    def look(self, viewer: Session) -> None:
        """See `came`: it is time."""
        if viewer.is_over or viewer.presence is None:
            return
        for full in [*self.seen.of(viewer)]:
            if not self.is_expected(viewer, full):
                self._look_for(viewer, full)

    def is_expected(self, viewer: Session, full: str) -> bool:
        """Whether that one may come again, and its end is shown by itself if it does not."""
        expected = self._grace.sessions.get(full)
        return expected is not None and not expected.addresses.isdisjoint((viewer.full, viewer.account))

    def _look_for(self, viewer: Session, full: str) -> None:
        account, _, resource = full.partition("/")
        here = self._sessions.by_full.get(full)
        if here is not None and (sent := here.directed_to(viewer.full)):
            for _, raw in sent:
                self._presences.direct_here(viewer.account, viewer.full, raw)
            return
        for place in self._mesh.places(account) if here is None else ():
            if place.resource == resource:
                self._asks(viewer, full, place.node, place.number)
                return
        self._end(viewer, full)


def _follows(live: LiveAccount, account: str) -> bool:
    return account == live.account or (live.roster is not None and account in live.roster.following)
