"""Roster requests and subscription stanzas: what a client may do to its contact list, and what its contacts
learn.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from xmppd import ns
from xmppd.core.accounts import Accounts
from xmppd.core.begun import begun
from xmppd.core.blocks import Blocks
from xmppd.core.iqs import Address, Answer, Followed, Handler, HandlerKey, Request
from xmppd.core.origin import Host, Origin
from xmppd.core.presence import Presences
from xmppd.core.roster.counts import RosterCounts
from xmppd.core.roster.delta import MAX_CHANGES, cost, deltas
from xmppd.core.roster.item import item_from
from xmppd.core.roster.rewriting import Rewrite
from xmppd.core.roster.rosters import (
    Change,
    Edit,
    NoRoster,
    Roster,
    Rosters,
    SetRequest,
    SubscriptionChange,
    check_request,
)
from xmppd.core.roster.subscription import Kind, Outbound
from xmppd.core.services import Services
from xmppd.core.sessions import Session, Sessions
from xmppd.core.shown import Late, subscription_stanza
from xmppd.errors import StanzaError
from xmppd.hooks import Hooks
from xmppd.jid import Jid
from xmppd.xml import build
from xmppd.xml.stanza import Stanza, parse

SUBSCRIPTION_TYPES: dict[str, Kind] = {
    "subscribe": "subscribe",
    "subscribed": "subscribed",
    "unsubscribe": "unsubscribe",
    "unsubscribed": "unsubscribed",
}
"""The types of presence that manage subscriptions (RFC 6121 3)."""

log = logging.getLogger(__name__)

_LOOKS = 3
"""How often the log is read for one roster get while the roster goes on changing."""


class Contacts:
    """Changes rosters and tells everybody concerned (RFC 6121 2 and 3)."""

    def __init__(
        self,
        sessions: Sessions,
        accounts: Accounts,
        rosters: Rosters,
        presences: Presences,
        services: Services,
        blocks: Blocks,
        hooks: Hooks,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        domains: frozenset[str],
    ) -> None:
        self._sessions = sessions
        self._live = sessions.accounts
        self._accounts = accounts
        self._rosters = rosters
        self._presences = presences
        self._services = services
        self._blocks = blocks
        self._hooks = hooks
        self._spawn = spawn
        self._domains = domains
        self._pushes = 0

    @property
    def handlers(self) -> list[tuple[HandlerKey, Handler]]:
        """The iqs of the core: rosters, and what is left of session establishment."""
        query = f"{{{ns.ROSTER}}}query"
        session = f"{{{ns.SESSION}}}session"
        bind = f"{{{ns.BIND}}}bind"
        return [
            ((Address.SELF, "get", query), self.get),
            ((Address.SELF, "set", query), self.set),
            ((Address.ACCOUNT, "get", query), self._refuse_roster),
            ((Address.ACCOUNT, "set", query), self._refuse_roster),
            ((Address.SELF, "set", session), self._establish),
            ((Address.SERVER, "set", session), self._establish),
            ((Address.SELF, "set", bind), self._refuse_binding),
        ]

    @staticmethod
    def _establish(request: Request) -> None:
        """RFC 3921 3: a session is there already; old clients ask anyway."""

    @staticmethod
    def _refuse_roster(request: Request) -> None:
        """RFC 6121 2.3.3: whose roster it is, or is not, is not told."""
        raise StanzaError("forbidden")

    @staticmethod
    def _refuse_binding(request: Request) -> None:
        raise StanzaError("not-allowed", "A stream binds one resource.")

    # rosters (RFC 6121 2)

    def get(self, request: Request) -> Answer | Awaitable[Answer]:
        """The result of a roster get; None when the client's version is the current one, and None followed by
        pushes when it is a little older. Marks the resource interested.
        """
        session, stanza = request.session, request.stanza
        asked = request.payload.get("ver") if stanza.raw.find(b"ver") >= 0 else None
        roster: Roster | Awaitable[Roster] | None = session.live.roster
        if roster is None or not self._rosters.is_told:
            roster = self._rosters.load(session.account)
        if isinstance(roster, Roster):
            self._presences.adopt(session.live, roster)
            result = self._rosters.result(roster, asked)
            if asked and result is not None and (since := self._rosters.lag(roster, asked)) is not None:
                return begun(self._get_changes(session, since))
            session.has_roster = True
            return result
        return self._get_later(session, asked, roster)

    async def _get_later(self, session: Session, asked: str | None, loading: Awaitable[Roster]) -> Answer:
        self._presences.adopt(session.live, await loading)
        roster = session.live.roster
        assert roster is not None
        if asked and (since := self._rosters.lag(roster, asked)) is not None:
            return await self._get_changes(session, since)
        session.has_roster = True
        return self._rosters.result(roster, asked)

    async def _get_changes(self, session: Session, since: int) -> Answer:
        """Nothing, followed by a push for each item that changed since that version (RFC 6121 2.6.3); or the
        whole roster.

        The resource is interested only from now on: a push before the result would give the client a version
        whose older changes it does not have yet. For the same reason the pushes are no burst
        (`Session.give`), which one for a later change would overtake. They are no longer than the whole
        roster would be.
        """
        live = session.live
        for _ in range(_LOOKS):
            entries = await self._rosters.log(session.account, after=since, limit=MAX_CHANGES + 1)
            assert live.roster is not None
            if entries and entries[-1].version >= live.roster.version:
                break  # nothing changed while the log was read
        session.has_roster = True
        roster = live.roster
        assert roster is not None
        result = self._rosters.result(roster, None)
        pushes = deltas(entries, since, roster.version)
        if pushes is None or result is None or cost(pushes) > len(result):
            return result
        return Followed(None, [self._push_stanza(session, payload) for payload in pushes])

    async def catch_up(self, session: Session, since: int) -> Sequence[bytes] | None:
        """Make a resource interested whose client has the roster of that version; the pushes that it missed,
        None where only the whole roster would tell.
        """
        loading = self._rosters.load(session.account)
        roster = loading if isinstance(loading, Roster) else await loading
        self._presences.adopt(session.live, roster)
        if since == roster.version:
            session.has_roster = True
            return ()
        answer = await self._get_changes(session, since)
        return answer.stanzas if isinstance(answer, Followed) else None

    async def set(self, request: Request) -> None:
        """A roster set: one item added, changed or removed (RFC 6121 2.3 to 2.5); StanzaError as in 2.3.3."""
        session = request.session
        wanted = self._rosters.parse_set(session.account, request.payload)
        async with self._accounts.hold(session.account, session.login) as exists:
            if not exists:
                raise NoRoster("not-allowed", "There is no account that could keep contacts.")
            if isinstance(wanted, SetRequest):
                await self.set_item(session.account, wanted, session.full)
            else:
                await self.remove_item(session.account, wanted.contact, session.full)

    async def set_item(self, account: str, wanted: SetRequest, by: str) -> None:
        """Add a contact, or change its name and groups, in the name of `by` (see `LogEntry`)."""
        await self._push(account, await self._rosters.set_item(account, wanted, by=by))

    async def remove_item(self, account: str, contact: str, by: str) -> None:
        """Undo for the contact what the item stands for, then remove it (RFC 6121 2.5). In this order a
        repeat mends what a kill left half done: without the item there would be nothing to repeat.
        """
        item = await self._rosters.get_item(account, contact)
        said = () if item is None or item.hidden else item.farewell
        await self._deliver_all(account, contact, said, by)
        try:
            change = await self._rosters.remove_item(account, contact, by=by)
        except StanzaError:
            self._accounts.moving.heed(account, contact)
            raise
        await self._push(account, change)
        if change.old is not None:
            rest = [kind for kind in change.old.farewell if kind not in said]  # it changed meanwhile
            await self._deliver_all(account, contact, rest, by)

    async def change(
        self,
        account: str,
        contact: str,
        edit: Edit,
        *,
        by: str,
        what: str,
        most: RosterCounts | None = None,
        late: Late | None = None,
    ) -> Change:
        """One change of one item (see `Rosters.change`), pushed if clients see a difference. It does not
        touch the contact's half. `late`: who may see the account by it is shown it by the caller
        (`showing`).
        """
        try:
            change = await self._rosters.change(account, contact, edit, by=by, what=what, most=most)
        except NoRoster:
            self._accounts.moving.heed(contact, account)
            raise
        await self._publish(account, change, late)
        return change

    @contextmanager
    def showing(self) -> Iterator[Late]:
        """Around changes that are given what this yields: whom they let see an account is shown it behind all
        of them, also where one has failed. It is what rosters say by then.
        """
        late: Late = {}
        try:
            yield late
        finally:
            for account, contact in late:
                self._presences.show(account, contact)

    async def rewritten(self, account: str, rewrite: Rewrite) -> None:
        """Let the account's sessions see a rewritten roster: a push for each item that looks otherwise, and
        presence by what holds now.
        """
        live = self._live.get(account)
        before = live.roster if live is not None else None
        roster: Roster | Awaitable[Roster] = self._rosters.load(account)
        roster = roster if isinstance(roster, Roster) else await roster
        # Loading it has told sessions that hold an older one what is different.
        is_told = live is not None and before is not None and live.roster is not before
        for contact in sorted(rewrite.old.keys() | rewrite.new.keys()):
            old, new = (
                None if value is None else item_from(contact, value)
                for value in (rewrite.old.get(contact), rewrite.new.get(contact))
            )
            if old != new:
                change = Change(contact, old, new, roster)
                await self._take_over(account, change, is_pushed=change.is_visible and not is_told)

    async def _deliver_all(self, account: str, contact: str, kinds: Iterable[Kind], by: str) -> None:
        for kind in kinds:
            await self.deliver(account, contact, kind, by=by)

    async def permit(self, account: str, contact: str, kind: Kind) -> None:
        """StanzaError when a plugin refuses that the account asks the contact for its presence, or grants
        it its own.
        """
        for policy in self._hooks.subscription_policy:
            waiting = policy(account, contact, kind)
            if isinstance(waiting, Awaitable):
                await waiting

    def _publish(self, account: str, change: Change, late: Late | None = None) -> Awaitable[None]:
        """Take over a change that a subscription made, and push it if clients see a difference."""
        return self._take_over(account, change, is_pushed=change.is_visible, is_new=True, late=late)

    def _push(self, account: str, change: Change) -> Awaitable[None]:
        """Let the account's interested resources see how an item stands now (RFC 6121 2.1.6, 2.3.2)."""
        return self._take_over(account, change, is_pushed=True, is_new=True)

    async def _take_over(
        self,
        account: str,
        change: Change,
        *,
        is_pushed: bool,
        is_new: bool = False,
        late: Late | None = None,
    ) -> None:
        """Done when those have written it down who keep such changes."""
        if is_new:
            self._accounts.moving.heed(account, change.contact)
        if (live := self._live.get(account)) is not None:
            self._presences.adopt(live, change.roster, late)
            payload = self._rosters.push(change) if is_pushed else b""
            for session in live.sessions:
                if is_pushed and session.has_roster:
                    session.send(self._push_stanza(session, payload))
        self._sessions.cluster.roster_changed(account, change.roster.version)
        signals = self._hooks.roster_changed_signal
        if signals and change.old != change.new:
            self._spawn(self._hooks.tell_in_order(signals, account, change))
        if self._hooks.roster_changed_record and change.old != change.new:
            await self._hooks.tell_all(self._hooks.roster_changed_record, account, change)

    def _push_stanza(self, session: Session, payload: bytes) -> bytes:
        self._pushes += 1
        head = build.start_tag("iq", {"type": "set", "id": f"push{self._pushes}", "to": session.full})
        return head + b">" + payload + b"</iq>"

    # subscriptions (RFC 6121 3)

    async def subscription(self, origin: Origin, stanza: Stanza, to: Jid) -> None:
        """A subscription stanza: from a local client, or from an address of a service to one of ours."""
        contact = to.bare
        kind = SUBSCRIPTION_TYPES[stanza.type or ""]
        is_ours = to.domain in self._domains
        if contact == origin.account or (is_ours and not to.local):
            raise StanzaError("bad-request", "Nobody subscribes to this address.")
        if not is_ours and to.domain not in self._services:
            raise StanzaError("remote-server-not-found")
        whole = build.restamp(stanza, from_=origin.account, to=contact)
        if kind == "subscribe":
            check_request(whole)
        if kind in ("subscribe", "subscribed"):
            await self.permit(origin.account, contact, kind)
        if not isinstance(origin, Session):
            await self.deliver(origin.account, contact, kind, whole, by=origin.full)
            return
        async with self._accounts.hold(origin.account, origin.login) as exists:
            if not exists:
                raise NoRoster("not-allowed", "There is no account that could have contacts.")
            if kind in ("subscribed", "unsubscribe"):
                await self.send(origin.account, contact, kind, whole, by=origin.full)
                return
            outcome = await self._say(origin.account, contact, kind, by=origin.full)
        with suppress(StanzaError):  # the contact's roster is full: who asks must not learn that it is there
            await self._tell(origin.account, contact, kind, outcome.transition, whole, by=origin.full)

    async def send(self, account: str, contact: str, kind: Kind, stanza: bytes = b"", *, by: str) -> None:
        """Both halves of a subscription stanza (b"": one without content); StanzaError when one of the
        rosters has no room for it.
        """
        if kind == "unsubscribe":
            await self._unsubscribe(account, contact, stanza, by=by)
        elif kind == "subscribed":
            await self._grant(account, contact, stanza, by=by)
        else:
            outcome = await self._say(account, contact, kind, by=by)
            await self._tell(account, contact, kind, outcome.transition, stanza, by=by)

    async def _grant(self, account: str, contact: str, stanza: bytes, *, by: str) -> None:
        """Both halves of that (RFC 6121 A.2.3): the contact's first. What a kill between them leaves is a
        request that waits for its answer still.
        """
        foreseen = await self._rosters.foresee(account, contact, "subscribed")
        # Where nothing waits the contact's half may have been lost: see `_tell`.
        is_told = foreseen.state.is_followed
        with self.showing() as late:
            is_new = is_told and await self.deliver(account, contact, "subscribed", stanza, by=by)
            outcome = await self._say(account, contact, "subscribed", by=by, late=late)
            is_routed = outcome.transition.route
            if is_routed or is_new:
                late[account, contact] = None
            if is_routed and not is_told:  # it was asked in between
                await self.deliver(account, contact, "subscribed", stanza, by=by)

    async def _unsubscribe(self, account: str, contact: str, stanza: bytes, *, by: str) -> None:
        """Both halves of that, which is always routed (RFC 6121 A.2.2): the contact's first. A kill between
        them would leave an account that sees whom its own roster does not list.
        """
        with suppress(StanzaError):
            await self.deliver(account, contact, "unsubscribe", stanza, by=by)
        await self._say(account, contact, "unsubscribe", by=by)

    async def _say(
        self, account: str, contact: str, kind: Kind, *, by: str, late: Late | None = None
    ) -> SubscriptionChange[Outbound]:
        """The sender's half: roster and push (RFC 6121 A.2)."""
        outcome = await self._rosters.outbound_subscription(account, contact, kind, by=by)
        await self._publish(account, outcome.change, late)
        return outcome

    async def _tell(
        self, account: str, contact: str, kind: Kind, sent: Outbound, stanza: bytes, *, by: str
    ) -> None:
        """The contact's half of a request or a denial, when the tables say so."""
        if sent.route or kind == "unsubscribed":
            # What the tables do not route says what this half says already. A kill may have kept it from the
            # other half, and then a repeat mends that; otherwise it changes nothing.
            await self.deliver(account, contact, kind, stanza, by=by)

    async def deliver(self, account: str, contact: str, kind: Kind, stanza: bytes = b"", *, by: str) -> bool:
        """The receiver's half (RFC 6121 A.3), and whether it changed; a contact that does not exist is passed
        over in silence (8.5.1). So is one that bars the account (XEP-0191 3.3), except that subscriptions end
        on both sides, without a word to it.
        """
        data = subscription_stanza(kind, account, contact, stanza)
        to = Jid.parse(contact)
        if to.domain in self._services:
            self._services.tell(Host(account), data, contact)
            return True
        if await self._blocks.will_bar(contact, account) and kind in ("subscribe", "subscribed"):
            return False
        try:
            outcome = await self._rosters.inbound_subscription(
                contact, account, kind, data if kind == "subscribe" else b"", by=by
            )
        except NoRoster:
            self._accounts.moving.heed(account, contact)
            return False
        if outcome.transition.deliver:
            self.hand_over(contact, data, to_interested=kind != "subscribe")
        with self.showing() as late:
            await self._publish(contact, outcome.change, late)
            if outcome.transition.reply is not None:
                late[contact, account] = None
                await self.deliver(contact, account, outcome.transition.reply, by=contact)
        return outcome.change.old != outcome.change.new

    def hand_over(self, account: str, stanza: bytes, *, to_interested: bool) -> None:
        """Hand a subscription stanza to the account's sessions of all nodes."""
        self.deliver_here(account, stanza, to_interested=to_interested)
        self._sessions.cluster.deliver(account, stanza, to_interested=to_interested)

    def deliver_here(self, account: str, stanza: bytes, *, to_interested: bool) -> None:
        """Hand a subscription stanza to the account's sessions of this node (RFC 6121 3.1.3, 3.1.6)."""
        live = self._live.get(account)
        if live is None or (live.blocks and live.bars(parse(stanza).get("from", ""))):
            return
        for session in live.sessions:
            if session.has_roster if to_interested else session.presence is not None:
                session.send(stanza)

    async def remove_account(self, account: str) -> None:
        """Delete an account's roster after parting from every contact in it; a repeat goes on where it was
        left.
        """
        for item in await self._rosters.items(account):
            try:
                await self._deliver_all(account, item.contact, item.farewell, account)
            except StanzaError as error:  # a contact cannot keep its part, and the account goes nevertheless
                extra = {"jid": account, "contact": item.contact, "error": str(error)}
                log.warning("not-parted", extra=extra)
        await self._rosters.remove_account(account)
