"""Who sees whom: broadcasts, probes, directed presence (RFC 6121 section 4)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from xmppd import ns
from xmppd.core.lastseen import SILENCE, LastSeen
from xmppd.core.origin import Origin
from xmppd.core.roster.rosters import Roster, Rosters
from xmppd.core.services import Services
from xmppd.core.sessions import Broadcast, LiveAccount, Session, Sessions, to_stamp
from xmppd.errors import JidError, StanzaError
from xmppd.hooks import Hooks
from xmppd.jid import Jid
from xmppd.xml import build
from xmppd.xml.stanza import Stanza

DIRECTED_LIMIT = 1000
"""How many entities one session may keep directed presence with."""

LONGEST_WAIT = 1.0
"""Seconds after which a session that waits is listened to again, so that its end is noticed."""


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
        services: Services,
        hooks: Hooks,
        rules: PresenceRules,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rules = rules
        self._clock = clock
        self._live = sessions.accounts
        self._targets = sessions.targets
        self._rosters = rosters
        self._last_seen = last_seen
        self._services = services
        self._hooks = hooks

    # what a client sends

    def update(self, session: Session, stanza: Stanza) -> Awaitable[None] | None:
        """Undirected presence: available (type None) or unavailable (RFC 6121 4.2, 4.4, 4.5)."""
        if stanza.type == "unavailable":
            return self._charge(session, self._leave(session, stanza))
        priority = priority_of(stanza)
        live = session.live
        if live.roster is None:
            roster = self._rosters.load(session.account)
            if not isinstance(roster, Roster):
                return self._update_later(session, stanza, priority, roster)
            live.roster = roster
        return self._available(session, stanza, priority)

    def _leave(self, session: Session, stanza: Stanza) -> int:
        """The client says that it becomes unavailable; it is told of that too (RFC 6121 4.5.2). How many
        copies that made.
        """
        unavailable = session.broadcast_of(stanza)
        if session.presence is None:
            self._withdraw_directed(session, unavailable)
            return 0
        copies = self.withdraw(session, unavailable, status=len(stanza.xml) > 0)
        session.send(unavailable.head + session.live.to_stamp + unavailable.tail)
        return copies

    async def _update_later(
        self, session: Session, stanza: Stanza, priority: int, loading: Awaitable[Roster]
    ) -> None:
        self.adopt(session.live, await loading)
        if not session.is_over and (waiting := self._available(session, stanza, priority)) is not None:
            await waiting

    def _available(self, session: Session, stanza: Stanza, priority: int) -> Awaitable[None] | None:
        is_first = session.presence is None
        takes_messages = priority >= 0 and (is_first or session.priority < 0)
        session.presence = session.broadcast_of(stanza)
        session.priority = priority
        session.live.refresh()
        waiting = self._charge(session, self.broadcast(session, session.presence))
        if is_first:
            session.give(self._initial(session))
        if (is_first or takes_messages) and self._hooks.session_available_signal:
            return self._hooks.tell(self._hooks.session_available_signal, session)
        return waiting

    def _charge(self, session: Session, copies: int) -> asyncio.Future[None] | None:
        """Count copies; what the session has to wait for, when there were more than the rules allow."""
        rules = self.rules
        if not rules.copy_rate:
            return None
        now = self._clock()
        start = max(session.paid_until, now - rules.copy_burst / rules.copy_rate)
        session.paid_until = start + copies / rules.copy_rate
        early = session.paid_until - now
        return pause(min(early, LONGEST_WAIT)) if early > 0 else None

    def broadcast(self, session: Session, presence: Broadcast) -> int:
        """Send a copy to every available resource of the session's followers and of its own account; how many
        these were.
        """
        head, tail = presence
        live = session.live
        copies = len(live.available)
        accounts, filters = self._live, self._hooks.presence_for_filter
        for contact in live.roster.followers if live.roster is not None else ():
            other = accounts.get(contact)
            if other is not None and other.available:
                copy = head + other.to_stamp + tail
                if filters and not (copy := self._hooks.shown(contact, copy)):
                    continue
                copies += len(other.available)
                for receiver in other.available:
                    receiver.send_copy(copy)
        copy = head + live.to_stamp + tail
        for receiver in live.available:
            receiver.send_copy(copy)
        return copies

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
        absent = []
        for contact in roster.following:
            if session.presence is None:
                return
            other = self._live.get(contact)
            if other is None or not other.available:
                absent.append(contact)
            elif other.roster is not None and other.roster.is_follower(session.account):
                for seen in other.available:
                    if seen.presence is not None:
                        yield from self._for(session.account, seen.presence.head + to + seen.presence.tail)
        for contact, payload in roster.requests:
            if live.roster is roster or is_asked(live.roster, contact):
                yield subscription_stanza("subscribe", contact, session.account, payload)
        if absent:
            self._last_seen.show(session, absent)

    def withdraw(self, session: Session, unavailable: Broadcast, *, status: bool) -> int:
        """End a session's availability: tell everybody who was told of it (RFC 6121 4.5.2, 4.6.3). How many
        copies that made.

        `status` says whether `unavailable` holds anything worth keeping for later probes.
        """
        live = session.live
        self._withdraw_directed(session, unavailable)
        session.presence = None
        live.refresh()
        copies = self.broadcast(session, unavailable)
        if not (live.available or session.is_anonymous):
            self._last_seen.remember(session.account, unavailable if status else SILENCE)
        return copies

    def lost(self, session: Session) -> None:
        """A session is going away without having said so (RFC 6121 4.5.3)."""
        unavailable = Broadcast(session.presence_head + b" type='unavailable'", b"/>")
        if session.presence is not None:
            self.withdraw(session, unavailable, status=False)
        else:
            self._withdraw_directed(session, unavailable)

    # directed presence

    def direct(self, stanza: Stanza, to: Jid) -> None:
        """Presence for one entity of ours (RFC 6121 4.6)."""
        self._send_to(to, stanza.raw)

    def _for(self, account: str, data: bytes) -> tuple[bytes, ...]:
        """A presence of somebody else's as the filters of an account leave it; nothing when one ends it."""
        if not self._hooks.presence_for_filter:
            return (data,)
        shown = self._hooks.shown(account, data)
        return (shown,) if shown else ()

    @staticmethod
    def note_directed(session: Session, stanza: Stanza, to: Jid) -> None:
        """Keep in mind who was sent directed presence: it learns when the session becomes unavailable;
        StanzaError resource-constraint when there are too many.
        """
        target = to.full
        if stanza.type is not None:
            if stanza.type == "unavailable" and session.directed is not None:
                session.directed.discard(target)
            return
        if session.directed is None:
            session.directed = set()
        if len(session.directed) >= DIRECTED_LIMIT and target not in session.directed:
            raise StanzaError(
                "resource-constraint", f"Directed presence to more than {DIRECTED_LIMIT} entities."
            )
        session.directed.add(target)

    def _withdraw_directed(self, session: Session, unavailable: Broadcast) -> None:
        """End directed presence, before the broadcast that ends all other."""
        directed, session.directed = session.directed, None
        for target in directed or ():
            to = Jid.parse(target)
            if not (self._is_told(session, to.bare) and self._hears_broadcasts(to)):
                stamp = f" to='{build.escape_attribute(target)}'".encode()
                self._leave_for(session, to, unavailable.head + stamp + unavailable.tail)

    def _leave_for(self, session: Session, to: Jid, data: bytes) -> None:
        if to.domain not in self._services:
            self._send_to(to, data)
            return
        attrs = {"type": "unavailable", "from": session.full, "to": to.full}
        self._services.tell(session, Stanza("presence", attrs, data), to)

    @staticmethod
    def _is_told(session: Session, account: str) -> bool:
        """Whether broadcasts of the session go to this account now."""
        roster = session.live.roster
        is_follower = roster is not None and roster.is_follower(account)
        return session.presence is not None and (is_follower or account == session.account)

    def _hears_broadcasts(self, to: Jid) -> bool:
        """Whether a broadcast to the account of `to` reaches all that directed presence to it did."""
        receiver = self._targets.get(to.full) if to.resource else None
        return receiver is None or receiver.presence is not None

    def _send_to(self, to: Jid, data: bytes) -> None:
        for shown in self._for(to.bare, data):
            if to.resource:
                receiver = self._targets.get(to.full)
                if receiver is not None:
                    receiver.send(shown)
                return
            live = self._live.get(to.bare)
            for receiver in live.available if live is not None else ():
                receiver.send(shown)

    # what subscriptions need

    def probe(self, origin: Origin, to: Jid) -> Awaitable[None] | None:
        """A probe (RFC 6121 4.3.2), by a client as a rule. Who may not see is told the same of everybody."""
        roster = self._rosters.load(to.bare)
        if isinstance(roster, Roster):
            return self._answer_probe(origin, to, roster)
        return self._probe_later(origin, to, roster)

    async def _probe_later(self, origin: Origin, to: Jid, loading: Awaitable[Roster]) -> None:
        waiting = self._answer_probe(origin, to, await loading)
        if waiting is not None:
            await waiting

    def _answer_probe(self, origin: Origin, to: Jid, roster: Roster) -> Awaitable[None] | None:
        if to.bare != origin.account and not roster.is_follower(origin.account):
            origin.send(subscription_stanza("unsubscribed", to.bare, origin.account))
            return None
        live = self._live.get(to.bare)
        seen = [
            other.presence
            for other in (live.available if live is not None else ())
            if other.presence is not None and (not to.resource or other.full == to.full)
        ]
        stamp = to_stamp(origin.account)
        for presence in seen:
            copy = presence.head + stamp + presence.tail
            for shown in (copy,) if to.bare == origin.account else self._for(origin.account, copy):
                origin.send(shown)
        return None if seen else self._last_seen.answer(origin, to)

    def show(self, account: str, contact: str) -> None:
        """Send the presence of all the account's available resources to a contact who may see it
        from now on.
        """
        live, other = self._live.get(account), self._live.get(contact)
        if live is None or other is None:
            return
        for session in live.sessions.values():
            if session.presence is not None and self._is_told(session, contact):
                self._copy(other, session.presence)

    def adopt(self, live: LiveAccount, roster: Roster) -> frozenset[str]:
        """Hold this roster unless a newer one is held; who may see the account from now on. Whoever may see
        it no more is shown its end in the same step: a logout has no gap to fall into.
        """
        before = live.roster
        live.update_roster(roster)
        after = live.roster
        if before is None or after is None or after.followers is before.followers:
            return frozenset()
        had, has = frozenset(before.followers), frozenset(after.followers)
        for contact in had - has:
            self._hide(live, contact)
        return has - had

    def _hide(self, live: LiveAccount, contact: str) -> None:
        """Send unavailable from all the account's available resources to a contact who saw them."""
        other = self._live.get(contact)
        if other is None:
            return
        for session in live.sessions.values():
            if session.presence is None:
                continue
            self._forget_directed(session, contact)
            self._copy(other, Broadcast(session.presence_head + b" type='unavailable'", b"/>"))

    def _forget_directed(self, session: Session, contact: str) -> None:
        """The contact hears of the session's end now, and not once more later."""
        for target in tuple(session.directed or ()):
            to = Jid.parse(target)
            if session.directed is not None and to.bare == contact and self._hears_broadcasts(to):
                session.directed.discard(target)

    def _copy(self, to: LiveAccount, presence: Broadcast) -> None:
        for shown in self._for(to.account, presence.head + to.to_stamp + presence.tail):
            for receiver in to.available:
                receiver.send(shown)

    def is_visible(self, session: Session, to: str) -> bool:
        """Whether `to` (a bare JID) knows of this session's presence: by subscription, own account, or
        directed presence.
        """
        if to == session.account:
            return True
        roster = session.live.roster
        if session.presence is not None and roster is not None and roster.is_follower(to):
            return True
        return session.directed is not None and any(
            target == to or target.startswith(f"{to}/") for target in session.directed
        )


