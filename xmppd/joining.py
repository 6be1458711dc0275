"""One server process among others: it listens for trunks, finds the other nodes, and goes again without a
gap.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from xmppd import __version__
from xmppd.app import App
from xmppd.carriers import Direct, OnBus, Way
from xmppd.cluster.connection import Links
from xmppd.cluster.link import Dialer
from xmppd.cluster.neighbours import Neighbours
from xmppd.cluster.registry import Entry, Registry, new_incarnation
from xmppd.cluster.trunk import Trunk
from xmppd.engines import node_list, own_locks, trunk_bus
from xmppd.rules import node_name

log = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.5
"""How often it is said to all that this node lives, and looked whether they do."""

JOIN_SECONDS: Final = 5.0
"""How long clients wait at the start until all places of the others are known."""

LOAD_TICKS: Final = 10
"""Over so many ticks load is counted."""

SETTLE_SECONDS: Final = 2.0
"""How long what was said last may take to be acknowledged at the end."""


def described(trunk: Trunk[Any]) -> Mapping[str, Any]:
    """What operators see of a trunk."""
    return {"lag_ms": round(trunk.lag * 1000, 2), "frames": trunk.sent}


class Joining:
    """`stop` ends the process: another node has this one's name. `state` is what the others read of this one
    in the list of nodes.
    """

    def __init__(self, app: App, stop: Callable[[], None]) -> None:
        loop, clock = asyncio.get_running_loop(), app.steady
        config = app.config.cluster
        assert config.listen is not None
        self.state = "up"
        self._app = app
        self._stop = stop
        self.name = node_name(app.config)
        self.cluster = app.join(self.name, new_incarnation(app.now()), loop.call_later)
        mesh = self.cluster.mesh
        self._neighbours = Neighbours(mesh, __version__, clock, stop)
        self.cluster.hints.is_listed = self._is_listed
        own_locks(app.cache, mesh.incarnation, mesh.has_ended)
        self._links = Links(self._neighbours, clock)
        self._way: Way
        if config.carrier == "redis":
            self._way = OnBus(self.name, mesh.incarnation, trunk_bus(app.cache), self._links)
        else:
            backlog = app.config.listen.backlog
            folder = app.config.server.data_folder if config.unix else None
            self._way = Direct(self.name, config.listen, backlog, self._links, app.jobs.spawn, folder)
        self._neighbours.addresses = self._way.addresses
        self._dialer = Dialer(self.name, self._links, self._neighbours, clock, connect=self._way.connect)
        self._neighbours.dialing = self._dialer
        secret = config.secret.value.encode() if config.secret is not None else b""
        self._registry = Registry(
            self._entry,
            node_list(app.cache),
            self,
            self._dialer.knock,
            clock,
            asyncio.sleep,
            secret=secret,
            seeds=config.seeds,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._ticker: asyncio.TimerHandle | None = None
        self._expected: set[str] = set()
        self._listed: Sequence[Entry] = ()
        self._clock = clock
        self._used = deque([(clock(), time.process_time())], LOAD_TICKS)

    async def start(self) -> None:
        """Be one of them; when this is done clients may come. CommandError when the name is taken, or the
        address.
        """
        await self._way.open()
        await self._registry.enter()
        spawn = asyncio.get_running_loop().create_task
        self._tasks = [spawn(self._registry.beats()), spawn(self._registry.search())]
        self._tick()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_joined(), JOIN_SECONDS)

    async def _all_joined(self) -> None:
        while not all(self._is_joined(name) for name in self._expected):  # noqa: ASYNC110 - by their own trunks
            await asyncio.sleep(0.02)

    def _is_joined(self, name: str) -> bool:
        """Whether all its places are known. One that was killed is on the list for a while, and has none."""
        member = self.cluster.mesh.members.get(name)
        return self._neighbours.is_absent(name) if member is None else member.is_joined

    # for operators

    @property
    def elsewhere(self) -> int:
        """How many sessions of other nodes are known here."""
        return len(self.cluster.mesh.whereabouts)

    @property
    def load(self) -> float:
        """The share of one processor that this process used lately."""
        began, before = self._used[0]
        seconds = self._clock() - began
        return round((time.process_time() - before) / seconds, 2) if seconds > 0 else 0.0

    def described(self, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Rows of nodes with how long each trunk takes, and how many frames were sent there; and one for each
        node of the list that has none.
        """
        members = self.cluster.mesh.members
        found = []
        for row in rows:
            member = members.get(row["node"])
            found.append({**row, **({} if member is None else described(member.trunk))})
        known = {row["node"] for row in rows}
        lost = [
            entry.name
            for entry in self._listed
            if entry.name not in known and not self._neighbours.has_left(entry.name, entry.incarnation)
        ]
        return [*found, *({"node": name, "problem": f"{self.name} is not connected to it"} for name in lost)]

    async def drain(self) -> None:
        """Tell the others that no more clients should come here."""
        self.state = "draining"
        await self._registry.tell()

    async def leave(self) -> None:
        """All has been said: wait until the others have it, then go."""
        self.state = "leaving"
        mesh = self.cluster.mesh
        deadline = asyncio.get_running_loop().time() + SETTLE_SECONDS
        for member in [*mesh.present()]:
            member.write()
        while not all(member.is_settled for member in mesh.present()):
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.01)
        # Who takes the farewell cuts the connection, and none must begin after that.
        self._way.shut()
        await self._dialer.close()
        self._links.shut()
        mesh.bid_farewell()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._ticker is not None:
            self._ticker.cancel()
        await self._registry.leave()
        self._links.close()
        await self._way.close()

    def _tick(self) -> None:
        self._ticker = asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)
        self._used.append((self._clock(), time.process_time()))
        self.cluster.mesh.tick()
        self._way.tick()

    def _entry(self) -> Entry:
        mesh = self.cluster.mesh
        return Entry(mesh.name, mesh.incarnation, self._way.addresses, self.state, __version__)

    # what the list of nodes says

    def listed(self, entries: Sequence[Entry]) -> None:
        """Have a trunk with each of them."""
        self._listed = entries
        names = {entry.name for entry in entries}
        if not self._tasks:
            self._expected = names
        for entry in entries:
            self.cluster.hints.listed(entry.name, entry.incarnation)
            self._neighbours.want(entry.name, entry.incarnation, entry.addresses)

    def _is_listed(self, name: str, incarnation: int) -> bool:
        """Whether it is said that this life of a node is there; without a list nobody can tell."""
        listed = self._listed
        return not listed or any(entry[:2] == (name, incarnation) for entry in listed)

    def trusted(self, secrets: Sequence[bytes]) -> None:
        """By which secrets nodes know each other."""
        self._links.secrets = tuple(secrets)

    def is_connected(self, name: str) -> bool:
        """Whether there is a connection with it."""
        return self._links.of(name) is not None

    def superseded(self) -> None:
        """Another node has this one's name."""
        self._stop()
