"""Nodes for `nodesmodel`: the real parts, put together as `xmppd.app` does, with stand-ins for what is around
them: connections, accounts, and the engines that they share.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import random
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextvars import Context, copy_context
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, cast

from modelcache import LOCK_SECONDS, Cache, NodeCache
from modelcarriers import Carrier
from modelclients import DOMAIN
from modelengines import Shelf, Way
from modelrules import switch_off
from virtualtime import OWNER, VirtualLoop

from xmppd.cluster.hello import Hello
from xmppd.cluster.mesh import Mesh
from xmppd.cluster.nodes import OtherNodes
from xmppd.cluster.registry import Entry, Registry
from xmppd.core.barred import NOBODY
from xmppd.core.binding import SHUTDOWN, Binding, BindingRules
from xmppd.core.blocks import Blocks
from xmppd.core.brake import Brake, BrakeRules
from xmppd.core.contacts import Contacts
from xmppd.core.elsewhere import Elsewhere
from xmppd.core.holds import Holds
from xmppd.core.ids import Ids
from xmppd.core.intake import Intake
from xmppd.core.iqs import Iqs
from xmppd.core.lastseen import LastSeen
from xmppd.core.messages import Messages
from xmppd.core.moving import Moving
from xmppd.core.origin import Target
from xmppd.core.output import Cork
from xmppd.core.presence import PresenceRules, Presences
from xmppd.core.probes import Probes
from xmppd.core.questions import Questions
from xmppd.core.roster.budget import DailyBudget
from xmppd.core.roster.rosters import Rosters
from xmppd.core.roster.tier import RosterTier
from xmppd.core.router import Router
from xmppd.core.services import Services
from xmppd.core.sessions import Session, Sessions
from xmppd.core.visibility import Visibility
from xmppd.errors import CommandError, StoreError, StreamError
from xmppd.hooks import Hooks

NAMES = "ABC"
SECRET = b"known to all"

TICK_SECONDS = 0.5
REFUSED_SECONDS = (0.5, 4.0)
"""How soon it shows that the process of a node has ended, which it does by closing its connections."""

GRACE_SECONDS = 4.0
"""How long sessions are expected elsewhere whose node was drained."""

FAREWELL_SECONDS = 2.5
"""How long what was said last is under way at most."""

SETTLE_SECONDS = 5.0
"""How long a node that leaves waits until the others took what it said."""


class World(Protocol):
    """What nodes know of the world they are in."""

    random: random.Random
    loop: VirtualLoop
    outside: Context
    shelf: Shelf
    cache: Cache
    is_calm: bool
    is_by_bus: bool

    def slices(self) -> float: ...
    def failed(self, error: str) -> None: ...
    def held_up(self, one: str, other: str) -> float: ...
    def broken(self, carrier: Carrier) -> None: ...
    def entered(self, node: Node) -> None: ...
    def turned_away(self, node: Node) -> None: ...
    def superseded(self, node: Node) -> None: ...
    def want(self, node: Node, name: str, incarnation: int) -> None: ...
    def knock(self, node: Node, seed: str) -> Hello | None: ...


def nobody_asks(node: str) -> None:
    """No plugin here asks who comes and goes."""


def plugin_module() -> ModuleType:
    """The plugin that keeps messages."""
    folder = Path(__file__).parents[2] / "plugins" / "offline"
    spec = importlib.util.spec_from_file_location(
        "nodesmodel_offline", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OFFLINE = plugin_module()


async def found(accounts: Any, login: Any = None) -> Any:
    """What holds ask, which nobody takes here."""
    return accounts


class Accounts:
    """All exist, and none is renamed."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.moving = Moving(Holds(found, found), clock)

    def exists(self, account: str) -> bool:
        return True

    @contextlib.asynccontextmanager
    async def hold(self, account: str, login: Any = None) -> AsyncIterator[bool]:
        yield True

    def late(self) -> Sequence[str]:
        return ()

    def trust(self, is_heard: bool) -> None:
        """Nothing of them is kept."""

    def forget_all(self) -> None:
        """Nothing of them is kept."""


class NoBlocking:
    """There are no lists to change."""

    def admitted(self, account: str, stanzas: Iterable[bytes]) -> Iterable[bytes]:
        return stanzas

    async def look_at(self, account: str) -> None:
        """It is as it was."""


