"""Pairs of names that are remembered for a while."""

from xmppd.cluster.lately import Lately, Order


class Noted:
    """Some pairs, and the time."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.lately = Lately(lambda: self.seconds, 10.0, 3)


def test_a_pair_is_remembered_for_a_while() -> None:
    noted = Noted()
    noted.lately.note("a", "x")
    noted.seconds = 4.0
    noted.lately.note("a", "y")
    noted.seconds = 10.0
    assert noted.lately.of("a") == ("x", "y")
    assert noted.lately.of("b") == ()
    noted.seconds = 14.0
    assert noted.lately.of("a") == ("y",)
    noted.seconds = 14.1
    assert noted.lately.of("a") == ()
    assert not len(noted.lately)


def test_a_pair_that_is_noted_again_is_remembered_longer() -> None:
    noted = Noted()
    noted.lately.note("a", "x")
    noted.seconds = 8.0
    noted.lately.note("a", "x")
    noted.seconds = 15.0
    assert noted.lately.of("a") == ("x",)


def test_a_pair_that_is_noted_twice_at_one_moment_is_forgotten_once() -> None:
    noted = Noted()
    noted.lately.note("a", "x")
    noted.lately.note("a", "x")
    noted.seconds = 20.0
    assert noted.lately.of("a") == ()
    assert not len(noted.lately)


def test_of_too_many_the_oldest_are_forgotten() -> None:
    noted = Noted()
    for value in "wxyz":
        noted.lately.note("a", value)
    assert noted.lately.of("a") == ("x", "y", "z")
    assert len(noted.lately) == 3


def test_it_is_known_for_a_while_what_came_first() -> None:
    seconds = [0.0]
    order = Order(lambda: seconds[0], 10.0, 3)
    for name in ("a", "b", "a"):
        order.note(name)
    assert order.of("c") < order.of("b") < order.of("a")
    seconds[0] = 10.1
    order.note("c")
    assert order.of("a") == order.of("b") == 0 < order.of("c")
    order.drop("c")
    assert order.of("c") == len(order) == 0
    for name in "wxyz":
        order.note(name)
    assert [name for name in "wxyz" if order.of(name)] == ["x", "y", "z"]
