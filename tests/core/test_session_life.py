"""A session's life: begun, and over. What is between them if its wire breaks: test_stream_management.py."""

from collections import deque

import pytest

from xmppd.core.output import LARGE, Cork
from xmppd.core.sessions import Sessions
from xmppd.stream.sasl import Login

BOUND = 4 * LARGE


class Wire:
    """A connection in memory; one entry for each stanza."""

    peer, secure, clogged = "127.0.0.1", True, False

    def __init__(self):
        self.stanzas = []
        self.closed = []

    def write(self, data):
        self.stanzas.append(data)

    def write_all(self, stanzas):
        self.stanzas += stanzas

    def close(self, error):
        self.closed.append(error.condition if error else None)


class Loop:
    """Calls things when told to."""

    def __init__(self):
        self.calls = deque()

    def settle(self):
        while self.calls:
            self.calls.popleft()()


@pytest.fixture
def loop():
    return Loop()


@pytest.fixture
def sessions(loop):
    return Sessions(Cork(loop.calls.append, kept_bytes=BOUND), lambda: 0.0)


@pytest.fixture
def wire():
    return Wire()


@pytest.fixture
def session(sessions, wire, loop):
    session = sessions.add(Login("alice@localhost", None), "r", wire, "")
    session.begin(b"<bound/>")
    loop.settle()
    wire.stanzas.clear()
    return session


def test_nothing_is_written_before_the_client_knows_its_session(sessions, wire, loop):
    session = sessions.add(Login("alice@localhost", None), "r", wire, "")
    session.send(b"<a/>")
    session.send_copy(b"<b/>")
    session.send(b"x" * (LARGE + 1))
    session.flush()
    loop.settle()
    assert wire.stanzas == []
    session.begin(b"<bound/>")
    session.send(b"<c/>")
    loop.settle()
    assert wire.stanzas == [b"<bound/>", b"<a/>", b"<b/>", b"x" * (LARGE + 1), b"<c/>"]


def test_too_much_before_the_session_began_ends_it(sessions, wire, loop):
    session = sessions.add(Login("alice@localhost", None), "r", wire, "")
    for _ in range(9):
        session.send(b"x" * LARGE)
    assert not wire.closed, "whoever sends is still at it"
    loop.settle()
    assert wire.closed == ["resource-constraint"] and wire.stanzas == []


def test_what_comes_before_it_began_is_bounded(sessions, wire, loop):
    session = sessions.add(Login("alice@localhost", None), "r", wire, "")
    for _ in range(2):
        session.send(b"x" * LARGE)
        session.send_copy(b"y" * LARGE)
    session.send(b"z")
    session.begin(b"<bound/>")
    loop.settle()
    assert sum(map(len, wire.stanzas)) == BOUND + len(b"<bound/>") and wire.closed == ["resource-constraint"]


def test_nothing_is_sent_when_it_is_over(sessions, session, wire, loop):
    session.send(b"<m/>")
    sessions.remove(session)
    session.send(b"<m/>")
    loop.settle()
    assert wire.stanzas == []
