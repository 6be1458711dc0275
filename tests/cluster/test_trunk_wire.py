"""Two trunks joined by connections that end at any moment: everything arrives once and in order, letters come
back as what became of them, and an acknowledgement says no more than its sender knew. A rule that is switched
off is found out.
"""

from collections import deque
from collections.abc import Callable, Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmppd.cluster import trunk as trunks
from xmppd.cluster.records import Frame, Iq, Late, Record, Signal, decode, encode
from xmppd.cluster.trunk import LATE, Taken, Trunk
from xmppd.errors import TrunkError, TrustLost

SMALL, LARGE = 64, trunks.FRAME_BYTES
QUIET_AFTER = 50
"""Rounds in which both sides flush and read, without faults; by then all has to be over."""

Step = tuple[str, int, int]
STEPS = ("send", "send large", "post", "post", "post large", "flush", "flush", "read", "read", "read", "wait",
         "end held", "cut", "drop")  # fmt: skip


class Wrong(AssertionError):
    """A rule was broken."""


class Side:
    """One node. Records have a serial number, and how many frames of the other side had been taken when they
    were made; what becomes of a letter is drawn by who gets it.
    """

    def __init__(self, made: type[Trunk[int]], clock: Callable[[], float]) -> None:
        self.trunk = made(clock)
        self.wire: deque[bytes] = deque()
        self.sent: list[int] = []
        self.got: list[int] = []
        self.posted: set[int] = set()
        self.fates: dict[int, str] = {}
        self.decided: dict[int, str] = {}
        self.held: dict[int, int] = {}
        self.was_held: set[int] = set()

    def send(self, size: int) -> None:
        self.sent.append(len(self.sent))
        self.trunk.send(Signal("", str(self.sent[-1]), str(self.trunk.taken)), size)

    def post(self, size: int) -> None:
        serial = len(self.sent)
        self.sent.append(serial)
        self.posted.add(serial)
        self.trunk.post(Iq(self.trunk.next_id, str(serial), str(self.trunk.taken), b""), size, serial)

    def flush(self) -> None:
        self.wire.extend(self.trunk.flush())

    def act(self, taken: Taken[int], other: "Side", draw: int) -> None:
        for serial, reason in taken.missed:
            self.end(serial, reason, other)
        for serial in taken.settled:
            self.end(serial, "taken", other)
        for serial in taken.opened:
            check(serial in other.was_held and serial not in self.fates, f"letter {serial} opened")
        for record in taken.records:
            self.get(record, draw)

    def end(self, serial: int, fate: str, other: "Side") -> None:
        check(serial in self.posted and serial not in self.fates, f"letter {serial} ended twice")
        check(other.decided.get(serial) == fate, f"{serial} is {fate} and not {other.decided.get(serial)}")
        self.fates[serial] = fate

    def get(self, record: Record, draw: int) -> None:
        if isinstance(record, Signal):
            serial, knew = int(record.method), int(record.data)
        else:
            check(isinstance(record, Iq), f"{record} is for no trunk")
            serial, knew = int(record.to), int(record.sender)
            self.decide(serial, record.id, (draw + serial) % 4)
        check(self.trunk.acked <= knew, f"acknowledged {self.trunk.acked}, knew {knew}")
        self.got.append(serial)

    def decide(self, serial: int, id: int, draw: int) -> None:
        self.decided[serial] = ("taken", "taken", f"nobody for {serial}", "held")[draw]
        if draw == 2:
            self.trunk.miss(id, self.decided[serial])
        elif draw == 3:
            self.trunk.hold(id)
            self.held[serial] = id
            self.was_held.add(serial)

    def end_held(self, draw: int) -> None:
        for serial in [serial for serial in self.held if (serial + draw) % 2]:
            id = self.held.pop(serial)
            if (serial + draw) % 4 == 1:
                self.decided[serial] = "taken"
                self.trunk.settle([id])
            else:
                self.decided[serial] = LATE
                self.trunk.lose([id])


def check(is_right: bool, what: str) -> None:
    if not is_right:
        raise Wrong(what)


class Pair:
    """Both sides, and what lies between them."""

    def __init__(self, made: type[Trunk[int]]) -> None:
        self.now = 1000.0
        self.sides = [Side(made, lambda: self.now) for _ in range(2)]
        self.was_dropped = False
        self.connect(0)

    def do(self, step: Step) -> None:
        kind, which, draw = step
        side, other = self.sides[which], self.sides[1 - which]
        match kind:
            case "send" | "send large":
                side.send(LARGE if "large" in kind else SMALL)
            case "post" | "post large":
                side.post(LARGE if "large" in kind else SMALL)
            case "flush":
                side.flush()
            case "end held":
                side.end_held(draw)
            case "wait":
                self.now += draw / 50
                side.trunk.beat()
            case "cut":
                self.connect(draw)
            case _:
                self.read(side, other, draw, is_lost=kind == "drop")
        for side in self.sides:
            check([*side.trunk.unsettled] == sorted(side.posted - side.fates.keys()), "unsettled")

    def read(self, side: Side, other: Side, draw: int, *, is_lost: bool = False) -> None:
        if not other.wire:
            return
        data = other.wire.popleft()
        if is_lost:
            self.was_dropped |= decode(data[4:]).seq > 0
            return
        try:
            taken = side.trunk.take(memoryview(data)[4:])
        except TrustLost as error:
            check(self.was_dropped or not side.trunk.is_trusted, str(error))
            self.connect(0)
        except TrunkError as error:
            raise Wrong(str(error)) from error
        else:
            if taken is not None:
                side.act(taken, other, draw)

    def connect(self, draw: int) -> None:
        """The connection ends. Some of what was written on it is read after the HELLO of the next one was
        sent; the rest is lost.
        """
        hellos = [side.trunk.taken for side in self.sides]
        at = self.now
        for turn in range(draw % 5):
            for side, other in (self.sides, self.sides[::-1]):
                if other.wire and (draw + turn) % 3:
                    self.read_last(side, other, draw)
        self.was_dropped = False
        for side, taken in zip(self.sides, reversed(hellos), strict=True):
            side.wire = deque(side.trunk.resume(taken, at))

    def read_last(self, side: Side, other: Side, draw: int) -> None:
        try:
            taken = side.trunk.take(other.wire.popleft()[4:])
        except TrustLost:
            other.wire.clear()
        else:
            if taken is not None:
                side.act(taken, other, draw)

    def end(self) -> None:
        """Nothing is lost any more: is everything where it belongs?"""
        self.connect(0)
        for turn in range(QUIET_AFTER):
            self.now += 0.5
            for side, other in (self.sides, self.sides[::-1]):
                side.end_held(turn)
                side.trunk.beat()
                side.flush()
                while other.wire:
                    self.read(side, other, 0)
        for side, other in (self.sides, self.sides[::-1]):
            check(other.got == side.sent, f"sent {side.sent}, got {other.got}")
            check(side.fates.keys() == side.posted, f"{side.posted - side.fates.keys()} did not come back")
            check(side.fates == other.decided, "letters")
            check(side.trunk.size <= 200 and not side.trunk.is_full, "nothing is left but the last beats")


