"""The cork: what was sent to one session comes before broadcasts, and nothing is lost or out of order."""

from collections import deque

import pytest

from xmppd.core.output import LARGE, MANY, SLICE_SECONDS, Cork
from xmppd.core.sessions import LiveAccount, Session


class Loop:
    """Calls things when told to, and a clock that moves by what each look at it costs."""

    def __init__(self, cost):
        self.calls = deque()
        self.cost = cost
        self.now = 0.0

    def clock(self):
        self.now += self.cost
        return self.now

    def turn(self):
        for _ in range(len(self.calls)):
            self.calls.popleft()()


class Log:
    """A connection that notes who was written what."""

    def __init__(self, name, log):
        self.name, self.log = name, log

    def write(self, data):
        self.log.append((self.name, data))

    def write_all(self, stanzas):
        self.write(b"".join(stanzas))


@pytest.fixture
def loop():
    return Loop(SLICE_SECONDS / 2.5)


@pytest.fixture
def log():
    return []


@pytest.fixture
def sessions(loop, log):
    cork = Cork(loop.calls.append, loop.clock)
    made = []
    for name in "abcdefgh":
        session = Session(LiveAccount(f"{name}@localhost"), "r", Log(name, log), cork, "", 0.0)
        session.begin(b"<iq/>")
        made.append(session)
    loop.turn()
    log.clear()
    return made


def test_copies_are_spread_over_turns(loop, log, sessions):
    for session in sessions:
        session.send_copy(b"x")
    loop.turn()
    assert 0 < len(log) < len(sessions)
    while loop.calls:
        before = len(log)
        loop.turn()
        assert len(log) - before <= 3
    assert log == [(name, b"x") for name in "abcdefgh"]


def test_what_is_for_one_overtakes_what_is_for_many(loop, log, sessions):
    for session in sessions[:-1]:
        session.send_copy(b"x")
    sessions[-1].send(b"y")
    loop.turn()
    assert log[0] == ("h", b"y")


def test_within_one_session_nothing_is_overtaken(loop, log, sessions):
    for session in sessions:
        session.send_copy(b"x")
    sessions[-1].send(b"y")
    sessions[-1].send_copy(b"z")
    loop.turn()
    assert log[0] == ("h", b"xyz")
    while loop.calls:
        loop.turn()
    assert len(log) == len(sessions)


def test_what_comes_while_copies_wait_is_written_in_the_next_turn(loop, log, sessions):
    for session in sessions:
        session.send_copy(b"x")
    loop.turn()
    written = len(log)
    sessions[0].send(b"y")
    assert len(loop.calls) == 1
    loop.turn()
    assert log[written] == ("a", b"y")


def test_what_waits_is_bounded(log, sessions):
    for _ in range(MANY + 1):
        sessions[0].send_copy(b"x")
    assert log == [("a", b"x" * (MANY + 1))]
    sessions[0].send_copy(b"y" * (LARGE + 1))
    assert len(log) == 2
