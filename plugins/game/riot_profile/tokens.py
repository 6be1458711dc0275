"""A mechanism of SASL whose `<auth/>` has tokens in its children, or one token as its text."""

from __future__ import annotations

import binascii
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, Protocol

from xmppd.plugin import Channel, Element, Exchange, Identity, SaslError, Session, Success

SEPARATOR: Final = "\0"
MOST: Final = 8
"""Children of one `<auth/>`."""


class Logins(Protocol):
    """What is asked of the plugin `game_login`."""

    def __bool__(self) -> bool: ...

    async def prove(self, token: str, channel: Channel, claimed: str = "") -> Identity: ...

    async def renew(self, session: Session, token: str) -> float | None: ...


class TokenChildren:
    """The mechanism. `tokens` are the names of the children, of which those in `proving` are looked at. What
    it takes as its first message is `name=token` of each, with NUL between them: by XEP-0388 in base64.
    """

    priority = 40

    def __init__(
        self,
        name: str,
        logins: Logins,
        serves: Callable[[str], bool],
        tokens: Sequence[str],
        proving: Sequence[str],
        *,
        needs_tls: bool = True,
    ) -> None:
        self.name = name
        self.logins = logins
        self.serves = serves
        self.tokens = tokens
        self.proving = proving
        self.needs_tls = needs_tls

    def available(self, channel: Channel) -> bool:
        """Whether the dialect is spoken on this domain, and anybody looks at tokens."""
        return bool(self.logins) and self.serves(channel.domain)

    def read(self, auth: Element) -> bytes:
        """The first message from the children of `<auth/>`, or from a single token, whose text may be base64
        of it; SaslError malformed-request.
        """
        found: dict[str, str] = {}
        if len(auth) == 0:
            found = dict.fromkeys(self.proving, plain_token(auth.text or ""))
        for child in auth:
            name = str(child.tag).rpartition("}")[2]
            if len(child) or name in found or len(found) == MOST:
                raise SaslError("malformed-request")
            found[name] = (child.text or "").strip()
        return SEPARATOR.join(f"{name}={token}" for name, token in found.items()).encode()

    def start(self, channel: Channel) -> Exchange:
        """A fresh exchange."""
        return _Exchange(self, channel)


class _Exchange:
    def __init__(self, mechanism: TokenChildren, channel: Channel) -> None:
        self._mechanism = mechanism
        self._channel = channel
        self.account = ""

    async def step(self, data: bytes) -> Success:
        """Each token that is looked at holds, and they are all of one player."""
        asked, identity = self._mechanism, None
        given = tokens_in(data, asked.tokens)
        for name in asked.proving:
            if not (token := given.get(name)):
                raise SaslError("not-authorized", "There is no token.")
            proved = await asked.logins.prove(token, self._channel, self.account)
            self.account = f"{proved.local}@{self._channel.domain}"
            if identity is None:
                identity = proved
            elif proved.expires is not None and (identity.expires or proved.expires) >= proved.expires:
                identity = replace(identity, expires=proved.expires)
        if identity is None:
            raise SaslError("not-authorized", "No token lets in here.")
        return Success(identity)


def tokens_in(data: bytes, names: Sequence[str]) -> dict[str, str]:
    """The tokens of a first message by name; SaslError malformed-request."""
    try:
        pairs = [part.partition("=") for part in data.decode().split(SEPARATOR)]
    except UnicodeDecodeError:
        raise SaslError("malformed-request") from None
    found = {name: token for name, _, token in pairs if name in names}
    if len(found) != len(pairs):
        raise SaslError("malformed-request")
    return found


def plain_token(text: str) -> str:
    """A token that stands for itself, or in base64: one of its own has dots, and base64 has none."""
    text = text.strip()
    if "." in text:
        return text
    try:
        return binascii.a2b_base64(text, strict_mode=True).decode()
    except ValueError:
        raise SaslError("malformed-request") from None
