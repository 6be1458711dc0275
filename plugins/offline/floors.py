"""Where the messages that wait for an account begin: what was deleted before them makes reading slower for
days where a store keeps a mark of each row that is gone, as Cassandra does.
"""

from __future__ import annotations

from typing import Any, Final

from xmppd import hooks
from xmppd.plugin import Lru, Plugin, Table, cluster_signal

REMEMBERED: Final = 20_000
"""Of how many accounts it is remembered."""
TOLD: Final = 1000
"""Of so many a node that is met is told one by one."""
YOUNG_SECONDS: Final = 40.0
"""What is younger is settled nowhere, and will not be before it is written."""


class Floors:
    """By account an id below which there is nothing, nor ever will be unless it is `lowered`."""

    def __init__(self) -> None:
        self._ids: Lru[str, str] = Lru(REMEMBERED)
        self.changes = 0

    def of(self, account: str) -> tuple[str] | None:
        """Where to begin to read."""
        id = self._ids.get(account)
        return (id,) if id else None

    def found(self, account: str, id: str, changes: int) -> None:
        """There was nothing below it, as was read from where to begin since there were so many changes."""
        if changes == self.changes and id > (self._ids.get(account) or ""):
            self._ids.put(account, id)

    def lower(self, account: str, id: str) -> None:
        """This one is written now."""
        self.changes += 1
        if id < (self._ids.get(account) or ""):
            self._ids.put(account, id)

    def clear(self) -> None:
        """It is not known what was written."""
        self.changes += 1
        self._ids.clear()


class Floored(Plugin):
    """Reads from there on. Rows have the time in their ids, and those of before that are written nevertheless
    are told to all nodes.
    """

    queue: Table

    async def start(self) -> None:
        """Nothing is known."""
        await super().start()
        self.floors = Floors()
        self._lowered: dict[str, str] = {}

    async def oldest(self, account: str, limit: int, start: tuple[str] | None = None) -> Any:
        """The first rows of an account, or those from an id on. For who holds the gate, or knows that nobody
        here writes.
        """
        if start is not None:
            return await self.queue.scan(account, start=start, limit=limit)
        ids, changes = self.server.ids, self.floors.changes
        settled = f"{min(ids.settled(), ids.time.read()):016x}"  # first, before anything is read
        page = await self.queue.scan(account, start=self.floors.of(account), limit=limit)
        self.floors.found(account, min(page.rows[0]["id"], settled) if page.rows else settled, changes)
        return page

    def lower(self, account: str, id: str) -> None:
        """A row of before is about to be written here. No floor of another node is so young that what is
        younger matters to it.
        """
        self.floors.lower(account, id)
        young = f"{self.server.ids.time.read() - int(YOUNG_SECONDS * 1_000_000):016x}"
        if self.server.has_other_nodes and id < young:
            if len(self._lowered) <= TOLD:
                self._lowered[account] = min(id, self._lowered.get(account, id))
            self.lowered.tell(account, id)

    @cluster_signal
    def lowered(self, account: str, id: str) -> None:
        """The same on some node; "" in the place of an account: on so many that nobody knows."""
        if account:
            self.floors.lower(account, id)
        else:
            self.floors.clear()

    @hooks.node_met
    def tell_lowered(self, node: str) -> None:
        """It was told of none while it was not connected."""
        if len(self._lowered) > TOLD:
            self.lowered.tell_node(node, "", "")
            return
        for account, id in self._lowered.items():
            self.lowered.tell_node(node, account, id)
