"""Connections between nodes over a bus, for nodes that reach one place in common but not each other: *lines*.

A bus has a channel for each node. It keeps the order of what one node says to another and may lose any of
it, without a word to either. A line numbers its packets: one that is missing ends the line, and the node
that dials makes a new one, on which the trunk goes on behind the last frame that was taken. So the bus has
to promise nothing.

    dialer                                                     listener
    OPEN, again until there is an answer                  ->
                                                          <-   ACCEPT
    PIECE 1, 2, ...: greeting and frames, as over TCP     <->  PIECE 1, 2, ...
    MARK, where the last pieces were not confirmed        <->  MARK
    END                                                   <->  END

Each packet says how many pieces its sender has taken. No more than `WINDOW` bytes are under way on a line
that were not confirmed so: what is for a node that does not read waits at its senders, and not in the bus.
The other side of a trunk answers all that matters within 40 ms, so nothing is said for this alone.
"""

from __future__ import annotations

import asyncio
import enum
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from typing import Annotated, Final, Protocol

import msgspec
from msgspec import Meta, Struct

from xmppd.cluster.connection import CLOSED, Carrier, Connection
from xmppd.cluster.hello import GREETING_SECONDS, RUBBISH
from xmppd.core.reports import Reports

BUS: Final = "bus:"
"""What the address of a node on a bus begins with; its name follows."""

PACKET: Final = 65_536
"""Bytes of a piece, unless one frame is larger."""

WINDOW: Final = 262_144
"""Bytes under way on a line, or one piece: thirty nodes that send to a stopped one leave 8 MB on the bus."""

OPEN_SECONDS: Final = 0.2
OPENINGS: Final = 10
"""How often a node is asked for a line, and how many times."""

LINGER_SECONDS: Final = 1.0
"""How long a line that is over may take for what was written."""

MARK_SECONDS: Final = 0.5
"""How often a node asks whether what it said has come."""

LOST: Final = "lost-on-the-bus"
"""A piece is missing."""

AWAY: Final = "bus-away"
"""The bus cannot be used."""

_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]

Make = Callable[[Carrier], Connection]
"""Makes the connection that a carrier is for."""


class Kind(enum.IntEnum):
    """What a packet is."""

    OPEN = 1
    ACCEPT = 2
    PIECE = 3
    MARK = 4
    END = 5


class Packet(Struct, array_like=True, frozen=True):
    """What goes over the bus at once, from the node `sender` in its life `life`. `to`: the life of the other
    node that is meant, 0 for any; `line`: a number that the dialer made up; `number`: of this piece, or the
    last one that was sent; `taken`: the last piece that was taken.
    """

    kind: Kind
    line: _Count
    sender: Annotated[str, Meta(min_length=1, max_length=300)]
    life: _Count
    to: _Count
    number: _Count = 0
    taken: _Count = 0
    data: bytes = b""


_DECODER: Final = msgspec.msgpack.Decoder(Packet)
_ENCODER: Final = msgspec.msgpack.Encoder()


def unpacked(data: bytes) -> Packet:
    """What came; ValueError for what is no packet."""
    try:
        return _DECODER.decode(data)
    except RecursionError:
        raise ValueError("too deep") from None


class Timer(Protocol):
    """Something that will be done."""

    def cancel(self) -> None: ...


class Bus(Protocol):
    """What carries packets. While it is away nothing is said, and nothing heard. `said` counts packets."""

    said: int

    async def open(self, node: str, hear: Callable[[bytes], None], turn: Callable[[bool], None]) -> None:
        """Begin; done when it was tried once. `hear` takes what is in the channel of this node, `turn`
        whether the bus can be used from now on.
        """

    def publish(self, node: str, data: bytes) -> None:
        """Say something in the channel of a node."""

    async def echo(self) -> None:
        """Done when the bus has all that was said here, and all was heard here that it had by then."""

    async def close(self) -> None:
        """Say what was to be said, if that can be done soon, and end."""


