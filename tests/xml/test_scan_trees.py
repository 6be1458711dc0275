"""Elements whose tree is read at once: they are what they are elsewhere, and so is what is wrong in them."""

from __future__ import annotations

import pytest

from xmppd.errors import StreamError
from xmppd.xml import engine as engines
from xmppd.xml.scan import Engine, Limits, Scanner
from xmppd.xml.stanza import Stanza, parse

XMLNS = b"xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'"
PLAIN = b"<stream:stream " + XMLNS + b" to='localhost' version='1.0'>"
LOGIN = "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='X'>{}</authenticate>"


@pytest.mark.parametrize(
    "inner",
    [
        "",
        "<initial-response>AGE=</initial-response><agent id='1'><software>A &amp; B</software></agent>",
        "<bind xmlns='urn:bind'><tag>\r\n</tag></bind><x xmlns=''/><y xml:lang='de' z='&gt;'/>",
        "<x xmlns='urn:a}b'/>",
        "text before <a/> and behind",
    ],
)
@pytest.mark.parametrize("step", [1, 7, 4096])
def test_an_element_whose_tree_is_read_at_once_is_what_it_is_elsewhere(inner: str, step: int) -> None:
    login = LOGIN.format(inner).encode()
    found = list[Stanza]()
    for stepwise in (True, False):
        scanner = Scanner(Engine(), Limits())
        scanner.stepwise = stepwise
        data = PLAIN + login + b"<after/>"
        events = [event for at in range(0, len(data), step) for event in scanner.feed(data[at : at + step])]
        while more := scanner.feed(b""):
            events += more
        stanza, after = events[1:]
        assert isinstance(stanza, Stanza) and isinstance(after, Stanza), events
        assert after.kind.endswith("after")
        found.append(stanza)
    one, other = found
    assert (one.kind, one.attrs, one.payload, one.raw) == (other.kind, other.attrs, other.payload, other.raw)
    one_tree, other_tree = (
        [(e.tag, e.attrib, e.text, e.tail) for e in stanza.xml.iter()] for stanza in found
    )
    assert one_tree == other_tree


@pytest.mark.parametrize(
    "login",
    [
        "<authenticate></x><x></authenticate>",
        "<authenticate a='>'/></x><authenticated></authenticate>",
        "<authenticate>&unknown;</authenticate>",
        "<authenticate a='1' a='2'/>",
        "<authenticate>\x01</authenticate>",
        "<authenticate><a:b/></authenticate>",
        "<authenticate><b></authenticate>",
        "<authenticate></é><é></authenticate>",
        "<authenticate a='>'/></é><authenticated></authenticate>",
        "<authenticate a='>'/></é><é xmlns='jabber:client'><a></authenticate>",
        "<authenticate></authenticate ></é><é><a></authenticate>",
    ],
)
def test_what_is_wrong_in_it_is_wrong_as_elsewhere(login: str) -> None:
    conditions = []
    for stepwise in (True, False):
        scanner = Scanner(Engine(), Limits())
        scanner.stepwise = stepwise
        events = scanner.feed(PLAIN + login.encode())
        while more := scanner.feed(b""):
            events += more
        assert isinstance(events[-1], StreamError), events
        conditions.append(events[-1].condition)
    assert conditions[0] == conditions[1]


