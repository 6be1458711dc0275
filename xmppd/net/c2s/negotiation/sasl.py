"""Logging in by SASL (RFC 6120 6)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache

from xmppd import ns
from xmppd.errors import SaslError, StreamError
from xmppd.stream.rows import Negotiable, Phase, Waiting, negotiates, offers
from xmppd.stream.sasl import Authenticator, Challenge, Channel, Gate, Mechanism, Step
from xmppd.xml import build
from xmppd.xml.build import escape_attribute, escape_text
from xmppd.xml.stanza import Stanza

AUTH, RESPONSE, ABORT = (f"{{{ns.SASL}}}{name}" for name in ("auth", "response", "abort"))


class Sasl:
    """The mechanisms of a server, and those for tokens; `attempts` says how many tries a stream has, `gate`
    lets in.
    """

    def __init__(
        self,
        mechanisms: Sequence[Mechanism],
        gate: Gate,
        attempts: Callable[[], int],
        *,
        tokens: Sequence[Mechanism] = (),
    ) -> None:
        self.mechanisms = mechanisms
        self._tokens = tokens
        self._gate = gate
        self._attempts = attempts

    @offers(Phase.LOGIN)
    def feature(self, stream: Negotiable) -> bytes:
        """RFC 6120 6.3.3, XEP-0440. Failed attempts before STARTTLS count on behind it."""
        before = stream.kept.get(ns.SASL)
        attempts = self._attempts() if before is None else before.attempts
        link = stream.link
        channel = Channel(stream.domain, link.secure, link.channel_bindings(), peer=link.peer)
        authenticator = Authenticator(
            self.mechanisms, channel, self._gate, attempts=attempts, tokens=self._tokens
        )
        stream.kept[ns.SASL] = authenticator
        return mechanisms_feature(authenticator.mechanisms(), authenticator.channel_binding_types())

    @negotiates(Phase.LOGIN, AUTH, exposed=True)
    @negotiates(Phase.EXCHANGE, AUTH)
    def begin(self, stream: Negotiable, stanza: Stanza) -> Waiting:
        """RFC 6120 6.4.2; an exchange that goes on is given up for it."""
        if stream.is_exposed:
            self._refuse_at_once(stream, SaslError("encryption-required"))
            return None
        name, text = stanza.attrs.get("mechanism", ""), stanza.text
        return self._take(stream, lambda: authenticator_of(stream).start(name, text))

    @negotiates(Phase.EXCHANGE, RESPONSE)
    def go_on(self, stream: Negotiable, stanza: Stanza) -> Waiting:
        """RFC 6120 6.4.3."""
        text = stanza.text
        return self._take(stream, lambda: authenticator_of(stream).respond(text))

    @negotiates(Phase.EXCHANGE, ABORT)
    def abort(self, stream: Negotiable, stanza: Stanza) -> None:
        """RFC 6120 6.4.4."""
        self._refuse(stream, authenticator_of(stream).abort())

    @negotiates(Phase.LOGIN, RESPONSE, ABORT, exposed=True)
    def out_of_place(self, stream: Negotiable, stanza: Stanza) -> None:
        """What belongs to an exchange while there is none."""
        error = SaslError("malformed-request", "There is no exchange to go on with.")
        self._refuse_at_once(stream, error)

    def _take(self, stream: Negotiable, step: Callable[[], Step | Awaitable[Step]]) -> Waiting:
        try:
            taken = step()
        except SaslError as error:
            self._refuse(stream, error)
            return None
        if isinstance(taken, Awaitable):
            return self._answer_later(stream, taken)
        self._answer(stream, taken)
        return None

    async def _answer_later(self, stream: Negotiable, step: Awaitable[Step]) -> None:
        try:
            self._answer(stream, await step)
        except SaslError as error:
            self._refuse(stream, error)

    def _answer(self, stream: Negotiable, step: Step) -> None:
        if isinstance(step, Challenge):
            stream.exchanging(True)
            stream.write(build.sasl("challenge", step.payload))
        else:
            login = authenticator_of(stream).login
            assert login is not None
            stream.write(build.sasl("success", step.payload))
            stream.authenticated(login)
            stream.reopen()

    def note_refusal(self, stream: Negotiable, error: SaslError) -> None:
        """Tell the gate of a refusal without an attempt."""
        link = stream.link
        self._gate.refused(Channel(stream.domain, link.secure, peer=link.peer), error)

    def _refuse_at_once(self, stream: Negotiable, error: SaslError) -> None:
        """The same for what no `Authenticator` was asked."""
        self.note_refusal(stream, error)
        self._refuse(stream, error)

    def _refuse(self, stream: Negotiable, error: SaslError) -> None:
        """Say why, and end the stream when it was one try too many (RFC 6120 6.4.5)."""
        stream.exchanging(False)
        stream.write(build.sasl_failure(error))
        authenticator: Authenticator | None = stream.kept.get(ns.SASL)
        if authenticator is not None and authenticator.exhausted:
            stream.fail(StreamError("policy-violation", "Too many attempts to log in."))


def authenticator_of(stream: Negotiable) -> Authenticator:
    """The attempts of a stream on which mechanisms were offered."""
    authenticator: Authenticator = stream.kept[ns.SASL]
    return authenticator


@lru_cache(maxsize=64)
def mechanisms_feature(mechanisms: tuple[str, ...], channel_bindings: tuple[str, ...]) -> bytes:
    """The names of mechanisms, and beside them the types of channel binding; b"" without mechanisms."""
    if not mechanisms:
        return b""
    listed = "".join(f"<mechanism>{escape_text(name)}</mechanism>" for name in mechanisms)
    feature = f"<mechanisms xmlns='{ns.SASL}'>{listed}</mechanisms>"
    if channel_bindings:
        types = "".join(f"<channel-binding type='{escape_attribute(name)}'/>" for name in channel_bindings)
        feature += f"<sasl-channel-binding xmlns='{ns.SASL_CHANNEL_BINDING}'>{types}</sasl-channel-binding>"
    return feature.encode()
