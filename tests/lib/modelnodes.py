"""Nodes for `nodesmodel`: the real parts, put together as `xmppd.app` does, with stand-ins for what is around
them: clients, connections, rosters, and a store that takes its time.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import random
import re
import sys
from bisect import insort
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Coroutine, Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple, Protocol

from xmppd.cluster.member import Marks, Member
from xmppd.cluster.mesh import Mesh, Met
from xmppd.cluster.nodes import OtherNodes
from xmppd.cluster.records import Have
from xmppd.core.binding import SHUTDOWN, Binding, BindingRules
from xmppd.core.brake import Brake, BrakeRules
from xmppd.core.later import Later
from xmppd.core.messages import Messages
from xmppd.core.output import Cork
from xmppd.core.presence import PresenceRules, Presences
from xmppd.core.questions import Questions
from xmppd.core.roster.rosters import Roster
from xmppd.core.services import Services
from xmppd.core.sessions import Session, Sessions
from xmppd.core.visibility import Visibility
from xmppd.errors import StanzaError, StreamError
from xmppd.hooks import Hooks
from xmppd.stream.sasl import Login, Tenure
from xmppd.xml.stanza import Stanza

DOMAIN = "x"
TICK_SECONDS = 0.5
LOCK_SECONDS = 10.0
"""How long a lock stands whose node has died."""

GRACE_SECONDS = 4.0
"""How long sessions are expected elsewhere whose node was drained."""


class World(Protocol):
    """What nodes and clients know of the world they are in."""

    random: random.Random
    loop: asyncio.AbstractEventLoop
    shelf: Shelf
    locks: dict[str, Node]
    rosters: dict[str, Roster]
    sent: dict[int, Sent]
    failures: list[str]

    def slices(self) -> float: ...
    def delivered(self, client: Client, number: int, *, was_stored: bool) -> None: ...
    def handled(self, client: Client, number: int) -> None: ...
    def broken(self, carrier: Carrier) -> None: ...
    def came(self, full: str) -> None: ...
    def ended(self, full: str, *, is_moved: bool) -> None: ...
    def seen_to_go(self, viewer: Client, full: str) -> None: ...


def plugin_module() -> ModuleType:
    """The plugin that keeps messages."""
    path = Path(__file__).parents[2] / "plugins" / "offline.py"
    spec = importlib.util.spec_from_file_location("nodesmodel_offline", path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


OFFLINE = plugin_module()


class Shelf:
    """The store of all nodes: rows of one table, which are read and written slowly."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.rows: dict[str, list[tuple[str, dict[str, Any]]]] = defaultdict(list)

    async def _pause(self, most: float) -> None:
        await asyncio.sleep(self._world.random.uniform(0.002, most))

    async def scan(
        self,
        table: Any,
        partition: Sequence[str],
        *,
        start: Sequence[str] | None = None,
        end: Any = None,
        limit: int | None = None,
        reverse: bool = False,
        page: Any = None,
    ) -> Any:
        await self._pause(0.1)
        rows = [row for id, row in self.rows[partition[0]] if start is None or id >= start[0]]
        if reverse:
            rows.reverse()
        cut = rows[:limit] if limit is not None else rows
        return SimpleNamespace(rows=cut, next=b"more" if len(cut) < len(rows) else None)

    async def put(self, table: Any, row: Mapping[str, Any], *, ttl: Any = None) -> None:
        await self._pause(0.3)
        insort(self.rows[row["account"]], (row["id"], dict(row)), key=lambda pair: pair[0])

    async def batch(self, table: Any, partition: Sequence[str], writes: Sequence[Any], **_: Any) -> None:
        await self._pause(0.1)
        rows = self.rows[partition[0]]
        for write in writes:
            rows[:] = [
                (id, row)
                for id, row in rows
                if (id > write.cluster[0] if write.through else id != write.cluster[0])
            ]


