"""Locks that all nodes share: a key with a token, which lives for some seconds and is renewed."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from xmppd.store.cache.link import FAILURES, Link, LinkDown
from xmppd.store.cache.scripts import RELEASE, RENEW

LIFE_MS = 10_000
"""How long a lock stands that nobody renews: its holder has ended, and nobody knows it."""

RENEW_SECONDS = 3.0
RELEASE_SECONDS = 1.0
LOOK_SECONDS = (0.02, 0.5)
"""How soon it is looked again whether a lock is free, at first and at most."""


class Locks:
    """The locks of one Redis, each by the name of what is to be done alone. They keep nobody from working:
    without Redis everybody goes on.

    They begin with a number that stands for this process, 0 for one that is alone. What one held for which
    `has_ended` says that it has ended is free at once.
    """

    def __init__(self, link: Link, prefix: str) -> None:
        self._number = 0
        self._has_ended: Callable[[int], bool] = lambda number: False
        self._link = link
        self._prefix = prefix
        self._releasing: set[asyncio.Task[None]] = set()

    def belong(self, number: int, has_ended: Callable[[int], bool]) -> None:
        """Be one process of several; the locks taken by now have no owner."""
        self._number, self._has_ended = number, has_ended

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[None]:
        """Hold a lock, as soon as it is free."""
        key, token = f"{self._prefix}:{name}", f"{self._number:x}.{secrets.token_hex(8)}"
        renewing = await self._renewed(key, token)
        try:
            yield
        finally:
            if renewing is not None:
                renewing.cancel()
                self._give_back(key, token)

    async def _renewed(self, key: str, token: str) -> asyncio.Task[None] | None:
        """Take a lock, and see that it stands; None where Redis cannot be asked."""
        pause, longest = LOOK_SECONDS
        is_unsure = False
        try:
            while True:
                asking = self._link.call("SET", key, token, "NX", "PX", LIFE_MS)
                is_unsure = True  # until there is an answer it may be held by us, or not
                if await asking:
                    return asyncio.get_running_loop().create_task(self._renew(key, token))
                is_unsure = False
                if not await self._was_left(key):
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, longest)
        except LinkDown:
            if is_unsure:
                self._give_back(key, token)
            return None

    async def _was_left(self, key: str) -> bool:
        """Whether a lock is free by now: who held it has ended."""
        token: bytes | None = await self._link.call("GET", key)
        if token is None:
            return True
        if not self._has_ended(int(token.partition(b".")[0], 16)):
            return False
        await self._link.run(RELEASE, [key], token)
        return True

    def _give_back(self, key: str, token: str) -> None:
        """See that a lock does not stand any longer, which others wait for."""
        task = asyncio.get_running_loop().create_task(self._release(key, token))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    async def _release(self, key: str, token: str) -> None:
        """By the time that this gives up the lock has ended by itself."""
        for _ in range(LIFE_MS // 1000):
            with suppress(*FAILURES):
                await self._link.send([("EVALSHA", RELEASE, 1, key, token)], RELEASE_SECONDS)
                return
            await asyncio.sleep(1.0)

    async def _renew(self, key: str, token: str) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            with suppress(*FAILURES):
                await self._link.send([("EVALSHA", RENEW, 1, key, token, LIFE_MS)], RENEW_SECONDS)
