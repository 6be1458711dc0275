"""What carries the frames of a trunk in `nodesmodel`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from virtualtime import IO

if TYPE_CHECKING:
    from modelnodes import Node, World

    from xmppd.cluster.member import Member


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