class Wire:
    """What a session writes to: its client takes all of it, at once."""

    peer = "client"
    secure = True
    clogged = False

    def __init__(self, client: Client) -> None:
        self._client = client

    def write(self, data: bytes) -> None:
        self._client.receive(data)

    def write_all(self, stanzas: Sequence[bytes]) -> None:
        for data in stanzas:
            self._client.receive(data)

    def close(self, error: StreamError | None) -> None:
        """Its session is over."""
        is_moved = error is not None and error.condition == SHUTDOWN
        self._client.world.ended(self._client.session.full, is_moved=is_moved)
        self._client.leave()


FROM = re.compile(rb" from='([^']*)'")
STATUS = re.compile(rb"<status>([^<]*)</status>")
NUMBER = re.compile(rb" id='([0-9]*)'")


class Sent(NamedTuple):
    """One message: its sender's client, and its number among his."""

    client: Client
    number: int
    to: str


class Client:
    """A session and what it was sent. `view` is whom it sees, by full JID, each with what he says."""

    def __init__(self, world: World, node: Node, account: str, resource: str) -> None:
        self.world = world
        self.node = node
        self.view: dict[str, str] = {}
        self.inbox: list[int] = []
        self.status = ""
        self.queue: list[int] = []
        self.is_sending = False
        self.left: list[float] = []
        self.session = node.binding.bind(Login(f"{account}@{DOMAIN}", Tenure(1, 1)), resource, Wire(self), "")
        self.session.begin(b"")

    @property
    def is_over(self) -> bool:
        """Whether it is gone, or its node is."""
        return self.session.is_over or self.node.is_dead

    def receive(self, data: bytes) -> None:
        """Something was written to it."""
        if not data or self.node.is_dead:
            return
        sender = FROM.search(data)
        if data.startswith(b"<message"):
            number = NUMBER.search(data)
            if number is not None and b" type='error'" not in data:
                self.inbox.append(int(number[1]))
                self.world.delivered(self, int(number[1]), was_stored=b"<delay" in data)
        elif data.startswith(b"<presence") and sender is not None:
            full = sender[1].decode()
            status = STATUS.search(data)
            if b" type='unavailable'" in data:
                if self.view.pop(full, None) is not None:
                    self.world.seen_to_go(self, full)
            elif status is not None:
                self.view[full] = status[1].decode()

    def leave(self) -> None:
        """It takes no messages from now on: what it was just given of what was stored may come again."""
        self.left.append(self.world.loop.time())

    def show(self, status: str, priority: int) -> None:
        """Send presence; "": unavailable."""
        if not status or priority < 0:
            self.leave()
        session = self.session
        self.status = status
        if not status:
            self.world.ended(session.full, is_moved=False)
        elif session.presence is None:
            self.world.came(session.full)
        if status:
            raw = (
                session.presence_head
                + f"><priority>{priority}</priority><status>{status}</status></presence>".encode()
            )
            stanza = Stanza("presence", {"from": session.full}, raw)
        else:
            self.view = {}
            stanza = Stanza(
                "presence",
                {"from": session.full, "type": "unavailable"},
                session.presence_head + b" type='unavailable'/>",
            )
        waiting = self.node.presences.update(session, stanza)
        if waiting is not None:
            self.node.spawn(_awaited(waiting))

    def send(self, number: int) -> None:
        """Send a message, when all before it may be followed."""
        self.queue.append(number)
        if not self.is_sending:
            self.is_sending = True
            self.node.spawn(self._send_on())

    async def _send_on(self) -> None:
        while self.queue and not self.is_over:
            number = self.queue.pop(0)
            to = self.world.sent[number].to
            attrs = {"from": self.session.full, "to": to, "type": "chat", "id": str(number)}
            head = "".join(f" {name}='{value}'" for name, value in attrs.items())
            stanza = Stanza("message", attrs, f"<message{head}><body>hi</body></message>".encode())
            try:
                waiting = self.node.messages.route(self.session, stanza)
            except StanzaError:
                continue
            if isinstance(waiting, Later):
                self.node.spawn(self._handled(number, waiting))
            elif waiting is not None:
                await self._handled(number, waiting)
            else:
                self.world.handled(self, number)
        self.is_sending = False

    async def _handled(self, number: int, waiting: Awaitable[Any]) -> None:
        try:
            await waiting
        except StanzaError:
            return
        self.world.handled(self, number)