class Line:
    """One end of a line: a carrier. `peer` is the node at the other end, `life` which life of it."""

    def __init__(self, lines: Lines, peer: str, id: int, life: int) -> None:
        self.peer = peer
        self.id = id
        self.life = life
        self.connection: Connection
        self._lines = lines
        self._waiting: deque[bytes] = deque()
        self._sent = 0
        self._taken = 0
        self._confirmed = 0
        self._marked = 0
        self._sizes: deque[int] = deque()
        self._under_way = 0
        self._is_closing = False
        self._timer: Timer | None = None

    # the carrier

    @property
    def unsent(self) -> int:
        """Bytes that wait, and those that are not known to have come."""
        return sum(map(len, self._waiting)) + self._under_way

    def write(self, pieces: Sequence[bytes]) -> None:
        """Send bytes, as soon as there is room on the line."""
        self._waiting.extend(pieces)
        self._push()

    def close(self) -> None:
        """End when all is sent, or it took too long."""
        self._cancel()
        if self._is_closing:
            return
        self._is_closing = True
        if self._waiting and self._lines.is_up:
            self._timer = self._lines.call_later(LINGER_SECONDS, self._end)
        else:
            self._end()

    # for Lines

    def begin(self, make: Make) -> None:
        """There are two ends."""
        self.connection = make(self)
        self._timer = self._lines.call_later(GREETING_SECONDS, self.connection.overdue)
        self.connection.begin()

    def take(self, packet: Packet) -> None:
        """A packet came."""
        while self._sizes and self._confirmed < packet.taken:
            self._under_way -= self._sizes.popleft()
            self._confirmed += 1
        if packet.kind is Kind.END:
            self.lose(CLOSED)
        elif packet.number > self._taken + (packet.kind is Kind.PIECE):
            self._say(Kind.END)
            self.lose(LOST)
        else:
            if packet.kind is Kind.PIECE and packet.number == self._taken + 1:
                self._taken += 1
                self.connection.received(packet.data)
            self._push()

    def lose(self, reason: str) -> None:
        """It is over, and what was not sent never will be."""
        self._waiting.clear()
        self._is_closing = True
        self._cancel()
        self._lines.ended(self)
        self.connection.ended(reason)

    def mark(self) -> None:
        """Ask for what was not confirmed since this was called before."""
        if self._confirmed < self._marked:
            self._say(Kind.MARK, self._sent)
        self._marked = self._sent

    def _push(self) -> None:
        waiting = self._waiting
        while waiting and (not self._under_way or self._under_way < WINDOW):
            piece = [waiting.popleft()]
            size = len(piece[0])
            while waiting and size + len(waiting[0]) <= PACKET:
                size += len(waiting[0])
                piece.append(waiting.popleft())
            self._sent += 1
            self._sizes.append(size)
            self._under_way += size
            self._say(Kind.PIECE, self._sent, b"".join(piece))
        if self._is_closing and not waiting:
            self._end()

    def _end(self) -> None:
        self._cancel()
        if self._lines.ended(self):
            self._say(Kind.END)

    def _say(self, kind: Kind, number: int = 0, data: bytes = b"") -> None:
        self._lines.say(self.peer, kind, self.id, self.life, number, self._taken, data)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Opening:
    """A line that was asked for and is not answered yet."""

    def __init__(self, make: Make) -> None:
        self.make = make
        self.answer: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self.asked = 0
        self.timer: Timer | None = None


