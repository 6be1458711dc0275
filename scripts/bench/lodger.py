"""lodger NAME TARGET SESSIONS FIRST: a node that has so many sessions and nothing else, for `cluster_table`.

It listens as NAME, dials TARGET, tells it of its sessions as a node does, and answers `node list`. Prints
`joined` and the seconds from meeting TARGET until all that was told is acknowledged; goes on until it is
killed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import uvloop
from farm import SECRET

from xmppd import __version__
from xmppd.cluster.connection import Links
from xmppd.cluster.link import Dialer, SocketCarrier
from xmppd.cluster.member import Member
from xmppd.cluster.mesh import Mesh
from xmppd.cluster.neighbours import Neighbours
from xmppd.cluster.records import Call, Record, Reply, Snapshot
from xmppd.cluster.registry import new_incarnation
from xmppd.core.ids import HybridClock
from xmppd.core.sessions import Sessions

PIECE = 200
"""Sessions in a record."""
TICK_SECONDS = 0.5
RESOURCE = "client"


class Rounds:
    """Work in slices is done at once: nobody else waits here."""

    def do(self, name: str, steps: Iterator[None], *, is_short: bool) -> None:
        """All of it."""
        for _ in steps:
            pass


class Takes(dict[type[Record], Callable[[Member, Any], None]]):
    """Nothing that comes matters but who asks how this node is."""

    def __missing__(self, kind: type[Record]) -> Callable[[Member, Any], None]:
        return lambda member, record: None


class Crowd:
    """The node."""

    def __init__(self, name: str, target: str, sessions: int, first: int) -> None:
        loop = asyncio.get_running_loop()
        self._target = target
        self._numbers = range(first, first + sessions)
        self._met = 0.0
        stub = cast("Sessions", SimpleNamespace(rounds=Rounds(), is_writing=False))
        self.mesh = Mesh(
            name, new_incarnation(time.time()), stub, lambda outlet: loop.call_soon(outlet.flush),
            time.monotonic, loop.call_later, HybridClock(time.time),
        )  # fmt: skip
        self.mesh.compile(Takes({Call: self._answer}), (self,))
        self._neighbours = Neighbours(self.mesh, __version__, time.monotonic, sys.exit)
        self._neighbours.addresses = (name,)
        self._links = Links(self._neighbours, time.monotonic, (SECRET.encode(),))
        self._dialer = Dialer(name, self._links, self._neighbours, time.monotonic)
        self._neighbours.dialing = self._dialer

    async def live(self) -> None:
        """For ever."""
        host, _, port = self.mesh.name.rpartition(":")
        loop = asyncio.get_running_loop()
        await loop.create_server(lambda: SocketCarrier(self._links.accepted), host, int(port))
        self._dialer.want(self._target, (self._target,))
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self.mesh.tick()

    def _answer(self, member: Member, record: Call) -> None:
        row = {"version": __version__, "state": "up", "sessions": len(self._numbers)}
        self.mesh.send(member, Reply(record.id, json.dumps([row]), ""))

    # what the mesh tells

    def met(self, member: Member) -> None:
        """Tell of all sessions, piece by piece."""
        self._met = time.monotonic()
        asyncio.get_running_loop().create_task(self._tell(member))

    async def _tell(self, member: Member) -> None:
        for start in range(0, len(self._numbers), PIECE):
            piece = self._numbers[start : start + PIECE]
            places = [(f"player{number}@localhost", RESOURCE, 0, number) for number in piece]
            is_last = start + PIECE >= len(self._numbers)
            self.mesh.send(member, Snapshot(places, is_last), 64 * PIECE)
            while (room := self.mesh.room()) is not None:
                await room
            await asyncio.sleep(0)
        while not member.is_settled:  # noqa: ASYNC110 - until the other side has taken it
            await asyncio.sleep(0.01)
        print(f"joined {time.monotonic() - self._met:.3f}", flush=True)

    def joined(self, member: Member) -> None:
        """Nothing more."""

    def lost(self, member: Member) -> Iterator[None]:
        """Nothing to forget."""
        yield


async def main() -> None:
    """The command line."""
    name, target, sessions, first = sys.argv[1:]
    await Crowd(name, target, int(sessions), int(first)).live()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
