"""The sketch of who sends most: exact while there is room, and never too low for who sends much."""

import random
from collections import Counter

from xmppd.core.busiest import Busiest


def test_few_are_counted_exactly() -> None:
    busiest = Busiest(kept=4, every=1)
    for name in "abacabd":
        busiest.add(name)
    assert busiest.take(3) == [("a", 3), ("b", 2), ("c", 1)]
    assert busiest.take(3) == []


def test_who_sends_much_is_found_among_many() -> None:
    chance = random.Random(1)
    names = ["loud", "louder"] * 2000 + [f"quiet{number}" for number in range(5000)] + ["louder"] * 1000
    chance.shuffle(names)
    busiest = Busiest(kept=16, every=1)
    for name in names:
        busiest.add(name)
    truth, found = Counter(names), busiest.take(2)
    assert [name for name, _ in found] == ["louder", "loud"]
    assert all(truth[name] <= count <= truth[name] + len(names) / 16 for name, count in found)


def test_of_many_one_is_looked_at() -> None:
    busiest = Busiest(every=8)
    for _ in range(800):
        busiest.add("a")
    assert busiest.take(1) == [("a", 800)]


def test_it_has_bounds() -> None:
    busiest = Busiest(kept=16, every=1)
    for number in range(10_000):
        busiest.add(str(number))
    assert len(busiest._counts) == 16
