"""Whether anybody looks at a client (XEP-0352)."""

from __future__ import annotations

from collections.abc import Callable
from xml.etree.ElementTree import Element

from xmppd import ns
from xmppd.core.quiet import quiet, wake
from xmppd.core.sessions import Session
from xmppd.hooks import Hooks
from xmppd.net.c2s.stream import Stream
from xmppd.stream.inline import takes_at_bind
from xmppd.stream.rows import Negotiable, Phase, Waiting, negotiates, offers
from xmppd.xml.stanza import Stanza

INACTIVE, ACTIVE = (f"{{{ns.CSI}}}{name}" for name in ("inactive", "active"))
OFFER = f"<csi xmlns='{ns.CSI}'/>".encode()


class Activity:
    """What clients say of it. `is_offered`: whether it has any effect."""

    def __init__(self, is_offered: Callable[[], bool], hooks: Hooks) -> None:
        self._is_offered = is_offered
        self._hooks = hooks

    @offers(Phase.BIND, alike=True)
    @offers(Phase.BOUND, alike=True)
    def feature(self, stream: Negotiable) -> bytes:
        """XEP-0352 4.1."""
        return OFFER if self._is_offered() else b""

    @negotiates(Phase.BOUND, INACTIVE)
    def inactive(self, stream: Stream, element: Stanza) -> Waiting:
        """Nobody does (XEP-0352 4.2)."""
        if stream.session is not None and self._is_offered():
            quiet(stream.session, self._hooks)
        return None

    @takes_at_bind(INACTIVE, ns.CSI)
    def begin_inactive(self, session: Session, element: Element) -> bytes:
        """A session may begin so (XEP-0386 3.2)."""
        if self._is_offered():
            quiet(session, self._hooks)
        return b""

    @takes_at_bind(ACTIVE, ns.CSI)
    def begin_active(self, session: Session, element: Element) -> bytes:
        """They all are at first."""
        return b""

    @negotiates(Phase.BOUND, ACTIVE)
    def active(self, stream: Stream, element: Stanza) -> Waiting:
        """Somebody does."""
        if stream.session is not None:
            wake(stream.session)
        return None
