"""XML that other servers keep as text."""

import pytest

from xmppd import ns
from xmppd.migrate.fragments import DEEPEST, BadXml, element_of, renamed
from xmppd.xml.build import serialize


def test_names_without_a_prefix_are_in_the_default() -> None:
    tree = element_of("<message from='a'><body>x</body><x xmlns='urn:y'/></message>\n")
    assert serialize(tree) == b"<message from='a'><body>x</body><x xmlns='urn:y'/></message>"
    assert element_of("<a/>", ns.VCARD).tag == f"{{{ns.VCARD}}}a"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "<a/><b/>",
        "x<a/>",
        "<a/>x",
        "<a>",
        "<!DOCTYPE a [<!ENTITY e 'x'>]><a>&e;</a>",
        "<a>&e;</a>",
        "</é><é>",
        "<p:a/>",
        "<a>\x00</a>",
        "<a>\ud800</a>",
        "<a>" * (DEEPEST + 1) + "</a>" * (DEEPEST + 1),
    ],
)
def test_what_is_not_one_element_is_refused(text: str) -> None:
    with pytest.raises(BadXml):
        element_of(text)


def test_a_namespace_is_replaced_down_to_the_next_one() -> None:
    tree = element_of("<a><b>t</b><c xmlns='urn:c'><d/></c></a>", "urn:old")
    assert serialize(renamed(tree, "urn:old", ns.CLIENT)) == b"<a><b>t</b><c xmlns='urn:c'><d/></c></a>"
