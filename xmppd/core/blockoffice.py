"""Block lists as an operator changes them, in plain data: what is done reaches sessions and contacts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xmppd.core.accounts import Accounts, AccountUnknown
from xmppd.core.blocking import Blocking
from xmppd.core.blocks import Blocks
from xmppd.moments import utc_stamp


@dataclass(frozen=True, slots=True)
class BlockOffice:
    """What all `block` commands need, on the parts of one server."""

    blocks: Blocks
    blocking: Blocking
    accounts: Accounts

    async def show(self, account: str) -> Sequence[Mapping[str, Any]]:
        """The addresses that an account has blocked, and since when."""
        await self._check(account)
        return [
            {"address": row["address"], "since": _moment(row["since"])}
            for row in await self.blocks.rows(account)
        ]

    async def add(self, account: str, address: str) -> bool:
        """Block one more; whether it was not blocked."""
        return await self._change(account, address, is_blocked=True)

    async def remove(self, account: str, address: str) -> bool:
        """Block one no more; whether it was blocked."""
        return await self._change(account, address, is_blocked=False)

    async def _change(self, account: str, address: str, *, is_blocked: bool) -> bool:
        async with self.accounts.hold(account) as exists:
            if not exists:
                raise AccountUnknown(account)
            if (address in await self.blocking.of(account)) is is_blocked:
                return False
            change = self.blocking.block if is_blocked else self.blocking.unblock
            await change(account, (address,))
            return True

    async def _check(self, account: str) -> None:
        exists = self.accounts.exists(account)
        if not (exists if isinstance(exists, bool) else await exists):
            raise AccountUnknown(account)


def _moment(at: float | None) -> str:
    return "" if at is None else utc_stamp(at)
