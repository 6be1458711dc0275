"""Logging in by XEP-0388: the same attempts by the same mechanisms as in RFC 6120 6, without a new stream
behind them, and together with what else the client wants.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable
from functools import lru_cache
from typing import NamedTuple
from xml.etree.ElementTree import Element

from xmppd import ns
from xmppd.errors import SaslError, StreamError
from xmppd.jid import domain_of
from xmppd.net.c2s.negotiation.attempts import Attempts, authenticator_of
from xmppd.stream.inline import Answer, Attached, Granted, Inlines, InlineTaker
from xmppd.stream.rows import Negotiable, Phase, Rows, Waiting, negotiates, offers
from xmppd.stream.sasl import Asked, Challenge, Gate, Step, Success, UserAgent, encode
from xmppd.xml import build
from xmppd.xml.build import escape_text
from xmppd.xml.stanza import Stanza

AUTHENTICATE, RESPONSE, ABORT, INITIAL, AGENT, SOFTWARE, DEVICE = (
    f"{{{ns.SASL2}}}{name}"
    for name in (
        "authenticate",
        "response",
        "abort",
        "initial-response",
        "user-agent",
        "software",
        "device",
    )
)
FAST = f"{{{ns.FAST}}}fast"
UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")

AGENT_TEXT = 100
"""Characters that are kept of what a client says of its software, and of its device."""


class _Request(NamedTuple):
    """A request to log in: the text of its initial response as RFC 6120 6.4.2 would have it, what is said of
    the client, and all its elements by name.
    """

    initial: str
    asked: Asked
    elements: dict[str, Element]


class _Granting:
    """A login that succeeded, while what came with it is taken."""

    __slots__ = ("answers", "attached", "granted", "step", "takers")

    def __init__(self, step: Success, granted: Granted, takers: list[tuple[bool, InlineTaker]]) -> None:
        self.step = step
        self.granted = granted
        self.takers = takers
        self.answers: list[bytes] = []
        self.attached: Attached | None = None

    def next(self) -> InlineTaker | None:
        """Who is to be asked next. A stream is attached once at most (XEP-0386 3.2)."""
        while self.takers:
            attaches, taker = self.takers.pop(0)
            if not (attaches and self.attached is not None):
                return taker
        return None

    def add(self, answer: Answer) -> None:
        """One has answered."""
        if isinstance(answer, Attached):
            self.attached = answer
            answer = answer.answer
        self.answers.append(answer)


class Sasl2(Attempts):
    """XEP-0388 over the mechanisms and attempts of `Sasl`. It is for encrypted streams only, unless
    `in_clear`, and offered behind the features of that one.
    """

    def __init__(self, gate: Gate, rows: Rows, inlines: Inlines, *, in_clear: bool) -> None:
        super().__init__(gate)
        self._rows = rows
        self._inlines = inlines
        self._in_clear = in_clear

    def _is_there(self, stream: Negotiable) -> bool:
        return stream.link.secure or self._in_clear

    @offers(Phase.LOGIN)
    def feature(self, stream: Negotiable) -> bytes:
        """XEP-0388 2.1."""
        if not self._is_there(stream):
            return b""
        channel = authenticator_of(stream).channel
        return authentication_feature(channel.offered, self._inlines.features(stream, channel))

    @negotiates(Phase.LOGIN, AUTHENTICATE, exposed=True)
    def begin(self, stream: Negotiable, stanza: Stanza) -> Waiting:
        """XEP-0388 2.3."""
        if stream.is_exposed or not self._is_there(stream):
            self._refuse_at_once(stream, SaslError("encryption-required"))
            return None
        if stream.sender and domain_of(stream.sender) != stream.domain:
            raise StreamError("invalid-from")
        try:
            request = _request_in(stanza.xml, stream.sender)
        except SaslError as error:
            self._refuse_at_once(stream, error)
            return None
        stream.kept[ns.SASL2] = request
        name = stanza.attrs.get("mechanism", "")
        return self._take(
            stream, lambda: authenticator_of(stream).start(name, request.initial, request.asked)
        )

    @negotiates(Phase.AUTHENTICATE, RESPONSE)
    def go_on(self, stream: Negotiable, stanza: Stanza) -> Waiting:
        """XEP-0388 2.5."""
        text = stanza.text
        return self._take(stream, lambda: authenticator_of(stream).respond(text))

    @negotiates(Phase.AUTHENTICATE, ABORT)
    def abort(self, stream: Negotiable, stanza: Stanza) -> None:
        """XEP-0388 5.5."""
        self._refuse(stream, authenticator_of(stream).abort())

    @negotiates(Phase.LOGIN, RESPONSE, ABORT, exposed=True)
    def out_of_place(self, stream: Negotiable, stanza: Stanza) -> None:
        """What belongs to an exchange while there is none."""
        error = SaslError("malformed-request", "There is no exchange to go on with.")
        self._refuse_at_once(stream, error)

    # the exchange

    def _answer(self, stream: Negotiable, step: Step) -> Waiting:
        if isinstance(step, Challenge):
            stream.exchanging(True, Phase.AUTHENTICATE)
            stream.write(build.sasl2_challenge(step.payload))
            return None
        authenticator = authenticator_of(stream)
        login, channel = authenticator.login, authenticator.channel
        request: _Request = stream.kept[ns.SASL2]
        assert login is not None
        stream.authenticated(login)
        granted = Granted(login, channel, request.elements, step.identity.shown, step.token)
        return self._grant(stream, _Granting(step, granted, self._inlines.takers(request.elements)))

    def _failure(self, error: SaslError) -> bytes:
        return build.sasl2_failure(error)

    # what comes with it

    def _grant(self, stream: Negotiable, granting: _Granting) -> Waiting:
        """Have all that was asked for taken, one after the other; the client is told of all at once."""
        while (taker := granting.next()) is not None:
            answer = taker(stream, granting.granted)
            if not isinstance(answer, (bytes, Attached)):
                return self._grant_later(stream, granting, answer)
            granting.add(answer)
        self._succeed(stream, granting)
        return None

    async def _grant_later(self, stream: Negotiable, granting: _Granting, answer: Awaitable[Answer]) -> None:
        granting.add(await answer)
        if stream.link.is_over:
            return
        if (waiting := self._grant(stream, granting)) is not None:
            await waiting

    def _succeed(self, stream: Negotiable, granting: _Granting) -> None:
        """`<success/>`, and the features of a stream that goes on (XEP-0388 2.6.1)."""
        attached, data = granting.attached, granting.step.data
        phase = Phase.BIND if attached is None else Phase.BOUND
        who = stream.account if attached is None else attached.session.full
        payload = None if data is None else encode(data)
        success = build.sasl2_success(payload, who, b"".join(granting.answers))
        first = (success, self._rows.features(stream, phase))
        if attached is None:
            stream.write_all(first)
        else:
            attached.begin(first)


def _request_in(tree: Element, sender: str) -> _Request:
    """What an `<authenticate/>` asks for; SaslError for what cannot be understood."""
    elements: dict[str, Element] = {}
    for child in tree:
        elements.setdefault(child.tag, child)
    initial = elements.get(INITIAL)
    fast = elements.get(FAST)
    asked = Asked(sender, _agent_in(elements.get(AGENT)), fast is not None, _is_last(fast))
    return _Request("" if initial is None else initial.text or "=", asked, elements)


def _agent_in(tree: Element | None) -> UserAgent:
    if tree is None:
        return UserAgent()
    id = tree.get("id", "").lower()
    if id and UUID4.match(id) is None:
        raise SaslError("malformed-request", "The id of a user-agent is a UUID of version 4.")
    if not len(tree):
        return UserAgent(id)
    software, device = (tree.findtext(name, "").strip()[:AGENT_TEXT] for name in (SOFTWARE, DEVICE))
    return UserAgent(id, software, device)


def _is_last(fast: Element | None) -> bool:
    """Whether a token is not to count any more afterwards (XEP-0484 3.6)."""
    return fast is not None and fast.get("invalidate", "") in ("true", "1")


@lru_cache(maxsize=64)
def authentication_feature(mechanisms: tuple[str, ...], inline: bytes) -> bytes:
    """`<authentication/>` with what can be had inline; b"" without mechanisms."""
    if not mechanisms:
        return b""
    listed = "".join(f"<mechanism>{escape_text(name)}</mechanism>" for name in mechanisms).encode()
    more = b"<inline>" + inline + b"</inline>" if inline else b""
    return f"<authentication xmlns='{ns.SASL2}'>".encode() + listed + more + b"</authentication>"