async def _awaited(waiting: Awaitable[Any]) -> None:
    await waiting


class Rosters:
    """Every account has a roster, which never changes."""

    def __init__(self, rosters: Mapping[str, Roster]) -> None:
        self._rosters = rosters

    def load(self, account: str) -> Roster:
        return self._rosters[account]


class Accounts:
    """All exist."""

    def exists(self, account: str) -> bool:
        return True


class LastSeen:
    """Nobody left a word."""

    def show(self, session: Session, contacts: Sequence[str]) -> None:
        """Nothing is kept."""

    def remember(self, account: str, unavailable: Any) -> None:
        """Nothing is kept."""

    def overtaken(self, account: str = "") -> None:
        """Nothing is kept."""


class Server:
    """What the plugin needs of the server; bounds are no matter of this model."""

    has_other_nodes = False

    def __init__(self, node: Node) -> None:
        self._node = node
        self.now = node.now
        self.store = node.world.shelf
        self.metrics: dict[str, Any] = {}
        self.spawn = node.spawn
        self.lock = node.lock
        self.takes_messages = node.sessions.takes_messages
        self.sessions = node.sessions.of
        self.messages_left = node.others.kept

    def scope(self) -> None:
        """It spawns nothing of its own."""

    async def account_exists(self, account: str) -> bool:
        return True

    def session(self, full: str) -> Session | None:
        return self._node.sessions.by_full.get(full)


class Node:
    """One node: the real parts, put together as `xmppd.app` does."""

    def __init__(self, world: World, name: str, incarnation: int, off: frozenset[str]) -> None:
        self.world = world
        self.name = name
        self.is_dead = False
        self.is_leaving = False
        self.carriers: dict[str, Carrier] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._off = off
        self.skew = world.random.uniform(-10, 10)
        loop = world.loop
        cork = Cork(loop.call_soon, clock=world.slices)
        self.sessions = Sessions(cork, self.now)
        hooks = Hooks()
        accounts: Any = Accounts()
        rosters: Any = Rosters(world.rosters)
        last_seen: Any = LastSeen()
        visibility = Visibility(accounts, rosters, hooks)
        services = Services(self.spawn)
        self.presences = Presences(
            self.sessions, rosters, last_seen, visibility, services, hooks, PresenceRules(), clock=loop.time
        )
        self.messages = Messages(self.sessions, accounts, services, hooks, frozenset((DOMAIN,)))
        self.binding = Binding(self.sessions, self.presences, hooks, self.spawn, BindingRules())
        questions = Questions(loop.call_later)
        self.mesh = Mesh(name, incarnation, self.sessions, cork.add, loop.time, loop.call_later)
        nothing: Any = None
        self.others = OtherNodes(
            self.mesh,
            sessions=self.sessions,
            messages=self.messages,
            presences=self.presences,
            probes=nothing,
            contacts=nothing,
            binding=self.binding,
            router=nothing,
            questions=questions,
            elsewhere=nothing,
            visibility=visibility,
            last_seen=last_seen,
            brake=Brake(BrakeRules(), loop.time),
            spawn=self.spawn,
            call_later=loop.call_later,
            signal=nothing,
            hint=self._messages_kept,
            grace=GRACE_SECONDS,
            now=self.now,
        )
        self.sessions.cluster = self.others
        server: Any = Server(self)
        offline = Hasty if "R8" in off else OFFLINE.Offline
        self.offline = offline("offline", server, offline.Config())
        hooks.compile((self.offline,))
        self._hooks = hooks
        switch_off(self, off)
        self.spawn(self._life())

    def now(self) -> float:
        """Seconds since the epoch, by a clock that is wrong."""
        return 1_700_000_000.0 + self.world.loop.time() + self.skew

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self.world.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and not self.is_dead and (error := task.exception()) is not None:
            self.world.failures.append(repr(error))

    async def _life(self) -> None:
        await self.offline.start()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.mesh.tick()

    def _messages_kept(self, account: str) -> None:
        live = self.sessions.accounts.get(account)
        willing = [s for s in live.available if s.priority >= 0] if live is not None else ()
        if willing:
            told = self._hooks.tell(
                self._hooks.messages_kept_signal, max(willing, key=lambda session: session.priority)
            )
            if told is not None:
                self.spawn(_awaited(told))

    @contextlib.asynccontextmanager
    async def lock(self, name: str) -> AsyncIterator[None]:
        """A lock of all nodes, which stands for 10 s after its node has died."""
        locks = self.world.locks
        while "lock" not in self._off and name in locks:  # noqa: ASYNC110 - as in Redis
            await asyncio.sleep(0.05)
        locks[name] = self
        try:
            yield
        finally:
            if self.is_dead:
                self.world.loop.call_later(LOCK_SECONDS, locks.pop, name, None)
            else:
                locks.pop(name, None)

    def kill(self) -> None:
        """Nothing of it goes on, but writes that are under way."""
        self.is_dead = True
        for task in [*self._tasks]:
            task.cancel()
        for session in self.sessions.by_full.values():
            session.end()
        for carrier in [*self.carriers.values()]:
            carrier.close()


