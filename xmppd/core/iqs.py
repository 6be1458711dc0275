"""Requests and their answers: which handler takes an iq, and who may reach whom with one (RFC 6120 8.2.3, RFC
6121 8.5).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any
from xml.etree.ElementTree import Element

from xmppd import ns
from xmppd.core.barred import bars
from xmppd.core.later import Later
from xmppd.core.origin import Origin, Target
from xmppd.core.questions import Questions
from xmppd.core.services import Services, Take
from xmppd.core.sessions import Session, Sessions
from xmppd.core.shown import address_of
from xmppd.core.tally import owner_of, timed
from xmppd.core.visibility import Visibility
from xmppd.errors import StanzaError
from xmppd.hooks import Drop, Hooks
from xmppd.jid import Jid
from xmppd.xml import build
from xmppd.xml.stanza import Stanza


class Address(Enum):
    """Whom an iq that the server answers is addressed to."""

    SERVER = "a domain of this server"
    SELF = "the sender's own account, by its bare JID or by leaving `to` out"
    LOGIN = "a stream that nobody has logged in on; the handler is given an EarlyRequest"
    ACCOUNT = "the bare JID of any account; the server answers for it (RFC 6121 8.5.2.1.3)"
    SERVICE = "the host of a service, when the service does not answer itself"

    __hash__ = object.__hash__  # that of Enum is a function, and one is looked up by every request


OWN = (Address.SELF, Address.ACCOUNT, Address.SERVER)
"""Who is asked, in this order, when a client asks its own account."""


@dataclass(frozen=True, slots=True)
class Request:
    """One iq get or set for a handler. `target` is a domain or a bare JID, normalised."""

    origin: Origin
    stanza: Stanza
    target: str

    @property
    def session(self) -> Session:
        """The origin of a request to `SELF`: only sessions have an account of their own to ask."""
        assert isinstance(self.origin, Session)
        return self.origin

    @property
    def payload(self) -> Element:
        """The request's only child."""
        return self.stanza.xml[0]

    @property
    def is_own(self) -> bool:
        """Whether the sender asks about its own account."""
        return self.target == self.origin.account


@dataclass(frozen=True, slots=True)
class EarlyRequest:
    """One iq get or set of a client that has not logged in; `peer` is its address."""

    domain: str
    peer: str
    stanza: Stanza

    @property
    def payload(self) -> Element:
        """The request's only child."""
        return self.stanza.xml[0]


Payload = Element | bytes | None


@dataclass(frozen=True, slots=True)
class Followed:
    """The payload of a result, and whole stanzas that go out right behind it."""

    payload: Payload
    stanzas: Sequence[bytes]


Answer = Payload | Followed
Handler = Callable[[Any], Answer | Awaitable[Answer]]
Serve = Callable[[Origin, Stanza, Jid], Answer | Awaitable[Answer]]
"""Answers for a host: origin, stanza, and the address on the host."""
HandlerKey = tuple[Address, str, str]
"""Address, "get" or "set", Clark name of the payload."""

LAST = f"{{{ns.LAST}}}query"
GUARDED = frozenset((LAST, f"{{{ns.ROSTER}}}query"))
"""What is not everybody's to ask of somebody else's resource: its last activity is for those who may see its
presence (XEP-0012 4), its roster for its own account (RFC 6121 2.1.5).
"""


