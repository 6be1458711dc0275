"""The forms in which a password may have been hashed: here by OpaqueString (RFC 8265 4.2), elsewhere by
SASLprep (RFC 4013), or as it was typed.
"""

from __future__ import annotations

from collections.abc import Iterator

from xmppd.precis import PrecisError
from xmppd.saslprep import saslprep
from xmppd.stream.scram import MAX_PASSWORD_BYTES, BadPassword, prepare_password


def other_forms(typed: str, prepared: str) -> Iterator[str]:
    """What else than `prepared` (by OpaqueString, "" where that refuses it) another server may have hashed:
    two at most, and none for plain ASCII.
    """
    if typed == prepared and typed.isascii():
        return
    compatible = _compatible(typed)
    if compatible not in ("", prepared):
        yield compatible
    if _is_hashable(typed) and typed not in (prepared, compatible):
        yield typed


def scram_form(typed: str) -> str:
    """The form of a password of another server that clients of SCRAM can be right with: SASLprep (RFC 5802
    2.2), else by OpaqueString, else as it is; BadPassword if it is empty, has a NUL, or is too long.
    """
    if typed.isascii() and typed.isprintable() and typed:
        return typed
    if compatible := _compatible(typed):
        return compatible
    try:
        return prepare_password(typed)
    except BadPassword:
        if not _is_hashable(typed):
            raise
    return typed


def _compatible(typed: str) -> str:
    """SASLprep of it, "" where that refuses it."""
    try:
        return saslprep(typed, MAX_PASSWORD_BYTES)
    except PrecisError:
        return ""


def _is_hashable(typed: str) -> bool:
    try:
        return 0 < len(typed.encode()) <= MAX_PASSWORD_BYTES and "\0" not in typed
    except UnicodeEncodeError:
        return False
