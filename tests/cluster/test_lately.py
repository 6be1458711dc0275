"""Pairs of names that are remembered for a while."""

from xmppd.cluster.lately import Lately


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


def test_of_too_many_the_oldest_are_forgotten() -> None:
    noted = Noted()
    for value in "wxyz":
        noted.lately.note("a", value)
    assert noted.lately.of("a") == ("x", "y", "z")
    assert len(noted.lately) == 3
