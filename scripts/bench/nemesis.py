"""nemesis [--faults LIST] [--counting] [--carrier redis] [--kills N] [--seconds S] [--warm S] [--rate R]
[--seed S]:
nodes of a cluster are hurt under load, and promises are held against what clients saw.

Clients with one session each write to each other, ping behind what they write, and remember what was
answered; ask each other, show their presence to contacts and strangers, follow somebody or do so no more;
some come and go. The nemesis does one thing after the other, as its seed says: kill (SIGKILL, and another
node), late (a kill, and answers of Redis held up), freeze (SIGSTOP for less or more than a node has until
it is given up), term (SIGTERM, and a new start), drain (`node drain`), rolling (`cluster restart
--rolling`), cut (all between two nodes held up or reset, or a node's way to Redis), net (packets between
network namespaces lost or late), redis (restarted empty, or gone for some seconds), sentinel (a replica
takes over), cassandra (a node cannot reach it), clock (that of a node jumps by 10 minutes).

What was acknowledged is not lost, does not come twice but where a node was lost, and keeps its order; with
--counting, where clients use XEP-0198 and resume their sessions, not where a node was killed either. Who
was on a node that is gone is shown as gone within 10 s. Within 10 s after each fault is healed everybody
is served, sees of all others exactly those that he may see, as they are, and all nodes tell of the same
sessions. Iqs are answered once. Exit status 1 when a promise was broken. SIGINT and SIGTERM end a run
early, and judge it.
"""

import argparse
import asyncio
import contextlib
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import uvloop
from backend import Backend
from crowd import Crew
from harm import PATIENCE, Harm
from nodes import PORTS, Node, Site
from promises import ANSWER_SECONDS, BUS_SECONDS, judge, judge_iqs
from seed import accounts, rosters, write
from sentinels import Watched
from wires import HERE, Wires

from xmppd.config import made_of
from xmppd.core.accounts import TABLES
from xmppd.core.roster.item import ROSTER
from xmppd.engines import store_of

CLIENTS = 30
CONTACTS = 6
ENOUGH = 60
"""Broken promises after which a run ends."""
CUT = 0.5
"""How many of those who leave lose their connection, where they can resume their sessions."""
EVERY = 10
"""Faults after which it is told how things stand."""
SLOW_SECONDS = 1.5
"""What is not right after so long is told."""
INSIST_SECONDS = 3.0
"""Who does not see what he asked for after so long asks again."""
STORED_SECONDS = 15.0
"""In which all that was acknowledged has come, once nothing is hurt any more: a lock of a node that was
killed stands for 10 s.
"""
PLAIN = ("kill", "freeze", "cut", "redis", "term", "cassandra", "clock", "drain", "late")
APART = ("rolling", "sentinel", "net")
"""Faults that take a minute, another Redis, or another net: only where they are named."""
NAMES = {"stop": "freeze", "namespace": "net"}
EXCLUDED = {"net": {"cut"}, "sentinel": {"redis", "late"}}
"""What cannot be done in the same run: there is no relay on those ways."""


