"""Binding a resource, with which a session begins (RFC 6120 7), and what is then there to be used."""

from __future__ import annotations

import re
from collections.abc import Awaitable

from xmppd import ns
from xmppd.core import iqs
from xmppd.core.binding import Binding
from xmppd.core.expiry import Expiry
from xmppd.core.logins import Logins
from xmppd.core.sessions import Session
from xmppd.errors import StanzaError
from xmppd.net.c2s.stream import Stream
from xmppd.stream.rows import Negotiable, Phase, Waiting, iq_set_of, negotiates, offers
from xmppd.stream.sasl import Login
from xmppd.xml import build
from xmppd.xml.stanza import Stanza

_USUAL = re.compile(
    rb"<iq [^<>]*+><bind xmlns=(['\"])%b\1(?:/>|>(?:<resource>([^<&\r]*+)</resource>)?</bind>)</iq>"
    % re.escape(ns.BIND.encode())
)

OFFER = f"<bind xmlns='{ns.BIND}'/>".encode()
SESSION_OFFER = f"<session xmlns='{ns.SESSION}'><optional/></session>".encode()
ROSTER_OFFER = f"<ver xmlns='{ns.ROSTER_VERSIONING}'/><sub xmlns='{ns.PREAPPROVAL}'/>".encode()


class Resource:
    """Opens the session of a stream, if its login holds still."""

    def __init__(self, binding: Binding, logins: Logins, expiry: Expiry) -> None:
        self._binding = binding
        self._logins = logins
        self._expiry = expiry

    @offers(Phase.BIND, alike=True)
    def feature(self, stream: Negotiable) -> bytes:
        """RFC 6120 7.4."""
        return OFFER

    @negotiates(Phase.BIND, iq_set_of(f"{{{ns.BIND}}}bind"))
    def bind(self, stream: Stream, stanza: Stanza) -> Waiting:
        """Answer with the full JID (RFC 6120 7.6, 7.7)."""
        login = stream.login
        assert login is not None
        try:
            wanted = resource_in(stanza)
            waiting = self._logins.confirm(login)
        except StanzaError as error:
            stream.write(build.error_reply(stanza, login.account, error))
            return None
        if waiting is not None:
            return self._bind_later(stream, stanza, login, wanted, waiting)
        return self._bind(stream, stanza, login, wanted)

    async def _bind_later(
        self, stream: Stream, stanza: Stanza, login: Login, wanted: str, waiting: Awaitable[None]
    ) -> None:
        try:
            await waiting
        except StanzaError as error:
            stream.write(build.error_reply(stanza, login.account, error))
            return
        if stream.link.is_over:
            return
        if (beginning := self._bind(stream, stanza, login, wanted)) is not None:
            await beginning

    def _bind(self, stream: Stream, stanza: Stanza, login: Login, wanted: str) -> Waiting:
        try:
            session = self._binding.bind(login, wanted, stream, stream.lang)
        except StanzaError as error:
            stream.write(build.error_reply(stanza, login.account, error))
            return None
        waiting = self._binding.announce(session)
        if waiting is not None:
            return self._begin_later(stream, stanza, session, waiting)
        self._begin(stream, stanza, session)
        return None

    async def _begin_later(
        self, stream: Stream, stanza: Stanza, session: Session, waiting: Awaitable[None]
    ) -> None:
        await waiting
        if stream.link.is_over:
            self._binding.end(session)
        else:
            self._begin(stream, stanza, session)

    def _begin(self, stream: Stream, stanza: Stanza, session: Session) -> None:
        stream.bound(session)
        self._expiry.watch(session)
        session.begin(build.iq_result(stanza, "", build.bound(session.full)))


def resource_in(stanza: Stanza) -> str:
    """The resource that an iq asks for, "" for any; StanzaError for what is no request (RFC 6120 8.2.3). As
    it is usually written, it needs no tree.
    """
    usual = _USUAL.fullmatch(stanza.raw) if stanza.id else None
    if usual is not None:
        return (usual[2] or b"").decode()
    iqs.check(stanza)
    return stanza.xml[0].findtext(f"{{{ns.BIND}}}resource") or ""


class SessionOffers:
    """What a bound session may use, announced before."""

    @offers(Phase.BIND, alike=True)
    def establishment(self, stream: Negotiable) -> bytes:
        """RFC 3921 3, as something that may be left out."""
        return SESSION_OFFER

    @offers(Phase.BIND, alike=True)
    @offers(Phase.BOUND, alike=True)
    def rosters(self, stream: Negotiable) -> bytes:
        """RFC 6121 2.6.1 and 3.4.3."""
        return ROSTER_OFFER
