"""Places of other nodes: what is packed is what a plain model of it has."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from xmppd.cluster.whereabouts import PIECE, Place, Whereabouts

BOB = "bob@localhost"
PRIORITIES = st.one_of(st.none(), st.integers(-128, 127))
NODES = st.one_of(st.integers(1, 3), st.just(255))
RESOURCES = st.sampled_from(["phone", "pc", "\N{SNOWMAN}", "r" * 1023, "\0\0\0"])
NUMBERS = st.sampled_from([1, 2, 255, 2**32 - 1])
ACCOUNTS = st.sampled_from([BOB, "eve@localhost", "\u00fc@localhost"])


def as_kept(place: Place) -> Place:
    return place._replace(priority=-127) if place.priority == -128 else place


@given(NODES, RESOURCES, NUMBERS, PRIORITIES)
def test_a_place_is_what_was_put(node, resource, number, priority):
    whereabouts = Whereabouts()
    place = Place(node, resource, number, priority)
    assert whereabouts.put(BOB, place) is None
    assert whereabouts.of(BOB) == (as_kept(place),)


def test_who_of_many_is_there_is_told_in_their_order():
    whereabouts = Whereabouts()
    whereabouts.put(BOB, Place(1, "phone", 1, None))
    whereabouts.put("eve@localhost", Place(2, "phone", 1, 0))
    assert whereabouts.among(["eve@localhost", "carol@localhost", BOB]) == ["eve@localhost", BOB]
    whereabouts.end(BOB, 1, "phone", 1)
    assert whereabouts.among([BOB]) == []


def test_a_session_takes_the_place_of_its_predecessor_and_of_no_other():
    whereabouts = Whereabouts()
    old, new = Place(1, "phone", 1, 0), Place(1, "phone", 2, None)
    other, elsewhere = Place(1, "pc", 1, 0), Place(2, "phone", 1, 0)
    assert [whereabouts.put(BOB, place) for place in (old, other, elsewhere, new)] == [None, None, None, old]
    assert whereabouts.of(BOB) == (new, other, elsewhere)
    assert whereabouts.at(BOB, "phone") == (new, elsewhere)
    assert whereabouts.nodes(BOB) == {1, 2}
    assert len(whereabouts) == 3


def test_only_that_very_session_ends():
    whereabouts = Whereabouts()
    whereabouts.put(BOB, Place(1, "phone", 2, 0))
    assert not whereabouts.end(BOB, 1, "phone", 1)
    assert not whereabouts.end(BOB, 2, "phone", 2)
    assert not whereabouts.end(BOB, 1, "pc", 2)
    assert not whereabouts.end("eve@localhost", 1, "phone", 2)
    assert BOB in whereabouts and len(whereabouts) == 1
    assert whereabouts.end(BOB, 1, "phone", 2)
    assert BOB not in whereabouts and len(whereabouts) == 0


def test_places_of_a_node_may_go_and_come_while_they_are_gone_through():
    whereabouts = Whereabouts()
    for number in range(10):
        whereabouts.put(f"u{number}@localhost", Place(1 + number % 2, "phone", number, 0))
    seen = []
    for found in whereabouts.places_of(1):
        account, place = found
        seen.append(account)
        assert whereabouts.end(account, 1, "phone", place.number)
        whereabouts.end("u4@localhost", 1, "phone", 4)
        whereabouts.put("u6@localhost", Place(1, "phone", 60, 1))
        whereabouts.put(f"new{place.number}@localhost", Place(2, "phone", 1, 0))
    assert seen == ["u0@localhost", "u2@localhost", "u6@localhost", "u8@localhost"]


def test_looking_for_places_of_a_node_stops_now_and_then():
    whereabouts = Whereabouts()
    for number in range(3 * PIECE):
        whereabouts.put(f"u{number}@localhost", Place(1, "phone", number, 0))
    assert list(whereabouts.places_of(2)) == [None] * 3


class Model(RuleBasedStateMachine):
    """Against a dict of dicts."""

    places = Bundle("places")

    def __init__(self):
        super().__init__()
        self.whereabouts = Whereabouts()
        self.model: dict[str, dict[tuple[int, str], Place]] = {}

    @rule(
        target=places, account=ACCOUNTS, node=NODES, resource=RESOURCES, number=NUMBERS, priority=PRIORITIES
    )
    def put(self, account, node, resource, number, priority):
        place = Place(node, resource, number, priority)
        mine = self.model.setdefault(account, {})
        assert self.whereabouts.put(account, place) == mine.get((node, resource))
        mine[node, resource] = as_kept(place)
        return account, place

    @rule(known=places, number=NUMBERS)
    def end(self, known, number):
        account, place = known
        mine = self.model.get(account, {})
        old = mine.get((place.node, place.resource))
        was_there = old is not None and old.number == number
        assert self.whereabouts.end(account, place.node, place.resource, number) is was_there
        if was_there:
            del mine[place.node, place.resource]

    @invariant()
    def same(self):
        for account, mine in self.model.items():
            assert self.whereabouts.of(account) == tuple(mine.values())
            assert self.whereabouts.nodes(account) == {node for node, _ in mine}
            assert (account in self.whereabouts) is bool(mine)
        assert len(self.whereabouts) == sum(map(len, self.model.values()))
        for node in (1, 255):
            found = sorted(filter(None, self.whereabouts.places_of(node)), key=repr)
            wanted = [
                (account, place)
                for account, mine in self.model.items()
                for place in mine.values()
                if place.node == node
            ]
            assert found == sorted(wanted, key=repr)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("node", [-1, 0, 256])
def test_other_nodes_have_indexes_from_1_to_255(node):
    with pytest.raises((ValueError, AssertionError)):
        Whereabouts().put(BOB, Place(node, "phone", 1, 0))
