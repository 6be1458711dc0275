"""A client's connection: negotiation by the stream machine, then stanzas to the router (RFC 6120 4 to 7)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterator

from xmppd import ns
from xmppd.core import iqs
from xmppd.core.iqs import EarlyRequest, Handler, result_of
from xmppd.core.router import not_stored
from xmppd.core.sessions import Session
from xmppd.errors import SaslError, StanzaError, StoreError, StreamError
from xmppd.jid import Jid
from xmppd.net.pace import FEW, Pause, TokenBucket, paced
from xmppd.net.service import Service
from xmppd.net.wire import Wire
from xmppd.stream import features
from xmppd.stream.machine import Action, Phase, StreamMachine
from xmppd.stream.sasl import Authenticator, Challenge, Step
from xmppd.xml import build
from xmppd.xml.scan import Event, Scanner, StreamClose, StreamOpen
from xmppd.xml.stanza import Stanza

log = logging.getLogger(__name__)

PING = build.serialize(build.element(f"{{{ns.PING}}}ping"))

Waiting = Awaitable[None] | None


class C2SConnection(Wire):
    """The protocol of one client. It is its session's connection once a resource is bound."""

    __slots__ = (
        "_authenticator",
        "_awaited",
        "_backlog",
        "_bucket",
        "_feed",
        "_greeted",
        "_machine",
        "_scanner",
        "_service",
        "_starttls",
        "_waiting",
        "domain",
        "lang",
        "nudged",
        "pinged",
        "session",
    )

    def __init__(self, service: Service, *, direct_tls: bool, starttls: bool) -> None:
        super().__init__(service.shared)
        self._service = service
        self._scanner = Scanner(service.engine, service.limits_before_login)
        self._scanner.stepwise = True
        self._feed = self._scanner.feed
        self._bucket: TokenBucket | None = None
        self._machine = StreamMachine(
            secure=direct_tls, must_encrypt=service.must_encrypt and (starttls or direct_tls)
        )
        self._authenticator: Authenticator | None = None
        self._awaited: list[Awaitable[None]] | None = None
        self._backlog: Iterator[Event | Pause] | None = None
        self._starttls = starttls
        self._waiting = False
        self._greeted = False
        self.session: Session | None = None
        self.domain = ""
        self.lang = ""
        self.nudged = False
        self.pinged = False
        if direct_tls:
            self.start_tls(service.certificates.context)

    # the wire

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        refusal = self._service.admit(self)
        if refusal is not None:
            self.fail(refusal)

    def received(self, data: bytes) -> None:
        self.pinged = self.nudged = False
        session = self.session
        if session is None:
            self._negotiate(data)
        else:
            events = self._feed(data)
            count, bucket = len(events), self._bucket
            is_free = count <= FEW and (bucket is None or bucket.take_all(count))
            self._run(iter(events) if is_free else paced(events, bucket, self._service.shared.slice))

    def broken(self) -> None:
        self._service.forget(self)
        self._end_session()

    @property
    def is_busy(self) -> bool:
        return self._waiting or self._backlog is not None

    @property
    def account(self) -> str:
        """Who has logged in, "" before that."""
        return self._machine.account

    def _end_session(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            self._service.binding.end(session)

    # a bound stream

    def _run(self, events: Iterator[Event | Pause]) -> None:
        """Process what the scanner found, up to the first stanza whose handler has to wait."""
        route = self._service.route
        session = self.session
        try:
            for event in events:
                if event.__class__ is Stanza and session is not None:
                    waiting = route(session, event)
                    session = self.session
                else:
                    waiting = self._meet(event)
                    session = self.session
                if waiting is not None:
                    self._wait(waiting, events)
                    return
                if self.ending_since is not None:
                    return
                if self.clogged:
                    self._backlog = events
                    return
        except StreamError as error:
            self.fail(error)
        except Exception as error:  # noqa: BLE001 - a mistake of ours ends this stream, and no other
            self._give_up(error)

    def _wait(self, waiting: Awaitable[None], rest: Iterator[Event | Pause]) -> None:
        """Stop reading until a handler is done, then go on with what was read before."""
        self._waiting = True
        self._backlog = rest
        if self._awaited is not None:
            self._awaited.append(waiting)
            return
        self.regulate()
        self._service.spawn(self._resume([waiting]))

    async def _resume(self, awaited: list[Awaitable[None]]) -> None:
        """Wait for a handler, go on, and wait here again for the next one that has to be waited for."""
        self._awaited = awaited
        try:
            while awaited:
                await self._outcome(awaited.pop())
                self._waiting = False
                self._go_on()
        finally:
            self._awaited = None

    async def _outcome(self, waiting: Awaitable[None]) -> None:
        try:
            await waiting
        except StreamError as error:
            self.fail(error)
        except Exception as error:  # noqa: BLE001 - a mistake of ours ends this stream, and no other
            self._give_up(error)

    def _go_on(self) -> None:
        """Process what was read before, and then read on, unless something is in the way."""
        if self._must_stop():
            return
        backlog, self._backlog = self._backlog, None
        if backlog is not None:
            self._service.shared.slice.begin()  # waiting is no work
            self._run(backlog)
        if not self._must_stop():
            self._negotiate(b"")
        self.regulate()

    def _must_stop(self) -> bool:
        """Whether nothing may be processed now: a handler waits, our output does, or this is the end."""
        return self._waiting or self.clogged or self.ending_since is not None or self.transport is None

    def resume_writing(self) -> None:
        self.clogged = False
        self._go_on()

    def _give_up(self, error: Exception) -> None:
        log.error("stream-failed", exc_info=error, extra={"jid": self.account, "peer": self.peer})
        self.fail(StreamError("internal-server-error"))

    def close(self, error: StreamError | None) -> None:
        """End the stream from our side (RFC 6120 4.4, 4.9)."""
        self.session = self._backlog = None
        last = (build.stream_error(error) if error is not None else b"") + features.CLOSE
        if not self._greeted:
            last = features.header(self.domain or self._service.default_domain, "", self._service.lang) + last
        self._machine.phase = Phase.CLOSED
        self.finish(last)

    def fail(self, error: StreamError) -> None:
        """End the stream because of the client; its session goes first, so that nothing more is sent
        to it.
        """
        session = self.session
        if session is not None:
            self._service.binding.end(session, error)
        else:
            self.close(error)

    def ping(self, id: str) -> None:
        """Ask the client whether it is still there (XEP-0199)."""
        session = self.session
        if session is not None:
            head = build.start_tag("iq", {"type": "get", "id": id, "from": self.domain, "to": session.full})
            session.send(head + b">" + PING + b"</iq>")

    # negotiation

    def _negotiate(self, data: bytes) -> None:
        """One first-level element at a time: each may change how the bytes behind it are to be read."""
        scanner = self._scanner
        while True:
            events = scanner.feed(data)
            data = b""
            if not events:
                return
            self._run(iter(events))
            if self._must_stop():
                return

    def _meet(self, event: Event | Pause) -> Waiting:
        """An event of a stream that is not bound, or anything but a stanza on one that is."""
        if isinstance(event, Stanza):
            return self._element(event)
        if isinstance(event, StreamOpen):
            self._open(event)
        elif isinstance(event, StreamClose):
            self._closed_by_client()
        elif isinstance(event, Pause):
            self.heard = self._service.shared.clock()  # it is we who do not listen
            return asyncio.sleep(event.seconds) if event.seconds else self._service.shared.turns.next()
        else:
            self.fail(event)
        return None

    def _closed_by_client(self) -> None:
        session = self.session
        if session is not None:
            self._service.binding.end(session)
        else:
            self.close(None)

    def _open(self, opening: StreamOpen) -> None:
        """Answer a stream header with ours and the features of the moment (RFC 6120 4.3)."""
        service, machine = self._service, self._machine
        try:
            domain = features.domain_of(opening, service.domains)
            if machine.account and domain != self.domain:
                raise StreamError("not-authorized", "The domain changed in mid-stream.")
        except StreamError as error:
            self.fail(error)
            return
        self.domain = domain
        self.lang = features.lang_of(opening)
        self._greeted = True
        self.write(features.header(domain, features.sender_of(opening), service.lang) + self._features())
        machine.opened()

    def _features(self) -> bytes:
        service, machine = self._service, self._machine
        if machine.account:
            return features.session_features()
        must_encrypt = machine.must_encrypt and not machine.secure
        names: tuple[str, ...] = ()
        bindings: tuple[str, ...] = ()
        if not must_encrypt:
            self._authenticator = service.authenticator(self, self._authenticator)
            names, bindings = self._authenticator.mechanisms(), self._authenticator.channel_binding_types()
        starttls = self._starttls and not machine.secure
        extra = service.login_features
        return features.login_features(names, bindings, starttls=starttls, required=must_encrypt, extra=extra)

    def _element(self, stanza: Stanza) -> Waiting:
        """Do what the machine's table says."""
        answer = self._machine.answer(stanza)
        if isinstance(answer, StreamError):
            self.fail(answer)
        elif isinstance(answer, SaslError):
            self._refuse_sasl(answer)
        else:
            return self._act(answer, stanza)
        return None

    def _act(self, action: Action, stanza: Stanza) -> Waiting:
        match action:
            case Action.START_TLS:
                self._begin_tls()
            case Action.REFUSE_TLS:
                self.write(build.TLS_FAILURE)
                self.close(None)
            case Action.AUTHENTICATE | Action.RESPOND | Action.ABORT:
                return self._authenticate(action, stanza)
            case Action.BIND:
                return self._bind(stanza)
            case Action.ASK:
                return self._ask(stanza)
            case Action.ROUTE:
                assert self.session is not None
                return self._service.route(self.session, stanza)
        return None

    def _begin_tls(self) -> None:
        """Answer <proceed/>; plaintext sent behind <starttls/> is thrown away (RFC 6120 5.4.3.3)."""
        if not self._starttls:
            self.write(build.TLS_FAILURE)
            self.close(None)
            return
        self._scanner.restart(discard=True)
        self.write(build.TLS_PROCEED)
        self.start_tls(self._service.certificates.context)
        self._machine.encrypted()

    def _authenticate(self, action: Action, stanza: Stanza) -> Waiting:
        authenticator = self._authenticator
        assert authenticator is not None
        text = stanza.text
        try:
            if action is Action.AUTHENTICATE:
                step = authenticator.start(stanza.attrs.get("mechanism", ""), text)
            elif action is Action.RESPOND:
                step = authenticator.respond(text)
            else:
                raise authenticator.abort()
        except SaslError as error:
            self._refuse_sasl(error)
            return None
        if isinstance(step, Awaitable):
            return self._step_later(step)
        self._step(step)
        return None

    async def _step_later(self, step: Awaitable[Step]) -> None:
        try:
            self._step(await step)
        except SaslError as error:
            self._refuse_sasl(error)

    def _step(self, step: Step) -> None:
        if isinstance(step, Challenge):
            self._machine.exchanging()
            self.write(build.sasl("challenge", step.payload))
            return
        account = Jid.of(step.identity.local, self.domain).bare
        self.write(build.sasl("success", step.payload))
        self._machine.authenticated(account)
        self._authenticator = None
        self._scanner.restart(discard=False)
        log.info("login", extra={"jid": account, "peer": self.peer})

    def _refuse_sasl(self, error: SaslError) -> None:
        """Say why, and end the stream when it was one try too many (RFC 6120 6.4.5)."""
        self._machine.refused()
        self.write(build.sasl_failure(error))
        if self._authenticator is not None and self._authenticator.exhausted:
            self.fail(StreamError("policy-violation", "Too many attempts to log in."))

    def _ask(self, stanza: Stanza) -> Waiting:
        """An iq before login, for a plugin that takes such; anybody else's is not authorized."""
        service, machine = self._service, self._machine
        handler = service.early_handler(stanza) if machine.secure or not machine.must_encrypt else None
        if handler is None:
            raise StreamError("not-authorized")
        return self._ask_later(stanza, handler)

    async def _ask_later(self, stanza: Stanza, handler: Handler) -> None:
        try:
            answer = handler(EarlyRequest(self.domain, self.peer, stanza))
            answer = await answer if isinstance(answer, Awaitable) else answer
        except StoreError as error:
            self.write(build.error_reply(stanza, "", not_stored(error, peer=self.peer, kind=stanza.kind)))
        except StanzaError as error:
            self.write(build.error_reply(stanza, "", error))
        else:
            self.write_all(result_of(stanza, "", answer))

    def _bind(self, stanza: Stanza) -> Waiting:
        """Bind a resource and answer with the full JID (RFC 6120 7.6, 7.7)."""
        account = self._machine.account
        wanted = stanza.xml[0].findtext(f"{{{ns.BIND}}}resource") or ""
        try:
            iqs.check(stanza)
            session = self._service.binding.bind(account, wanted, self, self.lang)
        except StanzaError as error:
            self.write(build.error_reply(stanza, account, error))
            return None
        waiting = self._service.binding.announce(session)
        if waiting is not None:
            return self._bind_later(stanza, session, waiting)
        self._bound(stanza, session)
        return None

    async def _bind_later(self, stanza: Stanza, session: Session, waiting: Awaitable[None]) -> None:
        await waiting
        if self.transport is None or self.ending_since is not None:
            self._service.binding.end(session)
        else:
            self._bound(stanza, session)

    def _bound(self, stanza: Stanza, session: Session) -> None:
        self.session = session
        self._machine.phase = Phase.BOUND
        self._scanner.limits = self._service.limits
        self._scanner.stepwise = False
        rules = self._service.rules
        if rules.stanza_rate:
            self._bucket = TokenBucket(rules.stanza_rate, rules.stanza_burst)
        self._service.logged_in(self)
        session.begin(build.iq_result(stanza, "", build.bound(session.full)))
