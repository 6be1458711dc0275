"""What the server writes: every tree survives the way out and in again, and no text breaks out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from xml.etree.ElementTree import Element, XMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmppd import ns
from xmppd.errors import SaslError, StanzaError, StreamError
from xmppd.xml import build
from xmppd.xml.scan import Engine, Limits, Scanner
from xmppd.xml.stanza import LANG, Stanza

EVIL = "</body><x a='1' b=\"2\">]]>&amp;\r\n\t é\U0001f600"


def read(data: bytes, default: str = ns.CLIENT) -> Element:
    """The tree of bytes that stand where `default` is the default namespace."""
    parser = XMLParser()
    for piece in (f"<x xmlns='{default}' xmlns:stream='{ns.STREAM}'>".encode(), data, b"</x>"):
        parser.feed(piece)
    (tree,) = parser.close()
    return tree


def scanned(raw: bytes) -> Stanza:
    """The stanza that a client's bytes make."""
    scanner = Scanner(Engine(), Limits())
    scanner.stepwise = False
    header = f"<stream:stream xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAM}' xmlns:h='urn:h'>".encode()
    _, stanza = scanner.feed(header + raw)
    assert isinstance(stanza, Stanza)
    return stanza


# --- escaping


@pytest.mark.parametrize(
    "text", ["", "plain", EVIL, "'", '"', "]]>", "\t\n\r", " a ", "&lt;", "\u0085\u2028"]
)
def test_escaping_is_undone_by_a_parser(text: str) -> None:
    tree = read(f"<a b='{build.escape_attribute(text)}'>{build.escape_text(text)}</a>".encode())
    assert tree.get("b") == text
    assert (tree.text or "") == text


def test_quotes_need_no_escape_in_text() -> None:
    assert build.escape_text("'\"\n\t") == "'\"\n\t"


@pytest.mark.parametrize("code", [0, 1, 8, 0xB, 0x1F, 0xD800, 0xDFFF, 0xFFFE, 0xFFFF])
def test_characters_that_xml_has_no_place_for_are_replaced(code: int) -> None:
    char = chr(code)
    tree = read(f"<a b='{build.escape_attribute(f'x{char}y')}'>{build.escape_text(f'x{char}y')}</a>".encode())
    assert tree.get("b") == tree.text == "x\ufffdy"


# --- serialize

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("\t\n\r<>&'\"]"), max_size=8)
NAMES = st.sampled_from(["a", "b", "message", "n0", "é", "x-y.z_1"])
SPACES = st.sampled_from(["", ns.CLIENT, ns.XML, "urn:a", "urn:b&<>'\"", "urn:stream"])


def clark(space: str, name: str) -> str:
    return f"{{{space}}}{name}" if space else name


ATTRIBUTES = st.dictionaries(st.builds(clark, SPACES, NAMES), TEXT, max_size=4)


@st.composite
def trees(draw: st.DrawFn, depth: int = 3) -> Element:
    tree = Element(clark(draw(SPACES), draw(NAMES)), draw(ATTRIBUTES))
    tree.text = draw(st.none() | TEXT)
    for _ in range(draw(st.integers(0, 3)) if depth else 0):
        child = draw(trees(depth=depth - 1))
        child.tail = draw(st.none() | TEXT)
        tree.append(child)
    return tree


@given(trees(), st.sampled_from([ns.CLIENT, "urn:a", "urn:other"]))
def test_serialized_trees_come_back(tree_of: Callable[[Element], Any], tree: Element, default: str) -> None:
    assert tree_of(read(build.serialize(tree, default), default)) == tree_of(tree)


@given(trees())
def test_the_scanner_takes_what_is_serialized(tree_of: Callable[[Element], Any], tree: Element) -> None:
    tree.tag = "{jabber:client}iq"
    raw = build.serialize(tree)
    stanza = scanned(raw)
    assert tree_of(stanza.xml) == tree_of(tree)
    assert stanza.kind == "iq"
    made = build.stanza_of(tree)
    assert (made.kind, made.attrs, made.payload, made.raw) == ("iq", stanza.attrs, stanza.payload, raw)
    assert made.tail == Stanza("iq", made.attrs, raw).tail


def test_namespaces_are_declared_once() -> None:
    tree = build.element("{urn:a}a", None, build.element("{urn:a}b"), build.element("{jabber:client}c"))
    assert build.serialize(tree) == b"<a xmlns='urn:a'><b/><c xmlns='jabber:client'/></a>"
    assert build.serialize(tree, "urn:a") == b"<a><b/><c xmlns='jabber:client'/></a>"
    assert build.serialize(Element("a")) == b"<a xmlns=''/>"


def test_the_xml_namespace_is_its_prefix() -> None:
    tree = build.element(f"{{{ns.XML}}}a", {f"{{{ns.XML}}}lang": "de"}, build.element("{jabber:client}b"))
    assert build.serialize(tree) == b"<xml:a xml:lang='de'><b/></xml:a>"


