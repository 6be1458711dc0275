"""Tokens that others issue (JWT, RFC 7519), checked by their keys (RFC 8725). Loaded where there are any."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from xmppd.access.callers import MOST_SCOPES, Known, is_scope
from xmppd.keysets import key_set
from xmppd.parts.http import HttpError
from xmppd.parts.keysets import KeySet, KeysUnavailable, TokenRefused
from xmppd.stream.lru import Lru

REMEMBERED: Final = 1_000
"""Tokens that were good, so that their signatures are not computed again."""
LONGEST_SUBJECT: Final = 200
SECONDS: Final = 5.0
"""How long a server of keys may take."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who issues tokens for whom. `leeway`: seconds by which clocks may differ; `algorithms`: no token
    chooses another one. `keys` as texts, and those at a `url`, which may be in `allowed` networks and has a
    certificate by the authorities of `ca_file`.
    """

    name: str
    audience: str
    leeway: float
    algorithms: tuple[str, ...]
    keys: tuple[str, ...]
    url: str = ""
    allowed: tuple[str, ...] = ()
    ca_file: str = ""


def issuer_of(
    name: str,
    audience: str,
    leeway: float,
    algorithms: Sequence[str],
    keys: Sequence[str],
    files: Sequence[Path],
    url: str,
    allowed: Sequence[str],
    ca_file: str,
) -> Issuer:
    """One with its keys, as texts and in files; ValueError, OSError."""
    texts = (*keys, *(file.read_text(encoding="utf-8").strip() for file in files))
    found = Issuer(name, audience, leeway, tuple(algorithms), texts, url, tuple(allowed), ca_file)
    key_set_of(found, time.time, time.monotonic)
    return found


def key_set_of(issuer: Issuer, now: Callable[[], float], clock: Callable[[], float]) -> KeySet:
    """The keys of one; ValueError where there can be none."""
    return key_set(
        issuer.algorithms, issuer.keys, issuer.url, issuer.allowed, SECONDS, issuer.ca_file, now, clock
    )


class Jwts:
    """The tokens of some issuers, with the keys of each; see `xmppd.access.callers.Source`."""

    def __init__(self, issuers: Sequence[tuple[Issuer, KeySet]], now: Callable[[], float]) -> None:
        self._issuers = issuers
        self._now = now
        self._good: Lru[bytes, tuple[Known, float, KeySet, int]] = Lru(REMEMBERED)

    def who(self, secret: str, digest: bytes) -> Known | Awaitable[Known | None] | None:
        """Who has this token, if it holds now; HttpError 503 where the keys to tell that cannot be had."""
        if secret.count(".") != 2:
            return None
        good = self._good.get(digest)
        if good is not None:
            found, end, keys, version = good
            if keys.is_current(version):
                return found if self._now() < end else None
        return self._look(secret, digest)

    async def _look(self, secret: str, digest: bytes) -> Known | None:
        for issuer, keys in self._issuers:
            try:
                said = await keys.claims(
                    secret, issuer=issuer.name, audience=issuer.audience, leeway=issuer.leeway
                )
            except TokenRefused:
                continue
            except KeysUnavailable as error:
                headers = {"Retry-After": "5"}
                raise HttpError(503, f"{error}.", headers=headers, rule="keys-unavailable") from None
            if (found := _known(issuer, said)) is not None:
                end = float(said["exp"]) + issuer.leeway
                self._good.put(digest, (found, end, keys, keys.version))
            return found
        return None


def _known(issuer: Issuer, claims: Mapping[str, Any]) -> Known | None:
    subject = claims["sub"]
    if not isinstance(subject, str) or not 0 < len(subject) <= LONGEST_SUBJECT or not subject.isprintable():
        return None
    name = f"{issuer.name}#{subject}"
    return Known(name, _scopes(claims.get("scope", "")), f"jwt:{name}")


def _scopes(value: Any) -> frozenset[str]:
    """RFC 8693 4.2, or a list; what has no form of ours is left out."""
    texts = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    found = [text for text in texts if isinstance(text, str) and is_scope(text)]
    return frozenset(found[:MOST_SCOPES])
