"""SASL as XMPP uses it (RFC 6120 section 6, RFC 4422): the attempts of one connection, and what a mechanism
must offer.

Nothing here does I/O. A mechanism belongs to the whole server, an exchange to one attempt, an `Authenticator`
to one stream. A plugin adds a mechanism by giving an object that fits `Mechanism`.
"""

from __future__ import annotations

import binascii
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol
from xml.etree.ElementTree import Element

from xmppd.errors import JidError, SaslError, StoreError
from xmppd.jid import Jid

log = logging.getLogger(__name__)


NO_FACTS: Final[Mapping[str, Any]] = MappingProxyType({})
"""What is known of nearly all who log in."""


class Tenure(NamedTuple):
    """Which of the accounts that ever had a name, and since when its sessions count: when it was made, and a
    number that is another one after all of them had to end.
    """

    created: float | None
    epoch: int | None


class Standing(NamedTuple):
    """An account with this tenure that was there, and not disabled, when change number `mark` was the last:
    so it is as long as it is not changed.
    """

    tenure: Tenure | None
    mark: int


@dataclass(frozen=True, slots=True)
class Identity:
    """Who logged in: the prepared localpart of the account, in the domain of the stream.

    `shown` is what the mechanism found on file and proved it by, or the `Standing` of the account: it must
    still be so in the end. Without it the account must be there, and not have been changed since the exchange
    began. `facts` and `expires` go to the `Login`.
    """

    local: str
    anonymous: bool = False
    shown: object = field(default=None, compare=False, repr=False)
    facts: Mapping[str, Any] = field(default_factory=lambda: NO_FACTS)
    expires: float | None = None


class UserAgent(NamedTuple):
    """The client as it tells of itself (XEP-0388 2.3): `id` is that of its installation, a UUID of version 4
    in lower case, "" for none; no other entity may learn any of it.
    """

    id: str = ""
    software: str = ""
    device: str = ""


@dataclass(slots=True)
class Login:
    """A login that succeeded. `account` is a bare JID, `tenure` None for who has no account, `peer` the
    address of the client, `facts` what is known of who it is, by plugins for plugins. At `expires`, in
    seconds since the epoch, its time is over. `agent` is None for who logged in by RFC 6120. It was found to
    hold when change number `mark` of all accounts was the last (None: nobody knows). `sought`: the id of a
    session that the client wanted to resume and that was not to be had (XEP-0198 5), "" for none. If it is
    `unnamed`, which plugins may say, its resource is the server's choice, whatever the client would have,
    and of the language of its stream no more is shown than which one it is.
    """

    account: str
    tenure: Tenure | None
    mechanism: str = ""
    peer: str = ""
    facts: Mapping[str, Any] = field(default_factory=lambda: NO_FACTS)
    expires: float | None = None
    agent: UserAgent | None = None
    mark: int | None = None
    sought: str = ""
    unnamed: bool = False


class Asked(NamedTuple):
    """What a client says with its request to log in by XEP-0388: the JID that it opened the stream with
    (`sender`, "" for none) and its `agent`. `by_token`: it shows a token (XEP-0484), which counts no more
    afterwards if it `is_last`.
    """

    sender: str = ""
    agent: UserAgent | None = None
    by_token: bool = False
    is_last: bool = False


class Channel(NamedTuple):
    """What a mechanism may know of its stream.

    `secure` says whether TLS protects it. `bindings` maps channel binding types (RFC 5929, 9266) to their
    data, and is empty without TLS. `offered` names the mechanisms that were advertised; the `Authenticator`
    fills it in where that is not known. `peer` is the client's address, `asked` None in a login by RFC 6120.
    """

    domain: str
    secure: bool = False
    bindings: Mapping[str, bytes] = MappingProxyType({})
    offered: tuple[str, ...] = ()
    peer: str = ""
    asked: Asked | None = None

    @property
    def advertised(self) -> tuple[str, ...]:
        """The types of channel binding that are advertised by XEP-0440: none where no offered mechanism can
        use them.
        """
        if self.bindings and any(name.endswith("-PLUS") for name in self.offered):
            return tuple(self.bindings)
        return ()


