#!/usr/bin/python3
"""What a message to another node costs by each carrier: CPU of both nodes together, and of Redis.

usage: scripts/bench/carriers

Two nodes are greeted in this process, with real sockets, and one tells the other records of a message of 250
bytes on a real trunk, which acknowledges them. So what a node does with a message beside that is left out. A
Redis of its own is started for it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "lib"))

from meshes import NotingMesh

from xmppd.cluster.lines import BUS, Lines
from xmppd.cluster.link import Dialer, SocketCarrier, connect
from xmppd.cluster.records import TOP, Message
from xmppd.cluster.trunk import Trunk
from xmppd.net.listener import Listener
from xmppd.store.cache.bus import RedisBus
from xmppd.store.cache.url import Place

RAW = (
    b"<message from='alice@example.com/phone' to='bob@example.com' type='chat'>" + b"x" * 160 + b"</message>"
)
ROUNDS = 3
SHAPES = {"one at a time": (1, 8_000), "20 in a frame": (20, 4_000)}


class Node(NotingMesh):
    """A node with a trunk; what it takes is acknowledged after 10 ms, or with what it says."""

    def __init__(self, name: str) -> None:
        super().__init__(name, time.monotonic)
        self.trunk: Trunk[int] = Trunk(time.monotonic)
        self.settled = 0
        self.is_owing = False
        self.came = asyncio.Event()

    def connected(self, greeting: Any, connection: Any) -> None:
        super().connected(greeting, connection)
        self.trunk = Trunk(time.monotonic, greeting.trunk)
        connection.write(self.trunk.resume(0, greeting.said))

        self.beat(connection)

    def beat(self, connection: Any) -> None:
        """Say that this one lives."""
        if not connection.is_over:
            asyncio.get_running_loop().call_later(0.5, self.beat, connection)
            self.trunk.beat()
            connection.write(self.trunk.flush())

    def received(self, connection: Any, frame: bytes) -> None:
        taken = self.trunk.take(frame)
        if taken is None:
            return
        self.settled += len(taken.settled)
        self.came.set()
        if taken.records and not self.is_owing:
            self.is_owing = True
            asyncio.get_running_loop().call_later(0.01, self.acknowledge, connection)

    def acknowledge(self, connection: Any) -> None:
        """Say how far this one took the other's frames."""
        self.is_owing = False
        connection.write(self.trunk.flush())


async def direct(a: Node, b: Node) -> Callable[[], Awaitable[None]]:
    """Join two nodes by TCP."""
    tasks = set()
    listener = Listener(
        lambda: SocketCarrier(b.links.accepted), lambda work: tasks.add(asyncio.ensure_future(work))
    )
    await listener.open("127.0.0.1", 0, 16)
    dialer = Dialer("a", a.links, a, time.monotonic, connect=connect)
    dialer.want("b", [f"127.0.0.1:{listener.port}"])

    async def close() -> None:
        await dialer.close()
        listener.close()
        a.links.close()
        b.links.close()

    return close


def by_redis(url: str) -> Callable[[Node, Node], Awaitable[Callable[[], Awaitable[None]]]]:
    """Joins two nodes by Redis."""

    async def join(a: Node, b: Node) -> Callable[[], Awaitable[None]]:
        buses = []
        lines = {}
        for node in (a, b):
            bus = RedisBus(Place(url, 1.0), "bench", 1.0)
            call_later = asyncio.get_running_loop().call_later
            lines[node.name] = Lines(
                node.name, 1, bus.publish, node.links.accepted, call_later, time.monotonic
            )
            await bus.open(node.name, lines[node.name].received, lines[node.name].turned)
            buses.append(bus)
        dialer = Dialer("a", a.links, a, time.monotonic, connect=lines["a"].connect)
        dialer.want("b", [f"{BUS}b"])

        async def close() -> None:
            await dialer.close()
            a.links.close()
            b.links.close()
            for bus in buses:
                await bus.close()

        return close

    return join


async def measure(join: Any, redis: int) -> dict[str, tuple[float, float, float]]:
    """By shape: microseconds of CPU of one message, in the nodes and in Redis, and milliseconds of each."""
    a, b = Node("a"), Node("b")
    close = await join(a, b)
    while not (a.connections and b.connections):  # noqa: ASYNC110 - of two nodes
        await asyncio.sleep(0.01)
    found = {}
    for shape, (size, count) in SHAPES.items():
        used, beside, began = cpu(), cpu_of(redis), time.perf_counter()
        target = a.settled
        for _ in range(count):
            for _ in range(size):
                a.trunk.post(message(a.trunk.next_id), len(RAW) + 64, 0)
            a.connections["b"].write(a.trunk.flush())
            target += size
            b.came.clear()
            await b.came.wait()
        while a.settled < target:
            a.came.clear()
            await a.came.wait()
        each = size * count
        found[shape] = (
            (cpu() - used) / each * 1e6,
            (cpu_of(redis) - beside) / each * 1e6,
            (time.perf_counter() - began) / count * 1e3,
        )
    await close()
    return found


def message(id: int) -> Message:
    """One message, as it goes to another node."""
    return Message(id, "bob@example.com", "alice@example.com/phone", TOP, False, RAW)


def cpu() -> float:
    """Seconds that this process used."""
    return time.process_time()


def cpu_of(pid: int) -> float:
    """Seconds that another one used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Measure both in turns, and print the best of each."""
    redis = shutil.which("redis-server")
    if redis is None:
        sys.stderr.write("there is no redis-server\n")
        return 1
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [redis, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", ""]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            best: dict[tuple[str, str], tuple[float, ...]] = {}
            for _ in range(ROUNDS):
                for name, join in (("direct", direct), ("redis", by_redis(f"redis://127.0.0.1:{port}"))):
                    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                        for shape, figures in runner.run(measure(join, server.pid)).items():
                            before = best.get((name, shape), figures)
                            best[name, shape] = min(before, figures, key=sum)
        finally:
            server.terminate()
            server.wait()
    print("carrier  shape          both nodes, us of CPU   Redis   together   ms of one frame")
    for (name, shape), (nodes, engine, wait) in sorted(best.items(), key=lambda item: item[0][::-1]):
        print(f"{name:8} {shape:14} {nodes:20.1f} {engine:9.1f} {nodes + engine:9.1f} {wait:14.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
