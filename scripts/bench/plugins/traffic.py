"""For `scripts/bench/start DATADIR PORT features`: counts what clients send."""

from xmppd import hooks
from xmppd.plugin import Counter, Plugin, Session, Stanza


class Traffic(Plugin):
    """A policy and a counter for each stanza that clients send."""

    messages = Counter("Messages that clients sent.")
    presences = Counter("Presences that clients sent.")
    iqs = Counter("Requests and answers that clients sent.")

    @hooks.message_sent
    def message(self, session: Session, message: Stanza) -> None:
        """Count a message."""
        self.messages.inc()

    @hooks.presence_sent
    def presence(self, session: Session, presence: Stanza) -> None:
        """Count a presence."""
        self.presences.inc()

    @hooks.iq_sent
    def iq(self, session: Session, iq: Stanza) -> None:
        """Count an iq."""
        self.iqs.inc()
