"""Whom accounts have blocked (XEP-0191), as rows: kept for whoever serves blocking."""

from __future__ import annotations

from collections.abc import Sequence

from xmppd.store.table import Delete, Put, Store, Table

BLOCKS = Table("blocks", partition=("account",), cluster=("address",), columns={"since": "timestamp"})


class Blocks:
    """The block list of each account; addresses are JIDs in normal form, of any kind."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def of(self, account: str) -> list[str]:
        """The addresses, sorted."""
        [addresses] = await self.of_many([account])
        return addresses

    async def of_many(self, accounts: Sequence[str]) -> list[list[str]]:
        """The addresses that each has blocked, sorted."""
        found = await self._store.scan_many(BLOCKS, accounts)
        return [[row["address"] for row in rows] for rows in found]

    async def replace(self, account: str, addresses: Sequence[str], since: float) -> None:
        """Block these and nobody else; `since` is for those that are new."""
        before, after = set(await self.of(account)), set(addresses)
        writes: list[Put | Delete] = [Delete((address,)) for address in sorted(before - after)]
        writes += [Put({"address": address, "since": since}) for address in sorted(after - before)]
        if writes:
            await self._store.batch(BLOCKS, (account,), writes)

    async def forget(self, account: str) -> None:
        """The list goes with its account."""
        await self._store.delete(BLOCKS, (account,))
