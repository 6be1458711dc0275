"""Who is writing something for an account now, so that its removal can wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from xmppd.stream.sasl import Login

_MINE: ContextVar[tuple[str, ...]] = ContextVar("held", default=())
"""The accounts for which the work under way is within a hold, once for each."""


class Holds:
    """Counts who is within `Hold`, by account. `exists` says whether there is an account that may be written
    for; with a login, whether it is still that one. `those` says of many which there are, in their order. Who
    is within a hold is let into another one of that account, whoever waits for the end of the first.
    """

    def __init__(
        self,
        exists: Callable[[str, Login | None], Awaitable[bool]],
        those: Callable[[Sequence[str]], Awaitable[Sequence[str]]],
    ) -> None:
        self._exists = exists
        self._those = those
        self._inside: dict[str, int] = {}
        self._leaving: dict[str, _Closed] = {}
        self._closings = 0

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

    def is_mine(self, account: str) -> bool:
        """Whether the work under way is within a hold of the account, which is there as long as that."""
        return account in self._inside and account in _MINE.get()

    def close(self, account: str) -> None:
        """Let nobody in any more, until all who closed it have opened it."""
        self._closings += 1
        self._leaving.setdefault(account, _Closed()).by += 1

    async def emptied(self, account: str) -> None:
        """Wait, after `close`, for those who are inside."""
        if account in self._inside:
            await self._leaving[account].emptied.wait()

    def open(self, account: str) -> None:
        """The name may be used again, as far as this one is concerned who closed it."""
        self._leaving[account].by -= 1
        if not self._leaving[account].by:
            del self._leaving[account]

    async def still(self, account: str) -> None:
        """Wait for those who write for an account that is not there any more for who comes next."""
        self.close(account)
        try:
            await self.emptied(account)
        finally:
            self.open(account)

    async def enter(self, account: str, login: Login | None) -> bool:
        """Count one more, if the account is there."""
        closings = -1
        while closings != self._closings and not (login is None and self.is_mine(account)):
            closings = self._closings  # what was read may be older than what was closed meanwhile
            if not await self._exists(account, login) or account in self._leaving:
                return False
        self._count((account,))
        return True

    async def enter_many(self, accounts: Sequence[str]) -> list[str]:
        """Count one more of each that is there; which they are."""
        closings, found = -1, list[str]()
        while closings != self._closings and not all(map(self.is_mine, accounts)):
            closings, found = self._closings, [*await self._those(accounts)]
        known = frozenset(found).difference(self._leaving)
        there = [account for account in accounts if account in known or self.is_mine(account)]
        self._count(there)
        return there

    def _count(self, accounts: Iterable[str]) -> None:
        for account in accounts:
            self._inside[account] = self._inside.get(account, 0) + 1
        # Of what was begun in this context and ended in another one nothing is left here.
        _MINE.set((*(it for it in _MINE.get() if it in self._inside), *accounts))

    def last(self, account: str, end: asyncio.Future[Any]) -> None:
        """Count one more of whom somebody is within until that is done."""
        self._inside[account] += 1
        end.add_done_callback(lambda _: self.leave(account))

    def leave(self, account: str) -> None:
        """Count one less."""
        mine = [*_MINE.get()]
        if account in mine:
            mine.remove(account)
            _MINE.set((*mine,))
        left = self._inside.pop(account) - 1
        if left:
            self._inside[account] = left
        elif (closed := self._leaving.get(account)) is not None:
            closed.emptied.set()


class _Closed:
    """By how many an account is closed, and whether nobody is inside any more."""

    __slots__ = ("by", "emptied")

    def __init__(self) -> None:
        self.by = 0
        self.emptied = asyncio.Event()


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

    def until(self, end: asyncio.Future[Any]) -> None:
        """For who is within: stay so until that is done, too, though `async with` is left before."""
        self._holds.last(self._account, end)

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
