"""nemesis [--faults LIST] [--kills N] [--seconds S] [--rate R] [--seed S]: nodes of a cluster are hurt under
load, and promises are held against what clients saw.

Clients with one session each write to each other, ping behind what they write, and remember what was
answered; some come and go. The nemesis does one thing after the other, as its seed says: kill (SIGKILL, and a
new start), freeze (SIGSTOP for less or more than a node has until it is given up), term (SIGTERM, and a new
start), cut (all between two nodes held up or reset, or a node's way to Redis), redis (restarted empty, or
gone for some seconds).

What was acknowledged is not lost, does not come twice but where a node was lost, and keeps its order. Who was
on a node that is gone is shown as gone within 10 s. Within 10 s after each fault is healed everybody is
served, sees of his contacts exactly those that are online, and has one session in all. Exit status 1 when a
promise was broken.
"""

import argparse
import asyncio
import contextlib
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import uvloop
from backend import Backend
from nodes import PORTS, Node
from promises import Fault, judge
from seed import accounts, rosters, write
from witness import Client, Crew

from xmppd.config import made_of
from xmppd.core.accounts import TABLES
from xmppd.core.roster.item import ROSTER
from xmppd.engines import store_of

PATIENCE = 10.0
"""Seconds in which the loss of a node is told, and everything is right after a heal."""
CLIENTS = 30
CONTACTS = 6
SHORT = (0.5, 2.5)
LONG = (6.0, 9.0)
"""Seconds of less, and of more, than a node is waited for."""
DRAIN_SECONDS = 15.0
ENOUGH = 60
"""Broken promises after which a run ends."""
FAULTS = ("kill", "freeze", "cut", "redis", "term")
NAMES = {"stop": "freeze"}


