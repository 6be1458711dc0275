"""OAUTHBEARER (RFC 7628), the server's side."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NamedTuple

from xmppd.plugin import Challenge, Channel, Exchange, Identity, Jid, JidError, SaslError, Success

SEPARATOR: Final = b"\x01"
PAIRS: Final = 16
"""Of one message."""

Prove = Callable[[str, Channel, str], Awaitable[Identity]]
"""Whose token this is; the account that the client says it is, "" for none. SaslError."""


class Asked(NamedTuple):
    """What a client shows: its token, "" for none, and who it says it is."""

    token: str
    authzid: str


class OAuthBearer:
    """The mechanism. `about` stands in what a client is told whose token does not hold."""

    name = "OAUTHBEARER"
    priority = 60

    def __init__(
        self,
        prove: Prove,
        serves: Callable[[str], bool],
        about: Mapping[str, str],
        *,
        needs_tls: bool = True,
    ) -> None:
        self.prove = prove
        self.serves = serves
        self.about = about
        self.needs_tls = needs_tls

    def available(self, channel: Channel) -> bool:
        """Whether anybody issues tokens for this domain."""
        return self.serves(channel.domain)

    def start(self, channel: Channel) -> Exchange:
        """A fresh exchange."""
        return _Exchange(self, channel)


class _Exchange:
    def __init__(self, mechanism: OAuthBearer, channel: Channel) -> None:
        self._mechanism = mechanism
        self._channel = channel
        self.account = ""

    async def step(self, data: bytes) -> Challenge | Success:
        """The only message of a client that is let in. Who is not is told why, answers with a separator, and
        fails (3.2.3).
        """
        asked = asked_in(data)
        claimed = account_of(asked.authzid)
        self.account = claimed
        try:
            if not asked.token:
                raise SaslError("not-authorized", "There is no token.")
            identity = await self._mechanism.prove(asked.token, self._channel, claimed)
        except SaslError as error:
            if error.condition != "not-authorized":
                raise
            return Challenge(self._told(error), error)
        return Success(identity)

    def _told(self, error: SaslError) -> bytes:
        """3.2.2."""
        more = {"error_description": error.text} if error.text else {}
        return json.dumps({"status": "invalid_token", **self._mechanism.about, **more}).encode()


def asked_in(data: bytes) -> Asked:
    """The parts of a message (3.1); SaslError malformed-request."""
    header, *pairs = data.split(SEPARATOR)
    if len(pairs) < 2 or pairs[-2:] != [b"", b""] or len(pairs) > PAIRS:
        raise SaslError("malformed-request")
    try:
        flag, authzid, rest = header.decode().split(",")
        given = [pair.decode() for pair in pairs[:-2]]
    except ValueError:
        raise SaslError("malformed-request") from None
    if flag not in ("n", "y") or rest or not (authzid == "" or authzid.startswith("a=")):
        raise SaslError("malformed-request")
    found: dict[str, str] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not (name.isascii() and name.isalpha() and equals) or name in found:
            raise SaslError("malformed-request")
        found[name] = value
    if "auth" not in found:
        raise SaslError("malformed-request")
    scheme, _, token = found["auth"].partition(" ")
    if found["auth"] and scheme.lower() != "bearer":
        raise SaslError("malformed-request")
    return Asked(token.strip(" "), unescaped(authzid[2:]))


def unescaped(name: str) -> str:
    """A saslname (RFC 5801 4) as it is meant; SaslError."""
    if "=" in name.replace("=2C", "").replace("=3D", ""):
        raise SaslError("malformed-request")
    return name.replace("=2C", ",").replace("=3D", "=")


def account_of(authzid: str) -> str:
    """The bare JID that a client says it is; SaslError invalid-authzid."""
    if not authzid:
        return ""
    try:
        jid = Jid.parse(authzid)
    except JidError:
        raise SaslError("invalid-authzid") from None
    if not jid.local or jid.resource:
        raise SaslError("invalid-authzid")
    return jid.bare
