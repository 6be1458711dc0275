"""Merging two pieces of knowledge about a contact: any order, any repetition, the same result."""

import functools
import itertools

from hypothesis import given
from hypothesis import strategies as st

from xmppd.core.roster.item import RosterItem, item_from, value_of
from xmppd.core.roster.subscription import State
from xmppd.migrate.merge import item_of, merged

WORDS = st.sampled_from(["", "a", "b", "Anna", "Bert", "ä"])

ITEMS = st.builds(
    lambda state, approved, name, groups, request, listed: item_of(
        "bob@localhost", state, approved=approved, name=name, groups=groups, request=request, listed=listed
    ),
    st.sampled_from(State),
    st.booleans(),
    WORDS,
    st.lists(st.sampled_from(["x", "y", "z"])),
    st.sampled_from([b"", b"<presence/>", b"<presence><status>hi</status></presence>"]),
    st.booleans(),
)


@given(ITEMS, ITEMS)
def test_the_order_of_two_means_nothing(one: RosterItem, other: RosterItem) -> None:
    assert merged(one, other) == merged(other, one)


@given(ITEMS, ITEMS, ITEMS)
def test_nor_does_that_of_three(one: RosterItem, other: RosterItem, third: RosterItem) -> None:
    items = (one, other, third)
    results = {functools.reduce(merged, order) for order in itertools.permutations(items)}
    assert len(results) == 1


@given(ITEMS, ITEMS)
def test_a_repetition_adds_nothing(one: RosterItem, other: RosterItem) -> None:
    assert merged(one, one) == one
    both = merged(one, other)
    assert merged(both, one) == both
    assert merged(both, other) == both


@given(ITEMS, ITEMS)
def test_nothing_that_was_granted_is_lost_and_nothing_is_made_up(one: RosterItem, other: RosterItem) -> None:
    both = merged(one, other)
    assert both.state.is_following == (one.state.is_following or other.state.is_following)
    assert both.state.is_followed == (one.state.is_followed or other.state.is_followed)
    assert set(both.groups) == {*one.groups, *other.groups}
    assert both.ask == ((one.ask or other.ask) and not both.state.is_following)
    assert both.pending_in == ((one.pending_in or other.pending_in) and not both.state.is_followed)


@given(ITEMS)
def test_what_is_merged_can_be_kept(item: RosterItem) -> None:
    assert item_from(item.contact, value_of(item)) == item


def test_a_request_and_a_listed_contact() -> None:
    request = item_of("bob@localhost", State.NONE_IN, request=b"<presence/>", listed=False)
    listed = item_of("bob@localhost", State.NONE_OUT, name="Bob", groups=["Friends"])
    both = merged(request, listed)
    assert (both.state, both.name, both.groups, both.request, both.hidden) == (
        State.NONE_OUT_IN,
        "Bob",
        ("Friends",),
        b"<presence/>",
        False,
    )
