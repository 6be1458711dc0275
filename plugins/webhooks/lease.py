"""Which node delivers what a subscription has, and up to where that is done."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from xmppd.plugin import Delete, Put, StoreError

if TYPE_CHECKING:
    from . import Webhooks

BEAT_SECONDS: Final = 2.5


class Lease:
    """The partition of a subscription in `cursors`: static who delivers, by an epoch that rises and a beat,
    and a row for each writer. A node takes over what did not beat for some seconds of its own clock: clocks
    are never compared. Whoever was thought dead and is not finds its epoch gone, and can write nothing.
    """

    def __init__(self, plugin: Webhooks, subscription: str) -> None:
        self._plugin = plugin
        self._subscription = subscription
        self.node = ""
        self._seen: tuple[Any, ...] = ()
        self._since = 0.0
        self._epoch = 0
        self._beat = 0
        self._said = 0.0
        self.is_held = False

    async def take(self) -> bool:
        """Look whether it may be had, and take it; StoreError."""
        seen = await self._plugin.cursors.get_static(self._subscription)
        row: Mapping[str, Any] = seen or {"holder": None, "node": None, "epoch": None, "beat": None}
        self.node = row["node"] or ""
        before = (row["holder"], row["epoch"], row["beat"])
        clock = self._plugin.scope.clock
        is_other = row["holder"] not in (None, "", self._plugin.boxes.writer)
        if is_other and self._plugin.server.has_other_nodes:
            if before != self._seen:
                self._seen, self._since = before, clock()
            if clock() - self._since < self._plugin.config.lease:
                return False
        self._epoch, self._beat = (row["epoch"] or 0) + 1, 0
        self.is_held = await self._write(
            [], {"epoch": row["epoch"], "beat": row["beat"]}, holder=self._plugin.boxes.writer
        )
        if self.is_held:
            self.node = self._plugin.server.node
        return self.is_held

    async def _write(self, writes: list[Put | Delete], expect: Mapping[str, Any], holder: str) -> bool:
        static = {
            "holder": holder,
            "node": self._plugin.server.node if holder else "",
            "epoch": self._epoch,
            "beat": self._beat,
        }
        self._said = self._plugin.scope.clock()
        return await self._plugin.cursors.batch(
            self._subscription, writes=writes, static=static, expect=expect
        )

    async def rows(self) -> dict[str, int]:
        """By writer, up to which row all is delivered."""
        found = await self._plugin.cursors.scan(self._subscription)
        return {row["writer"]: row["row"] for row in found.rows if row["row"] is not None}

    @property
    def is_beat_due(self) -> bool:
        """Whether others have to hear that this node lives."""
        return self._plugin.server.has_other_nodes and self._plugin.scope.clock() - self._said >= BEAT_SECONDS

    async def move(self, rows: Mapping[str, int], gone: list[str]) -> bool:
        """It is delivered up to these rows, and these writers have nothing any more. Whether the lease is
        still held; StoreError.
        """
        beat, self._beat = self._beat, self._beat + 1
        writes: list[Put | Delete] = [Put({"writer": writer, "row": row}) for writer, row in rows.items()]
        writes += [Delete((writer,)) for writer in gone]
        try:
            self.is_held = await self._write(
                writes, {"epoch": self._epoch, "beat": beat}, holder=self._plugin.boxes.writer
            )
        except StoreError:
            self.is_held = False  # it may be written or not: taken anew
            raise
        return self.is_held

    async def give_up(self) -> None:
        """Another node may have it at once."""
        if self.is_held:
            self.is_held = False
            beat, self._beat = self._beat, self._beat + 1
            await self._write([], {"epoch": self._epoch, "beat": beat}, holder="")
