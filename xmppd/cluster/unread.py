"""Letters of messages. While a managed session was sent one and its client has not acknowledged it, the
letter is open, so that the node of the sender has it if the node of the receiver is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from xmppd.cluster.member import Member
from xmppd.cluster.mesh import Mesh
from xmppd.cluster.records import FULL, TOP, Message
from xmppd.core.managed import Managed
from xmppd.core.sessions import Session

MOST: Final = 10_000
BYTES: Final = 8_388_608
"""Of so many messages the letters stay open on one node; those beyond are settled at once."""


class Unread:
    """The letters that are held here for other nodes."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._count = 0
        self._size = 0

    def __len__(self) -> int:
        """How many."""
        return self._count

    def sent(self, member: Member, record: Message, receivers: Sequence[Session]) -> None:
        """Sessions are sent a message of that member: hold its letter if one alone is, and counts. Call it
        before anything else is taken.
        """
        managed: Managed | None = receivers[0].managed
        if managed is None or len(receivers) > 1 or record.is_one_of_several:
            return
        if record.mode not in (TOP, FULL):
            return  # it may not be kept
        if self._count >= MOST or self._size + len(record.raw) > BYTES or not managed.is_kept:
            return
        self._count += 1
        self._size += len(record.raw)
        member.trunk.hold(record.id)
        managed.when_had(record.raw, lambda _: self._had(member, record.id, len(record.raw)))

    def _had(self, member: Member, id: int, size: int) -> None:
        self._count -= 1
        self._size -= size
        if not member.is_gone:
            member.trunk.settle([id])
            self._mesh.due(member)
