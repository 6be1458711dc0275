"""For `scripts/bench/start DATADIR PORT features`: accounts that may not write messages; there are none."""

from xmppd import hooks
from xmppd.plugin import Counter, Plugin, Session, Stanza, StanzaError


class Muted(Plugin):
    """One look into a set for each message."""

    refused = Counter("Messages of muted accounts.")

    async def start(self) -> None:
        """Nobody is muted."""
        self.accounts: set[str] = set()

    @hooks.message_sent
    def check(self, session: Session, message: Stanza) -> None:
        """Refuse what a muted account says."""
        if session.account in self.accounts:
            self.refused.inc()
            raise StanzaError("not-allowed", "This account is muted.")
