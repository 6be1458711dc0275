"""SASLprep (RFC 4013): how other servers, and clients of SCRAM (RFC 5802 2.2), prepare a password."""

from __future__ import annotations

import stringprep
import unicodedata
from collections.abc import Callable
from functools import lru_cache

from xmppd.precis import PrecisError, refuse_piles

MOST_GROWTH = 4
"""What is prepared has at most so many times the bytes that it was allowed to have before."""

_PROHIBITED: tuple[Callable[[str], bool], ...] = (
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def saslprep(password: str, limit: int) -> str:
    """The password prepared; PrecisError if it cannot be, is empty, or has more than `limit` bytes.

    Code points that Unicode 3.2 does not know pass, as in a query (RFC 3454 7): not every server refuses
    them, and no key is made here that a client could not ask for.
    """
    try:
        is_long = len(password) > limit or len(password.encode()) > limit
    except UnicodeEncodeError:
        raise PrecisError("it is no text") from None
    if is_long:
        raise PrecisError(f"it is longer than {limit} bytes")
    refuse_piles(password)
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", "".join(map(_mapped, password)))
    if not prepared or len(prepared.encode()) > MOST_GROWTH * limit:
        raise PrecisError("nothing is left of it, or it grows too long")
    letters = set(prepared)
    if any(map(_is_prohibited, letters)):
        raise PrecisError("a character is not allowed there")
    _check_direction(prepared, letters)
    return prepared


def _check_direction(text: str, letters: set[str]) -> None:
    """RFC 3454 6."""
    if not any(map(stringprep.in_table_d1, letters)):
        return
    ends = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    if not ends or any(map(stringprep.in_table_d2, letters)):
        raise PrecisError("it mixes directions")


@lru_cache(maxsize=4096)
def _mapped(char: str) -> str:
    """RFC 4013 2.1."""
    if stringprep.in_table_c12(char):
        return " "
    return "" if stringprep.in_table_b1(char) else char


@lru_cache(maxsize=4096)
def _is_prohibited(char: str) -> bool:
    """RFC 4013 2.3; what it says of spaces is mapped before, or made by NFKC a plain one."""
    return any(holds(char) for holds in _PROHIBITED)
