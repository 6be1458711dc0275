"""How often an account invites: it is counted on all nodes."""

from __future__ import annotations

import math
from typing import Final

from xmppd.plugin import Counter, Lru, Plugin, StanzaError, cluster_signal, element

from .config import InvitesConfig

RETRY: Final = "{urn:xmppd:moderation:0}retry"
PACED: Final = 10_000
"""Of how many accounts it is remembered how often they invited."""
MINUTE: Final = 60.0


class Paying(Plugin):
    """The part of the plugin that counts them."""

    config: InvitesConfig
    refused = Counter("Invites that were refused.")

    async def start(self) -> None:
        """Nobody invited yet."""
        self._paid: Lru[str, float] = Lru(PACED)
        """Up to when an account has paid for what it did, by what each costs."""

    def pay(self, account: str) -> None:
        """Count one; StanzaError where that is one too many."""
        if (early := self._paid_with_one_more(account) - self.now()) > 0:
            self.refused.inc()
            raise too_often(early)
        self.paid.tell(account)

    @cluster_signal
    def paid(self, account: str) -> None:
        """An account invited somebody, on one of the nodes."""
        self._paid.put(account, self._paid_with_one_more(account))

    def _paid_with_one_more(self, account: str) -> float:
        paid = max(self._paid.get(account) or 0.0, self.now() - MINUTE)
        return paid + MINUTE / self.config.per_minute


def too_often(seconds: float) -> StanzaError:
    """What tells a client to wait so long."""
    hint = element(RETRY, {"seconds": str(math.ceil(seconds))})
    return StanzaError("policy-violation", "Invite less often.", type="wait", detail=hint)
