"""XML made to be misread: scanner and reference parser have to agree on what it is, however it is cut.

Each hazard stands behind a stream header and in front of a stanza that has to come through if the hazard
does.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmppd.xml.scan import Engine
from xmppd.xml.stanza import unclark

CANARY = b"<message id='canary'><body>tweet</body></message>"

ACCEPTED: dict[str, bytes] = {
    "plain": b"<message to='a@b'><body>hi</body></message>",
    "empty": b"<presence/>",
    "empty with a blank": b"<presence />",
    "start and end tag with white space": b"<message\n to = 'a'\t><body\r\n>x</body\n></message >",
    "double quotes": b'<iq type="get" id="1"><q xmlns="urn:q"/></iq>',
    "bracket in attribute": b"<message to='a>b'><body a='>'>x</body></message>",
    "empty tag in attribute": b"<presence to='/>' from=\"'/>\"/>",
    "empty tag in attribute, then content": b"<message to='a/>b'><body>x</body></message>",
    "end tag look-alike in attribute": b'<message to="&lt;/message>"><body/></message>',
    "quote tricks": b"<presence x='\"' y=\"'\" z='\"/>'/>",
    "even quotes, empty tag inside": b"<presence x='\"' y=\"'\" z='\"/>\"'><a/></presence>",
    "empty, then end tag of itself in an attribute": b"<iq a='>'/><iq b='/>'></iq>",
    "equal signs": b"<message to='a=b=c'><body>=====</body></message>",
    "nested": b"<message><f xmlns='urn:f'><message><body>x</body></message></f><body>y</body></message>",
    "nested, empty": b"<message><message/></message>",
    "nested, self-closing and not": b"<iq><iq><iq/><iq></iq></iq></iq>",
    "name with the same beginning": b"<messages xmlns='urn:m'><message/></messages>",
    "child with the same beginning": b"<iq type='set' id='1'><iqs xmlns='urn:x'/></iq>",
    "same name in another namespace": b"<message xmlns='jabber:server' to='a'><body/></message>",
    "same name in no namespace": b"<message xmlns=''><body/></message>",
    "child in no namespace": b"<iq type='get' id='1'><query xmlns=''/></iq>",
    "own declaration of the default": b"<message xmlns='jabber:client'><body/></message>",
    "prefix for the content": b"<c:message xmlns:c='jabber:client' to='a'><c:body>p</c:body></c:message>",
    "prefix named like the stanza": b"<message:message xmlns:message='jabber:client' to='a'/>",
    "prefix named like the stanza, another name": b"<message:iq xmlns:message='jabber:client' to='a'/>",
    "prefix in the start tag for a child": b"<message xmlns:x='urn:x'><x:a><x:b x:c='d'/></x:a></message>",
    "prefix in a child": b"<message><x:a xmlns:x='urn:x' x:b='1' b='2'/></message>",
    "prefix of an attribute of the stanza": b"<message xmlns:x='urn:x' x:to='1' to='2'><body/></message>",
    "two prefixes for one namespace": b"<message xmlns:x='urn:x' xmlns:y='urn:x'><x:a y:b='1'/></message>",
    "prefix redeclared": b"<message><x:a xmlns:x='urn:1'><x:a xmlns:x='urn:2'/><x:a/></x:a></message>",
    "prefix of the header": b"<message><h:a h:b='c'><h:d/></h:a></message>",
    "prefix of the header on an attribute": b"<message h:b='c' to='x'/>",
    "prefix of the header on the stanza": b"<h:message><body/></h:message>",
    "prefix of the header redeclared": b"<message><h:a xmlns:h='urn:other'/><h:a/></message>",
    "stream prefix inside": b"<message><stream:error/></message>",
    "stream prefix": b"<stream:error><reset xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
    "default undeclared inside": b"<message><a xmlns='urn:a'><b xmlns=''><c/></b></a></message>",
    "xml:lang": b"<message xml:lang='de'><body xml:lang='en' xml:space='preserve'>x</body></message>",
    "element in the XML namespace": b"<message><xml:a><b/></xml:a></message>",
    "element in the XML namespace, slowly": b"<message><xml:a><b><![CDATA[x]]></b></xml:a><c/></message>",
    "CDATA": b"<message><body><![CDATA[<b>&amp;]]></body></message>",
    "CDATA with the end tag": b"<message><body><![CDATA[</body></message>]]></body></message>",
    "CDATA with brackets": b"<message><body><![CDATA[]]]]><![CDATA[>]]></body></message>",
    "CDATA, empty": b"<message><body><![CDATA[]]></body></message>",
    "CDATA with a comment": b"<message><body><![CDATA[<!-- <?x?> -->]]></body></message>",
    "CDATA with a carriage return": b"<message><body><![CDATA[a\r\nb\rc]]>&#13;</body></message>",
    "CDATA directly in the stanza": b"<message><![CDATA[ ]]><body/></message>",
    "exclamation, question": b"<message><body>really?! &lt;!-- no --&gt; &lt;?x?&gt;</body></message>",
    "markup look-alikes in text": b"<message><body>> /> ]] > -- '\" =</body></message>",
    "references": b"<message to='&#38;&quot;&#x3c;'><body>&apos;&#10;&#13;&#x20;&#128512;</body></message>",
    "white space in attributes": b"<message a='x\ty\nz\r\nw' b='&#9;&#10;&#13;'/>",
    "white space in attributes, slowly": b"<message a='x\ty&#9;'><h:a c='&#13;&apos;&quot;'/></message>",
    "carriage returns": b"<message><body>a\r\nb\rc</body></message>",
    "UTF-8 of two to four bytes": "<message to='é'><body>é€😀\ufffd\u0085\u2028</body></message>".encode(),
    "UTF-8 names": "<message><bödy ä='1'>x</bödy></message>".encode(),
    "UTF-8 name of the stanza": "<mëssage xmlns='urn:m'><x/></mëssage>".encode(),
    "name of the parser's root": "<é><é/></é>".encode(),
    "odd characters": "<message><body>\U0001fffe\U0010ffff\ue000\ufdd0\u007f</body></message>".encode(),
    "byte order mark inside": b"<message><body>\xef\xbb\xbfx</body></message>",
    "white space around": b" \r\n\t<message/>\n\n<presence/>\n",
    "names with all characters": b"<message><a.b-c_d9 e.f-g_h='1'/></message>",
    "one attribute, two namespaces": b"<iq><a xmlns:x='urn:x' xmlns:y='urn:y' x:c='1' y:c='2' c='3'/></iq>",
    "ampersand in a namespace": b"<message><a xmlns='urn:a&amp;&lt;b&gt;&apos;'/></message>",
    "ampersand in a namespace, slowly": b"<message><x:a xmlns:x='u&amp;&lt;&apos;'/><![CDATA[x]]></message>",
    "CDATA between ends of lines": b"<iq>a\r<![CDATA[\n]]>\nb\r<![CDATA[]]>\n<![CDATA[\r]]>\n</iq>",
    "CDATA in brackets": b"<message>]]<![CDATA[>]]><![CDATA[]]]]>><![CDATA[<![CDATA[]]></message>",
    "brackets around CDATA": b"<iq>]<![CDATA[]]]>><![CDATA[]]]>]><![CDATA[]]><![CDATA[]]]]>]<b/>></iq>",
    "CDATA that looks like references": b"<iq id='1'><a>&amp;<![CDATA[amp;&lt;&#65;]]>lt;</a></iq>",
    "CDATA beside a prefix": b"<message><h:a><![CDATA[&\r\n<]]>\r</h:a></message>",
    "bracket in a namespace": b"<message><x xmlns='a}jabber:client}message' b='c'>t<y/>u</x>v</message>",
    "bracket in a namespace of a prefix": b"<iq id='1'><p:x xmlns:p='}a{}' p:b='1' b='2'><p:y/></p:x></iq>",
    "bracket in the namespace of a stanza": b"<message xmlns='a}jabber:client'><body/></message>",
    "bracket in a namespace beside CDATA": b"<iq id='1'><x xmlns='{a}'><![CDATA[<]]><y xmlns='}'/></x></iq>",
    "bracket alone as namespace": b"<iq id='1'><x xmlns='}'/><y xmlns='{'/></iq>",
    "text that looks like a name of the parser": b"<message a='jabber:client}message'><x>{a}b</x></message>",
    "DOCTYPE as text": b"<message><body>&lt;!DOCTYPE x></body></message>",
    "attribute named like a declaration": b"<message xmlnsx='1' xml='2'/>",
    "long attribute": b"<message to='" + b"x" * 5000 + b"'/>",
    "sixty deep": b"<message>" + b"<a>" * 60 + b"</a>" * 60 + b"</message>",
    "many children": b"<message>" + b"<a b='c'/>" * 500 + b"</message>",
    "stanzas of every kind at once": b"<message/><presence></presence><iq id='1'/><r xmlns='urn:xmpp:sm:3'/>",
}

NOT_WELL_FORMED: dict[str, bytes] = {
    "wrong end tag": b"<message to='a'><body>x</message></body>",
    "wrong end tag of the stanza": b"<message></iq>",
    "end tag too much": b"<message/></message>",
    "end tag too much, bracket before": b"<message a='>'/></message>",
    "end tag of the parser's root": "<message a='>'/></é>".encode(),
    "end tag in another case": b"<message></Message>",
    "end tag with an attribute": b"<message></message a='b'>",
    "end tag with a prefix": b"<message></c:message>",
    "another prefix for the same namespace": b"<a:m xmlns:a='urn:a' xmlns:b='urn:a'></b:m>",
    "child not closed": b"<message><body>x</message>",
    "attribute twice": b"<message to='a' to='b'/>",
    "attribute, two prefixes": b"<message><a xmlns:x='urn:x' xmlns:y='urn:x' x:c='1' y:c='2'/></message>",
    "attribute without value": b"<message to/>",
    "attribute without quotes": b"<message to=a/>",
    "attributes without white space between": b"<message to='a'from='b'/>",
    "less-than sign in attribute": b"<message to='<'/>",
    "end tag in attribute": b"<message to='</message>'/>",
    "tag in tag": b"<message <body/></message>",
    "slash alone": b"<message / >x</message>",
    "blank before the name": b"< message/>",
    "blank after the slash": b"<message></ message>",
    "digit as name": b"<1/>",
    "minus as name": b"<-/>",
    "empty name": b"<></>",
    "colon as name": b"<message><:/></message>",
    "colon at the end of a name": b"<message><a: xmlns:a='b'/></message>",
    "two colons": b"<message><a:b:c xmlns:a='urn:a'/></message>",
    "bare ampersand": b"<message><body>a & b</body></message>",
    "bare ampersand in attribute": b"<message to='a&b'/>",
    "reference without a name": b"<message><body>&;</body></message>",
    "reference without digits": b"<message><body>&#;</body></message>",
    "reference without semicolon": b"<message><body>&amp</body></message>",
    "reference to U+0000": b"<message><body>&#0;</body></message>",
    "reference to U+0001": b"<message><body>&#1;</body></message>",
    "reference to a surrogate": b"<message><body>&#xD800;</body></message>",
    "reference above Unicode": b"<message><body>&#x110000;</body></message>",
    "end of CDATA in text": b"<message><body>]]></body></message>",
    "byte FF": b"<message><body>\xff\xfe</body></message>",
    "overlong less-than sign": b"<message><body>\xc0\xbcx</body></message>",
    "overlong slash": b"<message><body>\xe0\x80\xaf</body></message>",
    "overlong NUL": b"<message><body>\xc0\x80</body></message>",
    "surrogate in UTF-8": b"<message><body>\xed\xa0\x80</body></message>",
    "above Unicode in UTF-8": b"<message><body>\xf4\x90\x80\x80</body></message>",
    "sequence cut by a tag": b"<message><body>a\xe2</body></message>",
    "sequence cut by a quote": b"<message to='a\xc3'/>",
    "lone continuation byte": b"<message><body>\x80</body></message>",
    "bad UTF-8 in CDATA": b"<message><body><![CDATA[\xff]]></body></message>",
    "bad UTF-8 in a name": b"<message><b\xff/></message>",
    "reference cut by CDATA": b"<message>&am<![CDATA[p;]]></message>",
    "sequence cut by CDATA": b"<message>\xc3<![CDATA[\xa9]]></message>",
    "end of CDATA in text behind CDATA": b"<message><![CDATA[]]>]]></message>",
    "U+0001": b"<message><body>\x01</body></message>",
    "NUL": b"<message><body>\x00</body></message>",
    "NUL in attribute": b"<message to='\x00'/>",
    "control character in CDATA": b"<message><body><![CDATA[\x1b]]></body></message>",
    "form feed as white space": b"<message\x0cto='a'/>",
    "U+FFFF": "<message><body>\uffff</body></message>".encode(),
    "U+FFFE": "<message><body>\ufffe</body></message>".encode(),
    "name with a multiplication sign": "<message><a\u00d7/></message>".encode(),
    "prefix undeclared with nothing": b"<message><x:a xmlns:x=''/></message>",
    "prefix xmlns declared": b"<message xmlns:xmlns='urn:x'/>",
    "prefix xml on another namespace": b"<message xmlns:xml='urn:x'/>",
    "namespace of xml as default": b"<message xmlns='http://www.w3.org/XML/1998/namespace'/>",
    "namespace of xmlns on a prefix": b"<message xmlns:x='http://www.w3.org/2000/xmlns/'/>",
    "end of another stream": b"</stream>",
    "end of the stream with more": b"</stream:streams>",
    "end of the stream with an attribute": b"</stream:stream a='b'>",
}

OTHERWISE_REFUSED: dict[str, tuple[bytes, str]] = {
    "unbound prefix": (b"<message><foo:bar/></message>", "bad-namespace-prefix"),
    "unbound prefix on an attribute": (b"<message foo:bar='1'/>", "bad-namespace-prefix"),
    "unbound prefix on the stanza": (b"<foo:message/>", "bad-namespace-prefix"),
    "prefix of the stanza before": (b"<a xmlns:p='urn:p'/><message><p:a/></message>", "bad-namespace-prefix"),
    "prefix of the sibling before": (
        b"<message><a xmlns:p='urn:p'/><p:a/></message>",
        "bad-namespace-prefix",
    ),
    "comment between": (b"<!-- c -->", "restricted-xml"),
    "comment": (b"<message><body>a<!-- c -->b</body></message>", "restricted-xml"),
    "comment with the end tag": (b"<message><!-- </message> --></message>", "restricted-xml"),
    "comment without end": (b"<message><body>x</body><!-- </message>", "restricted-xml"),
    "processing instruction between": (b"<?php evil ?>", "restricted-xml"),
    "processing instruction": (b"<message><?php evil ?></message>", "restricted-xml"),
    "processing instruction with the end tag": (b"<message><?x </message>", "restricted-xml"),
    "XML declaration inside": (b"<?xml version='1.0'?>", "restricted-xml"),
    "DTD between": (b"<!DOCTYPE a [<!ENTITY b 'c'>]>", "restricted-xml"),
    "DTD inside": (b"<message><!DOCTYPE a [<!ENTITY b 'c'>]></message>", "restricted-xml"),
    "entity declaration inside": (b"<message><!ENTITY b 'c'></message>", "restricted-xml"),
    "CDATA between": (b"<![CDATA[ ]]>", "restricted-xml"),
    "CDATA misspelt": (b"<message><![cdata[x]]></message>", "restricted-xml"),
    "text between": (b"hello", "bad-format"),
    "reference between": (b"&#32;", "bad-format"),
    "byte order mark between": (b"\xef\xbb\xbf", "bad-format"),
    "NUL between": (b"\x00", "bad-format"),
    "bracket between": (b">", "bad-format"),
    "unknown entity": (b"<message><body>&nbsp;</body></message>", "restricted-xml"),
    "unknown entity in attribute": (b"<message to='&nbsp;'/>", "restricted-xml"),
    "unknown entity of an iq": (b"<iq type='get' id='1'><a b='&foo;'/></iq>", "restricted-xml"),
    "unknown entity in a namespace": (b"<message><a xmlns='&foo;'/></message>", "restricted-xml"),
    "unknown entity beside a prefix": (b"<message><h:a>&foo;</h:a></message>", "restricted-xml"),
    "unknown entity of many letters": (
        b"<presence><status>&a.b-c_d;</status></presence>",
        "restricted-xml",
    ),
    "predefined entity in capitals": (b"<message><body>&AMP;</body></message>", "restricted-xml"),
    "stream in the stream": (
        b"<stream:stream to='a' version='1.0'></stream:stream>",
        "unsupported-stanza-type",
    ),
    "stream in the stream, not closed": (b"<stream:stream to='a' version='1.0'>", "unsupported-stanza-type"),
}

REFUSED = {name: (raw, "not-well-formed") for name, raw in NOT_WELL_FORMED.items()} | OTHERWISE_REFUSED
ALL = [*ACCEPTED.values(), *(raw for raw, _ in REFUSED.values())]


def cuts(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(
    name: str, header: bytes, scan: Callable[..., Any], reference: Callable[[bytes], Any]
) -> None:
    data = header + ACCEPTED[name] + CANARY + b"</stream:stream>"
    expected = reference(data)
    assert expected.error is None
    assert expected.is_closed
    whole = scan(data)
    assert whole.error is None
    assert whole.trees == expected.trees
    assert whole.is_closed
    for size in (1, 7, 64):
        assert scan(cuts(data, size)).said == whole.said


@pytest.mark.parametrize("name", REFUSED)
def test_refused(
    name: str, header: bytes, scan: Callable[..., Any], reference: Callable[[bytes], Any]
) -> None:
    raw, condition = REFUSED[name]
    data = header + CANARY + raw + CANARY
    expected = reference(data)
    whole = scan(data)
    assert whole.error == condition
    if condition == "unsupported-stanza-type":
        expected.trees = expected.trees[:1]  # good XML, bad XMPP
    else:
        assert expected.error or expected.is_incomplete
    assert whole.trees == expected.trees
    assert whole.trees[0][1] == (("id", "canary"),)
    for size in (1, 7, 64):
        assert scan(cuts(data, size)).said == whole.said


def test_raw_bytes_need_nothing_but_the_default_namespace(header: bytes, scan: Callable[..., Any]) -> None:
    for name, raw in ACCEPTED.items():
        for stanza in scan(header + raw).stanzas:
            assert stanza.raw.startswith(f"<{stanza.kind}".encode()) or stanza.kind.startswith("{"), name
            again = scan(header.replace(b"xmlns:h", b"h") + stanza.raw)
            assert [(s.kind, s.attrs, s.payload, s.raw) for s in again.stanzas] == [
                (stanza.kind, stanza.attrs, stanza.payload, stanza.raw)
            ], name
            assert b":" not in stanza.raw[: stanza.tail].split()[0], name
            assert b"<!" not in stanza.raw, name
            assert stanza.raw[stanza.tail :].startswith((b">", b"/>")), name


def test_head_and_tree_say_the_same(header: bytes, scan: Callable[..., Any]) -> None:
    for raw in ACCEPTED.values():
        for stanza in scan(header + raw).stanzas:
            tree = stanza.xml
            assert stanza.attrs == {unclark(key): value for key, value in tree.items()}
            assert (stanza.type, stanza.to, stanza.id) == (tree.get("type"), tree.get("to"), tree.get("id"))
            if stanza.kind in ("message", "presence", "iq"):
                assert tree.tag == "{jabber:client}" + stanza.kind
            else:
                assert stanza.kind == (tree.tag if tree.tag.startswith("{") else "{}" + tree.tag)
                assert stanza.kind != "{jabber:client}message"
            if stanza.kind not in ("message", "presence"):
                assert stanza.payload == (tree[0].tag if len(tree) else "")


def test_one_stream_cannot_harm_another(header: bytes, scan: Callable[..., Any]) -> None:
    good = header + b"".join(ACCEPTED.values())
    expected = scan(good).said
    engine = Engine()
    for raw in ALL:
        for end in (len(raw), len(raw) // 2, len(raw) - 1):
            scan(header + raw[:end], engine=engine)
            assert scan(header + CANARY, engine=engine).said[1:] == scan(header + CANARY).said[1:]
    assert scan(good, engine=engine).said == expected


PIECES = [
    *(piece for raw in ALL if len(raw) < 300 for piece in raw.replace(b"<", b"\0<").split(b"\0") if piece)
]
TOKENS = [
    b"<",
    b">",
    b"/>",
    b"</",
    b"'",
    b'"',
    b"=",
    b" ",
    b"&",
    b"]]>",
    b"<![CDATA[",
    b"<!--",
    b"-->",
    b"<?",
    b"?>",
]
TOKENS += [
    b"\xff",
    b"\xc3",
    b"\x80",
    b"\0",
    b"\r",
    b" xmlns='",
    b" xmlns:a='",
    b"a:",
    b"h:",
    b"<message",
    b"</message>",
]
TOKENS += [
    b"</stream:stream>",
    b"<stream:stream>",
    b"<message/>",
    b"&#32;",
    b"&#0;",
    b"\xc3\xa9",
    b" id='1'",
    b"x",
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A few hazards in a row, with a few things done to them."""
    data = bytearray(
        b"".join(draw(st.lists(st.sampled_from([raw for raw in ALL if len(raw) < 300]), max_size=4)))
    )
    rng = random.Random(draw(st.integers(0, 2**32)))
    for _ in range(draw(st.integers(0, 4))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0:
                del data[at : at + rng.choice((1, 1, 2, 10))]
            case 1:
                data[at:at] = rng.choice(TOKENS)
            case 2:
                data[at:at] = rng.choice(PIECES)
            case 3:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case _:
                data[at:at] = data[at : at + 20]
    return bytes(data)


SHARED = Engine()


@given(mutated(), st.integers(1, 80))
def test_mutations(
    header: bytes, scan: Callable[..., Any], reference: Callable[[bytes], Any], data: bytes, size: int
) -> None:
    stream = header + data
    expected = reference(stream)
    found = scan(stream, engine=SHARED)
    assert scan(cuts(stream, size), engine=SHARED).said == found.said
    if found.error is None:
        assert found.trees == expected.trees
        assert found.is_closed == expected.is_closed
        assert expected.error is None or found.pending
    elif found.error in ("not-well-formed", "bad-namespace-prefix", "restricted-xml", "bad-format"):
        assert found.trees == expected.trees
        assert expected.error is not None or expected.is_incomplete
    else:
        assert found.error in ("unsupported-stanza-type", "policy-violation")
        assert found.trees == expected.trees[: len(found.trees)]
    assert scan(header + CANARY, engine=SHARED).trees == scan(header + CANARY).trees


@given(
    st.lists(st.sampled_from([*ACCEPTED.values(), b"\n", b" "]), max_size=8), st.lists(st.integers(1, 200))
)
def test_any_cutting_gives_the_same(
    header: bytes, scan: Callable[..., Any], stanzas: list[bytes], sizes: list[int]
) -> None:
    stream = rest = header + b"".join(stanzas) + b"</stream:stream >"
    chunks = []
    for size in sizes:
        chunks.append(rest[:size])
        rest = rest[size:]
    whole = scan(stream).said
    assert scan([*chunks, rest]).said == whole
    assert scan([*chunks, rest], stepwise=True).said == whole
