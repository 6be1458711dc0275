"""Stream management (XEP-0198) in the streams of clients: begun, asked for, and a session resumed.

`enable` and `resume` send nothing: what they return is to be sent by who called them, as an element of its
own or within another one.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple
from xml.etree.ElementTree import Element

from xmppd import ns
from xmppd.core.begun import begun
from xmppd.core.expiry import Expiry
from xmppd.core.handover import Handover
from xmppd.core.logins import Logins
from xmppd.core.managed import FINISH_SECONDS, MODULO, Managed, ManagedStream, too_high
from xmppd.core.resumption import Resumption
from xmppd.core.sessions import Session
from xmppd.errors import StanzaError, StreamError
from xmppd.net.c2s.stream import Stream
from xmppd.stream.inline import Answer, Attached, Granted, offers_inline_alike, takes_at_bind, takes_inline
from xmppd.stream.rows import Negotiable, Phase, Waiting, negotiates, offers
from xmppd.stream.sasl import Login
from xmppd.xml.build import escape_attribute
from xmppd.xml.stanza import Stanza

log = logging.getLogger(__name__)

ENABLE: Final = f"{{{ns.SM}}}enable"
RESUME: Final = f"{{{ns.SM}}}resume"
OFFER: Final = f"<sm xmlns='{ns.SM}'/>".encode()

_NUMBER: Final = re.compile(r"[0-9]{1,10}")


class Resumed(NamedTuple):
    """What to answer, and what is to be done right behind that: it writes what the client has not
    acknowledged. None where the stream has no session, and is to bind one.
    """

    answer: bytes
    go_on: Callable[[], None] | None


class Management:
    """Rows of all that clients say of it."""

    def __init__(self, resumption: Resumption, handover: Handover, logins: Logins, expiry: Expiry) -> None:
        self._resumption = resumption
        self._handover = handover
        self._logins = logins
        self._expiry = expiry

    # as first-level elements

    @offers(Phase.BIND, alike=True)
    @offers_inline_alike
    def feature(self, stream: Negotiable) -> bytes:
        """XEP-0198 2."""
        return OFFER

    @offers(Phase.BOUND)
    def feature_of_bound(self, stream: Stream) -> bytes:
        """Not where it came with the login: some clients take the offer as a request to begin again."""
        return OFFER if stream.managed is None else b""

    @negotiates(Phase.LOGIN, ENABLE, RESUME)
    @negotiates(Phase.BIND, ENABLE)
    @negotiates(Phase.BOUND, RESUME)
    def untimely(self, stream: Stream, element: Stanza) -> Waiting:
        """XEP-0198 3: not before there is a session; a session is resumed instead of having one."""
        stream.write(failed("unexpected-request"))
        return None

    @negotiates(Phase.BOUND, ENABLE)
    def take_enable(self, stream: Stream, element: Stanza) -> Waiting:
        """Begin (XEP-0198 3); once only."""
        answer = self.enable(stream, element.attrs)
        stream.write(answer)
        return None

    @negotiates(Phase.BIND, RESUME)
    def take_resume(self, stream: Stream, element: Stanza) -> Waiting:
        """Go on with another stream's session (XEP-0198 5)."""
        resumed = self.resume(stream, element.attrs)
        if not isinstance(resumed, Resumed):
            return self._answer_later(stream, resumed)
        self._answer(stream, resumed)
        return None

    async def _answer_later(self, stream: Stream, resuming: Awaitable[Resumed]) -> None:
        self._answer(stream, await resuming)

    @staticmethod
    def _answer(stream: Stream, resumed: Resumed) -> None:
        stream.write(resumed.answer)
        if resumed.go_on is not None:
            resumed.go_on()

    @negotiates(Phase.BOUND, f"{{{ns.SM}}}r")
    def take_request(self, stream: Stream, element: Stanza) -> Waiting:
        """XEP-0198 4."""
        if stream.managed is None:
            return self.untimely(stream, element)
        stream.managed.asked()
        return None

    @negotiates(Phase.BOUND, f"{{{ns.SM}}}a")
    def take_answer(self, stream: Stream, element: Stanza) -> Waiting:
        """XEP-0198 4."""
        if stream.managed is None:
            return self.untimely(stream, element)
        h = number(element.attrs.get("h", ""))
        if h is None:
            raise StreamError("bad-format", "An acknowledgement has a number of stanzas.")
        stream.managed.acknowledged(h)
        return None

    # together with a login (XEP-0388), or a resource (XEP-0386)

    @takes_inline(RESUME, attaches=True)
    def resume_inline(self, stream: Stream, granted: Granted) -> Answer | Awaitable[Answer]:
        """Go on with another stream's session; where it is not to be had, the client may bind one at once."""
        resumed = self.resume(stream, granted.elements[RESUME].attrib)
        if not isinstance(resumed, Resumed):
            return self._attached_later(stream, resumed)
        return self._attached(stream, resumed)

    async def _attached_later(self, stream: Stream, resuming: Awaitable[Resumed]) -> Answer:
        return self._attached(stream, await resuming)

    @staticmethod
    def _attached(stream: Stream, resumed: Resumed) -> Answer:
        if resumed.go_on is None:
            return resumed.answer
        go_on = resumed.go_on

        def begin(first: Sequence[bytes]) -> None:
            stream.write_all(first)
            go_on()

        return Attached(stream.session, resumed.answer, begin)

    @takes_at_bind(ENABLE, ns.SM)
    def enable_at_bind(self, session: Session, element: Element) -> bytes:
        """Begin with the session: all that it is ever sent is counted."""
        stream: Any = session.connection
        return self._enabled(session, stream, element.attrib)

    # wherever they stand

    def enable(self, stream: Stream, attrs: Mapping[str, str]) -> bytes:
        """Begin to manage a bound stream by the attributes of `<enable/>`; what to answer before all that is
        sent from now on.
        """
        session = stream.session
        assert session is not None
        if stream.managed is not None:
            stream.write(failed("unexpected-request"))
            raise StreamError("policy-violation", "Stream management is enabled already.")
        return self._enabled(session, stream, attrs)

    def _enabled(self, session: Session, stream: ManagedStream, attrs: Mapping[str, str]) -> bytes:
        wants = attrs.get("resume", "").strip() in ("true", "1")
        most = number(attrs.get("max", "")) or 0
        managed = self._resumption.manage(session, stream, resumable=wants, most=most)
        if not managed.seconds:
            return f"<enabled xmlns='{ns.SM}'/>".encode()
        where = self._resumption.rules.location
        location = f" location='{escape_attribute(where)}'" if where else ""
        about = f"id='{managed.id}' max='{int(managed.seconds)}' resume='true'{location}"
        return f"<enabled xmlns='{ns.SM}' {about}/>".encode()

    def resume(self, stream: Stream, attrs: Mapping[str, str]) -> Resumed | Awaitable[Resumed]:
        """Give a stream that has logged in the session that `<resume/>` with these attributes asks for.
        StreamError for an acknowledgement of what was not sent.
        """
        login, id, h = stream.login, attrs.get("previd", ""), number(attrs.get("h", ""))
        assert login is not None
        if h is None or not id:
            return Resumed(failed("bad-request"), None)
        try:
            waiting = self._logins.confirm(login)
        except StanzaError as error:
            return Resumed(failed(error.condition), None)
        if waiting is not None:
            return self._resume_later(stream, login, id, h, waiting)
        return self._resume(stream, login, id, h)

    async def _resume_later(
        self, stream: Stream, login: Login, id: str, h: int, waiting: Awaitable[None]
    ) -> Resumed:
        try:
            await waiting
        except StanzaError as error:
            return Resumed(failed(error.condition), None)
        resumed = self._resume(stream, login, id, h)
        return resumed if isinstance(resumed, Resumed) else await resumed

    def _resume(self, stream: Stream, login: Login, id: str, h: int) -> Resumed | Awaitable[Resumed]:
        managed = self._resumption.find(id, login.account)
        if managed is None:
            return begun(self._resume_from_elsewhere(stream, login, id, h))
        if not managed.seconds or has_gone(stream):
            return Resumed(self._gone(id, login), None)
        if (h - managed.acked) % MODULO > managed.sent - managed.acked:
            raise too_high(h, managed.sent)
        self._resumption.take(managed, stream)
        if (idle := managed.idle(FINISH_SECONDS)) is not None:
            return self._go_on_later(stream, managed, login, h, idle)
        return self._go_on(stream, managed, login, h)

    async def _go_on_later(
        self, stream: Stream, managed: Managed, login: Login, h: int, idle: Awaitable[None]
    ) -> Resumed:
        await idle  # it would send again what is not handled
        return self._go_on(stream, managed, login, h)

    def _go_on(self, stream: Stream, managed: Managed, login: Login, h: int) -> Resumed:
        """With a session that was taken for this stream, if it is to be had still."""
        if not self._resumption.is_taken(managed, stream, is_gone=has_gone(stream)):
            return Resumed(self._gone(managed.id, login), None)
        self._handover.go_on(managed)
        managed.acknowledged(h)
        login.sought = login.sought or managed.session.login.sought
        managed.session.login = login
        self._attach(stream, managed)
        return Resumed(resumed(managed), partial(self._handover.returned, managed))

    async def _resume_from_elsewhere(self, stream: Stream, login: Login, id: str, h: int) -> Resumed:
        """The session may be on another node: then it comes here."""
        state = await self._handover.fetch(id, login.account, h)
        try:
            waiting = self._logins.confirm(login) if state is not None else None
            if waiting is not None:
                await waiting
        except StanzaError:
            state = None
        if state is None or has_gone(stream):
            return Resumed(self._gone(id, login), None)
        managed = await self._handover.take(stream, login, id, state)
        if managed is not None and has_gone(stream):
            self._handover.drop(managed, state)
            managed = None
        if managed is None:
            return Resumed(self._gone(id, login), None)
        self._attach(stream, managed)

        def go_on() -> None:
            managed.resend()
            self._handover.begin(managed, state)

        return Resumed(resumed(managed), go_on)

    def _gone(self, id: str, login: Login) -> bytes:
        """What was asked for is not there, or nothing ever is: XEP-0198 5."""
        login.sought = id
        condition = "item-not-found" if self._resumption.rules.seconds > 0 else "feature-not-implemented"
        return failed(condition, self._resumption.handled_of(id, login.account))

    def _attach(self, stream: Stream, managed: Managed) -> None:
        session = managed.session
        stream.bound(session)
        managed.attach(stream)
        self._expiry.watch(session)
        log.info("session-resumed", extra={"jid": session.full, "peer": stream.peer})


def has_gone(stream: Stream) -> bool:
    """Whether its link is over, as it may be after anything was waited for."""
    return stream.link.is_over


def resumed(managed: Managed) -> bytes:
    """`<resumed/>` (XEP-0198 5)."""
    return f"<resumed xmlns='{ns.SM}' h='{managed.h}' previd='{managed.id}'/>".encode()


def failed(condition: str, h: int | None = None) -> bytes:
    """`<failed/>` (XEP-0198 6), with how many stanzas were handled if that is known."""
    count = "" if h is None else f" h='{h}'"
    return f"<failed xmlns='{ns.SM}'{count}><{condition} xmlns='{ns.STANZA_ERRORS}'/></failed>".encode()


def number(text: str) -> int | None:
    """An xs:unsignedInt, None for anything else."""
    found = int(text) if _NUMBER.fullmatch(text.strip()) else -1
    return found if 0 <= found < 1 << 32 else None
