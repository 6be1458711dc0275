"""For `scripts/bench/start DATADIR PORT features`: a bound on the bytes of messages and presences."""

from xmppd import hooks
from xmppd.plugin import Counter, Plugin, Session, Stanza, StanzaError

BYTES = 65536


class Sizes(Plugin):
    """One comparison for each message and presence."""

    refused = Counter("Stanzas that were too long.")

    @hooks.message_sent
    @hooks.presence_sent
    def check(self, session: Session, stanza: Stanza) -> None:
        """Refuse what is longer than `BYTES`."""
        if len(stanza.raw) > BYTES:
            self.refused.inc()
            raise StanzaError("policy-violation", "This is too long.")