def priority_of(stanza: Stanza) -> int:
    """The presence's priority (RFC 6121 4.7.2.3); StanzaError bad-request unless -128..127."""
    if b"priority" not in stanza.raw:
        return 0
    found = stanza.xml.findall(f"{{{ns.CLIENT}}}priority")
    if not found:
        return 0
    text = (found[0].text or "").strip()
    digits = text[1:] if text[:1] in ("-", "+") else text
    if (
        len(found) > 1
        or not (digits.isascii() and digits.isdigit())
        or not -128 <= int(text[:5]) <= 127
        or len(digits) > 3
    ):
        raise StanzaError("bad-request", "A priority is one number from -128 to 127.")
    return int(text)


def is_asked(roster: Roster | None, contact: str) -> bool:
    """Whether a request of that contact waits for an answer."""
    return roster is not None and any(contact == asker for asker, _ in roster.requests)


def subscription_stanza(kind: str, sender: str, to: str, payload: bytes = b"") -> bytes:
    """A presence stanza that manages a subscription, between bare JIDs (RFC 6121 3)."""
    head = build.start_tag("presence", {"type": kind, "from": sender, "to": to})
    return head + (b">" + payload + b"</presence>" if payload else b"/>")


def address_of(stanza: Stanza) -> Jid:
    """The parsed `to` of a stanza that has one; StanzaError jid-malformed."""
    try:
        return Jid.parse(stanza.to or "")
    except JidError as error:
        raise StanzaError("jid-malformed", str(error)) from None


def pause(seconds: float) -> asyncio.Future[None]:
    """Done after so many seconds. Unlike a coroutine it may be left alone."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.call_later(seconds, lambda: None if future.done() else future.set_result(None))
    return future