def test_trees_of_one_engine_have_nothing_of_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also behind what was not well-formed, and when its parser is replaced."""
    monkeypatch.setattr(engines, "PARSER_BYTES", 2000)
    engine = Engine()
    trees = []
    for number in range(100):
        inner = f"<a:b xmlns:a='urn:{number}' n='{number}'>{number}</a:b> behind"
        login = LOGIN.format("<a:b/>" if number % 7 == 6 else inner).encode()
        scanner = Scanner(engine, Limits())
        scanner.feed(PLAIN)
        [event] = scanner.feed(login)
        if number % 7 == 6:
            assert isinstance(event, StreamError) and event.condition == "bad-namespace-prefix"
            continue
        assert isinstance(event, Stanza)
        trees.append((number, event.xml))
    for number, tree in trees:
        [child] = tree
        assert (child.tag, child.attrib) == (f"{{urn:{number}}}b", {"n": f"{number}"})
        assert (tree.text, tree.tail, child.text, child.tail) == (None, None, f"{number}", " behind")


def test_trees_of_stanzas_are_those_of_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for in any order, of bytes that are others by then, and with what the parser for all refuses."""
    monkeypatch.setattr(engines, "PARSER_BYTES", 500)
    scanner = Scanner(Engine(), Limits())
    scanner.feed(PLAIN)
    scanner.stepwise = False
    inners = (
        "",
        "<body>A &amp; B\r\n</body>",
        "<x xmlns='urn:a}b'><y z='}'/></x>",
        "t<a:b xmlns:a='urn:a'/>u",
    )
    written = [f"<message id='{n}'>{inners[n % 4]}</message>".encode() for n in range(40)]
    stanzas = scanner.feed(b"".join(written))
    for number in (*range(0, 40, 3), *range(39, -1, -1)):
        stanza = stanzas[number]
        assert isinstance(stanza, Stanza)
        if number % 2 and b"from" not in stanza.raw:
            stanza.raw = b"<message from='a@b'" + stanza.raw[8:]
        expected, found = parse(stanza.raw), stanza.xml
        assert [(e.tag, e.attrib, e.text, e.tail) for e in found.iter()] == [
            (e.tag, e.attrib, e.text, e.tail) for e in expected.iter()
        ]
        assert stanza.xml is found and stanza.attrs["id"] == str(number)


SASL = "urn:ietf:params:xml:ns:xmpp-sasl"


@pytest.mark.parametrize(
    "proof",
    [
        f"<auth xmlns='{SASL}' mechanism='SCRAM-SHA-1'>biws</auth>",
        f'<auth xmlns="{SASL}" mechanism="PLAIN">AGE=</auth>',
        f"<auth xmlns='{SASL}' mechanism=\"PLAIN\"></auth>",
        f"<response xmlns='{SASL}'>Yz1iaXdz</response>",
        f"<response xmlns='{SASL}'/>",
        "<response xmlns='urn:xmpp:sasl:2'>Yz1iaXdz</response>",
        f"<auth mechanism='PLAIN' xmlns='{SASL}'>AGE=</auth>",
        f"<auth  xmlns='{SASL}' mechanism='PLAIN' >AGE=</auth >",
        f"<auth xmlns='{SASL}' mechanism='PLAIN' xml:lang='en'>AGE=</auth>",
        f"<auth xmlns='{SASL}' mechanism='a&amp;b'>AGE=</auth>",
        f"<auth xmlns='{SASL}' mechanism='PLAIN'>A&amp;\r\n</auth>",
        f"<auth xmlns='{SASL}' mechanism='PLAIN'><x/></auth>",
        f"<auth xmlns='{SASL}' mechanism='PLAIN' mechanism='PLAIN'>AGE=</auth>",
        f"<auth xmlns='{SASL}' mechanism='PLAIN'>AGE=</response>",
        f"<auth xmlns='{SASL}\" mechanism='PLAIN'>AGE=</auth>",
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp:sasl' mechanism='PLAIN'>AGE=</auth>",
        f"<auth xmlns='{SASL}' mechanism='PLAIN'>{'A' * 9000}</auth>",
    ],
)
@pytest.mark.parametrize("step", [1, 7, 16384])
def test_what_proves_who_a_client_is_is_what_a_parser_finds(proof: str, step: int) -> None:
    """Where it is written as usual no parser looks at it."""
    told = []
    for stepwise in (True, False):
        scanner = Scanner(Engine(), Limits(stanza_bytes=8192))
        scanner.stepwise = stepwise
        data = PLAIN + b" " + proof.encode() + b"<after/>"
        events = [event for at in range(0, len(data), step) for event in scanner.feed(data[at : at + step])]
        while more := scanner.feed(b""):
            events += more
        told.append(
            [
                (it.kind, it.attrs, it.payload, it.raw, it.text, it.tail, it.xml.tag, it.xml.text)
                if isinstance(it, Stanza)
                else it.condition
                if isinstance(it, StreamError)
                else it
                for it in events
            ]
        )
    assert told[0] == told[1]