@dataclass(slots=True)
class Attempt:
    """One attempt to log in. `mark` is what the gate gave when it began, `account` who the client claims to
    be, "" until that is known.

    `lacking`: the account has no keys for this mechanism, so what the client proved or did not says nothing
    of the password it knows; no client may learn that. `idle` are those before it on the stream that failed
    like this.
    """

    mechanism: str
    channel: Channel
    mark: int
    account: str = ""
    lacking: bool = False
    idle: tuple[Attempt, ...] = ()


class Challenge(NamedTuple):
    """The exchange goes on: send `data` and wait for the client's response. With `refused` it has come to
    nothing, and `data` says why in the mechanism's own form (RFC 7628 3.2.3): whatever the client responds,
    that is what it is told then. Its failure counts now, for it may never respond.
    """

    data: bytes
    refused: SaslError | None = None

    @property
    def payload(self) -> str:
        """The text of `<challenge/>` (RFC 6120 6.4.3)."""
        return encode(self.data)


class Success(NamedTuple):
    """The exchange is over and proved `identity`. `data` goes into `<success/>` (None: there is none).
    `token` is what the client is to be given in place of the token that it was proved by.
    """

    identity: Identity
    data: bytes | None = None
    token: object = None

    @property
    def payload(self) -> str:
        """The text of `<success/>`, where "=" stands for data of length zero (RFC 6120 6.4.6)."""
        if self.data is None:
            return ""
        return encode(self.data) or "="


Step = Challenge | Success


class Exchange(Protocol):
    """One attempt to authenticate. It may have an `account`, the bare JID that the client claims to be, or ""
    as long as it has not: who guesses the password of one is slowed down; and `lacking`, as an `Attempt`.
    """

    def step(self, data: bytes) -> Step | Awaitable[Step]:
        """Take the client's next message; an awaitable only where it must wait. SaslError refuses."""


class Mechanism(Protocol):
    """A way to authenticate, shared by all connections. The client speaks first, as in every mechanism in
    use.

    Mechanisms are advertised in the order of falling `priority`; one with `needs_tls` only on a secure
    channel. One that has a `read(auth)` too is given the element `<auth/>` of RFC 6120 6.4.2, whatever is in
    it, and returns the first message as bytes, in place of base64 in it; SaslError refuses.
    """

    @property
    def name(self) -> str: ...

    @property
    def priority(self) -> int: ...

    @property
    def needs_tls(self) -> bool: ...

    def available(self, channel: Channel) -> bool:
        """Whether it can work on this channel; `needs_tls` is looked at elsewhere. It has to say the same for
        all channels of a kind, which have the same domain, security and types of channel binding.
        """

    def start(self, channel: Channel) -> Exchange:
        """A fresh exchange."""


class Gate(Protocol):
    """Who decides in the end whether an identity that was proved may come in."""

    def mark(self) -> int:
        """What an attempt that begins now is to be admitted with."""

    def admit(self, attempt: Attempt, identity: Identity) -> Login | Awaitable[Login]:
        """Let the identity in; SaslError when its account is not any more what it was."""

    def refused(self, channel: Channel, error: SaslError) -> None:
        """What a client is told before any mechanism has looked at what it sent."""

    def failed(self, attempt: Attempt, error: SaslError) -> Awaitable[None] | None:
        """It came to nothing; what to wait for before the client is told. It raises the error to tell."""

    def passed(self, attempt: Attempt) -> Awaitable[None] | None:
        """It succeeded; what to wait for before the client is told. It raises the error to tell instead."""


class _Refused:
    """An exchange that has failed already; the client has to respond before it is told."""

    def __init__(self, error: SaslError) -> None:
        self.error = error

    def step(self, data: bytes) -> Step:
        """It is told now."""
        raise self.error


