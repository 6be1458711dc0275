"""Whether clients should be sent here, and if not, why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from xmppd.core.credentials import ACCOUNT
from xmppd.errors import StoreError
from xmppd.store.table import Store

OK: Final = "ok"
STORE_SECONDS: Final = 2.0
"""How long the store may take to answer."""
NOBODY: Final = "nobody@invalid"
FRESH_SECONDS: Final = 1.0
"""For how long what it answered holds: whoever asks often does not ask the store as often."""

Check = Callable[[], str]
"""Says `OK`, or why clients should not come."""


class StoreHealth:
    """Asks the store for a row that is not there. `clock` gives seconds that never jump."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._known = ""
        self._until = 0.0
        self._asking = asyncio.Lock()

    async def look(self) -> str:
        """Whether it answers; never raises."""
        async with self._asking:
            if not self._known or self._clock() >= self._until:
                self._known = await self._ask()
                self._until = self._clock() + FRESH_SECONDS
            return self._known

    async def _ask(self) -> str:
        try:
            async with asyncio.timeout(STORE_SECONDS):
                await self._store.get(ACCOUNT, (NOBODY,))
        except TimeoutError:
            return f"the store did not answer within {STORE_SECONDS:g} s"
        except StoreError as error:
            return f"the store does not answer: {error}"
        return OK


class Health:
    """All checks by name, of which `store` is always there. The process adds what it knows of."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self.checks: dict[str, Check] = {}
        self._store = StoreHealth(store, clock)

    async def look(self) -> Mapping[str, str]:
        """What each says now."""
        store = await self._store.look()
        return {**{name: check() for name, check in self.checks.items()}, "store": store}