class Iqs:
    """Answers or routes iq stanzas. `from_strangers`: sessions are given requests of those, too, who were not
    let see their presence.
    """

    def __init__(
        self,
        sessions: Sessions,
        visibility: Visibility,
        services: Services,
        questions: Questions,
        hooks: Hooks,
        domains: frozenset[str],
        *,
        from_strangers: bool = True,
    ) -> None:
        self._sessions = sessions
        self._targets = sessions.targets
        self._visibility = visibility
        self.from_strangers = from_strangers
        self._services = services
        self._questions = questions
        self._hooks = hooks
        self._domains = domains
        self.compile(())

    def compile(self, handlers: Iterable[tuple[HandlerKey, Handler]]) -> None:
        """Replace the table of handlers; the first one to claim a key keeps it."""
        table: dict[HandlerKey, Handler] = {}
        for key, handler in handlers:
            table.setdefault(key, handler)
        spent = self._hooks.spent
        self._plain = self._handlers = table
        self._watched = {key: timed(it, spent[owner_of(it)]) for key, it in table.items()}

    def watch(self, *, is_on: bool) -> None:
        """Have handlers that are asked from now on timed, or not any more."""
        self._handlers = self._watched if is_on else self._plain

    @property
    def keys(self) -> Iterable[HandlerKey]:
        """What can be asked here, for service discovery."""
        return self._handlers.keys()

    def early(self, stanza: Stanza) -> Handler | None:
        """Who answers this iq before login."""
        return self._handlers.get((Address.LOGIN, stanza.type or "", stanza.payload))

    def route(self, origin: Origin, stanza: Stanza) -> Awaitable[None] | None:
        """Answer or forward an iq whose `from` is its true sender; StanzaError refuses it."""
        check(stanza)
        to = stanza.to
        if to and to in self._domains:  # first: it is the account of what the server itself asks
            return self._answer(origin, stanza, to, (Address.SERVER,))
        if not to or (to == origin.account and to not in self._services):
            return self._answer(origin, stanza, origin.account, OWN)
        jid = address_of(stanza)
        if jid.domain not in self._domains:
            return self._services.take(origin, stanza, jid)
        if not jid.local:
            if jid.resource:
                raise StanzaError("service-unavailable")
            return self._answer(origin, stanza, jid.domain, (Address.SERVER,))
        if jid.bare == origin.account:
            return self._to_account(origin, stanza, jid)
        blocks = self._visibility.blocks.load(jid.bare)
        if not isinstance(blocks, frozenset):
            return self._route_later(origin, stanza, jid, blocks)
        return self._to_other(origin, stanza, jid, blocks)

    async def _route_later(
        self, origin: Origin, stanza: Stanza, to: Jid, loading: Awaitable[frozenset[str]]
    ) -> None:
        waiting = self._to_other(origin, stanza, to, await loading)
        if waiting is not None:
            await waiting

    def _to_other(
        self, origin: Origin, stanza: Stanza, to: Jid, blocks: frozenset[str]
    ) -> Awaitable[None] | None:
        """To another account, which has this block list (XEP-0191 3.3)."""
        if blocks and bars(to.bare, blocks, origin.full):
            raise StanzaError("service-unavailable")  # to a result or an error that is nobody's answer
        if self._hooks.iq_for_filter:
            return self._filtered(origin, stanza, to)
        return self._to_account(origin, stanza, to)

    def _filtered(self, origin: Origin, stanza: Stanza, to: Jid) -> Awaitable[None] | None:
        """Ask the filters of its receiver first."""
        kept = self._hooks.filtered(self._hooks.iq_for_filter, to.bare, stanza)
        if isinstance(kept, Awaitable):
            return self._filtered_later(origin, kept, to)
        return None if isinstance(kept, Drop) else self._to_account(origin, kept, to)

    async def _filtered_later(self, origin: Origin, filtering: Awaitable[Stanza | Drop], to: Jid) -> None:
        kept = await filtering
        waiting = None if isinstance(kept, Drop) else self._to_account(origin, kept, to)
        if waiting is not None:
            await waiting

    def _to_account(self, origin: Origin, stanza: Stanza, to: Jid) -> Awaitable[None] | None:
        if to.resource:
            return self.forward(origin, stanza, to)
        where = OWN if to.bare == origin.account else (Address.ACCOUNT,)
        return self._answer(origin, stanza, to.bare, where)

    def for_host(self, serve: Serve) -> Take:
        """How a host is served by a method: what it returns for an iq get or set is the result's payload. An
        iq to the host itself goes to the handlers for services first (discovery, pings).
        """

        def take(origin: Origin, stanza: Stanza, to: Jid) -> Awaitable[None] | None:
            if stanza.kind != "iq":
                waiting = serve(origin, stanza, to)
                return _forget(waiting) if isinstance(waiting, Awaitable) else None
            check(stanza)
            is_request = stanza.type in ("get", "set")
            if not is_request and self._questions.take(stanza):
                return None
            key = Address.SERVICE, stanza.type or "", stanza.payload
            if is_request and to.full == to.domain and key in self._handlers:
                return self._answer(origin, stanza, to.domain, (Address.SERVICE,))
            answer = serve(origin, stanza, to)
            if is_request:
                return _reply(origin, stanza, answer)
            return _forget(answer) if isinstance(answer, Awaitable) else None

        return take

    def forward(self, origin: Origin, stanza: Stanza, to: Jid) -> Awaitable[None] | None:
        """To another session; a request that may not be as if it was not there (RFC 6121 8.5.3)."""
        receiver = self._targets.get(to.full)
        if stanza.type in ("result", "error"):
            if receiver is not None:
                is_awaited = self._sessions.cluster.is_awaited(to.full, origin.full, stanza.id or "")
                if is_awaited and not self._visibility.blocks.bars(to.bare, origin.full):
                    receiver.send(stanza.raw)
            elif self._sessions.cluster.has(to.full):
                return self._sessions.cluster.iq(origin, stanza, to)
            return None
        if receiver is None and self._sessions.cluster.has(to.full):
            return self._sessions.cluster.iq(origin, stanza, to)
        if stanza.payload in GUARDED and to.bare != origin.account:
            return self._guard(origin, stanza, to)
        if receiver is None or not self._may_reach(receiver, origin):
            raise StanzaError("service-unavailable")
        receiver.send(stanza.raw)
        return None

    async def _guard(self, origin: Origin, stanza: Stanza, to: Jid) -> None:
        """A request that not everybody may make, and whose refusal is the same for who is not there."""
        receiver = self._targets.get(to.full)
        may_ask = stanza.payload == LAST and (
            await self._visibility.may_see(origin.account, to.bare)
            or (isinstance(receiver, Session) and self._visibility.knows(origin.account, receiver))
        )
        if not may_ask:
            raise StanzaError("forbidden")
        receiver = self._targets.get(to.full)
        if receiver is None or not self._may_reach(receiver, origin):
            raise StanzaError("service-unavailable")
        receiver.send(stanza.raw)

    def _may_reach(self, receiver: Target, origin: Origin) -> bool:
        """Whether that would tell its presence to nobody who may not know (RFC 6121 8.5.3.1). Sessions
        elsewhere decide for themselves.
        """
        if not isinstance(receiver, Session):
            return True
        if receiver.live.bars(origin.full):
            return False
        if self.from_strangers:
            return self._visibility.allows(origin.account, receiver.full)
        return self._visibility.knows(origin.account, receiver)

    def _answer(
        self, origin: Origin, stanza: Stanza, target: str, where: tuple[Address, ...]
    ) -> Awaitable[None] | None:
        kind = stanza.type
        if kind not in ("get", "set"):
            if not self._questions.take(stanza):
                self._sessions.cluster.answer(stanza)
            return None
        for address in where:
            handler = self._handlers.get((address, kind, stanza.payload))
            if handler is not None:
                break
        else:
            raise StanzaError("service-unavailable")
        return _reply(origin, stanza, handler(Request(origin, stanza, target)))


