"""Rosters as bytes: what comes back is what went in, and damage is noticed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmppd.core.roster.cache import Roster
from xmppd.core.roster.packed import FORMAT, pack, unpack
from xmppd.core.roster.shelf import BLOCK, EMPTY, Shelf
from xmppd.xml.roster import roster_item

CONTACT = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=20)
NAMES = st.lists(CONTACT, max_size=5, unique=True).map(lambda names: tuple(sorted(names)))
REQUESTS = st.dictionaries(CONTACT, st.binary(max_size=50), max_size=3)


def shelf_of(names: tuple[str, ...], length: int) -> Shelf:
    shelf = EMPTY
    for name in names:
        shelf = shelf.put(name, roster_item(name, "both", "x" * length))
    return shelf


@st.composite
def rosters(draw):
    followers = draw(NAMES)
    return Roster(
        "a@x",
        draw(st.integers(0, 2**50)),
        followers,
        followers if draw(st.booleans()) else draw(NAMES),
        tuple(sorted(draw(REQUESTS).items())),
        shelf_of(draw(NAMES), draw(st.integers(0, 3 * BLOCK))),
    )


@given(rosters())
def test_what_is_packed_is_unpacked(roster):
    packed = pack(roster)
    assert unpack("a@x", packed) == roster
    assert packed[:1] == FORMAT
    assert int(packed[1:17]) == roster.version, "where scripts look for it"


def test_followers_that_are_followed_are_kept_once():
    names = ("b@x", "c@x")
    roster = unpack("a@x", pack(Roster("a@x", 1, names, ("b@x", "c@x"))))
    assert roster is not None
    assert roster.following is roster.followers


@given(rosters(), st.data())
def test_damage_is_noticed(roster, data):
    packed = bytearray(pack(roster))
    place = data.draw(st.integers(17, len(packed) - 1))
    packed[place] ^= data.draw(st.integers(1, 255))
    assert unpack("a@x", bytes(packed)) is None


@given(rosters(), st.data())
def test_a_piece_is_not_a_roster(roster, data):
    packed = pack(roster)
    assert unpack("a@x", packed[: data.draw(st.integers(0, len(packed) - 1))]) is None
    assert unpack("a@x", packed + b"x") is None


@given(st.binary(max_size=100))
def test_anything_else_is_not_a_roster(data):
    assert unpack("a@x", data) is None


@pytest.mark.parametrize("form", [b"\x00", b"\x01", b"{"])
def test_another_format_is_not_read(form):
    assert unpack("a@x", form + pack(Roster("a@x", 1))[1:]) is None
