"""Several nodes in one process, joined in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from xmppd.cluster.member import Member
from xmppd.cluster.nodes import OtherNodes
from xmppd.store.table import Store


class NoTimer:
    """Of something that is done in any case."""

    def cancel(self) -> None:
        """It cannot be."""


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
