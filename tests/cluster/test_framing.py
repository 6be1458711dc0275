"""Frames on a stream of bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmppd.cluster.framing import LONGEST_FRAME, Frames, framed
from xmppd.errors import TrunkError


@given(st.lists(st.binary(max_size=300), max_size=8), st.data())
def test_frames_are_cut_from_any_pieces(frames, data):
    stream = b"".join(framed(frame) for frame in frames)
    cutter, found = Frames(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += cutter.feed(stream[:size])
        stream = stream[size:]
    assert found == frames


def test_one_that_is_too_long_is_not_waited_for():
    frames = Frames(10)
    assert frames.feed(framed(b"x" * 10)) == [b"x" * 10]
    with pytest.raises(TrunkError, match="a frame of 11 bytes is announced, 10 are allowed"):
        frames.feed((11).to_bytes(4, "big"))


def test_a_record_as_large_as_any_stanza_fits():
    frame = bytes(LONGEST_FRAME)
    assert Frames().feed(framed(frame)) == [frame]
