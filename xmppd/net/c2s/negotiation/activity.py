"""Whether anybody looks at a client (XEP-0352)."""

from __future__ import annotations

from collections.abc import Callable

from xmppd import ns
from xmppd.core.quiet import quiet, wake
from xmppd.net.c2s.stream import Stream
from xmppd.stream.rows import Negotiable, Phase, Waiting, negotiates, offers
from xmppd.xml.stanza import Stanza

OFFER = f"<csi xmlns='{ns.CSI}'/>".encode()


class Activity:
    """What clients say of it. `is_offered`: whether it has any effect."""

    def __init__(self, is_offered: Callable[[], bool]) -> None:
        self._is_offered = is_offered

    @offers(Phase.BIND)
    def feature(self, stream: Negotiable) -> bytes:
        """XEP-0352 4.1."""
        return OFFER if self._is_offered() else b""

    @negotiates(Phase.BOUND, f"{{{ns.CSI}}}inactive")
    def inactive(self, stream: Stream, element: Stanza) -> Waiting:
        """Nobody does (XEP-0352 4.2)."""
        if stream.session is not None and self._is_offered():
            quiet(stream.session)
        return None

    @negotiates(Phase.BOUND, f"{{{ns.CSI}}}active")
    def active(self, stream: Stream, element: Stanza) -> Waiting:
        """Somebody does."""
        if stream.session is not None:
            wake(stream.session)
        return None
