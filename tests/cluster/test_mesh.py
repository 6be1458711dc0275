"""When a node writes to another one: at the end of a turn, in a while, and what it acknowledges alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from xmppd.cluster.member import LINGER_SECONDS, PACE_SECONDS, Marks, Member
from xmppd.cluster.mesh import ACK_SECONDS, QUIET_ACK_SECONDS, QUIET_SECONDS, Mesh, Met
from xmppd.cluster.records import TOP, Bye, Frame, Gone, Hint, Message, Presence, Record, decode, encode
from xmppd.core.ids import HybridClock
from xmppd.core.output import Cork, Outlet
from xmppd.core.sessions import Sessions

QUIET_RECORD = Presence("eve@localhost/x", b"<presence", b"/>", False, ["bob@localhost"])
MESSAGE = Message(1, "bob@localhost", "eve@localhost/x", TOP, False, b"<message/>")


class Paper:
    """Keeps the frames that were written."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def write(self, frames: list[bytes]) -> None:
        self.frames += [decode(memoryview(data)[4:]) for data in frames]

    def close(self) -> None:
        """Nothing more is written."""


class Talk:
    """A mesh with one member, and what it wants to do later: `timers` are how soon, and what."""

    def __init__(self, call_soon: Callable[[Callable[[], None]], object] = lambda do: do()) -> None:
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.paper = Paper()
        due: list[Outlet] = []
        self.sessions = sessions = Sessions(Cork(call_soon), lambda: 0.0)
        self.mesh = Mesh(
            "here:1", 1, sessions, due.append, lambda: self.now, self.call_later, HybridClock(lambda: 0.0)
        )
        self.mesh.compile(dict.fromkeys((Presence, Message), lambda member, record: None), ())
        self.member: Member = self.mesh.met(Met("there:1", 1, 1, 0, 0.0), self.paper)
        self._due = due
        self.turn()
        self._said = 0

    def call_later(self, seconds: float, do: Callable[[], None]) -> None:
        self.timers.append((seconds, do))

    def turn(self) -> None:
        """The end of a turn of the loop, in which nothing was written lately."""
        self.now += 0.1
        self.end_turn()

    def end_turn(self) -> None:
        """The same, and no time has passed."""
        due, self._due[:] = [*self._due], []
        for outlet in due:
            outlet.flush()

    def hear(self, *records: Record) -> None:
        """A frame of the member comes."""
        self._said += 1
        self.mesh.received(self.member, self.paper, encode(Frame(self._said, 0, [], [], [*records]))[4:])

    def ring(self, seconds: float) -> None:
        """The timers of so many seconds go off."""
        due = [do for when, do in self.timers if when == seconds]
        self.timers = [timer for timer in self.timers if timer[0] != seconds]
        for do in due:
            do()

    @property
    def waits(self) -> list[float]:
        """How soon each timer goes off."""
        return [seconds for seconds, _ in self.timers]


def test_what_nobody_waits_for_is_acknowledged_with_what_is_said_meanwhile():
    talk = Talk()
    talk.hear(QUIET_RECORD)
    talk.hear(QUIET_RECORD)
    talk.turn()
    assert (talk.waits, talk.paper.frames) == ([QUIET_ACK_SECONDS], [])
    talk.mesh.send(talk.member, Gone("bob@localhost", "x", 1))
    talk.turn()
    [frame] = talk.paper.frames
    assert (frame.seq, frame.ack) == (1, 2)
    talk.ring(QUIET_ACK_SECONDS)
    assert len(talk.paper.frames) == 1


def test_it_is_acknowledged_alone_where_nothing_is_said():
    talk = Talk()
    talk.hear(QUIET_RECORD)
    talk.ring(QUIET_ACK_SECONDS)
    assert [(frame.seq, frame.ack) for frame in talk.paper.frames] == [(0, 1)]
    talk.hear(QUIET_RECORD)
    assert talk.waits == [QUIET_ACK_SECONDS]


def test_what_somebody_waits_for_is_acknowledged_soon():
    talk = Talk()
    talk.hear(QUIET_RECORD)
    talk.hear(QUIET_RECORD, MESSAGE)
    assert talk.waits == [QUIET_ACK_SECONDS, ACK_SECONDS]
    talk.ring(ACK_SECONDS)
    assert [frame.ack for frame in talk.paper.frames] == [2]
    talk.hear(MESSAGE)
    talk.hear(QUIET_RECORD)
    assert talk.waits == [QUIET_ACK_SECONDS, ACK_SECONDS]


def test_a_sign_of_life_is_acknowledged_soon():
    talk = Talk()
    talk.hear()
    assert talk.waits == [ACK_SECONDS]


