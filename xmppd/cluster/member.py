"""Another node, as this one knows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from xmppd.cluster.trunk import Trunk
from xmppd.errors import StanzaError

CLOSE_SECONDS: Final = 0.001
"""How soon after one write the next one waits a little, so that more goes out at once."""


class Carrier(Protocol):
    """What carries frames to one node: a connection."""

    def write(self, frames: list[bytes]) -> None:
        """Send them, each with its length."""

    def close(self) -> None:
        """End it; nothing is told of that."""


class Letter(Protocol):
    """What was posted and comes back: exactly one of these is called, once."""

    def settled(self) -> None:
        """The other node took it."""

    def missed(self, error: StanzaError) -> None:
        """Nobody takes it: the other node says so, or is given up."""


class Member:
    """A node from when it is met until it is given up.

    `index` stands for it in the whereabouts. `carrier` is None while there is no connection. `is_joined`: all
    its places are known. `young` are the sessions of this node whose availability it has not acknowledged
    yet, each with the number of the frame that tells of it. `missing` are accounts of which a message of its
    was missed, each with the number of the frame that says so.
    """

    __slots__ = (
        "_call_later",
        "_clock",
        "_flushed",
        "_is_due",
        "carrier",
        "full",
        "incarnation",
        "index",
        "is_gone",
        "is_joined",
        "missing",
        "name",
        "trunk",
        "young",
    )

    def __init__(
        self,
        name: str,
        incarnation: int,
        index: int,
        trunk: Trunk[Letter],
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self.name = self.full = name
        self.incarnation = incarnation
        self.index = index
        self.trunk = trunk
        self.carrier: Carrier | None = None
        self.is_joined = False
        self.is_gone = False
        self.young: dict[str, int] = {}
        self.missing: dict[str, int] = {}
        self._clock = clock
        self._call_later = call_later
        self._flushed = float("-inf")
        self._is_due = False

    def flush(self) -> None:
        """Write what is queued: now, or in a millisecond where something was written just before."""
        if self._clock() - self._flushed < CLOSE_SECONDS:
            if not self._is_due:
                self._is_due = True
                self._call_later(CLOSE_SECONDS, self.write)
        else:
            self.write()

    def write(self) -> None:
        """Write what is queued, and what has to be acknowledged."""
        self._is_due = False
        if self.carrier is not None:
            self._flushed = self._clock()
            if frames := self.trunk.flush():
                self.carrier.write(frames)

    def draw(self, end: float) -> bool:
        """It has no bursts."""
        return False

    def acknowledged(self) -> None:
        """It took frames: forget what waited for that."""
        acked = self.trunk.acked
        for waiting in (self.young, self.missing):
            for key in [key for key, frame in waiting.items() if frame <= acked]:
                del waiting[key]

    def __repr__(self) -> str:
        return f"<Member {self.name}>"


Take = Callable[[Member, Any], None]
"""Takes one kind of record."""
