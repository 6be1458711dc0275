"""What is remembered of managed sessions that have ended."""

from hypothesis import given
from hypothesis import strategies as st

from xmppd.core.past import GROUP, GROUPS, SECONDS, Past

NAMES = st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from(["alice@localhost", "bob@localhost"]))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.tuples(NAMES, st.integers(0, 2**32 - 1), st.integers(0, 2 * SECONDS)), max_size=30))
def test_the_last_count_of_each_is_known_for_an_hour(ends: list[tuple[tuple[str, str], int, int]]) -> None:
    clock = Clock()
    past = Past(clock)
    model: dict[tuple[str, str], tuple[int, float]] = {}
    for name, handled, seconds in ends:
        clock.now += seconds
        past.note(*name, handled)
        model[name] = handled, clock.now
        for other in (("a", "alice@localhost"), ("c", "bob@localhost")):
            count, at = model.get(other, (None, 0.0))
            if clock.now - at < SECONDS:
                assert past.handled(*other) == count
            elif clock.now - at > SECONDS + 1:
                assert past.handled(*other) is None


def test_it_is_that_of_the_account() -> None:
    past = Past(Clock())
    past.note("id", "alice@localhost", 7)
    assert past.handled("id", "bob@localhost") is None
    assert past.handled("id", "alice@localhost") == 7


def test_of_too_many_the_last_ones_are_known_and_no_memory_is_taken() -> None:
    clock = Clock()
    past = Past(clock)
    size = len(past._block)
    for number in range(3 * GROUP * GROUPS):
        clock.now += 0.01
        past.note(str(number), "alice@localhost", number)
    last = range(3 * GROUP * GROUPS - GROUPS, 3 * GROUP * GROUPS)
    known = [number for number in last if past.handled(str(number), "alice@localhost") == number]
    assert len(known) > 0.99 * len(last)
    assert past.handled("0", "alice@localhost") is None
    assert len(past._block) == size == 256 * 1024
