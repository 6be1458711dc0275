"""Skeletons by UTS 39."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis.strategies import text

from xmppd.confusables import skeleton


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("paypal", "p\u0430yp\u0430l"),  # Cyrillic
        ("scope", "\u0455\u0441\u043e\u0440\u0435"),
        ("corn", "com\u200b"),
        ("Alice", "A\uff4cice"),
        ("1", "l"),
        ("0", "O"),
        ("n\u00e9", "ne\u0301"),
        ("a", "\u2061a\ufe0f"),
    ],
)
def test_what_looks_alike_has_one_skeleton(one: str, other: str) -> None:
    assert skeleton(one) == skeleton(other)


@pytest.mark.parametrize(("one", "other"), [("alice", "bob"), ("a", "A"), ("cat", "cut"), ("", "x")])
def test_what_does_not_has_others(one: str, other: str) -> None:
    assert skeleton(one) != skeleton(other)


@given(text())
def test_a_skeleton_is_its_own(given_text: str) -> None:
    made = skeleton(given_text)
    assert skeleton(made) == made == unicodedata.normalize("NFD", made)
    assert skeleton(unicodedata.normalize("NFC", given_text)) == made