class Run:
    """Nodes, their clients, and what is done to them."""

    def __init__(self, options: argparse.Namespace, backend: Backend, thread: ThreadPoolExecutor) -> None:
        self.backend = backend
        self.chance = random.Random(options.seed)
        self.rate: float = options.rate
        self.count: int = options.nodes
        self.pause: float = options.pause
        self.warm: float = options.warm
        self.ahead = int(bool(options.kills and options.spares))
        total = options.nodes + options.spares
        self.wires = Wires(total, self.chance) if "net" in options.faults else None
        self.carrier: str = options.carrier
        self.sentinels = Watched(backend.folder / "watched") if "sentinel" in options.faults else None
        if self.sentinels is not None:
            thread.submit(self.sentinels.start).result()
        sites = [self._site(number) for number in range(1, total + 1)]
        firsts = [options.port + PORTS * index for index in range(total)]
        names = [site.name(first) for site, first in zip(sites, firsts, strict=True)]
        self.nodes = [
            Node(index, first, backend.folder / f"node{index}", names, site)
            for index, (first, site) in enumerate(zip(firsts, sites, strict=True))
        ]
        self.is_counting: bool = options.counting
        self.crew = Crew(self.nodes, CLIENTS, CONTACTS, self.chance, is_counting=self.is_counting)
        self.harm = Harm(
            self.nodes, options.nodes, self.crew, backend, self.chance, self.wires, self.sentinels, thread
        )
        self.harm.is_by_redis = options.carrier == "redis"
        self.harm.spare = [*self.nodes[self.count + self.ahead :]]
        self.wrong = self.harm.wrong
        self.crew.wrong = self.wrong
        self.counts: Counter[str] = Counter()
        self.times: dict[str, list[float]] = {"healed": [], "held up": []}
        self.may_change = asyncio.Event()
        self.is_stopped = asyncio.Event()
        self.began = time.monotonic()
        self._tasks: list[asyncio.Task[None]] = []

    def _site(self, number: int) -> Site:
        redis = self.backend.redis if self.sentinels is None else self.sentinels.url
        address = urlsplit(redis)
        target = (address.hostname or "", address.port or 6379) if self.sentinels is None else None
        host, _, port = self.backend.points[0].rpartition(":")
        if self.wires is None:
            is_relayed = self.carrier == "direct"
            return Site(redis, target, (host, int(port)), is_relayed=is_relayed, carrier=self.carrier)
        near, enter = self.wires.address(HERE), self.wires.enter(number)
        return Site(redis, target, (host, int(port)), self.wires.address(number), near, False, enter)

    def say(self, text: str) -> None:
        """Tell how far it is."""
        print(f"{time.monotonic() - self.began:7.1f} {text}", flush=True)

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
        if self.wires is not None:
            self.wires.start()
        for node in self.nodes:
            plugins = ("ping", "offline", *(("archive",) if self.is_counting else ()))
            node.configure(chosen, backend.keyspace, plugins)
        first, *others = self.nodes[: self.count + self.ahead]
        await first.start()  # makes the tables of plugins
        await asyncio.gather(*(node.start() for node in others))
        self.say(f"{len(self.harm.up)} nodes")
        spawn = asyncio.get_running_loop().create_task
        self._tasks = [spawn(client.live()) for client in self.crew.clients.values()]
        self._tasks += [spawn(self._come_and_go()), spawn(self._watch_the_loop())]
        self._tasks.append(spawn(self.crew.fidget(self.may_change)))
        self.began = time.monotonic()
        await self.right("start", time.monotonic())
        self._tasks.append(spawn(self.crew.talk(self.rate)))

    async def _come_and_go(self) -> None:
        """Now and then somebody leaves properly, and comes back."""
        while True:
            await asyncio.sleep(1)
            await self.may_change.wait()
            client = self.chance.choice([*self.crew.clients.values()])
            if self.is_counting and client.is_online and self.chance.random() < CUT:
                client.leave(politely=False)  # and resume the session wherever it comes to
                self.crew.done["connections that were cut"] += 1
            elif client.is_online and not client.is_away:
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
        await self.harm.settle()
        self._tasks.pop().cancel()
        for client in self.crew.clients.values():
            client.is_away = False
        self.crew.be_open()
        await self.right("end", time.monotonic())
        await self._halves()
        await self._arrived("the end")
        again = time.monotonic()
        for client in self.crew.clients.values():
            client.leave(politely=True)
        await self.right("everybody's next login", time.monotonic())
        await self._arrived("everybody's next login")
        for task in self._tasks:
            task.cancel()
        self._judge(again)

    async def _arrived(self, what: str) -> None:
        """Wait for all that was acknowledged, for a while; at least until what comes twice has come."""
        since = time.monotonic()
        await asyncio.sleep(1)
        while missing := len(self._missing()):
            if time.monotonic() > since + STORED_SECONDS:
                self.say(f"{missing} messages have not come {STORED_SECONDS:.0f} s after {what}")
                return
            await asyncio.sleep(0.5)

    def _missing(self) -> set[str]:
        """What was acknowledged and has not come."""
        wanted = {m.id for m in self.crew.sent.values() if m.acked is not None and not m.error}
        return wanted.difference(*({id for _, id in life.arrived} for life in self.crew.lives))

    async def _halves(self) -> None:
        """Both rosters of each subscription agree; one that was cut in two is asked for again."""
        since = time.monotonic()
        while True:
            self.crew.ask_for_rosters()
            await asyncio.sleep(0.5)
            halves = [*self.crew.halves()]
            if not halves or time.monotonic() > since + PATIENCE:
                self.wrong += halves
                return
            for client in self.crew.clients.values():
                client.follow(wish=client.wish)
            self.crew.done["rosters looked at again"] += 1
            await asyncio.sleep(0.5)

    def _judge(self, again: float) -> None:
        crew, faults = self.crew, self.harm.faults
        verdict = judge(crew.sent.values(), crew.lives, faults, again, is_counted=self.is_counting)
        in_time = BUS_SECONDS if self.carrier == "redis" else ANSWER_SECONDS
        iqs = judge_iqs(crew.asked.values(), crew.lives, faults, time.monotonic(), in_time)
        self.wrong[:0] = verdict.wrong + iqs.wrong  # first, since not all may be told
        for title, counts in (("messages", verdict.counts), ("iqs", iqs.counts), ("others", crew.done)):
            self.say(f"{title}: " + ", ".join(f"{what} {count}" for what, count in sorted(counts.items())))

    def summary(self) -> int:
        """How long things took, what the nodes wrote, and what was broken; the exit status."""
        if self.crew.failures:
            self.say(f"logins that failed: {dict(self.crew.failures.most_common(8))}")
        for what, seconds in {**self.times, **self.harm.times}.items():
            if seconds:
                ordered = sorted(seconds)
                middle, worst = ordered[len(ordered) // 2], ordered[-1]
                self.say(f"{what}: {len(ordered)} times, median {middle:.2f} s, at most {worst:.2f} s")
        if self.wires is not None:
            self.say(f"packets: {self.wires.passed} carried, {self.wires.lost} lost")
        self._logs()
        self.say(f"faults: {dict(self.counts)}")
        if self.harm.counts:
            self.say(f"of them: {dict(self.harm.counts)}")
        print("\n".join(["FAILED:", *self.wrong[:ENOUGH]]) if self.wrong else "passed", flush=True)
        return 1 if self.wrong else 0

    def _logs(self) -> None:
        """What nodes wrote that they should not have written."""
        events: Counter[str] = Counter()
        is_without_store = "cassandra" in self.counts or "net" in self.counts
        for node in self.nodes:
            for record in node.log():
                events[f"{record['level']} {record['event']} {record.get('reason', '')}".strip()] += 1
                if record["level"] == "error" and not (
                    is_without_store and record["event"] == "store-does-not-answer"
                ):
                    self.wrong.append(f"node {node.index} wrote {str(record)[:3000]}")
        self.say(f"logs: {dict(events.most_common(20))}")

    def close(self) -> None:
        """Leave nothing behind."""
        for node in self.nodes:
            node.close()
        if self.wires is not None:
            self.wires.close()

    # what has to be true

    async def right(self, what: str, healed: float) -> None:
        """Everything is as it should be within `PATIENCE` seconds."""
        self.may_change.clear()
        problems = ["nothing looked at"]
        is_late = is_slow = False
        while problems and time.monotonic() < healed + PATIENCE:
            await asyncio.sleep(0.05)
            problems = await self._problems()
            if problems and not is_slow and time.monotonic() > healed + SLOW_SECONDS:
                is_slow = True
                self.say(f"slow after {what}: {len(problems)} problems, {problems[:3]}")
            if problems and not is_late and time.monotonic() > healed + INSIST_SECONDS:
                is_late = True
                self.crew.insist()
        if not problems:
            self.times["healed"].append(time.monotonic() - healed)
        else:
            self.say(f"after {what}: {len(problems)} problems, {problems[0]}")
            self.wrong += [
                f"{PATIENCE:.0f} s after {what} at {healed - self.began:.1f}: {p}" for p in problems[:8]
            ]
        self.may_change.set()

    async def _problems(self) -> list[str]:
        """What clients see that is not so, or else what nodes tell of that is not so."""
        if problems := [*self.crew.problems()]:
            return problems
        nodes = self.harm.up
        told = await asyncio.gather(*(node.sessions() for node in nodes))
        return [
            problem
            for node, rows in zip(nodes, told, strict=True)
            for problem in self.crew.owners(node, rows)
        ]

    async def work(self, kinds: Sequence[str], seconds: float, kills: int) -> None:
        """All of it."""
        await self.begin()
        await asyncio.sleep(self.warm)
        deadline = time.monotonic() + seconds
        first = [*kinds]
        while len(self.wrong) < ENOUGH and not self.is_stopped.is_set():
            is_timed = bool(first) or time.monotonic() < deadline
            if is_timed:
                kind = first.pop(0) if first else self.chance.choice(kinds)
            elif self.counts["kill"] + self.counts["late"] < kills:
                kind = "kill" if "kill" in kinds else "late"
            else:
                break
            early = self.chance.uniform(0.5, 2) if is_timed else self.pause + self.chance.uniform(0.1, 0.5)
            await asyncio.sleep(early)
            self.counts[kind] += 1
            what = await self.harm.do(kind)
            healed = time.monotonic()
            await self.right(what, healed)
            self.say(f"{what}; right after {time.monotonic() - healed:.1f} s")
            if self.counts.total() % EVERY == 0:
                acked = sum(message.acked is not None for message in self.crew.sent.values())
                self.say(
                    f"so far: {self.counts.total()} faults, {acked} acknowledged, {len(self.wrong)} wrong"
                )
        await self.end()


def kinds_of(text: str) -> list[str]:
    """Which faults there are; argparse.ArgumentTypeError."""
    kinds = [NAMES.get(name, name) for name in text.split(",")]
    if unknown := [kind for kind in kinds if kind not in (*PLAIN, *APART)]:
        raise argparse.ArgumentTypeError(f"there is no fault {unknown[0]}: {', '.join((*PLAIN, *APART))}")
    for kind, others in EXCLUDED.items():
        if kind in kinds and (both := others.intersection(kinds)):
            raise argparse.ArgumentTypeError(f"{kind} and {both.pop()} need runs of their own")
    return kinds


async def run(options: argparse.Namespace, backend: Backend, thread: ThreadPoolExecutor) -> int:
    """One run from its beginning to its end. The first signal ends it early, a second one at once."""
    found = Run(options, backend, thread)
    task = asyncio.create_task(found.work(options.faults, options.seconds, options.kills))

    def stop() -> None:
        if found.is_stopped.is_set():
            task.cancel()
        found.say("interrupted: what is being done is ended, and judged")
        found.is_stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        try:
            await task
        except (asyncio.CancelledError, Exception) as error:  # noqa: BLE001 - what was seen is told
            found.wrong.append(f"ended before all was judged: {error!r}")
        return found.summary()
    finally:
        found.close()
        if options.logs is not None:
            options.logs.mkdir(parents=True, exist_ok=True)
            for node in found.nodes:
                with contextlib.suppress(OSError):
                    (options.logs / f"node{node.index}.log").write_bytes((node.folder / "log").read_bytes())


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument(
        "--faults",
        type=kinds_of,
        default=[*PLAIN],
        metavar="KIND,...",
        help=f"{', '.join(PLAIN)}, and only where named: {', '.join(APART)}",
    )
    parser.add_argument(
        "--carrier",
        choices=("direct", "redis"),
        default="direct",
        help="how nodes reach each other; with redis each cut is one from Redis (default: %(default)s)",
    )
    parser.add_argument(
        "--counting",
        action="store_true",
        help="clients acknowledge what comes and resume their sessions (XEP-0198), messages are archived: "
        "nothing comes twice by a kill, or is lost with a connection",
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long faults of all kinds go on")
    parser.add_argument("--kills", type=int, default=0, help="go on with kills until there were so many")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds more before each of those")
    parser.add_argument(
        "--warm",
        type=float,
        default=0.0,
        help="seconds of messages before the first fault: Cassandra compiles in the first ones",
    )
    parser.add_argument("--rate", type=float, default=100.0, help="messages a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument(
        "--spares", type=int, default=6, help="names for nodes that take over from killed ones"
    )
    parser.add_argument("--port", type=int, default=26200, help="the first of five for each node")
    parser.add_argument(
        "--heap",
        type=int,
        metavar="MiB",
        help="for Cassandra: with 320, as else, its garbage takes a processor in long runs; "
        "from 2048 on it runs as in production",
    )
    parser.add_argument("--logs", type=Path, help="a folder for what the nodes wrote")
    options = parser.parse_args()
    if options.carrier == "redis" and {"net", "sentinel"} & {*options.faults}:
        parser.error("net and sentinel are about nodes that reach each other")
    backend = Backend("cassandra", own_redis="redis" in options.faults, heap=options.heap)
    # What an engine is tied to has to outlive every part of the run.
    thread = ThreadPoolExecutor(1)
    try:
        thread.submit(backend.start).result()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(run(options, backend, thread))
    finally:
        thread.submit(backend.remove).result()


if __name__ == "__main__":
    sys.exit(main())
