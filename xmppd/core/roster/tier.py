"""A second tier for rosters, shared by all nodes, between this process' memory and the store.

`SharedCache` is the port; `RosterTier` is what `Rosters` does with it. The protocol, its races and its
outages are in docs/design/011-roster-cache.md. In short: who writes marks the roster first; while a mark
stands nothing is served from the cache and nothing is put into it, and a reader may only put there what it
read under a lease that no writer has taken since.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from xmppd.core.roster.cache import Roster
from xmppd.core.roster.packed import pack, unpack
from xmppd.errors import StoreUnavailable

LOADS = 32
"""How many rosters are read from the store at once, whatever happens to the cache; others wait."""

UNKNOWN = -1
"""In place of a version: the roster is gone, or may be anything."""


class Answer(NamedTuple):
    """What a cache says when asked for a roster: its bytes, or else the lease to fill it under ("": none).

    `is_marked`: a change of it is under way, so what the store has now may soon be old.
    """

    value: bytes | None
    lease: str
    is_marked: bool = False


class Write:
    """One change of one roster that is under way.

    `is_marked`: other nodes know. `is_alone`: no other node began to change the same roster since.
    """

    __slots__ = ("account", "is_alone", "is_marked", "token")

    def __init__(self, account: str, token: str) -> None:
        self.account = account
        self.token = token
        self.is_marked = False
        self.is_alone = True


class Listener(Protocol):
    """Who takes over what other nodes did: `xmppd.core.elsewhere`."""

    def roster_begun(self, account: str, token: str) -> None:
        """A change of this roster begins."""

    def roster_changed(self, account: str, version: int, token: str) -> None:
        """It ended with this version (0: nothing was written, `UNKNOWN`: anything)."""

    def account_changed(self, account: str) -> None:
        """An account was made, changed or removed."""

    def everything_changed(self) -> None:
        """Nothing that is in memory can be trusted."""

    def lost(self) -> None:
        """Notices do not arrive any more."""

    def back(self) -> None:
        """Notices arrive, from now on."""

    def tick(self) -> None:
        """About a second has passed."""


class SharedCache(Protocol):
    """A cache of packed rosters. Nothing here raises because of the cache: what cannot be asked has
    nothing.
    """

    @property
    def is_heard(self) -> bool:
        """Whether the notices of other nodes arrive, so that copies in memory can be trusted."""

    @property
    def counters(self) -> Mapping[str, int]:
        """What happened so far, for operators."""

    async def sounding(self) -> tuple[float, float]:
        """How many seconds it took to answer just now, and by how many its clock is ahead of ours.
        TimeoutError when it cannot be asked.
        """

    async def read(self, account: str, *, fresh: bool = False) -> Answer:
        """What is cached. `fresh`: what is there turned out to be old or damaged; away with it,
        everywhere.
        """

    async def fill(self, account: str, lease: str, value: bytes, *, empty: bool) -> bool:
        """Cache what was read from the store under this lease; whether it was taken.

        `empty`: there is no roster, so remember that for a short time only.
        """

    async def begin(self, account: str) -> Write:
        """Say that a change begins, before the store hears of it."""

    async def finish(self, write: Write, version: int, value: bytes = b"") -> bool:
        """Say how the change ended: the version it made (0: nothing was written; `UNKNOWN`: anything), and
        the roster if it is known. Whether that is now the newest one, and may be kept in memory.
        """

    def abandon(self, write: Write) -> None:
        """The outcome of the change is not known: until every deadline has passed nothing is cached."""

    def publish_account(self, account: str) -> None:
        """Have other nodes forget what they know about the account itself, its password for one."""

    async def erase(self, account: str) -> None:
        """Keep nothing of an account that has gone."""

    @property
    def asked(self) -> int:
        """How often the cache was asked for anything."""

    async def said_all(self) -> None:
        """Done when others can hear all that was said here."""

    async def heard_all(self) -> None:
        """Done when all that was said by then was taken here."""

    def lock(self, name: str) -> AbstractAsyncContextManager[None]:
        """Be the only one of all nodes that does what has this name; without the cache nobody is kept out."""

    async def open(self, listener: Listener) -> None:
        """Connect, and tell `listener` from now on what other nodes do; an engine that is away comes
        later.
        """

    async def close(self) -> None:
        """Tell what is still to be told, and disconnect."""


class RosterTier:
    """Rosters read and written through a cache that all nodes share.

    `on_marked` is told of every account whose roster is read from the store while a change is under way.
    """

    def __init__(self, cache: SharedCache, *, loads: int = LOADS) -> None:
        self.cache = cache
        self.on_marked: Callable[[str], None] | None = None
        self._loads = asyncio.Semaphore(loads)

    async def load(
        self, account: str, fetch: Callable[[str], Awaitable[Roster]], *, fresh: bool = False
    ) -> tuple[Roster, bool]:
        """The account's roster, from the cache or else by `fetch` from the store, and whether it may be kept
        in memory. `fresh`: from the store in any case.
        """
        cache = self.cache
        answer = await cache.read(account, fresh=fresh)
        if answer.value is not None:
            roster = unpack(account, answer.value)
            if roster is not None:
                return roster, cache.is_heard
            answer = await cache.read(account, fresh=True)
        if answer.is_marked and self.on_marked is not None:
            self.on_marked(account)
        async with self._loads:
            roster = await fetch(account)
        if not answer.lease:
            return roster, False
        is_taken = await cache.fill(account, answer.lease, pack(roster), empty=not roster.version)
        return roster, is_taken and cache.is_heard

    async def write(
        self,
        account: str,
        write: Callable[[], Awaitable[bool]],
        after: Roster | None,
    ) -> tuple[bool, bool]:
        """Have the store changed by `write`; whether it was, and whether `after` may be kept in memory.

        `after` is the roster then, None where that is not known. What `write` raises is raised.
        """
        cache = self.cache
        begun = await cache.begin(account)
        try:
            is_written = await write()
        except StoreUnavailable:  # nothing was written
            await cache.finish(begun, 0)
            raise
        except BaseException:
            cache.abandon(begun)
            raise
        if not is_written:
            await cache.finish(begun, 0)
            return False, False
        if after is None:
            return True, await cache.finish(begun, UNKNOWN)
        return True, await cache.finish(begun, after.version, pack(after))
