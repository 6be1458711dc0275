"""What is done to nodes of a cluster, to what they stand on and to the net between them; for `nemesis.py`."""

import asyncio
import contextlib
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from backend import Backend
from crowd import Crew
from nodes import Node
from promises import Fault
from sentinels import Watched
from wires import HERE, Wires
from witness import Client, Line

from xmppd.errors import CommandError

PATIENCE = 10.0
"""Seconds in which the loss of a node is told, and everything is right after a heal."""
SHORT = (0.5, 2.5)
LONG = (6.0, 9.0)
"""Seconds of less, and of more, than a node, or Cassandra, is waited for."""
LATE = (0.5, 4.0)
"""Seconds for which answers of Redis are held up."""
WRONG = 600.0
"""Seconds by which a clock jumps."""
DRAIN_SECONDS = 15.0
ROLLING_SECONDS = 240.0
SERVED_SECONDS = 5.0
"""A client that a rolling restart sends away is served by another node in so many seconds."""
DELAY = 0.25
LOSS = 0.2
"""Of a bad net: a quarter of a second in each direction, and the share of packets that are lost."""


class Harm:
    """All that may be done. Each kind is a coroutine that returns what it did when that is healed; what it
    broke while it went on stands in `wrong`. `times` has lists of seconds. Where it `is_by_redis` that nodes
    reach each other, who is without Redis is cut off from all others.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        count: int,
        crew: Crew,
        backend: Backend,
        chance: random.Random,
        wires: Wires | None,
        sentinels: Watched | None,
        thread: ThreadPoolExecutor,
    ) -> None:
        self.nodes = nodes
        self.spare: list[Node] = []
        self.is_by_redis = False
        self._count = count
        self._starting: set[asyncio.Task[None]] = set()
        self.wrong: list[str] = []
        self.faults: list[Fault] = []
        self.times: Mapping[str, list[float]] = {"told": [], "started": [], "taken over": [], "away": []}
        self.counts: Counter[str] = Counter()
        self._crew = crew
        self._backend = backend
        self._chance = chance
        self._wires = wires
        self._sentinels = sentinels
        self._thread = thread
        self.kinds: dict[str, Callable[[], Awaitable[str]]] = {
            "kill": self.kill, "freeze": self.freeze, "term": self.term, "cut": self.cut, "redis": self.redis,
            "late": self.late, "cassandra": self.cassandra, "clock": self.clock, "drain": self.drain,
            "rolling": self.rolling, "sentinel": self.sentinel, "net": self.net,
        }  # fmt: skip

    @property
    def up(self) -> list[Node]:
        """The nodes that are there now; all others are spare."""
        return [node for node in self.nodes if node.is_open]

    async def do(self, kind: str) -> str:
        """Do one thing, once enough nodes are there; what it was."""
        while len(self.up) < self._count:
            await asyncio.wait(self._starting, return_when=asyncio.FIRST_COMPLETED)
            self._started()
        return await self.kinds[kind]()

    async def settle(self) -> None:
        """Wait for nodes that are being started."""
        if self._starting:
            await asyncio.wait(self._starting)
            self._started()

    def _started(self) -> None:
        for task in [task for task in self._starting if task.done()]:
            self._starting.remove(task)
            task.result()

    def _one(self) -> Node:
        return self._chance.choice(self.up)

    def _over(self, kind: str, since: float, *nodes: Node) -> None:
        """A fault is over; what it began may show for a while."""
        now = time.monotonic()
        self.faults.append(Fault(kind, tuple(node.index for node in nodes), since, now + PATIENCE))
        for node in nodes:
            self._crew.touched[node.index] = now + 1.0

    def _seconds(self) -> tuple[float, bool]:
        """Longer than a node is waited for, or not."""
        is_long = self._chance.random() < 0.6
        return self._chance.uniform(*(LONG if is_long else SHORT)), is_long

    async def _engines(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Do something to the engines that takes its time."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    # a node that is lost

    async def told(self, node: Node, clients: Sequence[Client], since: float) -> None:
        """All on other nodes see within `PATIENCE` that these clients are gone, strangers too."""
        gone = {client.full: client for client in clients}

        def ghosts() -> list[tuple[Line, Client]]:
            return [
                (line, client)
                for line in self._crew.online
                for full, client in gone.items()
                if line.node is not node and full in line.view and not client.is_online
            ]

        while (watching := ghosts()) and time.monotonic() < since + PATIENCE:  # noqa: ASYNC110 - what is seen
            await asyncio.sleep(0.02)
        self.times["told"].append(time.monotonic() - since)
        self.wrong += [
            f"{PATIENCE:.0f} s after node {node.index} was gone {line.client.name} is shown {client.name}"
            for line, client in watching[:5]
        ]

    def _hurt(self, node: Node) -> list[Client]:
        """A node is lost: half of its clients go elsewhere at once; the others, who are given, stay away."""
        node.is_open = False
        clients = self._crew.of(node)
        self._chance.shuffle(clients)
        absent = clients[: len(clients) // 2]
        for client in absent:
            client.is_away = True
        for client in clients:
            is_polite = self._chance.random() < 0.5
            # Who comes without the id of his session does so when it is known that its node is lost.
            client.leave(politely=is_polite and (client.is_away or not self._crew.is_counting))
        return absent

    @staticmethod
    def _back(clients: Sequence[Client]) -> None:
        """They need not stay away any more."""
        for client in clients:
            client.is_away = False

    async def _replace(self, node: Node) -> None:
        """Start another node for one that is gone, or that one again where there is no spare one: its name is
        free 10 s after its last beat.
        """
        if self.spare:
            self.spare.append(node)
            node = self.spare.pop(0)
        self.times["started"].append(await node.start())

    async def kill(self) -> str:
        """SIGKILL. Another node starts meanwhile, and while others are hurt: enough are there without it."""
        self.counts[f"kills of one of {len(self.up)} nodes"] += 1
        node, since = self._one(), time.monotonic()
        clients = self._crew.of(node)
        node.kill()
        absent = self._hurt(node) if clients else []
        self._starting.add(asyncio.create_task(self._replace(node)))
        await self.told(node, absent, since)
        self._back(absent)
        self._over("kill", since, node)
        return f"kill of node {node.index}"

    async def late(self) -> str:
        """A node is killed, and answers of Redis to the others come later than they are waited for."""
        seconds = self._chance.uniform(*LATE)
        for node in self.up:
            node.redis.hush("")
        healing = asyncio.create_task(self._heal_redis(seconds))
        since, what = time.monotonic(), await self.kill()
        await healing
        if self.is_by_redis:
            self._over("cut", since, *self.up)
        return f"{what}, answers of Redis held up for {seconds:.1f} s"

    async def _heal_redis(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        for node in self.nodes:
            node.redis.heal()

    async def freeze(self) -> str:
        """SIGSTOP for a while."""
        node, since = self._one(), time.monotonic()
        seconds, is_long = self._seconds()
        node.signal(signal.SIGSTOP)
        if is_long:
            absent = self._hurt(node)
            await self.told(node, absent, since)
            self._back(absent)
        await asyncio.sleep(max(0.0, since + seconds - time.monotonic()))
        node.signal(signal.SIGCONT)
        node.is_open = True
        self._over("freeze", since, node)
        return f"freeze of node {node.index} for {time.monotonic() - since:.1f} s"

    # a node that goes by itself

    async def term(self) -> str:
        """SIGTERM, and a new start."""
        node, since = self._one(), time.monotonic()
        node.is_open = False
        node.signal(signal.SIGTERM)
        await self._go(node)
        self._over("term", since, node)
        return f"end of node {node.index}"

    async def drain(self) -> str:
        """`node drain`, asked of any node, and a new start."""
        node, asked, since = self._one(), self._one(), time.monotonic()
        node.is_open = False
        try:
            await asked.ask("node drain", node=node.name)
        except (CommandError, OSError) as error:
            self.wrong.append(f"node drain of {node.index}, asked of {asked.index}: {error}")
        await self._go(node)
        self._over("drain", since, node)
        return f"drain of node {node.index}, asked of node {asked.index}"

    async def _go(self, node: Node) -> None:
        if not await node.ended(DRAIN_SECONDS):
            self.wrong.append(f"node {node.index} has not ended after {DRAIN_SECONDS:.0f} s")
            node.kill()
        self.times["started"].append(await node.start())

    async def rolling(self) -> str:
        """`cluster restart --rolling`: nodes exit with 75, and are started again here. A balancer before them
        sends clients to those that are not draining.
        """
        asked, nodes, since = self._one(), self.up, time.monotonic()
        for client in self._crew.clients.values():
            client.waits.clear()
        failures = self._crew.failures.copy()
        command = asked.command("cluster", "restart", "--rolling")
        running = await asyncio.create_subprocess_exec(
            *command, env=asked.environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        saying = asyncio.create_task(running.communicate())
        watching = [asyncio.create_task(work(nodes)) for work in (self._supervise, self._balance)]
        try:
            async with asyncio.timeout(ROLLING_SECONDS):
                said, _ = await asyncio.shield(saying)
        except TimeoutError:
            running.kill()
            said, _ = await saying
        finally:
            for task in watching:
                task.cancel()
        if running.returncode:
            self.wrong.append(f"the rolling restart ended with {running.returncode}: {said.decode()}")
        for node in nodes:
            node.is_open = True
        waits = [wait for client in self._crew.clients.values() for wait in client.waits]
        self.times["away"].extend(waits)
        self.wrong += [f"a client was refused for {wait:.1f} s" for wait in waits if wait > SERVED_SECONDS]
        refused = [name for name in self._crew.failures - failures if name.startswith("Refused")]
        self.wrong += [f"a client was refused: {name}" for name in refused]
        self._over("rolling", since, *nodes)
        return f"rolling restart in {time.monotonic() - since:.1f} s"

    async def _supervise(self, nodes: Sequence[Node]) -> None:
        while True:
            await asyncio.sleep(0.05)
            for node in nodes:
                if node.wants_another_life:
                    node.is_open = False
                    self.times["started"].append(await node.start())

    async def _balance(self, nodes: Sequence[Node]) -> None:
        while True:
            await asyncio.sleep(0.1)
            for node in nodes:
                with contextlib.suppress(CommandError, OSError):
                    rows = {row.get("node"): row for row in await node.ask("node list")}
                    node.is_open = rows[node.name].get("state") == "up"

    # the net

    async def cut(self) -> str:
        """Nothing goes through between two nodes, or between one and Redis."""
        one, other = self._chance.sample(self.up, 2)
        how = "redis" if self.is_by_redis else self._chance.choice(("silent", "silent", "reset", "redis"))
        seconds, _ = self._seconds()
        since = time.monotonic()
        if how == "reset":
            seconds = 0.0
            one.trunks.reset(other.name)
            other.trunks.reset(one.name)
        elif how == "silent":
            one.trunks.silence(other.name)
            other.trunks.silence(one.name)
        else:
            one.redis.silence("")
        await asyncio.sleep(seconds)
        one.trunks.heal()
        other.trunks.heal()
        one.redis.heal()
        if how == "redis":
            if self.is_by_redis:
                self._over("cut", since, *self.up)
            return f"cut of node {one.index} from Redis for {seconds:.1f} s"
        self._over("cut", since, one, other)
        return f"cut of nodes {one.index} and {other.index}, {how} for {seconds:.1f} s"

    async def net(self) -> str:
        """Packets between namespaces are lost, one way or both, or late."""
        assert self._wires is not None
        one, other = self._chance.sample(self.up, 2)
        how = self._chance.choice(("cut", "one way", "alone", "late", "lossy"))
        seconds, is_long = self._seconds()
        since, hurt, absent = time.monotonic(), (one, other), list[Client]()
        here, there = one.index + 1, other.index + 1
        numbers = [HERE, *(node.index + 1 for node in self.nodes)]
        if how in ("cut", "one way"):
            self._wires.lose(here, there)
            if how == "cut":
                self._wires.lose(there, here)
        elif how == "alone":
            hurt = (one, one)
            for number in numbers:
                self._wires.lose(here, number)
                self._wires.lose(number, here)
            if is_long:
                absent = self._hurt(one)
        else:
            hurt = (*self.up,)
            for way in ((a, b) for a in numbers for b in numbers if a != b and HERE not in (a, b)):
                self._wires.delay(*way, DELAY)
                if how == "lossy":
                    self._wires.lose(*way, LOSS)
        await self.told(one, absent, since)
        self._back(absent)
        await asyncio.sleep(max(0.0, since + seconds - time.monotonic()))
        self._wires.heal()
        one.is_open = True
        self._over("cut", since, *hurt)
        if how == "alone":
            self._over("cassandra", since, one)
            self._over("alone", since, one)
        return f"net {how} of nodes {one.index} and {other.index} for {time.monotonic() - since:.1f} s"

    # the engines

    async def redis(self) -> str:
        """Redis is killed, and starts empty: at once, or later."""
        seconds = self._chance.choice((0.0, self._chance.uniform(*LONG)))
        since = time.monotonic()
        await self._engines(self._backend.engines.kill, "redis")
        await asyncio.sleep(seconds)
        await self._engines(self._backend.engines.start_node, "redis")
        self._over("redis", since)
        if self.is_by_redis:
            self._over("cut", since, *self.up)
        return f"Redis gone for {time.monotonic() - since:.1f} s"

    async def sentinel(self) -> str:
        """The Redis that is written to is killed, and its replica takes over."""
        assert self._sentinels is not None
        since = time.monotonic()
        seconds = await self._engines(self._sentinels.fail_over)
        self.times["taken over"].append(seconds)
        self._over("redis", since)
        return f"failover of Redis in {seconds:.1f} s"

    async def cassandra(self) -> str:
        """One node cannot reach Cassandra: silence, or every connection refused. Who is away cannot be stored
        for, and who is there notices nothing.
        """
        node, since = self._one(), time.monotonic()
        seconds, is_long = self._seconds()
        is_reset = self._chance.random() < 0.3
        absent = [client for client in self._crew.clients.values() if self._chance.random() < 0.2]
        for client in absent:
            client.is_away = True
            client.leave(politely=True)
        node.is_open = not is_long
        if is_reset:
            node.cassandra.close()
        else:
            node.cassandra.silence("")
        await asyncio.sleep(seconds)
        node.cassandra.heal()
        await node.cassandra.start()
        node.is_open = True
        self._back(absent)
        self._over("cassandra", since, node)
        how = "refused" if is_reset else "silent"
        return f"cut of node {node.index} from Cassandra, {how} for {time.monotonic() - since:.1f} s"

    # the clock

    async def clock(self) -> str:
        """The clock of a node that runs jumps, and back again."""
        node, since = self._one(), time.monotonic()
        jump = self._chance.choice((-WRONG, WRONG))
        node.set_clock(jump)
        for _ in range(12):
            await asyncio.sleep(0.5)
            self._move_one()
        node.set_clock(0.0)
        for _ in range(4):
            await asyncio.sleep(0.5)
            self._move_one()
        self._over("clock", since, node)
        return f"clock of node {node.index} wrong by {jump:.0f} s"

    def _move_one(self) -> None:
        """Somebody leaves, comes back a second later, and is given what was stored meanwhile."""
        client = self._chance.choice([*self._crew.clients.values()])
        if client.is_online:
            client.is_away = True
            client.leave(politely=True)
            asyncio.get_running_loop().call_later(1.0, self._back, [client])
