"""The second hop of a stanza: from the session that sent it, through the policies, to whoever takes it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter
from typing import Any, Protocol

from xmppd import ns
from xmppd.core.blocks import Blocks
from xmppd.core.contacts import SUBSCRIPTION_TYPES, Contacts
from xmppd.core.fates import DROPPED, REFUSED
from xmppd.core.intake import Intake
from xmppd.core.iqs import Iqs
from xmppd.core.later import Later, Pending, Told
from xmppd.core.messages import Messages
from xmppd.core.origin import Origin
from xmppd.core.presence import Presences
from xmppd.core.probes import Probes
from xmppd.core.sentagain import era_of, is_sent_again
from xmppd.core.services import Services
from xmppd.core.sessions import Session
from xmppd.core.shown import address_of
from xmppd.core.tally import SECONDS, SHORT, Spreads, owner_of, until
from xmppd.errors import StanzaError, StoreError, StreamError
from xmppd.hooks import UNHEARD, Callables, Drop, Hooks, Stages
from xmppd.xml import build
from xmppd.xml.stanza import Stanza

log = logging.getLogger(__name__)

Waiting = Awaitable[None] | None
Step = Callable[[Any, Stanza], Waiting]


Observe = Callable[[float], None]


class Traced(Protocol):
    """One stanza that is traced; seconds since it was taken."""

    def routed(self, seconds: float) -> None:
        """It was sent on, or has to wait."""

    def done(self, seconds: float) -> None:
        """It had to wait, and is done."""


class Tracer(Protocol):
    """Who is shown what clients send."""

    def taken(self, session: Session, stanza: Stanza) -> Traced | None:
        """A stanza came, as its client wrote it; None: nobody follows that."""


class Router:
    """Takes every stanza and sees that it is delivered or refused."""

    def __init__(
        self,
        intake: Intake,
        messages: Messages,
        presences: Presences,
        probes: Probes,
        contacts: Contacts,
        iqs: Iqs,
        services: Services,
        blocks: Blocks,
        hooks: Hooks,
        domains: frozenset[str],
    ) -> None:
        self._blocks = blocks
        self._intake = intake
        self._messages = messages
        self._presences = presences
        self._probes = probes
        self._contacts = contacts
        self._iqs = iqs
        self._services = services
        self._hooks = hooks
        self._domains = domains
        self._from_clients: dict[str, Step] = {
            "message": self._message,
            "presence": self._presence,
            "iq": self._iq,
        }
        self._on_turn = self._act
        self._kinds: dict[str, Step] = {
            "message": messages.route,
            "presence": self._route_presence,
            "iq": iqs.route,
        }
        self.redirect: Callable[[Origin, Stanza, StanzaError], StanzaError] = as_it_is
        """What refuses a stanza to an account that is not there."""
        self.errors = 0
        """How many stanzas met a mistake of ours."""
        self.messages_taken = self.presences_taken = self.iqs_taken = 0
        """How many stanzas of each kind clients sent."""
        self.refused: Counter[tuple[str, str, str]] = Counter()
        """How many were refused: by kind, condition, and the module that did."""
        self.dropped: Counter[str] = Counter()
        """How many a filter of what is sent let vanish, by kind."""
        self.routing = Spreads(SHORT)
        """Seconds that stanzas which were watched took until they were sent on or had to wait, by kind."""
        self.handling = Spreads(SECONDS)
        """Seconds until such a one that had to wait was done, by kind."""
        self.watches_next = False
        """Whether the next stanza of a client is watched, or shown to the tracer."""
        self._is_due = False
        self.tracer: Tracer | None = None
        """Who is shown what some accounts send; None: nobody. See `trace`."""
        self._counter: Callable[[str], None] | None = None

    def take(self, session: Session, stanza: Stanza) -> Waiting:
        """Process one stanza as a client wrote it. What is returned must be awaited before the session's next
        one, unless it is a Later.

        Both raise StreamError, and nothing else: for what may not be sent on a bound stream (RFC 6120
        4.9.3.24), and when a plugin wants the stream ended.
        """
        if self.watches_next:
            return self._watched(session, stanza)
        try:
            waiting = self.act(session, stanza)
        except StreamError:
            raise
        except Exception as error:  # noqa: BLE001 - `_refuse` tells the kinds apart
            self._refuse(session, stanza, error)
            return None
        return None if waiting is None else self._followed(session, stanza, waiting)

    def watch_next(self) -> None:
        """Have the next stanza of a client watched, and what plugins do for it timed."""
        self.watches_next = self._is_due = True

    def trace(self, tracer: Tracer | None) -> None:
        """Show this one what clients send from now on, or nobody."""
        self.tracer = tracer
        self._watch()

    def count(self, counter: Callable[[str], None] | None) -> None:
        """Tell this one the account of each stanza of a client from now on, or nobody."""
        self._counter = counter
        self._watch()

    def _watch(self) -> None:
        self.watches_next = self._is_due or self.tracer is not None or self._counter is not None

    def _watched(self, session: Session, stanza: Stanza) -> Waiting:
        """The same for a stanza that is counted or traced, or whose time is measured, or nothing of that."""
        is_due, self._is_due, self.watches_next = self._is_due, False, False
        if self._counter is not None:
            self._counter(session.account)
        try:
            traced = self.tracer.taken(session, stanza) if self.tracer is not None else None
            if traced is not None:
                return self.timed(session, stanza, traced.routed, traced.done)
            if is_due and stanza.kind in self._kinds:
                kind = stanza.kind
                return self.timed(session, stanza, self.routing[kind].observe, self.handling[kind].observe)
            return self.take(session, stanza)
        finally:
            self._watch()

    def timed(self, session: Session, stanza: Stanza, routed: Observe, done: Observe) -> Waiting:
        """Take a stanza with what plugins do for it timed; the seconds until it was sent on or had to wait
        are told, and where it had to wait those until it was done.
        """
        self._hooks.watch(is_on=True)
        self._iqs.watch(is_on=True)
        began = perf_counter()
        try:
            waiting = self.take(session, stanza)
        finally:
            self._hooks.watch(is_on=False)
            self._iqs.watch(is_on=False)
            routed(perf_counter() - began)
        if waiting is None or isinstance(waiting, Told):
            return waiting
        if isinstance(waiting, Pending):
            waiting.then(partial(seen, done, began))
            return waiting
        if isinstance(waiting, Later):
            return Later(until(waiting.rest, done, began), waiting.size)
        return until(waiting, done, began)

    def _followed(self, session: Session, stanza: Stanza, waiting: Awaitable[None]) -> Waiting:
        """What has to be awaited of a stanza, which then refuses it by itself."""
        if isinstance(waiting, Pending):
            waiting.inner = waiting.act
            waiting.session = session
            waiting.stanza = stanza
            waiting.size = len(stanza.raw)
            waiting.act = self._on_turn
            return waiting
        if isinstance(waiting, Told):
            waiting.refuse = partial(self._caught, session, stanza)
            return waiting
        rest = self._finish(session, stanza, waiting)
        return Later(rest, len(stanza.raw)) if isinstance(waiting, Later) else rest

    def _act(self, pending: Pending) -> Waiting:
        """It is its turn."""
        try:
            waiting = pending.inner(pending)
        except Exception as error:  # noqa: BLE001 - `_refuse` tells the kinds apart
            self._caught(pending.session, pending.stanza, error)
            return None
        return None if waiting is None else self._followed(pending.session, pending.stanza, waiting)

    def act(self, session: Session, stanza: Stanza) -> Waiting:
        """The same, whose refusals are raised: what is done in a session's name is told to who does it."""
        step = self._from_clients.get(stanza.kind)
        if step is None:
            raise unexpected(stanza)
        stanza = self._intake.take(session, stanza)
        if session.live.blocks:
            self._blocks.check_sent(session, stanza)
        return step(session, stanza)

    def send(self, origin: Origin, stanza: Stanza) -> Waiting:
        """Process a stanza that is known to come from `origin`, as its `from` says; StanzaError refuses it.
        What is returned must be awaited before its next one.
        """
        return self._kinds[stanza.kind](origin, stanza)

    def route(self, origin: Origin, stanza: Stanza) -> Waiting:
        """The same, whose refusals go to `origin`."""
        try:
            waiting = self.send(origin, stanza)
        except Exception as error:  # noqa: BLE001 - `_refuse` tells the kinds apart
            self._refuse(origin, stanza, error)
            return None
        return None if waiting is None else self._finish(origin, stanza, waiting)

    def forward(self, origin: Origin, iq: Stanza) -> Waiting:
        """Hand an iq of another node's session to one here; its filters were asked there."""
        try:
            waiting = self._iqs.forward(origin, iq, address_of(iq))
        except Exception as error:  # noqa: BLE001 - `_refuse` tells the kinds apart
            self._refuse(origin, iq, error)
            return None
        return None if waiting is None else self._finish(origin, iq, waiting)

    def reroute(self, origin: Origin, message: Stanza) -> Waiting:
        """Find another receiver for a message that was delivered and not received."""
        try:
            waiting = self._messages.reroute(origin, message)
        except Exception as error:  # noqa: BLE001 - `_refuse` tells the kinds apart
            self._refuse(origin, message, error)
            return None
        if waiting is None:
            return None
        rest = self._finish(origin, message, waiting)
        return Later(rest) if isinstance(waiting, Later) else rest

    async def _finish(self, origin: Origin, stanza: Stanza, waiting: Awaitable[None]) -> None:
        try:
            await waiting
        except Exception as error:  # noqa: BLE001 - `_refuse` tells the kinds apart
            self._caught(origin, stanza, error)

    def _caught(self, origin: Origin, stanza: Stanza, error: Exception) -> None:
        if isinstance(error, StreamError):
            raise error
        self._refuse(origin, stanza, error)

    def _refuse(self, origin: Origin, stanza: Stanza, error: Exception) -> None:
        """The one place where an error becomes a reply; no error or result is ever answered (RFC
        6120 8.3.1).
        """
        rule = refuser(error)
        if isinstance(error, StoreError):
            error = not_stored(error, jid=origin.full, kind=stanza.kind)
        elif not isinstance(error, StanzaError):
            self.errors += 1
            extra = {"jid": origin.full, "kind": stanza.kind, "stanza_id": stanza.id}
            log.error("stanza-failed", exc_info=error, extra=extra)
            error = StanzaError("internal-server-error")
        if error.condition == "service-unavailable":
            error = self.redirect(origin, stanza, error)
        self.refused[stanza.kind, error.condition, rule] += 1
        if stanza.kind == "message":
            why = f"{error.condition}: {error.text}" if error.text else error.condition
            self._messages.fates.note(stanza, REFUSED, rule, why, sender=origin.full)
        if stanza.type not in ("error", "result"):
            reply = build.error_reply(stanza, origin.full, error)
            origin.send(reply)
            if origin.has_copies and stanza.kind == "message" and isinstance(origin, Session):
                self._messages.carbons.refused(origin, stanza, reply)

    # one step for each kind

    def _message(self, session: Session, stanza: Stanza) -> Waiting:
        self.messages_taken += 1
        stages = self._hooks.message_sent
        if stages is not None:
            if stages[0] or stages[2]:
                return self._hooked(session, stanza, stages, self._messages.route)
            for change in stages[1]:  # as `_hooked` does: messages are many, and a call is dear
                result = change(session, stanza)
                if result is not stanza:
                    return self._changed(session, stanza, change, result, stages, self._messages.route)
        return self._messages.route(session, stanza)

    def _presence(self, session: Session, stanza: Stanza) -> Waiting:
        self.presences_taken += 1
        stages = self._hooks.presence_sent
        if stages is not None:
            return self._hooked(session, stanza, stages, self._route_presence)
        return self._route_presence(session, stanza)

    def _iq(self, session: Session, stanza: Stanza) -> Waiting:
        self.iqs_taken += 1
        stages = self._hooks.iq_sent
        if stages is not None:
            return self._hooked(session, stanza, stages, self._iqs.route)
        return self._iqs.route(session, stanza)

    def _route_presence(self, origin: Origin, stanza: Stanza) -> Waiting:
        session = origin if isinstance(origin, Session) else None
        if session is not None and session.is_over:
            return None  # it ended while a hook waited, and its unavailable presence is out
        kind = stanza.type
        if len(stanza.raw) > self._presences.rules.bytes:
            raise StanzaError("policy-violation", "The presence is too long.")
        if not stanza.to:
            if session is not None and (kind is None or kind == "unavailable"):
                return self._presences.update(session, stanza)
            raise StanzaError("bad-request", "Presence of this type needs an address.")
        to = address_of(stanza)
        if kind in SUBSCRIPTION_TYPES:
            return self._contacts.subscription(origin, stanza, to)
        if kind not in (None, "unavailable", "probe", "error"):
            raise StanzaError("bad-request", "There is no such type of presence.")
        is_ours = to.domain in self._domains
        if not is_ours and to.domain not in self._services:
            raise StanzaError("remote-server-not-found")
        if kind == "probe" and is_ours:
            return self._probes.answer(origin, to)
        if session is not None and not self._presences.note_directed(session, stanza, to):
            return None
        if not is_ours:
            return self._services.take(origin, stanza, to)
        return self._presences.direct(stanza, to)

    # hooks

    def _hooked(self, session: Session, stanza: Stanza, stages: Stages, then: Step) -> Waiting:
        """Run policies, filters, the step itself and signals; becomes a coroutine at the first one that has
        to wait.
        """
        policies, filters, signals = stages
        for index, policy in enumerate(policies) if policies else ():
            waiting = policy(session, stanza)
            if waiting is not None and isinstance(waiting, Awaitable):  # the test itself is dear
                rest = policies[index + 1 :], filters, signals
                return self._policed_later(session, stanza, waiting, rest, then, era_of(session))
        for change in filters:
            result = change(session, stanza)
            if result is not stanza:  # it nearly always is
                return self._changed(session, stanza, change, result, stages, then)
        waiting = then(session, stanza)
        return self._signalled(session, stanza, signals, waiting) if signals else waiting

    def _changed(
        self,
        session: Session,
        stanza: Stanza,
        change: Callable[..., Any],
        result: Any,
        stages: Stages,
        then: Step,
    ) -> Waiting:
        """A filter has made another one of it, or ended it, or has to wait for that."""
        if isinstance(result, Drop):
            return self._dropped(session, stanza, change, result)
        if isinstance(result, Later):
            return result
        _, filters, signals = stages
        rest = (), filters[filters.index(change) + 1 :], signals
        if isinstance(result, Stanza):
            return self._hooked(session, self._intake.resealed(session, result), rest, then)
        return self._filtered_later(session, stanza, change, result, rest, then, era_of(session))

    def _dropped(self, session: Session, stanza: Stanza, change: Callable[..., Any], how: Drop) -> Waiting:
        """A filter has ended it."""
        self.dropped[stanza.kind] += 1
        if stanza.kind != "message":
            return None
        self._messages.fates.note(stanza, DROPPED, owner_of(change), "a filter of what is sent ended it")
        return self._messages.unheard.take(session, stanza) if how is UNHEARD else None

    def _signalled(self, session: Session, stanza: Stanza, signals: Callables, waiting: Waiting) -> Waiting:
        """Tell signals when all else is done."""
        if waiting is None:
            return self._hooks.tell(signals, session, stanza)
        if isinstance(waiting, Pending):
            waiting.then(partial(self._signalled, session, stanza, signals))
            return waiting
        told = self._signal_later(session, stanza, waiting, signals)
        return Later(told) if isinstance(waiting, Later) else told

    async def _policed_later(
        self,
        session: Session,
        stanza: Stanza,
        policy: Awaitable[Any],
        rest: Stages,
        then: Step,
        era: int,
    ) -> None:
        await policy
        more = None if is_sent_again(session, era) else self._hooked(session, stanza, rest, then)
        if more is not None:
            await more

    async def _filtered_later(
        self,
        session: Session,
        sent: Stanza,
        change: Callable[..., Any],
        changing: Awaitable[Stanza | Drop],
        rest: Stages,
        then: Step,
        era: int,
    ) -> None:
        stanza = await changing
        if is_sent_again(session, era):
            return
        if isinstance(stanza, Drop):
            more = self._dropped(session, sent, change, stanza)
        else:
            more = self._hooked(session, self._intake.resealed(session, stanza), rest, then)
        if more is not None:
            await more

    async def _signal_later(
        self, session: Session, stanza: Stanza, waiting: Awaitable[None], signals: Callables
    ) -> None:
        await waiting
        await self._hooks.tell_in_order(signals, session, stanza)


