"""UTF-8 with bytes of Latin-1 in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmppd.migrate.pie.mended import Mended


def mend(data: bytes, size: int) -> tuple[str, int, int]:
    mended = Mended()
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    out = b"".join(mended.feed(piece) for piece in pieces) + mended.feed(b"", True)
    return out.decode(), mended.count, mended.first


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("data", "text", "count", "first"),
    [
        (b"", "", 0, -1),
        ("jürgen 🐉".encode(), "jürgen 🐉", 0, -1),
        (b"b\xfccher ".__add__("bücher".encode()), "bücher bücher", 1, 1),
        (b"caf\xe9", "café", 1, 3),
        (b"\xe9t\xe9 \xc3\xa9", "été é", 2, 0),
        (b"\xf0\x9f\x90", "ð\x9f\x90", 3, 0),
    ],
)
def test_other_bytes_are_latin_1(data: bytes, text: str, count: int, first: int, size: int) -> None:
    assert mend(data, size) == (text, count, first)


@given(st.text(), st.integers(1, 7))
def test_utf_8_stays_as_it_is(text: str, size: int) -> None:
    assert mend(text.encode(), size) == (text, 0, -1)


@given(st.binary(), st.integers(1, 7))
def test_all_bytes_become_utf_8_however_they_are_cut(data: bytes, size: int) -> None:
    text, count, _ = mend(data, size)
    assert len(text.encode()) == len(data) + count
    assert mend(data, 1000)[0] == text
