"""Messages for accounts that have sessions on other nodes: RFC 6121 8.5 over all nodes, and the order of each
sender.

The node of the sender decides, keeps the stanza until another node took it, and is the only one that stores
it or answers. Who has it says so by acknowledging the frame, or by missing it; then it is routed anew.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final

from xmppd.cluster.member import Member
from xmppd.cluster.mesh import Mesh
from xmppd.cluster.records import ALL, ANYWAY, FULL, TOP, Message
from xmppd.core.later import Later
from xmppd.core.messages import (
    KEEPABLE,
    MESSAGE_TYPES,
    Action,
    Otherwise,
    action_of,
    copy,
    outcome_of,
    unavailable,
)
from xmppd.core.origin import Origin
from xmppd.core.sessions import DETOUR, Session, Sessions
from xmppd.errors import StanzaError
from xmppd.hooks import Drop, Outcome
from xmppd.jid import Jid
from xmppd.xml.stanza import Stanza

TRIES: Final = 3
"""How often a message is sent before it is stored, though somebody seems to be there."""

FLUSHING: Final = "resource-constraint"
"""Why a message is missed that has to be stored behind those that its receiver is just being given."""

WAITING_EACH: Final = 1000
WAITING_ALL: Final = 10_000
"""Messages of one account, and of all, that wait for others that are under way; beyond them senders wait."""

Became = Awaitable[Outcome | Drop]


class Parcel:
    """One message of `sender` on its way to one account. `left`: copies that are neither settled nor missed;
    `end` is done when it is known what became of it. `is_due`: it has to be stored, whoever is there;
    `is_unkept`: that was tried, and nobody keeps it; `is_back`: it was not stored, and is to be looked at
    again; `is_slow`: too much is on its way where it goes, so its sender has to wait for it.
    """

    __slots__ = (
        "end",
        "is_back",
        "is_due",
        "is_slow",
        "is_unkept",
        "kind",
        "left",
        "number",
        "sender",
        "stanza",
        "to",
        "tries",
        "was_taken",
    )

    def __init__(self, stanza: Stanza, to: Jid, kind: str, number: int) -> None:
        self.stanza = stanza
        self.sender = stanza.attrs.get("from", "")
        self.to = to
        self.kind = kind
        self.number = number
        self.left = 0
        self.tries = 0
        self.was_taken = False
        self.is_due = False
        self.is_slow = False
        self.is_unkept = False
        self.is_back = False
        self.end: asyncio.Future[Outcome | Drop] | None = None

    @property
    def is_tired(self) -> bool:
        """Whether it is to be stored, though somebody seems to be there."""
        is_due = self.is_due or self.tries >= TRIES
        return is_due and not self.is_unkept and self.kind in KEEPABLE

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
        if error.condition == FLUSHING:
            self.parcel.is_due = True
        self._messages.missed(self.parcel)


class UnderWay:
    """What was sent to one account's sessions on other nodes, and what is being stored for it: `count` in
    all. While it `is_detour`, new messages wait in `waiting` until all copies are settled or missed, and all
    that is to be stored is; what was missed goes before them. While something `is_kept_by_force` nobody
    counts as there. `takers` are those that took messages here when the first of these was sent;
    `addressed`: by sender, how many of his messages are among these, and to which address of the account,
    bare or full. `heard`: when who came meanwhile knows of what was stored last in a detour.
    """

    __slots__ = (
        "addressed",
        "count",
        "heard",
        "idle",
        "is_detour",
        "is_draining",
        "is_kept_by_force",
        "missed",
        "must_wait",
        "takers",
        "waiting",
    )

    def __init__(self) -> None:
        self.count = 0
        self.is_detour = False
        self.is_draining = False
        self.must_wait = False
        self.is_kept_by_force = False
        self.takers: tuple[Session, ...] = ()
        self.addressed: dict[str, tuple[int, str]] = {}
        self.missed: list[Parcel] = []
        self.waiting: deque[Parcel] = deque()
        self.idle: asyncio.Future[None] | None = None
        self.heard: asyncio.Future[None] | None = None

    def add(self, parcel: Parcel) -> None:
        """The first copy of one is sent."""
        count, _ = self.addressed.get(parcel.sender, (0, ""))
        self.addressed[parcel.sender] = count + 1, parcel.to.full

    def drop(self, parcel: Parcel) -> None:
        """All copies have come back."""
        count, to = self.addressed.pop(parcel.sender)
        if count > 1:
            self.addressed[parcel.sender] = count - 1, to

    def is_ahead(self, parcel: Parcel) -> bool:
        """Whether something by this sender is under way that takes another way."""
        _, to = self.addressed.get(parcel.sender, (0, parcel.to.full))
        return to != parcel.to.full

    def becomes_idle(self) -> asyncio.Future[None]:
        """Done when nothing is under way."""
        self.idle = asyncio.get_running_loop().create_future()
        return self.idle


class RemoteMessages:
    """`keep` stores or refuses a message for nobody; its third argument is given one that nobody keeps.
    `kept` tells who came meanwhile that one was stored; until its future is done its sender waits for that.
    """

    def __init__(
        self,
        mesh: Mesh,
        sessions: Sessions,
        keep: Callable[[Jid, Stanza, Otherwise], Outcome | Became],
        kept: Callable[[str], asyncio.Future[None] | None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._mesh = mesh
        self._sessions = sessions
        self._keep = keep
        self._kept = kept
        self._spawn = spawn
        self._under_way: dict[str, UnderWay] = {}
        self._waiting = 0
        self._numbers = 0

    def __len__(self) -> int:
        """Of how many accounts something is under way."""
        return len(self._under_way)

    # the sender's node

    def concerns(self, account: str) -> bool:
        """See `Cluster.concerns`."""
        return account in self._mesh.whereabouts or account in self._under_way

    def route(self, origin: Origin, stanza: Stanza, to: Jid, kind: str) -> Outcome | Became:
        """See `Cluster.message`."""
        self._numbers += 1
        parcel = Parcel(stanza, to, kind, self._numbers)
        outcome = self._enter(parcel)
        if parcel.is_back or not (isinstance(outcome, Outcome) or outcome.__class__ is Later):
            return self._until(parcel, outcome)
        return outcome

    def _enter(self, parcel: Parcel) -> Outcome | Became:
        """Take a detour, or act at once."""
        account = parcel.to.bare
        under_way = self._under_way.get(account)
        if under_way is not None and under_way.count:
            is_moved = under_way.takers != self._takers(account)
            if is_moved or self._mesh.is_losing or under_way.is_ahead(parcel):
                self._detour(account, under_way)  # some may have to be sent again, and that comes first
        if under_way is None or not under_way.is_detour:
            outcome = self._act(parcel)
            return parcel.later().rest if parcel.left and parcel.is_slow else outcome
        under_way.waiting.append(parcel)
        self._waiting += 1
        later = parcel.later()
        if len(under_way.waiting) > WAITING_EACH or self._waiting > WAITING_ALL:
            return later.rest  # its sender waits
        return later

    async def _until(self, parcel: Parcel, outcome: Outcome | Became) -> Outcome:
        """What becomes of a message in the end, though somebody comes whenever it is to be stored."""
        while True:
            became = outcome if isinstance(outcome, Outcome) else outcome_of(await outcome)
            if not parcel.is_back:
                return became
            parcel.is_back = False
            outcome = self._enter(parcel)

    def unclaimed(self, stanza: Stanza, to: Jid) -> Became | None:
        """See `Cluster.unclaimed`."""
        if not self.takes(to.bare):
            return None
        kind = stanza.type if stanza.type in MESSAGE_TYPES else "normal"
        self._numbers += 1
        parcel = Parcel(stanza, to, kind, self._numbers)
        return self._until(parcel, self._enter(parcel))

    def takes(self, account: str) -> bool:
        """Whether a session of another node takes messages."""
        under_way = self._under_way.get(account)
        return self._is_there(account) and (under_way is None or not under_way.is_kept_by_force)

    def _is_there(self, account: str) -> bool:
        return any(place.priority is not None and place.priority >= 0 for place in self._mesh.places(account))

    def _act(self, parcel: Parcel) -> Outcome | Became:
        """Give it to whoever is there, on any node; store or refuse it where nobody is."""
        to, kind = parcel.to, parcel.kind
        places = self._mesh.places(to.bare) if not parcel.is_tired else ()
        if to.resource:
            session = self._sessions.by_full.get(to.full)
            if session is not None:
                return self._give(parcel, session)
            held = [place for place in places if place.resource == to.resource]
            if held:
                is_patient = kind in KEEPABLE and not parcel.is_unkept
                self._post(parcel, held[-1].node, FULL if is_patient else ANYWAY)
                return parcel.later()
        live = self._sessions.accounts.get(to.bare)
        if len(places) == 1 and live is None and not to.resource and kind in KEEPABLE:  # nearly all of them
            node, _, _, priority = places[0]
            if priority is not None and priority >= 0:
                self._post(parcel, node, ANYWAY if parcel.is_unkept else TOP)
                return parcel.later()
        takers = self._takers(to.bare)
        if parcel.is_tired and not takers:
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
                return self._send(parcel, here, nodes, ANYWAY if parcel.is_unkept else TOP)
            case Action.ALL:
                nodes = {place.node for place in places if place.priority is not None and place.priority >= 0}
                available = live.available if live is not None else ()
                return self._send(parcel, tuple(s for s in available if s.priority >= 0), nodes, ALL)
            case Action.STORE if not parcel.is_unkept:
                return self._store(parcel, by_force=False)
            case Action.STORE | Action.REFUSE:
                raise unavailable()
            case Action.IGNORE:
                return Outcome.DROPPED

    def _give(self, parcel: Parcel, session: Session) -> Outcome | Became:
        if session.is_flushing and parcel.kind in KEEPABLE and not parcel.is_unkept:
            return self._store(parcel, by_force=False)
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
        under_way = self._begun(parcel.to.bare)
        if not parcel.left:
            under_way.add(parcel)
        parcel.left += 1
        raw, to, sender = parcel.stanza.raw, parcel.to.full, parcel.sender

        def message(number: int) -> Message:
            return Message(number, to, sender, mode, is_one_of_several, raw)

        member = self._mesh.member(node)
        self._mesh.post(member, message, len(raw) + 96, Copy(self, parcel))
        parcel.is_slow = parcel.is_slow or member.trunk.is_full

    def settled(self, parcel: Parcel) -> None:
        """A copy was taken."""
        parcel.was_taken = True
        self._ended(parcel)

    def missed(self, parcel: Parcel) -> None:
        """Nobody took a copy: whoever is there now is found when all that is under way has come back."""
        self._detour(parcel.to.bare, self._under_way[parcel.to.bare])
        self._ended(parcel)

    def _ended(self, parcel: Parcel) -> None:
        parcel.left -= 1
        if not parcel.left:
            under_way = self._under_way[parcel.to.bare]
            under_way.drop(parcel)
            if parcel.was_taken:
                parcel.became(Outcome.DELIVERED)
            else:
                under_way.missed.append(parcel)
        self._done(parcel.to.bare)

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

    def _done(self, account: str) -> None:
        under_way = self._under_way[account]
        under_way.count -= 1
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

    def _store(self, parcel: Parcel, *, by_force: bool) -> Outcome | Became:
        """Have it kept; `by_force`: though somebody is there, who does not take it."""

        def come_back(stanza: Stanza, to: Jid) -> Outcome | None:
            if not self._is_there(to.bare):
                return None
            parcel.is_unkept = by_force
            parcel.is_back = True
            return Outcome.DROPPED

        if not by_force:
            return self._keep(parcel.to, parcel.stanza, come_back)
        under_way = self._under_way[parcel.to.bare]
        under_way.is_kept_by_force = True
        try:
            outcome = self._keep(parcel.to, parcel.stanza, come_back)
        except BaseException:
            under_way.is_kept_by_force = False
            raise
        if isinstance(outcome, Outcome):
            under_way.is_kept_by_force = False
            return outcome
        return self._forced(under_way, outcome)

    @staticmethod
    async def _forced(under_way: UnderWay, outcome: Became) -> Outcome | Drop:
        try:
            return await outcome
        finally:
            under_way.is_kept_by_force = False

    def keeping(self, account: str, later: Later) -> Later:
        """See `Cluster.keeping`: it is under way until whoever came meanwhile is told of it; its sender waits
        until they have heard.
        """
        end = asyncio.ensure_future(later.rest)
        told: asyncio.Future[Outcome | Drop] = asyncio.get_running_loop().create_future()
        self._begun(account)
        end.add_done_callback(partial(self._stored, account, told))
        return Later(told, later.size)

    def _stored(
        self, account: str, told: asyncio.Future[Outcome | Drop], end: asyncio.Future[Outcome | Drop]
    ) -> None:
        heard, under_way = None, self._under_way[account]
        if not end.cancelled() and end.exception() is None and outcome_of(end.result()) is Outcome.KEPT:
            heard = self._kept(account)
        if under_way.is_draining:
            heard, under_way.heard = None, heard  # what comes behind does not wait
        self._done(account)
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
            parcel = min(under_way.missed, key=_number) if under_way.missed else under_way.waiting[0]
            if under_way.count and (parcel.is_tired or under_way.is_ahead(parcel)):
                under_way.must_wait = True  # it goes another way than what was just sent before it
                continue
            if under_way.missed:
                under_way.missed.remove(parcel)
                parcel.tries += 1
            else:
                under_way.waiting.popleft()
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
            while True:
                outcome = self._act(parcel)
                if not isinstance(outcome, Outcome):
                    if parcel.left:
                        return  # it is on its way, and comes back here if it is missed
                    outcome = outcome_of(await outcome)
                if not parcel.is_back:
                    self._became(parcel, outcome)
                    return
                parcel.is_back = False
        except Exception as error:  # noqa: BLE001 - its sender is told
            parcel.failed(error)

    def _became(self, parcel: Parcel, outcome: Outcome) -> None:
        under_way = self._under_way[parcel.to.bare]
        heard, under_way.heard = under_way.heard, None
        if heard is None:
            parcel.became(outcome)
        else:
            heard.add_done_callback(lambda _: parcel.became(outcome))

    # the receiver's node

    def take(self, member: Member, record: Message) -> None:
        """Give a message to those who take it now; nobody: it is missed, and so is what follows for this
        account until the sender's node knows.
        """
        account, _, resource = record.to.partition("/")
        receivers = self._receivers(account, resource, record)
        if receivers and account not in member.missing:
            copy(receivers, record.raw, is_patient=record.mode == ALL)
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
        if record.mode == TOP:
            return live.open_to
        willing = tuple(s for s in live.available if s.priority >= 0)
        return (live.open_to or willing) if record.mode == ANYWAY else willing

    def _flushes(self, account: str, resource: str) -> bool:
        """Whether there would be a receiver if he were not just given what was stored."""
        if resource:
            session = self._sessions.by_full.get(f"{account}/{resource}")
            return session is not None and session.is_flushing
        live = self._sessions.accounts.get(account)
        return live is not None and any(s.is_flushing and s.priority >= 0 for s in live.available)


def _pass_on(end: asyncio.Future[Outcome | Drop], told: asyncio.Future[Outcome | Drop]) -> None:
    if told.done():
        return
    if end.cancelled():
        told.cancel()
    elif (error := end.exception()) is not None:
        told.set_exception(error)
    else:
        told.set_result(end.result())


def _number(parcel: Parcel) -> int:
    return parcel.number