def seen(done: Callable[[float], object], began: float, waiting: Waiting) -> Waiting:
    """Its turn has come, so long after it `began`."""
    done(perf_counter() - began)
    return waiting


def as_it_is(origin: Origin, stanza: Stanza, error: StanzaError) -> StanzaError:
    """Nobody has another address."""
    return error


def not_stored(error: StoreError, **about: str) -> StanzaError:
    """What to tell the sender of a stanza for which the store could not be used; the log is told why.

    `about` says in the log whose stanza it was.
    """
    log.warning("store-failed", extra={**about, "error": str(error)})
    return StanzaError("resource-constraint", "The server cannot store this now.", type="wait")


def refuser(error: Exception) -> str:
    """The module that raised an error, without the name of this package."""
    trace, name = error.__traceback__, ""
    while trace is not None:
        name = trace.tb_frame.f_globals.get("__name__", "")
        trace = trace.tb_next
    return str(name).removeprefix("xmppd.")


def unexpected(stanza: Stanza) -> StreamError:
    """What to close a bound stream with when it brings something else than a stanza (RFC 6120 4.9.3)."""
    if stanza.kind in (f"{{{ns.SERVER}}}{kind}" for kind in ("message", "presence", "iq")):
        return StreamError("invalid-namespace")
    return StreamError("unsupported-stanza-type")
