"""Tokens are given to expat whole, so that it reports at once what is complete, whichever version it is."""

from __future__ import annotations

import re
from xml.parsers import expat

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokens import Tokens

PIECES = (
    b"<a b='>' c=\"'/>\">",
    b"<a/>",
    b"</a>",
    b"text ]] > &amp; &#x0001F600; \r\n",
    "é€😀".encode(),
    b"<![CDATA[ </a> ]] ]]>",
    b" \t\r",
)


@given(st.lists(st.sampled_from(PIECES), max_size=8), st.data())
def test_every_piece_comes_out_once_it_is_whole(pieces: list[bytes], draw: st.DataObject) -> None:
    stream = b"".join(pieces)
    tokens, given_out, fed = Tokens(), b"", 0
    ends = [sum(map(len, pieces[: i + 1])) for i in range(len(pieces))]
    while fed < len(stream):
        size = draw.draw(st.integers(1, 20))
        given_out += tokens.whole(stream[fed : fed + size])
        fed = min(fed + size, len(stream))
        assert stream.startswith(given_out)
        whole = max(
            [end for piece, end in zip(pieces, ends, strict=True) if end <= fed and piece[-1:] == b">"],
            default=0,
        )
        assert len(given_out) >= whole


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9, 14, 23])
def test_expat_reports_each_element_with_its_last_byte(size: int) -> None:
    element = b"<message to='>' id=\"'\">&#x0001F600;<b/>\r<![CDATA[x]]></message>"
    stream = b"<s>" + element * 10
    ended: list[str] = []
    parser, tokens = expat.ParserCreate(), Tokens()
    parser.EndElementHandler = ended.append
    for at in range(0, len(stream), size):
        parser.Parse(tokens.whole(stream[at : at + size]), False)
        so_far = stream[: at + size]
        assert len(ended) == len(re.findall(rb"<b/>|</message>", so_far))


@pytest.mark.parametrize("wrong", [b"<a <", b"<a b='<", b"<!-", b"<?", b"<![cdata["])
def test_what_can_become_no_token_is_not_held_back(wrong: bytes) -> None:
    assert Tokens().whole(wrong) == wrong
    tokens = Tokens()
    assert b"".join(tokens.whole(wrong[i : i + 1]) for i in range(len(wrong))) == wrong


@pytest.mark.parametrize(
    "begun", [b"<", b"<a b='>", b"</a", b"<![CDA", b"<![CDATA[x]]", b"&am", b"]]", b"\r", b"\xe2\x82"]
)
def test_what_has_begun_is_held_back(begun: bytes) -> None:
    assert Tokens().whole(b"<a/>" + begun) == b"<a/>"
