"""A store that holds messages back, and the turns of a server that waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Delete, Key, Put, Table
from xmppd.testing import World


class HeldStore(SqliteStore):
    """A store that takes messages and does not write them yet; `failing` says which fail."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.held: list[tuple[asyncio.Future[None], int]] = []
        self.failing: Callable[[bytes], Exception | None] = lambda stanza: None

    async def batch(self, table: Table, partition: Key, writes: Sequence[Put | Delete], **how: Any) -> bool:
        puts = [write.row for write in writes if isinstance(write, Put)]
        if table.name == "offline_queue" and puts:
            gate = asyncio.get_running_loop().create_future()
            self.held.append((gate, len(puts)))
            await gate
            for row in puts:
                if error := self.failing(row["stanza"]):
                    raise error
        return await super().batch(table, partition, writes, **how)

    @property
    def counts(self) -> list[int]:
        """How many messages it was given at once, each time."""
        return [count for _, count in self.held]

    async def let_all_go(self, world: World) -> None:
        """All that are held, and those that come behind them."""
        while any(not gate.done() for gate, _ in self.held):
            await self.let_go(world)

    async def let_go(self, world: World) -> None:
        """Those that are held now."""
        for gate, _ in self.held:
            if not gate.done():
                gate.set_result(None)
        await turns(world)


async def turns(world: World) -> None:
    for _ in range(20):
        await asyncio.sleep(0)
        for client in world.clients:
            client.pump()
