"""Whether a token holds: by whom it was issued, for whom, how it is signed, and when."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from xmppd.plugin import KeySet, KeysUnavailable, SaslError, TokenRefused

from .config import IssuerConfig

if TYPE_CHECKING:
    from . import GameLogin

MOST_BYTES: Final = 8_192
"""Of a token."""


class Checker:
    """The keys of all issuers; ValueError, OSError for those that are none."""

    def __init__(self, plugin: GameLogin) -> None:
        self._plugin = plugin
        self._issuers = [(about, self._keys(about)) for about in plugin.config.issuers]

    def _keys(self, about: IssuerConfig) -> KeySet:
        config = self._plugin.config
        texts = [key.value for key in about.keys]
        texts += [file.read_text(encoding="utf-8").strip() for file in about.key_files]
        try:
            return self._plugin.server.key_set(
                about.algorithms,
                keys=texts,
                url=about.jwks_url,
                allowed=config.jwks_allowed,
                ca_file=config.jwks_ca_file,
            )
        except ValueError as error:
            raise ValueError(f"the issuer {about.issuer}: {error}") from None

    async def close(self) -> None:
        """Ask for no keys any more."""
        for _, keys in self._issuers:
            await keys.close()

    def serves(self, domain: str) -> bool:
        """Whether anybody issues tokens for accounts of a domain."""
        return any(not about.domains or domain in about.domains for about, _ in self._issuers)

    async def claims(self, token: str, domain: str) -> tuple[Mapping[str, Any], float, float]:
        """What a token says that holds for accounts of a domain, when it was issued (0: nobody knows) and
        when it ends; SaslError.
        """
        issuer = _said(token).get("iss")
        why = "it is of no issuer that is known"
        for about, keys in self._issuers:
            if about.issuer != issuer or (about.domains and domain not in about.domains):
                continue
            try:
                claims = await keys.claims(
                    token, issuer=about.issuer, audience=about.audience, leeway=about.leeway
                )
            except KeysUnavailable as error:
                self._plugin.log.warning("login-keys-unavailable", extra={"error": str(error)})
                raise SaslError("temporary-auth-failure", "Tokens cannot be checked now.") from None
            except TokenRefused as error:
                why = str(error)
                continue
            issued, expires = self._moments(claims, about.leeway)
            return claims, issued, expires
        self._plugin.log.info("login-token-refused", extra={"why": why})
        raise SaslError("not-authorized")

    def _moments(self, claims: Mapping[str, Any], leeway: float) -> tuple[float, float]:
        """When it was issued, and when it ends; SaslError for one that was made to outlive a revocation."""
        now, expires = self._plugin.now(), float(claims["exp"])
        given = claims.get("iat")
        if given is None:
            issued = 0.0
        elif isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
            raise SaslError("not-authorized", "Its iat is no moment.")
        else:
            issued = float(given)
        if issued > now + leeway:
            raise SaslError("not-authorized", "It was issued in the future.")
        if expires - (issued or now) > self._plugin.config.longest_hours * 3600.0 + leeway:
            raise SaslError("not-authorized", "It lasts too long.")
        return issued, expires


def _said(token: str) -> Mapping[str, Any]:
    """What a token says, whoever made it; SaslError for one that is none, or that says something twice, and
    so something else to others than to us (RFC 7519 4).
    """
    parts = token.split(".")
    try:
        if len(parts) != 3 or len(token) > MOST_BYTES or not token.isascii():
            raise ValueError("it has no such form")
        _, said = [_object(part) for part in parts[:2]]
    except (ValueError, binascii.Error, RecursionError):
        raise SaslError("not-authorized") from None
    return said


def _object(part: str) -> dict[str, Any]:
    data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    found = json.loads(data, object_pairs_hook=_each_once, parse_constant=_none)
    if not isinstance(found, dict):
        raise ValueError("it is no object")
    return found


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("it says something twice")
    return found


def _none(text: str) -> Any:
    raise ValueError(f"{text} is no number")
