"""Commands about the nodes of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Protocol

from xmppd.admin.commands import USAGE, command
from xmppd.errors import CommandError

PACE = 500
"""Sessions that a node that drains ends in a second."""


class Nodes(Protocol):
    """What `node` commands need. One with a `problem` stands for a node that did not answer."""

    async def nodes(self) -> list[Mapping[str, Any]]:
        """A row for each node."""

    async def drain(self, node: str, pace: int, *, restart: bool) -> list[Mapping[str, Any]]:
        """Have a node ("": this one) end so many sessions a second, and itself; a row that says how many
        there are. `restart`: its exit code asks for another life. CommandError when it is not there.
        """


class NodeCommands:
    """`node ...`: the servers that are one."""

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes

    @command("List all nodes", name="node list", reads=True)
    async def every(self) -> list[dict[str, Any]]:
        """One row for each. `load`: the share of one processor that it used in the last seconds. `lag_ms`:
        how long it took until what the asked node told it last was acknowledged; `frames`: how many it was
        told. `elsewhere`: how many sessions of others it knows of.
        """
        return [dict(row) for row in await self.nodes.nodes()]

    @command("Let a node send its clients away, and stop", name="node drain")
    async def drain(
        self,
        node: Annotated[str, "its name, as `node list` shows it; this one unless told"] = "",
        *,
        pace: Annotated[int, "how many sessions are ended in a second"] = PACE,
        restart: Annotated[bool, "exit with 75, so that whoever supervises it starts it again"] = False,
    ) -> list[dict[str, Any]]:
        """It begins with that, and does not wait for the end."""
        if pace < 1:
            raise CommandError("pace must be 1 or more", USAGE)
        return [dict(row) for row in await self.nodes.drain(node, pace, restart=restart)]
