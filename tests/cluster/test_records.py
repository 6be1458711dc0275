"""Frames: what is packed is unpacked, what is not known is skipped or refused, and rubbish is refused."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmppd.cluster import records
from xmppd.cluster.calls import LONGEST, text_of
from xmppd.cluster.framing import Frames
from xmppd.cluster.records import Frame, Record, decode, encode
from xmppd.core.brake import Counted
from xmppd.errors import TrunkError

EXAMPLES = [
    records.Place("bob@localhost", "phone", -1, 7, 12),
    records.Place("bob@localhost", "phone", None, 2**32 - 1, 0),
    records.Place("bob@localhost", "phone", 0, 7, 12, True),
    records.Gone("bob@localhost", "phone", 7),
    records.Snapshot([("bob@localhost", "phone", 5, 7), ("eve@localhost", "\N{SNOWMAN}", None, 8)], True),
    records.Snapshot([("bob@localhost", "phone", 5, 7), ("bob@localhost", "pc", 5, 8)], True, [8]),
    records.Presence("bob@localhost/phone", b"<presence from='x'", b"><show/>", False, ["eve@localhost"]),
    records.Presence("bob@localhost/phone", b"<presence", b"/>", True, ["eve@localhost"], True),
    records.Directed("bob@localhost/phone", "eve@localhost", b"<presence/>", False),
    records.Directed("bob@localhost/phone", "eve@localhost", b"<presence/>", True, True),
    records.Probe("bob@localhost/phone", ["eve@localhost"]),
    records.Shown(
        "bob@localhost/phone", "carol@localhost/x\neve@localhost/\N{SNOWMAN}", [b"<presence/>", b""]
    ),
    records.Ask("bob@localhost/phone", "eve@localhost/pc"),
    records.Have("bob@localhost", "phone", 7, (1_700_000_000_000, "one"), 0),
    records.Message(9, "bob@localhost", "eve@localhost/pc", records.ALL, True, b"<message/>"),
    records.Iq(9, "bob@localhost/phone", "eve@localhost/pc", b"<iq/>"),
    records.Late([1, 2]),
    records.Settled([3]),
    records.Hint("bob@localhost"),
    records.Stanza("bob@localhost", True, b"<presence type='subscribed'/>"),
    records.Roster("bob@localhost", 4),
    records.Words("bob@localhost"),
    records.Signal("mute", "set", "{}"),
    records.Call(3, "session list", "{}"),
    records.Reply(3, "[]", ""),
    records.Bye(),
    records.Sight("bob@localhost", "eve@localhost", True),
    records.Spent("bob@localhost", True, False, 3, 1_700_000_000.5),
    records.Copy("bob@localhost", "bob@localhost/pc", b"<message", b"/>", True),
    records.Running(["archive", "ping"], ["archive"]),
    records.Doubted("bob@localhost"),
    records.Guesses([Counted("192.0.2.7", "bob@localhost", True, 3, 1.5)], True, [7.5]),
]


def test_there_is_an_example_of_each_record():
    assert {type(example) for example in EXAMPLES} == set(Record.__args__)


def test_a_frame_is_what_was_packed_behind_its_length():
    frame = Frame(8, 5, [(2, "forbidden")], [3], EXAMPLES)
    data = encode(frame)
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    assert decode(data[4:]) == frame == decode(memoryview(data)[4:])


def test_the_longest_answer_fits_a_frame():
    """Another node ends the connection of a longer one, and is sent it again on the next."""
    text = text_of("an answer", '\N{SNOWMAN}"' * (LONGEST // 16))
    frame = Frame(8, 5, [(2, "forbidden")], [3] * 1000, [records.Reply(2**40, text.ljust(LONGEST), "")])
    data = encode(frame)
    [taken] = Frames().feed(data)
    assert decode(taken) == frame


def test_tags_do_not_change():
    """Nodes of two versions speak with each other."""
    tags = {type(example).__name__: msgspec.to_builtins(example)[0] for example in EXAMPLES}
    assert tags == {
        "Place": 1, "Gone": 2, "Snapshot": 3, "Presence": 4, "Directed": 5, "Probe": 6, "Shown": 7, "Ask": 8,
        "Have": 9, "Message": 10, "Iq": 11, "Late": 12, "Settled": 13, "Hint": 14, "Stanza": 15, "Roster": 16,
        "Words": 17, "Signal": 18, "Call": 19, "Reply": 20, "Bye": 21, "Guesses": 1000, "Sight": 1001,
        "Spent": 1002, "Copy": 1003, "Running": 1004, "Doubted": 1005,
    }  # fmt: skip


def packed(*raw_records: object) -> bytes:
    return msgspec.msgpack.encode([1, 0, [], [], list(raw_records)])


def test_optional_records_that_are_not_known_are_skipped():
    assert decode(packed([1000, "new"], [14, "bob@localhost"], [2000])).records == [
        records.Hint("bob@localhost")
    ]


def test_places_of_nodes_that_know_nothing_of_copies_want_none():
    place, some = decode(packed([1, "bob@localhost", "pc", 0, 7, 12], [3, [], True])).records
    assert (place.wants_copies, some.copied) == (False, [])


def test_optional_records_that_are_known_are_taken_beside_others():
    sight = [1001, "bob@localhost", "eve@localhost", True]
    assert decode(packed([2000], sight)).records == [records.Sight("bob@localhost", "eve@localhost", True)]


def test_more_elements_than_are_known_are_skipped():
    assert decode(packed([14, "bob@localhost", "new", [1]])).records == [records.Hint("bob@localhost")]


def test_what_nodes_of_the_version_before_leave_out_is_false():
    shown = packed(
        [4, "bob@localhost/phone", b"", b"", True, []], [5, "bob@localhost/phone", "eve", b"", True]
    )
    assert [record.is_moved for record in decode(shown).records] == [False, False]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        packed()[:-1],
        packed() + b"\0",
        packed([999, "new"]),
        packed([1000], [14, 3]),
        packed([]),
        packed("text"),
        packed(["14", "bob@localhost"]),
        packed([14]),
        packed([1, "bob@localhost", "phone", 128, 7, 0]),
        packed([1, "bob@localhost", "phone", 1, 2**32, 0]),
        packed([1, "bob@localhost", "", 1, 7, 0]),
        packed([1, "bob@localhost", "r" * 1024, 1, 7, 0]),
        packed([10, 1, "bob@localhost", "eve@localhost/pc", 4, False, b""]),
        msgspec.msgpack.encode([1, -1, [], [], []]),
        msgspec.msgpack.encode([1, 0, [], []]),
        msgspec.msgpack.encode([1, 0, [3], [], []]),
        b"\x95\x01\x00\x90\x90\x91\x92\x0e\xa2\xff\xfe",
        b"\x95\x01\x00\x90\x90\xdd\xff\xff\xff\xff",
        b"\x95\x01\x00\x90\x90" + b"\x91" * 100_000,
    ],
)
def test_anything_else_is_no_frame(data):
    with pytest.raises(TrunkError):
        decode(data)


@given(st.binary(max_size=200))
def test_rubbish_is_refused_in_one_way(data):
    try:
        frame = decode(data)
    except TrunkError:
        return
    assert decode(encode(frame)[4:]) == frame


@given(st.integers(0, 2000), st.integers(0, 255))
def test_spoilt_frames_are_refused_in_one_way(place, value):
    data = bytearray(encode(Frame(8, 5, [(2, "forbidden")], [3], EXAMPLES))[4:])
    data[place % len(data)] = value
    try:
        decode(data)
    except TrunkError:
        return
