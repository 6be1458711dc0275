"""The bounded way of PRECIS against the library, and the figure that its bound on the input rests on."""

from __future__ import annotations

import sys
import time
import unicodedata
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from precis_i18n import get_profile

from xmppd import jid, precis

PROFILES = {"UsernameCaseMapped": precis.username, "OpaqueString": precis.opaque}
ODD = (
    "aZ 0\u00e9\u0301\u0316\u0345\u03a3\u03c2\u0130\u1e9e\uff8a\uff9f\uff41\u3000\u00b7l"
    "\u0663\u06f3\u05d0\u0628\u200c\u200d\u094d\u30fb\u30a2\u0375\u03b3\u05f4\u05f3\u2163\u265a\u200b\u00ad\uac00"
    "\u1100\u212a\ud800\0"
)
TEXT = st.text(st.sampled_from(ODD) | st.characters(exclude_categories=()), max_size=30)


def enforced(profile: str, text: str) -> str | None:
    try:
        result: str = get_profile(profile).enforce(text)
    except ValueError:
        return None
    return result


@pytest.mark.parametrize("profile", PROFILES)
@given(text=TEXT)
def test_it_says_what_the_library_says(profile: str, text: str) -> None:
    try:
        found = PROFILES[profile](text, 1023)
    except precis.PrecisError:
        found = None
    assert found == enforced(profile, text)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_character_alone_and_beside_others(profile: str) -> None:
    for code in [*range(0x3200), *range(0xF900, 0x10000), *range(0x10000, 0x20000, 7)]:
        for text in (chr(code), f"l{chr(code)}l"):
            try:
                found = PROFILES[profile](text, 1023)
            except precis.PrecisError:
                found = None
            assert found == enforced(profile, text), hex(code)


def test_nothing_shrinks_to_less_than_a_quarter() -> None:
    """Every part of a decomposition has a price, the largest character that becomes that part alone. No
    character has more bytes than its parts cost, and no character that may come out costs more than four
    times its bytes.
    """
    mappings = [get_profile(name) for name in PROFILES]
    price: defaultdict[str, int] = defaultdict(int)
    composed: list[tuple[int, str]] = []
    characters = [chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c <= 0xDFFF]
    for char in characters:
        size = len(char.encode())
        for profile in mappings:
            mapped = profile.width_mapping_rule(char)
            mapped = profile.case_mapping_rule(profile.additional_mapping_rule(mapped))
            parts = unicodedata.normalize("NFD", mapped)
            if len(parts) > 1:
                composed.append((size, parts))
            else:
                price[parts] = max(price[parts], size)
    assert all(size <= sum(price[part] for part in parts) for size, parts in composed)
    for char in characters:
        if unicodedata.normalize("NFC", char) == char:
            cost = sum(price[part] for part in unicodedata.normalize("NFD", char))
            assert cost <= precis.MAX_SHRINKAGE * len(char.encode()), hex(ord(char))


@pytest.mark.parametrize("text", ["", "a" * 11, "é" * 6, "\ud800", "a" * 41, "\n"])
def test_what_is_refused(text: str) -> None:
    for prepare in PROFILES.values():
        with pytest.raises(precis.PrecisError):
            prepare(text, 10)


PILES = (
    "\u0301" * 1000 + "\u0338" * 1000,
    "\u0f73" * 1000,
    "\uff9e\u0301" * 600,
    "\u0301\u0338\u00ad" * 500,
    "\u0301\u0338\u115f" * 500,
    "\u0301\u0338\u3164" * 500,
)


@pytest.mark.parametrize("pile", PILES)
def test_a_pile_of_marks_is_refused_before_it_is_sorted(pile: str) -> None:
    for prepare in (*PROFILES.values(), lambda text, _: jid.Jid.of("", text)):
        with pytest.raises(ValueError):  # noqa: PT011 - whatever the kind of text calls it
            prepare("a" + pile, 4000)
        begin = time.thread_time()
        with pytest.raises(ValueError):  # noqa: PT011
            prepare("b" + pile, 4000)
        assert time.thread_time() - begin < 0.002


def test_as_many_marks_as_a_language_may_need_pass() -> None:
    marks = "\u0316" * precis.MAX_MARKS
    assert precis.opaque(f"a{marks}b{marks}", 1023) == f"a{marks}b{marks}"
    with pytest.raises(precis.PrecisError, match="combining marks"):
        precis.opaque(f"a{marks}\u0301", 1023)