def play(made: type[Trunk[int]], steps: Sequence[Step]) -> None:
    pair = Pair(made)
    for step in steps:
        pair.do(step)
    pair.end()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 1), st.integers(0, 20)), max_size=60))
def test_everything_arrives_once_and_in_order_and_letters_come_back(steps):
    play(Trunk, steps)


# rules switched off


class NoParting(Trunk[int]):
    """R1: records that wait go with a later acknowledgement."""

    def _part(self) -> None:
        pass


class TakesAgain(Trunk[int]):
    def _is_known(self, seq: int) -> bool:
        self.taken = min(self.taken, seq - 1)
        return False


class MindsNoGap(Trunk[int]):
    def _is_known(self, seq: int) -> bool:
        if super()._is_known(seq):
            return True
        self.taken = seq - 1
        return False


class MindsNoGapBeforeAnAcknowledgement(Trunk[int]):
    def take(self, data):
        frame = decode(data)
        return super().take(data if frame.seq > 0 else encode(Frame(0, frame.ack, [], [], []))[4:])


class ResumesWithNothing(Trunk[int]):
    def resume(self, taken: int, at: float) -> list[bytes]:
        super().resume(taken, at)
        return []


class ResumesInDisorder(Trunk[int]):
    def resume(self, taken: int, at: float) -> list[bytes]:
        return super().resume(taken, at)[::-1]


class SettlesByHello(Trunk[int]):
    def resume(self, taken: int, at: float) -> list[bytes]:
        if taken > self.acked:
            self._acknowledge(taken, ())
        return super().resume(taken, at)


class MissesAlone(Trunk[int]):
    """Misses go with an acknowledgement that is not repeated."""

    def flush(self) -> list[bytes]:
        if self.is_waiting or not self._missed:
            return super().flush()
        data = encode(Frame(-self.sent, self.taken, self._missed, [], []))
        self._missed = []
        self.owes_ack = bool(self._held)
        return [data]

    def take(self, data):
        frame = decode(data)
        if frame.seq > 0 or not frame.missed:
            return super().take(data)
        missed = [(letter, reason) for id, reason in frame.missed for letter in self._end(id)]
        return Taken(missed, self._acknowledge(frame.ack, ())[0], [], [])


class SaysMissesLast(Trunk[int]):
    """Misses go with the last of the frames that acknowledge them."""

    def _close(self) -> None:
        missed, self._missed = self._missed, []
        batches, self._full_batches = self._full_batches, []
        for batch, last_id in batches:
            self._close_one(batch, last_id)
        self._missed = missed
        super()._close()


class SettlesHeld(Trunk[int]):
    def _acknowledge(self, ack, held):
        return super()._acknowledge(ack, ())


class HearsNotWhatIsLate(Trunk[int]):
    def _end_open(self, records, missed, settled):
        return super()._end_open(
            [record for record in records if not isinstance(record, Late)], missed, settled
        )


class SettlesMissed(Trunk[int]):
    def _end(self, id):
        return ()


class SettlesTooMuch(Trunk[int]):
    """All that was posted by now, and not only what is in the frames that were acknowledged."""

    def _close_one(self, records, last_id):
        super()._close_one(records, self.next_id - 1)


def caught(made: type[Trunk[int]], tries: int) -> bool:
    for seed in range(tries):
        random = Random(seed)
        steps = [(random.choice(STEPS), random.randrange(2), random.randrange(21)) for _ in range(60)]
        try:
            play(made, steps)
        except Wrong:
            return True
    return False


@pytest.mark.parametrize(
    "made",
    [
        NoParting, TakesAgain, MindsNoGap, MindsNoGapBeforeAnAcknowledgement, ResumesWithNothing,
        ResumesInDisorder, SettlesByHello, MissesAlone, SaysMissesLast, SettlesHeld, HearsNotWhatIsLate,
        SettlesMissed, SettlesTooMuch,
    ],
)  # fmt: skip
def test_a_rule_that_is_switched_off_is_found_out(made):
    assert caught(made, 200)


def test_nothing_is_found_where_nothing_is_switched_off():
    assert not caught(Trunk, 200)
