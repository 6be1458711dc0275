"""Sessions of one account on several nodes that were sent the same message: of those that ended and had not
acknowledged it, one sees to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from xmppd.cluster.calls import Calls
from xmppd.cluster.member import Member
from xmppd.cluster.mesh import Mesh
from xmppd.core.sessions import Session, Sessions
from xmppd.errors import CommandError

ASK: Final = "session fellow"


class RemoteFellow(NamedTuple):
    """A session of another node that was sent what the session `own` of this one was sent, too."""

    fellows: Fellows
    account: str
    member: Member
    number: int
    own: int

    async def sees_to_it(self) -> bool:
        """Whether it has what both were sent, or sees to that: it may have ended just now, as `own` has."""
        return await self.fellows.ask(self)


class Fellows:
    """Knows them, and asks. Where two end at once, each asks the other: the smaller one sees to it."""

    def __init__(self, mesh: Mesh, sessions: Sessions, calls: Calls) -> None:
        self.mesh = mesh
        self.was_given: Callable[[str, int], bool] = lambda account, number: False
        """Whether a session of this node has moved to another one: that sees to what it had."""
        self._sessions = sessions
        self._calls = calls
        self._deciding: dict[tuple[str, int], int] = {}
        calls.serve(ASK, self._answer)

    def of(self, session: Session) -> tuple[RemoteFellow, ...]:
        """See `Cluster.fellows`."""
        return tuple(
            RemoteFellow(self, session.account, self.mesh.member(place.node), place.number, session.number)
            for place in self.mesh.places(session.account)
            if place.priority == session.priority
        )

    async def ask(self, fellow: RemoteFellow) -> bool:
        """See `RemoteFellow.sees_to_it`."""
        member, key = fellow.member, (fellow.account, fellow.own)
        if member.is_gone:
            return False
        self._deciding[key] = self._deciding.get(key, 0) + 1
        asked = {"account": fellow.account, "number": fellow.number, "by": [self.mesh.name, fellow.own]}
        try:
            return bool(await self._calls.ask(member, ASK, asked))
        except CommandError:
            return False
        finally:
            self._deciding[key] -= 1
            if not self._deciding[key]:
                del self._deciding[key]

    async def _answer(self, asked: Mapping[str, Any]) -> bool:
        account, number = asked["account"], asked["number"]
        if any(session.number == number for session in self._sessions.of(account)):
            return True
        if self.was_given(account, number):
            return True
        return (account, number) in self._deciding and [self.mesh.name, number] < asked["by"]
