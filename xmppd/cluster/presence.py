"""Presence between nodes (RFC 6121 4). A follower's probe is its subscription, and the whereabouts keep it:
nothing is remembered of who subscribes to whom but in the rosters of both.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final

from xmppd.cluster.answers import Answers
from xmppd.cluster.directed import RemoteDirected
from xmppd.cluster.followers import Followers
from xmppd.cluster.grace import BACK_SECONDS, Grace
from xmppd.cluster.member import Member
from xmppd.cluster.mesh import Mesh
from xmppd.cluster.records import Ask, Directed, Place, Presence, Probe, Shown, Sight
from xmppd.cluster.showing import Showing
from xmppd.cluster.strangers import Strangers
from xmppd.core.presence import Presences
from xmppd.core.sessions import Broadcast, Moved, Session, Sessions, to_stamp
from xmppd.core.shown import UNAVAILABLE
from xmppd.core.visibility import Visibility
from xmppd.xml import build

STEP: Final = 64
"""Accounts that are looked at before others have their turn."""

Asked = tuple[tuple[int, int], ...]
"""Sessions that have one full JID, as node and number."""


class RemotePresence:
    """What the sessions of this node show those of others, and are shown by them.

    While two sessions have one full JID, the end of one is not shown to who may know the other: each viewer
    asks for that. `_asked` are the questions that are open: by viewer and full JID, the sessions that
    were asked for so far, the last one by a question that is not answered.

    `grace`: how many seconds a session is expected elsewhere when its node stops.
    """

    def __init__(
        self,
        mesh: Mesh,
        sessions: Sessions,
        presences: Presences,
        visibility: Visibility,
        call_later: Callable[[float, Callable[[], None]], object],
        grace: float,
    ) -> None:
        self.showing = Showing(visibility, lambda viewer, full: self._show_other(viewer, full, ()))
        self.grace = Grace(grace, mesh.clock, call_later, self._did_not_come, self._is_back)
        self._mesh = mesh
        self._sessions = sessions
        self._presences = presences
        self._visibility = visibility
        self._answers = Answers(mesh, sessions, visibility)
        self._asked: dict[Session, dict[str, Asked]] = {}
        self._call_later = call_later
        self.directed = RemoteDirected(
            mesh,
            sessions,
            presences,
            self.grace,
            end=lambda viewer, full: self._end((viewer,), full, ()),
            asks=self._ask,
            answered=self._answered,
        )
        self.direct, self.take_directed = self.directed.send, self.directed.take
        self.strangers = Strangers()
        self.followers = Followers(mesh, sessions, self._show_here, self._answer)

    def is_available(self, account: str) -> bool:
        """See `Cluster.is_available`."""
        return bool(self._mesh.available(account))

    def away(self, accounts: Sequence[str]) -> Sequence[str]:
        """See `Cluster.away`."""
        return self._mesh.absent(accounts)

    # what sessions here show

    def show(
        self, session: Session, presence: Broadcast, contacts: Sequence[str], *, asks: bool = False
    ) -> int:
        """See `Cluster.show`: one record for each node."""
        receivers = self._mesh.spread(contacts)
        if not receivers:
            return 0
        is_end = presence.head.endswith(UNAVAILABLE) or session.presence is None
        is_moved = isinstance(presence, Moved)
        shown = 0
        for node, accounts in receivers.items():
            record = Presence(session.full, presence.head, presence.tail, is_end, accounts, is_moved, asks)
            size = len(presence.head) + len(presence.tail) + sum(map(len, accounts)) + 64
            self._mesh.send(self._mesh.member(node), record, size)
            shown += len(accounts)
        return shown

    def returned(self, session: Session, contacts: Sequence[str]) -> None:
        """See `Cluster.returned`."""
        if self.grace and self.grace.is_about(session.full):
            for contact in contacts:
                if self._visibility.allows(contact, session.full):
                    self._came_back(session.full, contact)

    def sight(self, account: str, viewer: str, *, is_end: bool) -> None:
        """See `Cluster.sight`: whether he may see them is judged there."""
        for node in {place.node for place in self._mesh.places(account)}:
            record = Sight(account, viewer, is_end)
            self._mesh.send(self._mesh.member(node), record, len(account) + len(viewer) + 32)

    def take_sight(self, member: Member, record: Sight) -> None:
        """Show a follower the account's sessions here, or hide them."""
        do = self._presences.hide if record.is_end else self._presences.show
        do(record.account, record.viewer)

    def probe(self, session: Session, contacts: Sequence[str]) -> None:
        """See `Cluster.probe`."""
        for node, accounts in self._mesh.spread(contacts).items():
            self._probe(self._mesh.member(node), session, accounts)

    def _probe(self, member: Member, session: Session, accounts: list[str]) -> None:
        self._mesh.send(member, Probe(session.full, accounts), sum(map(len, accounts)) + 64)

    # what sessions here are shown

    def take(self, member: Member, record: Presence) -> None:
        """A broadcast for the sessions of some accounts; those that the sender's node does not know of yet
        are shown it otherwise (`Shown`).
        """
        rounds, is_short = self._sessions.rounds, len(record.receivers) <= STEP
        if is_short and not (rounds.is_due or record.asks) and self._is_usual(member, record):
            self._copy(member, record, record.receivers)  # nearly all of them
        else:
            rounds.do(f"{record.sender}\naway", self._showing(member, record), is_short=is_short)

    def _showing(self, member: Member, record: Presence) -> Iterator[None]:
        for start in range(0, len(record.receivers), STEP):
            accounts = record.receivers[start : start + STEP]
            if self._is_usual(member, record):
                self._copy(member, record, accounts)
            else:
                for account in accounts:
                    self._show(member, record, account)
            yield
        if record.asks:
            self._answer(member, record.sender, record.receivers)

    def _is_usual(self, member: Member, record: Presence) -> bool:
        """Whether there is nothing to it but copies: nobody of that name is expected, asked for, or there
        besides, and nobody filters.
        """
        if self.grace or self._asked or record.is_moved or self._visibility.has_filters:
            return False
        return not record.is_end or self._is_only(member, record.sender)

    def _copy(self, member: Member, record: Presence, accounts: Sequence[str]) -> None:
        """Send a presence to the sessions of some accounts, but for the sender's own and such as its node
        does not know of yet.
        """
        head, tail, sender, young = record.head, record.tail, record.sender, member.young.frames
        due, own = self.showing.due, sender.partition("/")[0]
        is_plain, look = not (young or due), self.strangers.look
        for live in map(self._sessions.accounts.get, accounts):
            if live is None:
                continue
            if live.blocks:
                self._show(member, record, live.account)
                continue
            if not record.is_end:
                look(member, live, own)
            copy = head + live.to_stamp + tail
            if is_plain and live.account != own:
                for session in live.available:
                    session.send_copy(copy)
                continue
            for session in live.available:
                if session.full == sender or session.full in young:
                    continue
                if due:
                    self.showing.drop(session, sender)
                session.send_copy(copy)

    def _show(self, member: Member, record: Presence, account: str) -> None:
        live = self._sessions.accounts.get(account)
        if live is None or not live.available:
            return
        viewers = [s for s in live.available if s.full not in member.young and s.full != record.sender]
        for session in viewers:
            self.showing.drop(session, record.sender)
        if record.is_end:
            ended = self._asked_of(member, record.sender)
            viewers = [s for s in viewers if not self._show_other(s, record.sender, ended)]
            if viewers and record.is_moved and self.grace.hold(record.sender, live.account):
                return
            self.grace.forget(record.sender, account)
        elif self._asked:
            for viewer in viewers:
                self._answered(viewer, record.sender)
        if viewers:
            if not record.is_end:
                self.strangers.look(member, live, record.sender.partition("/")[0])
            for shown in self._visibility.filtered(account, record.head + live.to_stamp + record.tail):
                for session in viewers:
                    session.send_copy(shown)
        if self.grace and not record.is_end:
            self._came_back(record.sender, account)

    # sessions whose node was told to stop

    def withhold(self, full: str, accounts: Iterable[str]) -> None:
        """See `Cluster.withhold`."""
        for account in accounts:
            live = self._sessions.accounts.get(account)
            if live is not None and live.available and not self.grace.hold(full, live.account):
                self._end(live.available, full, ())

    def withhold_directed(self, full: str, address: str) -> bool:
        """See `Cluster.withhold_directed`."""
        return self.grace.hold(full, address, is_directed=True)

    def _came_back(self, full: str, account: str) -> None:
        """An account here was shown the presence of an available session."""
        for replaced in self.grace.shown(full, account):
            live = self._sessions.accounts.get(account)
            if live is not None:
                self._end(live.available, replaced, ())

    def _is_back(self, full: str, addresses: Collection[str]) -> None:
        """A session came again, and has not sent these directed presence as the one before it had."""
        self.directed.tell_end(full, addresses, has_broadcasts=self._is_anywhere(full))

    def _did_not_come(self, names: Sequence[str]) -> None:
        self._sessions.rounds.do("\ngrace", self._end_grace(names), is_short=False)

    def _end_grace(self, names: Sequence[str]) -> Iterator[None]:
        """Show the end of sessions to all who were not shown it, unless they are there after all."""
        for full in names:
            expected = self.grace.take(full)
            for number, account in enumerate(expected.accounts if expected is not None else ()):
                live = self._sessions.accounts.get(account)
                if live is not None:
                    self._end(live.available, full, ())
                if number % STEP == STEP - 1:
                    yield
            if expected is not None and expected.addresses:
                self.directed.tell_end(full, expected.addresses, has_broadcasts=self._is_anywhere(full))
            yield

    # two sessions with one full JID

    def is_elsewhere(self, full: str) -> bool:
        """See `Cluster.is_elsewhere`."""
        account, _, resource = full.partition("/")
        if account not in self._mesh.whereabouts:
            return False  # as in most cases
        return any(
            place.resource == resource and place.priority is not None for place in self._mesh.places(account)
        )

    def show_other(self, full: str, accounts: Iterable[str]) -> None:
        """See `Cluster.show_other`."""
        for account in accounts:
            live = self._sessions.accounts.get(account)
            if live is not None:
                self._end(live.available, full, ())

    def _asked_of(self, member: Member, full: str) -> Asked:
        """The session of a node that need not be asked for."""
        account, _, resource = full.partition("/")
        places = self._mesh.whereabouts.at(account, resource)
        return tuple((place.node, place.number) for place in places if place.node == member.index)

    def _end(self, viewers: Iterable[Session], full: str, asked: Asked) -> None:
        """A session ended that these may have been shown, and some were asked for in its place."""
        for viewer in viewers:
            self.grace.forget(full, viewer.account)
            if viewer.full != full and not self._show_other(viewer, full, asked):
                head = build.start_tag("presence", {"from": full, "type": "unavailable"})
                self._send(viewer, full, head, b"/>")
                self.directed.seen.forget(viewer, full)

    def _show_other(self, viewer: Session, full: str, asked: Asked) -> bool:
        """Show a viewer what another session of that name says, at once or when its node answers; whether
        there may be one, on this node or one that was not asked for.
        """
        account, _, resource = full.partition("/")
        here = self._sessions.by_full.get(full)
        if here is not None and here.presence is not None and self._may_see(viewer.account, here):
            self._send(viewer, full, here.presence.head, here.presence.tail)
            return True
        for place in self._mesh.places(account):
            one = place.node, place.number
            if place.resource == resource and place.priority is not None and one not in asked:
                self._ask(viewer, full, *one, asked)
                return True
        return False

    def _ask(self, viewer: Session, full: str, node: int, number: int, asked: Asked = ()) -> None:
        self._asked.setdefault(viewer, {})[full] = (*asked, (node, number))
        self._mesh.send(self._mesh.member(node), Ask(viewer.full, full), len(full) + 64)

    def _is_only(self, member: Member, full: str) -> bool:
        """Whether no session of that name is here, or available on another node than this one."""
        if full in self._sessions.by_full:
            return False
        account, _, resource = full.partition("/")
        return self._mesh.whereabouts.is_only(account, member.index) or not any(
            place.resource == resource and place.priority is not None and place.node != member.index
            for place in self._mesh.places(account)
        )

    def _send(self, viewer: Session, full: str, head: bytes, tail: bytes) -> None:
        self.showing.drop(viewer, full)
        for shown in self._visibility.filtered(viewer.account, head + viewer.live.to_stamp + tail):
            viewer.send_copy(shown)

    def take_ask(self, member: Member, record: Ask) -> None:
        """How a session of this node is shown to one there: by its broadcasts, or what it sent besides."""
        session = self._sessions.by_full.get(record.full)
        viewer = record.viewer.partition("/")[0]
        stanza = b""
        sent: Sequence[tuple[str, bytes]] = ()
        if session is not None and session.presence is not None and self._may_see(viewer, session):
            stanza = session.presence.head + to_stamp(viewer) + session.presence.tail
        elif session is not None and self._visibility.allows(viewer, record.full):
            sent = session.directed_to(record.viewer)
        for _, raw in sent:
            answer = Directed(record.full, record.viewer, raw, is_end=False, is_again=True)
            self._mesh.send(member, answer, len(raw) + 96)
        if not sent:
            self._answers.tell(member, record.viewer, [record.full], [stanza], is_listed=False)

    # probes

    def take_probe(self, member: Member, record: Probe) -> None:
        """Show a session there what it may see of these accounts."""
        accounts: Sequence[str] = record.accounts
        if record.is_late:
            accounts = self.followers.unshown(record.viewer.partition("/")[0], accounts)
        self._answer(member, record.viewer, accounts)

    def _answer(self, member: Member, full: str, asked: Sequence[str]) -> None:
        self.followers.asked(member, full, asked)
        self._answers.show(member, full, asked)

    def _show_here(self, viewer: Session, accounts: Sequence[str]) -> None:
        for account in accounts:
            live = self._sessions.accounts.get(account)
            for seen in live.available if live is not None else ():
                if seen.presence is not None and self._may_see(viewer.account, seen):
                    self._send(viewer, seen.full, *seen.presence)

    def _may_see(self, viewer: str, session: Session) -> bool:
        roster = session.live.roster
        may_see = viewer == session.account or (roster is not None and roster.is_follower(viewer))
        return may_see and self._visibility.allows(viewer, session.full)

    def take_shown(self, member: Member, record: Shown) -> None:
        """Presence for one session of this node, of several there; or that there is nothing to be seen of
        one, where that was asked.
        """
        viewer = self._sessions.by_full.get(record.viewer)
        if viewer is None or viewer.presence is None or record.viewer in member.young:
            return
        if not record.is_listed:
            for full in record.names.split("\n"):
                self.strangers.look(member, viewer.live, full.partition("/")[0])
        is_usual = not (self.grace or viewer in self._asked or viewer.full in record.names)
        if is_usual and all(record.stanzas) and self.showing.at_once(viewer, record.stanzas):
            return
        shown = [*zip(record.names.split("\n"), record.stanzas, strict=True)]
        found = {full: stanza for full, stanza in shown if stanza}
        for full, stanza in shown if viewer in self._asked else ():
            asked = self._asked.get(viewer, {}).get(full, ())
            if stanza:
                self._answered(viewer, full)
            elif asked and asked[-1][0] == member.index:
                self._answered(viewer, full)
                if not self.directed.is_expected(viewer, full):
                    self._end((viewer,), full, asked)
        found.pop(record.viewer, None)
        self.showing.put(viewer, found)
        for full in found if self.grace else ():
            self._came_back(full, viewer.account)

    def _answered(self, viewer: Session, full: str) -> bool:
        """Whatever was asked, it is known now; whether anything was."""
        asked = self._asked.get(viewer)
        if asked is None or asked.pop(full, None) is None:
            return False
        if not asked:
            del self._asked[viewer]
        return True

    def left(self, session: Session) -> None:
        """A session here is not available any more: nothing is shown to it."""
        self._asked.pop(session, None)
        self.showing.left(session)
        if self.strangers and not any(other is not session for other in session.live.available):
            self.strangers.left(session.account)

    # directed presence

    def _is_anywhere(self, full: str) -> bool:
        """Whether an available session of that name is here or elsewhere."""
        here = self._sessions.by_full.get(full)
        return (here is not None and here.presence is not None) or self.is_elsewhere(full)

    def sent_directed(self, full: str, address: str) -> Collection[str]:
        """See `Cluster.sent_directed`."""
        return self.directed.sent_again(full, address, None, is_own=True)

    def return_to(self, session: Session, senders: Iterable[str]) -> None:
        """A session came from another node, where these sent it directed presence."""
        self.directed.came(session, senders)
        if self.directed.seen.of(session):
            self._call_later(BACK_SECONDS, lambda: self.directed.look(session))

    def ended(self, session: Session) -> None:
        """A session here is over."""
        self.directed.seen.ended(session)

    # coming and going

    def unfollowed(self, account: str, contacts: Iterable[str]) -> None:
        """See `Cluster.unfollowed`. Its contacts see it until they are told, or for ever after a kill."""
        live = self._sessions.accounts.get(account)
        if live is None or not live.available:
            return
        for contact in contacts:
            for place in self._mesh.places(contact):
                self.strangers.note(self._mesh.member(place.node), live, contact)

    def came(self, member: Member, record: Place) -> None:
        """A session there became available. Those of ours that its node did not know of when it told us of it
        are shown to it now, if it may see them: neither could ask for the other.
        """
        full = f"{record.account}/{record.resource}"
        self.grace.came(full)
        self.followers.came(member, record.account, full)
        self._answers.show_those(member, full, member.fresh.behind(record.seen))

    def appeared(self, full: str) -> None:
        """A session here became available."""
        self.grace.came(full)
        self.followers.came_here(full)

    def went(self, member: Member, full: str) -> None:
        """A session there has ended, and has said so to whom it sent directed presence."""
        self.directed.went(member, full)

    def met(self, member: Member) -> None:
        """Its places come first."""

    def joined(self, member: Member) -> None:
        """All its places are known here, and ours there: have them show themselves to who is here."""
        self._sessions.rounds.do(f"\nprobes {member.index}", self._probing(member), is_short=False)

    def _probing(self, member: Member) -> Iterator[None]:
        for full in [*self._sessions.by_full]:
            session = self._sessions.by_full.get(full)
            if session is None or session.presence is None or member.is_gone:
                continue
            roster = session.live.roster
            wanted = (session.account, *(roster.following if roster is not None else ()))
            here = [account for account in wanted if member.index in self._mesh.whereabouts.nodes(account)]
            if here:
                self._probe(member, session, here)
            yield

    def lost(self, member: Member) -> Iterator[None]:
        """Its sessions are at their end: show that to all who saw them, and what others of that name say."""
        gone: dict[str, list[tuple[str, Asked]]] = {}
        for found in self._mesh.whereabouts.places_of(member.index):
            if found is not None and found[1].priority is not None:
                account, place = found
                ended = f"{account}/{place.resource}", ((place.node, place.number),)
                gone.setdefault(account, []).append(ended)
            yield
        for viewer in [*self._asked]:
            for full, asked in [*self._asked.get(viewer, {}).items()]:
                if asked[-1][0] == member.index:
                    self._answered(viewer, full)
                    self._end((viewer,), full, asked)
            yield
        yield from self.directed.lost(member)
        for name in [*self._sessions.accounts] if gone else ():
            live = self._sessions.accounts.get(name)
            if live is None or not live.available:
                continue
            following = live.roster.following if live.roster is not None else ()
            for contact in dict.fromkeys((name, *following, *self.strangers.of(member, name))):
                for full, asked in gone.get(contact, ()):
                    if not self._visibility.hidden.has(contact, name):
                        self._end(live.available, full, asked)
            yield
        self.strangers.lost(member)