def test_what_has_time_goes_with_what_is_said_next():
    talk = Talk()
    talk.now += 1
    gone = Gone("bob@localhost", "x", 1)
    assert talk.mesh.mention(talk.member, gone) == 1
    talk.turn()
    assert (talk.waits, talk.paper.frames) == ([LINGER_SECONDS], [])
    assert talk.mesh.send(talk.member, QUIET_RECORD) == 1
    talk.turn()
    assert [frame.records for frame in talk.paper.frames] == [[gone, QUIET_RECORD]]
    talk.ring(LINGER_SECONDS)
    assert len(talk.paper.frames) == 1


def test_what_has_time_is_said_before_long():
    talk = Talk()
    talk.now += 1
    gone = Gone("bob@localhost", "x", 1)
    talk.mesh.mention(talk.member, gone)
    talk.mesh.mention(talk.member, gone)
    assert talk.waits == [LINGER_SECONDS]
    talk.ring(LINGER_SECONDS)
    assert [frame.records for frame in talk.paper.frames] == [[gone, gone]]
    talk.mesh.mention(talk.member, gone)
    assert talk.waits == [pytest.approx(PACE_SECONDS)], "as what nobody waits for, behind a frame"
    talk.now += PACE_SECONDS - LINGER_SECONDS / 2
    talk.ring(talk.waits[0])
    talk.now += PACE_SECONDS - LINGER_SECONDS / 2
    talk.mesh.mention(talk.member, gone)
    assert talk.waits == [LINGER_SECONDS]


def test_what_nobody_waits_for_shares_frames_soon_after_another_one():
    talk = Talk()
    talk.now += 1
    talk.mesh.send(talk.member, QUIET_RECORD)
    talk.end_turn()
    assert len(talk.paper.frames) == 1  # at once, for nothing was written before
    talk.now += PACE_SECONDS / 4
    for _ in range(3):
        talk.mesh.send(talk.member, QUIET_RECORD)
        talk.end_turn()
    assert talk.waits == [pytest.approx(PACE_SECONDS * 3 / 4)]
    assert len(talk.paper.frames) == 1
    talk.ring(*talk.waits)
    assert [len(frame.records) for frame in talk.paper.frames] == [1, 3]


def test_what_has_time_is_not_written_because_something_came():
    talk = Talk()
    talk.now += 1
    talk.mesh.send(talk.member, QUIET_RECORD)
    talk.end_turn()
    talk.now += PACE_SECONDS / 4
    talk.mesh.send(talk.member, QUIET_RECORD)
    talk.hear(QUIET_RECORD)
    talk.mesh.send(talk.member, QUIET_RECORD)
    talk.end_turn()
    assert len(talk.paper.frames) == 1
    talk.ring(talk.waits[0])
    assert [(frame.ack, len(frame.records)) for frame in talk.paper.frames] == [(0, 1), (0, 1), (1, 1)]
    talk.hear(MESSAGE)
    assert talk.waits == [QUIET_ACK_SECONDS, ACK_SECONDS]


def test_what_somebody_waits_for_is_said_at_once_and_all_before_it():
    talk = Talk()
    talk.now += 1
    talk.mesh.send(talk.member, QUIET_RECORD)
    talk.end_turn()
    talk.now += PACE_SECONDS * 3 / 4
    talk.mesh.send(talk.member, QUIET_RECORD)
    talk.mesh.send(talk.member, Hint("bob@localhost"))
    talk.end_turn()
    assert [frame.records for frame in talk.paper.frames[1:]] == [[QUIET_RECORD, Hint("bob@localhost")]]


def test_a_time_that_was_set_before_a_sooner_one_changes_nothing():
    talk = Talk()
    talk.now += 1
    gone = Gone("bob@localhost", "x", 1)
    late, soon = 2.0, 1.0
    talk.mesh.mention(talk.member, gone)
    talk.ring(LINGER_SECONDS)
    talk.paper.frames.clear()
    talk.member.linger(late)
    talk.member.linger(soon)
    talk.mesh.member(1).trunk.send(gone, 64)
    talk.ring(soon)
    assert [len(frame.records) for frame in talk.paper.frames] == [1]
    talk.mesh.member(1).trunk.send(gone, 64)
    talk.member.linger(soon)
    talk.ring(late)  # the first one
    assert len(talk.paper.frames) == 1
    talk.member.linger(late)
    assert talk.waits == [soon], "one time for both"


class Written:
    """A session that is given what comes, and the other node: `order` is who was written to."""

    full = "bob@localhost/x"

    def __init__(self) -> None:
        self.order: list[str] = []
        self.turns: list[Callable[[], None]] = []
        self.timers: list[Callable[[], None]] = []
        self.cork = Cork(self.turns.append)
        self.mesh = Mesh(
            *("here:1", 1, Sessions(self.cork, lambda: 0.0), self.cork.add_last, lambda: 0.0),
            *(lambda seconds, do: self.timers.append(do), HybridClock(lambda: 0.0)),
        )
        self.mesh.compile({Message: lambda member, record: self.cork.add(self)}, ())
        self.member: Member = self.mesh.met(Met("there:1", 1, 1, 0, 0.0), self)
        self.turns.pop()()
        self.order.clear()
        self.timers.clear()
        self.said = 0

    def flush(self) -> None:
        self.order.append("session")

    def write(self, frames: list[bytes]) -> None:
        self.order += [f"node {decode(memoryview(data)[4:]).ack}" for data in frames]

    def close(self) -> None:
        """Nothing more is written."""

    def hear(self) -> None:
        self.said += 1
        self.mesh.received(self.member, self, encode(Frame(self.said, 0, [], [], [MESSAGE]))[4:])


