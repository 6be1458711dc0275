"""Between connections and the mesh: who is greeted, as whom, and what becomes of a trunk when its connection
ends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from xmppd.cluster.connection import Connection, Dialing
from xmppd.cluster.hello import Greeting, Hello
from xmppd.cluster.member import Member
from xmppd.cluster.mesh import Mesh, Met

log = logging.getLogger(__name__)

REFUSED_SECONDS: Final = 1.0
"""A node whose machine answers, and on whose port nobody listens, is given up after so long: its process has
ended.
"""


class Neighbours:
    """Implements `xmppd.cluster.connection.Neighbours`. `addresses` are where this node is reached; `usurped`
    is called when a younger node has our name.
    """

    def __init__(
        self,
        mesh: Mesh,
        version: str,
        clock: Callable[[], float],
        usurped: Callable[[], None],
    ) -> None:
        self.dialing: Dialing
        self.addresses: tuple[str, ...] = ()
        self._mesh = mesh
        self._version = version
        self._clock = clock
        self._usurped = usurped
        self._members: dict[Connection, Member] = {}
        self._refused_since: dict[str, float] = {}
        self._left: dict[str, int] = {}
        self._wanted: dict[str, int] = {}
        mesh.on_left = self._has_left

    def want(self, name: str, incarnation: int, addresses: Sequence[str]) -> None:
        """Have a connection with a node that is said to be there, unless it told that it leaves."""
        if not self.has_left(name, incarnation):
            self._left.pop(name, None)
            if self._wanted.get(name) != incarnation:
                self._wanted[name] = incarnation
                self._refused_since.pop(name, None)  # that was another process
            self.dialing.want(name, addresses)

    def has_left(self, name: str, incarnation: int) -> bool:
        """Whether this life of a node is over, whatever the list says."""
        return self._left.get(name) == incarnation

    def _has_left(self, member: Member) -> None:
        self._left[member.name] = member.incarnation
        self._refused_since.pop(member.name, None)
        self.dialing.forget(member.name)

    def hello_of(self, name: str) -> Hello:
        """What to say to the node of that name: the trunk we have with it, and how far we took it."""
        member = self._mesh.members.get(name)
        trunk, taken = (0, 0) if member is None else (member.trunk.number, member.trunk.taken)
        return Hello(
            name=self._mesh.name,
            incarnation=self._mesh.incarnation,
            trunk=trunk,
            taken=taken,
            addresses=self.addresses,
            version=self._version,
        )

    def met(self, peer: Hello) -> None:
        """A node that knows the secret is there: it is one of us from now on."""
        if peer.name != self._mesh.name:
            self.want(peer.name, peer.incarnation, peer.addresses)
        elif peer.incarnation > self._mesh.incarnation:
            self._usurped()

    def connected(self, greeting: Greeting, connection: Connection) -> None:
        """There is a connection: the trunk goes on, or a new one begins."""
        peer = greeting.peer
        self._refused_since.pop(peer.name, None)
        taken = peer.taken if greeting.is_resumed else 0
        met = Met(peer.name, peer.incarnation, greeting.trunk, taken, greeting.said)
        self._members[connection] = self._mesh.met(met, connection)

    def received(self, connection: Connection, frame: bytes) -> None:
        """A frame came."""
        member = self._members.get(connection)
        if member is not None:
            self._mesh.received(member, connection, frame)

    def disconnected(self, connection: Connection, reason: str) -> None:
        """A connection is over; it is dialed again."""
        member = self._members.pop(connection, None)
        if member is not None:
            self._mesh.disconnected(member, connection)

    def failed(self, name: str, reason: str, *, is_refused: bool) -> None:
        """It could not be reached again. Where nobody listens any more, its process has ended."""
        if not is_refused:
            self._refused_since.pop(name, None)
            return
        self._refused_since.setdefault(name, self._clock())
        if not self.is_absent(name):
            return
        member = self._mesh.members.get(name)
        if member is None:
            self._mesh.end(self._wanted.get(name, 0))
        elif member.carrier is None:
            self._mesh.give_up(member, "nobody listens there")

    def is_absent(self, name: str) -> bool:
        """Whether nobody has listened there for so long that its process has ended."""
        since = self._refused_since.get(name)
        return since is not None and self._clock() - since >= REFUSED_SECONDS