class NoBlocks(Blocks):
    """Nobody blocks anybody."""

    def known(self, account: str) -> frozenset[str]:
        return NOBODY


class Logins:
    """Those who are here may stay."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def accounts(self) -> Sequence[str]:
        return [*self._sessions.accounts]

    def is_here(self, account: str) -> bool:
        return account in self._sessions.accounts

    async def look_at(self, account: str) -> None:
        """It is as it was."""


class Scope:
    """What the plugin does later."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def call_later(self, seconds: float, method: Callable[..., object], *arguments: Any) -> None:
        node = self._node
        node.world.loop.call_later(seconds, node.call, method, *arguments, context=node.context)


class Server:
    """What the plugin needs of the server; bounds are no matter of this model."""

    has_other_nodes = False
    recalls = False
    blocks = NoBlocking()

    def __init__(self, node: Node, lock: Callable[[str], Any]) -> None:
        self._node = node
        self.now = node.now
        self.ids = node.ids
        self.store = node.store
        self.metrics: dict[str, Any] = {}
        self.spawn = node.spawn
        self.lock = lock
        self.takes_messages = node.sessions.takes_messages
        self.sessions = node.sessions.of
        self.messages_left = node.others.kept
        self.writing = Holds(found, found).hold

    def resources(self, account: str) -> set[str]:
        live = self._node.sessions.accounts.get(account)
        return {*(live.sessions if live is not None else ()), *self._node.others.resources(account)}

    def scope(self) -> Scope:
        """It spawns nothing of its own."""
        return Scope(self._node)

    def locate(self, account: str) -> tuple[Target, ...]:
        live = self._node.sessions.accounts.get(account)
        return (*(live.available if live is not None else ()), *self._node.others.targets(account))

    async def account_exists(self, account: str) -> bool:
        return True

    def session(self, full: str) -> Session | None:
        return self._node.sessions.by_full.get(full)

    def when_had(self, session: Session, stanza: bytes, told: Callable[[bool], None]) -> bool:
        """No client here acknowledges anything."""
        return False

    def stored(self, session: Session) -> Mapping[int, bytes]:
        return {}

    def has_moved(self, session: Session) -> bool:
        return False

    def watch_unrecorded(self, *, is_on: bool) -> None:
        """Nothing is recorded."""

    def appears_offline(self, account: str, viewer: str) -> bool:
        """Nobody hides."""
        return False


@contextlib.asynccontextmanager
async def no_lock(name: str) -> AsyncIterator[None]:
    """Nobody is kept out."""
    yield