class Lines:
    """All lines of this node, `own` in its life `life` (its incarnation). `accepted` makes the connection of
    one that somebody else began, as long as this node `is_taking` any. The owner hands in what comes and
    whether the bus can be used, and calls `mark` every `MARK_SECONDS`.
    """

    def __init__(
        self,
        own: str,
        life: int,
        publish: Callable[[str, bytes], None],
        accepted: Make,
        call_later: Callable[[float, Callable[[], None]], Timer],
        clock: Callable[[], float],
    ) -> None:
        self.is_up = False
        self.is_taking = True
        self.call_later = call_later
        self._own = own
        self._life = life
        self._publish = publish
        self._accepted = accepted
        self._lines: dict[tuple[str, int], Line] = {}
        self._openings: dict[tuple[str, int], _Opening] = {}
        self._reports = Reports(clock)

    async def connect(self, address: str, make: Make) -> Connection:
        """Have a line with the node at an address; OSError, TimeoutError where nobody answers."""
        peer = address.removeprefix(BUS)
        if peer in (address, self._own):
            raise OSError(f"{address} is no address of another node on a bus")
        if not self.is_up:
            raise OSError(AWAY)
        key = peer, secrets.randbits(62) + 1
        opening = self._openings[key] = _Opening(make)
        self._ask(key, opening)
        try:
            return await opening.answer
        except asyncio.CancelledError:
            if not opening.answer.cancelled():  # it came at the same time
                opening.answer.result().close()
            raise
        finally:
            self._openings.pop(key, None)
            if opening.timer is not None:
                opening.timer.cancel()

    def _ask(self, key: tuple[str, int], opening: _Opening) -> None:
        if opening.answer.done():
            return
        if opening.asked == OPENINGS:
            opening.answer.set_exception(TimeoutError())
            return
        opening.asked += 1
        self.say(key[0], Kind.OPEN, key[1])
        opening.timer = self.call_later(OPEN_SECONDS, lambda: self._ask(key, opening))

    def turned(self, is_up: bool) -> None:
        """The bus can be used from now on, or not: what was said meanwhile is lost."""
        self.is_up = is_up
        if not is_up:
            for line in [*self._lines.values()]:
                line.lose(AWAY)
            for opening in self._openings.values():
                if not opening.answer.done():
                    opening.answer.set_exception(OSError(AWAY))

    def received(self, data: bytes) -> None:
        """Something was said in the channel of this node."""
        try:
            packet = unpacked(data)
        except ValueError:
            self._reports.tell("trunk-refused", "", reason=RUBBISH)
            return
        if packet.to > self._life:
            return  # it is for a node that has this one's name, and began later
        key = packet.sender, packet.line
        line = self._lines.get(key)
        if packet.kind is Kind.OPEN:
            self._open(packet, line)
        elif packet.kind is Kind.ACCEPT and (opening := self._openings.pop(key, None)) is not None:
            self._opened(packet, opening)
        elif line is not None:
            if packet.kind is not Kind.ACCEPT:
                line.take(packet)
        elif packet.kind is not Kind.END:
            self.say(packet.sender, Kind.END, packet.line, packet.life)

    def _open(self, packet: Packet, line: Line | None) -> None:
        if not self.is_taking:
            return
        self.say(packet.sender, Kind.ACCEPT, packet.line, packet.life)
        if line is None:
            self.line(packet.sender, packet.line, packet.life, self._accepted)

    def _opened(self, packet: Packet, opening: _Opening) -> None:
        if opening.answer.done():
            return
        line = self.line(packet.sender, packet.line, packet.life, opening.make)
        opening.answer.set_result(line.connection)

    def line(self, peer: str, id: int, life: int, make: Make) -> Line:
        """A line that the other side has, too."""
        line = self._lines[peer, id] = Line(self, peer, id, life)
        line.begin(make)
        return line

    def mark(self) -> None:
        """Find out whether anything was lost behind which nothing came."""
        for line in [*self._lines.values()]:
            line.mark()

    # for lines

    def ended(self, line: Line) -> bool:
        """It is over; whether it was not before."""
        return self._lines.pop((line.peer, line.id), None) is not None

    def say(
        self,
        peer: str,
        kind: Kind,
        line: int,
        to: int = 0,
        number: int = 0,
        taken: int = 0,
        data: bytes = b"",
    ) -> None:
        """Say something to another node."""
        packet = Packet(kind, line, self._own, self._life, to, number, taken, data)
        self._publish(peer, _ENCODER.encode(packet))
