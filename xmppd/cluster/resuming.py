"""Sessions that are resumed on another node than the one that has them: found, and given."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from xmppd.cluster.calls import Calls
from xmppd.cluster.member import Member
from xmppd.cluster.mesh import Mesh
from xmppd.core.handover import Handover, State
from xmppd.core.managed import FINISH_SECONDS
from xmppd.errors import CommandError

GIVE: Final = "session give"
TAKEN: Final = "session taken"

ANSWER_SECONDS: Final = FINISH_SECONDS + 2.0
"""How long a node is waited for that may have to finish what the client sent to it."""


class RemoteResumption:
    """Implements `xmppd.core.handover.Others`."""

    def __init__(
        self,
        mesh: Mesh,
        calls: Calls,
        handover: Handover,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._mesh = mesh
        self._calls = calls
        self._handover = handover
        self._spawn = spawn
        calls.serve(GIVE, self._give)
        calls.serve(TAKEN, self._taken)

    async def fetch(self, id: str, account: str, h: int) -> State | None:
        """See `Others.fetch`: the nodes on which the account has sessions are asked, one after the other."""
        arguments = {"id": id, "account": account, "h": h}
        for node in {place.node: None for place in self._mesh.places(account)}:
            member = self._mesh.member(node)
            try:
                state = await self._calls.ask(member, GIVE, arguments, ANSWER_SECONDS)
            except CommandError:
                continue
            if state is not None:
                return {**state, "node": member.name}
        return None

    def taken(self, state: State) -> None:
        """See `Others.taken`."""
        member = self._mesh.members.get(state["node"])
        if member is not None:
            self._spawn(self._confirm(member, state["id"]))

    async def _confirm(self, member: Member, id: str) -> None:
        try:
            await self._calls.ask(member, TAKEN, {"id": id})
        except CommandError:
            return  # what it kept comes once more, as from a node that is lost

    async def _give(self, arguments: Mapping[str, Any]) -> State | None:
        return await self._handover.give(arguments["id"], arguments["account"], arguments["h"])

    async def _taken(self, arguments: Mapping[str, Any]) -> None:
        self._handover.confirm(arguments["id"])