class Run:
    """Nodes, their clients, and what is done to them."""

    def __init__(self, options: argparse.Namespace, backend: Backend) -> None:
        self.backend = backend
        self.chance = random.Random(options.seed)
        self.rate: float = options.rate
        names = [f"127.0.0.1:{options.port + PORTS * index + 2}" for index in range(options.nodes)]
        self.nodes = [
            Node(index, options.port + PORTS * index, backend.folder / f"node{index}", names, backend.redis)
            for index in range(options.nodes)
        ]
        self.crew = Crew(self.nodes, CLIENTS, CONTACTS, self.chance)
        self.wrong: list[str] = []
        self.faults: list[Fault] = []
        self.times: dict[str, list[float]] = {"told": [], "healed": [], "started": [], "held up": []}
        self.may_change = asyncio.Event()
        self.began = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []
        # What an engine is tied to has to outlive every part of the run.
        self._thread = ThreadPoolExecutor(1)

    def say(self, text: str) -> None:
        """Tell how far it is."""
        print(f"{time.monotonic() - self.began:7.1f} {text}", flush=True)

    async def engines(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Do something to the engines that takes its time."""
        await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    # beginning and end

    async def begin(self) -> None:
        """Accounts, nodes, clients."""
        backend = self.backend
        cassandra = {
            "contact_points": backend.points,
            "keyspace": backend.keyspace,
            "local_dc": "datacenter1",
            "replication": {"datacenter1": 1},
        }
        chosen = {"engine": "cassandra", "cassandra": cassandra}
        store = store_of(made_of({"server": {"data_folder": str(backend.folder)}, "store": chosen}))
        await store.open([*TABLES, ROSTER])
        await write(accounts(store, "localhost", CLIENTS))
        await write(rosters(store, "localhost", f"0:{CLIENTS}:{CONTACTS}"))
        await store.close()
        for node in self.nodes:
            node.configure(chosen, backend.keyspace)
        await self.nodes[0].start()  # makes the tables of plugins
        await asyncio.gather(*(node.start() for node in self.nodes[1:]))
        self.say(f"{len(self.nodes)} nodes")
        spawn = asyncio.get_running_loop().create_task
        self._tasks = [spawn(client.live()) for client in self.crew.clients.values()]
        self._tasks += [spawn(self._come_and_go()), spawn(self._watch_the_loop())]
        self.began = time.monotonic()
        await self.right("start", time.monotonic())
        self._tasks.append(spawn(self.crew.talk(self.rate)))

    async def _come_and_go(self) -> None:
        """Now and then somebody leaves properly, and comes back."""
        while True:
            await asyncio.sleep(1)
            await self.may_change.wait()
            client = self.chance.choice([*self.crew.clients.values()])
            if client.is_online and not client.is_away:
                client.is_away = True
                client.leave(politely=True)
                await asyncio.sleep(self.chance.uniform(0.2, 3))
                client.is_away = False

    async def _watch_the_loop(self) -> None:
        """How late this process is: then all others on this machine are, too."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.1)
            self.times["held up"].append(time.monotonic() - before - 0.1)

    async def end(self) -> None:
        """Everybody comes back and reads what is there; then all is judged."""
        self.may_change.clear()
        self._tasks.pop().cancel()
        for client in self.crew.clients.values():
            client.is_away = False
        await self.right("end", time.monotonic())
        await asyncio.sleep(2)
        again = time.monotonic()
        for client in self.crew.clients.values():
            client.leave(politely=True)
        await self.right("everybody's next login", time.monotonic())
        await asyncio.sleep(2)
        for task in self._tasks:
            task.cancel()
        verdict = judge(self.crew.sent.values(), self.crew.lives, self.faults, again)
        self.wrong += verdict.wrong
        self.say(
            "messages: " + ", ".join(f"{what} {count}" for what, count in sorted(verdict.counts.items()))
        )
        if self.crew.failures:
            self.say(f"logins that failed: {dict(self.crew.failures.most_common(8))}")
        for what, seconds in self.times.items():
            if seconds:
                ordered = sorted(seconds)
                middle, worst = ordered[len(ordered) // 2], ordered[-1]
                self.say(f"{what}: {len(ordered)} times, median {middle:.2f} s, at most {worst:.2f} s")

    def logs(self) -> None:
        """What nodes wrote that they should not have written."""
        events: Counter[str] = Counter()
        for node in self.nodes:
            for record in node.log():
                events[f"{record['level']} {record['event']} {record.get('reason', '')}".strip()] += 1
                if record["level"] == "error":
                    self.wrong.append(f"node {node.index} wrote {str(record)[:3000]}")
        self.say(f"logs: {dict(events.most_common(20))}")

    def close(self) -> None:
        """Leave nothing behind."""
        for node in self.nodes:
            node.kill()
            node.redis.close()

    # what has to be true

    async def right(self, what: str, healed: float) -> None:
        """Everything is as it should be within `PATIENCE` seconds."""
        self.may_change.clear()
        problems = ["nothing looked at"]
        while problems and time.monotonic() < healed + PATIENCE:
            await asyncio.sleep(0.1)
            problems = [*self.crew.problems()] or await self._owners()
        if not problems:
            self.times["healed"].append(time.monotonic() - healed)
        else:
            problems = [*self.crew.problems()] or await self._owners()
            self.say(f"after {what}: {len(problems)} problems")
            self.wrong += [
                f"{PATIENCE:.0f} s after {what} at {healed - self.began:.1f}: {p}" for p in problems[:8]
            ]
        self.may_change.set()

    async def _owners(self) -> list[str]:
        """All nodes together have as many sessions as there are clients online: nobody is there twice."""
        counts = await asyncio.gather(*(node.sessions() for node in self.nodes))
        online = sum(client.is_online for client in self.crew.clients.values())
        return (
            []
            if sum(counts) == online
            else [f"nodes have {counts} sessions, and {online} clients are online"]
        )

    async def told(self, node: Node, clients: Sequence[Client], since: float) -> None:
        """Contacts on other nodes see within `PATIENCE` that these clients are gone."""
        watching = [
            (line, client)
            for client in clients
            for name in client.contacts
            if (line := self.crew.clients[name].line) is not None
            and line.node is not node
            and not line.is_over
        ]
        while watching and time.monotonic() < since + PATIENCE:
            await asyncio.sleep(0.05)
            watching = [(line, c) for line, c in watching if not line.is_over and c.full in line.view]
        self.times["told"].append(time.monotonic() - since)
        self.wrong += [
            f"{PATIENCE:.0f} s after node {node.index} was gone {line.client.name} is shown {client.name}"
            for line, client in watching[:5]
        ]

    # faults

    def hurt(self, node: Node) -> list[Client]:
        """A node is lost: half of its clients go elsewhere at once; the others, who are given, stay away."""
        node.is_open = False
        clients = self.crew.of(node)
        self.chance.shuffle(clients)
        absent = clients[: len(clients) // 2]
        for client in absent:
            client.is_away = True
        for client in clients:
            client.leave(politely=self.chance.random() < 0.5)
        return absent

    @staticmethod
    def back(clients: Sequence[Client]) -> None:
        """They need not stay away any more."""
        for client in clients:
            client.is_away = False

    async def restart(self, node: Node) -> None:
        """Start a node; clients may come to it."""
        self.times["started"].append(await node.start())

    async def kill(self) -> str:
        """SIGKILL, and a new start."""
        node, since = self.chance.choice(self.nodes), time.monotonic()
        clients = self.crew.of(node)
        node.kill()
        absent = self.hurt(node) if clients else []
        await self.told(node, absent, since)
        self.back(absent)
        await self.restart(node)
        self.faults.append(Fault("kill", (node.index,), since, time.monotonic() + PATIENCE))
        return f"kill of node {node.index}"

    async def freeze(self) -> str:
        """SIGSTOP for a while."""
        node, since = self.chance.choice(self.nodes), time.monotonic()
        is_long = self.chance.random() < 0.6
        seconds = self.chance.uniform(*(LONG if is_long else SHORT))
        node.signal(signal.SIGSTOP)
        if is_long:
            absent = self.hurt(node)
            await self.told(node, absent, since)
            self.back(absent)
        await asyncio.sleep(max(0.0, since + seconds - time.monotonic()))
        node.signal(signal.SIGCONT)
        node.is_open = True
        self.faults.append(Fault("freeze", (node.index,), since, time.monotonic() + PATIENCE))
        return f"freeze of node {node.index} for {time.monotonic() - since:.1f} s"

    async def term(self) -> str:
        """SIGTERM, and a new start."""
        node, since = self.chance.choice(self.nodes), time.monotonic()
        node.is_open = False
        node.signal(signal.SIGTERM)
        if not await node.ended(DRAIN_SECONDS):
            self.wrong.append(f"node {node.index} does not end {DRAIN_SECONDS:.0f} s after SIGTERM")
            node.kill()
        await self.restart(node)
        self.faults.append(Fault("term", (node.index,), since, time.monotonic() + PATIENCE))
        return f"end of node {node.index}"

    async def cut(self) -> str:
        """Nothing goes through between two nodes, or between one and Redis."""
        one, other = self.chance.sample(self.nodes, 2)
        how = self.chance.choice(("silent", "silent", "reset", "redis"))
        seconds = self.chance.uniform(*(LONG if self.chance.random() < 0.6 else SHORT))
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
            return f"cut of node {one.index} from Redis for {seconds:.1f} s"
        self.faults.append(Fault("cut", (one.index, other.index), since, time.monotonic() + PATIENCE))
        return f"cut of nodes {one.index} and {other.index}, {how} for {seconds:.1f} s"

    async def redis(self) -> str:
        """Redis is killed, and starts empty: at once, or later."""
        seconds = self.chance.choice((0.0, self.chance.uniform(*LONG)))
        since = time.monotonic()
        await self.engines(self.backend.engines.kill, "redis")
        await asyncio.sleep(seconds)
        await self.engines(self.backend.engines.start_node, "redis")
        self.faults.append(Fault("redis", (), since, time.monotonic() + PATIENCE))
        return f"Redis gone for {time.monotonic() - since:.1f} s"

    async def work(self, kinds: Sequence[str], seconds: float, kills: int) -> int:
        """All of it; the exit status."""
        await self.begin()
        acts: dict[str, Callable[[], Awaitable[str]]] = {
            "kill": self.kill, "freeze": self.freeze, "term": self.term, "cut": self.cut, "redis": self.redis,
        }  # fmt: skip
        counts: Counter[str] = Counter()
        deadline = time.monotonic() + seconds
        first = [*kinds]
        while len(self.wrong) < ENOUGH:
            if first or time.monotonic() < deadline:
                kind = first.pop(0) if first else self.chance.choice(kinds)
            elif counts["kill"] < kills:
                kind = "kill"
            else:
                break
            await asyncio.sleep(self.chance.uniform(0.5, 2))
            self.may_change.set()
            counts[kind] += 1
            what = await acts[kind]()
            healed = time.monotonic()
            await self.right(what, healed)
            self.say(f"{what}; right after {time.monotonic() - healed:.1f} s")
        await self.end()
        self.logs()
        self.say(f"faults: {dict(counts)}")
        print("\n".join(["FAILED:", *self.wrong[:ENOUGH]]) if self.wrong else "passed")
        return 1 if self.wrong else 0


def kinds_of(text: str) -> list[str]:
    """Which faults there are; argparse.ArgumentTypeError."""
    kinds = [NAMES.get(name, name) for name in text.split(",")]
    if unknown := [kind for kind in kinds if kind not in FAULTS]:
        raise argparse.ArgumentTypeError(f"there is no fault {unknown[0]}: {', '.join(FAULTS)}")
    return kinds


async def run(options: argparse.Namespace, backend: Backend) -> int:
    """One run from its beginning to its end."""
    found = Run(options, backend)
    try:
        return await found.work(options.faults, options.seconds, options.kills)
    finally:
        found.close()
        if options.logs is not None:
            for node in found.nodes:
                with contextlib.suppress(OSError):
                    (options.logs / f"node{node.index}.log").write_bytes((node.folder / "log").read_bytes())


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--faults", type=kinds_of, default=[*FAULTS], metavar="KIND,...", help=", ".join(FAULTS)
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long faults of all kinds go on")
    parser.add_argument("--kills", type=int, default=0, help="go on with kills until there were so many")
    parser.add_argument("--rate", type=float, default=100.0, help="messages a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--port", type=int, default=26200, help="the first of four for each node")
    parser.add_argument("--logs", type=Path, help="a folder for what the nodes wrote")
    options = parser.parse_args()
    backend = Backend("cassandra", own_redis="redis" in options.faults)
    try:
        backend.start()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run(options, backend))
    finally:
        backend.remove()


if __name__ == "__main__":
    sys.exit(main())