HASTE_SECONDS = 0.05


class Hasty(OFFLINE.Offline):  # type: ignore[name-defined, misc]
    """Lets messages through before it looks again for what was stored during a flush."""

    async def _take_turn(self, session: Session, queue: Any, going_on: asyncio.Future[None]) -> Any:
        turn = await super()._take_turn(session, queue, going_on)
        if self._flushing[session]:
            session.release_messages()
            await asyncio.sleep(HASTE_SECONDS)
            session.hold_messages()
        return turn


class Carrier:
    """One end of a connection: frames arrive in order, after a random time."""

    def __init__(self, world: World, node: Node, other: Node) -> None:
        self._world = world
        self.node = node
        self.other = other
        self.is_open = True
        self.end: Carrier
        self.member: Member | None = None
        self._due = 0.0

    def write(self, frames: list[bytes]) -> None:
        """Frames leave."""
        if not self.is_open:
            return
        world = self._world
        most = 2.0 if world.random.random() < 0.05 else 0.02
        self._due = max(self._due + 1e-6, world.loop.time() + world.random.uniform(0.001, most))
        world.loop.call_at(self._due, self._arrive, frames)

    def _arrive(self, frames: list[bytes]) -> None:
        end = self.end
        for frame in frames:
            if end.is_open and not end.node.is_dead and end.member is not None:
                end.node.mesh.received(end.member, end, frame[4:])

    def close(self) -> None:
        """Both ends are closed, and told so; what was under way is lost."""
        for end in (self, self.end):
            if end.is_open:
                end.is_open = False
                if end.member is not None and not end.node.is_dead:
                    end.node.mesh.disconnected(end.member, end)
        self._world.broken(self)


def switch_off(node: Node, off: frozenset[str]) -> None:
    """Break a node as `off` says."""
    others, mesh = node.others, node.mesh
    takes = dict(mesh._takes)
    if "R1" in off or "R2" in off or "R6" in off:
        welcome = mesh._welcome

        def broken(met: Met) -> Member:
            member = welcome(met)
            if "R1" in off:
                member.trunk._part = lambda: None  # type: ignore[method-assign]
            if "R2" in off:
                member.young = Unmarked()
            if "R6" in off:
                member.missing = Unmarked()
            return member

        mesh._welcome = broken  # type: ignore[method-assign]
    if "R3" in off:
        others.presence._show_other = lambda *_: False  # type: ignore[method-assign]
        others.is_elsewhere = lambda full: False
    if "R4" in off:
        others.places._came = lambda *_: None
    if "R5" in off:
        others.places._moved = others.messages._split
    if "R7" in off:
        others.places._is_open = lambda *_: None
    others.has_grace = "grace" not in off
    if "end of grace" in off:
        others.presence.grace._over = lambda _: None
    if "HAVE" in off:
        others.places._have = lambda *_: None  # type: ignore[method-assign]
        takes[Have] = lambda *_: None
    mesh._takes = takes


class Unmarked(Marks):
    """Forgets at once."""

    def __contains__(self, name: str) -> bool:
        return False
