"""The text of an element, with a tree and without."""

import pytest

from xmppd.xml.stanza import Stanza


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"<auth mechanism='X'>abc=</auth>", "abc="),
        (b"<auth mechanism='a>b'>abc</auth >", "abc"),
        (b"<auth/>", ""),
        (b"<auth mechanism='X' />", ""),
        (b"<auth></auth>", ""),
        ("<auth>é</auth>".encode(), "é"),
        (b"<auth>a&amp;b</auth>", "a&b"),
        (b"<auth>a\r\nb</auth>", "a\nb"),
        (b"<auth><![CDATA[a]]></auth>", "a"),
        (b"<auth>a<b/>c</auth>", "a"),
    ],
)
def test_the_text_is_that_of_the_tree(raw: bytes, text: str) -> None:
    stanza = Stanza("auth", {}, raw)
    assert stanza.text == text
    assert (stanza.xml.text or "") == text


@pytest.mark.parametrize("start", [b"<message >", b"<message id='1' >", b"<message\t>"])
def test_text_that_reads_like_attributes_is_text(start: bytes) -> None:
    raw = start + b"to=\"LOCALHOST\" type='t'><body/></message>"
    stanza = Stanza("message", {}, raw)
    assert raw[: stanza.tail + 1] == start
