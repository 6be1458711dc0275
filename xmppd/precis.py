"""Names and passwords by PRECIS (RFC 8264, 8265): what the library says, in bounded time for any text.

The library looks each character up again and again, and goes through the whole text for some characters: a
kilobyte costs it up to 150 ms. Here a character is judged once and remembered, and a rule about the whole
text is asked once. And nothing is normalised that has a longer run of combining marks than any language: to
sort those takes time that is quadratic in their number.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from precis_i18n import get_profile
from precis_i18n.bidi import bidi_rule
from precis_i18n.context import context_rule_error
from precis_i18n.derived import CONTEXTJ, CONTEXTO, FREE_PVAL, PVALID, derived_property
from precis_i18n.profile import Profile

MAX_SHRINKAGE = 4
"""What is prepared has at least a quarter of the bytes it had: width, case, spaces and NFC save no more."""

MAX_MARKS = 30
"""So many combining marks may follow one another (UAX 15, Stream-Safe Text Format)."""

_MARKS = frozenset(("Mn", "Mc", "Me", "Cf"))
_FILLERS = "\u115f\u1160"
_IN_CONTEXT = (CONTEXTJ, CONTEXTO)
_RIGHT_TO_LEFT = frozenset(("R", "AL", "AN"))


class PrecisError(ValueError):
    """The text cannot be prepared by this profile."""


def refuse_piles(text: str) -> None:
    """PrecisError if more than MAX_MARKS combining marks follow one another, or would once mapped: what is
    decomposed may begin with one, and format characters between them may be taken out (UTS 46).
    """
    if text.isascii():
        return
    marks = set(filter(_is_mark, set(text)))
    if not marks:
        return
    run = 0
    for char in text:
        run = run + 1 if char in marks else 0
        if run > MAX_MARKS:
            raise PrecisError(f"more than {MAX_MARKS} combining marks follow one another")


class _Preparation:
    """One profile, and what its class of strings says of single characters."""

    __slots__ = ("_allowed", "_profile", "_ucd")

    def __init__(self, name: str, allowed: tuple[str, ...]) -> None:
        self._profile: Profile = get_profile(name)
        self._ucd = self._profile.base.ucd
        self._allowed = allowed

    def enforce(self, text: str, limit: int) -> str:
        """The text prepared; PrecisError if it cannot be, is empty, or has more than `limit` bytes then."""
        refuse_piles(_bounded(text, MAX_SHRINKAGE * limit))
        prepared = self._map(text)
        if not prepared or self._map(prepared) != prepared:
            raise PrecisError("it is empty, or changes again and again")
        self._check(prepared)
        if self._profile.name.startswith("Username"):
            self._check_direction(prepared)
        return _bounded(prepared, limit)

    def _map(self, text: str) -> str:
        profile = self._profile
        text = profile.case_mapping_rule(profile.additional_mapping_rule(profile.width_mapping_rule(text)))
        return unicodedata.normalize("NFC", text)

    def _check(self, text: str) -> None:
        """RFC 8264 4: the class of strings."""
        for char in set(text):
            kind = _kind(char)
            if kind in self._allowed:
                continue
            if kind not in _IN_CONTEXT or any(
                context_rule_error(text, at, self._ucd) for at in _places(text, char)
            ):
                raise PrecisError("a character is not allowed there")

    def _check_direction(self, text: str) -> None:
        """RFC 8265 3.3.2: the Bidi Rule."""
        if not _RIGHT_TO_LEFT.isdisjoint(map(_direction, set(text))) and not bidi_rule(text, self._ucd):
            raise PrecisError("it breaks the Bidi Rule")


@lru_cache(maxsize=4096)
def _kind(char: str) -> str:
    kind: str = derived_property(ord(char), _USERNAME.base.ucd)[0]
    return kind


@lru_cache(maxsize=4096)
def _is_mark(char: str) -> bool:
    first = unicodedata.normalize("NFKD", char)[0]
    return unicodedata.category(first) in _MARKS or first in _FILLERS


@lru_cache(maxsize=4096)
def _direction(char: str) -> str:
    return unicodedata.bidirectional(char)


def _places(text: str, char: str) -> Iterable[int]:
    """Where a character's rule has to be asked: a rule that is about all of the text, once."""
    code = ord(char)
    if 0x0660 <= code <= 0x0669 or 0x06F0 <= code <= 0x06F9 or code == 0x30FB:
        return (text.index(char),)
    return (at for at, found in enumerate(text) if found == char)


def _bounded(text: str, size: int) -> str:
    """The text itself; PrecisError if it has more bytes, or none in UTF-8."""
    try:
        if len(text) <= size and len(text.encode()) <= size:
            return text
    except UnicodeEncodeError:
        raise PrecisError("it is no text") from None
    raise PrecisError(f"it is longer than {size} bytes")


_USERNAME = get_profile("UsernameCaseMapped")

username = _Preparation("UsernameCaseMapped", (PVALID,)).enforce
"""UsernameCaseMapped (RFC 8265 3.3)."""
opaque = _Preparation("OpaqueString", (PVALID, FREE_PVAL)).enforce
"""OpaqueString (RFC 8265 4.2)."""
