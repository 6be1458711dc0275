"""Messages for accounts that have sessions on other nodes: RFC 6121 8.5 over all nodes, and the order of each
sender.

The node of the sender decides, keeps the stanza until another node took it, and is the only one that stores
it or answers. Who has it says so by acknowledging the frame, or by missing it; then it is routed anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final

from xmppd.cluster.copies import RemoteCopies
from xmppd.cluster.member import Member
from xmppd.cluster.mesh import Mesh
from xmppd.cluster.parcels import FLUSHING, Detour, Parcel, UnderWay
from xmppd.cluster.records import ALL, ANYWAY, FULL, TOP, Message
from xmppd.cluster.unread import Unread
from xmppd.core.blocks import Blocks
from xmppd.core.carbons import flushing
from xmppd.core.delivery import KEEPABLE, Action, action_of, kind_of
from xmppd.core.fates import DROPPED, Fates
from xmppd.core.later import Later, settled
from xmppd.core.leftover import readdressed
from xmppd.core.messages import Otherwise
from xmppd.core.origin import Origin
from xmppd.core.outcomes import copy, outcome_of, refused, unavailable
from xmppd.core.sessions import DETOUR, LiveAccount, Session, Sessions
from xmppd.errors import StoreError
from xmppd.hooks import Drop, Outcome
from xmppd.jid import Jid
from xmppd.xml.stanza import Stanza

WAITING_EACH: Final = 1000
WAITING_ALL: Final = 10_000
"""Messages of one account, and of all, that wait for others that are under way; beyond them senders wait."""

STORING: Final = 64
"""Of those that waited so many are stored at once."""
STEP: Final = 16
"""Of these and those that are sent, so many in one turn of the loop."""

Became = Awaitable[Outcome | Drop]
Stored = Awaitable[Outcome | Drop | Later]
"""What becomes of one that is stored; a Later when only its end is left."""


class RemoteMessages:
    """`keep` stores or refuses a message for nobody; its third argument is given one that nobody keeps.
    `kept` tells who came meanwhile that one was stored; until its future is done its sender waits for that.
    `now` gives seconds since the epoch.
    """

    def __init__(
        self,
        mesh: Mesh,
        sessions: Sessions,
        blocks: Blocks,
        copies: RemoteCopies,
        keep: Callable[[Jid, Stanza, Otherwise], Outcome | Stored],
        kept: Callable[[str, str], asyncio.Future[None] | None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        now: Callable[[], float],
        fates: Fates,
    ) -> None:
        self._fates = fates
        self._mesh = mesh
        self._sessions = sessions
        self._blocks = blocks
        self._copies = copies
        self._keep = keep
        self._kept = kept
        self._spawn = spawn
        self._now = now
        self.unread = Unread(mesh)
        self._under_way: dict[str, UnderWay] = {}
        self._waiting = 0
        self._numbers = 0

    def __len__(self) -> int:
        """Of how many accounts something is under way."""
        return len(self._under_way)

    # the sender's node

    def concerns(self, account: str) -> bool:
        """See `Cluster.concerns`."""
        return account in self._under_way or account in self._mesh.whereabouts

    def route(
        self, origin: Origin, stanza: Stanza, to: Jid, kind: str, *, is_again: bool = False
    ) -> Outcome | Became:
        """See `Cluster.message`."""
        parcel = self._parcel(stanza, to, kind)
        parcel.was_copied = is_again
        outcome = self._enter(parcel)
        if outcome is parcel:
            return outcome
        if parcel.is_back or not isinstance(outcome, (Outcome, Later)):
            return self._until(parcel, outcome)
        return outcome

    def _parcel(self, stanza: Stanza, to: Jid, kind: str) -> Parcel:
        self._numbers += 1
        return Parcel(self, stanza, to, kind, self._numbers)

    def _enter(self, parcel: Parcel) -> Outcome | Stored:
        """Take a detour, or act at once."""
        account = parcel.to.bare
        under_way = self._under_way.get(account)
        if under_way is not None:
            if under_way.count and under_way.detour is None:
                is_here = under_way.takers or account in self._sessions.accounts
                is_moved = is_here and under_way.takers != self._takers(account)
                if is_moved or self._mesh.losing or under_way.is_ahead(parcel):
                    self._detour(account, under_way)  # some may have to be sent again, and that comes first
            if under_way.detour is not None:
                return self._wait(parcel, under_way.detour)
        outcome = self._act(parcel, under_way)
        return _end(parcel) if parcel.is_slow and parcel.left else outcome

    def _wait(self, parcel: Parcel, detour: Detour) -> Became:
        """Have it sent behind those that wait."""
        detour.waiting.append(parcel)
        self._waiting += 1
        if len(detour.waiting) > WAITING_EACH or self._waiting > WAITING_ALL:
            return _end(parcel)  # its sender waits
        return parcel

    async def _until(self, parcel: Parcel, outcome: Outcome | Stored) -> Outcome:
        """What becomes of a message in the end, though somebody comes whenever it is to be stored."""
        while True:
            became = outcome if isinstance(outcome, Outcome) else outcome_of(await settled(outcome))
            if not parcel.is_back:
                return became
            parcel.is_back = False
            outcome = self._enter(parcel)

    def unclaimed(self, stanza: Stanza, to: Jid) -> Became | None:
        """See `Cluster.unclaimed`."""
        if not self.takes(to.bare):
            return None
        parcel = self._parcel(stanza, to, kind_of(stanza))
        return self._until(parcel, self._enter(parcel))

    def takes(self, account: str) -> bool:
        """Whether a session of another node takes messages."""
        under_way = self._under_way.get(account)
        return self._is_there(account) and (under_way is None or not under_way.is_kept_by_force)

    def _is_there(self, account: str) -> bool:
        return any(place.priority is not None and place.priority >= 0 for place in self._mesh.places(account))

    def _act(self, parcel: Parcel, under_way: UnderWay | None) -> Outcome | Stored:
        """Give it to whoever is there, on any node; store or refuse it where nobody is."""
        to, kind = parcel.to, parcel.kind
        is_tired = (parcel.tries or parcel.is_due) and parcel.is_tired
        live = self._sessions.accounts.get(to.bare)
        if live is None and not to.resource and kind in KEEPABLE and not is_tired:  # nearly all of them
            node = self._mesh.whereabouts.only_taker(to.bare)
            if node and node not in self._mesh.losing:
                self._post(parcel, under_way, node, ANYWAY if parcel.is_unkept else TOP)
                return parcel
        places = self._mesh.places(to.bare) if not is_tired else ()
        if to.resource:
            session = self._sessions.by_full.get(to.full)
            if session is not None:
                return self._give(parcel, session)
            held = [place for place in places if place.resource == to.resource]
            if held:
                is_patient = kind in KEEPABLE and not parcel.is_unkept
                parcel.gone_to = (), {held[-1].node}
                self._post(parcel, under_way, held[-1].node, FULL if is_patient else ANYWAY)
                return parcel
        takers = takers_of(live, is_unkept=parcel.is_unkept)
        if is_tired and not takers:
            return self._store(parcel, by_force=True)
        priorities = [
            place.priority for place in places if place.priority is not None and place.priority >= 0
        ]
        is_ready = bool(takers or priorities) or kind not in KEEPABLE
        match action_of(to, kind, is_ready=is_ready):
            case Action.TOP:
                top = max([*priorities, *(taker.priority for taker in takers[:1])])
                nodes = {place.node for place in places if place.priority == top}
                here = takers if takers and takers[0].priority == top else ()
                return self._send(parcel, under_way, here, nodes, ANYWAY if parcel.is_unkept else TOP)
            case Action.ALL:
                nodes = {place.node for place in places if place.priority is not None and place.priority >= 0}
                available = live.available if live is not None else ()
                here = tuple(s for s in available if s.priority >= 0)
                return self._send(parcel, under_way, here, nodes, ALL)
            case Action.STORE:
                parcel.is_unkept = False  # it may have been for who was there, and has gone
                return self._store(parcel, by_force=False)
            case Action.REFUSE:
                raise unavailable()
            case Action.IGNORE:
                self._fates.note(parcel.stanza, DROPPED, "rfc6121-8.5", f"a {kind} that nobody is there for")
                return Outcome.DROPPED

    def _give(self, parcel: Parcel, session: Session) -> Outcome | Stored:
        if session.is_flushing and parcel.kind in KEEPABLE and not parcel.is_unkept:
            self._copies.delivered(parcel, (session, *flushing(session.live)), ())
            return self._store(parcel, by_force=False)
        session.send(parcel.stanza.raw)
        self._copies.delivered(parcel, (session,), ())
        return Outcome.DELIVERED

    def _send(
        self,
        parcel: Parcel,
        under_way: UnderWay | None,
        here: tuple[Session, ...],
        nodes: set[int],
        mode: int,
    ) -> Outcome | Became:
        copy(here, parcel.stanza.raw)
        parcel.was_taken = bool(here)
        parcel.gone_to = here, nodes
        is_one_of_several = len(nodes) + len(here) > 1
        for node in nodes:
            under_way = self._post(parcel, under_way, node, mode, is_one_of_several=is_one_of_several)
        if here and not nodes:
            self._copies.delivered(parcel, here, ())
        if here or not nodes:
            return Outcome.DELIVERED if here else Outcome.DROPPED
        return parcel

    def _post(
        self,
        parcel: Parcel,
        under_way: UnderWay | None,
        node: int,
        mode: int,
        *,
        is_one_of_several: bool = False,
    ) -> UnderWay:
        to, raw = parcel.to, parcel.stanza.raw
        if under_way is not None and under_way.count:
            under_way.count += 1
        else:
            under_way = self._begun(to.bare)
        if not parcel.left:
            under_way.add(parcel)
        parcel.left += 1
        member = self._mesh.member(node)
        trunk = member.trunk
        record = Message(trunk.next_id, to.full, parcel.sender, mode, is_one_of_several, raw)
        self._mesh.post(member, record, len(raw) + 96, parcel)
        if trunk.is_full:
            parcel.is_slow = True
        return under_way

    def settled(self, parcel: Parcel) -> None:
        """A copy was taken."""
        account = parcel.to.bare
        under_way = self._under_way[account]
        parcel.was_taken = True
        parcel.left -= 1
        if not parcel.left:
            under_way.drop(parcel)
            self._delivered(parcel)
        self._done(account, under_way)

    def missed(self, parcel: Parcel) -> None:
        """Nobody took a copy: whoever is there now is found when all that is under way has come back."""
        account = parcel.to.bare
        under_way = self._under_way[account]
        detour = self._detour(account, under_way)
        parcel.left -= 1
        if not parcel.left:
            under_way.drop(parcel)
            if parcel.was_taken:
                self._delivered(parcel)
            else:
                detour.missed.append(parcel)
        self._done(account, under_way)

    def _delivered(self, parcel: Parcel) -> None:
        if parcel.gone_to is not None:
            self._copies.delivered(parcel, *parcel.gone_to)
        parcel.ended(Outcome.DELIVERED)

    def second(self) -> int:
        """The whole seconds since the epoch."""
        return int(self._now())

    def returning(self, member: Member) -> None:
        """A node is lost: what sessions there had alone, and their clients have not acknowledged, comes back
        in the course of some turns of the loop (`lost`), and what is sent now waits for it.
        """
        counts: dict[str, int] = {}
        for letter in member.trunk.opened:
            if isinstance(letter, Parcel):
                letter.left = 1
                counts[letter.to.bare] = counts.get(letter.to.bare, 0) + 1
        for account, count in counts.items():
            under_way = self._begun(account)
            under_way.count += count - 1
            self._detour(account, under_way)

    def lost(self, parcel: Parcel) -> None:
        """A copy was taken by a session whose node is lost, and its client has not acknowledged it: it goes
        to whoever is there now, with the time in which it was sent, in its turn among all that was missed.
        """
        account = parcel.to.bare
        stanza = readdressed(parcel.stanza, account, parcel.opened_at)
        again = Parcel(self, stanza, Jid.parse(account), parcel.kind, parcel.number)
        again.was_copied = True
        under_way = self._under_way[account] if parcel.left else self._begun(account)
        self._detour(account, under_way).missed.append(again)
        self._done(account, under_way)

    # what is under way

    def _begun(self, account: str) -> UnderWay:
        under_way = self._under_way.get(account)
        if under_way is None:
            under_way = self._under_way[account] = UnderWay()
            self._split(account)
        if not under_way.count:
            under_way.takers = self._takers(account)
        under_way.count += 1
        return under_way

    def _done(self, account: str, under_way: UnderWay) -> None:
        under_way.count -= 1
        if under_way.count:
            return
        detour = under_way.detour
        if detour is None:
            self._over(account)
        elif detour.idle is not None:
            idle, detour.idle = detour.idle, None
            idle.set_result(None)
        elif not detour.is_draining:
            detour.is_draining = True
            self._spawn(self._drain(account, under_way, detour))

    def _takers(self, account: str) -> tuple[Session, ...]:
        live = self._sessions.accounts.get(account)
        return live.open_to if live is not None else ()

    def _over(self, account: str) -> None:
        del self._under_way[account]
        self._split(account)

    def _split(self, account: str) -> None:
        live = self._sessions.accounts.get(account)
        if live is not None:
            live.split(self.concerns(account))

    # the store

    def _store(self, parcel: Parcel, *, by_force: bool) -> Outcome | Stored:
        """Have it kept; `by_force`: though somebody is there, who does not take it."""

        def come_back(stanza: Stanza, to: Jid) -> Outcome | None:
            if not self._is_there(to.bare):
                return None
            parcel.is_unkept = by_force and not self._takers(to.bare)  # else it is for those, who came here
            parcel.is_back = True
            return Outcome.DROPPED

        self._copies.delivered(parcel, (), (), is_stored=True)
        if not by_force:
            return self._keep(parcel.to, parcel.stanza, come_back)
        under_way = self._under_way[parcel.to.bare]
        under_way.is_kept_by_force = True
        try:
            outcome = self._keep(parcel.to, parcel.stanza, come_back)
        except BaseException:
            under_way.is_kept_by_force = False
            raise
        if isinstance(outcome, Outcome | Later):
            under_way.is_kept_by_force = False
            return outcome
        return self._forced(under_way, outcome)

    @staticmethod
    async def _forced(under_way: UnderWay, outcome: Stored) -> Outcome | Drop | Later:
        try:
            return await outcome
        finally:
            under_way.is_kept_by_force = False

    def keeping(self, to: Jid, later: Later) -> Later:
        """See `Cluster.keeping`: it is under way until whoever came meanwhile is told of it; its sender waits
        until they have heard.
        """
        end = asyncio.ensure_future(later.rest)
        told: asyncio.Future[Outcome | Drop] = asyncio.get_running_loop().create_future()
        self._begun(to.bare).storing += 1
        end.add_done_callback(partial(self._stored, to, told))
        return Later(told, later.size)

    def _stored(
        self, to: Jid, told: asyncio.Future[Outcome | Drop], end: asyncio.Future[Outcome | Drop]
    ) -> None:
        heard, under_way = None, self._under_way[to.bare]
        error = end.exception() if not end.cancelled() else None
        if isinstance(error, StoreError):
            self._kept(to.bare, to.resource)  # it may be there all the same
        elif error is None and not end.cancelled() and outcome_of(end.result()) is Outcome.KEPT:
            heard = self._kept(to.bare, to.resource)
        under_way.storing -= 1
        self._done(to.bare, under_way)
        if heard is None:
            _pass_on(end, told)
        else:
            heard.add_done_callback(lambda _: _pass_on(end, told))

    # detours

    def moved(self, account: str) -> None:
        """A session of the account came, went, or takes messages otherwise than before, here or elsewhere:
        what is sent now must not overtake what is under way.
        """
        self._split(account)
        live = self._sessions.accounts.get(account)
        if live is not None:
            live.count_copies(elsewhere=self._copies.wants(account))
        under_way = self._under_way.get(account)
        if under_way is not None and (under_way.count or under_way.detour is not None):
            self._detour(account, under_way)

    def _detour(self, account: str, under_way: UnderWay) -> Detour:
        detour = under_way.detour
        if detour is None:
            detour = under_way.detour = Detour()
        detour.must_wait = True
        for session in self._sessions.of(account):
            session.hold_messages(DETOUR)
        return detour

    async def _drain(self, account: str, under_way: UnderWay, detour: Detour) -> None:
        """Send anew what was missed, and then what waited, one after the other. Those that are stored are so
        together, and before any that is not: whoever came is told of them first.
        """
        steps = 0
        while detour.missed or detour.waiting or detour.must_wait or under_way.storing:
            steps += 1
            if steps % STEP == 0:
                await asyncio.sleep(0)
            if detour.must_wait:
                if under_way.count:
                    await detour.becomes_idle()
                    continue
                detour.must_wait = False
                continue
            parcel = detour.first
            if parcel is None or not self._may_follow(parcel, under_way):
                detour.must_wait = True
                continue
            if detour.missed:
                detour.missed.remove(parcel)
                parcel.tries += 1
            else:
                detour.waiting.popleft()
                self._waiting -= 1
            await self._again(parcel, under_way)
        under_way.detour = None
        for session in self._sessions.of(account):
            session.release_messages(DETOUR)
        if not under_way.count:
            self._over(account)

    def _may_follow(self, parcel: Parcel, under_way: UnderWay) -> bool:
        """Whether one goes the way of all that were just sent before it, or stored."""
        if under_way.is_ahead(parcel) or (parcel.is_tired and under_way.latest):
            return False
        return not under_way.storing or (under_way.storing < STORING and self._is_stored(parcel))

    def _is_stored(self, parcel: Parcel) -> bool:
        """Whether one would be stored now, for sure."""
        to = parcel.to
        if parcel.is_unkept or parcel.kind not in KEEPABLE:
            return False
        session = self._sessions.by_full.get(to.full)
        if session is not None:
            return session.is_flushing
        live = self._sessions.accounts.get(to.bare)
        if live is not None and live.open_to:
            return False
        return parcel.is_tired or not self._mesh.places(to.bare)

    async def _again(self, parcel: Parcel, under_way: UnderWay) -> None:
        """Its place in the store is settled before anything behind it."""
        try:
            while True:
                is_barred = self._blocks.bars(parcel.to.bare, parcel.sender)  # since it came
                if is_barred:
                    outcome: Outcome | Stored = refused(parcel.stanza, parcel.to, self._fates)
                else:
                    outcome = self._act(parcel, under_way)
                if not isinstance(outcome, Outcome):
                    if parcel.left:
                        return  # it is on its way, and comes back here if it is missed
                    became = outcome if isinstance(outcome, Later) else await outcome
                    if isinstance(became, Later):
                        asyncio.ensure_future(became.rest).add_done_callback(parcel.stored)
                        return
                    outcome = outcome_of(became)
                if not parcel.is_back:
                    parcel.ended(outcome)
                    return
                parcel.is_back = False
        except Exception as error:  # noqa: BLE001 - its sender is told
            parcel.failed(error)

    # the receiver's node

    def take(self, member: Member, record: Message) -> None:
        """Give a message to those who take it now; nobody: it is missed, and so is what follows for this
        account until the sender's node knows.
        """
        if record.mode == TOP and record.to not in member.missing.frames:
            live = self._sessions.accounts.get(record.to)
            if live is not None and not live.blocks and (takers := live.open_to):
                copy(takers, record.raw)
                if live.is_copied:
                    self._copies.taken(record, takers)
                if takers[0].managed is not None:
                    self.unread.sent(member, record, takers)
                return
        account, _, resource = record.to.partition("/")
        receivers = self._receivers(account, resource, record)
        if receivers and receivers[0].live.bars(record.sender):
            return  # since it was sent: it is taken, and nobody is given it
        if receivers and account not in member.missing:
            copy(receivers, record.raw, is_patient=record.mode == ALL)
            if receivers[0].live.is_copied:
                self._copies.taken(record, receivers)
            if receivers[0].managed is not None:
                self.unread.sent(member, record, receivers)
            return
        reason = FLUSHING if not receivers and self._flushes(account, resource) else ""
        member.missing.put(account, member.trunk.miss(record.id, reason))
        self._mesh.due(member)

    def _receivers(self, account: str, resource: str, record: Message) -> Sequence[Session]:
        if resource and record.mode in (FULL, ANYWAY):
            session = self._sessions.by_full.get(record.to)
            is_open = session is not None and (record.mode == ANYWAY or not session.is_flushing)
            return (session,) if session is not None and is_open else ()
        live = self._sessions.accounts.get(account)
        if live is None:
            return ()
        if record.mode != ALL:
            return takers_of(live, is_unkept=record.mode == ANYWAY)
        return tuple(s for s in live.available if s.priority >= 0)

    def _flushes(self, account: str, resource: str) -> bool:
        """Whether there would be a receiver if he were not just given what was stored."""
        if resource:
            session = self._sessions.by_full.get(f"{account}/{resource}")
            return session is not None and session.is_flushing
        live = self._sessions.accounts.get(account)
        return live is not None and any(s.is_flushing and s.priority >= 0 for s in live.available)


def takers_of(live: LiveAccount | None, *, is_unkept: bool) -> tuple[Session, ...]:
    """Who takes a message for an account here. While all are being given what is stored, one that nobody
    keeps is for those of them that will take messages then.
    """
    if live is None:
        return ()
    takers = live.open_to
    if takers or not is_unkept:
        return takers
    willing = [session for session in live.available if session.priority >= 0]
    top = max((session.priority for session in willing), default=-1)
    return tuple(session for session in willing if session.priority == top)


async def _end(parcel: Parcel) -> Outcome | Drop:
    became: Outcome | Drop = await parcel
    return became


def _pass_on(end: asyncio.Future[Outcome | Drop], told: asyncio.Future[Outcome | Drop]) -> None:
    if told.done():
        return
    if end.cancelled():
        told.cancel()
    elif (error := end.exception()) is not None:
        told.set_exception(error)
    else:
        told.set_result(end.result())
