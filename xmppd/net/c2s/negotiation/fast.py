"""Tokens for clients, given out and taken back together with a login (XEP-0484)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Sequence
from functools import lru_cache

from xmppd import ns
from xmppd.core.begun import begun
from xmppd.core.tokens import ClientTokens, Token
from xmppd.errors import StoreError
from xmppd.moments import utc_stamp
from xmppd.net.c2s.negotiation.attempts import authenticator_of
from xmppd.stream.hashedtokens import HashedToken
from xmppd.stream.inline import Granted, offers_inline_alike, takes_inline
from xmppd.stream.rows import Negotiable
from xmppd.stream.sasl import Channel
from xmppd.xml.build import escape_attribute, escape_text

FAST, REQUEST = (f"{{{ns.FAST}}}{name}" for name in ("fast", "request-token"))

log = logging.getLogger(__name__)


class Fast:
    """Offers the `mechanisms` that take tokens of `tokens`, and gives these out."""

    def __init__(self, tokens: ClientTokens, mechanisms: Sequence[HashedToken]) -> None:
        self._tokens = tokens
        self.mechanisms = mechanisms

    @offers_inline_alike
    def feature(self, stream: Negotiable) -> bytes:
        """XEP-0484 3.1. There is no early data of TLS, so no counting of attempts."""
        return fast_feature(self._names(authenticator_of(stream).channel))

    def _names(self, channel: Channel) -> tuple[str, ...]:
        return tuple([mechanism.name for mechanism in self.mechanisms if mechanism.available(channel)])

    @takes_inline(FAST, REQUEST)
    def take(self, stream: Negotiable, granted: Granted) -> bytes | Awaitable[bytes]:
        """A client that asks for a token gets one (XEP-0484 3.3), as does one whose token is due for another
        (3.5).
        """
        request = granted.elements.get(REQUEST)
        if request is None:
            return token_element(granted.token) if isinstance(granted.token, Token) else b""
        mechanism = request.get("mechanism", "")
        return begun(self._issue(granted, mechanism)) if mechanism in self._names(granted.channel) else b""

    async def _issue(self, granted: Granted, mechanism: str) -> bytes:
        """Without a token the login is as good; the client asks again at the next one."""
        try:
            token = await self._tokens.issue(granted.login, mechanism, granted.shown)
        except StoreError as error:
            log.warning("store-failed", extra={"kind": "token", "error": str(error)})
            return b""
        return token_element(token) if token is not None else b""


def token_element(token: Token) -> bytes:
    """`<token/>` (XEP-0484 3.3)."""
    expiry = utc_stamp(token.expires)
    text = escape_attribute(token.text)
    return f"<token xmlns='{ns.FAST}' expiry='{expiry}' token='{text}'/>".encode()


@lru_cache(maxsize=16)
def fast_feature(names: tuple[str, ...]) -> bytes:
    """`<fast/>` with its mechanisms; b"" without any."""
    if not names:
        return b""
    listed = "".join(f"<mechanism>{escape_text(name)}</mechanism>" for name in names)
    return f"<fast xmlns='{ns.FAST}'>{listed}</fast>".encode()
