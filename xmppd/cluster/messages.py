"""Messages for accounts that have sessions on other nodes: RFC 6121 8.5 over all nodes, and the order of each
sender.

The node of the sender decides, keeps the stanza until another node took it, and is the only one that stores
it or answers. Who has it says so by acknowledging the frame, or by missing it; then it is routed anew.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from xmppd.cluster.member import Member
from xmppd.cluster.mesh import Mesh
from xmppd.cluster.records import ALL, ANYWAY, FULL, TOP, Hint, Message
from xmppd.core.later import Later
from xmppd.core.messages import KEEPABLE, MESSAGE_TYPES, Action, action_of, copy, outcome_of, unavailable
from xmppd.core.origin import Origin
from xmppd.core.sessions import DETOUR, Session, Sessions
from xmppd.errors import StanzaError
from xmppd.hooks import Drop, Outcome
from xmppd.jid import Jid
from xmppd.xml.stanza import Stanza

TRIES: Final = 3
"""How often a message is sent before it is stored, though somebody seems to be there."""

WAITING_EACH: Final = 1000
WAITING_ALL: Final = 10_000
"""Messages of one account, and of all, that wait for others that are under way; beyond them senders wait."""

Became = Awaitable[Outcome | Drop]


class Parcel:
    """One message on its way to one account. `left`: copies that are neither settled nor missed; `end` is
    done when it is known what became of it.
    """

    __slots__ = ("end", "kind", "left", "number", "stanza", "to", "tries", "was_taken")

    def __init__(self, stanza: Stanza, to: Jid, kind: str, number: int) -> None:
        self.stanza = stanza
        self.to = to
        self.kind = kind
        self.number = number
        self.left = 0
        self.tries = 0
        self.was_taken = False
        self.end: asyncio.Future[Outcome | Drop] | None = None

    def later(self) -> Later:
        """What its sender need not wait for before he is read on."""
        if self.end is None:
            self.end = asyncio.get_running_loop().create_future()
        return Later(self.end, len(self.stanza.raw))

    def became(self, outcome: Outcome | Drop) -> None:
        """Tell whoever waits."""
        if self.end is not None and not self.end.done():
            self.end.set_result(outcome)

    def failed(self, error: Exception) -> None:
        """It is refused."""
        if self.end is not None and not self.end.done():
            self.end.set_exception(error)


class Copy:
    """The letter of one copy of a parcel."""

    __slots__ = ("_messages", "parcel")

    def __init__(self, messages: RemoteMessages, parcel: Parcel) -> None:
        self._messages = messages
        self.parcel = parcel

    def settled(self) -> None:
        """A session has it."""
        self._messages.settled(self.parcel)

    def missed(self, error: StanzaError) -> None:
        """No session has it."""
        self._messages.missed(self.parcel)


class UnderWay:
    """What was sent to one account's sessions on other nodes. While it `is_detour`, new messages wait in
    `waiting` until all `count` copies are settled or missed; what was missed goes before them.
    """

    __slots__ = ("count", "idle", "is_detour", "is_draining", "missed", "must_wait", "waiting")

    def __init__(self) -> None:
        self.count = 0
        self.is_detour = False
        self.is_draining = False
        self.must_wait = False
        self.missed: list[Parcel] = []
        self.waiting: deque[Parcel] = deque()
        self.idle: asyncio.Future[None] | None = None

    def becomes_idle(self) -> asyncio.Future[None]:
        """Done when nothing is under way."""
        self.idle = asyncio.get_running_loop().create_future()
        return self.idle


class RemoteMessages:
    """`keep` stores or refuses a message for nobody."""

    def __init__(
        self,
        mesh: Mesh,
        sessions: Sessions,
        keep: Callable[[Jid, Stanza], Outcome | Became],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        hint: Callable[[str], None],
    ) -> None:
        self._mesh = mesh
        self._sessions = sessions
        self._keep = keep
        self._spawn = spawn
        self._hint = hint
        self._under_way: dict[str, UnderWay] = {}
        self._waiting = 0
        self._numbers = 0

    # the sender's node

    def concerns(self, account: str) -> bool:
        """See `Cluster.concerns`."""
        return account in self._mesh.whereabouts or account in self._under_way

    def route(self, origin: Origin, stanza: Stanza, to: Jid, kind: str) -> Outcome | Became:
        """See `Cluster.message`."""
        self._numbers += 1
        parcel = Parcel(stanza, to, kind, self._numbers)
        under_way = self._under_way.get(to.bare)
        if under_way is None or not under_way.is_detour:
            return self._act(parcel)
        under_way.waiting.append(parcel)
        self._waiting += 1
        later = parcel.later()
        if len(under_way.waiting) > WAITING_EACH or self._waiting > WAITING_ALL:
            return later.rest  # its sender waits
        return later

    def unclaimed(self, stanza: Stanza, to: Jid) -> Became | None:
        """See `Cluster.unclaimed`: behind what is under way, for nobody has it who had to come before."""
        if not self.takes(to.bare):
            return None
        self._numbers += 1
        kind = stanza.type if stanza.type in MESSAGE_TYPES else "normal"
        outcome = self._act(Parcel(stanza, to, kind, self._numbers))
        return _done(outcome) if isinstance(outcome, Outcome) else outcome

    def takes(self, account: str) -> bool:
        """Whether a session of another node takes messages."""
        return any(place.priority is not None and place.priority >= 0 for place in self._mesh.places(account))

    def _act(self, parcel: Parcel) -> Outcome | Became:
        """Give it to whoever is there, on any node; store or refuse it where nobody is."""
        to, kind = parcel.to, parcel.kind
        places = self._mesh.places(to.bare)
        if to.resource:
            session = self._sessions.by_full.get(to.full)
            if session is not None:
                return self._give(parcel, session)
            held = [place for place in places if place.resource == to.resource]
            if held:
                self._post(parcel, held[-1].node, FULL if kind in KEEPABLE else ANYWAY)
                return parcel.later()
        live = self._sessions.accounts.get(to.bare)
        takers = live.open_to if live is not None else ()
        priorities = [
            place.priority for place in places if place.priority is not None and place.priority >= 0
        ]
        is_ready = bool(takers or priorities) or kind not in KEEPABLE
        match action_of(to, kind, is_ready=is_ready):
            case Action.TOP:
                top = max([*priorities, *(taker.priority for taker in takers[:1])])
                nodes = {place.node for place in places if place.priority == top}
                here = takers if takers and takers[0].priority == top else ()
                return self._send(parcel, here, nodes, TOP)
            case Action.ALL:
                nodes = {place.node for place in places if place.priority is not None and place.priority >= 0}
                available = live.available if live is not None else ()
                return self._send(parcel, tuple(s for s in available if s.priority >= 0), nodes, ALL)
            case Action.STORE:
                return self._keep(to, parcel.stanza)
            case Action.REFUSE:
                raise unavailable()
            case Action.IGNORE:
                return Outcome.DROPPED

    def _give(self, parcel: Parcel, session: Session) -> Outcome | Became:
        if session.is_flushing and parcel.kind in KEEPABLE:
            return self._keep(parcel.to, parcel.stanza)
        session.send(parcel.stanza.raw)
        return Outcome.DELIVERED

    def _send(
        self, parcel: Parcel, here: tuple[Session, ...], nodes: set[int], mode: int
    ) -> Outcome | Became:
        copy(here, parcel.stanza.raw)
        parcel.was_taken = bool(here)
        for node in nodes:
            self._post(parcel, node, mode, is_one_of_several=len(nodes) + len(here) > 1)
        if here or not nodes:
            return Outcome.DELIVERED if here else Outcome.DROPPED
        return parcel.later()

    def _post(self, parcel: Parcel, node: int, mode: int, *, is_one_of_several: bool = False) -> None:
        account = parcel.to.bare
        under_way = self._under_way.get(account)
        if under_way is None:
            under_way = self._under_way[account] = UnderWay()
        under_way.count += 1
        parcel.left += 1
        raw, to, sender = parcel.stanza.raw, parcel.to.full, parcel.stanza.attrs.get("from", "")

        def message(number: int) -> Message:
            return Message(number, to, sender, mode, is_one_of_several, raw)

        self._mesh.post(self._mesh.member(node), message, len(raw) + 96, Copy(self, parcel))

    def settled(self, parcel: Parcel) -> None:
        """A copy was taken."""
        parcel.was_taken = True
        self._ended(parcel)

    def missed(self, parcel: Parcel) -> None:
        """Nobody took a copy: whoever is there now is found when all that is under way has come back."""
        under_way = self._under_way[parcel.to.bare]
        self._detour(parcel.to.bare, under_way)
        self._ended(parcel)

    def _ended(self, parcel: Parcel) -> None:
        account = parcel.to.bare
        under_way = self._under_way[account]
        parcel.left -= 1
        under_way.count -= 1
        if not parcel.left:
            if parcel.was_taken:
                parcel.became(Outcome.DELIVERED)
            else:
                under_way.missed.append(parcel)
        if under_way.count:
            return
        if under_way.idle is not None:
            idle, under_way.idle = under_way.idle, None
            idle.set_result(None)
        elif under_way.is_detour and not under_way.is_draining:
            under_way.is_draining = True
            self._spawn(self._drain(account, under_way))
        elif not under_way.is_detour:
            self._over(account)

    def _over(self, account: str) -> None:
        del self._under_way[account]
        self._split(account)

    def _split(self, account: str) -> None:
        live = self._sessions.accounts.get(account)
        if live is not None:
            live.split(self.concerns(account))

    # detours

    def moved(self, account: str) -> None:
        """A session of the account came, went, or takes messages otherwise than before, here or elsewhere:
        what is sent now must not overtake what is under way.
        """
        self._split(account)
        under_way = self._under_way.get(account)
        if under_way is not None and (under_way.count or under_way.is_detour):
            self._detour(account, under_way)

    def _detour(self, account: str, under_way: UnderWay) -> None:
        under_way.must_wait = True
        under_way.is_detour = True
        for session in self._sessions.of(account):
            session.hold_messages(DETOUR)

    async def _drain(self, account: str, under_way: UnderWay) -> None:
        """Send anew what was missed, and then what waited, one after the other."""
        while under_way.missed or under_way.waiting or under_way.must_wait:
            if under_way.must_wait:
                if under_way.count:
                    await under_way.becomes_idle()
                    continue
                under_way.must_wait = False
                continue
            if under_way.missed:
                parcel = min(under_way.missed, key=lambda parcel: parcel.number)
                under_way.missed.remove(parcel)
                parcel.tries += 1
            else:
                parcel = under_way.waiting.popleft()
                self._waiting -= 1
            await self._again(parcel)
        under_way.is_detour = under_way.is_draining = False
        for session in self._sessions.of(account):
            session.release_messages(DETOUR)
        if not under_way.count:
            self._over(account)

    async def _again(self, parcel: Parcel) -> None:
        """What it needs of the store is done before anything behind it."""
        try:
            outcome = self._keep(parcel.to, parcel.stanza) if parcel.tries >= TRIES else self._act(parcel)
            if isinstance(outcome, Outcome):
                parcel.became(outcome)
            elif not parcel.left:
                parcel.became(outcome_of(await outcome))
        except Exception as error:  # noqa: BLE001 - its sender is told
            parcel.failed(error)

    # the receiver's node

    def take(self, member: Member, record: Message) -> None:
        """Give a message to those who take it now; nobody: it is missed."""
        account, _, resource = record.to.partition("/")
        if account not in member.missing:
            if resource and record.mode in (FULL, ANYWAY):
                session = self._sessions.by_full.get(record.to)
                if session is not None and (record.mode == ANYWAY or not session.is_flushing):
                    session.send(record.raw)
                    return
            elif (live := self._sessions.accounts.get(account)) is not None:
                takers = live.open_to
                if record.mode == ALL:
                    takers = tuple(s for s in live.available if s.priority >= 0)
                if takers:
                    copy(takers, record.raw)
                    return
        member.missing[account] = member.trunk.miss(record.id, "")
        self._mesh.due(member)

    # what is stored

    def take_hint(self, member: Member, record: Hint) -> None:
        """Something was stored for an account that is here."""
        self._hint(record.account)


async def _done(outcome: Outcome) -> Outcome:
    return outcome