class Node:
    """One node: the real parts, put together as `xmppd.app` does. `context` is that of all its callbacks."""

    def __init__(self, world: World, name: str, incarnation: int, off: frozenset[str]) -> None:
        self.world = world
        self.name = name
        self.is_dead = False
        self.is_leaving = False
        self.is_stopping = False
        self.carriers: dict[str, Carrier] = {}
        self.context = copy_context()
        self.context.run(OWNER.set, self)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._for_ever: list[asyncio.Task[None]] = []
        self.skew = world.random.uniform(-600, 600)
        loop = world.loop
        call_soon = functools.partial(loop.call_soon, context=self.context)
        call_later = functools.partial(loop.call_later, context=self.context)
        self.sessions = Sessions(cork := Cork(call_soon, clock=world.slices), self.now)
        hooks, domains = Hooks(), frozenset((DOMAIN,))
        accounts: Any = Accounts(world.time)
        logins: Any = Logins(self.sessions)
        nothing: Any = None
        self.cache = NodeCache(world, world.cache, self.context)
        tier = RosterTier(self.cache)
        self.store = Way(world, world.shelf)
        store: Any = self.store
        self.rosters = Rosters(store, tier=tier, hold=accounts.hold, now=self.now)
        blocks, blocking = NoBlocks(store, self.sessions, accounts), cast(Any, NoBlocking())
        visibility = Visibility(accounts, self.rosters, blocks, hooks)
        self.last_seen = last_seen = LastSeen(
            store, self.sessions, self.rosters, visibility, self.spawn, self.now, accounts.hold
        )
        services = Services(self.spawn)
        self.presences = Presences(
            self.sessions,
            self.rosters,
            last_seen,
            visibility,
            services,
            hooks,
            self.spawn,
            PresenceRules(),
            clock=loop.time,
        )
        self.messages = Messages(self.sessions, accounts, services, blocks, hooks, domains)
        self.contacts = Contacts(
            self.sessions,
            accounts,
            self.rosters,
            self.presences,
            services,
            blocks,
            hooks,
            self.spawn,
            domains,
        )
        self.questions = Questions(call_later)
        self.sessions.on_removed = self.questions.gone
        iqs = Iqs(self.sessions, visibility, services, self.questions, hooks, domains)
        iqs.compile(self.contacts.handlers)
        probes = Probes(self.sessions, visibility, last_seen)
        self.router = Router(
            Intake(self.sessions, domains),
            self.messages,
            self.presences,
            probes,
            self.contacts,
            iqs,
            services,
            blocks,
            hooks,
            domains,
        )
        self.binding = Binding(self.sessions, self.presences, blocks, hooks, self.spawn, BindingRules())
        self.elsewhere = Elsewhere(
            sessions=self.sessions,
            rosters=self.rosters,
            accounts=accounts,
            presences=self.presences,
            logins=logins,
            blocks=blocks,
            blocking=blocking,
            spawn=self.spawn,
            clock=loop.time,
            max_age=float("inf"),
        )
        self.rosters.on_loaded = self.elsewhere.roster_loaded
        self.rosters.on_unsure = self.elsewhere.roster_unsure
        tier.on_marked = self.elsewhere.roster_marked
        self.cache.open(self.elsewhere)
        self.cache.on_away = self._bus_away
        self.ids = Ids(store, self.now, loop.time, self.spawn)
        self.ids.is_shared = True
        self.mesh = Mesh(
            name, incarnation, self.sessions, cork.add_last, loop.time, call_later, self.ids.time
        )
        self.cache.belong(incarnation, self.mesh.has_ended)
        self.others = OtherNodes(
            self.mesh,
            sessions=self.sessions,
            messages=self.messages,
            presences=self.presences,
            probes=probes,
            contacts=self.contacts,
            binding=self.binding,
            router=self.router,
            questions=self.questions,
            elsewhere=self.elsewhere,
            visibility=visibility,
            last_seen=last_seen,
            blocking=blocking,
            brake=Brake(BrakeRules(), loop.time),
            additions=DailyBudget(1, 1),
            log_budget=DailyBudget(1, 1),
            spawn=self.spawn,
            call_later=call_later,
            signal=nothing,
            hint=self._messages_kept,
            came=nobody_asks,
            gone=lambda node, has_left: None,
            lost=lambda node, accounts: None,
            plugins=tuple,
            told=lambda *about: None,
            grace=GRACE_SECONDS,
            now=self.now,
        )
        self.sessions.cluster = self.others
        server: Any = Server(self, no_lock if "lock" in off else self.cache.lock)
        offline = Hasty if "R8" in off else OFFLINE.Offline
        self.offline = offline("offline", server, offline.Config())
        hooks.compile((self.offline,))
        self._hooks = hooks
        self._ticks = 0
        self.registry = Registry(
            self._entry, self.cache, self, self._knock, loop.time, asyncio.sleep, secret=SECRET, seeds=NAMES
        )
        switch_off(self, off)
        self.spawn(self.offline.start())
        self.spawn(self._enter())
        self._tick()

    # the list of nodes

    async def _enter(self) -> None:
        """Be on the list, and stay on it."""
        try:
            await self.registry.enter()
        except CommandError:
            self.world.turned_away(self)
            return
        self.world.entered(self)
        for work in (self.registry.beats(), self.registry.search()):
            task = self.world.loop.create_task(work, context=self.context)
            self._for_ever.append(task)
            task.add_done_callback(self._done, context=self.context)

    def _entry(self) -> Entry:
        return Entry(self.name, self.mesh.incarnation, (self.name,))

    async def _knock(self, seed: str) -> Hello | None:
        await asyncio.sleep(self.world.random.uniform(0.001, 0.02))
        return self.world.knock(self, seed)

    def listed(self, entries: Sequence[Entry]) -> None:
        """See `Directory`."""
        for entry in entries:
            self.others.hints.listed(entry.name, entry.incarnation)
            self.world.want(self, entry.name, entry.incarnation)

    def trusted(self, secrets: Sequence[bytes]) -> None:
        """See `Directory`."""

    def is_connected(self, name: str) -> bool:
        """See `Directory`."""
        carrier = self.carriers.get(name)
        return carrier is not None and carrier.is_open

    def superseded(self) -> None:
        """See `Directory`."""
        self.world.superseded(self)

    # its life

    def _bus_away(self) -> None:
        """Its lines are at their end, if it has any."""
        for carrier in [*self.carriers.values()] if self.world.is_by_bus else ():
            carrier.break_off()

    def now(self) -> float:
        """Seconds since the epoch, by a clock that is wrong."""
        return 1_700_000_000.0 + self.world.loop.time() + self.skew

    def call(self, step: Callable[..., object], *args: Any) -> None:
        """Have it do something: at once, unless it stands still."""
        if self.is_dead:
            return
        if self.world.loop.stands(self):
            self.world.loop.call_soon(self.call, step, *args, context=self.context)
        else:
            self.context.copy().run(step, *args)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self.world.loop.create_task(work, context=self.context)
        self._tasks.add(task)
        task.add_done_callback(self._done, context=self.context)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or self.is_dead or (error := task.exception()) is None:
            return
        if not isinstance(error, StoreError):  # which is told, and its work done again where that matters
            self.world.failed(repr(error))

    @property
    def is_idle(self) -> bool:
        """Whether nothing is to be done here but what the clock says."""
        return not (self._tasks or self.elsewhere._underway or self.sessions.rounds.is_due)

    def _tick(self) -> None:
        if self.is_dead:
            return
        self.world.loop.call_later(TICK_SECONDS, self._tick, context=self.context)
        self.mesh.tick()
        self._ticks += 1
        if self._ticks % 2:
            self.elsewhere.tick()
            self.ids.tick()

    def _messages_kept(self, account: str) -> None:
        live = self.sessions.accounts.get(account)
        for session in live.kept_for if live is not None else ():
            told = self._hooks.tell(self._hooks.messages_kept_signal, session)
            if told is not None:
                self.spawn(_awaited(told))

    def kill(self, *, is_silent: bool = False) -> None:
        """Nothing of it goes on, but writes that are under way; `is_silent`: its machine has gone, and nobody
        is told that connections are closed.
        """
        self.is_dead = True
        self.world.loop.go_on(self)
        self.cache.end()
        for task in (*self._tasks, *self._for_ever):
            task.cancel()
        for session in self.sessions.by_full.values():
            session.end()
        for carrier in [*self.carriers.values()]:
            carrier.close(is_silent=is_silent)

    def freeze(self, seconds: float) -> None:
        """It stands still; its locks do not wait for ever."""
        loop = self.world.loop
        loop.freeze(self)
        loop.call_later(seconds, loop.go_on, self, context=self.world.outside)
        loop.call_later(LOCK_SECONDS, self._expire, context=self.world.outside)

    def _expire(self) -> None:
        if self.world.loop.stands(self):
            self.cache.expire()

    async def leave(self) -> None:
        """End all sessions at a pace, wait until the others know, and say farewell."""
        while self.sessions.by_full:
            session = next(iter(self.sessions.by_full.values()))
            self.binding.end(session, StreamError(SHUTDOWN))
            await asyncio.sleep(self.world.random.choice((0.0, 0.01, 0.3)))
        loop = self.world.loop
        deadline = loop.time() + SETTLE_SECONDS
        for member in [*self.mesh.present()]:
            member.write()
        while not all(member.is_settled for member in self.mesh.present()):
            if loop.time() > deadline:
                break
            await asyncio.sleep(0.01)
        self.is_leaving = True
        self.mesh.bid_farewell()
        for task in self._for_ever:
            task.cancel()
        await self.registry.leave()
        await asyncio.sleep(FAREWELL_SECONDS)


async def _awaited(waiting: Any) -> None:
    await waiting


HASTE_SECONDS = 0.5


class Hasty(OFFLINE.Offline):  # type: ignore[name-defined, misc]
    """Lets messages through before it looks again for what was stored during a flush."""

    async def _take_turn(self, session: Session, queue: Any, *more: Any) -> Any:
        turn = await super()._take_turn(session, queue, *more)
        if self._flushing[session]:
            session.release_messages()
            await asyncio.sleep(HASTE_SECONDS)
            session.hold_messages()
        return turn
