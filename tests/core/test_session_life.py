"""A session's life: begun, detached from its wire, attached to another, over."""

from collections import deque

import pytest

from xmppd.core.output import LARGE, NOWHERE, Cork
from xmppd.core.sessions import Session, Sessions
from xmppd.stream.sasl import Login
from xmppd.testing import World

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


def never():
    raise AssertionError("there was room")


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


@pytest.mark.parametrize("corked", ["", "send", "send_copy"])
def test_what_comes_while_there_is_no_wire_goes_to_the_next_one_in_order(session, wire, loop, corked):
    expected = []
    if corked:  # it waits for the end of the turn when the wire breaks
        getattr(session, corked)(b"<corked/>")
        expected.append(b"<corked/>")
    session.detach(never)
    assert session.connection is NOWHERE and not session.is_over
    loop.settle()
    for number in range(200):
        data = b"<m n='%d'/>" % number
        (session.send, session.send_copy)[number % 2](data)
        expected.append(data)
        loop.settle()
    session.send(b"x" * (LARGE + 1))
    expected.append(b"x" * (LARGE + 1))
    second = Wire()
    session.attach(second)
    session.send(b"<live/>")
    loop.settle()
    assert second.stanzas == [*expected, b"<live/>"], "one element is one stanza"
    assert wire.stanzas == []
    session.send(b"<more/>")
    loop.settle()
    assert second.stanzas[-1] == b"<more/>" and len(second.stanzas) == len(expected) + 2


def test_what_was_written_is_not_written_again(session, wire, loop):
    session.send(b"<first/>")
    loop.settle()
    session.detach(never)
    session.send(b"<second/>")
    second = Wire()
    session.attach(second)
    loop.settle()
    session.detach(never)
    third = Wire()
    session.attach(third)
    session.send(b"<third/>")
    loop.settle()
    written = [wire.stanzas, second.stanzas, third.stanzas]
    assert written == [[b"<first/>"], [b"<second/>"], [b"<third/>"]]


def test_what_is_kept_is_bounded_and_told_once(session, loop):
    overflown = []
    session.detach(lambda: overflown.append(True))
    for _ in range(9):
        session.send(b"x" * LARGE)
        session.send_copy(b"y" * LARGE)
    assert not overflown, "whoever sends is still at it"
    loop.settle()
    assert overflown == [True]
    second = Wire()
    session.attach(second)
    loop.settle()
    assert sum(map(len, second.stanzas)) == BOUND


def test_it_ends_while_it_is_detached(sessions, session, wire, loop):
    session.detach(never)
    session.send(b"<m/>")
    sessions.remove(session)
    assert session.is_over and session.connection is NOWHERE
    session.send(b"<m/>")
    session.send_copy(b"<m/>")
    session.flush()
    loop.settle()
    assert wire.stanzas == [] and sessions.by_full == {}
    with pytest.raises(AssertionError):
        session.attach(Wire())


def test_nothing_is_sent_when_it_is_over(sessions, session, wire, loop):
    session.send(b"<m/>")
    sessions.remove(session)
    session.send(b"<m/>")
    loop.settle()
    assert wire.stanzas == []


@pytest.mark.asyncio
async def test_others_notice_nothing_until_a_detached_session_is_over() -> None:
    async with World() as world:
        alice, bob = await world.login("alice"), await world.login("bob")
        await world.befriend(alice, bob)
        session: Session = bob.session
        session.detach(never)
        await alice.send(f"<message to='{bob.jid}'><body>x</body></message>")
        await alice.send("<message to='bob@localhost' type='chat'><body>y</body></message>")
        await alice.expect_nothing()
        await bob.expect_nothing()
        wire = Wire()
        session.attach(wire)
        await world.settle()
        assert [s.partition(b"<body>")[2][:1] for s in wire.stanzas] == [b"x", b"y"]
        session.detach(never)
        bob.app.binding.end(session)
        await alice.expect(f"<presence type='unavailable' from='{bob.jid}' to='alice@localhost'/>")
        bob.app.binding.end(session)
        await alice.expect_nothing()


@pytest.mark.asyncio
async def test_a_newcomer_replaces_a_detached_session() -> None:
    async with World() as world:
        bob = await world.login("bob", "r")
        old = bob.session
        old.detach(never)
        again = await world.login("bob", "r")
        assert old.is_over and again.session is not old and not again.session.is_over