def _reply(origin: Origin, stanza: Stanza, answer: Answer | Awaitable[Answer]) -> Awaitable[None] | None:
    if isinstance(answer, Awaitable):
        reply = _reply_later(origin, stanza, answer)
        return Later(reply) if answer.__class__ is Later else reply
    for each in result_of(stanza, origin.full, answer):
        origin.send(each)
    return None


async def _forget(answer: Awaitable[Answer]) -> None:
    await answer


async def _reply_later(origin: Origin, stanza: Stanza, answer: Awaitable[Answer]) -> None:
    for each in result_of(stanza, origin.full, await answer):
        origin.send(each)


def result_of(stanza: Stanza, to: str, answer: Answer) -> Sequence[bytes]:
    """The stanzas that a handler's answer to an iq makes go out."""
    if isinstance(answer, Followed):
        return build.iq_result(stanza, to, answer.payload), *answer.stanzas
    return (build.iq_result(stanza, to, answer),)


def check(stanza: Stanza) -> None:
    """The form of an iq (RFC 6120 8.2.3): StanzaError bad-request when it breaks it."""
    kind = stanza.type
    if not stanza.id:
        raise StanzaError("bad-request", "An iq has an id.")
    if kind in ("get", "set"):
        if not stanza.payload:
            raise StanzaError("bad-request", f"An iq of type {kind} has one child.")
        if stanza.raw.count(b"<") > 3 and len(stanza.xml) != 1:
            raise StanzaError("bad-request", f"An iq of type {kind} has exactly one child.")
    elif kind not in ("result", "error"):
        raise StanzaError("bad-request", "The type of an iq is get, set, result or error.")
