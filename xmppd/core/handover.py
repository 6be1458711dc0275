"""Managed sessions that are resumed on another node (XEP-0198 5): given away there, and taken.

What is given is plain data, as JSON has it. Whoever gives a session keeps what its client has not
acknowledged until the other node has it.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, Protocol

from xmppd.core.binding import Binding
from xmppd.core.contacts import Contacts
from xmppd.core.managed import FINISH_SECONDS, MODULO, Managed, ManagedStream, Unacked, too_high
from xmppd.core.origin import Origin
from xmppd.core.questions import Timer
from xmppd.core.resumption import LeftOver, Resumption
from xmppd.core.sessions import Session
from xmppd.errors import StanzaError, StreamError
from xmppd.stream.sasl import Login
from xmppd.xml.stanza import Stanza, read

GIVEN_SECONDS: Final = 10.0
"""How long what was given away is kept until the other node says that it has it."""

State = Mapping[str, Any]


class Others(Protocol):
    """The other nodes, as far as they may have a session."""

    async def fetch(self, id: str, account: str, h: int) -> State | None:
        """What one of them gives (`Handover.give`) for this id; None where none has it."""

    def taken(self, state: State) -> None:
        """It is here now: tell the node that gave it."""


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
        send: Send,
        left_over: LeftOver,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self.others: Others | None = None
        self._resumption = resumption
        self._binding = binding
        self._contacts = contacts
        self._send = send
        self._left_over = left_over
        self._spawn = spawn
        self._given: dict[str, Timer] = {}

    # the node that has it

    async def give(self, id: str, account: str, h: int) -> State | None:
        """End a session here without anybody being told, and all that it is made of; `sent` alone where the
        client acknowledges more than that.
        """
        managed = self._resumption.find(id, account)
        if managed is None or not managed.seconds:
            return None
        if (h - managed.acked) % MODULO > managed.sent - managed.acked:
            return {"sent": managed.sent}
        self._resumption.take(managed, by := object())
        if (idle := managed.idle(FINISH_SECONDS)) is not None:
            await idle
        if not self._resumption.is_taken(managed, by, is_gone=False):
            return None
        managed.acknowledged(h)
        state, session, left = state_of(managed), managed.session, [*managed.left()]
        managed.let_go()
        self._given[id] = self._resumption.call_later(
            GIVEN_SECONDS, lambda: self._come_back(id, session, left)
        )
        self._binding.end(session, StreamError("see-other-host"))
        return state

    def _come_back(self, id: str, session: Session, left: list[Unacked]) -> None:
        """Nobody has taken it."""
        if self._given.pop(id, None) is not None:
            self._left_over(session, left)

    def confirm(self, id: str) -> None:
        """Another node has it."""
        if (timer := self._given.pop(id, None)) is not None:
            timer.cancel()

    # the node that takes it

    async def fetch(self, id: str, account: str, h: int) -> State | None:
        """What another node gives of a session; StreamError where more is acknowledged than was sent."""
        state = await self.others.fetch(id, account, h) if self.others is not None else None
        if state is not None and "resource" not in state:
            raise too_high(h, state["sent"])
        return state

    async def take(self, stream: ManagedStream, login: Login, id: str, state: State) -> Managed | None:
        """Make a session of what was given; None where that cannot be: then it is left over there. Nothing
        is written to it before `begin`.
        """
        try:
            session = self._binding.bind(login, state["resource"], stream, state["lang"])
        except StanzaError:
            return None
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
        return self._resumption.revive(session, id, state)

    def drop(self, managed: Managed) -> None:
        """Its stream has gone before it had it: it is left over where it was given."""
        managed.let_go()
        self._binding.end(managed.session)

    def begin(self, managed: Managed, state: State) -> None:
        """Its client knows that it is resumed: go on, and show it as it was shown. What its client may have
        missed of presence while no node had the session it is shown again.
        """
        session = managed.session
        session.begin()
        if self.others is not None:
            self.others.taken(state)
        shown = [state["presence"], *state["directed"]]
        self._spawn(self._show(session, [text.encode() for text in shown if text]))

    async def _show(self, session: Session, shown: list[bytes]) -> None:
        for raw in shown:
            waiting = None if session.is_over else self._send(session, read(raw))
            if waiting is not None:
                await waiting


def state_of(managed: Managed) -> State:
    """All that a session is made of."""
    session = managed.session
    presence, roster = session.presence, session.live.roster
    return {
        "id": managed.id,
        "resource": session.resource,
        "lang": session.lang,
        "since": session.since,
        "seconds": managed.seconds,
        "received": managed.handled,
        "sent": managed.sent,
        "unacked": [[unacked.raw.decode(), unacked.second] for unacked in managed.left()],
        "presence": (presence.head + presence.tail).decode() if presence is not None else "",
        "directed": [
            raw.decode()
            for _, shown in (session.directed.items() if session.directed is not None else ())
            for raw in shown.values()
        ],
        "roster": roster.version if session.has_roster and roster is not None else None,
        "slots": {key: value for key, value in (session.slots or {}).items() if is_plain(value)},
    }


def is_plain(value: Any) -> bool:
    """Whether a value is the same behind JSON."""
    try:
        return bool(json.loads(json.dumps(value)) == value)
    except (TypeError, ValueError):
        return False
