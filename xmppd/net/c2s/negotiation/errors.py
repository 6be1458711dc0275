"""What a client has against a stream, whatever its phase (RFC 6120 4.9)."""

from __future__ import annotations

from xmppd import ns
from xmppd.stream.rows import Negotiable, Phase, Waiting, negotiates
from xmppd.xml.stanza import Stanza

ERROR = f"{{{ns.STREAM}}}error"


class ClientErrors:
    """Stream errors are never answered by others, only by the end of the stream."""

    @negotiates(Phase.HEADER, ERROR, exposed=True)
    @negotiates(Phase.LOGIN, ERROR, exposed=True)
    @negotiates(Phase.EXCHANGE, ERROR, exposed=True)
    @negotiates(Phase.AUTHENTICATE, ERROR)
    @negotiates(Phase.BIND, ERROR)
    @negotiates(Phase.BOUND, ERROR)
    def end(self, stream: Negotiable, stanza: Stanza) -> Waiting:
        """RFC 6120 4.9.1.1: it is the end, and not ours to complain of."""
        return stream.ended()