class Authenticator:
    """The SASL negotiation of one stream, by RFC 6120 or XEP-0388. One made after STARTTLS gets the
    `attempts` left before. `login` is there after a success. Mechanisms that are in `tokens` take tokens
    (XEP-0484), and are advertised elsewhere.
    """

    __slots__ = (
        "_attempt",
        "_exchange",
        "_gate",
        "_idle",
        "_mechanisms",
        "_tokens",
        "attempts",
        "channel",
        "login",
    )

    def __init__(
        self,
        mechanisms: Sequence[Mechanism],
        channel: Channel,
        gate: Gate,
        *,
        attempts: int = 5,
        tokens: Sequence[Mechanism] = (),
    ) -> None:
        self._mechanisms = mechanisms
        self._tokens = tokens
        self._gate = gate
        self._exchange: Exchange | None = None
        self._attempt: Attempt
        self._idle: tuple[Attempt, ...] = ()
        self.login: Login | None = None
        self.attempts = attempts
        if not channel.offered:
            channel = channel._replace(offered=offered_on(channel, mechanisms))
        self.channel = channel

    @property
    def exhausted(self) -> bool:
        """Whether a refusal now was the last one: the stream ends with policy-violation (RFC 6120 6.4.5)."""
        return self.attempts <= 0

    def start(
        self,
        name: str,
        payload: str = "",
        asked: Asked | None = None,
        tree: Callable[[], Element] | None = None,
    ) -> Step | Awaitable[Step]:
        """Begin an attempt: attribute and text of `<auth/>`. "" is no initial response, "=" an empty one.
        `asked` is what else there is to it in one by XEP-0388, `tree` gives `<auth/>` itself.
        """
        channel = self.channel
        if asked is not None:
            channel = Channel(*channel[:-1], asked)
        try:
            mechanism = self._choose(name, channel)
            read = None if tree is None else getattr(mechanism, "read", None)
            initial = decode(payload) if read is None or tree is None else read(tree())
        except SaslError as error:
            self._gate.refused(channel, error)
            raise
        self._attempt = Attempt(mechanism.name, channel, self._gate.mark())
        if self._idle:
            self._attempt.idle = self._idle
        exchange = mechanism.start(channel)
        if payload == "" and read is None:
            self._exchange = exchange
            return Challenge(b"")
        return self._advance(exchange, initial)

    def respond(self, payload: str) -> Step | Awaitable[Step]:
        """Go on with the text of a `<response/>`. While a step is awaited there is nothing to respond to."""
        exchange, self._exchange = self._exchange, None
        try:
            if exchange is None:
                self.attempts -= 1
                raise SaslError("malformed-request", "no authentication is going on")
            data = decode(payload)
        except SaslError as error:
            self._gate.refused(self.channel, error)
            raise
        return self._advance(exchange, data)

    def abort(self) -> SaslError:
        """Give up the attempt, as the client asked (RFC 6120 6.4.4); what to answer."""
        self._exchange = None
        return SaslError("aborted")

    def _choose(self, name: str, channel: Channel) -> Mechanism:
        """Count an attempt and find its mechanism among those advertised."""
        self._exchange = None
        if self.exhausted:
            raise SaslError("not-authorized", "too many attempts")
        self.attempts -= 1
        if channel.asked is not None and channel.asked.by_token:
            for mechanism in self._tokens:
                if mechanism.name == name and mechanism.available(channel):
                    return mechanism
            raise SaslError("invalid-mechanism")
        for mechanism in self._mechanisms:
            if mechanism.name == name:
                if name in self.channel.offered:
                    return mechanism
                if mechanism.needs_tls and not self.channel.secure:
                    raise SaslError("encryption-required")
        raise SaslError("invalid-mechanism")

    def _advance(self, exchange: Exchange, data: bytes) -> Step | Awaitable[Step]:
        if isinstance(exchange, _Refused):
            raise exchange.error
        try:
            step = exchange.step(data)
            if isinstance(step, Challenge):
                return self._go_on(exchange, step)
            if not isinstance(step, Success):
                return self._wait(exchange, step)
            login = self._gate.admit(self._attempt, step.identity)
        except StoreError as error:
            raise unavailable(error) from error
        except SaslError as error:
            return self._fail(exchange, error)
        if not isinstance(login, Login):
            return self._admit_later(exchange, step, login)
        return self._pass(exchange, step, login)

    async def _wait(self, exchange: Exchange, pending: Awaitable[Step]) -> Step:
        try:
            step = await pending
            admitted = None if isinstance(step, Challenge) else self._gate.admit(self._attempt, step.identity)
        except StoreError as error:
            raise unavailable(error) from error
        except SaslError as error:
            failing = self._fail(exchange, error)
            return await failing
        if isinstance(step, Challenge):
            going_on = self._go_on(exchange, step)
            return going_on if isinstance(going_on, Challenge) else await going_on
        assert admitted is not None
        return await self._admit_later(exchange, step, admitted)

    def _go_on(self, exchange: Exchange, step: Challenge) -> Challenge | Awaitable[Challenge]:
        """The client is to respond, after the gate lets it be told if it has failed."""
        if step.refused is None:
            self._exchange = exchange
            return step
        waiting = self._gate.failed(self._claimed(exchange), step.refused)
        if waiting is not None:
            return self._go_on_later(waiting, step, step.refused)
        self._exchange = _Refused(step.refused)
        return step

    async def _go_on_later(self, waiting: Awaitable[None], step: Challenge, error: SaslError) -> Challenge:
        await waiting
        self._exchange = _Refused(error)
        return step

    async def _admit_later(self, exchange: Exchange, step: Success, login: Login | Awaitable[Login]) -> Step:
        try:
            login = login if isinstance(login, Login) else await login
        except StoreError as error:
            raise unavailable(error) from error
        except SaslError as error:
            return await self._fail(exchange, error)
        passing = self._pass(exchange, step, login)
        return passing if isinstance(passing, Success) else await passing

    def _fail(self, exchange: Exchange, error: SaslError) -> Awaitable[Step]:
        """Raise the error, now or when the gate lets the client be told."""
        attempt = self._claimed(exchange)
        attempt.lacking = getattr(exchange, "lacking", False)
        if attempt.lacking and error.condition == "not-authorized":
            self._idle = (*self._idle, attempt)
        waiting = self._gate.failed(attempt, error)
        if waiting is None:
            raise error
        return self._fail_later(waiting, error)

    async def _fail_later(self, waiting: Awaitable[None], error: SaslError) -> Step:
        await waiting
        raise error

    def _pass(self, exchange: Exchange, step: Success, login: Login) -> Success | Awaitable[Success]:
        waiting = self._gate.passed(self._claimed(exchange))
        if waiting is not None:
            return self._pass_later(waiting, step, login)
        self.login = login
        return step

    async def _pass_later(self, waiting: Awaitable[None], step: Success, login: Login) -> Success:
        await waiting
        self.login = login
        return step

    def _claimed(self, exchange: Exchange) -> Attempt:
        """The attempt with who the client claims to be: what an exchange does not say, the gate may know."""
        self._attempt.account = getattr(exchange, "account", "") or self._attempt.account
        return self._attempt


