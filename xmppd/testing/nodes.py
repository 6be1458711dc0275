"""Several nodes in one process, joined in memory or by a bus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from xmppd.cluster.connection import Connection
from xmppd.cluster.framing import Frames
from xmppd.cluster.lines import Lines
from xmppd.cluster.member import Member
from xmppd.cluster.nodes import OtherNodes
from xmppd.store.table import Store

WORK_SECONDS = 10.0
"""How long a duty is that of a node that took it and was not heard of since."""


class NoTimer:
    """Of something that is done in any case."""

    def cancel(self) -> None:
        """It cannot be."""


class MemoryDuties:
    """One node's use of what all nodes of a world agree on, by the world's clock; `free_at` is that."""

    def __init__(self, free_at: dict[str, float], clock: Callable[[], float]) -> None:
        self._free_at = free_at
        self._clock = clock
        self._said: dict[str, float] = {}

    async def take(self, name: str, seconds: float) -> float | None:
        """See `xmppd.duties.SharedDuties.take`."""
        now = self._clock()
        left = self._free_at.get(name, now) - now
        if left > 0:
            return left
        self._said[name] = now + seconds
        self._free_at[name] = now + max(seconds, WORK_SECONDS)
        return 0.0

    def done(self, name: str) -> None:
        """See `xmppd.duties.SharedDuties.done`."""
        self._free_at[name] = self._said.pop(name)


class Lent:
    """A store that another node of the same world opens and closes."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def close(self) -> None:
        """It is closed by its owner."""


class MemoryTrunk:
    """One node's end of a connection between two nodes in memory; `later` has something done in the next turn
    of the loop.
    """

    def __init__(self, cluster: OtherNodes, later: Callable[[Callable[[], None]], object]) -> None:
        self._mesh = cluster.mesh
        self._later = later
        self._is_open = True
        self.member: Member
        self.other: MemoryTrunk

    def write(self, frames: Sequence[bytes]) -> None:
        """Hand whole frames to the other end."""
        if self._is_open:
            self._later(lambda: self.other.take([frame[4:] for frame in frames]))

    def take(self, frames: Sequence[bytes]) -> None:
        """Frames came."""
        for frame in frames:
            if self._is_open:
                self._mesh.received(self.member, self, frame)

    def close(self) -> None:
        """Both ends are closed."""
        for end in (self, self.other):
            if end._is_open:
                end._is_open = False
                end._mesh.disconnected(end.member, end)
                end._closed()

    def _closed(self) -> None:
        """This end is."""


class BusTrunk(MemoryTrunk):
    """The same over a bus, by a line with the number `id` to a node `peer` that has it, too."""

    def __init__(
        self,
        cluster: OtherNodes,
        later: Callable[[Callable[[], None]], object],
        lines: Lines,
        peer: OtherNodes,
        id: int,
    ) -> None:
        super().__init__(cluster, later)
        self._frames = Frames()
        connection = cast("Connection", self)
        self._line = lines.line(peer.mesh.name, id, peer.mesh.incarnation, lambda carrier: connection)

    def write(self, frames: Sequence[bytes]) -> None:
        """Send whole frames."""
        if self._is_open:
            self._line.write(frames)

    def _closed(self) -> None:
        self._line.close()

    # as a line sees it

    def begin(self) -> None:
        """Both sides know each other."""

    def received(self, data: bytes) -> None:
        """Bytes came."""
        self.take(self._frames.feed(data))

    def ended(self, reason: str) -> None:
        """The line is over."""
        self.close()

    def overdue(self) -> None:
        """There was no greeting."""
