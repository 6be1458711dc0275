"""Servers of a benchmark as processes on loopback that share one Cassandra and one Redis: nodes of a cluster,
or one alone; what they cost is processor time, of each and precisely.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from backend import Backend
from seed import accounts, rosters, write
from servers import HERE

from xmppd.admin.client import request
from xmppd.config import made_of
from xmppd.core.accounts import TABLES
from xmppd.core.roster.item import ROSTER
from xmppd.engines import store_of

SECRET = "known to all nodes of a benchmark"
START_SECONDS = 60.0
CACHE_SECONDS = 5
"""How long Redis may take for an answer, where others make everything slow."""
CPU_SCHED = 2
"""Of the clocks of a process: the one that counts its processor time (clock_getcpuclockid)."""
REPORT = ("EXPIRE", "PING", "INFO", "CLIENT", "HELLO", "AUTH", "SELECT")
"""Commands of Redis that are no part of what a login asks."""


class Server:
    """One process, a node of the cluster `names` or alone if these are empty; `prefix` begins its keys in
    Redis.
    """

    def __init__(
        self, backend: Backend, label: str, port: int, prefix: str, names: Sequence[str] = ()
    ) -> None:
        self.name = f"127.0.0.1:{port + 1}"
        self.port = port
        self.folder = backend.folder / label
        self.process: subprocess.Popen[bytes] | None = None
        self.folder.mkdir()
        settings: dict[str, Any] = {
            "server": {"domains": ["localhost"], "data_folder": str(self.folder)},
            "listen": {"backlog": 4096, "c2s": [{"address": "127.0.0.1", "port": port, "tls": "none"}]},
            "auth": {"plain_without_tls": True, "iterations": 4096, "login_seconds": 600},
            "limits": {
                "connections_before_login": 0,
                "sessions_per_account": 1000,
                "roster_items": 1_000_000,
                "roster_bytes": 1_000_000_000,
                "stanza_rate": 0,
            },
            "store": stored(backend),
            "cache": {"redis": backend.redis, "prefix": prefix, "timeout": CACHE_SECONDS},
            "plugins": {"folders": [str(HERE / "plugins")], "enabled": ["disco", "ping", "offline", "turns"]},
            "log": {"level": "info", "format": "json"},
        }
        if names:
            settings["cluster"] = {"listen": self.name, "advertise": self.name, "secret": SECRET}
        self.config = self.folder / "xmppd.yaml"
        self.config.write_text(json.dumps(settings, indent=1))  # JSON is YAML

    @property
    def pid(self) -> int:
        """The process."""
        assert self.process is not None
        return self.process.pid

    @property
    def environ(self) -> dict[str, str]:
        """What the process has for an environment."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("XMPPD")}
        return {**environ, "XMPPD_CONFIG": str(self.config)}

    def spawn(self, command: Sequence[str | Path] = (sys.executable, "-m", "xmppd", "serve")) -> None:
        """Begin the process."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=self.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait(self, seconds: float = START_SECONDS) -> None:
        """Until clients may come; SystemExit when they may not."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process is not None and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        raise SystemExit(f"{self.name} does not start: {(self.folder / 'log').read_text()[-2000:]}")

    def stop(self, *, kill: bool = False) -> None:
        """End it."""
        process, self.process = self.process, None
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def cpu(self) -> float:
        """Seconds of processor time that it has used, by all of its threads."""
        return time.clock_gettime((~self.pid << 3) | CPU_SCHED)

    def memory(self) -> int:
        """Bytes that are resident."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def nodes(self) -> list[dict[str, Any]]:
        """What `node list` shows here."""
        found: list[dict[str, Any]] = request(self.folder / "xmppd.sock", "node list", {}, seconds=30)
        return found

    def frames(self) -> int:
        """How many frames it has sent to other nodes."""
        return sum(int(row.get("frames", 0)) for row in self.nodes())

    def elsewhere(self) -> int:
        """How many sessions of other nodes it knows of."""
        return next((int(row["elsewhere"]) for row in self.nodes() if row.get("node") == self.name), 0)


def stored(backend: Backend) -> Mapping[str, Any]:
    """The section `store` of all servers."""
    cassandra = {
        "contact_points": backend.points,
        "keyspace": backend.keyspace,
        "local_dc": "datacenter1",
        "replication": {"datacenter1": 1},
        "request_timeout": 20,
    }
    return {"engine": "cassandra", "cassandra": cassandra}


async def filled(backend: Backend, count: int, rings: str) -> None:
    """Write accounts and rosters, as `seed` has them."""
    store = store_of(made_of({"server": {"data_folder": str(backend.folder)}, "store": stored(backend)}))
    await store.open([*TABLES, ROSTER])
    try:
        await write(accounts(store, "localhost", count))
        for ring in filter(None, rings.split(",")):
            await write(rosters(store, "localhost", ring))
    finally:
        await store.close()


@dataclass(frozen=True, slots=True)
class Used:
    """What was used between two moments, server by server: seconds of processor time, frames to other nodes,
    and seconds of the wall clock.
    """

    cpu: Sequence[float]
    frames: Sequence[int]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Moment:
    at: float
    cpu: Sequence[float]
    frames: Sequence[int]


class Farm:
    """All servers of one run: they are started when they are asked for, and stay."""

    def __init__(self, backend: Backend, port: int, nodes: int) -> None:
        self.backend = backend
        self.first_port = port
        self.redis = redis.Redis.from_url(backend.redis)
        names = [f"127.0.0.1:{port + 2 * index + 1}" for index in range(nodes)]
        self._prefix = backend.keyspace
        self._ports = iter(range(port, port + 1000, 2))
        self.cluster = [
            Server(backend, f"node{index}", next(self._ports), f"{self._prefix}-all", names)
            for index in range(nodes)
        ]
        self.alone = Server(backend, "alone", next(self._ports), f"{self._prefix}-one")
        self.strangers = [
            Server(backend, f"apart{index}", next(self._ports), f"{self._prefix}-apart{index}")
            for index in range(nodes)
        ]
        self._fifos = backend.folder / "asks", backend.folder / "answers"
        for fifo in self._fifos:
            os.mkfifo(fifo)
        self._hook = backend.folder / "hook"
        self._hook.write_text(f"#!/bin/sh\necho $1 >{self._fifos[0]}\nread answer <{self._fifos[1]}\n")
        self._hook.chmod(0o700)

    def nodes(self, count: int) -> list[Server]:
        """The first nodes of the cluster, and no others, all knowing each other."""
        for server in self.cluster[count:]:
            server.stop()
        chosen = self.cluster[:count]
        for server in chosen:
            if server.process is None:
                server.spawn()
        for server in chosen:
            server.wait()
        end = time.monotonic() + START_SECONDS
        while any(len(s.nodes()) != count for s in chosen):
            if time.monotonic() > end:
                raise SystemExit(f"{count} nodes do not find each other")
            time.sleep(0.1)
        return chosen

    def fill(self, accounts: int, rings: str) -> None:
        """Write accounts and rosters, as `seed` has them."""
        asyncio.run(filled(self.backend, accounts, rings))

    def stored(self) -> int:
        """Bytes in Redis of the nodes of the cluster, rosters included."""
        keys = self.redis.scan_iter(f"{self._prefix}-all*", count=1000)
        return sum(self.redis.memory_usage(key) or 0 for key in keys)

    def stop(self) -> None:
        """End all servers, so that others may have their names."""
        for server in (*self.cluster, self.alone, *self.strangers):
            server.stop()

    def one(self) -> Server:
        """The server that has no cluster."""
        if self.alone.process is None:
            self.alone.spawn()
            self.alone.wait()
        return self.alone

    def apart(self, count: int) -> list[Server]:
        """So many servers that have no cluster and know nothing of each other."""
        for server in self.strangers[count:]:
            server.stop()
        chosen = self.strangers[:count]
        for server in chosen:
            if server.process is None:
                server.spawn()
        for server in chosen:
            server.wait()
        return chosen

    def close(self) -> None:
        """Leave no process behind."""
        for server in (*self.cluster, self.alone, *self.strangers):
            server.stop(kill=True)

    # measuring

    def load(
        self, servers: Sequence[Server], arguments: str, at: Mapping[str, Callable[[], None]] | None = None
    ) -> tuple[dict[str, Any], Used]:
        """Run the generator against these servers: its report, and what was used between the calls of its
        hook. `at`: what else is to be done at `begin` or `end`.
        """
        ports = ",".join(str(server.port) for server in servers)
        command = [str(HERE / "loadgen"), *arguments.split(), "--ports", ports, "--hook", str(self._hook)]
        for server in servers:
            command += ["--server-pid", str(server.pid)]
        moments: list[_Moment] = []
        over = threading.Event()
        listener = threading.Thread(target=self._listen, args=(servers, moments, over, at or {}))
        listener.start()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
        finally:
            over.set()
            while listener.is_alive():
                self._say_end()
                listener.join(0.05)
        if done.returncode or not done.stdout.strip():
            raise SystemExit(f"the generator failed: {arguments[:200]}\n{done.stderr[-1500:]}")
        report: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        if len(moments) < 2:
            return report, Used([], [], 0.0)
        begin, end = moments[0], moments[-1]
        cpu = [after - before for before, after in zip(begin.cpu, end.cpu, strict=True)]
        frames = [after - before for before, after in zip(begin.frames, end.frames, strict=True)]
        return report, Used(cpu, frames, end.at - begin.at)

    def _listen(
        self,
        servers: Sequence[Server],
        moments: list[_Moment],
        over: threading.Event,
        at: Mapping[str, Callable[[], None]],
    ) -> None:
        asks, answers = self._fifos
        while True:
            when = asks.read_text().strip()
            if over.is_set():
                return
            if when in at:
                at[when]()
            elif when == "begin":
                frames = self._frames(servers)
                moments.append(_Moment(time.monotonic(), [s.cpu() for s in servers], frames))
            else:
                now, cpu = time.monotonic(), [s.cpu() for s in servers]
                moments.append(_Moment(now, cpu, self._frames(servers)))
            answers.write_text("go on\n")

    def _frames(self, servers: Sequence[Server]) -> list[int]:
        return [server.frames() if server in self.cluster and len(servers) > 1 else 0 for server in servers]

    def _say_end(self) -> None:
        with contextlib.suppress(OSError):
            writer = os.open(self._fifos[0], os.O_WRONLY | os.O_NONBLOCK)
            os.write(writer, b"over\n")
            os.close(writer)

    def commands(self) -> dict[str, int]:
        """How often each command of Redis was called by servers so far."""
        stats = self.redis.info("commandstats")
        found = {name.removeprefix("cmdstat_").upper(): values["calls"] for name, values in stats.items()}
        return {name: calls for name, calls in found.items() if name.partition("|")[0] not in REPORT}

    @contextlib.contextmanager
    def background(self, servers: Sequence[Server], arguments: str, places: str) -> Iterator[None]:
        """Other sessions that stay online inside."""
        ports = ",".join(str(server.port) for server in servers)
        command = [str(HERE / "loadgen"), *arguments.split(), "--ports", ports, "--places", places]
        generator = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            generator.terminate()
            generator.wait()
