"""Who is writing something for an account now, so that its removal can wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType

from xmppd.stream.sasl import Login


class Holds:
    """Counts who is within `Hold`, by account. `exists` says whether there is an account that may be written
    for; with a login, whether it is still that one. `those` says of many which there are, in their order.
    """

    def __init__(
        self,
        exists: Callable[[str, Login | None], Awaitable[bool]],
        those: Callable[[Sequence[str]], Awaitable[Sequence[str]]],
    ) -> None:
        self._exists = exists
        self._those = those
        self._inside: dict[str, int] = {}
        self._leaving: dict[str, asyncio.Future[None]] = {}

    def hold(self, account: str, login: Login | None = None) -> Hold:
        """`async with holds.hold(account) as exists`: whether there is such an account. Within, it is not
        removed; when there is none, write nothing.
        """
        return Hold(self, account, login)

    def hold_many(self, accounts: Sequence[str]) -> HoldMany:
        """The same for different accounts: `async with` gives those that there are."""
        return HoldMany(self, accounts)

    def is_leaving(self, account: str) -> bool:
        """Whether nobody may begin to write for the account any more."""
        return account in self._leaving

    def close(self, account: str) -> None:
        """Let nobody in any more."""
        if account not in self._leaving:
            self._leaving[account] = asyncio.get_running_loop().create_future()

    async def emptied(self, account: str) -> None:
        """Wait, after `close`, for those who are inside."""
        if account in self._inside:
            await self._leaving[account]

    def open(self, account: str) -> None:
        """The name may be used again."""
        self._leaving.pop(account, None)

    async def enter(self, account: str, login: Login | None) -> bool:
        """Count one more, if the account is there."""
        # What was read may be older than a removal that has begun meanwhile.
        if not await self._exists(account, login) or account in self._leaving:
            return False
        self._inside[account] = self._inside.get(account, 0) + 1
        return True

    async def enter_many(self, accounts: Sequence[str]) -> list[str]:
        """Count one more of each that is there; which they are."""
        there = [account for account in await self._those(accounts) if account not in self._leaving]
        for account in there:
            self._inside[account] = self._inside.get(account, 0) + 1
        return there

    def leave(self, account: str) -> None:
        """Count one less."""
        left = self._inside.pop(account) - 1
        if left:
            self._inside[account] = left
        elif (emptied := self._leaving.get(account)) is not None and not emptied.done():
            emptied.set_result(None)


class Hold:
    """One writer; see `Holds.hold`."""

    __slots__ = ("_account", "_holds", "_is_in", "_login")

    def __init__(self, holds: Holds, account: str, login: Login | None) -> None:
        self._holds = holds
        self._account = account
        self._login = login
        self._is_in = False

    async def __aenter__(self) -> bool:
        self._is_in = await self._holds.enter(self._account, self._login)
        return self._is_in

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_in:
            self._is_in = False
            self._holds.leave(self._account)


class HoldMany:
    """One writer for many; see `Holds.hold_many`."""

    __slots__ = ("_accounts", "_holds", "_inside")

    def __init__(self, holds: Holds, accounts: Sequence[str]) -> None:
        self._holds = holds
        self._accounts = accounts
        self._inside: list[str] = []

    async def __aenter__(self) -> list[str]:
        self._inside = await self._holds.enter_many(self._accounts)
        return [*self._inside]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        inside, self._inside = self._inside, []
        for account in inside:
            self._holds.leave(account)
