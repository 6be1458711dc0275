"""faults [SCENARIO...] [--seconds S] [--servers N] [--port P]: engines fail under load, and an oracle.

Fifty sessions change rosters, write to accounts that are away and talk to who is online; others log in, read
rosters and make accounts. Meanwhile nodes of a ring of three Cassandras, or the Redis before it, are killed,
frozen or filled. Everything answered must be there afterwards, once; what was refused had to be refused for
now (error type wait), and no session may end.

calm: nothing fails. cassandra: one node and then a second one are killed, and come back. frozen: the same
with nodes that stop answering and go on later. ring: all three nodes are killed at once. redis: killed,
restarted empty, slow, full.

For each part of a run a line says how many requests were answered and refused, how long after its beginning
the last refusal came, and the longest answer. Exit status 1 when a promise was broken.
"""

import argparse
import asyncio
import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis
from backend import STORES, Backend
from crew import LAG, Crew, Event
from victim import PASSWORD, Server

GRACE = 5.0
"""Seconds after which one node of three is not missed."""
IN_FLIGHT = 1.0
"""Seconds in which may come what was stored just before a second node was gone."""
RETURN = 30.0
"""Seconds in which everybody is served again, once the nodes accept connections."""
WRITES = ("roster", "message", "account")
OUTAGES = ("store-does-not-answer",)
"""Errors that a log should have while engines are gone."""


