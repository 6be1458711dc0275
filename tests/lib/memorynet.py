"""A network in memory, for tests with several nodes in one process: it loses, cuts and refuses what it is
told to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from xmppd.cluster.connection import CLOSED, Carrier, Connection, Links


class MemoryNetwork:
    """Nodes by their addresses. `call_soon` has something done in a later turn, so that nobody is called
    while it calls; `connect` of a `host` is what a `Dialer` dials by.
    """

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._listening: dict[str, Links] = {}
        self._ends: set[_End] = set()
        self._cuts: set[frozenset[str]] = set()

    def listen(self, address: str, links: Links) -> None:
        """Take connections at this address."""
        self._listening[address] = links

    def host(self, own: str) -> _Host:
        """The network as the node at the address `own` has it."""
        return _Host(self, own)

    def cut(self, one: str, other: str) -> None:
        """Nothing passes between the two; what is sent waits, and who dials gets no answer."""
        self._cuts.add(frozenset((one, other)))

    def heal(self, one: str, other: str) -> None:
        """What waited goes on."""
        self._cuts.discard(frozenset((one, other)))
        for end in self._between(one, other):
            end.push()

    def reset(self, one: str, other: str) -> None:
        """Connections between the two end, and what was under way is lost; new ones can be made."""
        for end in self._between(one, other):
            end.lose()

    def stop(self, address: str) -> None:
        """Nobody is at this address any more, as after the end of a process."""
        self._listening.pop(address, None)
        for end in [end for end in self._ends if address in (end.own, end.peer)]:
            end.lose()

    def is_cut(self, one: str, other: str) -> bool:
        """Whether nothing passes between the two."""
        return frozenset((one, other)) in self._cuts

    def _between(self, one: str, other: str) -> list[_End]:
        return [end for end in self._ends if {end.own, end.peer} == {one, other}]

    # for hosts and ends

    def connected(self, own: str, address: str, make: Callable[[Carrier], Connection]) -> Connection:
        """A new connection; ConnectionRefusedError, or TimeoutError where it is cut."""
        if self.is_cut(own, address):
            raise TimeoutError
        links = self._listening.get(address)
        if links is None:
            raise ConnectionRefusedError
        here, there = _End(self, own, address), _End(self, address, own)
        here.other, there.other = there, here
        self._ends |= {here, there}
        there.connection = links.accepted(there)
        here.connection = make(here)
        here.connection.begin()
        return here.connection

    def later(self, work: Callable[[], None]) -> None:
        """Have something done in a later turn."""
        self._call_soon(work)

    def ended(self, end: _End) -> None:
        """It is over."""
        self._ends.discard(end)


class _Host:
    def __init__(self, network: MemoryNetwork, own: str) -> None:
        self._network = network
        self._own = own

    async def connect(self, address: str, make: Callable[[Carrier], Connection]) -> Connection:
        """Connect to an address; OSError."""
        return self._network.connected(self._own, address, make)


class _End:
    """One end of a connection: a carrier."""

    def __init__(self, network: MemoryNetwork, own: str, peer: str) -> None:
        self.own = own
        self.peer = peer
        self.other: _End
        self.connection: Connection
        self._network = network
        self._queue: deque[bytes] = deque()
        self._is_closing = False
        self._is_over = False

    @property
    def unsent(self) -> int:
        """Bytes that have not arrived."""
        return sum(map(len, self._queue))

    def write(self, pieces: Sequence[bytes]) -> None:
        """Send bytes."""
        self._queue.extend(pieces)
        self._network.later(self.push)

    def close(self) -> None:
        """End when all has arrived."""
        if not self._is_closing:
            self._is_closing = True
            self._network.later(self.push)

    def push(self) -> None:
        """Hand over what was written, if it can pass."""
        if self._is_over or self._network.is_cut(self.own, self.peer):
            return
        data = b"".join(self._queue)
        self._queue.clear()
        if data:
            self.other.connection.received(data)
        if self._is_closing:
            self._end()
            self.other.connection.ended(CLOSED)

    def lose(self) -> None:
        """It is over, and what did not arrive never will."""
        self._queue.clear()
        self._end()
        self.connection.ended("reset")

    def _end(self) -> None:
        self._is_over = True
        self._network.ended(self)