def offered_on(channel: Channel, mechanisms: Sequence[Mechanism]) -> tuple[str, ...]:
    """The names to advertise on a channel, the preferred one first."""
    usable = [m for m in mechanisms if (channel.secure or not m.needs_tls) and m.available(channel)]
    usable.sort(key=lambda mechanism: -mechanism.priority)
    return tuple(mechanism.name for mechanism in usable)


def unavailable(error: StoreError) -> SaslError:
    """What to answer when nobody can say whether a client is who it says."""
    log.warning("store-failed", extra={"kind": "login", "error": str(error)})
    return SaslError("temporary-auth-failure")


def decode(payload: str) -> bytes:
    """The bytes of a base64 text in its one canonical form; "=" and "" are zero bytes (RFC 6120 6.4.2)."""
    if payload in ("", "="):
        return b""
    try:
        data = binascii.a2b_base64(payload)
    except ValueError:
        raise SaslError("incorrect-encoding") from None
    # a2b_base64 skips foreign characters and ignores stray bits; only the canonical text survives the way
    # back.
    if encode(data) != payload:
        raise SaslError("incorrect-encoding")
    return data


def encode(data: bytes) -> str:
    """The base64 text of bytes."""
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def prepare_identity(name: str, authzid: str, channel: Channel) -> Jid:
    """The account (a bare JID) of an authentication identity, which is a localpart (RFC 6120 6.3.8, RFC 7622
    3.3).

    A name that no account can have is not-authorized, like an unknown one. An authorization identity must
    name the same account (RFC 6120 6.3.8), as must who the stream was opened by (XEP-0388 2.3), else
    invalid-authzid.
    """
    try:
        jid = Jid.of(name, channel.domain)
    except JidError:
        raise SaslError("not-authorized") from None
    if not jid.local:
        raise SaslError("not-authorized")
    if authzid:
        try:
            claimed = str(Jid.parse(authzid))
        except JidError:
            raise SaslError("invalid-authzid") from None
        sender = channel.asked.sender.partition("/")[0] if channel.asked is not None else ""
        if claimed != jid.bare or sender not in ("", claimed):
            raise SaslError("invalid-authzid")
    return jid
