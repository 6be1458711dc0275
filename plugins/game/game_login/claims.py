"""What the claims of a token say of a player."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from xmppd.plugin import Jid, JidError, SaslError

LISTED: Final = 64
"""Roles, and entitlements, of one token."""
TEXT: Final = 200
"""Characters of a value that is taken over."""
BY: Final = "game_login"


@dataclass(frozen=True, slots=True)
class Names:
    """Which claims are what; "" for none."""

    account: str
    name: str
    tag: str
    roles: str
    entitlements: str


@dataclass(frozen=True, slots=True)
class Player:
    """Whose token it is, for sessions: `issued` is 0 where nothing says when it was made."""

    local: str
    issuer: str
    token_id: str
    issued: float
    expires: float
    name: str = ""
    roles: tuple[str, ...] = ()
    entitlements: tuple[str, ...] = ()

    @property
    def facts(self) -> dict[str, Any]:
        """What other plugins find in `session.facts`: all that JSON can hold."""
        return {
            "by": BY,
            "issuer": self.issuer,
            "token_id": self.token_id,
            "issued": self.issued,
            "name": self.name,
            "roles": [*self.roles],
            "entitlements": [*self.entitlements],
        }


def player_of(claims: Mapping[str, Any], names: Names, domain: str, issued: float, expires: float) -> Player:
    """By claims that were checked; SaslError for those that are nobody's on this domain."""
    token_id = claims.get("jti", "")
    if not isinstance(token_id, str) or len(token_id) > TEXT or not token_id.isprintable():
        raise SaslError("not-authorized", "Its jti is none.")
    name, tag = _text(claims, names.name), _text(claims, names.tag)
    return Player(
        _local(claims.get(names.account), domain),
        claims["iss"],
        token_id,
        issued,
        expires,
        f"{name}#{tag}" if name and tag else name,
        _texts(claims, names.roles),
        _texts(claims, names.entitlements),
    )


def _local(value: Any, domain: str) -> str:
    """The local part of the account that a claim names: alone, or as the whole address."""
    if not isinstance(value, str) or not value or len(value) > 1023:
        raise SaslError("not-authorized", "It names no account.")
    local, at, host = value.rpartition("@") if "@" in value else (value, "", "")
    try:
        jid = Jid.of(local, domain)
        is_here = not at or Jid.parse(host).full == domain
    except JidError:
        raise SaslError("not-authorized", "It names no account.") from None
    if not jid.local or not is_here:
        raise SaslError("not-authorized", "It is for no account of this domain.")
    return jid.local


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name, "") if name else ""
    return value if isinstance(value, str) and len(value) <= TEXT and value.isprintable() else ""


def _texts(claims: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A list of texts, or one with spaces between (RFC 8693 4.2); what is none is left out."""
    value = claims.get(name, ()) if name else ()
    given = value.split() if isinstance(value, str) else value if isinstance(value, list) else ()
    found = [one for one in given if isinstance(one, str) and one and len(one) <= TEXT and one.isprintable()]
    return tuple(dict.fromkeys(found))[:LISTED]
