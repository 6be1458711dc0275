"""Message carbons (XEP-0280): clients ask for copies of what other devices of their account send and receive.
The core makes them.
"""

from __future__ import annotations

from xmppd import ns
from xmppd.plugin import (
    ACCOUNT,
    SELF,
    Element,
    Plugin,
    Request,
    Session,
    StanzaError,
    iq_set,
    takes_at_bind,
)

ENABLE = f"{{{ns.CARBONS}}}enable"
DISABLE = f"{{{ns.CARBONS}}}disable"


class Carbons(Plugin):
    """Each may be asked for any number of times (XEP-0280 10.1)."""

    features = (ns.CARBONS, ns.CARBONS_RULES)

    @iq_set(ENABLE, SELF)
    def enable(self, request: Request) -> None:
        """XEP-0280 4."""
        self.server.want_copies(request.session, True)

    @iq_set(DISABLE, SELF)
    def disable(self, request: Request) -> None:
        """XEP-0280 5."""
        self.server.want_copies(request.session, False)

    @takes_at_bind(ENABLE, ns.CARBONS)
    def begin_enabled(self, session: Session, element: Element | None) -> bytes:
        """A session may begin so (XEP-0386 3.2); nothing is answered."""
        self.server.want_copies(session, True)
        return b""

    @iq_set(ENABLE, ACCOUNT)
    def enable_another(self, request: Request) -> None:
        """XEP-0280 4.1."""
        raise refusal()

    @iq_set(DISABLE, ACCOUNT)
    def disable_another(self, request: Request) -> None:
        """XEP-0280 5.1."""
        raise refusal()


def refusal() -> StanzaError:
    """What tells who is no session of the account."""
    return StanzaError("not-allowed", "Copies are for the sessions of an account themselves.")
