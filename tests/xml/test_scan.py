"""The scanner's own rules: headers, steps, restarts, bounds."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from xmppd.errors import StreamError
from xmppd.xml.scan import Engine, Event, Limits, Scanner, StreamClose, StreamOpen
from xmppd.xml.stanza import LANG

XMLNS = b"xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'"
PLAIN = b"<stream:stream " + XMLNS + b" to='localhost' version='1.0'>"
MESSAGE = b"<message to='a@b' type='chat' id='1'><body>hi</body></message>"

Scan = Callable[..., Any]


def opened(limits: Limits = Limits(), *, stepwise: bool = False) -> Scanner:
    """A scanner behind its header."""
    scanner = Scanner(Engine(), limits)
    assert [type(event) for event in scanner.feed(PLAIN)] == [StreamOpen]
    scanner.stepwise = stepwise
    return scanner


def conditions(events: list[Event]) -> list[str]:
    """The conditions of the errors that are all there is."""
    return [event.condition if isinstance(event, StreamError) else repr(event) for event in events]


# --- the header


def test_header_attributes(scan: Scan) -> None:
    attrs = b" to='localhost' from='a@localhost' version='1.0' xml:lang='de' a='&lt;&#9;'"
    opening = scan(b"<?xml version='1.0'?>\n<stream:stream " + XMLNS + attrs + b">").opening
    assert opening.attrs == {
        "to": "localhost",
        "from": "a@localhost",
        "version": "1.0",
        LANG: "de",
        "a": "<\t",
    }
    assert opening.ns == "jabber:client"


def test_one_header_of_many_clients_is_understood_once_whatever_comes_with_it() -> None:
    openings, limits = list[StreamOpen](), Limits()
    for behind in (b"", MESSAGE, b"<auth/>", b"<a b='>'"):
        [opening, *_] = Scanner(Engine(), limits).feed(PLAIN + behind)
        assert isinstance(opening, StreamOpen)
        openings.append(opening)
    assert all(opening is openings[0] for opening in openings)
    [opening] = Scanner(Engine(), Limits()).feed(PLAIN[:-1] + b" a='>'>")
    assert isinstance(opening, StreamOpen) and opening.attrs["a"] == ">"


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"<?xml version='1.0'?>",
        b'<?xml version="1.0" encoding="UTF-8"?>',
        b"<?xml version='1.0' encoding='utf-8' standalone='yes' ?>",
        b"<?xml\tversion = '1.0'\r\n?>\r\n ",
        b"\xef\xbb\xbf<?xml version='1.0'?>",
        b"\xef\xbb\xbf",
        b"\n \t",
    ],
)
def test_what_may_stand_before_the_header(scan: Scan, start: bytes) -> None:
    data = start + PLAIN + MESSAGE
    whole = scan(data)
    assert [type(event).__name__ for event in whole.events] == ["StreamOpen", "Stanza"]
    assert scan([data[i : i + 1] for i in range(len(data))]).said == whole.said


@pytest.mark.parametrize(
    ("data", "condition"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "not-well-formed"),
        (bytes(range(128, 256)), "not-well-formed"),
        (b"\x16\x03\x01\x02\x00", "not-well-formed"),
        (b"hello", "not-well-formed"),
        (b"</stream:stream>", "not-well-formed"),
        (b"<1", "not-well-formed"),
        (b"<stream:stream <", "not-well-formed"),
        (b"<stream:stream to=x>", "not-well-formed"),
        (b"<stream:stream " + XMLNS + b" to='a' to='b'>", "not-well-formed"),
        (b"<stream:stream " + XMLNS + b" to='&nbsp;'>", "restricted-xml"),
        (b"<stream:stream " + XMLNS + b" to='&nbsp'>", "not-well-formed"),
        (b"<stream:stream " + XMLNS + b" to='\xff'>", "not-well-formed"),
        ("<stream:stream to='a'>".encode("utf-16"), "unsupported-encoding"),
        ("<stream:stream to='a'>".encode("utf-16-le"), "unsupported-encoding"),
        ("<stream:stream to='a'>".encode("utf-16-be"), "unsupported-encoding"),
        (b"<?xml version='1.0' encoding='ISO-8859-1'?>" + PLAIN, "unsupported-encoding"),
        (b"<?xml version='1.0' encoding='UTF-16'?>" + PLAIN, "unsupported-encoding"),
        (b"<?xml version='1.1'?>" + PLAIN, "not-well-formed"),
        (b"<?xml encoding='UTF-8'?>" + PLAIN, "not-well-formed"),
        (b"<?xml version='1.0' standalone='maybe'?>" + PLAIN, "not-well-formed"),
        (b"<?xml version='1.0'?><?xml version='1.0'?>" + PLAIN, "restricted-xml"),
        (b"<?xml-stylesheet href='a'?>" + PLAIN, "restricted-xml"),
        (b"<?php evil ?>" + PLAIN, "restricted-xml"),
        (b"<?xml version='1.0'?><!-- hi -->" + PLAIN, "restricted-xml"),
        (b"<!DOCTYPE s [<!ENTITY a0 'lol'>]>" + PLAIN, "restricted-xml"),
        (b"<stream:stream to='a'>", "bad-namespace-prefix"),
        (b"<stream:stream xmlns='jabber:client' xmlns:stream='http://wrong.example/'>", "invalid-namespace"),
        (PLAIN.replace(b"jabber:client", b"jabber:evil"), "invalid-namespace"),
        (PLAIN.replace(b"jabber:client", b"jabber:server"), "invalid-namespace"),
        (PLAIN.replace(b"xmlns='jabber:client'", b""), "invalid-namespace"),
        (b"<message xmlns='jabber:client' to='localhost'>", "invalid-namespace"),
        (b"<stream xmlns='jabber:client'>", "invalid-namespace"),
        (b"<stream:features " + XMLNS + b">", "bad-format"),
        (b"<stream:stream " + XMLNS + b" to='" + b"a" * 100_000 + b"'>", "policy-violation"),
        (b"<stream:stream " + XMLNS + b" to='" + b"a" * 100_000, "policy-violation"),
        (b"<stream:stream " + XMLNS + b" xmlns:a='" + b"a" * 513 + b"'>", "policy-violation"),
        (b"<stream:stream " + XMLNS + b" a%d=''" * 65 % tuple(range(65)) + b">", "policy-violation"),
        (b"<stream:stream " + XMLNS + b" xmlns:a%d='x'" * 31 % tuple(range(31)) + b">", "policy-violation"),
        (b"<" + b"n" * 5000, "policy-violation"),
        (b"<?xml version='1.0'" + b" " * 5000, "policy-violation"),
    ],
)
def test_headers_that_are_refused(scan: Scan, data: bytes, condition: str) -> None:
    whole = scan(data)
    assert whole.said == [condition]
    assert scan([data[i : i + 1] for i in range(len(data))]).said == [condition]


def test_a_header_is_waited_for(scan: Scan) -> None:
    for end in range(len(PLAIN)):
        begun = scan(b"<?xml version='1.0'?>" + PLAIN[:end])
        assert (begun.said, begun.pending) == ([], 21 + end)


@pytest.mark.parametrize(
    ("head", "message", "end"),
    [
        (
            b"<s:stream xmlns='jabber:client' xmlns:s='http://etherx.jabber.org/streams'>",
            b"message",
            b"s:stream",
        ),
        (
            b"<stream xmlns='http://etherx.jabber.org/streams' xmlns:c='jabber:client'>",
            b"c:message",
            b"stream",
        ),
        (
            b"<s:stream xmlns:c='jabber:client' xmlns:s='http://etherx.jabber.org/streams'>",
            b"c:message",
            b"s:stream",
        ),
    ],
)
def test_other_prefixes(scan: Scan, head: bytes, message: bytes, end: bytes) -> None:
    stanza = b"<" + message + b" to='b'/>"
    whole = scan(head + stanza + b"</" + end + b">")
    assert [(s.kind, s.to, s.raw) for s in whole.stanzas] == [("message", "b", b"<message to='b'/>")]
    assert whole.is_closed
    assert scan(head + b"</stream:stream>").said[1:] == ["not-well-formed"]
    assert scan(head + b"<" + end + b">").said[1:] == ["unsupported-stanza-type"]


def test_without_a_default_namespace_a_plain_message_is_none_of_ours(scan: Scan) -> None:
    head = b"<s:stream xmlns:c='jabber:client' xmlns:s='http://etherx.jabber.org/streams'>"
    assert [s.kind for s in scan(head + b"<message to='b'/>").stanzas] == ["{}message"]


def test_an_empty_stream_is_opened_and_closed(scan: Scan) -> None:
    assert [type(event) for event in scan(PLAIN[:-1] + b"/>" + MESSAGE).events] == [StreamOpen, StreamClose]


# --- what is found


def test_kinds_and_payloads(scan: Scan) -> None:
    found = scan(
        PLAIN
        + b"<message type='chat' to='a' id='1'><body/></message>"
        + b"<presence/>"
        + b"<iq type='get' id='2'><q xmlns='urn:q'><x/></q></iq>"
        + b"<iq type='result' id='3'/>"
        + b"<r xmlns='urn:xmpp:sm:3'/>"
        + b"<auth xmlns='urn:sasl' mechanism='PLAIN'>AGE=</auth>"
        + b"<message xmlns='jabber:server'><a xmlns='urn:a'/></message>"
    ).stanzas
    assert [(s.kind, s.type, s.to, s.id, s.payload) for s in found] == [
        ("message", "chat", "a", "1", ""),
        ("presence", None, None, None, ""),
        ("iq", "get", None, "2", "{urn:q}q"),
        ("iq", "result", None, "3", ""),
        ("{urn:xmpp:sm:3}r", None, None, None, ""),
        ("{urn:sasl}auth", None, None, None, ""),
        ("{jabber:server}message", None, None, None, "{urn:a}a"),
    ]
    assert found[5].xml.text == "AGE="


def test_simple_stanzas_are_kept_as_they_came(scan: Scan) -> None:
    raw = (
        "<message  to='a>b' ><body>x &amp; é \U0001f600 > \"'</body>\n<x xmlns='urn:x'/></message >".encode()
    )
    assert [s.raw for s in scan(PLAIN + raw).stanzas] == [raw]
    nested = b"<message><message><message/></message></message>"
    assert [s.raw for s in scan(PLAIN + nested).stanzas] == [nested]


@pytest.mark.parametrize(
    ("raw", "is_plain"),
    [
        (b"<message to='a'><body>x</body></message>", True),
        (b"<message to='a' xml:lang='en'/>", True),
        (b"<message><x xmlns='urn:x'/></message>", False),
        (b"<message><a:x xmlns:a='urn:x'/></message>", False),
        (b"<message><x xmlns='urn:&#x78;'/></message>", False),
        (b"<message><body>xmlns</body></message>", False),
        (b"<message xmlns='jabber:client'><body>x</body></message>", False),
    ],
)
def test_what_has_nothing_of_another_namespace_is_plain(scan: Scan, raw: bytes, is_plain: bool) -> None:
    (stanza,) = scan(PLAIN + raw).stanzas
    assert stanza.is_plain is is_plain
    if is_plain:
        assert all(child.tag.startswith("{jabber:client}") for child in stanza.xml)


@pytest.mark.parametrize(
    ("raw", "rest"),
    [
        (b"<message/>", b"/>"),
        (b"<message to='a'/>", b"/>"),
        (b"<message to='/>' ><b/></message>", b"><b/></message>"),
        (b"<message\n to = \">\"\tid='1' />", b"/>"),
        (b"<message to='a'>x</message>", b">x</message>"),
    ],
)
def test_tail(scan: Scan, raw: bytes, rest: bytes) -> None:
    (stanza,) = scan(PLAIN + raw).stanzas
    assert stanza.raw[stanza.tail :] == rest


def test_white_space_is_not_kept() -> None:
    scanner = opened()
    for _ in range(100):
        assert scanner.feed(b" \n\t\r" * 256) == []
        assert scanner.pending == 0
    assert len(scanner.feed(MESSAGE + b"  ")) == 1
    assert scanner.pending == 0


def test_after_the_end_nothing_is_read() -> None:
    scanner = opened()
    assert [type(event) for event in scanner.feed(b"</stream:stream\n>" + MESSAGE)] == [StreamClose]
    assert scanner.feed(MESSAGE) == []
    assert scanner.pending == 0


def test_stanzas_before_an_error_are_reported_and_nothing_after() -> None:
    scanner = opened()
    events = scanner.feed(MESSAGE + MESSAGE + b"<message></iq>" + MESSAGE)
    assert [type(event).__name__ for event in events] == ["Stanza", "Stanza", "StreamError"]
    assert scanner.feed(MESSAGE) == []
    assert scanner.pending == 0


@pytest.mark.parametrize(
    ("begun", "condition"),
    [
        (b"<message><body>x</message>", "not-well-formed"),
        (b"<message><body a=b>", "not-well-formed"),
        (b"<message <", "not-well-formed"),
        (b"<message><!-", "restricted-xml"),
        (b"<message><?", "restricted-xml"),
        (b"<message><![X", "restricted-xml"),
        (b"<!", "restricted-xml"),
        (b"x", "bad-format"),
        (b"</iq", "not-well-formed"),
        (b"</stream:stream x", "not-well-formed"),
        (b"<stream:stream>", "unsupported-stanza-type"),
    ],
)
def test_errors_do_not_wait_for_the_end_of_the_stanza(begun: bytes, condition: str) -> None:
    for size in (1, len(begun)):
        scanner = opened()
        found = [event for i in range(0, len(begun), size) for event in scanner.feed(begun[i : i + size])]
        assert conditions(found) == [condition]


# --- steps and restarts


def test_it_begins_stepwise() -> None:
    scanner = Scanner(Engine(), Limits())
    assert [type(event) for event in scanner.feed(PLAIN + MESSAGE)] == [StreamOpen]
    assert scanner.pending == len(MESSAGE)


def test_one_event_a_step() -> None:
    scanner = opened(stepwise=True)
    data = MESSAGE + b" <message><message/></message><r xmlns='r'/>" + MESSAGE[:20]
    steps = [scanner.feed(data)]
    while steps[-1]:
        steps.append(scanner.feed(b""))
    assert [len(step) for step in steps] == [1, 1, 1, 0]
    assert scanner.pending == 20
    assert [s.raw for s in scanner.feed(MESSAGE[20:] + MESSAGE)] == [MESSAGE]
    scanner.stepwise = False
    assert [s.raw for s in scanner.feed(MESSAGE)] == [MESSAGE, MESSAGE]


def test_an_error_waits_for_its_step() -> None:
    scanner = opened(stepwise=True)
    assert [type(e).__name__ for e in scanner.feed(MESSAGE + b"x")] == ["Stanza"]
    assert [type(e) for e in scanner.feed(b"")] == [StreamError]


def test_restart_keeps_what_was_pipelined() -> None:
    scanner = opened(stepwise=True)
    scanner.feed(b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>\n<?xml version='1.0'?>" + PLAIN + MESSAGE)
    scanner.restart()
    assert [type(event) for event in scanner.feed(b"")] == [StreamOpen]
    assert [event.raw for event in scanner.feed(b"")] == [MESSAGE]


def test_restart_can_discard_what_was_pipelined() -> None:
    scanner = opened(stepwise=True)
    scanner.feed(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>" + PLAIN + MESSAGE)
    assert scanner.pending == len(PLAIN + MESSAGE)
    scanner.restart(discard=True)
    assert scanner.pending == 0
    assert scanner.feed(b"") == []
    assert conditions(scanner.feed(MESSAGE)) == ["invalid-namespace"]


def test_restart_forgets_the_old_header() -> None:
    scanner = Scanner(Engine(), Limits())
    scanner.feed(PLAIN[:-1] + b" xmlns:h='urn:h'>")
    scanner.restart()
    scanner.feed(PLAIN)
    assert conditions(scanner.feed(b"<message><h:a/></message>")) == ["bad-namespace-prefix"]


def test_restart_in_the_middle_of_an_element() -> None:
    scanner = opened(stepwise=True)
    scanner.feed(PLAIN[:20])
    scanner.restart()
    assert [type(event) for event in scanner.feed(PLAIN[20:])] == [StreamOpen]


# --- bounds


def nested(depth: int) -> bytes:
    return b"<message>" + b"<a>" * (depth - 1) + b"</a>" * (depth - 1) + b"</message>"


def with_attributes(template: bytes, count: int) -> bytes:
    return b"<message" + b"".join(template % i for i in range(count)) + b"/>"


LETTERS = [bytes([byte]) for byte in b"_" + bytes(range(65, 91)) + bytes(range(97, 123))]
SHORTEST_NAMES = [*LETTERS, *(letter + b"1" for letter in LETTERS)]

AT_THE_BOUND = {
    "bytes": (Limits(stanza_bytes=10_000), lambda over: b"<message>" + b"x" * (9981 + over) + b"</message>"),
    "bytes, empty tag": (
        Limits(stanza_bytes=10_000),
        lambda over: b"<message a='" + b"x" * (9985 + over) + b"'/>",
    ),
    "depth": (Limits(depth=20), lambda over: nested(20 + over)),
    "depth, usual": (Limits(), lambda over: nested(64 + over)),
    "depth, innermost empty": (
        Limits(depth=3),
        lambda over: b"<iq>" + b"<a>" * (1 + over) + b"<a/>" + b"</a>" * (1 + over) + b"</iq>",
    ),
    "elements": (Limits(elements=100), lambda over: b"<message>" + b"<a/>" * (99 + over) + b"</message>"),
    "elements, usual": (Limits(), lambda over: b"<message>" + b"<a/>" * (2047 + over) + b"</message>"),
    "attributes": (Limits(attributes=5), lambda over: with_attributes(b" a%d=''", 5 + over)),
    "attributes, usual": (Limits(), lambda over: with_attributes(b" a%d='x=y'", 64 + over)),
    "attributes, shortest": (
        Limits(),
        lambda over: b"<a" + b"".join(b" %b=''" % name for name in SHORTEST_NAMES[: 64 + over]) + b"/>",
    ),
    "depth, shortest": (Limits(), lambda over: b"<a>" * (63 + over) + b"<a/>" + b"</a>" * (63 + over)),
    "elements, shortest": (Limits(), lambda over: b"<a>" + b"<a/>" * (2047 + over) + b"</a>"),
    "pieces": (
        Limits(pieces=64),
        lambda over: b"<iq>" + b'<a b="c" d="e"/>' * 20 + b"<b/>" * (2 + over) + b"</iq>",
    ),
    "pieces of text": (
        Limits(pieces=64),
        lambda over: b'<iq a="">' + b"&lt;" * (1005 + 16 * over) + b"</iq>",
    ),
    "pieces of other text": (
        Limits(pieces=64),
        lambda over: b"<iq><![CDATA[" + b"'\n\r>" * (239 + over) + b"]]></iq>",
    ),
    "pieces of a stanza with a prefix": (
        Limits(pieces=80),
        lambda over: b'<a:iq xmlns:a="u">' + b'<a b="c"/>' * 8 + b"<a/>" * (2 + over) + b"</a:iq>",
    ),
    "pieces beside a bracket in a namespace": (
        Limits(pieces=80),
        lambda over: (
            b'<iq><c xmlns="}"/>' + b'<a b="c"/>' * 8 + b"<a/>" * (1 + over) + b"x" * 1000 + b"</iq>"
        ),
    ),
    "sections": (Limits(elements=50), lambda over: b"<iq>" + b"<![CDATA[]]>" * (49 + over) + b"</iq>"),
    "names": (
        Limits(markup_bytes=2000, name_bytes=500),
        lambda over: b"<iq>" + (b"<" + b"a" * 499 + b"/>") * 4 + b"<a/>" * (2 + over) + b"</iq>",
    ),
    "names of attributes": (
        Limits(markup_bytes=2000),
        lambda over: (
            b"<iq>"
            + (b"<a " + b"b" * 252 + b"='" + b"x" * 999 + b"'/>") * 7
            + b"<a/>" * (227 + over)
            + b"</iq>"
        ),
    ),
    "bytes of a tag": (Limits(tag_bytes=9000), lambda over: b"<iq a='" + b"x" * (8990 + over) + b"'/>"),
    "namespaces with a prefix": (
        Limits(expanded_bytes=10_000),
        lambda over: (
            b"<iq><a xmlns:p='"
            + b"u" * 200
            + b"'>"
            + b"<p:b p:c=''/>" * 23
            + b"<p:b/>" * (1 + over)
            + b"</a></iq>"
        ),
    ),
    "namespaces": (Limits(namespaces=5), lambda over: with_attributes(b" xmlns:a%d='b'", 5 + over)),
    "namespaces, usual": (Limits(), lambda over: with_attributes(b" xmlns:a%d='b'", 32 + over)),
}


@pytest.mark.parametrize("name", AT_THE_BOUND)
@pytest.mark.parametrize("size", [1, 100, 100_000])
def test_bounds_are_exact(scan: Scan, name: str, size: int) -> None:
    limits, make = AT_THE_BOUND[name]
    for over in (0, 1):
        data = PLAIN + make(over) + MESSAGE
        found = scan([data[i : i + size] for i in range(0, len(data), size)], limits=limits)
        assert found.error == ("policy-violation" if over else None)
        assert len(found.stanzas) == (0 if over else 2)


@pytest.mark.parametrize("over", [1, 2, 5])
def test_nothing_small_exceeds_a_bound(over: int) -> None:
    limits = Limits()
    shortest = [
        b"<a" + b"".join(b" %b=''" % name for name in SHORTEST_NAMES[: limits.attributes + over]) + b"/>",
        b"<a>" * (limits.depth + over - 1) + b"<a/>" + b"</a>" * (limits.depth + over - 1),
        b"<a>" + b"<a/>" * (limits.elements + over - 1) + b"</a>",
        b"<" + b"a" * (limits.name_bytes + over) + b"/>",
    ]
    assert min(map(len, shortest)) > limits.simple_bytes
    for raw in shortest[:3]:
        assert not limits.allow(raw)


HONEST = {
    "text": b"<message><body>"
    + b"What a long story this is, told in the evening.\n" * 5400
    + b"</body></message>",
    "picture": b"<iq type='set' id='1'><vCard xmlns='vcard-temp'><PHOTO><BINVAL>"
    + (b"A" * 76 + b"\n") * 3380
    + b"</BINVAL></PHOTO></vCard></iq>",
    "page": b"<message><body>"
    + b"&lt;p class=&quot;a&quot;&gt;some text&lt;/p&gt;\n" * 4000
    + b"</body></message>",
    "JSON": b"<message><json xmlns='urn:xmpp:json:0'><![CDATA["
    + b'{"items": [{"id": 1, "tags": ["a", "b"]}]}\n' * 5500
    + b"]]></json></message>",
    "bookmarks": b"<iq type='set' id='1'><query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'>"
    + b"<conference jid='room@rooms.example' name='A room' autojoin='1'><nick>me</nick></conference>" * 500
    + b"</storage></query></iq>",
}


@pytest.mark.parametrize("name", HONEST)
@pytest.mark.parametrize("size", [8192, 10**6])
def test_large_stanzas_of_honest_clients_pass(scan: Scan, name: str, size: int) -> None:
    data = PLAIN + HONEST[name] + MESSAGE
    found = scan([data[i : i + size] for i in range(0, len(data), size)])
    assert (found.error, len(found.stanzas)) == (None, 2)


def test_long_names_are_refused_where_they_cost() -> None:
    many = b"<x:a x:b='' x:c=''/>" * 200
    namespace = b"<message><a xmlns:x='" + b"u" * 513 + b"'>" + many + b"</a></message>"
    assert conditions(opened().feed(namespace)) == ["policy-violation"]
    name = b"<message><" + b"n" * 513 + b"/>" + b"<a/>" * 200 + b"</message>"
    assert conditions(opened().feed(name)) == ["policy-violation"]


def test_rewriting_cannot_multiply_a_stanza(scan: Scan) -> None:
    head = PLAIN[:-1] + b" xmlns:h='" + b"u" * 500 + b"'>"
    assert scan(head + b"<message>" + b"<h:a/>" * 2000 + b"</message>").error == "policy-violation"
    quotes = b'<message><h:a b="' + b"'" * 100_000 + b'"/></message>'
    assert scan(head + quotes).error == "policy-violation"


def test_what_would_multiply_is_not_even_written_out() -> None:
    many = (b"<x:a " + b" ".join(b"x:b%d=''" % i for i in range(60)) + b"/>") * 400
    raw = b"<message xmlns:x='" + b"u" * 512 + b"'>" + many + b"</message>"
    scanner = opened()
    tracemalloc.start()
    try:
        assert conditions(scanner.feed(raw)) == ["policy-violation"]
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 8_000_000, most


def test_an_unfinished_element_is_cut_off_at_the_bound() -> None:
    for begin in (b"<x xmlns='urn:x'>", b"<x a='", b"<", b"<x><![CDATA[", b"</stream:stream "):
        scanner = opened(Limits(stanza_bytes=10_000))
        scanner.feed(begin)
        most = 0
        for _ in range(100):
            events = scanner.feed((b" " if begin.startswith(b"</") else b"t") * 1000)
            most = max(most, scanner.pending)
            if events:
                break
        assert conditions(events) == ["policy-violation"]
        assert most <= 10_000
        assert scanner.pending == 0


def test_limits_can_be_replaced() -> None:
    scanner = opened(Limits(stanza_bytes=100))
    big = b"<message>" + b"x" * 1000 + b"</message>"
    scanner.limits = Limits()
    assert [s.raw for s in scanner.feed(big)] == [big]
    scanner.limits = Limits(stanza_bytes=100)
    assert conditions(scanner.feed(big)) == ["policy-violation"]
