"""A server in memory, with its own time."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self
from xml.etree.ElementTree import tostring

from xmppd import ns
from xmppd.app import App
from xmppd.cluster.connection import Carrier, Connection
from xmppd.cluster.lines import Bus, Lines
from xmppd.cluster.mesh import Met
from xmppd.cluster.nodes import OtherNodes
from xmppd.config import made_of
from xmppd.core.questions import Timer
from xmppd.encryption import certificates
from xmppd.engines import own_locks, prepare_folder, trunk_bus
from xmppd.jobs import Jobs
from xmppd.parts.http import HttpError, HttpResponse
from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Store
from xmppd.testing.client import PASSWORD, Client, Clock
from xmppd.testing.nodes import BusTrunk, Lent, MemoryDuties, MemoryTrunk, NoTimer

HEARD_SECONDS = 10.0
"""How long nodes may take until they hear each other by their cache."""

WRITTEN_SECONDS = 0.5
"""How long messages that are being written down are waited for."""
JOB_SECONDS = 1.0
LASTING_SECONDS = 0.02
"""How long a job, or a task of a plugin, may do nothing before it counts as one that waits for what comes,
as long as that is the same.
"""
TURNS = 50
"""How many turns of the loop it may take besides: enough for an answer by HTTP within this process."""
CLOSED_SECONDS = 2.0
"""How long a server may take to end until its own time passes, too: it may wait for what never comes."""
STORED_SECONDS = 10.0
"""How long a store may take on a busy machine, over one thing."""
LONGEST_SECONDS = 60.0
"""How long it is waited for in all, whatever it does."""
QUIET_TURNS = 3
AFAR_TURNS = 10
"""In how many turns nothing moves when nothing is left to move: more where the store is another process."""


class World:
    """A server with its own time. `accounts` are made with the password "secret"; `settings` change the
    configuration, after those that all worlds have in `common`.

    With several `nodes` the server is so many `apps` on one store, and clients connect to them in turn; that
    they learn of each other's changes takes a cache in Redis (`settings`). `app` is the first.
    By `skews` the clocks of nodes are wrong, each by so many seconds.
    With the `carrier` "redis" all that they say to each other goes by way of that Redis.
    """

    nodes_by_default = 1
    carrier = "direct"
    common: Mapping[str, Mapping[str, Any]] = MappingProxyType({})

    @staticmethod
    def engine(now: Callable[[], float]) -> Store:
        """The store of a world that was given none."""
        return SqliteStore(":memory:", now=now)

    def __init__(
        self,
        *,
        accounts: tuple[str, ...] = ("alice", "bob", "carol"),
        plugins: tuple[str, ...] = (),
        plugin_folders: tuple[Path, ...] = (),
        plugin_config: Mapping[str, Mapping[str, Any]] | None = None,
        settings: Mapping[str, Any] | None = None,
        store: Store | None = None,
        nodes: int | None = None,
    ) -> None:
        self._nodes = nodes or self.nodes_by_default
        self._folder = tempfile.TemporaryDirectory(prefix="xmppd-test-")
        self._accounts = accounts
        self._store = store
        self.clock = Clock()
        self.skews = [0.0] * self._nodes
        self.clients: list[Client] = []
        given: dict[str, Any] = {
            "server": {"data_folder": self._folder.name},
            "auth": {"plain_without_tls": True, "iterations": 4096},
            "tls": {"required": False},
            "limits": {"loop_share": 1.0},  # a rest is in real time
            "plugins": {
                "enabled": list(plugins),
                "folders": list(map(str, plugin_folders)),
                "config": dict(plugin_config or {}),
            },
        }
        for section, values in (*self.common.items(), *(settings or {}).items()):
            given[section] = {**given.get(section, {}), **values}
        self.config = made_of(given)
        self.apps: list[App] = []
        self._trunks: dict[tuple[int, int], MemoryTrunk] = {}
        self._buses: list[Bus] = []
        self._lines: list[Lines] = []
        self._line_ids = itertools.count(1)
        self._due = 0
        self._asked = 0
        self._said = 0
        self._idle: dict[Jobs, dict[asyncio.Task[Any], object]] = {}

    async def __aenter__(self) -> Self:
        prepare_folder(self.config)
        store = self._store or self.engine(self.clock.now)
        duties: dict[str, float] = {}
        for number in range(self._nodes):
            mine = store if number == 0 else Lent(store)
            app = App(self.config, store=mine, now=self._now_of(number), clock=self.clock.monotonic)
            app.shared.certificates = certificates(self.config)
            app.doors.trust(self.config)
            app.accounts.gone_seconds = 0.0  # no node is out of touch, whatever the configuration says
            if app.duties.shared is not None:
                app.duties.shared = MemoryDuties(duties, self.clock.monotonic)
            if self._nodes > 1:
                mesh = app.join(f"node{number}:5270", number + 1, self._call_later).mesh
                own_locks(app.cache, mesh.incarnation, mesh.has_ended)
            self.apps.append(app)
            await app.open()
            if self._nodes > 1 and self.carrier == "redis":
                await self._open_bus(app)
        for one in range(self._nodes):
            for other in range(one):
                self.connect_nodes(one, other)
        if self._nodes > 1:
            await self._hear_each_other()
        for name in self._accounts:
            await self.app.accounts.create(f"{name}@localhost", PASSWORD)
        await self.settle()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for bus in self._buses:
            await bus.close()
        for number in reversed(range(len(self.apps))):
            await self._close(self.apps[: number + 1])
        self._folder.cleanup()

    async def _close(self, apps: Sequence[App]) -> None:
        """Have the last of those that are there end; the time passes for which it waits for something."""
        closing = asyncio.ensure_future(apps[-1].close())
        try:
            await asyncio.wait([closing], timeout=CLOSED_SECONDS)
            while not closing.done():
                self.clock.seconds += 1.0
                for app in apps:
                    app.timers.tick()
                await asyncio.wait([closing], timeout=JOB_SECONDS)
            await closing
        finally:
            closing.cancel()

    def _now_of(self, number: int) -> Callable[[], float]:
        return lambda: self.clock.now() + self.skews[number]

    @property
    def app(self) -> App:
        """The server, or the first node of it."""
        return self.apps[0]

    async def _open_bus(self, app: App) -> None:
        bus = trunk_bus(app.cache)
        assert app.cluster is not None
        mesh = app.cluster.mesh
        lines = Lines(
            mesh.name, mesh.incarnation, bus.publish, _nobody, self._call_later, self.clock.monotonic
        )
        await bus.open(mesh.name, lines.received, lines.turned)
        assert lines.is_up, "Redis is not there"
        self._buses.append(bus)
        self._lines.append(lines)

    def connect_nodes(self, one: int, other: int, trunk: int = 1) -> None:
        """Connect two nodes by a trunk of that number: the one they had goes on if it has the same."""
        ends: list[MemoryTrunk] = []
        line = next(self._line_ids)
        for here, there in ((one, other), (other, one)):
            cluster = self.cluster(here)
            if self._lines:
                ends.append(BusTrunk(cluster, self._soon, self._lines[here], self.cluster(there), line))
            else:
                ends.append(MemoryTrunk(cluster, self._soon))
            self._trunks[here, there] = ends[-1]
        ends[0].other, ends[1].other = ends[1], ends[0]
        taken = []
        for here, there in ((one, other), (other, one)):
            member = self.cluster(here).mesh.members.get(self.cluster(there).mesh.name)
            taken.append(member.trunk.taken if member is not None and member.trunk.number == trunk else 0)
        for end, here, there, count in ((ends[0], one, other, taken[1]), (ends[1], other, one, taken[0])):
            mesh = self.cluster(there).mesh
            met = Met(mesh.name, mesh.incarnation, trunk, count, self.clock.seconds)
            end.member = self.cluster(here).mesh.met(met, end)

    def cut(self, one: int, other: int) -> None:
        """Break the connection between two nodes."""
        self._trunks[one, other].close()

    async def drain(self, node: int) -> None:
        """Have a node end its sessions, tell the others, and leave them."""
        await self.apps[node].service.shut_down()
        await self.settle()
        self.cluster(node).mesh.bid_farewell()
        await self.settle()

    def cluster(self, node: int) -> OtherNodes:
        """What a node knows of the others."""
        cluster = self.apps[node].cluster
        assert cluster is not None, "there is one node only"
        return cluster

    def _soon(self, do: Callable[[], None]) -> None:
        self._due += 1

        def done() -> None:
            self._due -= 1
            do()

        asyncio.get_running_loop().call_soon(done)

    def _call_later(self, seconds: float, do: Callable[[], None]) -> Timer:
        """What nodes do in some milliseconds is done at once, and what takes longer in the world's time."""
        if seconds >= 1.0:
            return self.app.timers.call_later(seconds, do)
        self._soon(do)
        return NoTimer()

    def plugin(self, name: str, node: int = 0) -> Any:
        """A plugin at work, to look at its tables, counters and slots."""
        return next(loaded.plugin for loaded in self.apps[node].loader.loaded if loaded.name == name)

    def plugins(self, name: str) -> list[Any]:
        """A plugin as it is at work on each node."""
        return [self.plugin(name, node) for node in range(len(self.apps))]

    async def http(
        self,
        method: str,
        path: str,
        *,
        token: str = "",
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        peer: str = "127.0.0.1",
        node: int = 0,
    ) -> HttpResponse:
        """What the server's own HTTP answers; `token` is one of those of the setting `http.tokens`, or one
        that was made.
        """

        async def read(most: int) -> bytes:
            if len(body) > most:
                raise HttpError(413)
            return body

        given = {name.lower(): value for name, value in (headers or {}).items()}
        if token:
            given["authorization"] = f"Bearer {token}"
        response = await self.apps[node].routes.serve(method, path, given, read, peer)
        await self.settle()
        return response

    def connect(
        self,
        peer: str = "127.0.0.1",
        *,
        starttls: bool = True,
        node: int | None = None,
        bindings: Mapping[str, bytes] | None = None,
    ) -> Client:
        """A client that has said nothing yet; see `Client`."""
        app = self.apps[len(self.clients) % len(self.apps) if node is None else node]
        client = Client(self, app, peer, starttls=starttls, bindings=bindings)
        self.clients.append(client)
        return client

    async def bind(self, user: str, resource: str = "", lang: str = "", *, node: int | None = None) -> Client:
        """A client with a bound resource that has not sent presence."""
        client = self.connect(node=node)
        more = f"xml:lang='{lang}'" if lang else ""
        await client.open(more=more)
        answer = await client.authenticate(user)
        assert answer.tag == f"{{{ns.SASL}}}success", tostring(answer)
        await client.open(more=more)
        answer = await client.bind(resource or f"{user}-{len(self.clients)}")
        assert client.jid, tostring(answer)
        return client

    async def guest(self) -> Client:
        """A client that logged in by ANONYMOUS (`auth.anonymous` must be on) and has not sent presence."""
        client = self.connect()
        await client.open()
        await client.send(f"<auth xmlns='{ns.SASL}' mechanism='ANONYMOUS'>=</auth>")
        answer = await client.receive()
        assert answer.tag == f"{{{ns.SASL}}}success", tostring(answer)
        await client.open()
        await client.bind()
        return client

    async def login(
        self, user: str, resource: str = "", priority: int = 0, *, node: int | None = None
    ) -> Client:
        """A client that asked for its roster and is available; what it received so far is forgotten."""
        client = await self.bind(user, resource, node=node)
        await client.send(f"<iq type='get' id='roster'><query xmlns='{ns.ROSTER}'/></iq>")
        shown = f"<presence><priority>{priority}</priority></presence>" if priority else "<presence/>"
        await client.send(shown)
        await client.receive_all()
        return client

    async def befriend(self, one: Client, other: Client) -> None:
        """Make two accounts see each other's presence; what their clients receive on the way is forgotten."""
        await one.send(f"<presence type='subscribe' to='{other.bare}'/>")
        await other.send(f"<presence type='subscribed' to='{one.bare}'/>")
        await other.send(f"<presence type='subscribe' to='{one.bare}'/>")
        await one.send(f"<presence type='subscribed' to='{other.bare}'/>")
        for client in self.clients:
            await client.receive_all()

    @property
    def is_sending(self) -> bool:
        """Whether something waits for the next turn of the loop to be sent."""
        return self._due > 0 or any(app.cork.is_due or app.sessions.rounds.is_due for app in self.apps)

    @property
    def _is_writing(self) -> bool:
        """Whether a message goes on when it is written down."""
        sessions = [session for app in self.apps for session in app.sessions.by_full.values()]
        return any(session.line is not None and session.line.is_ahead for session in sessions)

    @property
    def _is_afar(self) -> bool:
        """Whether the store is another process, whose answers come to whoever goes on by some turns."""
        return hasattr(getattr(self.app.store, "stats", None), "in_flight")

    @property
    def _asking(self) -> list[int]:
        """On how much each store works."""
        found = [getattr(app.store, "stats", None) for app in self.apps]
        return [getattr(stats, "pending", 0) or getattr(stats, "in_flight", 0) for stats in found]

    async def settle(self) -> None:
        """Let the server work until nothing moves any more."""
        quiet, asked, begun = 0, [0], time.monotonic()
        since = begun
        while quiet < (AFAR_TURNS if self._is_afar else QUIET_TURNS):
            now, asking = time.monotonic(), self._asking
            if asking != asked and now - begun < LONGEST_SECONDS:
                asked, since = asking, now
            is_writing = self._is_writing and now - begun < WRITTEN_SECONDS
            is_writing = is_writing or (any(asking) and now - since < STORED_SECONDS)
            await asyncio.sleep(0.002 if is_writing else 0)
            moved = sum(client.pump() for client in self.clients) > 0 or self.is_sending or is_writing
            moved = await self.tell_each_other() or moved
            for app in self.apps:
                if app.jobs:
                    moved = await self._settle_jobs(app.jobs, JOB_SECONDS) or moved
                elif app.lasting:
                    moved = await self._settle_jobs(app.lasting, LASTING_SECONDS) or moved
            quiet = 0 if moved else quiet + 1

    async def _settle_jobs(self, jobs: Jobs, seconds: float) -> bool:
        """Wait for one of the jobs to be done, once; as long as all that are left wait for the same things as
        then, they wait for what comes. Whether one is done.
        """
        idle, now = self._idle.get(jobs, {}), jobs.awaited()
        if all(thing is not None and idle.get(task) is thing for task, thing in now.items()):
            return False
        if await jobs.settle(seconds):
            return True
        for _ in range(TURNS):
            await asyncio.sleep(0)
        self._idle[jobs] = jobs.awaited()
        return False

    async def _hear_each_other(self) -> None:
        """Wait until each node hears what the others say by their cache."""
        end = time.monotonic() + HEARD_SECONDS
        while not all(app.cache is None or app.cache.is_heard for app in self.apps):
            assert time.monotonic() < end, "the nodes do not hear each other"
            await asyncio.sleep(0.001)

    async def tell_each_other(self) -> bool:
        """Have what nodes say by their cache and their bus heard; whether anything was said."""
        is_told = await self._hear_of_changes()
        return await self._carry() or is_told

    async def _hear_of_changes(self) -> bool:
        """Have what nodes say by their cache heard; whether anything was said."""
        caches = [app.cache for app in self.apps if app.cache is not None] if self._nodes > 1 else []
        if sum(cache.asked for cache in caches) == self._asked:
            return False
        for cache in caches:
            await cache.said_all()
        for cache in caches:
            await cache.heard_all()
        self._asked = sum(cache.asked for cache in caches)
        return True

    async def _carry(self) -> bool:
        """Have what nodes said by their bus heard; whether anything was said."""
        said = sum(bus.said for bus in self._buses)
        if said == self._said:
            return False
        self._said = said
        for _ in ("Redis has it", "they have it"):
            for bus in self._buses:
                await bus.echo()
        return True

    async def advance(self, seconds: float) -> None:
        """Let time pass, a second at a time or until the next timer is due, with what the server does in the
        course of it.
        """
        end = self.clock.seconds + seconds
        while self.clock.seconds < end:
            timers = [due for app in self.apps if (due := app.timers.due) is not None]
            due = min(timers, default=end)
            step = min(self.clock.seconds + 1.0, end, max(due, self.clock.seconds))
            self.clock.seconds = step
            for app in self.apps:
                app.service.sweep()
                if app.cluster is not None:
                    app.cluster.mesh.tick()
            await self._tick()
        await self.settle()

    async def _tick(self) -> None:
        while sum(app.timers.tick() for app in self.apps):
            await self.settle()
        if self._nodes > 1:
            await self.settle()


def _nobody(carrier: Carrier) -> Connection:
    """All lines are made by the world."""
    raise AssertionError
