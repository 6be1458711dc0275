"""A trunk: what two nodes tell each other as one sequence of numbered, acknowledged frames, which outlives
its connections. No frame is lost or taken twice while the trunk lives, and none is taken after the other side
has given this one up. Bytes and a clock in, records and bytes out.

A *letter* is whatever a caller wants back of what it posted: settled (the other node took it), missed (nobody
there takes it) or open (it is in a queue there; settled or missed later).

The owner calls `resume` at every new connection, the first too, and writes what that gives before anything
else; `flush` at the end of a turn in which `is_waiting`, and ms after `owes_ack`; `beat` and `look` every
0.5 s. While there is no connection it calls neither `beat` nor `flush`. After `take` it acts on all that was
taken, `miss` and `hold` included, before anything is flushed or taken again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from xmppd.cluster.records import Frame, Late, Record, Settled, decode, encode
from xmppd.core.ids import HybridClock
from xmppd.errors import TrunkError, TrustLost

Letter = TypeVar("Letter")

FRAME_BYTES: Final = 65_536
"""Bytes of a frame, unless one record is larger."""

UNSENT_BYTES: Final = 1_048_576
WINDOW_BYTES: Final = 33_554_432
LETTERS: Final = 200_000
"""Bounds of what waits to be flushed; of unacknowledged frames and open letters; of letters. Beyond them
senders wait.
"""

BEAT_SECONDS: Final = 0.5
"""How old the last numbered frame may be."""

TRUST_SECONDS: Final = 3.0
"""How long after a frame was sent its acknowledgement proves that the other side had not given this one up.
"""

SILENT_SECONDS: Final = 4.5
"""The other side is given up when nothing was heard of it for so long: by then it has stopped trusting."""

UNACKNOWLEDGED_SECONDS: Final = 6.0
"""It is given up, too, when it has not acknowledged a frame for so long: twice what it may trust, since it
may have taken that frame at the end of one trust and others until the end of another.
"""

LATE: Final = "late"
"""Why an open letter is missed."""

SECOND_LOOK_SECONDS: Final = 0.5
"""A second look has to find the same, no sooner than this: who stood still reads what waits before."""

STOOD_STILL_SECONDS: Final = 1.0
"""Between two looks: whoever is late by so much has to look again."""


class Taken(NamedTuple, Generic[Letter]):
    """What one frame brought, to be acted on in this order. `missed`: letters that nobody took, and why;
    `settled`; `opened`: letters that a queue there has; `records`, in order.
    """

    missed: Sequence[tuple[Letter, str]]
    settled: Sequence[Letter]
    opened: Sequence[Letter]
    records: Sequence[Record]


class _Sent(NamedTuple):
    """A frame of the window: since when it could be sent, its bytes, the last letter in it or before it."""

    at: float
    data: bytes
    last_id: int


class Trunk(Generic[Letter]):
    """One side of a trunk, from meeting a node until it is given up.

    `number` is the trunk's, the same on both sides. `sent`: the last frame that was closed; `queued`: the
    frame in which the last record is or will be; `acked`: the last frame that the other side took, as far as
    is known here; `taken`: the last one of its frames that was taken here; `heard`: when the last frame came;
    `lag`: how long the last frame that was acknowledged was not. `next_id`: the id of the next letter.
    `size`: bytes of unacknowledged frames and open letters. `owes_ack`: something was taken since the last
    acknowledgement. The node's hybrid clock, `time`, goes with each frame and sees that of the other side.
    """

    def __init__(self, clock: Callable[[], float], number: int = 0, time: HybridClock | None = None) -> None:
        self.number = number
        self.sent = 0
        self.queued = 0
        self.acked = 0
        self.taken = 0
        self.size = 0
        self.next_id = 1
        self.owes_ack = False
        self.heard = clock()
        self.lag = 0.0
        self._clock = clock
        self._time = time or HybridClock(clock)
        self._trusted_since = float("-inf")
        self._connected_since = self.heard
        self._beat_is_due = False
        self._sent_at = float("-inf")
        self._doubted_since: float | None = None
        self._looked_at = self.heard
        self._batch: list[Record] = []
        self._batch_bytes = 0
        self._full_batches: list[tuple[list[Record], int]] = []
        self._full_bytes = 0
        self._closed: list[bytes] = []
        self._closed_bytes = 0
        self._window: deque[_Sent] = deque()
        self._missed: list[tuple[int, str]] = []
        self._held: list[int] = []
        self._acked_id = 0
        self._letters: dict[int, tuple[Letter, int]] = {}
        self._open: set[int] = set()

    @property
    def is_waiting(self) -> bool:
        """Whether `flush` should be called at the end of the turn."""
        return bool(self._batch or self._closed or self._beat_is_due)

    @property
    def is_full(self) -> bool:
        """Whether who sends here has to wait: nothing is refused, and nothing dropped."""
        unsent = self._batch_bytes + self._full_bytes + self._closed_bytes
        return unsent >= UNSENT_BYTES or self.size >= WINDOW_BYTES or len(self._letters) >= LETTERS

    @property
    def is_trusted(self) -> bool:
        """Whether the other side cannot have given this one up."""
        return self._clock() - self._trusted_since <= TRUST_SECONDS

    @property
    def unsettled(self) -> Iterator[Letter]:
        """All letters that are neither settled nor missed, in the order in which they were posted."""
        return (letter for letter, _ in self._letters.values())

    @property
    def opened(self) -> Iterator[Letter]:
        """Those of them that are in a queue there."""
        return (self._letters[id][0] for id in self._open)

    def send(self, record: Record, size: int = 64) -> int:
        """Have a record of about `size` bytes sent; the number of the frame it will be in."""
        if self._batch_bytes + size > FRAME_BYTES and self._batch:
            self._full_batches.append((self._batch, self.next_id - 1))
            self._full_bytes += self._batch_bytes
            self._batch = []
            self._batch_bytes = 0
        if not self._batch:
            self.queued += 1
        self._batch.append(record)
        self._batch_bytes += size
        return self.queued

    @property
    def spot(self) -> tuple[int, int]:
        """Where the record stands that was sent last: the number of its frame, and its index there."""
        return self.queued, len(self._batch) - 1

    def amend(self, spot: tuple[int, int], record: Record) -> bool:
        """Send a record in the place of another one, of the same size, that waits there; whether it still
        did.
        """
        frame, index = spot
        waits = frame == self.queued and index < len(self._batch)
        if waits:
            self._batch[index] = record
        return waits

    def post(self, record: Record, size: int, letter: Letter) -> int:
        """Have a record sent, with the id `next_id` if it has one, for a letter that comes back; the id. It
        will be in frame `queued`.
        """
        if self._batch and self._batch_bytes + size <= FRAME_BYTES:
            self._batch.append(record)  # as in most cases
            self._batch_bytes += size
        else:
            self.send(record, size)
        number = self.next_id
        self.next_id = number + 1
        self._letters[number] = letter, size
        return number

    def miss(self, id: int, reason: str = "") -> int:
        """Nobody here wants what was just taken with this id; the number of the frame that says so."""
        self._missed.append((id, reason))
        return self.sent + 1

    def hold(self, id: int) -> None:
        """What was just taken with this id is not settled when acknowledged: `settle` or `lose` follows."""
        self._held.append(id)

    def settle(self, ids: Sequence[int]) -> int:
        """What was held with these ids is settled now; the number of the frame."""
        return self.send(Settled(list(ids)), 16 + 9 * len(ids))

    def lose(self, ids: Sequence[int]) -> int:
        """What was held with these ids is taken by nobody; the number of the frame."""
        return self.send(Late(list(ids)), 16 + 9 * len(ids))

    def take(self, data: bytes | bytearray | memoryview) -> Taken[Letter] | None:
        """Take a frame without its length; None if it is known. What is missed later of open letters has the
        reason `late`; SETTLED and LATE are not among the records.

        TrustLost, and nothing changed: the connection has to be made anew. TrunkError: the trunk is at its
        end.
        """
        frame = decode(data)
        seq, ack = frame.seq, frame.ack
        self._time.see(frame.time)
        if ack > self.sent:
            raise TrunkError(f"frame {ack} acknowledged, {self.sent} sent")
        if seq > 0:
            if self._is_known(seq):
                self.heard = self._clock()
                return None
            if seq != self.taken + 1:
                raise TrustLost(f"frame {seq} after {self.taken}")
            self._check_trust(frame)
            if self._batch:
                self._part()
            self.taken = seq
            self.owes_ack = True
        elif frame.records or frame.missed or frame.open:
            raise TrunkError("an acknowledgement alone says more")
        elif -seq > self.taken:
            raise TrustLost(f"an acknowledgement behind frame {-seq} after {self.taken}")
        self.heard = self._clock()
        if not frame.missed and (ack <= self.acked or not self._letters) and not self._open:
            if ack > self.acked:
                self._forget(ack)
            return Taken((), (), (), frame.records)  # as in most cases
        missed = [(letter, reason) for id, reason in frame.missed for letter in self._end(id)]
        settled, opened = self._acknowledge(ack, frame.open)
        records: Sequence[Record] = frame.records
        if self._open and frame.records:
            records = self._end_open(frame.records, missed, settled)
        return Taken(missed, settled, self._letters_of(opened), records)

    def flush(self) -> list[bytes]:
        """Close what waits, and what has to be said, into frames; all that has to be written now, with
        lengths.
        """
        if self._batch:
            self._close()
        elif self._missed or self._held or self._beat_is_due:
            self._close_one([], self.next_id - 1)
        elif self.owes_ack and not self._closed:
            self.owes_ack = False
            return [encode(Frame(-self.sent, self.taken, [], [], [], self._time.last))]
        closed = self._closed
        self._closed = []
        self._closed_bytes = 0
        return closed

    def beat(self) -> None:
        """Make a numbered frame due when there was none for 0.5 s."""
        if self._clock() - self._sent_at >= BEAT_SECONDS:
            self._beat_is_due = True

    def look(self) -> bool:
        """Whether the other side has to be given up, at the second look that finds it silent."""
        now = self._clock()
        stood_still = now - self._looked_at > STOOD_STILL_SECONDS
        self._looked_at = now
        if not self._is_silent(now):
            self._doubted_since = None
        elif self._doubted_since is None or stood_still:
            self._doubted_since = now
        else:
            return now - self._doubted_since >= SECOND_LOOK_SECONDS
        return False

    def resume(self, taken: int, at: float) -> list[bytes]:
        """There is a connection: the frames behind `taken`, the last one that the other side took, to be
        written first. `at`: when the HELLO was sent that it answered. What it took is settled only by an
        acknowledgement, since that alone says what was missed.
        """
        if taken > self.sent:
            raise TrunkError(f"frame {taken} taken, {self.sent} sent")
        self._trusted_since = max(self._trusted_since, at)
        self.heard = self._connected_since = self._clock()
        self._doubted_since = None
        self._closed = []
        self._closed_bytes = 0
        self.owes_ack = self.taken > 0
        skipped = max(0, taken - self.acked)
        return [sent.data for index, sent in enumerate(self._window) if index >= skipped]

    # frames

    def _close(self) -> None:
        """Make frames of all records that wait. What was missed or held goes with the first of them: all say
        the same acknowledgement.
        """
        for batch, last_id in self._full_batches:
            self._close_one(batch, last_id)
        self._close_one(self._batch, self.next_id - 1)
        self._full_batches = []
        self._full_bytes = 0
        self._batch = []
        self._batch_bytes = 0

    def _close_one(self, records: list[Record], last_id: int) -> None:
        self.sent += 1
        data = encode(Frame(self.sent, self.taken, self._missed, self._held, records, self._time.last))
        if not records:
            self.queued = self.sent
        self._missed = []
        self._held = []
        self._beat_is_due = False
        self.owes_ack = False
        self._sent_at = self._clock()
        self._window.append(_Sent(self._sent_at, data, last_id))
        self.size += len(data)
        self._closed.append(data)
        self._closed_bytes += len(data)

    def _part(self) -> None:
        """Before a frame is taken, while records wait: their acknowledgement says what was known when they
        were made.
        """
        self._close()

    def _is_known(self, seq: int) -> bool:
        return seq <= self.taken

    def _check_trust(self, frame: Frame) -> None:
        """An empty frame needs trust as well: else a later one could be trusted that comes too late."""
        since = self._trusted_since
        if frame.ack > self.acked:
            since = max(since, self._window[frame.ack - self.acked - 1].at)
        if self._clock() - since > TRUST_SECONDS:
            raise TrustLost("no frame of the last 3 s was acknowledged")

    def _is_silent(self, now: float) -> bool:
        if now - self.heard >= SILENT_SECONDS:
            return True
        if not self._window:
            return False
        return now - max(self._window[0].at, self._connected_since) >= UNACKNOWLEDGED_SECONDS

    # letters

    def _letters_of(self, ids: Sequence[int]) -> list[Letter]:
        """Those of them that are not over."""
        return [self._letters[id][0] for id in ids if id in self._letters]

    def _end(self, id: int) -> Sequence[Letter]:
        """A letter that is over, if it is not already."""
        posted = self._letters.pop(id, None)
        if posted is None:
            return ()
        if id in self._open:
            self._open.remove(id)
            self.size -= posted[1]
        return posted[:1]

    def _forget(self, ack: int) -> None:
        """Frames up to `ack` are taken, and no letters are under way."""
        window = self._window
        while self.acked < ack:
            sent = window.popleft()
            self.acked += 1
            self.size -= len(sent.data)
        self._trusted_since = max(self._trusted_since, sent.at)
        self.lag = self.heard - sent.at
        self._acked_id = sent.last_id

    def _acknowledge(self, ack: int, held: Collection[int]) -> tuple[list[Letter], list[int]]:
        """Frames up to `ack` are taken: which letters that settles, and the ids of those it leaves open."""
        settled: list[Letter] = []
        opened: list[int] = []
        letters, held = self._letters, frozenset(held)
        for _ in range(ack - self.acked):
            sent = self._window.popleft()
            self._trusted_since = max(self._trusted_since, sent.at)
            self.lag = self.heard - sent.at
            self.size -= len(sent.data)
            for id in range(self._acked_id + 1, sent.last_id + 1):
                if id in held and id in letters:
                    opened.append(id)
                    self._open.add(id)
                    self.size += letters[id][1]
                elif (posted := letters.pop(id, None)) is not None:
                    settled.append(posted[0])
            self._acked_id = sent.last_id
        self.acked = max(self.acked, ack)
        return settled, opened

    def _end_open(
        self, records: Sequence[Record], missed: list[tuple[Letter, str]], settled: list[Letter]
    ) -> list[Record]:
        """Act on SETTLED and LATE; the other records."""
        others: list[Record] = []
        for record in records:
            if isinstance(record, Settled):
                settled += [letter for id in record.ids if id in self._open for letter in self._end(id)]
            elif isinstance(record, Late):
                missed += [
                    (letter, LATE) for id in record.ids if id in self._open for letter in self._end(id)
                ]
            else:
                others.append(record)
        return others
