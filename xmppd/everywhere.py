"""What commands do on this node and on all others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xmppd.errors import CommandError, XmppdError

if TYPE_CHECKING:
    from xmppd.cluster.member import Member
    from xmppd.cluster.nodes import OtherNodes

Rows = Sequence[Mapping[str, Any]]
Work = Callable[[Mapping[str, Any]], Awaitable[Rows]]
"""Does a thing on this node, by arguments as JSON has them; its rows."""


class Everywhere:
    """Work by name that this node does for its own commands and for those of others. `cluster` is None where
    there are no others.
    """

    def __init__(self) -> None:
        self.cluster: OtherNodes | None = None
        self._work: dict[str, Work] = {}

    def serve(self, name: str, work: Work) -> None:
        """Have this done for whoever asks by this name."""
        self._work[name] = work
        if self.cluster is not None:
            self.cluster.calls.serve(name, work)

    def join(self, cluster: OtherNodes) -> None:
        """There are others from now on."""
        self.cluster = cluster
        for name, work in self._work.items():
            cluster.calls.serve(name, work)

    async def rows(
        self, name: str, arguments: Mapping[str, Any], account: str = ""
    ) -> list[Mapping[str, Any]]:
        """The rows of all nodes, or of those where the account may have sessions, each with the name of its
        `node`. One that refuses, or does not answer within 5 s, has a row with its `problem`. One node alone
        gives its rows as they are; XmppdError.
        """
        cluster = self.cluster
        if cluster is None:
            return [*await self._work[name](arguments)]
        members = [*self._members(cluster, account)]
        asked = [
            self._work[name](arguments),
            *(cluster.calls.ask(member, name, arguments) for member in members),
        ]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        names = [cluster.mesh.name, *(member.name for member in members)]
        return [row for node, answer in zip(names, answers, strict=True) for row in _rows_of(node, answer)]

    def nodes(self, account: str = "") -> list[str]:
        """The names of all nodes, or of those where the account may have sessions, in order; "" for one
        alone.
        """
        cluster = self.cluster
        if cluster is None:
            return [""]
        return sorted((cluster.mesh.name, *(it.name for it in self._members(cluster, account))))

    async def others(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Have it done on all other nodes; which of them do not answer is nobody's matter."""
        cluster = self.cluster
        if cluster is not None:
            asked = (cluster.calls.ask(member, name, arguments) for member in self._members(cluster, ""))
            await asyncio.gather(*asked, return_exceptions=True)

    async def ask(self, node: str, name: str, arguments: Mapping[str, Any]) -> Rows:
        """The rows of the node of that name, "" for this one; CommandError when there is none, or it is
        silent.
        """
        cluster = self.cluster
        if not node or (cluster is not None and node == cluster.mesh.name):
            return await self._work[name](arguments)
        member = None if cluster is None else cluster.mesh.members.get(node)
        if cluster is None or member is None:
            raise CommandError(f"no node {node} is connected (`xmppd node list` shows them)")
        rows: Rows = await cluster.calls.ask(member, name, arguments)
        return rows

    @staticmethod
    def _members(cluster: OtherNodes, account: str) -> Iterable[Member]:
        """Those that may have sessions of the account, or all."""
        nodes = {place.node for place in cluster.mesh.places(account)} if account else set()
        for member in cluster.mesh.present():
            if not account or member.index in nodes or not member.is_joined:
                yield member


def _rows_of(node: str, answer: Rows | BaseException) -> Rows:
    if isinstance(answer, XmppdError):
        return [{"node": node, "problem": str(answer) or type(answer).__name__}]
    if isinstance(answer, BaseException):
        raise answer
    return [{"node": node, **row} for row in answer]