def test_element_puts_text_where_it_belongs() -> None:
    tree = build.element("a", {"b": "c"}, "x", None, "y", build.element("d"), "z", "!", build.element("e"))
    assert build.serialize(tree, "") == b"<a b='c'>xy<d/>z!<e/></a>"


# --- stanzas


@pytest.mark.parametrize(
    "raw",
    [
        b"<message/>",
        b"<message to='a' from='b' />",
        b"<message xml:lang='de' to='a>b/>'><body>x > y</body></message>",
        b"<message xmlns='jabber:client' id=\"'\"><message to='z'/></message>",
        b"<message xmlns:x='urn:x' x:to='1' to='2'><x:a/></message>",
        b"<message xmlns:n0='urn:x' n0:to='1' to='2'><n0:a n0:b=''/></message>",
        b"<message h:to='1'><h:a/></message>",
        b"<iq type='get' id='1'><q xmlns='urn:q'/></iq>",
    ],
)
def test_restamp_changes_the_start_tag_alone(tree_of: Callable[[Element], Any], raw: bytes) -> None:
    stanza = scanned(raw)
    data = build.restamp(stanza, from_="me@here/'<&", to=None, lang="fr")
    again = scanned(data)
    assert again.raw == data
    assert again.attrs == {k: v for k, v in stanza.attrs.items() if k != "to"} | {
        "from": "me@here/'<&",
        LANG: "fr",
    }
    assert again.kind == stanza.kind
    assert tree_of(again.xml)[2] == tree_of(stanza.xml)[2]
    assert data[len(data) - len(stanza.raw) + stanza.tail :] == again.raw[again.tail :]


def test_iq_result() -> None:
    request = scanned(b"<iq type='get' id='&lt;1&apos;' to='a@b'><q xmlns='urn:q'/></iq>")
    tree = read(build.iq_result(request, "c@d/e", build.element("{urn:q}q", None, EVIL)))
    assert (tree.tag, tree.attrib) == (
        "{jabber:client}iq",
        {"type": "result", "id": "<1'", "from": "a@b", "to": "c@d/e"},
    )
    assert (tree[0].tag, tree[0].text) == ("{urn:q}q", EVIL)
    assert build.iq_result(scanned(b"<iq type='set' id='1'/>"), "x") == b"<iq type='result' id='1' to='x'/>"
    assert (
        build.iq_result(scanned(b"<iq type='set'/>"), "x", b"<q/>") == b"<iq type='result' to='x'><q/></iq>"
    )


def test_error_reply() -> None:
    request = scanned(b"<message id='1' to='a@b'><body>x</body></message>")
    tree = read(build.error_reply(request, "c@d", StanzaError("item-not-found", EVIL)))
    assert (tree.tag, tree.attrib) == (
        "{jabber:client}message",
        {"type": "error", "id": "1", "from": "a@b", "to": "c@d"},
    )
    (error,) = tree
    assert (error.tag, error.attrib) == ("{jabber:client}error", {"type": "cancel"})
    assert [child.tag for child in error] == [
        f"{{{ns.STANZA_ERRORS}}}{name}" for name in ("item-not-found", "text")
    ]
    assert error[1].text == EVIL


def test_stream_error_and_sasl_failure() -> None:
    tree = read(build.stream_error(StreamError("policy-violation", EVIL)))
    assert tree.tag == f"{{{ns.STREAM}}}error"
    assert [child.tag for child in tree] == [
        f"{{{ns.STREAM_ERRORS}}}{name}" for name in ("policy-violation", "text")
    ]
    assert tree[1].text == EVIL
    tree = read(build.sasl_failure(SaslError("not-authorized", EVIL)))
    assert [tree.tag, *(child.tag for child in tree)] == [
        f"{{{ns.SASL}}}{name}" for name in ("failure", "not-authorized", "text")
    ]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"<message/>", b"<message><c/></message>"),
        (b"<message a='/>' />", b"<message a='/>' ><c/></message>"),
        (b"<message><a/></message>", b"<message><a/><c/></message>"),
        (b"<message>x</message >", b"<message>x<c/></message>"),
        (b"<message><message/></message>", b"<message><message/><c/></message>"),
    ],
)
def test_insert_child(raw: bytes, expected: bytes) -> None:
    assert build.insert_child(raw, "message", b"<c/>") == expected
    assert build.insert_child(raw[8:], "message", b"<c/>") == expected[8:]


def test_a_condition_of_one_s_own_may_say_more() -> None:
    retry = build.element("{urn:x}retry", {"seconds": "7"})
    for detail, seconds in ((retry, "7"), ("{urn:x}retry", None)):
        error = read(build.stanza_error(StanzaError("policy-violation", detail=detail)))
        found = error.find("{urn:x}retry")
        assert found is not None
        assert found.get("seconds") == seconds
    assert len(read(build.stanza_error(StanzaError("conflict")))) == 1
