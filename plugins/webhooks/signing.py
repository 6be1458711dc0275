"""Keys of a subscription, and what they sign."""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

PREFIX: Final = "whsec_"
VERSION: Final = "v1"


@dataclass(frozen=True, slots=True)
class Key:
    """One key; `until`: when it signs no more (seconds since the epoch, 0: it is the newest)."""

    id: str
    secret: str
    until: float = 0.0

    def __repr__(self) -> str:
        return f"Key({self.id!r})"


def new_key() -> Key:
    """A key of 256 random bits."""
    return Key(secrets.token_hex(4), PREFIX + secrets.token_urlsafe(32))


def keys_of(text: str) -> tuple[Key, ...]:
    """What `text_of` wrote."""
    return tuple(Key(**one) for one in json.loads(text))


def text_of(keys: Sequence[Key]) -> str:
    """The keys as they are kept."""
    return json.dumps([asdict(key) for key in keys])


def live(keys: Sequence[Key], now: float) -> list[Key]:
    """Those that sign now, the newest first."""
    return [key for key in keys if not key.until or key.until > now]


def signature(keys: Sequence[Key], timestamp: str, delivery: str, body: bytes) -> str:
    """The header: one signature by each key, of the timestamp, the delivery and the body."""
    signed = f"{timestamp}.{delivery}.".encode() + body
    return ",".join(f"{VERSION}={hmac.digest(key.secret.encode(), signed, 'sha256').hex()}" for key in keys)
