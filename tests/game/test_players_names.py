"""What can be a name, for any text at all."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis.strategies import characters, one_of, text

from plugins.game.players.names import BadName, Bounds, Name, checked, keys_of, read

BOUNDS = Bounds()
LIKELY = text(characters(categories=("L", "M", "N", "P", "Zs")), max_size=20)


def name_of(given_text: str) -> Name | None:
    try:
        return checked(given_text, BOUNDS)
    except BadName:
        return None


@given(one_of(text(), LIKELY, LIKELY.map(lambda it: f"{it}#EUW")))
def test_a_name_is_in_normal_form_and_its_own(given_text: str) -> None:
    name = name_of(given_text)
    if name is None:
        return
    again = checked(str(name), BOUNDS)
    assert again == name == read(str(name))
    assert BOUNDS.least <= len(name.name) <= BOUNDS.most
    assert 1 <= len(name.keys) <= 2
    assert not any(unicodedata.category(char)[0] in "CZ" and char != " " for char in str(name))


@given(LIKELY.map(lambda it: f"{it}#EUW"))
def test_case_tells_no_two_names_apart(given_text: str) -> None:
    name = name_of(given_text)
    if name is None:
        return
    for other in (str(name).lower(), str(name).upper(), str(name).casefold()):
        found = read(other)
        if found is not None and unicodedata.normalize("NFKC", other).casefold() == str(name).casefold():
            assert set(found.keys) & set(name.keys)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("rn", "m"),
        ("vv", "w"),
        ("I", "l"),
        ("0", "O"),
        ("\u0440", "p"),
        ("\u1d52", "o"),
        ("\u00e9", "e\u0301"),
    ],
)
def test_what_looks_alike(one: str, other: str) -> None:
    found = [set(keys_of(f"xx{it}xx#EUW")) for it in (one, other)]
    assert bool(found[0] & found[1]) == (one != "vv"), "two v are no w by UTS 39"
