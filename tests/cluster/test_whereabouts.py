"""Places of other nodes: what is packed is what a plain model of it has."""

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from xmppd.cluster.whereabouts import PIECE, Place, Whereabouts

BOB = "bob@localhost"
PRIORITIES = st.one_of(st.none(), st.integers(-128, 127))
NODES = st.one_of(st.integers(1, 3), st.just(255))
RESOURCES = st.sampled_from(["phone", "pc", "\N{SNOWMAN}", "r" * 1023, "\0\0\0"])
NUMBERS = st.sampled_from([1, 2, 255, 2**32 - 1])
ALL = [BOB, "eve@localhost", "\u00fc@localhost"]
ACCOUNTS = st.sampled_from(ALL)


def as_kept(place: Place) -> Place:
    return place._replace(priority=-127) if place.priority == -128 else place


@given(NODES, RESOURCES, NUMBERS, PRIORITIES, st.booleans())
def test_a_place_is_what_was_put(node, resource, number, priority, wants_copies):
    whereabouts = Whereabouts()
    place = Place(node, resource, number, priority, wants_copies)
    assert whereabouts.put(BOB, place) is None
    assert whereabouts.of(BOB) == (as_kept(place),)


def test_on_which_nodes_somebody_is_available():
    whereabouts = Whereabouts()
    assert not whereabouts.available(BOB)
    whereabouts.put(BOB, Place(1, "phone", 1, None))
    assert not whereabouts.available(BOB)
    whereabouts.put(BOB, Place(1, "phone", 1, -128))
    assert list(whereabouts.available(BOB)) == [1]
    whereabouts.put(BOB, Place(2, "phone", 1, None))
    assert list(whereabouts.available(BOB)) == [1]
    whereabouts.put(BOB, Place(2, "pc", 2, 5))
    assert sorted(whereabouts.available(BOB)) == [1, 2]


def test_whether_anybody_wants_copies():
    whereabouts = Whereabouts()
    assert not whereabouts.wants_copies(BOB)
    for wants in (True, False, True):
        whereabouts.put(BOB, Place(1, "phone", 1, None, wants))
        assert whereabouts.wants_copies(BOB) == wants
    whereabouts.put(BOB, Place(2, "pc", 2, 0))
    assert whereabouts.wants_copies(BOB)
    whereabouts.end(BOB, 1, "phone", 1)
    assert not whereabouts.wants_copies(BOB)


def test_who_came_or_went_while_all_are_gone_through_is_known():
    whereabouts = Whereabouts()
    for account in (BOB, "eve@localhost"):
        whereabouts.put(account, Place(1, "phone", 1, 0))
    walk = whereabouts.places_of(1)
    next(walk)
    whereabouts.end(BOB, 1, "phone", 1)
    whereabouts.put("carol@localhost", Place(2, "phone", 1, 0))
    for _ in range(2):
        assert not whereabouts.available(BOB)
        assert list(whereabouts.available("carol@localhost")) == [2]
        assert whereabouts.spread([BOB, "carol@localhost"]) == {2: ["carol@localhost"]}
        list(walk)


def test_who_of_many_is_available_is_told_by_node_and_in_their_order():
    whereabouts = Whereabouts()
    whereabouts.put(BOB, Place(1, "phone", 1, None))
    whereabouts.put("eve@localhost", Place(2, "phone", 1, 0))
    many = ["eve@localhost", "carol@localhost", BOB]
    assert whereabouts.spread(many) == {2: ["eve@localhost"]}
    whereabouts.put(BOB, Place(1, "phone", 1, 0))
    whereabouts.put(BOB, Place(2, "phone", 1, 0))
    assert whereabouts.spread(many) == {1: [BOB], 2: ["eve@localhost", BOB]}
    whereabouts.end("eve@localhost", 2, "phone", 1)
    assert whereabouts.spread(["eve@localhost"]) == {}


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
    for account, place in filter(None, whereabouts.places_of(1)):
        seen.append(account)
        assert whereabouts.end(account, 1, "phone", place.number)
        whereabouts.end("u4@localhost", 1, "phone", 4)
        whereabouts.put("u6@localhost", Place(1, "phone", 60, 1))
        whereabouts.put(f"new{place.number}@localhost", Place(2, "phone", 1, 0))
    assert {"u0@localhost", "u2@localhost", "u6@localhost", "u8@localhost"} >= {*seen} - {"u4@localhost"}
    assert len(seen) == len({*seen}) and {"u0@localhost", "u2@localhost", "u8@localhost"} <= {*seen}


def test_looking_for_places_of_a_node_stops_now_and_then():
    whereabouts = Whereabouts()
    for number in range(3 * PIECE):
        whereabouts.put(f"u{number}@localhost", Place(1, "phone", number, 0))
    assert list(whereabouts.places_of(2)) == [None] * 3


