"""Managed sessions that are resumed on another node (XEP-0198 5): given away there, and taken.

What is given is plain data, as JSON has it. Whoever gives a session keeps what its client has not
acknowledged until the other node has it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from xmppd.core.available import priority_of
from xmppd.core.begun import begun
from xmppd.core.binding import Binding
from xmppd.core.contacts import Contacts
from xmppd.core.managed import FINISH_SECONDS, MODULO, Managed, ManagedStream, let_go, too_high
from xmppd.core.origin import Origin
from xmppd.core.outstanding import Fellow, Former, Unacked
from xmppd.core.presence import Presences
from xmppd.core.questions import Timer
from xmppd.core.resumption import LeftOver, Resumption
from xmppd.core.sessions import RETURN, Session
from xmppd.core.shown import address_of
from xmppd.errors import StanzaError, StreamError
from xmppd.jid import domain_of
from xmppd.stream.sasl import Login
from xmppd.xml.stanza import Stanza, read

GIVEN_SECONDS: Final = 10.0
"""How long what was given away is kept until the other node says that it has it."""
OUTCOME_SECONDS: Final = 3.0
"""How long another node that asks for it meanwhile waits until that is known."""

FORMER: Final = 8
"""How many of the names that it had elsewhere a session takes along."""

State = Mapping[str, Any]


@dataclass(slots=True, eq=False)
class Given:
    """What was given to a node, None once that has gone, and has not said that it has it. `waiting` are told
    when it has, or has gone.
    """

    state: State
    to: str | None
    timer: Timer
    waiting: list[asyncio.Future[None]] = field(default_factory=list)

    def is_for(self, to: str) -> bool:
        """Whether a node may be given it: nobody has it, or that one asks once more ("": nobody knows)."""
        return self.to is None or (self.to == to and to != "")

    def tell(self) -> None:
        """It is known what became of it."""
        self.timer.cancel()
        self.go_on()

    def go_on(self) -> None:
        """Look at it again."""
        waiting, self.waiting = self.waiting, []
        for one in waiting:
            let_go(one)


class KeptSession(NamedTuple):
    """A session of a node that stops, its id, and what its client did not acknowledge."""

    account: str
    resource: str
    id: str
    unacknowledged: Sequence[bytes]


KEPT: Final = 10_000
KEPT_BYTES: Final = 67_108_864
"""How many sessions of nodes that have gone are kept for their clients, and how much of what these have not
acknowledged.
"""


class Others(Protocol):
    """The other nodes, as far as they may have a session. This node's `incarnation` tells it from them, and
    from what had its `name` before.
    """

    incarnation: int
    name: str

    async def fetch(self, id: str, account: str, h: int) -> State | None:
        """What one of them gives (`Handover.give`) for this id; None where none has it."""

    def taken(self, node: str, id: str) -> None:
        """It is here now: tell the node that gave it."""

    async def keep(self, state: State) -> bool:
        """Have one of them keep a session for its client; whether it does."""

    def seen(self, session: Session) -> Sequence[str]:
        """The full JIDs of whom its client was shown directed presence, and not its end (RFC 6121 4.6)."""

    def saw(self, session: Session, senders: Sequence[str]) -> None:
        """It was shown these where it came from: whoever has ended since is shown to end here."""

    def show_again(self, session: Session, address: str, stanza: bytes) -> None:
        """Show directed presence of a session that came from another node to who of that address was shown
        it, and to nobody who has come since.
        """


class Send(Protocol):
    """How a stanza is processed that comes from its origin: `Router.send`."""

    def __call__(self, origin: Origin, stanza: Stanza) -> Awaitable[None] | None: ...


class Handover:
    """Gives and takes sessions. `others` is None where there is one node."""

    def __init__(
        self,
        resumption: Resumption,
        binding: Binding,
        contacts: Contacts,
        presences: Presences,
        send: Send,
        left_over: LeftOver,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        told: Callable[[KeptSession], Awaitable[None] | None],
    ) -> None:
        self.others: Others | None = None
        self._resumption = resumption
        self._binding = binding
        self._contacts = contacts
        self._presences = presences
        self._send = send
        self._left_over = left_over
        self._spawn = spawn
        self._told = told
        self._given: dict[str, Given] = {}
        self._kept: dict[str, tuple[State, Timer]] = {}
        self._size = 0
        self._numbers: dict[tuple[str, int], None] = {}
        self._is_leaving = False
        self._leaving: list[asyncio.Future[None]] = []

    @property
    def _node(self) -> int:
        return 0 if self.others is None else self.others.incarnation

    # the node that has it

    async def give(self, id: str, account: str, h: int, to: str = "") -> State | None:
        """End a session here without anybody being told, and all that it is made of, for the node `to` ("":
        it does not say who it is); `sent` alone where the client acknowledges more than that.
        """
        managed = self._resumption.find(id, account)
        if managed is not None:
            if not managed.seconds:
                return None
            if (h - managed.acked) % MODULO > managed.sent - managed.acked:
                return {"sent": managed.sent}
            return await self._give(managed, h, StreamError("see-other-host"), to)
        self._resumption.sought(id, account)
        given = self._given.get(id)
        if given is not None and given.state["account"] == account:
            await self._outcome(given, to)
        state = self._state_of(id, to)
        if state is None or state["account"] != account:
            return None
        count = (h - state["sent"] + len(state["unacked"])) % MODULO
        if count > len(state["unacked"]):
            return {"sent": state["sent"]}
        if id in self._kept:
            self._forget(id)
        else:
            self.confirm(id)
        self._until_taken({**state, **unacknowledged(left_of(state)[count:], self._node)}, to)
        return {**state, "h": h}

    def _state_of(self, id: str, to: str) -> State | None:
        """A session that is kept here, or was given to a node that has gone, or asks once more."""
        if id in self._kept:
            return self._kept[id][0]
        given = self._given.get(id)
        return given.state if given is not None and given.is_for(to) else None

    async def _outcome(self, given: Given, to: str) -> None:
        """Wait until the node to which it was given has it or has gone, if another one asks for it: its
        client is not there any more.
        """
        if given.is_for(to):
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        given.waiting.append(waiting)
        if self.others is not None and to != self.others.name:
            timer = self._resumption.call_later(OUTCOME_SECONDS, partial(let_go, waiting))
            waiting.add_done_callback(lambda _: timer.cancel())
        await waiting

    async def _give(self, managed: Managed, h: int, why: StreamError, to: str) -> State | None:
        by, conflict = object(), None if why.condition == "see-other-host" else why
        self._resumption.take(managed, by, conflict)
        if (idle := managed.idle(FINISH_SECONDS)) is not None:
            await idle
        if not self._resumption.is_taken(managed, by, is_gone=False):
            return None
        session = managed.session
        counted(session)
        managed.acknowledged(h % MODULO)
        state = state_of(managed, self._node)
        if self.others is not None:
            state = {**state, "seen": self.others.seen(session)}
        managed.is_given = True
        self._numbers[session.account, session.number] = None
        if len(self._numbers) > KEPT:
            del self._numbers[next(iter(self._numbers))]
        managed.let_go()
        self._until_taken(state, to)
        self._binding.end(session, why)
        return state

    def _until_taken(self, state: State, to: str) -> None:
        """Keep what was not acknowledged until another node says that it has it."""
        timer = self._resumption.call_later(GIVEN_SECONDS, partial(self._come_back, state))
        self._given[state["id"]] = Given(state, to, timer)

    def _come_back(self, state: State) -> None:
        """Nobody has taken it."""
        given = self._given.pop(state["id"], None)
        if given is not None:
            self._left_over(full_of(state), left_of(state))
            given.tell()

    def gone(self, node: str) -> None:
        """Another node has gone: what it was given, and has not said to have, is to be had here again."""
        for given in self._given.values():
            if given.to == node:
                given.to = None
                given.go_on()

    def given(self) -> Iterator[tuple[str, bytes]]:
        """What clients had not acknowledged of sessions that no other node has said yet to have, each stanza
        with its account.
        """
        for given in self._given.values():
            for raw, _ in given.state["unacked"]:
                yield given.state["account"], raw.encode()

    def was_given(self, account: str, number: int) -> bool:
        """Whether the session that had this number here has moved to another node."""
        return (account, number) in self._numbers

    def confirm(self, id: str) -> None:
        """Another node has it."""
        if (given := self._given.pop(id, None)) is not None:
            given.tell()

    # a node that stops

    def depart(self, session: Session, why: StreamError) -> None:
        """End a session because this node stops: another one keeps it for its client if it can be resumed."""
        self._is_leaving = True
        managed: Managed | None = session.managed
        if self.others is None or managed is None or not managed.seconds:
            self._binding.end(session, why)
            return
        departing = begun(self._depart(managed, why, self.others))
        if departing is not None:
            left = asyncio.get_running_loop().create_future()
            self._leaving.append(left)
            self._spawn(finished(departing, left))

    async def _depart(self, managed: Managed, why: StreamError, others: Others) -> None:
        state = await self._give(managed, managed.acked, why, "")
        if state is None:
            return
        if await others.keep(state):
            self.confirm(state["id"])
        else:
            self._come_back(state)

    async def departed(self) -> None:
        """Wait until other nodes have what they keep. What was kept here for others is left over."""
        self._is_leaving = True
        for left in self._leaving:
            await left
        self._leaving.clear()
        for id in [*self._kept]:
            self._end_kept(id)

    # a node that keeps it

    async def keep(self, state: State) -> bool:
        """Keep a session whose node stops, as long as it may be resumed; whether there is room, and this one
        does not stop itself. All that concerns have been told when this ends.
        """
        size = size_of(state)
        if self._is_leaving or len(self._kept) >= KEPT or self._size + size > KEPT_BYTES:
            return False
        self._size += size
        end = partial(self._end_kept, state["id"])
        self._kept[state["id"]] = (
            {**state, "is_left": True},
            self._resumption.call_later(state["seconds"], end),
        )
        unacked = [raw.encode() for raw, _ in state["unacked"]]
        told = self._told(KeptSession(state["account"], state["resource"], state["id"], unacked))
        if told is not None:
            await told
        return True

    def keeps(self, id: str) -> bool:
        """Whether this node keeps a session of a node that stopped."""
        return id in self._kept

    def _forget(self, id: str) -> State:
        state, timer = self._kept.pop(id)
        timer.cancel()
        self._size -= size_of(state)
        return state

    def _end_kept(self, id: str) -> None:
        state = self._forget(id)
        self._left_over(full_of(state), left_of(state))

    # the node that takes it

    async def fetch(self, id: str, account: str, h: int) -> State | None:
        """What another node gives of a session, or was given to this one; StreamError where more is
        acknowledged than was sent.
        """
        state = await self.give(id, account, h, "" if self.others is None else self.others.name)
        if state is None and self.others is not None:
            state = await self.others.fetch(id, account, h)
        if state is not None and "resource" not in state:
            raise too_high(h, state["sent"])
        return state

    async def take(self, stream: ManagedStream, login: Login, id: str, state: State) -> Managed | None:
        """Make a session of what was given; None where that cannot be: then it is left over there. Nothing
        is written to it before `begin`.
        """
        login.sought = login.sought or state.get("sought", "")
        try:
            session = self._binding.bind(login, state["resource"], stream, state["lang"])
        except StanzaError:
            return None
        self._remember(session, state)
        presence = state["presence"].encode()
        if presence and priority_of(read(presence)) >= 0:
            session.hold_messages(RETURN)
        told = self._binding.announce(session)
        if told is not None:
            await told
        session.slots = {**(session.slots or {}), **state["slots"]}
        version = state["roster"]
        pushes = () if version is None else await self._contacts.catch_up(session, version)
        if session.is_over or session.resource != state["resource"] or pushes is None:
            self._binding.end(session)
            return None
        for push in pushes:
            session.send(push)
        self._binding.want_copies(session, bool(state.get("copies")))
        managed = self._resumption.revive(session, id, state, left_of(state))
        if (told := self._binding.resumed(session)) is not None:
            await told
        if "h" in state:  # whoever kept it could tell nobody
            managed.acknowledged(state["h"] % MODULO)
        if state.get("is_busy"):
            self._binding.given_up(session, None if state.get("is_left") else state.get("node", ""))
        return managed

    def _remember(self, session: Session, state: State) -> None:
        """Whom it sent directed presence, and was sent it by: they may end before it has begun."""
        for text in filter(None, state["directed"]):
            stanza = read(text.encode())
            self._presences.note_directed(session, stanza, address_of(stanza))
        if self.others is not None:
            self.others.saw(session, state.get("seen", ()))

    def go_on(self, managed: Managed) -> None:
        """It is resumed here, and has waited long enough for what its client sent."""
        if managed.is_busy:
            self._binding.given_up(managed.session, "")
            managed.give_up()

    def returned(self, managed: Managed) -> None:
        """Its client knows that it is resumed where it was."""
        managed.resend()
        self._binding.returned(managed.session)

    def drop(self, managed: Managed, state: State) -> None:
        """Its stream has gone before it had it: what it was given with is left over where it was given, and
        what came since is here.
        """
        counted(managed.session)
        managed.disown(state["sent"])
        self._binding.end(managed.session)

    def begin(self, managed: Managed, state: State) -> None:
        """Its client knows that it is resumed: go on, and show it as it was shown, before anything else that
        its client says. What its client may have missed of presence while no node had the session it is shown
        again.
        """
        session = managed.session
        session.begin()
        if "node" not in state:
            self.confirm(managed.id)
        elif self.others is not None:
            self.others.taken(state["node"], managed.id)
        presence = state["presence"].encode()
        waiting = self._send(session, read(presence)) if presence else None
        self._spawn(self._show(session, waiting, [*directed_of(session)]))

    async def _show(
        self, session: Session, waiting: Awaitable[None] | None, directed: Sequence[tuple[str, bytes]]
    ) -> None:
        try:
            if waiting is not None:
                await waiting
        finally:
            session.release_messages(RETURN)  # it is available, or the store cannot be asked
        for address, raw in directed:
            if not any(raw is newest for _, newest in session.directed_to(address)):
                continue  # its client has said something else to that one since, or it is over
            if self.others is not None and domain_of(address) not in self._presences.services:
                self.others.show_again(session, address, raw)
            elif (waiting := self._send(session, read(raw))) is not None:
                await waiting
        if not session.is_over:
            self._binding.returned(session)


def counted(session: Session) -> None:
    """Have all counted that a session was sent, in this turn of the loop or before it began."""
    session.begin()
    session.flush()


def state_of(managed: Managed, node: int) -> State:
    """All that a session of the node of this incarnation is made of."""
    session = managed.session
    roster = session.live.roster
    presence = session.said if session.presence is not None else None
    return {
        "id": managed.id,
        "account": session.account,
        "resource": session.resource,
        "lang": session.lang,
        "since": session.since,
        "sought": session.login.sought,
        "seconds": managed.seconds,
        "received": managed.handled,
        "is_busy": managed.is_busy,
        "sent": managed.sent,
        **unacknowledged(managed.left(), node),
        "former": [*(managed.former or ()), named(session, node)][-FORMER:],
        "presence": (presence.head + presence.tail).decode() if presence is not None else "",
        "directed": [raw.decode() for _, raw in directed_of(session)],
        "copies": bool(session.copies_since),
        "roster": roster.version if session.has_roster and roster is not None else None,
        "slots": {key: value for key, value in (session.slots or {}).items() if is_plain(value)},
    }


def directed_of(session: Session) -> Iterator[tuple[str, bytes]]:
    """By address what a session sent directed presence, as far as it is kept."""
    for _, shown in session.directed.items() if session.directed is not None else ():
        yield from ((address, raw) for address, raw in shown.items() if raw)


def unacknowledged(left: Iterable[Unacked], node: int) -> State:
    """What a client of this node has not acknowledged: each stanza with its second, which of them are
    `stored`, and which `fellows` were sent those from some index on, until others are named.
    """
    stanzas = [*left]
    fellows: list[list[Any]] = []
    others: tuple[Fellow, ...] = ()
    for index, one in enumerate(stanzas):
        if one.others != others:
            others = one.others
            fellows.append([index, [named(other, node) for other in others]])
    return {
        "unacked": [[one.raw.decode(), one.second] for one in stanzas],
        "stored": [index for index, one in enumerate(stanzas) if one.is_stored],
        "fellows": fellows,
    }


def named(fellow: Fellow, node: int) -> tuple[int, int]:
    """What tells a session on all nodes, seen from this node."""
    return node if isinstance(fellow, Session) else fellow.node, fellow.number


def full_of(state: State) -> str:
    """The full JID of a session."""
    return f"{state['account']}/{state['resource']}"


def left_of(state: State) -> list[Unacked]:
    """What its client has not acknowledged."""
    stored = frozenset(state.get("stored", ()))
    fellows = {index: tuple(Former(*name) for name in names) for index, names in state.get("fellows", ())}
    others: tuple[Former, ...] = ()
    left = []
    for index, (raw, second) in enumerate(state["unacked"]):
        others = fellows.get(index, others)
        left.append(Unacked(raw.encode(), second, others, index in stored))
    return left


def size_of(state: State) -> int:
    """About how many bytes that is."""
    return sum(len(raw) for raw, _ in state["unacked"])


async def finished(work: Awaitable[None], end: asyncio.Future[None]) -> None:
    """Do something, and then tell."""
    try:
        await work
    finally:
        if not end.done():  # who waits for it may have been ended as well
            end.set_result(None)


def is_plain(value: Any) -> bool:
    """Whether a value is the same behind JSON."""
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError):
        return False
