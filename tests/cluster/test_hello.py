"""The greeting of two nodes: what it ends in, whatever pieces it comes in and whoever is at the other end."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmppd.cluster import hello
from xmppd.cluster.framing import framed
from xmppd.cluster.hello import Dialer, Greeting, Hello, Listener, Refused

SECRET = b"the secret of all nodes"
OTHER = b"the secret of other nodes"
A = Hello(name="a:1", incarnation=7, addresses=("a:1", "unix:/run/a"), version="1.0")
B = Hello(name="b:1", incarnation=9)


class Clock:
    def __init__(self):
        self.time = 100.0

    def __call__(self):
        return self.time


def pair(dialer=A, listener=B, meant="b:1", secrets=((SECRET,), (SECRET,)), clock=lambda: 1.0, **options):
    return (
        Dialer(dialer, meant, secrets[0], clock, **options),
        Listener(lambda name: listener, secrets[1], clock),
    )


def greet(dialer, listener, tampered=None):
    """Bring both to their end; `tampered(number, message)` sees each message on its way."""
    turns = [listener, dialer]
    data, number = dialer.begin(), 0
    while data:
        data = tampered(number, data) if tampered is not None else data
        data = turns[number % 2].feed(data)
        number += 1
    return dialer.outcome, listener.outcome


def test_both_know_what_the_other_said():
    ours, theirs = greet(*pair())
    assert (ours.own, ours.peer, theirs.own, theirs.peer) == (A, B, B, A)
    assert ours.protocol == theirs.protocol == hello.HIGHEST
    assert ours.trunk == theirs.trunk > 0
    assert not ours.is_resumed and not theirs.is_resumed and not ours.is_knock


def test_each_new_trunk_has_an_id_of_its_own():
    assert len({greet(*pair())[0].trunk for _ in range(50)}) == 50


def test_a_trunk_that_both_have_goes_on():
    a = msgspec.structs.replace(A, trunk=77, taken=5)
    b = msgspec.structs.replace(B, trunk=77, taken=6)
    for outcome in greet(*pair(a, b)):
        assert outcome.trunk == 77 and outcome.is_resumed
        assert {outcome.own.taken, outcome.peer.taken} == {5, 6}


@pytest.mark.parametrize(("mine", "yours"), [(77, 78), (77, 0), (0, 78), (0, 0)])
def test_any_other_does_not(mine, yours):
    a, b = msgspec.structs.replace(A, trunk=mine), msgspec.structs.replace(B, trunk=yours)
    ours, theirs = greet(*pair(a, b))
    assert not ours.is_resumed and not theirs.is_resumed
    assert ours.trunk == theirs.trunk not in (mine, yours)


def test_when_it_was_said_is_when_the_own_hello_went_out():
    clock = Clock()
    dialer, listener = pair(clock=clock)
    opening = dialer.begin()
    clock.time = 101.0
    reply = listener.feed(opening)
    clock.time = 102.0
    proof = dialer.feed(reply)
    clock.time = 103.0
    dialer.feed(listener.feed(proof))
    assert (dialer.outcome.said, listener.outcome.said) == (100.0, 101.0)


@given(st.data())
def test_pieces_make_no_difference(data):
    dialer, listener = pair()
    sent = {dialer: bytearray(dialer.begin()), listener: bytearray()}
    other = {dialer: listener, listener: dialer}
    while any(sent.values()):
        side = data.draw(st.sampled_from([side for side in sent if sent[side]]))
        size = data.draw(st.integers(1, len(sent[side])))
        piece = bytes(sent[side][:size])
        del sent[side][:size]
        sent[other[side]] += other[side].feed(piece)
    assert dialer.outcome.trunk == listener.outcome.trunk
    assert dialer.rest == listener.rest == b""


def test_what_comes_behind_is_kept_for_the_trunk():
    dialer, listener = pair()
    proof = dialer.feed(listener.feed(dialer.begin()))
    welcome = listener.feed(proof + b"first frame of the dialer")
    assert listener.rest == b"first frame of the dialer"
    behind = framed(b"x" * 100_000)
    assert dialer.feed(welcome + behind) == b""
    assert isinstance(dialer.outcome, Greeting) and dialer.rest == behind


# who is refused


def test_another_secret():
    ours, theirs = greet(*pair(secrets=((SECRET,), (OTHER,))))
    assert ours == theirs == Refused(hello.SECRET, None)


@pytest.mark.parametrize("secrets", [((SECRET, OTHER), (OTHER,)), ((SECRET,), (OTHER, SECRET))])
def test_one_in_common_is_enough(secrets):
    ours, theirs = greet(*pair(secrets=secrets))
    assert ours.trunk == theirs.trunk


def test_no_more_than_two_are_tried():
    ours, _ = greet(*pair(secrets=((b"1", b"2", SECRET), (SECRET,))))
    assert ours == Refused(hello.SECRET, None)


@pytest.mark.parametrize("secrets", [((), (SECRET,)), ((SECRET,), ())])
def test_who_knows_no_secret_greets_nobody(secrets):
    assert greet(*pair(secrets=secrets)) == (Refused(hello.NO_SECRET, None),) * 2


def test_another_node_than_was_meant():
    assert greet(*pair(meant="c:1")) == (Refused(hello.NOT_ME, None),) * 2


def test_a_listener_that_was_not_meant_says_so_at_once():
    dialer, listener = pair(meant="c:1")
    listener.feed(dialer.begin())
    assert listener.outcome == Refused(hello.NOT_ME, None)


def test_a_listener_that_is_not_who_was_meant_and_says_nothing_of_it():
    dialer, listener = pair(meant="c:1")
    honest, _ = pair(meant="b:1")
    dialer.begin()
    dialer.feed(listener.feed(honest.begin()))
    assert dialer.outcome == Refused(hello.NOT_ME, None)


@pytest.mark.parametrize(
    ("lowest", "highest", "agreed"), [(1, 1, 1), (1, 9, 3), (3, 9, 3), (2, 2, 2), (4, 9, None)]
)
def test_the_highest_common_protocol(monkeypatch, lowest, highest, agreed):
    """The listener speaks 1 to 3."""
    dialer, listener = pair()
    monkeypatch.setattr(hello, "LOWEST", lowest)
    monkeypatch.setattr(hello, "HIGHEST", highest)
    opening = dialer.begin()
    monkeypatch.setattr(hello, "LOWEST", 1)
    monkeypatch.setattr(hello, "HIGHEST", 3)
    reply = listener.feed(opening)
    monkeypatch.setattr(hello, "LOWEST", lowest)
    monkeypatch.setattr(hello, "HIGHEST", highest)
    listener.feed(dialer.feed(reply))
    if agreed is None:
        assert dialer.outcome == listener.outcome == Refused(hello.PROTOCOL, None)
    else:
        assert dialer.outcome is None and listener.outcome.protocol == agreed


def test_a_protocol_that_was_not_offered():
    dialer, _ = pair()
    dialer.begin()
    reply = msgspec.msgpack.encode([2, hello.HIGHEST + 1, b"n" * 32, B])
    dialer.feed(framed(reply))
    assert dialer.outcome == Refused(hello.PROTOCOL, None)


def test_who_dials_out_of_turn_is_known_by_then():
    ours, theirs = greet(*pair(B, A, meant="a:1"))
    assert ours == Refused(hello.TURN, A) and theirs == Refused(hello.TURN, B)


@pytest.mark.parametrize("meant", ["a:1", ""])
def test_anybody_may_knock(meant):
    ours, theirs = greet(*pair(B, A, meant=meant, is_knock=True))
    assert ours.is_knock and theirs.is_knock
    assert (ours.peer, theirs.peer) == (A, B)


def test_who_means_nobody_only_knocks():
    ours, theirs = greet(*pair(meant=""))
    assert ours.is_knock and theirs.is_knock


@pytest.mark.parametrize("incarnation", [6, 7, 8])
def test_a_namesake_is_known_on_both_sides(incarnation):
    other = msgspec.structs.replace(A, incarnation=incarnation)
    ours, theirs = greet(*pair(A, other, meant=""))
    assert ours == Refused(hello.NAMESAKE, other) and theirs == Refused(hello.NAMESAKE, A)


def test_a_refusal_that_is_not_proved_proves_nothing():
    dialer, _ = pair()
    dialer.begin()
    dialer.feed(framed(msgspec.msgpack.encode([5, hello.NAMESAKE])))
    assert dialer.outcome == Refused(hello.NAMESAKE, None)


def test_a_refusal_is_no_place_for_texts_of_strangers():
    dialer, _ = pair()
    dialer.begin()
    dialer.feed(framed(msgspec.msgpack.encode([5, "no\nlog line"])))
    assert dialer.outcome == Refused(hello.RUBBISH, None)


# who is in between


@given(st.integers(0, 2), st.data())
def test_whatever_is_changed_on_the_way_is_noticed(number, data):
    """Of the opening, the reply and the proof: by the listener, so that nobody is let in. A byte of the
    frame's length is not among them.
    """

    def tampered(at, message):
        if at != number:
            return message
        index = data.draw(st.integers(4, len(message) - 1))
        changed = bytearray(message)
        changed[index] ^= data.draw(st.integers(1, 255))
        return bytes(changed)

    ours, theirs = greet(*pair(), tampered=tampered)
    assert not isinstance(ours, Greeting) and not isinstance(theirs, Greeting)


@given(st.data())
def test_a_welcome_that_was_changed_is_none(data):
    def tampered(at, message):
        if at != 3:
            return message
        index = data.draw(st.integers(4, len(message) - 1))
        return (
            message[:index] + bytes([message[index] ^ data.draw(st.integers(1, 255))]) + message[index + 1 :]
        )

    ours, _ = greet(*pair(), tampered=tampered)
    assert not isinstance(ours, Greeting)
    assert ours is None or ours.peer is None


def test_a_reason_against_it_cannot_be_taken_from_a_welcome():
    """Nor put into one: the proof is over it."""

    def tampered(at, message):
        if at != 3:
            return message
        tag, proof, _ = msgspec.msgpack.decode(message[4:])
        return framed(msgspec.msgpack.encode([tag, proof, ""]))

    ours, _ = greet(*pair(B, A, meant="a:1"), tampered=tampered)
    assert ours == Refused(hello.SECRET, None)


def test_what_was_heard_cannot_be_said_again():
    heard = []
    greet(*pair(), tampered=lambda number, message: heard.append(message) or message)
    _, listener = pair()
    listener.feed(heard[0])
    listener.feed(heard[2])
    assert listener.outcome == Refused(hello.SECRET, None)


def test_a_listener_cannot_be_shown_its_own_proof():
    """Who does not know the secret has a listener prove itself to another one of the same node."""
    ours, _ = pair()
    _, listener = pair()
    reply = listener.feed(ours.begin())
    proof = msgspec.msgpack.decode(ours.feed(reply)[4:])[1][0]
    fake = Dialer(A, "b:1", (b"guess",), lambda: 1.0)
    _, other = pair()
    fake.feed(other.feed(fake.begin()))
    other.outcome = None
    other.feed(framed(msgspec.msgpack.encode([3, [proof]])))
    assert other.outcome == Refused(hello.SECRET, None)


def test_a_stranger_is_given_nothing_to_try_secrets_on():
    sent = []
    greet(*pair(secrets=((b"guess",), (SECRET,))), tampered=lambda number, data: sent.append(data) or data)
    tags = [msgspec.msgpack.decode(message[4:])[0] for message in sent]
    assert tags == [1, 2, 3, 5]


# rubbish

MESSAGES = st.one_of(
    st.binary(max_size=200),
    st.lists(
        st.one_of(st.integers(), st.binary(max_size=40), st.text(max_size=10), st.booleans(), st.none()),
        max_size=8,
    ).map(lambda value: framed(msgspec.msgpack.encode([x for x in value if not huge(x)]))),
)


def huge(value):
    return isinstance(value, int) and not -(2**63) <= value < 2**64


@given(st.lists(MESSAGES, max_size=6), st.booleans(), st.integers(0, 2))
def test_rubbish_ends_in_a_refusal_or_waits_for_more(messages, is_listener, after):
    dialer, listener = pair()
    data = dialer.begin()
    for number in range(after):
        data = (listener, dialer)[number % 2].feed(data)
    side = listener if is_listener else dialer
    for message in messages:
        if side.outcome is None:
            side.feed(message)
            assert side.outcome is not None or len(side.rest) < 4 + hello.LONGEST
    assert side.outcome is None or side.outcome.peer is None


@pytest.mark.parametrize("size", [hello.LONGEST + 1, 0xFFFFFFFF])
def test_a_message_that_is_too_long_is_not_waited_for(size):
    _, listener = pair()
    assert listener.feed(size.to_bytes(4, "big")) == framed(msgspec.msgpack.encode([5, hello.RUBBISH]))
    assert listener.outcome == Refused(hello.RUBBISH, None)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xc1",
        b"\x91" * 3000,
        msgspec.msgpack.encode([1, "smtp", 1, 1, b"n" * 32, "", False, A]),
        msgspec.msgpack.encode([1, "xmppd-trunk", 1, 1, b"short", "", False, A]),
        msgspec.msgpack.encode([1, "xmppd-trunk", 0, 1, b"n" * 32, "", False, A]),
        msgspec.msgpack.encode([1, "xmppd-trunk", 1, 1, b"n" * 32, "", False, ["", 1, 0, 0, [], ""]]),
        msgspec.msgpack.encode([1, "xmppd-trunk", 1, 1, b"n" * 32, "", False, ["a", -1, 0, 0, [], ""]]),
        msgspec.msgpack.encode([1, "xmppd-trunk", 1, 1, b"n" * 32, "", False, ["a", 1, 0, 0, ["x"] * 9, ""]]),
        msgspec.msgpack.encode([3, [b"p" * 32]]),
        msgspec.msgpack.encode([3, [b"p" * 32] * 3]),
        msgspec.msgpack.encode([4, b"p" * 32, ""]),
    ],
)
def test_what_is_no_opening(message):
    _, listener = pair()
    listener.feed(framed(message))
    assert listener.outcome == Refused(hello.RUBBISH, None)


def test_a_second_opening_is_none():
    dialer, listener = pair()
    opening = dialer.begin()
    listener.feed(opening)
    listener.feed(opening)
    assert listener.outcome == Refused(hello.RUBBISH, None)


def test_later_versions_may_say_more():
    dialer, listener = pair()
    message = msgspec.msgpack.decode(dialer.begin()[4:])
    message[-1].append("more")
    listener.feed(framed(msgspec.msgpack.encode([*message, "and more"])))
    assert listener.outcome is None
