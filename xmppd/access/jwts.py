"""Tokens that others issue (JWT, RFC 7519), checked by their keys (RFC 8725). Loaded where there are any."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jwt
from jwt.exceptions import PyJWTError

from xmppd.access.callers import MOST_SCOPES, Known, is_scope
from xmppd.stream.lru import Lru

REMEMBERED: Final = 1_000
"""Tokens that were good, so that their signatures are not computed again."""
LONGEST_SUBJECT: Final = 200
SECRET_BYTES: Final = 32
"""What a key of HMAC has at least (RFC 7518 3.2)."""
REQUIRED: Final = ("exp", "aud", "iss", "sub")


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who issues tokens for whom. `keys` by algorithm: no token chooses another one. `leeway`: seconds by
    which clocks may differ.
    """

    name: str
    audience: str
    keys: Mapping[str, Sequence[Any]]
    leeway: float


def issuer_of(
    name: str,
    audience: str,
    keys: Sequence[str],
    files: Sequence[Path],
    algorithms: Sequence[str],
    leeway: float,
) -> Issuer:
    """One with its keys, as texts and in files; ValueError, OSError."""
    texts = [*keys, *(file.read_text(encoding="utf-8").strip() for file in files)]
    if not texts:
        raise ValueError("names no keys")
    found: dict[str, list[Any]] = {algorithm: [] for algorithm in algorithms}
    for number, text in enumerate(texts, 1):
        fitting = {
            algorithm: key for algorithm in algorithms if (key := _key_of(algorithm, text)) is not None
        }
        if not fitting:
            raise ValueError(f"key {number} is none for {', '.join(algorithms)}")
        for algorithm, key in fitting.items():
            found[algorithm].append(key)
    return Issuer(name, audience, found, leeway)


def _key_of(algorithm: str, text: str) -> Any | None:
    """A key as an algorithm takes it; None when it does not, or is a private one or too short."""
    if algorithm.startswith("HS"):
        if "-----BEGIN" in text or text.startswith(("ssh-", "ecdsa-")) or len(text.encode()) < SECRET_BYTES:
            return None
        return text.encode()
    if "PRIVATE KEY" in text:
        return None
    try:
        return jwt.get_algorithm_by_name(algorithm).prepare_key(text)
    except (PyJWTError, ValueError, TypeError):
        return None


class Jwts:
    """The tokens of some issuers; see `xmppd.access.callers.Source`."""

    def __init__(self, issuers: Sequence[Issuer], now: Callable[[], float]) -> None:
        self._issuers = issuers
        self._now = now
        self._good: Lru[bytes, tuple[Known, float]] = Lru(REMEMBERED)

    def who(self, secret: str, digest: bytes) -> Known | None:
        """Who has this token, if it holds now."""
        if secret.count(".") != 2:
            return None
        good = self._good.get(digest)
        if good is not None:
            known, end = good
            return known if self._now() < end else None
        for issuer in self._issuers:
            claims = self._claims(issuer, secret)
            if claims is not None:
                return self._known(issuer, claims, digest)
        return None

    @staticmethod
    def _claims(issuer: Issuer, secret: str) -> Mapping[str, Any] | None:
        """What a token of this issuer says, whose signature is right."""
        try:
            header = jwt.get_unverified_header(secret)
            algorithm = header.get("alg")
            if "crit" in header or not isinstance(algorithm, str):
                return None
            for key in issuer.keys.get(algorithm, ()):
                try:
                    # Its moments are looked at by our clock.
                    return jwt.decode(
                        secret,
                        key,
                        algorithms=[algorithm],
                        audience=issuer.audience,
                        issuer=issuer.name,
                        options={
                            "require": [*REQUIRED],
                            "verify_exp": False,
                            "verify_nbf": False,
                            "verify_iat": False,
                        },
                    )
                except jwt.InvalidSignatureError:
                    continue
        except (PyJWTError, ValueError, TypeError, RecursionError):
            return None
        return None

    def _known(self, issuer: Issuer, claims: Mapping[str, Any], digest: bytes) -> Known | None:
        now, subject = self._now(), claims["sub"]
        end, begin = _moment(claims["exp"]), _moment(claims.get("nbf", 0))
        if end is None or begin is None or now >= end + issuer.leeway or now < begin - issuer.leeway:
            return None
        if (
            not isinstance(subject, str)
            or not 0 < len(subject) <= LONGEST_SUBJECT
            or not subject.isprintable()
        ):
            return None
        name = f"{issuer.name}#{subject}"
        known = Known(name, _scopes(claims.get("scope", "")), f"jwt:{name}")
        self._good.put(digest, (known, end + issuer.leeway))
        return known


def _moment(value: Any) -> float | None:
    """Seconds since the epoch (NumericDate); None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _scopes(value: Any) -> frozenset[str]:
    """RFC 8693 4.2, or a list; what has no form of ours is left out."""
    texts = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    found = [text for text in texts if isinstance(text, str) and is_scope(text)]
    return frozenset(found[:MOST_SCOPES])
