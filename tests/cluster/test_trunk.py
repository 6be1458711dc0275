"""A trunk, rule by rule."""

import pytest

from xmppd.cluster import trunk as trunks
from xmppd.cluster.records import Bye, Frame, Hint, Iq, Late, Record, Settled, decode, encode
from xmppd.cluster.trunk import LATE, Trunk
from xmppd.errors import TrunkError, TrustLost


class Clock:
    """Stands still until it is moved."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def trunk(clock) -> Trunk[str]:
    made: Trunk[str] = Trunk(clock, 7)
    assert made.resume(0, clock()) == []
    return made


def frame(seq: int, ack: int = 0, *records: Record, missed: tuple = (), held: tuple = ()) -> bytes:
    """What `take` is given."""
    return encode(Frame(seq, ack, list(missed), list(held), list(records)))[4:]


def flushed(trunk: Trunk) -> list[Frame]:
    return [decode(data[4:]) for data in trunk.flush()]


def post(trunk: Trunk, letter: str, size: int = 64) -> int:
    return trunk.post(Iq(trunk.next_id, "to", "from", b"<iq/>"), size, letter)


# frames


def test_what_is_sent_in_a_turn_is_one_frame(trunk):
    assert not trunk.is_waiting
    assert trunk.send(Hint("a")) == trunk.send(Hint("b")) == 1
    assert trunk.is_waiting and trunk.sent == 0
    assert flushed(trunk) == [Frame(1, 0, [], [], [Hint("a"), Hint("b")])]
    assert not trunk.is_waiting and trunk.sent == trunk.queued == 1
    assert trunk.send(Bye()) == trunk.queued == 2
    assert flushed(trunk) == [Frame(2, 0, [], [], [Bye()])]
    assert trunk.flush() == []


def test_a_record_takes_the_place_of_one_that_waits(trunk):
    trunk.send(Hint("a"))
    spot = trunk.spot
    trunk.send(Hint("b"))
    assert trunk.amend(spot, Hint("c"))
    assert [sent.records for sent in flushed(trunk)] == [[Hint("c"), Hint("b")]]
    assert not trunk.amend(spot, Hint("d"))
    trunk.send(Hint("e"))
    assert not trunk.amend(spot, Hint("f"))
    assert [sent.records for sent in flushed(trunk)] == [[Hint("e")]]


def test_a_frame_has_64_kib_unless_one_record_is_larger(trunk):
    half = trunks.FRAME_BYTES // 2
    numbers = [trunk.send(Hint(str(n)), size) for n, size in enumerate((half, half, 1, 100_000, 1))]
    assert numbers == [1, 1, 2, 3, 4]
    assert [[record.account for record in made.records] for made in flushed(trunk)] == [
        ["0", "1"], ["2"], ["3"], ["4"]
    ]  # fmt: skip
    assert trunk.sent == 4


def test_letters_are_settled_with_the_frame_they_are_in(trunk):
    post(trunk, "a", trunks.FRAME_BYTES)
    post(trunk, "b")
    assert len(trunk.flush()) == 2
    assert trunk.take(frame(0, 1)).settled == ["a"]
    assert list(trunk.unsettled) == ["b"]
    assert trunk.take(frame(0, 2)).settled == ["b"]


def test_it_is_known_how_long_the_last_frame_was_under_way(trunk, clock):
    for _ in range(2):
        trunk.send(Hint("a"))
        trunk.flush()
        clock.now += 0.25
    trunk.take(frame(1, 1))
    assert trunk.lag == 0.5
    trunk.take(frame(2, 2))
    assert trunk.lag == 0.25


def test_records_are_taken_in_order(trunk):
    assert trunk.take(frame(1, 0, Hint("a"), Bye())).records == [Hint("a"), Bye()]
    assert trunk.take(frame(2, 0, Hint("b"))).records == [Hint("b")]
    assert trunk.taken == 2


def test_a_frame_that_is_known_is_dropped(trunk, clock):
    trunk.take(frame(1, 0, Hint("a")))
    clock.now += 1
    assert trunk.take(frame(1, 0, Hint("a"))) is None
    assert trunk.taken == 1 and trunk.heard == clock.now


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (frame(2), TrustLost),
        (frame(-1, 1), TrustLost),
        (frame(1, 2), TrunkError),
        (frame(0, 2), TrunkError),
        (frame(0, 0, Bye()), TrunkError),
        (frame(0, 1, missed=((1, ""),)), TrunkError),
        (frame(0, 1, held=(1,)), TrunkError),
        (b"rubbish", TrunkError),
    ],
)
def test_what_cannot_be_taken_changes_nothing(trunk, clock, data, error):
    post(trunk, "a")
    trunk.flush()
    clock.now += 1
    with pytest.raises(TrunkError) as caught:
        trunk.take(data)
    assert type(caught.value) is error
    assert (trunk.taken, trunk.acked, trunk.heard, list(trunk.unsettled)) == (0, 0, 100.0, ["a"])


# acknowledgements


def test_an_acknowledgement_goes_with_records_or_alone(trunk):
    trunk.take(frame(1, 0, Bye()))
    assert trunk.owes_ack and not trunk.is_waiting
    assert flushed(trunk) == [Frame(0, 1, [], [], [])]
    assert not trunk.owes_ack and trunk.flush() == []
    trunk.take(frame(2))
    trunk.send(Bye())
    assert flushed(trunk) == [Frame(1, 2, [], [], [Bye()])]
    assert not trunk.owes_ack
    trunk.take(frame(3))
    assert flushed(trunk) == [Frame(-1, 3, [], [], [])], "behind frame 1, which may say what was missed"


def test_an_acknowledgement_alone_is_not_acknowledged(trunk):
    trunk.flush()
    trunk.take(frame(0, 0))
    assert not trunk.owes_ack


def test_an_acknowledgement_says_what_was_known_when_the_records_behind_it_were_made(trunk):
    trunk.take(frame(1))
    trunk.send(Hint("knows of 1"))
    trunk.take(frame(2))
    assert trunk.owes_ack
    trunk.send(Hint("knows of 2"))
    assert flushed(trunk) == [
        Frame(1, 1, [], [], [Hint("knows of 1")]),
        Frame(2, 2, [], [], [Hint("knows of 2")]),
    ]


def test_what_was_missed_is_said_with_the_acknowledgement_even_if_nothing_else_is(trunk):
    trunk.take(frame(1, 0, Iq(5, "to", "from", b"")))
    assert trunk.miss(5, "forbidden") == 1
    assert flushed(trunk) == [Frame(1, 1, [(5, "forbidden")], [], [])]
    assert trunk.queued == trunk.sent == 1 and not trunk.owes_ack


def test_what_was_missed_goes_before_an_acknowledgement_that_covers_it(trunk):
    trunk.take(frame(1, 0, Iq(5, "to", "from", b"")))
    trunk.miss(5)
    trunk.hold(6)
    trunk.send(Hint("a"), trunks.FRAME_BYTES)
    trunk.send(Hint("b"))
    first, second = flushed(trunk)
    assert (first.ack, first.missed, first.open) == (1, [(5, "")], [6])
    assert (second.ack, second.missed, second.open) == (1, [], [])


def test_a_letter_is_missed_or_settled(trunk):
    ids = [post(trunk, letter) for letter in "abc"]
    trunk.flush()
    taken = trunk.take(frame(1, 1, missed=((ids[1], "forbidden"),)))
    assert taken.missed == [("b", "forbidden")]
    assert taken.settled == ["a", "c"]
    assert list(trunk.unsettled) == [] and trunk.size == 0
    assert trunk.take(frame(2, 1, missed=((ids[1], "forbidden"), (ids[0], "")))).missed == []


def test_an_open_letter_is_settled_or_missed_later(trunk):
    ids = [post(trunk, letter, 1000) for letter in "abc"]
    trunk.flush()
    taken = trunk.take(frame(1, 1, held=(ids[0], ids[1], 99)))
    assert (taken.settled, taken.opened) == (["c"], ["a", "b"])
    assert list(trunk.unsettled) == ["a", "b"] and trunk.size == 2000
    taken = trunk.take(frame(2, 1, Hint("x"), Late([ids[0], ids[2]]), Settled([ids[1], ids[1]]), Hint("y")))
    assert (taken.missed, taken.settled) == ([("a", LATE)], ["b"])
    assert taken.records == [Hint("x"), Hint("y")]
    assert list(trunk.unsettled) == [] and trunk.size == 0


def test_what_is_held_and_over_in_one_frame_was_not_opened(trunk):
    ids = [post(trunk, letter) for letter in "ab"]
    trunk.flush()
    taken = trunk.take(frame(1, 1, Late([ids[0]]), Settled([ids[1]]), held=ids))
    assert taken == ([("a", LATE)], ["b"], [], [])


def test_what_was_held_is_said_to_be_over(trunk):
    trunk.take(frame(1))
    trunk.hold(1)
    trunk.hold(2)
    assert trunk.settle([1]) == trunk.lose([2]) == 1
    assert flushed(trunk) == [Frame(1, 1, [], [1, 2], [Settled([1]), Late([2])])]


# connections


def test_frames_that_were_not_taken_are_sent_again_and_nothing_else(trunk, clock):
    post(trunk, "a")
    first = trunk.flush()
    post(trunk, "b")
    second = trunk.flush()
    assert trunk.resume(0, clock()) == first + second
    assert trunk.resume(1, clock()) == second
    assert list(trunk.unsettled) == ["a", "b"], "only an acknowledgement says what was missed"
    trunk.take(frame(0, 1))
    assert trunk.resume(1, clock()) == trunk.resume(0, clock()) == second
    assert trunk.resume(2, clock()) == []
    with pytest.raises(TrunkError):
        trunk.resume(3, clock())


def test_what_was_closed_and_not_flushed_goes_once(trunk, clock):
    trunk.send(Hint("a"))
    trunk.take(frame(1))
    trunk.send(Hint("b"))
    assert [decode(data[4:]).records for data in trunk.resume(0, clock())] == [[Hint("a")]]
    assert [made.records for made in flushed(trunk)] == [[Hint("b")]]


def test_an_acknowledgement_that_may_be_lost_is_said_again(trunk, clock):
    trunk.take(frame(1))
    trunk.flush()
    trunk.resume(0, clock())
    assert flushed(trunk) == [Frame(0, 1, [], [], [])]


# time


def test_there_is_a_numbered_frame_every_half_second(trunk, clock):
    trunk.beat()
    assert trunk.is_waiting
    assert flushed(trunk) == [Frame(1, 0, [], [], [])]
    clock.now += 0.4
    trunk.beat()
    assert not trunk.is_waiting
    clock.now += 0.1
    trunk.beat()
    trunk.send(Bye())
    assert flushed(trunk) == [Frame(2, 0, [], [], [Bye()])]
    assert not trunk.is_waiting


def test_trust_is_a_frame_of_the_last_three_seconds_that_was_acknowledged(trunk, clock):
    clock.now += 2
    trunk.send(Bye())
    trunk.flush()
    clock.now += 1
    trunk.take(frame(1, 0, Hint("a")))
    clock.now += 0.1
    assert not trunk.is_trusted
    for data in (frame(2, 0, Hint("b")), frame(2)):
        with pytest.raises(TrustLost):
            trunk.take(data)
    assert trunk.taken == 1
    assert trunk.take(frame(2, 1, Hint("b"))).records == [Hint("b")]
    assert trunk.is_trusted
    clock.now += 1.9
    assert trunk.is_trusted
    clock.now += 0.1
    assert not trunk.is_trusted


def test_trust_that_was_lost_takes_nothing_with_it(trunk, clock):
    post(trunk, "a")
    trunk.flush()
    clock.now += 3.1
    with pytest.raises(TrustLost):
        trunk.take(frame(1, 1, Hint("b")))
    assert trunk.resume(1, clock()) == []
    taken = trunk.take(frame(1, 1, Hint("b")))
    assert (taken.settled, taken.records) == (["a"], [Hint("b")])


def test_an_acknowledgement_alone_needs_no_trust(trunk, clock):
    post(trunk, "a")
    trunk.flush()
    clock.now += 3.1
    assert trunk.take(frame(0, 1)).settled == ["a"]


def test_a_handshake_is_trusted_from_its_beginning(clock):
    trunk = Trunk(clock)
    with pytest.raises(TrustLost):
        trunk.take(frame(1))
    trunk.resume(0, clock.now - 2.5)
    trunk.take(frame(1))
    clock.now += 0.6
    with pytest.raises(TrustLost):
        trunk.take(frame(2))


def looks(trunk: Trunk, clock: Clock, count: int, step: float = 0.5) -> list[bool]:
    found = []
    for _ in range(count):
        clock.now += step
        found.append(trunk.look())
    return found


def test_who_is_silent_is_given_up_at_a_second_look(trunk, clock):
    assert looks(trunk, clock, 11) == [False] * 9 + [True] * 2


def test_looks_that_follow_too_quickly_are_one(trunk, clock):
    looks(trunk, clock, 8)
    assert looks(trunk, clock, 7, 0.125) == [False] * 7
    assert looks(trunk, clock, 1, 0.125) == [True]


def test_who_speaks_in_between_is_not_given_up(trunk, clock):
    assert looks(trunk, clock, 9) == [False] * 9
    trunk.take(frame(0, 0))
    assert looks(trunk, clock, 9) == [False] * 9


def test_a_new_connection_is_a_sign_of_life(trunk, clock):
    assert looks(trunk, clock, 9) == [False] * 9
    trunk.resume(0, clock())
    assert looks(trunk, clock, 10) == [False] * 9 + [True]


def test_who_stood_still_looks_again_before_it_judges(trunk, clock):
    assert looks(trunk, clock, 9) == [False] * 9
    assert looks(trunk, clock, 1, 20.0) == [False]
    assert looks(trunk, clock, 1) == [True]


def test_who_takes_nothing_is_given_up_too(trunk, clock):
    found = []
    trunk.beat()
    trunk.flush()
    for _ in range(13):
        clock.now += 0.5
        trunk.take(frame(0, 0))
        found.append(trunk.look())
    assert found == [False] * 12 + [True]


def test_that_begins_anew_with_a_connection(trunk, clock):
    trunk.beat()
    trunk.flush()
    clock.now += 5
    trunk.resume(0, clock())
    clock.now += 2
    trunk.take(frame(0, 0))
    assert looks(trunk, clock, 3, 0.5) == [False] * 3


# bounds


def test_many_unsent_bytes_are_full(trunk):
    for _ in range(15):
        trunk.send(Bye(), trunks.FRAME_BYTES)
    assert not trunk.is_full
    trunk.send(Bye(), trunks.FRAME_BYTES)
    assert trunk.is_full
    trunk.flush()
    assert not trunk.is_full


def test_what_was_closed_and_not_flushed_counts_as_unsent(trunk):
    for _ in range(17):
        trunk.send(Hint("x" * trunks.FRAME_BYTES), trunks.FRAME_BYTES)
    trunk.take(frame(1))
    assert trunk.is_full
    trunk.flush()
    assert not trunk.is_full


def test_a_large_window_is_full(trunk):
    size = 0
    while not trunk.is_full:
        trunk.send(Hint("x" * trunks.FRAME_BYTES), trunks.FRAME_BYTES)
        size += sum(map(len, trunk.flush()))
    assert size == trunk.size >= trunks.WINDOW_BYTES
    trunk.take(frame(0, 1))
    assert not trunk.is_full


def test_open_letters_count_as_window(trunk):
    id = post(trunk, "a", trunks.WINDOW_BYTES)
    trunk.flush()
    assert not trunk.is_full
    trunk.take(frame(1, 1, held=(id,)))
    assert trunk.is_full
    trunk.take(frame(2, 1, Settled([id])))
    assert not trunk.is_full


def test_many_letters_are_full(trunk, monkeypatch):
    monkeypatch.setattr(trunks, "LETTERS", 3)
    ids = [post(trunk, letter) for letter in "abc"]
    trunk.flush()
    assert trunk.is_full
    trunk.take(frame(1, 1, held=ids))
    assert trunk.is_full
    trunk.take(frame(2, 1, Late([ids[0]])))
    assert not trunk.is_full
