"""SASLprep by the examples of RFC 4013 3, and what else passwords of other servers hold."""

import pytest

from xmppd.precis import PrecisError
from xmppd.saslprep import saslprep

LIMIT = 1023


@pytest.mark.parametrize(
    ("typed", "prepared"),
    [
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        ("\ufb01sh-\u2168-\u00aa", "fish-IX-a"),
        ("a\u00a0b\u3000c", "a b c"),
        ("cafe\u0301", "caf\u00e9"),
        ("soft\u00adhyphen", "softhyphen"),
        ("\uff21\uff22", "AB"),
        ("\u0627\u0628", "\u0627\u0628"),
        ("pw-\U0001f600", "pw-\U0001f600"),
        ("two  spaces", "two  spaces"),
    ],
)
def test_what_is_prepared(typed: str, prepared: str) -> None:
    assert saslprep(typed, LIMIT) == prepared


@pytest.mark.parametrize(
    "typed",
    ["", "\u0007", "\u00ad", "\u0627\u0031", "\u0627b", "\ue000", "\ufffd", "x" * 1024, "é" * 512, "a\u202e"],
)
def test_what_cannot_be_prepared(typed: str) -> None:
    with pytest.raises(PrecisError):
        saslprep(typed, LIMIT)


@pytest.mark.parametrize("typed", ["a" + "\u0315\u0300" * 200, "\ufdfa" * 341, "\ud800"])
def test_what_would_cost_too_much_is_refused(typed: str) -> None:
    with pytest.raises(PrecisError):
        saslprep(typed, LIMIT)
