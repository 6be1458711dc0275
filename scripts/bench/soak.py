"""soak [--minutes N] [--share S] [--port P]: a server under mixed load, and what it holds minute by minute.

The load is steered so that the server's process uses the share S of a core (0.6: 60 % of what one event
loop can do). For each 1000 chat messages there are 4 presence changes seen by 20 contacts each, 2 roster
changes, 2 sessions that log in, get their roster, talk and log out, 1 message kept for an account that is
away (and takes them when there are 4), and 1/8 of an account made, used and removed in-band.

First, while the store is locked, all residents write at once what the load has on its way at most, behind
something that the server has to wait for. A connection that waits holds what it has read, and memory that
live objects have come to share with that is not given back: without this, memory would rise with the most
that ever waited together.

The verdict: after a warm-up nothing may grow (of memory: the anonymous part, for what files take depends on
who else has them open), nothing may be lost, and nothing may be logged at level warning or above. Exit
status 1 when one of these failed.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import uvloop
from stream import Counts, Refused, Stream, connect

from xmppd.admin.client import request

HERE = Path(__file__).parent
RESIDENTS = 100
CHURNERS = range(RESIDENTS, 300)
ABSENT = range(300, 400)
ACCOUNTS = 400
RING = f"0:{ACCOUNTS}:20"
COURIERS = 8
"""Who write to those who are away."""
GUESTS = 50
PASSWORD = "secret"
WORKERS = 24
PIECE = 25
"""Messages in one write."""
WINDOW = 150
"""Messages of one pair on their way."""
FLOODS = 3
FLOOD_SECONDS = 2.0
TICK = 0.02
SAMPLE_SECONDS = 5.0
HEAP = "malloc KiB"
ROSTER = "jabber:iq:roster"
BODY = "x" * 120


@dataclass
class Sample:
    """What the server holds at one moment; `load` is what changes with the traffic, `held` must not grow."""

    second: float
    pss: float
    anonymous: float
    cpu: float
    log_lines: int
    load: dict[str, float]
    held: dict[str, float]


class Server:
    """One that `scripts/bench/start` started on seeded data."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        subprocess.run(
            [HERE / "seed", folder, str(port), "localhost", str(ACCOUNTS), RING],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        said = subprocess.run(
            [HERE / "start", folder, str(port), "full"], check=True, stdout=subprocess.PIPE, text=True
        )
        self.pid = int(said.stdout.split()[1])

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> dict[str, float]:
        """MiB: all of the proportional set (its pages of files are shared with whoever runs the same
        interpreter), and its anonymous part, which is the server's alone.
        """
        lines = Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()
        parts = dict(line.split(":", 1) for line in lines[1:])
        return {name: int(parts[name].split()[0]) / 1024 for name in ("Pss", "Pss_Anon")}

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = request(self.folder / "xmppd.sock", "status", {}, seconds=30)
        return status

    def log_lines(self) -> list[str]:
        return (self.folder / "xmppd.log").read_text().splitlines()

    def sample(self, second: float) -> Sample:
        status = self.status()
        held = {name: status[name] for name in ("tasks", "jobs", "descriptors", "connections", "sessions")}
        held |= status["caches"]
        held[HEAP] = status["heap"]["used"] / 1024
        load = {name: status["store"].get(name, 0) for name in ("writes", "groups", "pending")}
        load |= {name: status[name] for name in ("stanza_errors", "jobs_failed")}
        load["malloc_free"] = status["heap"]["free"]
        memory = self.memory()
        return Sample(
            second, memory["Pss"], memory["Pss_Anon"], self.cpu_seconds(), len(self.log_lines()), load, held
        )

    def stop(self) -> bool:
        """Whether it ended by itself."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
            for _ in range(300):
                os.kill(self.pid, 0)
                time.sleep(0.1)
            os.kill(self.pid, signal.SIGKILL)
            return False
        return True


@dataclass
class Tally:
    """What was done, and what went wrong."""

    messages: int = 0
    presences: int = 0
    roster_changes: int = 0
    logins: int = 0
    kept: int = 0
    taken: int = 0
    accounts: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)


class Pair:
    """Two residents who talk to each other."""

    def __init__(self, left: Stream, right: Stream, left_jid: str, right_jid: str) -> None:
        self.streams = (left, right)
        self.sent = [0, 0]
        self.pieces = [
            f"<message to='{to}' type='chat'><body>~{BODY}</body></message>".encode() * PIECE
            for to in (right_jid, left_jid)
        ]

    def received(self, side: int) -> int:
        counts = self.streams[1 - side].counts
        assert counts is not None
        return counts.messages

    def send(self, side: int) -> bool:
        """One piece, unless too many are on their way."""
        if self.sent[side] - self.received(side) > WINDOW:
            return False
        self.streams[side].write(self.pieces[side])
        self.sent[side] += PIECE
        return True


class Load:
    """Everything that clients do."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.tally = Tally()
        self.scale = 30.0
        """Thousands of messages a second."""
        self.held_back = 0
        self.residents: list[Stream] = []
        self.pairs: list[Pair] = []
        self.couriers: list[tuple[asyncio.Lock, Stream]] = []
        self._waiting: asyncio.Queue[Callable[[], Awaitable[None]]] = asyncio.Queue(WORKERS * 4)
        self._kept = dict.fromkeys(ABSENT, 0)
        self._busy: set[int] = set()
        self._rates = {
            "chat": 1000 / PIECE, "presence": 4, "roster": 2, "login": 2, "offline": 1, "guest": 1 / 8
        }  # fmt: skip
        self._owed = dict.fromkeys(self._rates, 0.0)
        self._turns = dict.fromkeys(self._rates, -1)

    async def arrive(self) -> None:
        """The residents log in."""
        for number in range(RESIDENTS):
            stream = await connect(self.port)
            await stream.log_in(f"user{number}", PASSWORD)
            await stream.ask("get", f"<query xmlns='{ROSTER}'/>")
            stream.counts = Counts()
            stream.write("<presence/>")
            self.residents.append(stream)
        for number in (*CHURNERS, *ABSENT):  # so that the caches have what they will have
            await self._visit(number)
        for number in range(COURIERS):
            stream = await connect(self.port)
            await stream.log_in(f"user{number}", PASSWORD)
            self.couriers.append((asyncio.Lock(), stream))
        half = RESIDENTS // 2
        for number in range(half):
            left, right = self.residents[number], self.residents[number + half]
            names = [f"user{n}@localhost" for n in (number, number + half)]
            self.pairs.append(Pair(left, right, *names))

    async def run(self, told: asyncio.Event) -> None:
        """Everything at its rate until told to stop."""
        workers = [asyncio.create_task(self._work()) for _ in range(WORKERS)]
        before = time.monotonic()
        while not told.is_set():
            await asyncio.sleep(TICK)
            now = time.monotonic()
            self._spend(min(now - before, 0.2))
            before = now
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    def _spend(self, seconds: float) -> None:
        for name, rate in self._rates.items():
            owed = min(self._owed[name] + rate * self.scale * seconds, 400.0)
            whole = int(owed)
            self._owed[name] = owed - whole
            for _ in range(whole):
                self._turns[name] += 1
                getattr(self, f"_{name}")(self._turns[name])

    def _chat(self, turn: int) -> None:
        pair = self.pairs[turn % len(self.pairs)]
        if pair.send(turn // len(self.pairs) % 2):
            self.tally.messages += PIECE
        else:
            self.held_back += PIECE

    async def flood(self, database: Path) -> None:
        """Each resident has a roster change to wait for and a full window behind it, and the store is locked:
        never later do connections that wait hold more of what they have read.
        """
        for _ in range(FLOODS):
            with contextlib.closing(sqlite3.connect(database, timeout=5, isolation_level=None)) as locking:
                locking.execute("BEGIN IMMEDIATE")
                for number in range(RESIDENTS):
                    self._flood_from(number)
                await asyncio.sleep(FLOOD_SECONDS)
            await asyncio.sleep(FLOOD_SECONDS)

    def _flood_from(self, number: int) -> None:
        stream, pair = self.residents[number], self.pairs[number % len(self.pairs)]
        side = pair.streams.index(stream)
        item = "<item jid='friend@localhost'/>"
        change = f"<iq type='set' id='r'><query xmlns='{ROSTER}'>{item}</query></iq>"
        stream.write(change.encode() + pair.pieces[side] * (WINDOW // PIECE + 1))
        pair.sent[side] += WINDOW + PIECE
        self.tally.messages += WINDOW + PIECE
        self.tally.roster_changes += 1

    def _presence(self, turn: int) -> None:
        stream = self.residents[turn % RESIDENTS]
        show = ("away", "dnd", "xa", "chat")[turn // RESIDENTS % 4]
        stream.write(f"<presence><show>{show}</show><status>^{turn}</status></presence>")
        self.tally.presences += 1

    def _roster(self, turn: int) -> None:
        stream = self.residents[turn % RESIDENTS]
        round = turn // RESIDENTS
        jid = f"friend{round // 2 % 7}@localhost"
        item = f"<item jid='{jid}' {'subscription' if round % 2 else 'name'}='remove'/>"
        stream.write(f"<iq type='set' id='r'><query xmlns='{ROSTER}'>{item}</query></iq>")
        self.tally.roster_changes += 1

    def _login(self, turn: int) -> None:
        self._later(lambda: self._visit(CHURNERS[turn % len(CHURNERS)]))

    def _offline(self, turn: int) -> None:
        number = ABSENT[turn % len(ABSENT)]
        if number in self._busy:
            return
        if self._kept[number] >= 4:
            self._later(lambda: self._take(number))
        else:
            self._later(lambda: self._keep(number))

    def _guest(self, turn: int) -> None:
        self._later(lambda: self._pass_through(turn % GUESTS))

    def _later(self, work: Callable[[], Awaitable[None]]) -> None:
        with contextlib.suppress(asyncio.QueueFull):  # the server is slower than its share
            self._waiting.put_nowait(work)

    async def _work(self) -> None:
        while True:
            work = await self._waiting.get()
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is in the verdict
                self.tally.wrong.append(f"{type(error).__name__}: {error}")

    @contextlib.asynccontextmanager
    async def _session(self, user: str, password: str = PASSWORD) -> AsyncIterator[Stream]:
        stream = await connect(self.port)
        try:
            await stream.log_in(user, password)
            yield stream
            if not stream.is_over:
                await stream.leave()
            self.tally.logins += 1
        finally:
            stream.cut()

    @contextlib.contextmanager
    def _only(self, number: int) -> Iterator[bool]:
        """Whether nobody else uses the account."""
        if number in self._busy:
            yield False
            return
        self._busy.add(number)
        try:
            yield True
        finally:
            self._busy.discard(number)

    async def _visit(self, number: int) -> None:
        with self._only(number) as mine:
            if not mine:
                return
            async with self._session(f"user{number}") as stream:
                await stream.ask("get", f"<query xmlns='{ROSTER}'/>")
                stream.write("<presence/>")
                to = f"user{RESIDENTS // 2 + number % 10}@localhost"
                stream.write(f"<message to='{to}'><body>hello</body></message>")
                await stream.ping()

    async def _keep(self, number: int) -> None:
        with self._only(number) as mine:
            if not mine:
                return
            lock, stream = self.couriers[number % len(self.couriers)]
            async with lock:
                body = f"<body>|{BODY}</body>"
                stream.write(f"<message to='user{number}@localhost' type='chat'>{body}</message>")
                await stream.ping()
            self._kept[number] += 1
            self.tally.kept += 1

    async def _take(self, number: int) -> None:
        with self._only(number) as mine:
            if not mine:
                return
            async with self._session(f"user{number}") as stream:
                stream.write("<presence/>")
                seen = await stream.ping()
                seen += await stream.ping()
                found = seen.count(b"<body>|")
                if found != self._kept[number]:
                    self.tally.wrong.append(f"user{number}: {self._kept[number]} kept, {found} came")
                self.tally.taken += found
                self._kept[number] = 0

    async def _pass_through(self, number: int) -> None:
        """An account is made by XEP-0077, used once, and removed by its owner."""
        name, query = f"guest{number}", "<query xmlns='jabber:iq:register'>"
        with self._only(ACCOUNTS + number) as mine:
            if not mine:
                return
            stream = await connect(self.port)
            try:
                await stream.open()
                fields = f"<username>{name}</username><password>{PASSWORD}</password>"
                await stream.ask("set", f"{query}{fields}</query>")
                await stream.leave()
                async with self._session(name) as guest:
                    item = "<item jid='user1@localhost'/>"
                    await guest.ask("set", f"<query xmlns='{ROSTER}'>{item}</query>")
                    guest.write(f"<iq type='set' id='remove'>{query}<remove/></query></iq>")
                    await guest.until(b"</stream:stream")
                    guest.is_over = True
                self.tally.accounts += 1
            except Refused as refused:
                # A name that is still being removed is taken; everything else is wrong.
                if str(refused) != "conflict":
                    raise
                self.tally.refused += 1
            finally:
                stream.cut()

    async def settle(self) -> None:
        """All messages that are on their way arrive; when none came for ten seconds, the others are lost."""
        lost, idle = self._lost(), 0
        while lost and idle < 100:
            await asyncio.sleep(0.1)
            before, lost = lost, self._lost()
            idle = idle + 1 if lost == before else 0
        if lost:
            self.tally.wrong.append(f"{lost} messages between residents are lost or doubled")
        errors = sum(stream.counts.errors for stream in self.residents if stream.counts is not None)
        if errors:
            self.tally.wrong.append(f"{errors} stanzas of residents were refused")
        gone = sum(stream.is_over for stream in self.residents)
        if gone:
            self.tally.wrong.append(f"{gone} residents lost their connection")

    def _lost(self) -> int:
        return sum(abs(pair.sent[side] - pair.received(side)) for pair in self.pairs for side in (0, 1))


async def steer(server: Server, load: Load, share: float, told: asyncio.Event) -> None:
    """Keep the server at its share of a core."""
    before, at = server.cpu_seconds(), time.monotonic()
    while not told.is_set():
        await asyncio.sleep(1)
        cpu, now = server.cpu_seconds(), time.monotonic()
        used = (cpu - before) / (now - at)
        factor = min(max(share / max(used, 0.01), 0.8), 1.25)
        if load.held_back > 100 * load.scale:
            factor = min(
                factor, 0.95
            )  # it is not the CPU that it waits for: more of everything will not help
        load.held_back = 0
        load.scale = min(max(load.scale * factor, 0.5), 150.0)
        before, at = cpu, now


COLUMNS = ("min", "cpu", "PSS MiB", "own", "malloc", "free", "msg/s", "logins/s", "roster/s",
           "writes/group", "tasks", "fds", "sessions", "rosters", "roster KiB", "names", "last pr.",
           "logged")  # fmt: skip


def row(before: Sample, now: Sample, done: Tally, was: Tally) -> str:
    seconds = now.second - before.second
    groups = max(now.load["groups"] - before.load["groups"], 1)
    cells: list[object] = [
        f"{now.second / 60:.1f}",
        f"{(now.cpu - before.cpu) / seconds:.2f}",
        f"{now.pss:.1f}",
        f"{now.anonymous:.1f}",
        f"{now.held[HEAP] / 1024:.1f}",
        f"{now.load['malloc_free'] / 2**20:.1f}",
        f"{(done.messages - was.messages) / seconds:,.0f}",
        f"{(done.logins - was.logins) / seconds:.0f}",
        f"{(done.roster_changes - was.roster_changes) / seconds:.0f}",
        f"{(now.load['writes'] - before.load['writes']) / groups:.1f}",
        *(int(now.held[name]) for name in ("tasks", "descriptors", "sessions", "rosters")),
        f"{now.held['roster_bytes'] / 1024:.0f}",
        int(now.held["account_names"]),
        int(now.held["last_presences"]),
        now.log_lines,
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def verdict(samples: list[Sample], tally: Tally, log: list[str], allowed: float) -> list[str]:
    """What is wrong: the last third is held against the second one, the first is the warm-up."""
    wrong = list(dict.fromkeys(tally.wrong))[:20]
    third = max(len(samples) // 3, 1)
    middle, last = samples[third : 2 * third], samples[2 * third :]
    if not middle or not last:
        return [*wrong, "too few samples"]
    early, late = fmean(s.anonymous for s in middle), fmean(s.anonymous for s in last)
    hours = (fmean(s.second for s in last) - fmean(s.second for s in middle)) / 3600
    print(
        f"own memory {early:.2f} -> {late:.2f} MiB: {late / early - 1:+.2%}, "
        f"{(late - early) / hours:+.2f} MiB/h"
    )
    if late > early * (1 + allowed):
        wrong.append(f"memory grew by {late / early - 1:.1%} after the warm-up")
    for name in middle[0].held:
        first, then = fmean(s.held[name] for s in middle), fmean(s.held[name] for s in last)
        print(f"{name}: {first:.1f} -> {then:.1f}")
        # What malloc holds is memory, too: within some seconds it moves with what is under way just then.
        more = max(allowed, 0.05) if name == HEAP else 0.05
        if then > first * (1 + more) + 16:
            wrong.append(f"{name} grew from {first:.0f} to {then:.0f}")
    for name in ("stanza_errors", "jobs_failed"):
        if samples[-1].load[name]:
            wrong.append(f"{name}: {samples[-1].load[name]}")
    wrong += [f"logged: {line}" for line in log[:5]]
    return wrong


async def measure(server: Server, load: Load, seconds: float, told: asyncio.Event) -> list[Sample]:
    """Samples until the time is over, a line of the table each minute (each fifth of a shorter run)."""
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    started = time.monotonic()
    pause, lines = min(SAMPLE_SECONDS, seconds / 15), min(60.0, seconds / 5)
    samples = [await asyncio.to_thread(server.sample, 0.0)]
    shown, was = samples[0], Tally()
    while (second := time.monotonic() - started) < seconds:
        await asyncio.sleep(min(pause, seconds - second))
        samples.append(await asyncio.to_thread(server.sample, time.monotonic() - started))
        if samples[-1].second - shown.second >= lines - pause / 2:
            print(row(shown, samples[-1], load.tally, was), flush=True)
            shown, was = samples[-1], Tally(**{**vars(load.tally), "wrong": []})
    told.set()
    return samples


async def soak(server: Server, seconds: float, share: float) -> int:
    """Load, measure, judge; the exit status."""
    load, told = Load(server.port), asyncio.Event()
    await load.arrive()
    running = [asyncio.create_task(load.run(told)), asyncio.create_task(steer(server, load, share, told))]
    await asyncio.sleep(FLOOD_SECONDS)
    await load.flood(server.folder / "xmppd.sqlite")
    samples = await measure(server, load, seconds, told)
    await asyncio.gather(*running)
    await load.settle()
    log = server.log_lines()
    if not server.stop():
        load.tally.wrong.append("the server did not stop")
    wrong = verdict(samples, load.tally, log, 0.03 if seconds >= 300 else 0.15)
    print(json.dumps({name: value for name, value in vars(load.tally).items() if name != "wrong"}))
    print("\n".join(["FAILED:", *wrong]) if wrong else "passed: nothing grew, was lost or was logged")
    return 1 if wrong else 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--share", type=float, default=0.6, help="of a core, for the server")
    parser.add_argument("--port", type=int, default=25722)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="xmppd-soak-"))
    server = Server(folder, arguments.port)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(soak(server, arguments.minutes * 60, arguments.share))
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
