"""The resource that is asked for, read with and without a tree."""

import pytest

from xmppd import ns
from xmppd.errors import StanzaError
from xmppd.net.c2s.negotiation.resource import resource_in
from xmppd.xml.limits import Limits
from xmppd.xml.scan import Engine, Scanner
from xmppd.xml.stanza import Stanza

HEADER = f"<stream:stream xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAM}' to='localhost' version='1.0'>"
BIND = f"<bind xmlns='{ns.BIND}'"


def scanned(raw: str) -> Stanza:
    scanner = Scanner(Engine(), Limits())
    scanner.feed(HEADER.encode())
    [stanza] = scanner.feed(raw.encode())
    assert isinstance(stanza, Stanza)
    return stanza


@pytest.mark.parametrize(
    ("raw", "resource"),
    [
        (f"<iq type='set' id='b'>{BIND}/></iq>", ""),
        (f"<iq type='set' id='b'>{BIND}></bind></iq>", ""),
        (f"<iq type='set' id='b'>{BIND}><resource/></bind></iq>", ""),
        (f"<iq type='set' id='b'>{BIND}><resource></resource></bind></iq>", ""),
        (f"<iq type='set' id='b'>{BIND}><resource>phone</resource></bind></iq>", "phone"),
        (f"<iq type='set' id='b'>{BIND}><resource>Bücher  1</resource></bind></iq>", "Bücher  1"),
        (f"<iq type='set' id='b'>{BIND}><resource>a&amp;b</resource></bind></iq>", "a&b"),
        (f"<iq type='set' id='b'>{BIND}><resource>a\r\nb</resource></bind></iq>", "a\nb"),
        (f"<iq type='set' id='b'>{BIND}><resource><![CDATA[a<b]]></resource></bind></iq>", "a<b"),
        (f"<iq type='set' id='b'> {BIND}>\n<resource>phone</resource>\n</bind> </iq>", "phone"),
        (f"<iq type='set' id='>'>{BIND}><resource>phone</resource></bind></iq>", "phone"),
        (f"<iq type='set' id='b'>{BIND}><resource xmlns='urn:x'>no</resource></bind></iq>", ""),
        (f"<iq type='set' id='b'>{BIND}><other/><resource>phone</resource></bind></iq>", "phone"),
        (f"<iq type='set' id='b'>{BIND}><resource>one</resource><resource>two</resource></bind></iq>", "one"),
        (f"<iq type='set' id='b'><b:bind xmlns:b='{ns.BIND}'><b:resource>x</b:resource></b:bind></iq>", "x"),
    ],
)
def test_however_it_is_written(raw: str, resource: str) -> None:
    assert resource_in(scanned(raw)) == resource


@pytest.mark.parametrize(
    "raw",
    [
        f"<iq type='set'>{BIND}><resource>phone</resource></bind></iq>",
        f"<iq type='set' id=''>{BIND}/></iq>",
        f"<iq type='set' id='b'>{BIND}><resource>phone</resource></bind><other/></iq>",
        f"<iq type='set' id='b'>{BIND}/>{BIND}><resource>phone</resource></bind></iq>",
    ],
)
def test_what_is_no_request(raw: str) -> None:
    with pytest.raises(StanzaError, match="bad-request"):
        resource_in(scanned(raw))
