"""Ping (XEP-0199): the server answers for itself, and for the account of whoever asks."""

from __future__ import annotations

from xmppd import ns
from xmppd.plugin import SELF, SERVER, SERVICE, Plugin, Request, iq_get


class Ping(Plugin):
    """An empty result is the whole answer."""

    @iq_get(f"{{{ns.PING}}}ping", SERVER, SELF, SERVICE)
    def pong(self, request: Request) -> None:
        """XEP-0199 4.2; to the bare JID of the sender too."""
