"""Nodes of a cluster as processes that are killed, frozen, cut off, told a wrong time; for `nemesis.py`."""

import asyncio
import contextlib
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relay import Relay

from xmppd.admin.client import request
from xmppd.errors import CommandError

SECRET = "known to all nodes of a test"
START_SECONDS = 60.0
"""How long a node may take to listen, a name that was used just now included."""
NAME = re.compile(rb"\d+\.\d+\.\d+\.\d+:\d+")
PORTS = 5
"""Of each node: for clients, for trunks, and the relays before its trunks, its Redis and its Cassandra."""
ASK_SECONDS = 5.0
RESTARTED = 75
"""The exit code of a node that asks to be started again."""
TIED = ("setpriv", "--pdeathsig", "KILL", "--")
"""A node ends with the thread that started it, in whatever way that ends."""
SKEW = Path(__file__).parent / "skew"
"""Its `sitecustomize` gives a node a wrong clock."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a node runs. `host` is its address; it reaches the engines by relays at `near`, but for a Redis
    without a `redis_target`, which it reaches as its url says. Where `is_relayed`, others reach its trunks by
    a relay, too. `enter` goes before its command; `carrier` is how nodes reach each other.
    """

    redis: str
    redis_target: tuple[str, int] | None
    cassandra: tuple[str, int]
    host: str = "127.0.0.1"
    near: str = "127.0.0.1"
    is_relayed: bool = True
    enter: Sequence[str] = field(default_factory=list)
    carrier: str = "direct"

    def name(self, first: int) -> str:
        """By which other nodes reach the node whose first port that is."""
        return f"{self.host}:{first + 2 if self.is_relayed else first + 1}"


class Node:
    """One of them. `port` is for clients; what others connect to, and what it asks of the engines, goes
    through a relay each.
    """

    def __init__(self, index: int, first: int, folder: Path, names: Sequence[str], site: Site) -> None:
        self.index = index
        self.name = names[index]
        self.host = site.host
        self.port = first
        self.folder = folder
        self.is_open = False
        self._site = site
        self._process: subprocess.Popen[bytes] | None = None
        self._names = names
        self.trunks = Relay(first + 2, (site.host, first + 1), self._whose)
        self.redis = Relay(first + 3, site.redis_target or ("127.0.0.1", 0), host=site.near)
        self.cassandra = Relay(first + 4, site.cassandra, host=site.near)

    def _whose(self, first: bytes) -> str:
        names = [name.decode() for name in NAME.findall(first)]
        return next((name for name in names if name != self.name and name in self._names), "")

    def configure(
        self, store: Mapping[str, Any], prefix: str, plugins: Sequence[str] = ("ping", "offline")
    ) -> None:
        """Write its configuration: the store, and what all keys in Redis begin with, are the same for all."""
        self.folder.mkdir(parents=True)
        near = self._site.near
        cassandra = {**store["cassandra"], "contact_points": [f"{near}:{self.cassandra.port}"]}
        redis = f"redis://{near}:{self.redis.port}/0" if self._site.redis_target else self._site.redis
        settings = {
            "server": {"domains": ["localhost"], "data_folder": str(self.folder)},
            "listen": {"backlog": 1024, "c2s": [{"address": self.host, "port": self.port, "tls": "none"}]},
            "auth": {"plain_without_tls": True, "iterations": 4096, "login_seconds": 60},
            "store": {**store, "cassandra": cassandra},
            "cache": {"redis": redis, "prefix": prefix},
            "cluster": {
                "listen": f"{self.host}:{self.port + 1}",
                "advertise": self.name,
                "carrier": self._site.carrier,
                "secret": SECRET,
                "seeds": [*self._names],
            },
            "plugins": {
                "enabled": [*plugins],
                "config": {"offline": {"max_messages": 1_000_000, "max_bytes": 100_000_000}},
            },
            "log": {"level": "info", "format": "json"},
        }
        self._config.write_text(json.dumps(settings, indent=1))  # JSON is YAML
        self.set_clock(0.0)

    @property
    def _config(self) -> Path:
        return self.folder / "xmppd.yaml"

    @property
    def is_up(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def wants_another_life(self) -> bool:
        """Whether it ended, and asked to be started again."""
        return self._process is not None and self._process.poll() == RESTARTED

    async def start(self) -> float:
        """Start it, and wait until clients may come; how many seconds that took. AssertionError if not."""
        began = time.monotonic()
        if self._site.is_relayed:
            await self.trunks.start()
        if self._site.redis_target:
            await self.redis.start()
        await self.cassandra.start()
        self._spawn()
        while not await self._listens():
            assert self.is_up, f"{self.name} does not start: {self.log()[-1:]}"
            assert time.monotonic() < began + START_SECONDS, f"{self.name} does not listen"
            await asyncio.sleep(0.05)
        self.is_open = True
        return time.monotonic() - began

    def command(self, *words: str) -> list[str]:
        """A command line of the server with its configuration."""
        return [sys.executable, "-m", "xmppd", "--config", str(self._config), *words]

    @property
    def environ(self) -> dict[str, str]:
        """For processes of its own."""
        return {name: value for name, value in os.environ.items() if not name.startswith("XMPPD")}

    def _spawn(self) -> None:
        skewed = {"NEMESIS_CLOCK": str(self.folder / "clock"), "PYTHONPATH": str(SKEW)}
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*TIED, *self._site.enter, *self.command("serve")],
                env={**self.environ, **skewed},
                start_new_session=True,  # ^C is for who started it
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def _listens(self) -> bool:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1):
                _, writer = await asyncio.open_connection(self.host, self.port)
            writer.transport.abort()
            return True
        return False

    def set_clock(self, seconds: float) -> None:
        """Have its clock be wrong by so many seconds, from now on."""
        with (self.folder / "clock").open("r+b" if (self.folder / "clock").exists() else "wb") as file:
            file.write(struct.pack("d", seconds))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def ended(self, seconds: float) -> bool:
        """Wait for the end of the process; whether it came."""
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, seconds)
            self.trunks.close()
            return True
        return False

    def kill(self) -> None:
        """SIGKILL, whatever it is doing."""
        self.is_open = False
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self.trunks.close()

    def close(self) -> None:
        """Leave nothing behind."""
        self.kill()
        self.redis.close()
        self.cassandra.close()

    async def ask(self, command: str, **arguments: Any) -> Any:
        """Have it run a command. CommandError, OSError."""
        path = self.folder / "xmppd.sock"
        return await asyncio.to_thread(request, path, command, arguments, seconds=ASK_SECONDS)

    async def sessions(self) -> list[Mapping[str, Any]]:
        """All sessions of all nodes, as this node tells: rows with `node` and `session`, or a `problem`."""
        try:
            page = await self.ask("session list", most=10_000)
            rows: list[Mapping[str, Any]] = page["rows"]
        except (CommandError, OSError) as error:
            return [{"node": self.name, "problem": str(error)}]
        return rows

    def log(self) -> list[dict[str, Any]]:
        """All that it wrote, of every life."""
        with contextlib.suppress(FileNotFoundError):
            lines = (self.folder / "log").read_text(errors="replace").splitlines()
            return [
                json.loads(line) if line.startswith("{") else {"level": "error", "event": line}
                for line in lines
            ]
        return []