def test_what_was_to_be_written_before_something_came_goes_behind_that():
    written = Written()
    written.member._flushed = -1.0
    written.mesh.send(written.member, Hint("bob@localhost"))
    written.hear()
    written.mesh.send(written.member, Hint("bob@localhost"))
    written.turns.pop()()
    assert written.order == ["session", "node 0", "node 1"]


@pytest.mark.parametrize("why", ["acknowledged", "lingers", "was close", "beats"])
def test_what_is_written_in_a_while_goes_behind_what_just_came(why: str):
    written = Written()
    written.hear()
    [acknowledge] = written.timers
    written.turns.pop()()
    written.order.clear()
    if why == "lingers":
        written.mesh.mention(written.member, QUIET_RECORD)
    elif why == "was close":
        written.member._flushed = 0.0
        written.mesh.send(written.member, Hint("bob@localhost"))
        written.turns.pop()()
    later = {"acknowledged": acknowledge, "beats": written.mesh.tick}.get(why) or written.timers[-1]
    written.hear()
    later()
    assert written.order == []
    written.turns.pop()()
    assert written.order in (["session", "node 1"], ["session", "node 2"])
    assert not written.turns


def test_marks_that_wait_for_frames_behind_one():
    marks = Marks()
    for name, frame in (("a", 1), ("b", 2), ("c", 2), ("c", 2), ("b", 3)):
        marks.put(name, frame)
    marks.drop("c")
    marks.put("c", 3)
    marks.put("c", 3)
    assert [*marks.behind(1)] == [*marks.behind(2)] == ["b", "c"]
    assert [*marks.behind(0)] == ["a", "b", "c"]
    assert [*marks.behind(3)] == []
    marks.acknowledged(2)
    assert ("a" in marks, "b" in marks, "c" in marks) == (False, True, True)


@pytest.mark.asyncio
async def test_a_node_is_said_to_be_gone_before_its_next_life_is_met():
    talk, told = Talk(asyncio.get_running_loop().call_soon), []

    class Watching:
        def met(self, member: Member) -> None:
            told.append(("met", member.incarnation))

        def joined(self, member: Member) -> None:
            """Nothing more."""

        def lost(self, member: Member) -> Iterator[None]:
            told.append(("taken apart", member.incarnation))
            yield

    def other_work() -> Iterator[None]:
        while is_busy:
            yield

    is_busy, index = [True], talk.member.index
    rounds = talk.sessions.rounds
    rounds.do("other", other_work(), is_short=False)
    talk.mesh.compile({}, (Watching(),))
    talk.mesh.on_gone = lambda member: told.append(("gone", member.incarnation))
    talk.mesh.met(Met("there:1", 2, 2, 0, 0.0), Paper())
    assert told == [("gone", 1), ("met", 2)]
    is_busy.clear()
    rounds.finish(f"\nlost {index}")
    assert told == [("gone", 1), ("met", 2), ("taken apart", 1)]


@pytest.mark.asyncio
@pytest.mark.parametrize("end", ["silent", "bye", "anew"])
async def test_whoever_is_given_up_holds_nothing_until_it_is_met_again(end):
    """Where nodes reach each other by Redis alone, nothing but silence tells that a process has ended."""
    talk = Talk(asyncio.get_running_loop().call_soon)
    mesh, member = talk.mesh, talk.member
    name, life = member.name, member.incarnation
    assert not mesh.has_ended(life)
    if end == "silent":
        mesh.give_up(member, "it is silent")
    elif end == "bye":
        mesh.take_bye(member, Bye())
    else:
        mesh.met(Met(name, life + 1, 2, 0, 0.0), Paper())
    assert mesh.has_ended(life) and not mesh.has_ended(life + 1)
    mesh.met(Met(name, life, 3, 0, 0.0), Paper())
    assert not mesh.has_ended(life)


def test_who_is_not_heard_or_not_connected_is_quiet():
    talk = Talk()
    mesh, member = talk.mesh, talk.member
    mesh.tick()
    assert not mesh.quiet
    talk.now += QUIET_SECONDS + 0.1
    mesh.tick()
    assert mesh.quiet == {member}
    talk.hear()
    mesh.tick()
    assert not mesh.quiet
    mesh.disconnected(member, talk.paper)
    mesh.tick()
    assert mesh.quiet == {member}
