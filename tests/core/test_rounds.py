"""Long work in slices: the first at once, the rest in order, and what must come first is hurried."""

from collections import deque

import pytest

from xmppd.core.output import SLICE_SECONDS
from xmppd.core.rounds import Rounds

pytestmark = pytest.mark.asyncio


class Loop:
    """Calls things when told to; a clock that each look moves by a third of a slice."""

    def __init__(self):
        self.calls = deque()
        self.now = 0.0

    def clock(self):
        self.now += SLICE_SECONDS / 3
        return self.now

    def turn(self):
        for _ in range(len(self.calls)):
            self.calls.popleft()()


@pytest.fixture
def loop():
    return Loop()


@pytest.fixture
def rounds(loop):
    return Rounds(loop.calls.append, loop.clock)


@pytest.fixture
def done():
    return []


def steps(done, name, count):
    for number in range(count):
        done.append((name, number))
        yield


async def test_what_is_done_within_a_slice_is_done_at_once(rounds, loop, done):
    assert rounds.do("a", steps(done, "a", 2), is_short=False) is None
    assert len(done) == 2 and not loop.calls and not rounds.is_due


async def test_the_rest_waits_for_its_turn_and_others_come_after_it(rounds, loop, done):
    first = rounds.do("a", steps(done, "a", 12), is_short=False)
    second = rounds.do("b", steps(done, "b", 3), is_short=False)
    assert 0 < len(done) < 6 and not any(name == "b" for name, _ in done)
    turns = 0
    while loop.calls:
        before = len(done)
        loop.turn()
        turns += 1
        assert len(done) - before <= 5
    assert turns > 1 and first.done() and second.done() and not rounds.is_due
    assert done == [("a", n) for n in range(12)] + [("b", n) for n in range(3)]


async def test_a_short_piece_overtakes_those_of_others_and_not_its_own(rounds, loop, done):
    long = rounds.do("a", steps(done, "a", 12), is_short=False)
    assert rounds.do("b", steps(done, "b", 5), is_short=True) is None
    assert done[-1] == ("b", 4) and not long.done()
    assert rounds.do("a", steps(done, "again", 1), is_short=True) is None
    assert long.done() and done[-2:] == [("a", 11), ("again", 0)]
    loop.turn()
    assert not rounds.is_due


async def test_a_mistake_ends_one_piece_only(rounds, loop, done, caplog):
    def broken():
        yield from steps(done, "a", 5)
        raise KeyError("x")

    first = rounds.do("a", broken(), is_short=False)
    second = rounds.do("b", steps(done, "b", 2), is_short=False)
    while loop.calls:
        loop.turn()
    assert first.done() and second.done() and done[-1] == ("b", 1)
    assert "round-failed" in caplog.text


async def test_who_waits_no_more_holds_up_nobody(rounds, loop, done):
    rounds.do("a", steps(done, "a", 12), is_short=False).cancel()
    second = rounds.do("b", steps(done, "b", 12), is_short=False)
    while loop.calls:
        loop.turn()
    assert second.done() and len(done) == 24 and not rounds.is_due
    rounds.do("a", steps(done, "a", 12), is_short=False).cancel()
    rounds.finish("a")
    assert len(done) == 36
    while loop.calls:
        loop.turn()
    assert rounds.do("c", steps(done, "c", 1), is_short=False) is None