class Run:
    """Servers and their crew on one backend, with one scenario after the other."""

    def __init__(self, backend: Backend, servers: list[Server], seconds: float, pace: float) -> None:
        self.backend = backend
        self.servers = servers
        self.seconds = seconds
        self.crew = Crew(servers, pace)
        self.journal = self.crew.journal
        self.wrong = self.journal.wrong
        # What an engine is tied to has to outlive every part of the run.
        self._thread = ThreadPoolExecutor(1)

    async def engines(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Do something to the engines that takes its time."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    async def part(self, title: str, seconds: float) -> list[Event]:
        """Let the crew work, and print what became of it; everything that happened."""
        began = time.monotonic()
        await asyncio.sleep(seconds)
        return self.told(title, began)

    def told(self, title: str, began: float) -> list[Event]:
        """Print what became of the requests since then; all of them."""
        events = self.journal.since(began)
        refused = [event for event in events if event.refusal]
        counts = Counter(f"{event.kind}: {event.refusal}" for event in refused)
        answered = Counter(event.kind for event in events if not event.refusal)
        last = f"{refused[-1].at - began:.1f} s" if refused else "none"
        longest = max((event.took for event in events), default=0.0)
        print(
            f"{title}: {time.monotonic() - began:.1f} s; answered {dict(sorted(answered.items()))}; "
            f"refused {dict(sorted(counts.items()))}, last {last}; longest {longest:.2f} s",
            flush=True,
        )
        return events

    async def begin(self) -> None:
        """Servers, accounts, sessions."""
        for server in self.servers:
            await server.start()
        for name in sorted(self.crew.accounts()):
            await self.servers[0].command("user add", account=f"{name}@localhost", password=PASSWORD)
        await self.crew.start()
        await self.part("at first", min(self.seconds, 5.0))

    async def look(self) -> None:
        """What new logins are shown must be what the store holds: by each server, and by a cold one."""
        extra = [] if self.backend.store == "sqlite" else self.others()
        async with self.crew.rest():
            try:
                await asyncio.gather(*(server.start() for server in extra))
                shown = {server: await self.crew.rosters(server) for server in (*extra, *self.servers)}
            finally:
                await asyncio.gather(*(asyncio.to_thread(server.stop) for server in extra))
        truth = next(iter(shown.values()))
        for server, found in shown.items():
            name = server.folder.name
            self.crew.check_rosters(found, name)
            differing = [account for account in found if found[account] != truth[account]]
            if differing:
                self.wrong.append(f"rosters on {name} differ from the store: {differing}")
        print(f"rosters: {len(truth)} accounts, as {len(shown)} servers show them", flush=True)

    def others(self) -> list[Server]:
        """One that reads the store, and one that has to ask the cache."""
        folder, port = self.backend.folder, self.servers[-1].port
        return [
            Server(folder / "bare", port + 2, self.backend.environ(cached=False), "bare"),
            Server(folder / "cold", port + 4, self.backend.environ(), "bare"),
        ]

    async def end(self) -> None:
        """Hold messages and accounts against what was answered."""
        async with self.crew.rest():
            messages = await self.crew.check_messages(self.servers[-1])
            accounts = await self.crew.check_accounts(self.servers[0])
            await self.crew.stop()
        print(f"messages kept: {messages}; accounts made: {accounts}")
        for server in self.servers:
            if not server.is_up():
                self.wrong.append(f"{server.folder.name} has ended")
        if "chat" in {event.kind for event in self.journal.events if event.refusal}:
            self.wrong.append("a chat was refused, which needs no store")

    def logged(self) -> None:
        """Print what the servers said, by kind, with an example."""
        for server in self.servers:
            server.collect_log()
            records = [json.loads(line) for line in server.log]
            for event, count in sorted(Counter(map(kind_of, records)).items()):
                example = next(record for record in records if kind_of(record) == event)
                print(f"{server.folder.name} logged {event} {count} times: {json.dumps(example)[:300]}")
            self.wrong += [
                f"{server.folder.name} logged {json.dumps(record)[:1500]}"
                for record in records
                if record["level"] == "error" and record["event"] not in OUTAGES
            ]


def kind_of(record: dict[str, Any]) -> str:
    """What lines of a log are counted by."""
    return str(record.get("logger") or record["event"])


# scenarios


async def calm(run: Run) -> None:
    """Nothing fails."""
    events = await run.part("calm", run.seconds)
    run.wrong += [f"refused without a reason: {event}" for event in events if event.refusal][:3]


async def cassandra(run: Run) -> None:
    """Nodes are killed."""
    engines = run.backend.engines

    async def come_back(names: Sequence[str]) -> None:
        for name in names:
            await run.engines(engines.start_node, name)

    await outage(run, "killed", engines.kill, come_back)


async def frozen(run: Run) -> None:
    """Nodes stop answering, with their connections open."""
    engines = run.backend.engines

    def send(name: str, number: signal.Signals) -> None:
        process = engines.process(name)
        assert process is not None, f"{name} is up"
        process.send(number)

    async def come_back(names: Sequence[str]) -> None:
        for name in names:
            send(name, signal.SIGCONT)

    await outage(run, "frozen", lambda name: send(name, signal.SIGSTOP), come_back)


async def outage(run: Run, how: str, hurt: Callable[[str], None], heal: Callable[..., Any]) -> None:
    """One node is gone: not missed. A second one: nothing can be stored. Both come back: everything can."""
    first, second, _ = random.Random(how).sample(["cassandra1", "cassandra2", "cassandra3"], 3)
    began = time.monotonic()
    await run.engines(hurt, first)
    await run.part(f"{first} {how}", run.seconds)
    late = [event for event in run.journal.since(began + GRACE) if event.refusal]
    run.wrong += [f"refused {event.at - began:.1f} s after one node was {how}: {event}" for event in late[:5]]

    # What a server knows to be old, and cannot read anew, is still better than nothing.
    run.journal.lag = float("inf")
    began = time.monotonic()
    await run.engines(hurt, second)
    await without_quorum(run, f"{second} {how} too", began)
    await back(run, heal, [second, first])


async def ring(run: Run) -> None:
    """All nodes are killed at once, and start again with what is on their disks."""
    engines = run.backend.engines
    names = [node.name for node in engines.nodes() if node.name != "redis"]

    def kill() -> None:
        for process in [engines.process(name) for name in names]:
            assert process is not None, "all are up"
            process.send(signal.SIGKILL)
        for name in names:
            engines.kill(name)  # waits for its end

    async def come_back(_names: Sequence[str]) -> None:
        await run.engines(engines.start)

    run.journal.lag = float("inf")
    began = time.monotonic()
    await run.engines(kill)
    await without_quorum(run, "all nodes killed", began)
    await back(run, come_back, names)


async def without_quorum(run: Run, title: str, began: float) -> None:
    """Nothing can be stored since `began`, so nothing may be acknowledged."""
    events = await run.part(title, run.seconds)
    run.wrong += [
        f"answered without a quorum, {event.at - began:.1f} s after: {event}"
        for event in events
        if event.kind in WRITES and not event.refusal and event.at > began + IN_FLIGHT
    ][:5]


async def back(run: Run, heal: Callable[..., Any], names: Sequence[str]) -> None:
    """Bring nodes back; everybody has to be served again by itself."""
    began = time.monotonic()
    await heal(names)
    healed = time.monotonic()
    waiting = {id(member): member for member in run.crew.members}
    while waiting and time.monotonic() < healed + RETURN:
        await asyncio.sleep(0.1)
        served = {event.who for event in run.journal.since(began) if not event.refusal}
        waiting = {who: member for who, member in waiting.items() if who not in served}
    firsts: dict[int, float] = {}
    for event in run.journal.since(began):
        if not event.refusal and event.kind in WRITES:
            firsts.setdefault(event.who, event.at)
    run.told(f"{' and '.join(names)} come back", began)
    if firsts:
        first, last = min(firsts.values()) - began, max(firsts.values()) - began
        print(
            f"nodes accepted connections after {healed - began:.1f} s, the first write was answered after "
            f"{first:.1f} s, everybody was served after {last:.1f} s"
        )
    run.wrong += [f"{member.name} is not served again" for member in waiting.values()]
    await run.part("settling", run.seconds / 2)
    run.journal.lag = LAG
    events = await run.part("afterwards", run.seconds / 2)
    run.wrong += [f"refused afterwards: {event}" for event in events if event.refusal][:5]


async def redis_faults(run: Run) -> None:
    """Redis is killed, restarted empty, slow and full; nobody is refused anything."""
    engines = run.backend.engines
    client = redis.Redis.from_url(run.backend.redis, socket_timeout=60)
    began = time.monotonic()
    await run.engines(engines.kill, "redis")
    await run.part("redis killed", run.seconds)
    await run.look()
    await run.engines(engines.start_node, "redis")
    await run.part("redis is back, empty", run.seconds)
    await run.look()
    await run.engines(engines.kill, "redis")
    await run.engines(engines.start_node, "redis")
    await run.part("redis restarted at once, empty", run.seconds)
    await run.look()
    await asyncio.gather(
        run.part(f"redis sleeps {run.seconds:.0f} s", run.seconds + 1),
        asyncio.to_thread(client.execute_command, "DEBUG", "SLEEP", run.seconds),
    )
    await run.look()
    client.config_set("maxmemory", 1)
    await run.part("redis full", run.seconds)
    await run.look()
    client.config_set("maxmemory", 0)
    await run.part("redis has room", run.seconds)
    run.wrong += [f"refused: {event}" for event in run.journal.since(began) if event.refusal][:5]


SCENARIOS = {"calm": calm, "cassandra": cassandra, "frozen": frozen, "ring": ring, "redis": redis_faults}


async def work(run: Run, scenarios: Sequence[str]) -> int:
    """All of them; the exit status."""
    await run.begin()
    for name in scenarios:
        await SCENARIOS[name](run)
        await run.look()
    await run.end()
    run.logged()
    wrong = run.wrong
    print("\n".join(["FAILED:", *wrong[:40]]) if wrong else "passed: nothing answered is lost or there twice")
    return 1 if wrong else 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "scenarios", nargs="*", default=["cassandra", "frozen", "ring", "redis"], metavar="SCENARIO"
    )
    parser.add_argument("--seconds", type=float, default=15.0, help="of each part")
    parser.add_argument("--pace", type=float, default=5.0, help="requests a second of one session, at most")
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--port", type=int, default=25842)
    parser.add_argument("--store", choices=STORES, default="cassandra")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.scenarios if name not in SCENARIOS]:
        parser.error(f"there is no scenario {unknown[0]}: {', '.join(SCENARIOS)}")
    nodes = 3 if {"cassandra", "frozen", "ring"} & {*arguments.scenarios} else 0
    backend = Backend(arguments.store, own_cassandra=nodes, own_redis="redis" in arguments.scenarios)
    servers = [
        Server(backend.folder / f"server{n}", arguments.port + 2 * n, profile="bare")
        for n in range(arguments.servers)
    ]
    try:
        backend.start()
        for server in servers:
            server.environ = backend.environ()
        return asyncio.run(
            work(Run(backend, servers, arguments.seconds, arguments.pace), arguments.scenarios)
        )
    finally:
        for server in servers:
            server.stop()
        backend.remove()


if __name__ == "__main__":
    sys.exit(main())
