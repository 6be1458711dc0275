"""Privacy lists of other servers as blocks."""

import pytest

from xmppd.migrate.blocks import (
    KINDS,
    PrivacyItem,
    blocked_of,
    blocks_of_privacy,
    kinds_of,
    number,
    privacy_of,
)
from xmppd.migrate.fragments import element_of
from xmppd.migrate.record import Losses


def deny(value: str, order: int = 0, kinds: frozenset[str] = frozenset()) -> PrivacyItem:
    return PrivacyItem("deny", order, "jid", value, kinds)


ALLOW = PrivacyItem("allow", 10)


def blocks(*items: PrivacyItem, default: str | None = "x") -> tuple[list[str], list[str]]:
    losses = Losses()
    found = blocks_of_privacy({"x": items}, default, "a@x", losses)
    loss = losses.kinds.get("privacy-list")
    return found, [detail for _, detail in loss.samples] if loss else []


def test_addresses_that_are_denied_everything_are_blocks() -> None:
    assert blocks(deny("b@y"), deny("z"), deny("b@y"), deny("c@y/r")) == (["b@y", "z", "c@y/r"], [])


def test_all_four_kinds_are_as_good_as_none() -> None:
    assert blocks(deny("b@y", kinds=frozenset(KINDS))) == (["b@y"], [])


@pytest.mark.parametrize("kind", KINDS)
def test_an_item_about_less_is_lost(kind: str) -> None:
    kinds = frozenset(KINDS) - {kind}
    assert blocks(deny("b@y", kinds=kinds)) == ([], [f"x: deny jid b@y ({', '.join(sorted(kinds))})"])


@pytest.mark.parametrize(
    ("item", "detail"),
    [
        (PrivacyItem("allow", 1, "jid", "b@y"), "x: allow jid b@y"),
        (PrivacyItem("deny", 1, "group", "Foes"), "x: deny group Foes"),
        (PrivacyItem("deny", 1, "subscription", "none"), "x: deny subscription none"),
        (PrivacyItem("deny", 1), "x: deny"),
        (PrivacyItem("deny", 1, "jid"), "x: deny jid "),
        (PrivacyItem("allow", 1, kinds=frozenset({"iq"})), "x: allow (iq)"),
    ],
)
def test_other_items_are_lost(item: PrivacyItem, detail: str) -> None:
    assert blocks(item) == ([], [detail])


def test_to_allow_all_others_loses_nothing() -> None:
    assert blocks(deny("b@y", 3), ALLOW) == (["b@y"], [])


def test_nothing_applies_behind_an_item_that_allows_everybody() -> None:
    assert blocks(ALLOW, deny("b@y", 11)) == ([], ["x: deny jid b@y"])
    assert blocks(deny("b@y", 11), ALLOW) == ([], ["x: deny jid b@y"])


def test_to_deny_everybody_leaves_blocks_as_they_are() -> None:
    assert blocks(PrivacyItem("deny", 1), deny("b@y", 2)) == (["b@y"], ["x: deny"])


@pytest.mark.parametrize("default", [None, "other"])
def test_lists_that_are_not_the_default_are_lost(default: str | None) -> None:
    assert blocks(deny("b@y"), ALLOW, default=default) == ([], ["x: deny jid b@y", "x: allow"])


def test_lists_are_read_from_xml() -> None:
    query = element_of(
        "<query xmlns='jabber:iq:privacy'><default name='a'/><list name='a'>"
        "<item type='jid' value='t@x' action='deny' order='3'/>"
        "<item type='group' value='G' action='deny' order='x'><message/><presence-in/><other/></item>"
        "<item action='allow' order='10'/></list><list name='b'/></query>"
    )
    assert privacy_of(query) == (
        {
            "a": [
                deny("t@x", 3),
                PrivacyItem("deny", 0, "group", "G", frozenset({"message", "presence-in"})),
                ALLOW,
            ],
            "b": [],
        },
        "a",
    )
    assert privacy_of(element_of("<query xmlns='jabber:iq:privacy'/>")) == ({}, None)


def test_a_block_list_is_read_from_xml() -> None:
    items = "<item jid='a@x'/><item/><item jid='b'/><item jid='b'/>"
    assert blocked_of(element_of(f"<blocklist xmlns='urn:xmpp:blocking'>{items}</blocklist>")) == ["a@x", "b"]


def test_flags_are_kinds() -> None:
    assert kinds_of(True, False, True, False) == {"iq", "presence-in"}


@pytest.mark.parametrize(("text", "order"), [("7", 7), (7.0, 7), ("7.0", 7), (None, 0), ("inf", 0), ("", 0)])
def test_orders_are_numbers_or_nothing(text: object, order: int) -> None:
    assert number(text) == order
