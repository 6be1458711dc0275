"""Presence between nodes (RFC 6121 4). A follower's probe is its subscription, and the whereabouts keep it:
nothing is remembered of who subscribes to whom but in the rosters of both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from xmppd.cluster.member import Member
from xmppd.cluster.mesh import Mesh
from xmppd.cluster.records import Directed, Place, Presence, Probe, Shown
from xmppd.core.presence import UNAVAILABLE, Presences
from xmppd.core.sessions import Broadcast, LiveAccount, Session, Sessions
from xmppd.core.visibility import Visibility
from xmppd.xml import build

STEP: Final = 64
"""Accounts that are looked at before others have their turn."""

SHOWN_BYTES: Final = 32_768
"""What one record of `Shown` has, about."""

DIRECTED: Final = 100_000
"""Pairs of sender and address that are remembered of directed presence from other nodes."""


class RemotePresence:
    """What the sessions of this node show those of others, and are shown by them."""

    def __init__(self, mesh: Mesh, sessions: Sessions, presences: Presences, visibility: Visibility) -> None:
        self._mesh = mesh
        self._sessions = sessions
        self._presences = presences
        self._visibility = visibility

    def is_available(self, account: str) -> bool:
        """See `Cluster.is_available`."""
        return any(place.priority is not None for place in self._mesh.places(account))

    # what sessions here show

    def show(self, session: Session, presence: Broadcast, contacts: Sequence[str]) -> int:
        """See `Cluster.show`: one record for each node."""
        receivers: dict[int, list[str]] = {}
        shown = 0
        for contact in contacts:
            nodes = {place.node for place in self._mesh.places(contact) if place.priority is not None}
            shown += bool(nodes)
            for node in nodes:
                receivers.setdefault(node, []).append(contact)
        is_end = presence.head.endswith(UNAVAILABLE) or session.presence is None
        for node, accounts in receivers.items():
            record = Presence(session.full, presence.head, presence.tail, is_end, accounts)
            size = len(presence.head) + len(presence.tail) + sum(map(len, accounts)) + 64
            self._mesh.send(self._mesh.member(node), record, size)
        return shown

    def probe(self, session: Session, contacts: Sequence[str]) -> None:
        """See `Cluster.probe`."""
        asked: dict[int, list[str]] = {}
        for contact in (session.account, *contacts):
            for place in self._mesh.places(contact):
                if place.priority is not None and contact not in asked.setdefault(place.node, []):
                    asked[place.node].append(contact)
        for node, accounts in asked.items():
            if accounts:
                self._ask(self._mesh.member(node), session, accounts)

    def _ask(self, member: Member, session: Session, accounts: list[str]) -> None:
        self._mesh.send(member, Probe(session.full, accounts), sum(map(len, accounts)) + 64)

    def direct(self, account: str, address: str, stanza: bytes) -> None:
        """See `Cluster.direct`."""
        _, _, resource = address.partition("/")
        nodes = {
            place.node
            for place in self._mesh.places(account)
            if (place.resource == resource if resource else place.priority is not None)
        }
        for node in nodes:
            self._mesh.send(self._mesh.member(node), Directed("", address, stanza), len(stanza) + 64)

    # what sessions here are shown

    def take(self, member: Member, record: Presence) -> None:
        """A broadcast for the sessions of some accounts; those that the sender's node does not know of yet
        are shown it otherwise (`Shown`).
        """
        if record.is_end and self._is_elsewhere(member, record.sender):
            return
        if len(record.receivers) <= STEP:
            for account in record.receivers:
                self._show(member, record, account)
        else:
            self._sessions.rounds.do(f"{record.sender}\naway", self._showing(member, record), is_short=False)

    def _showing(self, member: Member, record: Presence) -> Iterator[None]:
        for number, account in enumerate(record.receivers):
            self._show(member, record, account)
            if number % STEP == STEP - 1:
                yield

    def _show(self, member: Member, record: Presence, account: str) -> None:
        live = self._sessions.accounts.get(account)
        if live is None or not live.available:
            return
        young = member.young
        for shown in self._visibility.filtered(account, record.head + live.to_stamp + record.tail):
            for session in live.available:
                if session.full not in young:
                    session.send_copy(shown)

    def _is_elsewhere(self, member: Member, full: str) -> bool:
        """Whether another session with this full JID is here or on another node: what is shown of it now is
        that.
        """
        if full in self._sessions.by_full:
            return True
        account, _, resource = full.partition("/")
        return any(place.node != member.index for place in self._mesh.whereabouts.at(account, resource))

    def take_probe(self, member: Member, record: Probe) -> None:
        """Show a session there what it may see of these accounts."""
        viewer = record.viewer.partition("/")[0]
        stanzas: list[tuple[bytes, bytes]] = []
        size = 0
        for account in record.accounts:
            live = self._sessions.accounts.get(account)
            if live is None or not self._may_see(viewer, live):
                continue
            for seen in live.available:
                if seen.presence is None or not self._visibility.allows(viewer, seen.full):
                    continue
                stanzas.append((seen.presence.head, seen.presence.tail))
                size += len(seen.presence.head) + len(seen.presence.tail)
                if size > SHOWN_BYTES:
                    self._mesh.send(member, Shown(record.viewer, stanzas), size)
                    stanzas, size = [], 0
        if stanzas:
            self._mesh.send(member, Shown(record.viewer, stanzas), size)

    @staticmethod
    def _may_see(viewer: str, live: LiveAccount) -> bool:
        return viewer == live.account or (live.roster is not None and live.roster.is_follower(viewer))

    def take_shown(self, member: Member, record: Shown) -> None:
        """Presence for one session of this node."""
        session = self._sessions.by_full.get(record.viewer)
        if session is None or session.presence is None:
            return
        stamp = session.live.to_stamp
        for head, tail in record.stanzas:
            for shown in self._visibility.filtered(session.account, head + stamp + tail):
                session.send_copy(shown)

    def take_directed(self, member: Member, record: Directed) -> None:
        """Directed presence for one address."""
        account = record.to.partition("/")[0]
        self._presences.direct_here(account, record.to, record.raw)

    # coming and going

    def came(self, member: Member, record: Place) -> None:
        """A session there became available. Those of ours that its node did not know of when it told us of it
        are shown to it now, if it may see them: neither could ask for the other.
        """
        full = f"{record.account}/{record.resource}"
        for name, frame in member.young.items():
            session = self._sessions.by_full.get(name)
            if frame <= record.seen or session is None or session.presence is None:
                continue
            if self._may_see(record.account, session.live) and self._visibility.allows(record.account, name):
                shown = [(session.presence.head, session.presence.tail)]
                self._mesh.send(member, Shown(full, shown), len(shown[0][0]) + len(shown[0][1]) + 64)

    def met(self, member: Member) -> None:
        """Its places come first."""

    def joined(self, member: Member) -> None:
        """All its places are known: have them show themselves to who is here."""
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
                self._ask(member, session, here)
            yield

    def lost(self, member: Member) -> Iterator[None]:
        """Its sessions are at their end: show that to all who saw them."""
        gone: dict[str, list[str]] = {}
        for found in self._mesh.whereabouts.places_of(member.index):
            if found is not None and found[1].priority is not None:
                account, place = found
                full = f"{account}/{place.resource}"
                if not self._is_elsewhere(member, full):
                    gone.setdefault(account, []).append(full)
            yield
        for name in [*self._sessions.accounts] if gone else ():
            live = self._sessions.accounts.get(name)
            if live is None or not live.available:
                continue
            for contact in (name, *(live.roster.following if live.roster is not None else ())):
                for full in gone.get(contact, ()):
                    self._show_end(live, full)
            yield

    def _show_end(self, live: LiveAccount, full: str) -> None:
        head = build.start_tag("presence", {"from": full, "type": "unavailable"})
        for shown in self._visibility.filtered(live.account, head + live.to_stamp + b"/>"):
            for session in live.available:
                session.send_copy(shown)
