"""Sessions that are resumed on another node than the one that has them: found, and given."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from xmppd.cluster.member import Member
from xmppd.cluster.nodes import OtherNodes
from xmppd.core.handover import Handover, State
from xmppd.core.managed import FINISH_SECONDS
from xmppd.core.sessions import Session
from xmppd.errors import CommandError

GIVE: Final = "session give"
TAKEN: Final = "session taken"
KEEP: Final = "session keep"

ANSWER_SECONDS: Final = FINISH_SECONDS + 2.0
"""How long a node is waited for that may have to finish what the client sent to it."""


class RemoteResumption:
    """Implements `xmppd.core.handover.Others`."""

    def __init__(
        self,
        others: OtherNodes,
        handover: Handover,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self.incarnation = others.mesh.incarnation
        self.name = others.mesh.name
        self._mesh = others.mesh
        self._calls = calls = others.calls
        self._handover = handover
        self._directed = others.presence.directed
        self.show_again = self._directed.show_again
        self.saw = others.presence.return_to
        self._spawn = spawn
        calls.serve(GIVE, self._give)
        calls.serve(TAKEN, self._taken)
        calls.serve(KEEP, self._keep)

    async def fetch(self, id: str, account: str, h: int) -> State | None:
        """See `Others.fetch`: nodes are asked one after the other, those first where the account is. What a
        node that has gone had may be kept by any.
        """
        arguments = {"id": id, "account": account, "h": h, "to": self.name}
        near = [
            self._mesh.member(node) for node in {place.node: None for place in self._mesh.places(account)}
        ]
        for member in [*near, *(other for other in self._mesh.present() if other not in near)]:
            try:
                state = await self._calls.ask(member, GIVE, arguments, ANSWER_SECONDS)
            except CommandError:
                continue
            if state is not None:
                return {**state, "node": member.name}
        return None

    async def keep(self, state: State) -> bool:
        """See `Others.keep`: those who hear this node are asked, until one does it."""
        for member in [member for member in self._mesh.present() if member.carrier is not None]:
            try:
                if await self._calls.ask(member, KEEP, {"state": state}):
                    return True
            except CommandError:
                continue
        return False

    def seen(self, session: Session) -> Sequence[str]:
        """See `Others.seen`."""
        return [*self._directed.seen.of(session)]

    def taken(self, node: str, id: str) -> None:
        """See `Others.taken`."""
        member = self._mesh.members.get(node)
        if member is not None:
            self._spawn(self._confirm(member, id))

    async def _confirm(self, member: Member, id: str) -> None:
        try:
            await self._calls.ask(member, TAKEN, {"id": id})
        except CommandError:
            return  # what it kept comes once more, as from a node that is lost

    async def _give(self, arguments: Mapping[str, Any]) -> State | None:
        to = arguments.get("to", "")
        return await self._handover.give(arguments["id"], arguments["account"], arguments["h"], to)

    async def _taken(self, arguments: Mapping[str, Any]) -> None:
        self._handover.confirm(arguments["id"])

    async def _keep(self, arguments: Mapping[str, Any]) -> bool:
        return await self._handover.keep(arguments["state"])
