"""What Redis is to the nodes of `nodesmodel`: rosters under marks and leases, notices of changes, locks, and
the list of nodes. A node may be cut off from it for a while, and it may be gone and come back empty.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from contextvars import Context
from typing import TypeVar

from modelengines import Engine, Time
from virtualtime import IO, Callback

from xmppd.cluster.registry import FRESH_SECONDS, Entry, Listing
from xmppd.core.roster.tier import Answer, Listener, Write
from xmppd.errors import NodesUnavailable

LOCK_SECONDS = 10.0
"""How long a lock stands whose node does nothing."""

MARK_SECONDS = 30.0
"""How long a write counts as under way whose end nobody told."""

TIMEOUT_SECONDS = 0.25
"""How long a node waits for an answer."""

PROBE_SECONDS = (0.05, 1.0)
"""How soon it is tried again."""

DEAF_SECONDS = 3.0
"""When it shows that notices do not arrive."""

Result = TypeVar("Result")


class Away(Exception):
    """Redis cannot be asked; it may have done what it was asked for."""


class Lock:
    """Held by a node."""

    def __init__(self, incarnation: int) -> None:
        self.incarnation = incarnation


class Cache(Engine):
    """The one that all nodes use. `names`: of each node that is on the list its entry, and when it beat;
    `untold`: accounts of whose changed rosters it was never told, for who changed them did not reach it and
    died: others may have the old ones for `cache.ttl` (docs/design/011-roster-cache.md).
    """

    def __init__(self, world: Time) -> None:
        super().__init__(world)
        self.values: dict[str, bytes] = {}
        self.leases: dict[str, str] = {}
        self.marks: dict[str, dict[str, Callback]] = defaultdict(dict)
        self.locks: dict[str, Lock] = {}
        self.names: dict[str, tuple[Entry, float]] = {}
        self.nodes: list[NodeCache] = []
        self.untold: set[str] = set()
        self.gone_until = 0.0
        self._tokens = 0

    def token(self) -> str:
        """One that nobody else has."""
        self._tokens += 1
        return f"t{self._tokens}"

    def tell(self, by: NodeCache, tell: Callable[[NodeCache], None]) -> None:
        """Have all other nodes hear something, in order."""
        for node in self.nodes:
            if node is not by:
                node.hear(tell)

    def begin(self, account: str, token: str) -> None:
        """A write begins; nobody waits for its end for ever."""
        self.values.pop(account, None)
        self.leases[account] = token
        end = self._world.loop.call_later(
            MARK_SECONDS, self.unmark, account, token, context=self._world.outside
        )
        self.marks[account][token] = end

    def unmark(self, account: str, token: str) -> None:
        """It is over."""
        end = self.marks[account].pop(token, None)
        if end is not None:
            end.cancel()

    def restart(self, seconds: float) -> None:
        """It is killed, and starts empty so many seconds later."""
        self.gone_until = self._world.loop.time() + seconds
        for node in self.nodes:
            node.cut(seconds, is_silent=False)
        for marks in self.marks.values():
            for end in marks.values():
                end.cancel()
        for kept in (self.values, self.leases, self.marks, self.locks, self.names):
            kept.clear()  # type: ignore[attr-defined]


class NodeCache(Engine):
    """One node's use of it: a `SharedCache` and a `NodeList`, as `xmppd.store.cache` has them. What is said
    to Redis just before the way there is cut may be done, and what is said then may be done late. `on_away`
    is called when it shows that nothing arrives.
    """

    has_debts = True
    asked = 0
    counters: Mapping[str, int] = {}

    def __init__(self, world: Time, cache: Cache, context: Context) -> None:
        super().__init__(world)
        self.listener: Listener
        self.is_dead = False
        self.is_up = True
        self.is_heard = True
        self.on_away: Callable[[], None] = lambda: None
        self._cache = cache
        self._context = context
        self._heard_until = 0.0
        self.cut_until = 0.0
        self._times_deaf = 0
        self._writes: dict[str, set[Write]] = defaultdict(set)
        self._written: dict[str, float] = {}
        self._owed: set[str] = set()
        self._held: dict[str, Lock] = {}
        self._incarnation = 0
        self._has_ended: Callable[[int], bool] = lambda number: False
        cache.nodes.append(self)

    def open(self, listener: Listener) -> None:
        """Its node begins: perhaps while Redis is gone."""
        self.listener = listener
        if (seconds := self._cache.gone_until - self._now) > 0:
            self.cut(seconds, is_silent=False)

    def belong(self, incarnation: int, has_ended: Callable[[int], bool]) -> None:
        """See `Locks`."""
        self._incarnation, self._has_ended = incarnation, has_ended

    def end(self) -> None:
        """Its node is dead."""
        self.is_dead = True
        self._cache.nodes.remove(self)
        self._cache.untold |= self._owed

    @property
    def _now(self) -> float:
        return self._world.loop.time()

    @property
    def is_cut(self) -> bool:
        """Whether nothing passes between its node and Redis."""
        return self._now < self.cut_until

    def _later(self, seconds: float, do: Callable[..., None], *args: object) -> None:
        """Have the node do something."""
        self._world.loop.call_later(seconds, do, *args, context=self._context)

    # the way there

    def cut(self, seconds: float, *, is_silent: bool) -> None:
        """Nothing passes for a while: what is on its way is held up, or lost at once."""
        self.cut_until = max(self.cut_until, self._now + seconds)
        if not is_silent:
            self._later(0.0, self._deafen)
        elif seconds > DEAF_SECONDS:
            self._later(DEAF_SECONDS, self._deafen)
        self._heard_until = max(self._heard_until, self.cut_until)
        if seconds > LOCK_SECONDS:
            self._world.loop.call_later(LOCK_SECONDS, self._expire_if_cut, context=self._world.outside)

    def _expire_if_cut(self) -> None:
        if self.is_cut:
            self.expire()

    async def _ask(self, step: Callable[[], Result]) -> Result:
        """Have Redis do something; `Away`."""
        if not self.is_up:
            raise Away
        loop, chance = self._world.loop, self._world.random
        was_cut = self.is_cut
        if not was_cut:
            result = await self._do(0.01, step)
            if not self.is_cut:
                return result
        elif self.cut_until > self._cache.gone_until and chance.random() < 0.5:
            loop.call_at(self.cut_until, step, context=self._world.outside)
        await asyncio.sleep(TIMEOUT_SECONDS)
        self._failed()
        raise Away

    def _failed(self) -> None:
        """Redis is left alone until it answers; what it was told lately may be missing there."""
        if self.is_up:
            self.is_up = False
            self._owed |= {name for name, at in self._written.items() if at > self._now - MARK_SECONDS}
            self._later(PROBE_SECONDS[0], self._probe)

    def _probe(self) -> None:
        if self.is_dead:
            return
        if self.is_cut:
            self._later(self._world.random.uniform(*PROBE_SECONDS), self._probe)
            return
        for account in sorted(self._owed) if self.has_debts else ():
            self._cache.begin(account, self._cache.token())
            self._cache.tell(self, _changed(account, -1, "-", is_begun=True))
        self._owed.clear()
        self.is_up = True

    def _owe(self, account: str) -> None:
        self._owed.add(account)
        if self.is_up:  # it was told of nothing, but can be
            self._failed()

    # what others did

    def _deafen(self) -> None:
        """It shows that notices do not arrive."""
        if self.is_dead or not self.is_heard:
            return
        self.is_heard = False
        self._times_deaf += 1
        for writes in self._writes.values():
            for write in writes:
                write.is_alone = False
        self.listener.lost()
        self.on_away()
        self._failed()
        self._later(PROBE_SECONDS[0], self._listen)

    def _listen(self) -> None:
        if self.is_dead:
            return
        if self.is_cut:
            self._later(self._world.random.uniform(*PROBE_SECONDS), self._listen)
            return
        self.is_heard = True
        self._heard_until = self._now
        self.listener.back()

    def hear(self, tell: Callable[[NodeCache], None]) -> None:
        """Something that another node did."""
        if not self.is_heard:
            return
        world = self._world
        self._heard_until = max(self._heard_until + 1e-6, self._now + world.random.uniform(0.001, 0.05))
        times = self._times_deaf
        world.loop.call_at(self._heard_until, self._hear, tell, times, context=self._context, kind=IO)

    def _hear(self, tell: Callable[[NodeCache], None], times: int) -> None:
        if not self.is_dead and times == self._times_deaf:
            tell(self)

    def begun(self, account: str, token: str) -> None:
        """Another node begins to write a roster."""
        for write in self._writes[account]:
            write.is_alone = False
        self.listener.roster_begun(account, token)

    def changed(self, account: str, version: int, token: str, *, is_begun: bool = False) -> None:
        """Another node changed a roster."""
        for write in self._writes[account] if is_begun else ():
            write.is_alone = False
        self.listener.roster_changed(account, version, token)

    # rosters

    async def read(self, account: str, *, fresh: bool = False) -> Answer:
        """See `SharedCache`."""
        cache, token = self._cache, self._cache.token()

        def step() -> Answer:
            if fresh:
                cache.values.pop(account, None)
                cache.tell(self, _changed(account, -1, "-", is_begun=True))
            if cache.marks[account]:
                return Answer(None, "", is_marked=True)
            if account in cache.values:
                return Answer(cache.values[account], "")
            is_leased = account not in cache.leases
            if is_leased:
                cache.leases[account] = token
            return Answer(None, token if is_leased else "")

        try:
            return await self._ask(step)
        except Away:
            if fresh:
                self._owe(account)
            return Answer(None, "")

    async def fill(self, account: str, lease: str, value: bytes, *, empty: bool) -> bool:
        """See `SharedCache`."""
        cache = self._cache

        def step() -> bool:
            is_mine = cache.leases.get(account) == lease
            if is_mine:
                del cache.leases[account]
                cache.values[account] = value
            return is_mine

        try:
            return await self._ask(step)
        except Away:
            return False

    async def begin(self, account: str) -> Write:
        """See `SharedCache`."""
        cache, write = self._cache, Write(account, self._cache.token())
        self._writes[account].add(write)
        self._written[account] = self._now

        def step() -> None:
            cache.begin(account, write.token)
            cache.tell(self, lambda node: node.begun(account, write.token))

        try:
            await self._ask(step)
            write.is_marked = True
        except Away:
            self._owe(account)
        return write

    async def finish(self, write: Write, version: int, value: bytes = b"") -> bool:
        """See `SharedCache`."""
        if not write.is_marked:
            self.abandon(write)
            return False
        cache, account = self._cache, write.account

        def step() -> bool:
            cache.unmark(account, write.token)
            is_last = cache.leases.get(account) == write.token
            if is_last:
                del cache.leases[account]
            is_newest = is_last and not cache.marks[account] and version != 0
            if is_newest and version > 0:
                cache.values[account] = value
            elif version:
                cache.values.pop(account, None)
            cache.tell(self, _changed(account, version, write.token))
            return is_newest

        try:
            is_newest = await self._ask(step)
        except Away:
            self._owe(account)
            return False
        finally:
            self._writes[account].discard(write)
        return is_newest and write.is_alone and self.is_heard

    def abandon(self, write: Write) -> None:
        """See `SharedCache`."""
        self._writes[write.account].discard(write)
        if not write.is_marked:
            self._owe(write.account)

    # locks

    @contextlib.asynccontextmanager
    async def lock(self, name: str) -> AsyncIterator[None]:
        """A lock of all nodes, which stands for a while when its node does nothing any more, unless that is
        known to have ended; nobody is kept out who cannot ask.
        """
        locks, mine = self._cache.locks, Lock(self._incarnation)

        def take() -> bool:
            if (other := locks.get(name)) is not None and self._has_ended(other.incarnation):
                del locks[name]
            return locks.setdefault(name, mine) is mine

        self._held[name] = mine
        try:
            with contextlib.suppress(Away):
                while not await self._ask(take):  # noqa: ASYNC110 - as there
                    await asyncio.sleep(0.05)
            yield
        finally:
            if self._held.get(name) is mine:
                del self._held[name]
            left = max(0.0, self.cut_until - self._now)
            self._release_later(LOCK_SECONDS if self.is_dead else min(left + 0.002, LOCK_SECONDS), name, mine)
            if left:  # it may be taken late
                self._release_later(left + (0.002 if left < LOCK_SECONDS else LOCK_SECONDS), name, mine)

    def expire(self) -> None:
        """Its node did not renew its locks."""
        for name, mine in self._held.items():
            self._release(name, mine)

    def _release_later(self, seconds: float, name: str, mine: object) -> None:
        self._world.loop.call_later(seconds, self._release, name, mine, context=self._world.outside)

    def _release(self, name: str, mine: object) -> None:
        if self._cache.locks.get(name) is mine:
            del self._cache.locks[name]

    # the list of nodes

    async def beat(self, own: Entry, secret: bytes, *, is_first: bool) -> Listing:
        """See `NodeList`."""
        names = self._cache.names

        def step() -> Listing:
            now = self._now
            found, at = names.get(own.name, (own, now))
            is_other = found.incarnation != own.incarnation and now - at < FRESH_SECONDS
            is_taken = is_other and (is_first or found.incarnation > own.incarnation)
            if not is_taken:
                names[own.name] = own, now
            others = [entry._replace(age=now - at) for entry, at in names.values() if entry.name != own.name]
            return Listing(is_taken, others, secret)

        try:
            return await self._ask(step)
        except Away:
            raise NodesUnavailable("Redis cannot be asked") from None

    async def leave(self, own: Entry) -> None:
        """See `NodeList`."""
        names = self._cache.names

        def step() -> None:
            if own.name in names and names[own.name][0].incarnation == own.incarnation:
                del names[own.name]

        try:
            await self._ask(step)
        except Away:
            raise NodesUnavailable("Redis cannot be asked") from None


def _changed(
    account: str, version: int, token: str, *, is_begun: bool = False
) -> Callable[[NodeCache], None]:
    return lambda node: node.changed(account, version, token, is_begun=is_begun)
