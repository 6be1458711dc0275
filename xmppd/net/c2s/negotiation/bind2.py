"""Binding a resource together with the login (XEP-0386)."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Awaitable, Sequence
from functools import lru_cache
from xml.etree.ElementTree import Element

from xmppd import ns
from xmppd.core.binding import ID_BYTES, Binding, conforming, identifier_of
from xmppd.core.expiry import Expiry
from xmppd.core.logins import Logins
from xmppd.core.sessions import Session
from xmppd.errors import StanzaError, StreamError
from xmppd.net.c2s.stream import Stream
from xmppd.stream.inline import Answer, Attached, Granted, Inlines, offers_inline_alike, takes_inline
from xmppd.stream.rows import Negotiable
from xmppd.stream.sasl import Login
from xmppd.xml import build
from xmppd.xml.build import escape_attribute

BIND, TAG = (f"{{{ns.BIND2}}}{name}" for name in ("bind", "tag"))

TAG_CHARACTERS = 100
"""So much of a tag is in the resource."""


class Bind2:
    """Opens the session of a stream that logs in by XEP-0388, with what `inlines` can do to it at once."""

    def __init__(self, binding: Binding, logins: Logins, expiry: Expiry, inlines: Inlines) -> None:
        self._binding = binding
        self._logins = logins
        self._expiry = expiry
        self._inlines = inlines

    @offers_inline_alike
    def feature(self, stream: Negotiable) -> bytes:
        """XEP-0386 3.1."""
        return bind_feature(self._inlines.vars)

    @takes_inline(BIND, attaches=True)
    def bind(self, stream: Stream, granted: Granted) -> Answer | Awaitable[Answer]:
        """XEP-0386 3.2. Where there is no resource to be had the login holds, and the client may bind one by
        RFC 6120 7, or read there why it cannot.
        """
        try:
            waiting = self._logins.confirm(granted.login)
        except StanzaError as error:
            return build.bind2_failure(error)
        return self._open(stream, granted) if waiting is None else self._open_later(stream, granted, waiting)

    async def _open_later(self, stream: Stream, granted: Granted, waiting: Awaitable[None]) -> Answer:
        try:
            await waiting
        except StanzaError as error:
            return build.bind2_failure(error)
        if stream.link.is_over:
            return b""
        opened = self._open(stream, granted)
        return await opened if isinstance(opened, Awaitable) else opened

    def _open(self, stream: Stream, granted: Granted) -> Answer | Awaitable[Answer]:
        login, bind = granted.login, granted.elements[BIND]
        client = identifier_for(login)
        wanted = resource_for(client, bind.findtext(TAG) or "")
        try:
            session = self._binding.bind(login, wanted, stream, stream.lang, client=client)
        except StanzaError as error:
            return build.bind2_failure(error)
        try:
            return self._fill(stream, session, bind)
        except BaseException:
            self._binding.end(session, StreamError("internal-server-error"))
            raise

    def _fill(self, stream: Stream, session: Session, bind: Element) -> Answer | Awaitable[Answer]:
        """Have all done that was asked for with the resource, before anybody is told of it."""
        answers: list[bytes] = []
        waiting: list[Awaitable[bytes]] = []
        for taker, element in self._inlines.at_bind(bind):
            answer = taker(session, element)
            if isinstance(answer, Awaitable):
                waiting.append(answer)
            else:
                answers.append(answer)
        told = self._binding.announce(session)
        if waiting or told is not None:
            return self._fill_later(stream, session, answers, waiting, told)
        return self._opened(stream, session, answers)

    async def _fill_later(
        self,
        stream: Stream,
        session: Session,
        answers: list[bytes],
        waiting: Sequence[Awaitable[bytes]],
        told: Awaitable[None] | None,
    ) -> Answer:
        try:
            answers += [await answer for answer in waiting]
            if told is not None:
                await told
        except BaseException:
            self._binding.end(session, StreamError("internal-server-error"))
            raise
        if stream.link.is_over:
            self._binding.end(session)
            return b""
        return self._opened(stream, session, answers)

    def _opened(self, stream: Stream, session: Session, answers: Sequence[bytes]) -> Attached:
        begin = functools.partial(self._begin, stream, session)
        return Attached(session, build.bound2(b"".join(answers)), begin)

    def _begin(self, stream: Stream, session: Session, first: Sequence[bytes]) -> None:
        stream.bound(session)
        self._expiry.watch(session)
        stream.write_all(first)  # by the stream itself: these are no stanzas of the session
        session.begin()


def identifier_for(login: Login) -> str:
    """What tells a client from all others of its account, by random if it has told no id."""
    client = login.agent.id if login.agent is not None else ""
    return identifier_of(login.account, client) if client else secrets.token_urlsafe(ID_BYTES)


def resource_for(client: str, tag: str) -> str:
    """The resource of the client with this identifier: its tag, if that can be part of one, before that
    (XEP-0386 3.2.1).
    """
    shown = conforming(tag.strip()[:TAG_CHARACTERS])
    return f"{shown}.{client}" if shown else client


@lru_cache(maxsize=16)
def bind_feature(names: tuple[str, ...]) -> bytes:
    """`<bind/>` with the features that can be had with a resource."""
    if not names:
        return f"<bind xmlns='{ns.BIND2}'/>".encode()
    listed = "".join(f"<feature var='{escape_attribute(name)}'/>" for name in names)
    return f"<bind xmlns='{ns.BIND2}'><inline>{listed}</inline></bind>".encode()