def test_going_through_all_begins_with_no_list_of_them():
    """What is looked at in one step does not grow with what there is."""
    whereabouts = Whereabouts(PIECE)
    for number in range(20 * PIECE):
        whereabouts.put(f"u{number}@localhost", Place(1, "phone", number, 0))
    tracemalloc.start()
    found = whereabouts.places_of(2)
    assert next(found) is None
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert used < 20 * PIECE * 8 / 4


def test_no_dictionary_is_one_of_those_that_take_long_to_grow():
    whereabouts = Whereabouts(100)
    for number in range(250):
        whereabouts.put(f"u{number}@localhost", Place(1, "phone", number, 0))
    assert [*map(len, whereabouts._tables)] == [100, 100, 50]
    for number in range(100):
        whereabouts.end(f"u{number}@localhost", 1, "phone", number)
    assert [*map(len, whereabouts._tables)] == [100, 50]


@pytest.mark.parametrize("most", [1, 100, 10_000])
def test_nobody_who_has_gone_is_kept(most: int):
    whereabouts = Whereabouts(most)
    for number in range(PIECE):
        whereabouts.put(f"u{number}@localhost", Place(1, "phone", number, 0))
    found = whereabouts.places_of(2)
    for number in range(PIECE):
        whereabouts.end(f"u{number}@localhost", 1, "phone", number)
    assert [*found] == [] and whereabouts._tables == [{}]


class Look:
    """One look at all places of a node. `due` are those that it must find, `ever` those that there were."""

    def __init__(self, model, whereabouts, node):
        self.found = whereabouts.places_of(node)
        self.node = node
        self.ever = {(account, place) for account, mine in model.items() for place in mine.values()}
        self.due = {(account, place) for account, place in self.ever if place.node == node}
        self.seen = set()

    def changed(self, account, old, new):
        self.due.discard((account, old))
        self.ever.add((account, new))

    def step(self):
        """Go on; whether there is more."""
        for found in self.found:
            if found is not None:
                assert found in self.ever and found not in self.seen and found[1].node == self.node
                self.seen.add(found)
            return True
        assert self.due <= self.seen
        return False


class Model(RuleBasedStateMachine):
    """Against a dict of dicts."""

    places = Bundle("places")

    def __init__(self):
        super().__init__()
        self.whereabouts = Whereabouts()
        self.model: dict[str, dict[tuple[int, str], Place]] = {}
        self.looks: list[Look] = []

    @initialize(most=st.sampled_from([1, 2, 1000]))
    def begin(self, most):
        self.whereabouts = Whereabouts(most)

    @rule(node=NODES)
    def look(self, node):
        look = Look(self.model, self.whereabouts, node)
        if look.step():
            self.looks.append(look)

    @rule(at_once=st.booleans(), first=st.booleans())
    def go_on(self, at_once, first):
        if self.looks:
            look = self.looks[0 if first else -1]
            while is_more := look.step():
                if not at_once:
                    break
            if not is_more:
                self.looks.remove(look)

    @rule(
        target=places, account=ACCOUNTS, node=NODES, resource=RESOURCES, number=NUMBERS, priority=PRIORITIES
    )
    def put(self, account, node, resource, number, priority):
        place = Place(node, resource, number, priority)
        mine = self.model.setdefault(account, {})
        old = mine.get((node, resource))
        assert self.whereabouts.put(account, place) == old
        mine[node, resource] = as_kept(place)
        for look in self.looks:
            look.changed(account, old, as_kept(place))
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
            for look in self.looks:
                look.changed(account, old, None)

    @invariant()
    def same(self):
        for account, mine in self.model.items():
            assert self.whereabouts.of(account) == tuple(mine.values())
            assert self.whereabouts.nodes(account) == {node for node, _ in mine}
            assert (account in self.whereabouts) is bool(mine)
        assert len(self.whereabouts) == sum(map(len, self.model.values()))
        there = [account for account, mine in self.model.items() if mine]
        assert sorted(self.whereabouts.accounts()) == sorted(there)
        spread: dict[int, list[str]] = {}
        for account, mine in self.model.items():
            for node in {place.node for place in mine.values() if place.priority is not None}:
                spread.setdefault(node, []).append(account)
        found = self.whereabouts.spread([*self.model, "nobody@localhost"])
        assert {node: sorted(names) for node, names in found.items()} == {
            node: sorted(names) for node, names in spread.items()
        }
        assert sorted(self.whereabouts.absent(["nobody@localhost", *ALL])) == sorted(
            {"nobody@localhost", *ALL}.difference(*spread.values())
        )
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
