"""The life of a client's stream as one table (RFC 6120 4.3): what is expected when, and what anything else
means.

The machine holds no bytes and does nothing: it is asked what an event calls for, and told when a step is
done.
"""

from __future__ import annotations

from enum import Enum

from xmppd import ns
from xmppd.errors import SaslError, StreamError
from xmppd.xml.stanza import Stanza


class Phase(Enum):
    """Where a stream stands."""

    HEADER = "waiting for a stream header"
    LOGIN = "features were offered, nobody is authenticated"
    EXCHANGE = "a SASL exchange is going on"
    BIND = "authenticated; a resource has to be bound"
    BOUND = "stanzas flow"
    CLOSED = "one side has ended it"


class Input(Enum):
    """What a client can bring, as far as the table tells it apart."""

    STARTTLS = "<starttls/>"
    AUTH = "<auth/>"
    RESPONSE = "<response/>"
    ABORT = "<abort/>"
    BIND = "an iq set that binds"
    IQ = "any other iq"
    STANZA = "a message or presence"
    OTHER = "anything else"


class Action(Enum):
    """What the connection has to do."""

    START_TLS = "answer <proceed/> and start the handshake"
    REFUSE_TLS = "answer <failure/> and end the stream (RFC 6120 5.4.2.2)"
    AUTHENTICATE = "begin a SASL exchange"
    RESPOND = "go on with it"
    ABORT = "end it without a result"
    BIND = "bind a resource"
    ASK = "answer an iq that may be sent before login, such as a registration (XEP-0077)"
    ROUTE = "hand the stanza to the router"


Answer = Action | StreamError | SaslError

_NOT_AUTHORIZED = StreamError("not-authorized")
_UNSUPPORTED = StreamError("unsupported-stanza-type")
_VIOLATION = StreamError("policy-violation", "This is not the time for it.")
_NO_EXCHANGE = SaslError("malformed-request", "There is no exchange to go on with.")

TABLE: dict[tuple[Phase, Input], Answer] = {
    (Phase.LOGIN, Input.STARTTLS): Action.START_TLS,
    (Phase.LOGIN, Input.AUTH): Action.AUTHENTICATE,
    (Phase.LOGIN, Input.RESPONSE): _NO_EXCHANGE,
    (Phase.LOGIN, Input.ABORT): _NO_EXCHANGE,
    (Phase.EXCHANGE, Input.AUTH): _VIOLATION,
    (Phase.EXCHANGE, Input.RESPONSE): Action.RESPOND,
    (Phase.EXCHANGE, Input.ABORT): Action.ABORT,
    (Phase.LOGIN, Input.IQ): Action.ASK,
    (Phase.BIND, Input.BIND): Action.BIND,
    (Phase.BOUND, Input.BIND): Action.ROUTE,
    (Phase.BOUND, Input.IQ): Action.ROUTE,
    (Phase.BOUND, Input.STANZA): Action.ROUTE,
}

DEFAULTS: dict[Phase, dict[Input, Answer]] = {
    phase: {
        **dict.fromkeys(Input, _NOT_AUTHORIZED),
        Input.OTHER: _UNSUPPORTED,
        **({} if phase is Phase.LOGIN else dict.fromkeys((Input.STARTTLS, Input.AUTH), _VIOLATION)),
    }
    for phase in Phase
}
"""What the table does not name: stanzas too early are not-authorized (RFC 6120 4.9.3.12), the rest is
unsupported.
"""

INPUTS = {
    f"{{{ns.TLS}}}starttls": Input.STARTTLS,
    f"{{{ns.SASL}}}auth": Input.AUTH,
    f"{{{ns.SASL}}}response": Input.RESPONSE,
    f"{{{ns.SASL}}}abort": Input.ABORT,
    "message": Input.STANZA,
    "presence": Input.STANZA,
}
BIND_PAYLOAD = f"{{{ns.BIND}}}bind"


class StreamMachine:
    """One stream's phase. `secure` says whether TLS protects it, `must_encrypt` whether nothing goes before
    that.
    """

    __slots__ = ("account", "must_encrypt", "phase", "secure")

    def __init__(self, *, secure: bool, must_encrypt: bool) -> None:
        self.phase = Phase.HEADER
        self.secure = secure
        self.must_encrypt = must_encrypt
        self.account = ""

    def opened(self) -> None:
        """A header was accepted and features were sent."""
        self.phase = Phase.BIND if self.account else Phase.LOGIN

    def answer(self, stanza: Stanza) -> Answer:
        """What a first-level element calls for now."""
        given = input_of(stanza)
        if self.phase is Phase.LOGIN and given is Input.STARTTLS and self.secure:
            return Action.REFUSE_TLS
        if self.phase is Phase.LOGIN and given is Input.AUTH and self.must_encrypt and not self.secure:
            return SaslError("encryption-required")
        found = TABLE.get((self.phase, given))
        return DEFAULTS[self.phase][given] if found is None else found

    def encrypted(self) -> None:
        """TLS has begun; the client opens the stream anew (RFC 6120 5.4.3.3)."""
        self.secure = True
        self.phase = Phase.HEADER

    def exchanging(self) -> None:
        """A SASL challenge was sent."""
        self.phase = Phase.EXCHANGE

    def refused(self) -> None:
        """A SASL exchange ended without success; the client may try again (RFC 6120 6.4.5)."""
        self.phase = Phase.LOGIN

    def authenticated(self, account: str) -> None:
        """The client is `account`; it opens the stream anew (RFC 6120 6.4.6)."""
        self.account = account
        self.phase = Phase.HEADER


def input_of(stanza: Stanza) -> Input:
    """The table's word for an element."""
    if stanza.kind == "iq":
        return Input.BIND if stanza.payload == BIND_PAYLOAD and stanza.type == "set" else Input.IQ
    return INPUTS.get(stanza.kind, Input.OTHER)
