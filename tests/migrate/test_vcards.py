"""vCard4 and avatars of PEP as vcard-temp."""

import pytest
from truth import canonical

from xmppd.migrate.fragments import element_of
from xmppd.migrate.vcards import vcard_of_nodes, vcard_of_pep

CARD = "urn:ietf:params:xml:ns:vcard-4.0"
PNG = "iVBORw0KGgo="


def of(inner: str, data: str | None = None, metadata: str | None = None) -> str | None:
    card = element_of(f"<vcard xmlns='{CARD}'>{inner}</vcard>")
    picture = element_of(f"<data xmlns='urn:xmpp:avatar:data'>{data}</data>") if data is not None else None
    about = (
        element_of(f"<metadata xmlns='urn:xmpp:avatar:metadata'>{metadata}</metadata>")
        if metadata is not None
        else None
    )
    found = vcard_of_pep(card, picture, about)
    return None if found is None else canonical(found)


def temp(inner: str) -> str:
    return canonical(element_of(f"<vCard xmlns='vcard-temp'>{inner}</vCard>"))


TYPED = "<parameters><type><text>{}</text></type></parameters>"


ADDRESS = (
    (
        "<adr><pobox/><ext/><street>S 1</street><locality>L</locality><region/><code>P</code>"
        "<country>C</country><parameters><type><text>home</text></type></parameters></adr>"
    ),
    "<ADR><HOME/><STREET>S 1</STREET><LOCALITY>L</LOCALITY><PCODE>P</PCODE><CTRY>C</CTRY></ADR>",
)
PHONE = (
    "<tel><parameters><type><text>cell</text><text>Work</text></type></parameters><text>12</text></tel>",
    "<TEL><WORK/><CELL/><NUMBER>12</NUMBER></TEL>",
)


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ("<fn><text>A B</text></fn>", "<FN>A B</FN>"),
        ("<fn><text/></fn><nickname><text>n</text></nickname>", "<NICKNAME>n</NICKNAME>"),
        (
            "<n><surname>S</surname><given>G</given><additional>M</additional><prefix/><suffix>X</suffix></n>",
            "<N><FAMILY>S</FAMILY><GIVEN>G</GIVEN><MIDDLE>M</MIDDLE><SUFFIX>X</SUFFIX></N>",
        ),
        ("<n><given>A</given><given>B</given></n>", "<N><GIVEN>A,B</GIVEN></N>"),
        (
            "<email><text>a@x</text><parameters><type/></parameters></email>",
            "<EMAIL><INTERNET/><USERID>a@x</USERID></EMAIL>",
        ),
        (
            f"<email>{TYPED.format('work')}<text>a@x</text></email>",
            "<EMAIL><WORK/><INTERNET/><USERID>a@x</USERID></EMAIL>",
        ),
        (
            "<email><parameters><pref><integer>1</integer></pref></parameters><text>a@x</text></email>",
            "<EMAIL><INTERNET/><PREF/><USERID>a@x</USERID></EMAIL>",
        ),
        (
            f"<tel><uri>tel:+1</uri>{TYPED.format('home')}</tel>",
            "<TEL><HOME/><NUMBER>+1</NUMBER></TEL>",
        ),
        PHONE,
        ADDRESS,
        ("<url><uri>http://x/</uri></url>", "<URL>http://x/</URL>"),
        ("<bday><date>19850412</date></bday>", "<BDAY>1985-04-12</BDAY>"),
        ("<bday><date>1985-04-12</date></bday>", "<BDAY>1985-04-12</BDAY>"),
        ("<bday><date>--0412</date></bday>", "<BDAY>--0412</BDAY>"),
        (
            "<org><text>O</text><text>U</text><text>V</text></org>",
            "<ORG><ORGNAME>O</ORGNAME><ORGUNIT>U</ORGUNIT><ORGUNIT>V</ORGUNIT></ORG>",
        ),
        ("<title><text>T</text></title><role><text>R</text></role>", "<TITLE>T</TITLE><ROLE>R</ROLE>"),
        ("<note><text>two\nlines</text></note>", "<DESC>two\nlines</DESC>"),
        ("<impp><uri>xmpp:a@x</uri></impp>", "<JABBERID>a@x</JABBERID>"),
        ("<impp><uri>sip:a@x</uri></impp><tz><text>-05:00</text></tz>", "<TZ>-05:00</TZ>"),
        ("<geo><uri>geo:1.5,-2</uri></geo>", "<GEO><LAT>1.5</LAT><LON>-2</LON></GEO>"),
        (
            "<categories><text>a</text><text>b</text></categories>",
            "<CATEGORIES><KEYWORD>a</KEYWORD><KEYWORD>b</KEYWORD></CATEGORIES>",
        ),
        ("<group name='g'><title><text>T</text></title></group>", "<TITLE>T</TITLE>"),
        (
            f"<photo><uri>data:image/png;base64,{PNG}</uri></photo>",
            f"<PHOTO><TYPE>image/png</TYPE><BINVAL>{PNG}</BINVAL></PHOTO>",
        ),
        ("<photo><uri>http://x/a.png</uri></photo>", "<PHOTO><EXTVAL>http://x/a.png</EXTVAL></PHOTO>"),
    ],
)
def test_properties(new: str, old: str) -> None:
    assert of(new) == temp(old)


