"""Who sees whom: broadcasts, probes, directed presence (RFC 6121 section 4)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Container, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from xmppd.core.available import Unshown, priority_of
from xmppd.core.begun import both, pause
from xmppd.core.directed import Directed
from xmppd.core.lastseen import SILENCE, LastSeen
from xmppd.core.origin import Target
from xmppd.core.output import patiently
from xmppd.core.roster.rosters import Roster, Rosters
from xmppd.core.services import Services
from xmppd.core.sessions import RETURN, Broadcast, LiveAccount, Moved, Session, Sessions, to_stamp
from xmppd.core.shown import UNAVAILABLE, Late, annexed, end_of, subscription_stanza
from xmppd.core.visibility import Visibility
from xmppd.errors import StoreError
from xmppd.hooks import Hooks
from xmppd.jid import Jid, domain_of
from xmppd.xml import build
from xmppd.xml.stanza import Stanza

LONGEST_WAIT = 1.0
"""Seconds after which a session that waits is listened to again, so that its end is noticed. Only its next
presence waits for what is left.
"""

STEP = 32
"""To how many contacts a presence is shown before it is looked whether others should have their turn."""


@dataclass(frozen=True, slots=True)
class PresenceRules:
    """Copies of its presence that one session may cause in a second, and at once after a pause. A rate of 0:
    no limit. Who causes more is not read from for a while; nothing is dropped. `bytes`: the longest presence.
    """

    copy_rate: float = 0.0
    copy_burst: int = 10_000
    bytes: int = 16_384


class Presences:
    """Broadcasts presence between the sessions of this node."""

    def __init__(
        self,
        sessions: Sessions,
        rosters: Rosters,
        last_seen: LastSeen,
        visibility: Visibility,
        services: Services,
        hooks: Hooks,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        rules: PresenceRules,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rules = rules
        self._clock = clock
        self._sessions = sessions
        self._live = sessions.accounts
        self._targets = sessions.targets
        self._rosters = rosters
        self._last_seen = last_seen
        self._visibility = visibility
        self.services = services
        self._hooks = hooks
        self._rounds = sessions.rounds
        self._indebted: set[Session] = set()
        self._unshown = Unshown(spawn, self._show_at_last)

    # what a client sends

    def update(self, session: Session, stanza: Stanza) -> Awaitable[None] | None:
        """Undirected presence: available (type None) or unavailable (RFC 6121 4.2, 4.4, 4.5)."""
        if self._indebted and session in self._indebted:
            return self._update_when_paid(session, stanza)
        if self._unshown:
            self._unshown.drop(session)
        if stanza.type == "unavailable":
            return self._leave(session, stanza)
        priority = priority_of(stanza)
        live = session.live
        if live.roster is None:
            try:
                roster = self._rosters.load(session.account)
            except StoreError:
                return self._unshown.put(session, stanza)
            if not isinstance(roster, Roster):
                return self._update_later(session, stanza, priority, roster)
            live.roster = roster
        return self._available(session, stanza, priority)

    async def _update_when_paid(self, session: Session, stanza: Stanza) -> None:
        while (early := session.paid_until - self._clock()) > 0 and not session.is_over:
            await pause(min(early, LONGEST_WAIT))
        self._indebted.discard(session)
        if not session.is_over and (waiting := self.update(session, stanza)) is not None:
            await waiting

    def _leave(self, session: Session, stanza: Stanza) -> Awaitable[None] | None:
        """The client says that it becomes unavailable; it is told of that too (RFC 6121 4.5.2)."""
        unavailable = session.broadcast_of(stanza)
        if session.presence is None:
            self._withdraw_directed(session, unavailable)
            return None
        done = self._withdraw(session, unavailable, status=len(stanza.xml) > 0)
        session.send(unavailable.head + session.live.to_stamp + unavailable.tail)
        return self._paid(session, done)

    async def _update_later(
        self, session: Session, stanza: Stanza, priority: int, loading: Awaitable[Roster]
    ) -> None:
        try:
            self.adopt(session.live, await loading)
        except StoreError:
            await self._unshown.put(session, stanza)
            return
        if not session.is_over and (waiting := self._available(session, stanza, priority)) is not None:
            await waiting

    async def _show_at_last(self, session: Session, stanza: Stanza) -> bool:
        try:
            roster = self._rosters.load(session.account)
            self.adopt(session.live, roster if isinstance(roster, Roster) else await roster)
        except StoreError:
            return False
        is_newest = self._unshown.is_newest(session, stanza)
        if is_newest and (waiting := self._available(session, stanza, priority_of(stanza))) is not None:
            await waiting
        return True

    def _available(self, session: Session, stanza: Stanza, priority: int) -> Awaitable[None] | None:
        is_first = session.presence is None
        if is_first and self._rounds.is_due:
            self._rounds.finish(_farewell(session))
        takes_messages = priority >= 0 and (is_first or session.priority < 0)
        is_shifted = is_first or session.priority != priority
        session.presence = annexed(self._hooks, session, session.broadcast_of(stanza))
        session.priority = priority
        if is_shifted:
            session.live.refresh()
            self._sessions.cluster.shifted(session)
        waiting = self._paid(session, self._broadcast(session, session.presence, is_first=is_first))
        if is_first and not session.live.is_alone and (drawn := session.give(self._initial(session))):
            shown = patiently(drawn)  # what the client asks next is answered behind it
            waiting = shown if waiting is None else both(waiting, shown)
        if not (is_first or takes_messages):
            return waiting
        told = self._hooks.tell(self._hooks.session_available_signal, session)
        session.release_messages(RETURN)  # whoever hands over what is stored has begun
        return told if waiting is None else waiting if told is None else both(told, waiting)

    def restate(self, session: Session) -> float:
        """Show a presence again with what plugins add to it now. Seconds until that may be done: 0.0, it was,
        or there is none. The session's own next presence waits where these were more copies than the rules
        allow.
        """
        early = session.paid_until - self._clock() if self.rules.copy_rate else 0.0
        if early > 0 or session.presence is None or session.said is None:
            return max(0.0, early) if session.presence is not None else 0.0
        session.presence = annexed(self._hooks, session, session.said)
        self._broadcast(session, session.presence)
        return 0.0

    def _charge(self, session: Session, copies: int) -> None:
        """Count copies."""
        rules = self.rules
        if rules.copy_rate:
            start = max(session.paid_until, self._clock() - rules.copy_burst / rules.copy_rate)
            session.paid_until = start + copies / rules.copy_rate

    def _paid(self, session: Session, done: Awaitable[None] | None) -> Awaitable[None] | None:
        """What the session has to wait for: the end of a broadcast, and longer when that made more copies
        than the rules allow.
        """
        if done is not None:
            return self._paid_later(session, done)
        early = session.paid_until - self._clock() if self.rules.copy_rate else 0.0
        if early <= 0:
            return self._sessions.cluster.room()
        if early > LONGEST_WAIT:
            self._indebted.add(session)
        return pause(min(early, LONGEST_WAIT))

    async def _paid_later(self, session: Session, done: Awaitable[None]) -> None:
        await done
        if not session.is_over and (waiting := self._paid(session, None)) is not None:
            await waiting

    # broadcasts, some receivers in each step

    def _broadcast(
        self, session: Session, presence: Broadcast, *, is_first: bool = False
    ) -> asyncio.Future[None] | None:
        """Show a presence to the session's followers and to its own account, its end if it is not available;
        what is done when all were shown it, None if they are. With the first one those of other nodes are
        asked to show themselves.
        """
        roster = session.live.roster
        followers = roster.followers if roster is not None else ()
        steps = self._shown(session, presence, roster, is_end=session.presence is None, is_first=is_first)
        return self._rounds.do(session.full, steps, is_short=len(followers) <= STEP)

    def _shown(
        self, session: Session, presence: Broadcast, roster: Roster | None, *, is_end: bool, is_first: bool
    ) -> Iterator[None]:
        """Who loses sight of the session meanwhile is told of its end there and then. The end itself goes to
        all followers of its moment. Other nodes are told first of a first presence, to go with the session's
        place; of all else last, when it was seen who may be there at all (`beyond`).
        """
        live, copies, cluster = session.live, 0, self._sessions.cluster
        beyond: list[str] | None = [] if cluster and not (is_first or is_end) else None
        followers: Sequence[str] = roster.followers if roster is not None else ()
        if is_first and cluster.elsewhere:
            copies += self._show_elsewhere(session, presence, followers, is_first=True)
        for start in range(0, len(followers), STEP):
            contacts = followers[start : start + STEP]
            if not is_end and session.presence is not presence:
                break  # it is over, and its end comes next
            if not is_end and live.roster is not roster and live.roster is not None:
                contacts = [contact for contact in contacts if live.roster.is_follower(contact)]
            if is_end and cluster.is_elsewhere(session.full):
                cluster.show_other(session.full, contacts)
            elif isinstance(presence, Moved):
                copies += self._withhold(session, presence, contacts)
            else:
                copies += self._copies(session, presence, contacts, beyond)
            yield
        else:
            copies += self._copies_to_itself(session, presence, is_end=is_end)
            if is_end and cluster.elsewhere:
                copies += self._show_elsewhere(session, presence, followers)
            elif beyond is not None and (beyond or live.is_split) and session.presence is presence:
                if live.roster is not roster and live.roster is not None:
                    beyond = [*filter(live.roster.is_follower, beyond)]
                copies += self._show_elsewhere(session, presence, beyond) if cluster.elsewhere else 0
            if not is_end and cluster.expected:
                cluster.returned(session, (session.account, *followers))
        self._charge(session, copies)
        if is_end:
            cluster.shifted(session)

    def _copies_to_itself(self, session: Session, presence: Broadcast, *, is_end: bool) -> int:
        """Send a copy to every available resource of the session's own account; how many these were."""
        live, cluster = session.live, self._sessions.cluster
        if is_end and cluster.is_elsewhere(session.full):
            cluster.show_other(session.full, (session.account,))
            return 0
        if isinstance(presence, Moved):
            cluster.withhold(session.full, (session.account,))
            return 0
        copy = presence.head + live.to_stamp + presence.tail
        for receiver in live.available:
            receiver.send_copy(copy)
        return len(live.available)

    def _show_elsewhere(
        self, session: Session, presence: Broadcast, followers: Sequence[str], *, is_first: bool = False
    ) -> int:
        """Show a presence to those of some followers, and of the own sessions, that are on other nodes, and
        have them show themselves to a session that became available; how many accounts are there.
        """
        contacts, roster = [session.account, *followers], session.live.roster
        if not (is_told_all := not session.live.blocks and self._hooks.sees is None):
            contacts = [name for name in contacts if self._visibility.allows(name, session.full)]
        shown = self._sessions.cluster.show(session, presence, contacts, asks=is_first)
        if is_first and roster is not None and not (is_told_all and roster.following is roster.followers):
            told = frozenset(contacts)
            self._sessions.cluster.probe(session, [name for name in roster.following if name not in told])
        return shown

    def _copies(
        self, session: Session, presence: Broadcast, contacts: Sequence[str], beyond: list[str] | None
    ) -> int:
        """Send a copy to every available resource of some contacts, and to those on hosts of services; how
        many these were. Contacts that may be on other nodes are added to `beyond`.
        """
        head, tail = presence
        own = f"@{domain_of(session.account)}" if self.services else ""
        copies = 0
        accounts, filters = self._live, self._hooks.presence_for_filter
        if session.live.blocks or self._hooks.sees is not None:
            contacts = [name for name in contacts if self._visibility.allows(name, session.full)]
        for contact in contacts:
            other = accounts.get(contact)
            if other is None or not (receivers := other.audience):
                if beyond is not None:
                    beyond.append(contact)
                if other is None or not (receivers := () if other.bars(session.full) else other.available):
                    if own and not contact.endswith(own):
                        copies += self._tell_service(session, presence, contact)
                    continue
            copy = head + other.to_stamp + tail
            if filters and not (copy := self._hooks.shown(contact, copy)):
                continue
            for receiver in receivers:
                receiver.send_copy(copy)
                copies += 1
        return copies

    def _withhold(self, session: Session, end: Moved, contacts: Sequence[str]) -> int:
        """Show contacts here nothing of a session's end for a while; services are told. How many copies."""
        own = f"@{domain_of(session.account)}"
        self._sessions.cluster.withhold(session.full, contacts)
        return sum(self._tell_service(session, end, name) for name in contacts if not name.endswith(own))

    def _tell_service(self, session: Session, presence: Broadcast, address: str) -> int:
        """Hand a presence to an address on the host of a service, if it is on one; how many copies."""
        if domain_of(address) not in self.services:
            return 0
        self.services.tell(session, presence.head + to_stamp(address) + presence.tail, address)
        return 1

    def _initial(self, session: Session) -> Iterator[bytes]:
        """What a new available session is shown, as a probe would: its own resources, its contacts, open
        requests, last words. Each as it is when the client takes it: who left meanwhile is not shown.
        """
        live = session.live
        to, roster = live.to_stamp, live.roster
        assert roster is not None
        for own in live.available:
            if own is not session and own.presence is not None:
                yield own.presence.head + to + own.presence.tail
        yield from self.contacts_of(session, roster.following)
        if session.presence is None:
            return
        for contact, kept in roster.requests:
            is_open = live.roster is roster or (live.roster is not None and live.roster.is_asked_by(contact))
            if is_open and not live.bars(contact):
                yield subscription_stanza("subscribe", contact, session.account, kept)

    def contacts_of(self, session: Session, contacts: Sequence[str]) -> Iterator[bytes]:
        """What those of some contacts show a session that are on this node; for those on no node it is looked
        elsewhere.
        """
        missing, hidden = [], self._visibility.hidden.among(contacts, session.account)
        for contact in contacts:
            if session.presence is None:
                return
            other = self._live.get(contact)
            if other is None or not other.available:
                missing.append(contact)
            elif other.roster is not None and other.roster.is_follower(session.account):
                yield from self._shown_of(other, session)
        if absent := [*self._sessions.cluster.away(missing), *hidden]:
            self._ask_elsewhere(session, absent)

    def _shown_of(self, other: LiveAccount, viewer: Session) -> Iterator[bytes]:
        """The sessions of somebody else as a follower is shown them."""
        visibility, live = self._visibility, viewer.live
        for seen in other.available:
            if (presence := seen.presence) is not None and visibility.is_all_shown(live, other):
                yield presence.head + live.to_stamp + presence.tail
            elif presence is not None and visibility.allows(viewer.account, seen.full):
                copy = presence.head + live.to_stamp + presence.tail
                yield from visibility.filtered(viewer.account, copy)

    def _ask_elsewhere(self, session: Session, absent: Sequence[str]) -> None:
        """Have those who are not here show themselves: services by a probe, accounts by their last words."""
        if session.live.blocks:
            absent = [contact for contact in absent if not session.live.bars(contact)]
        abroad: Sequence[str] = ()
        if self.services:
            abroad = [contact for contact in absent if domain_of(contact) in self.services]
        if abroad:
            self._rounds.do(f"{session.full}\nprobes", self._probing(session, abroad), is_short=False)
            absent = [contact for contact in absent if domain_of(contact) not in self.services]
        if absent:
            self._last_seen.show(session, absent)

    def _probing(self, session: Session, contacts: Sequence[str]) -> Iterator[None]:
        """Ask services for the presence of their addresses (RFC 6121 4.3.1)."""
        for contact in contacts:
            if session.presence is None:
                break
            probe = build.start_tag("presence", {"type": "probe", "from": session.full, "to": contact})
            self.services.tell(session, probe + b"/>", contact)
            yield

    def _withdraw(
        self, session: Session, unavailable: Broadcast, *, status: bool
    ) -> asyncio.Future[None] | None:
        """End a session's availability: tell everybody who was told of it (RFC 6121 4.5.2, 4.6.3). What is
        done when its followers were told, None if they are.

        `status` says whether `unavailable` holds anything worth keeping for later probes.
        """
        live = session.live
        self._withdraw_directed(session, unavailable)
        session.presence = None
        live.refresh()
        done = self._broadcast(session, unavailable)
        if not (self._sessions.is_available(session.account) or session.is_anonymous):
            self._last_seen.remember(session.account, unavailable if status else SILENCE)
        return done

    def forget_words(self, account: str) -> None:
        """It looks as if the account had left without a word."""
        self._last_seen.remember(account, SILENCE)

    def lost(self, session: Session, *, is_moved: bool = False) -> asyncio.Future[None] | None:
        """A session is going away without having said so (RFC 6121 4.5.3), and is expected on another node if
        it `is_moved`; what is done when its followers were told.
        """
        self._indebted.discard(session)
        unavailable = (Moved if is_moved else Broadcast)(session.presence_head + UNAVAILABLE, b"/>")
        if session.presence is not None:
            return self._withdraw(session, unavailable, status=False)
        self._withdraw_directed(session, unavailable)
        return None

    # directed presence

    def direct(self, stanza: Stanza, to: Jid) -> Awaitable[None] | None:
        """Presence for one entity of ours (RFC 6121 4.6); what its sender waits for."""
        self.direct_here(to.bare, to.full, stanza.raw)
        cluster, kind = self._sessions.cluster, stanza.type
        if cluster:
            sender = stanza.attrs["from"] if kind in (None, "unavailable") else ""
            cluster.direct(sender, to.full, stanza.raw, is_end=kind is not None)
        return cluster.room()

    def note_directed(self, session: Session, stanza: Stanza, to: Jid) -> bool:
        """Keep in mind who was sent directed presence: it learns when the session becomes unavailable.
        Whether it may see it; StanzaError resource-constraint when there are too many.
        """
        if self._rounds.is_due:  # the end of the last session of that name comes before it
            self._rounds.finish(session.full)
            self._rounds.finish(_farewell(session))
        if stanza.type is None:
            if not self._visibility.allows(to.bare, session.full):
                return False
            if session.directed is None:
                session.directed = Directed()
            session.directed.note(to.bare, to.full, stanza.raw)
            return True
        if stanza.type == "unavailable" and session.directed is not None:
            session.directed.forget(to.bare, to.full)
        if to.domain in self.services:
            return True
        hidden = self._visibility.hidden  # whose end was seen when it began to hide
        return not (hidden and hidden.has(session.account, to.bare))

    def _withdraw_directed(self, session: Session, unavailable: Broadcast) -> None:
        """End directed presence, before the broadcast that ends all other."""
        directed, session.directed = session.directed, None
        due: list[tuple[str, str]] = []
        for account, shown in directed.items() if directed is not None else ():
            is_told = self._visibility.is_told(session, account)
            due += [(account, full) for full in shown if not (is_told and self._hears_broadcasts(full))]
        if due:
            steps = self._parting(session, unavailable, due)
            self._rounds.do(_farewell(session), steps, is_short=len(due) <= STEP)

    def _parting(
        self, session: Session, unavailable: Broadcast, due: Sequence[tuple[str, str]]
    ) -> Iterator[None]:
        for start in range(0, len(due), STEP):
            for account, address in due[start : start + STEP]:
                self._part_from(session, unavailable, account, address)
            yield

    def _part_from(self, session: Session, unavailable: Broadcast, account: str, address: str) -> None:
        if not self._tell_service(session, unavailable, address) and self._is_there(account, address):
            data, cluster = unavailable.head + to_stamp(address) + unavailable.tail, self._sessions.cluster
            is_moved = isinstance(unavailable, Moved)
            if not (is_moved and cluster.withhold_directed(session.full, address)):
                self.direct_here(account, address, data, but=cluster.sent_directed(session.full, address))
            cluster.direct(session.full, address, data, is_end=True, is_moved=is_moved)

    def _is_there(self, account: str, address: str) -> bool:
        cluster = self._sessions.cluster
        is_elsewhere = cluster.has(address) if address != account else cluster.is_available(account)
        return is_elsewhere or bool(self._receivers(account, address))

    def _hears_broadcasts(self, address: str) -> bool:
        """Whether a broadcast to its account reaches all that directed presence to the address did. A service
        knows its addresses one by one: an occupant of a room is not the room.
        """
        receiver = self._targets.get(address)
        if receiver is not None:
            return receiver.presence is not None
        if self._sessions.cluster.has(address):
            account = address.partition("/")[0]
            return any(target.full == address for target in self._sessions.cluster.targets(account))
        return "/" not in address or domain_of(address) not in self.services

    def direct_here(
        self, account: str, address: str, data: bytes, *, but: Container[str] = frozenset()
    ) -> bool:
        """Hand directed presence to the address, bare or full, on this node, but for some sessions; whether
        anybody is there.
        """
        receivers = [receiver for receiver in self._receivers(account, address) if receiver.full not in but]
        for shown in self._visibility.filtered(account, data) if receivers else ():
            for receiver in receivers:
                receiver.send(shown)
        return bool(receivers)

    def _receivers(self, account: str, address: str) -> Sequence[Target]:
        if address != account:
            receiver = self._targets.get(address)
            return () if receiver is None else (receiver,)
        live = self._live.get(account)
        return live.available if live is not None else ()

    # what subscriptions need

    def show(self, account: str, contact: str) -> None:
        """Send the presence of all the account's available resources to a contact who may see it
        from now on.
        """
        live = self._live.get(account)
        if live is None:
            return
        self._sessions.cluster.granted(account, contact)
        for session in live.sessions:
            if session.presence is not None and self._visibility.is_told(session, contact):
                self._copy(session, contact, session.presence)
                self._sessions.cluster.returned(session, (contact,))

    def hide(self, account: str, contact: str) -> None:
        """Send unavailable from all the account's available resources to a contact who still may see them."""
        live = self._live.get(account)
        if live is not None and live.roster is not None and live.roster.is_follower(contact):
            self._hide(live, contact)

    def adopt(self, live: LiveAccount, roster: Roster, late: Late | None = None) -> None:
        """Hold this roster unless a newer one is held. Who may see the account no more is shown its end in
        the same step: a logout has no gap to fall into. Who may see it from now on is shown it, or is `late`.
        """
        before = live.roster
        live.update_roster(roster)
        after = live.roster
        if before is None or after is None or after is before:
            return
        if self._sessions.cluster and after.following != before.following:
            past, now = frozenset(before.following), frozenset(after.following)
            if past - now:
                self._sessions.cluster.unfollowed(live.account, past - now)
            if now - past:
                self._sessions.cluster.followed(live.account, sorted(now - past))
        if after.followers is before.followers:
            return
        had, has = frozenset(before.followers), frozenset(after.followers)
        for contact in had - has:
            self._hide(live, contact)
        for contact in sorted(has - had):
            if late is None:
                self.show(live.account, contact)
            else:
                late[live.account, contact] = None

    def _hide(self, live: LiveAccount, contact: str) -> None:
        """Send unavailable from all the account's available resources to a contact who saw them."""
        for session in live.sessions:
            if session.presence is not None and self._visibility.allows(contact, session.full):
                self.part(session, contact)

    def part(self, session: Session, contact: str) -> None:
        """Show the end of a session to a contact who saw its broadcasts."""
        self._forget_directed(session, contact)
        self._copy(session, contact, end_of(session))

    def part_from(self, session: Session, address: str) -> None:
        """Show it to an address, bare or full, which may have been sent directed presence."""
        account = address.partition("/")[0]
        if session.directed is not None:
            session.directed.forget(account, address)
        self._part_from(session, end_of(session), account, address)

    def _forget_directed(self, session: Session, contact: str) -> None:
        """The contact hears of the session's end now, and not once more later."""
        if session.directed is not None:
            for address in tuple(session.directed.of(contact)):
                if self._hears_broadcasts(address):
                    session.directed.forget(contact, address)

    def _copy(self, session: Session, contact: str, presence: Broadcast) -> None:
        to = self._live.get(contact)
        if to is None:
            self._tell_service(session, presence, contact)
        elif to.available:
            for shown in self._visibility.filtered(contact, presence.head + to.to_stamp + presence.tail):
                for receiver in to.available:
                    receiver.send(shown)
        if self._sessions.cluster:
            self._sessions.cluster.show(session, presence, (contact,))


def _farewell(session: Session) -> str:
    """The key of the work that tells those of a session's end whom it sent directed presence."""
    return f"{session.full}\n"
