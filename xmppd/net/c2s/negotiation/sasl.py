"""Logging in by SASL (RFC 6120 6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from xmppd import ns
from xmppd.errors import SaslError
from xmppd.net.c2s.negotiation.attempts import Attempts, authenticator_of
from xmppd.stream.rows import Negotiable, Phase, Waiting, negotiates, offers
from xmppd.stream.sasl import Authenticator, Challenge, Channel, Gate, Mechanism, Step, offered_on
from xmppd.xml import build
from xmppd.xml.build import escape_attribute, escape_text
from xmppd.xml.stanza import Stanza

AUTH, RESPONSE, ABORT = (f"{{{ns.SASL}}}{name}" for name in ("auth", "response", "abort"))


class Sasl(Attempts):
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
        super().__init__(gate)
        self._tokens = tokens
        self._attempts = attempts
        self.use(mechanisms)

    def use(self, mechanisms: Sequence[Mechanism]) -> None:
        """Offer these from now on."""
        self.mechanisms = mechanisms
        self._offered: dict[tuple[str, bool, tuple[str, ...]], tuple[tuple[str, ...], bytes]] = {}

    def _offer_to(self, stream: Negotiable) -> tuple[Channel, bytes]:
        """The channel with what is offered on it, which is the same for all of a kind, and that as XML."""
        link = stream.link
        domain, secure, bindings = stream.domain, link.secure, link.channel_bindings()
        kind = domain, secure, tuple(bindings)
        offered = self._offered.get(kind)
        if offered is None:
            channel = Channel(domain, secure, bindings, peer=link.peer)
            channel = channel._replace(offered=offered_on(channel, self.mechanisms))
            feature = mechanisms_feature(channel.offered, channel.advertised)
            offered = self._offered[kind] = channel.offered, feature
        names, feature = offered
        return Channel(domain, secure, bindings, names, link.peer), feature

    @offers(Phase.LOGIN)
    def feature(self, stream: Negotiable) -> bytes:
        """RFC 6120 6.3.3, XEP-0440. Failed attempts before STARTTLS count on behind it."""
        before = stream.kept.get(ns.SASL)
        attempts = self._attempts() if before is None else before.attempts
        channel, feature = self._offer_to(stream)
        authenticator = Authenticator(
            self.mechanisms, channel, self._gate, attempts=attempts, tokens=self._tokens
        )
        stream.kept[ns.SASL] = authenticator
        return feature

    @negotiates(Phase.LOGIN, AUTH, exposed=True)
    @negotiates(Phase.EXCHANGE, AUTH)
    def begin(self, stream: Negotiable, stanza: Stanza) -> Waiting:
        """RFC 6120 6.4.2; an exchange that goes on is given up for it."""
        if stream.is_exposed:
            self._refuse_at_once(stream, SaslError("encryption-required"))
            return None
        name, text = stanza.attrs.get("mechanism", ""), stanza.text
        return self._take(stream, lambda: authenticator_of(stream).start(name, text, tree=lambda: stanza.xml))

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

    def _failure(self, error: SaslError) -> bytes:
        return build.sasl_failure(error)


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
