"""SCRAM keys in all spellings in which servers keep them, decoded by what they hold and not by labels."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Final

from xmppd.migrate.record import Keys

HASHES: Final[Mapping[int, str]] = {20: "sha1", 28: "sha224", 32: "sha256", 48: "sha384", 64: "sha512"}
"""Bytes of a key -> hashlib's name of its hash."""

TEXT_SIZES: Final = frozenset(4 * ((size + 2) // 3) for size in HASHES)
"""Letters of a key in base64."""

MOST_ITERATIONS = 10_000_000
"""More cost a login seconds: nobody means that."""


def from_base64(text: str | bytes) -> bytes | None:
    """What base64 stands for; None where it is none."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def from_hex(text: str) -> bytes | None:
    """What hexadecimal digits stand for; None where these are none."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None


def keys_of(
    stored: bytes | None, server: bytes | None, salt: bytes | None, iterations: object
) -> tuple[str, Keys] | None:
    """The hash of these keys, by their length, and the keys; None for what nobody can log in with.

    Keys that are base64 text of keys still (ejabberd's piefxis) are decoded once more, and the salt with
    them. `iterations` may be a number or the text of one (`10000.0` too).
    """
    number = _number(iterations)
    if stored is None or server is None or salt is None or number is None:
        return None
    inner = (from_base64(stored), from_base64(server)) if len(stored) in TEXT_SIZES else (None, None)
    if inner[0] is not None and inner[1] is not None and len(inner[0]) in HASHES and stored.isascii():
        stored, server = inner[0], inner[1]
        salt = from_base64(salt)
    name = HASHES.get(len(stored))
    if name is None or len(server) != len(stored) or not salt:
        return None
    return name, Keys(salt, number, stored, server)


def _number(iterations: object) -> int | None:
    try:
        number = int(float(str(iterations)))
    except (ValueError, OverflowError):
        return None
    return number if 0 < number <= MOST_ITERATIONS else None
