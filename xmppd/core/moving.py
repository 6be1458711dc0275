"""Accounts that are given another address just now, as this node knows: who does something with one of them
at that moment waits and does it under the new address, or has it carried over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Final

from xmppd.core.holds import Holds
from xmppd.errors import StanzaError

FRESH_SECONDS: Final = 60.0
"""So long after it was given up an address is followed: what was begun before is over by then."""
WAIT_SECONDS: Final = 30.0
"""So long who asks for something waits for an account that is being renamed."""
ROUNDS: Final = 8


class Moving:
    """`heed(owner, old)` is to be called by who has changed what a roster says of such an address, or could
    not change the roster of that one; `heed_blocks(owner, blocked, unblocked)` of a block list. Both see to
    the rest behind the caller.
    """

    def __init__(self, holds: Holds, clock: Callable[[], float]) -> None:
        self.on_roster: Callable[[str, str], object] = _nobody
        self.on_blocks: Callable[[str, Collection[str], Collection[str]], object] = _nobody
        self._holds = holds
        self._clock = clock
        self._under_way: dict[str, asyncio.Future[None]] = {}
        self._lately: dict[str, tuple[str, float]] = {}

    # told by who renames

    @property
    def under_way(self) -> list[str]:
        """Addresses that are given up now."""
        return list(self._under_way)

    def begin(self, old: str) -> None:
        """Nobody has this address from now on; what there is under it is on its way to another one."""
        if old not in self._under_way:
            self._under_way[old] = asyncio.get_running_loop().create_future()

    def done(self, old: str, new: str) -> None:
        """All of it is under the new address, which is an account."""
        now = self._clock()
        self._lately = {it: entry for it, entry in self._lately.items() if now - entry[1] < FRESH_SECONDS}
        self._lately.pop(new, None)
        self._lately[old] = new, now
        self.stop(old)

    def stop(self, old: str) -> None:
        """It is given up no more."""
        if (waiting := self._under_way.pop(old, None)) is not None:
            waiting.set_result(None)

    # asked by who writes

    def is_fresh(self, account: str) -> bool:
        """Whether an address is given up now, or was lately."""
        if account in self._under_way:
            return True
        entry = self._lately.get(account) if self._lately else None
        return entry is not None and self._clock() - entry[1] < FRESH_SECONDS

    async def address(self, account: str, seconds: float | None = None) -> str:
        """What an account is called now: the same again, unless `is_fresh`. TimeoutError where that is not
        known within so many seconds (None: as it takes).
        """
        for _ in range(ROUNDS):
            if (waiting := self._under_way.get(account)) is not None:
                done, _ = await asyncio.wait({waiting}, timeout=seconds)
                if not done:
                    raise TimeoutError(f"{account} is being renamed")
            if not self.is_fresh(account):
                break
            account = self._lately[account][0]
        return account

    def heed(self, owner: str, contact: str) -> None:
        """See `Moving`. Costs nothing where nobody is renamed."""
        if (self._under_way or self._lately) and self.is_fresh(contact):
            self.on_roster(owner, contact)

    def heed_blocks(self, owner: str, blocked: Collection[str], unblocked: Collection[str]) -> None:
        """See `Moving`; addresses of any kind."""
        if self._under_way or self._lately:
            some, others = ([it for it in those if self.is_fresh(bare(it))] for those in (blocked, unblocked))
            if some or others:
                self.on_blocks(owner, some, others)

    @asynccontextmanager
    async def together(self, one: str, other: str) -> AsyncIterator[tuple[str, str]]:
        """Two accounts as they are called now, neither of which is removed or renamed within; one that is not
        there is called as it was. Not to be begun within a hold of either, for it may wait. StanzaError where
        one is being renamed for too long.
        """
        while True:
            accounts = one, other
            async with self._holds.hold_many(list(dict.fromkeys(accounts))) as there:
                if not any(it not in there and self.is_fresh(it) for it in accounts):
                    yield accounts
                    return
            try:
                one, other = [it if it in there else await self.address(it, WAIT_SECONDS) for it in accounts]
            except TimeoutError:
                text = "This account is getting another address; try again."
                raise StanzaError("resource-constraint", text, type="wait") from None


def bare(address: str) -> str:
    """The account of an address."""
    return address.partition("/")[0]


def _nobody(*_: object) -> None:
    """Nobody sees to it."""
