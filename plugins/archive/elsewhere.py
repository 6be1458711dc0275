"""What the order of archives needs: a clock, other nodes, and what these say to each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Final, Protocol

from xmppd.plugin import Server

ASK: Final = "ask"
"""What is under way there into an archive? Each is told, and then that all are known, with the id of this."""
KNOWN: Final = "known"
HOLD: Final = "hold"
"""One begins with this id; instead of another one, if that is said too."""
KEEP: Final = "keep"
"""The same for one whose id is final."""
LATE: Final = "late"
"""Its id is too small; its place is held by another one, which is said."""
AWAY: Final = "away"
"""The account has no session there any more. With another id: it had, and saw larger ones."""
TAKEN: Final = "taken"
"""It has its place."""
GO: Final = "go"
"""It has its place, and nothing before it is under way from elsewhere."""
END: Final = "end"
"""Whoever was to see it has, or it is where he will look."""


class Clock(Protocol):
    """A hybrid clock, as in `xmppd.core.ids`."""

    def next(self, after: int = 0) -> int:
        """Larger than all that was given or seen."""

    def see(self, at: int) -> None:
        """Another clock was there."""


class Nodes(Protocol):
    """This node and the others. `is_shared`: there may be others."""

    @property
    def is_shared(self) -> bool:
        """Whether there may be other nodes."""

    def others(self) -> Collection[str]:
        """The names of all others."""

    def of(self, account: str) -> Collection[str]:
        """Those of the others where an account has sessions."""

    def sessions(self, account: str) -> Sequence[object]:
        """Those that it has here."""

    def tell(self, node: str, verb: str, account: str, id: bytes, other: bytes) -> None:
        """Have another node `hear` something; in order, behind all that it is told of sessions here."""


class Alone:
    """Implements `Nodes` for one that knows no others, and nobody asks."""

    is_shared = False

    def others(self) -> Collection[str]:
        """None."""
        return ()

    def of(self, account: str) -> Collection[str]:
        """None."""
        return ()

    def sessions(self, account: str) -> Sequence[object]:
        """None that matter."""
        return ()

    def tell(self, node: str, verb: str, account: str, id: bytes, other: bytes) -> None:
        """Nobody hears it."""


Saying = tuple[str, str, str, str]
"""Verb, account, and the two ids, as text."""


class Elsewhere:
    """Implements `Nodes` for a server; `tell` has the node named first `hear` what this one says. What is
    said in one turn of the loop goes together: it only ever comes behind what else that node is told. Nodes
    on which no `plugin` of this name is at work are none: they would answer nothing.
    """

    def __init__(
        self, server: Server, plugin: str, tell: Callable[[str, str, Sequence[Saying]], None]
    ) -> None:
        self._server = server
        self._plugin = plugin
        self._tell = tell
        self._said: dict[str, list[Saying]] = {}

    @property
    def is_shared(self) -> bool:
        """See `Nodes.is_shared`."""
        return self._server.has_other_nodes

    def others(self) -> Collection[str]:
        """See `Nodes.others`."""
        return self._at_work(self._server.other_nodes())

    def of(self, account: str) -> Collection[str]:
        """See `Nodes.of`."""
        return self._at_work(self._server.nodes_of(account))

    def _at_work(self, nodes: Collection[str]) -> Collection[str]:
        return [node for node in nodes if self._server.runs(node, self._plugin)] if nodes else nodes

    def sessions(self, account: str) -> Sequence[object]:
        """See `Nodes.sessions`."""
        return self._server.sessions(account)

    def tell(self, node: str, verb: str, account: str, id: bytes, other: bytes) -> None:
        """See `Nodes.tell`."""
        if not self._said:
            asyncio.get_running_loop().call_soon(self._tell_all)
        self._said.setdefault(node, []).append((verb, account, id.hex(), other.hex()))

    def _tell_all(self) -> None:
        said, self._said = self._said, {}
        for node, sayings in said.items():
            self._tell(node, self._server.node, sayings)