@pytest.mark.parametrize(
    "inner",
    [
        "",
        "<fn><text/></fn><n><surname/><given/><additional/><prefix/><suffix/></n>",
        "<x-own><text>t</text></x-own><kind><text>individual</text></kind>",
        "<bday/><tel/><email/><org/><adr/><impp/><geo/><photo/><categories/><url/>",
    ],
)
def test_nothing_said_is_no_card(inner: str) -> None:
    assert of(inner) is None


@pytest.mark.parametrize(
    ("data", "metadata", "photo"),
    [
        (PNG, "<info id='h' type='image/x' bytes='8'/>", f"<TYPE>image/x</TYPE><BINVAL>{PNG}</BINVAL>"),
        (PNG, "<info id='h' bytes='8'/>", f"<TYPE>image/png</TYPE><BINVAL>{PNG}</BINVAL>"),
        (PNG, None, f"<TYPE>image/png</TYPE><BINVAL>{PNG}</BINVAL>"),
        ("AAAA", None, "<BINVAL>AAAA</BINVAL>"),
        (None, "<info id='h' type='image/png' url='http://x/a'/>", "<EXTVAL>http://x/a</EXTVAL>"),
        (
            PNG,
            "<info id='o' type='image/gif' url='http://x/a'/><info id='h' type='image/png'/>",
            f"<TYPE>image/png</TYPE><BINVAL>{PNG}</BINVAL>",
        ),
    ],
)
def test_an_avatar_is_the_photo(data: str | None, metadata: str | None, photo: str) -> None:
    assert of("", data, metadata) == temp(f"<PHOTO>{photo}</PHOTO>")
    inside = "<photo><uri>http://x/old</uri></photo>"
    assert of(inside, data, metadata) == temp(f"<PHOTO>{photo}</PHOTO>")


@pytest.mark.parametrize(("data", "metadata"), [(PNG, ""), ("", None), ("", "<info id='h'/>")])
def test_an_avatar_that_is_none(data: str | None, metadata: str | None) -> None:
    assert of("", data, metadata) is None


def test_payloads_may_stand_in_their_items() -> None:
    card = element_of(f"<item id='current'><vcard xmlns='{CARD}'><fn><text>A</text></fn></vcard></item>")
    data = element_of(f"<item id='h'><data xmlns='urn:xmpp:avatar:data'>{PNG}</data></item>")
    found = vcard_of_pep(card, data, None)
    assert found is not None
    photo = f"<PHOTO><TYPE>image/png</TYPE><BINVAL>{PNG}</BINVAL></PHOTO>"
    assert canonical(found) == temp(f"<FN>A</FN>{photo}")
    assert vcard_of_pep(None, None, None) is None


def test_of_several_items_the_avatar_that_the_metadata_name_is_taken() -> None:
    def data(text: str) -> tuple[str, object]:
        return text, element_of(f"<data xmlns='urn:xmpp:avatar:data'>{text}</data>")

    about = element_of("<metadata xmlns='urn:xmpp:avatar:metadata'><info id='BBBB'/></metadata>")
    pictures = [data("AAAA"), data("BBBB"), data("CCCC")]
    nodes = {"urn:xmpp:avatar:data": pictures, "urn:xmpp:avatar:metadata": [("BBBB", about)]}
    found = vcard_of_nodes(nodes)  # type: ignore[arg-type]
    assert found is not None
    assert canonical(found) == temp("<PHOTO><BINVAL>BBBB</BINVAL></PHOTO>")
    del nodes["urn:xmpp:avatar:metadata"]
    found = vcard_of_nodes(nodes)  # type: ignore[arg-type]
    assert found is not None
    assert canonical(found) == temp("<PHOTO><BINVAL>CCCC</BINVAL></PHOTO>")
    assert vcard_of_nodes({}) is None
