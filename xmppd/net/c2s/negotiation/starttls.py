"""TLS on a stream that began without it (RFC 6120 5)."""

from __future__ import annotations

from xmppd import ns
from xmppd.stream.rows import Negotiable, Phase, negotiates, offers
from xmppd.xml import build
from xmppd.xml.stanza import Stanza

STARTTLS = f"{{{ns.TLS}}}starttls"
OFFER = f"<starttls xmlns='{ns.TLS}'/>".encode()
DEMAND = f"<starttls xmlns='{ns.TLS}'><required/></starttls>".encode()


class StartTls:
    """Offered where the link can do it; demanded where the server's rules want it."""

    @offers(Phase.LOGIN, exposed=True, alike=True)
    def feature(self, stream: Negotiable) -> bytes:
        """RFC 6120 5.3.1."""
        if not stream.link.can_encrypt:
            return b""
        return DEMAND if stream.is_exposed else OFFER

    @negotiates(Phase.LOGIN, STARTTLS, exposed=True)
    def begin(self, stream: Negotiable, stanza: Stanza) -> None:
        """RFC 6120 5.4.2: <proceed/>, or <failure/> and the end."""
        if stream.link.can_encrypt:
            stream.write(build.TLS_PROCEED)
            stream.encrypt()
        else:
            stream.write(build.TLS_FAILURE)
            stream.close(None)
