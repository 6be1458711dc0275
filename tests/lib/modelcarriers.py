"""What carries the frames of a trunk in `nodesmodel`: connections, or lines by Redis."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from virtualtime import IO

if TYPE_CHECKING:
    from modelnodes import Node, World

    from xmppd.cluster.member import Member

LOST = 0.002
"""How many packets on the bus nobody hears."""


class Carrier:
    """One end of a connection: frames arrive in order, after a random time."""

    def __init__(self, world: World, node: Node, other: Node) -> None:
        self._world = world
        self.node = node
        self.other = other
        self.is_open = True
        self.end: Carrier
        self.member: Member | None = None
        self._due = 0.0

    def write(self, frames: list[bytes]) -> None:
        """Frames leave."""
        if self.is_open:
            self._send(self.end._arrive, frames)

    def _send(self, arrive: Callable[..., object], *args: Any) -> None:
        """Have the other end see something, behind all before."""
        world, end = self._world, self.end
        most = 2.0 if not world.is_calm and world.random.random() < 0.05 else 0.02
        since = max(world.loop.time(), world.held_up(self.node.name, end.node.name))
        self._due = max(self._due + 1e-6, since + world.random.uniform(0.001, most))
        world.loop.call_at(self._due, arrive, *args, context=end.node.context, kind=IO)

    def _arrive(self, frames: list[bytes]) -> None:
        for frame in frames:
            if self.is_open and not self.node.is_dead and self.member is not None:
                trunk = self.member.trunk
                taken = trunk.taken
                self.node.mesh.received(self.member, self, frame[4:])
                if trunk.taken > taken:
                    self._look_at(trunk.number)

    def _look_at(self, trunk: int) -> None:
        """Something was taken: the other node must not have sent it elsewhere, unless it was under way when
        it met another one of that name; then this one stops.
        """
        other, incarnation = self.other, self.node.mesh.incarnation
        if not (other.is_dead or other.is_leaving or self.node.is_leaving):
            member = other.mesh.members.get(self.node.name)
            if member is not None and member.incarnation > incarnation:
                return
            if member is None or member.trunk.number != trunk:
                self._world.failed(f"{self.node.name} takes what {other.name} has given up")

    def close(self, *, is_silent: bool = False) -> None:
        """This end takes nothing any more; the other one is told behind all that was written, or loses what
        is under way.
        """
        if not self.is_open:
            return
        self.is_open = False
        world, end = self._world, self.end
        if not is_silent:
            if world.random.random() < 0.5:
                self._send(end._ended)
            else:
                when = world.loop.time() + world.random.uniform(0.0, 0.02)
                world.loop.call_at(when, end._ended, context=end.node.context, kind=IO)
        world.broken(self)

    def break_off(self) -> None:
        """The connection is reset on both sides, by nobody."""
        self._ended()

    def _ended(self) -> None:
        if self.is_open:
            self.is_open = False
            if self.member is not None and not self.node.is_dead:
                self.node.mesh.disconnected(self.member, self)
            self._world.broken(self)


class Line(Carrier):
    """One end of a line by Redis (`xmppd.cluster.lines`). The bus loses what is said while one of the nodes
    does not reach it, and now and then something besides. Who gets the packet behind a missing one ends the
    line, and tells the other end. That a process has ended is told by nobody.
    """

    has_gap = False

    def write(self, frames: list[bytes]) -> None:
        """A packet leaves."""
        if self.is_open:
            self._say(self._take, frames)

    def _say(self, take: Callable[..., object], *args: Any) -> None:
        chance = 0.0 if self._world.is_calm else LOST
        if self.node.cache.is_cut or self._world.random.random() < chance:
            self.has_gap = True
        else:
            self._send(take, *args)

    def _take(self, frames: list[bytes]) -> None:
        """The other end takes a packet."""
        end = self.end
        if end.node.is_dead:
            return
        if end.node.cache.is_cut:
            self.has_gap = True
        elif not end.is_open or self.has_gap:
            end.lose()
        else:
            end._arrive(frames)

    def lose(self) -> None:
        """A packet is missing, or this end is over already: the other one is told."""
        self._say(self._tell)
        self._ended()

    def _tell(self) -> None:
        if not self.end.node.cache.is_cut:
            self.end._ended()

    def close(self, *, is_silent: bool = False) -> None:
        """This end takes nothing any more; the other one is told, if somebody is there to say so."""
        if self.is_open:
            self.is_open = False
            if not is_silent and not self.node.is_dead:
                self._say(self._tell)
            self._world.broken(self)
