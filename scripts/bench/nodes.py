"""Nodes of one cluster as processes that are killed, frozen and cut off; for `nemesis.py`."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from relay import Relay

from xmppd.admin.client import request
from xmppd.errors import CommandError

SECRET = "known to all nodes of a test"
START_SECONDS = 60.0
"""How long a node may take to listen, a name that was used just now included."""
NAME = re.compile(rb"127\.0\.0\.1:\d+")
PORTS = 4
"""Of each node: for clients, for trunks, and the relays before its trunks and before its Redis."""


class Node:
    """One of them. `port` is for clients; what others connect to, and what it asks of Redis, goes through a
    relay each.
    """

    def __init__(self, index: int, first: int, folder: Path, names: Sequence[str], redis: str) -> None:
        self.index = index
        self.name = names[index]
        self.port = first
        self.folder = folder
        self.is_open = False
        self._process: subprocess.Popen[bytes] | None = None
        self._names = names
        self.trunks = Relay(first + 2, first + 1, self._whose)
        address = urlsplit(redis)
        self.redis = Relay(first + 3, address.port or 6379)
        self._redis_url = address._replace(netloc=f"127.0.0.1:{first + 3}").geturl()

    def _whose(self, first: bytes) -> str:
        names = [name.decode() for name in NAME.findall(first)]
        return next((name for name in names if name != self.name and name in self._names), "")

    def configure(self, store: Mapping[str, Any], prefix: str) -> None:
        """Write its configuration: the store, and what all keys in Redis begin with, are the same for all."""
        self.folder.mkdir(parents=True)
        host, _, trunk = self.name.rpartition(":")
        settings = {
            "server": {"domains": ["localhost"], "data_folder": str(self.folder)},
            "listen": {"backlog": 1024, "c2s": [{"address": host, "port": self.port, "tls": "none"}]},
            "auth": {"plain_without_tls": True, "iterations": 4096, "login_seconds": 60},
            "store": store,
            "cache": {"redis": self._redis_url, "prefix": prefix},
            "cluster": {
                "listen": f"{host}:{int(trunk) - 1}",
                "advertise": self.name,
                "secret": SECRET,
                "seeds": [*self._names],
            },
            "plugins": {
                "enabled": ["ping", "offline"],
                "config": {"offline": {"max_messages": 1_000_000, "max_bytes": 100_000_000}},
            },
            "log": {"level": "info", "format": "json"},
        }
        (self.folder / "xmppd.yaml").write_text(json.dumps(settings, indent=1))  # JSON is YAML

    async def start(self) -> float:
        """Start it, and wait until clients may come; how many seconds that took. AssertionError if not."""
        began = time.monotonic()
        await self.trunks.start()
        await self.redis.start()
        self._spawn()
        while not self._listens():
            assert self._process is not None
            assert self._process.poll() is None, f"{self.name} does not start: {self.log()[-1:]}"
            assert time.monotonic() < began + START_SECONDS, f"{self.name} does not listen"
            await asyncio.sleep(0.05)
        self.is_open = True
        return time.monotonic() - began

    def _spawn(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "xmppd", "--config", str(self.folder / "xmppd.yaml"), "serve"],
                env={name: value for name, value in os.environ.items() if not name.startswith("XMPPD")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

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

    async def sessions(self) -> int:
        """How many sessions it believes to have; -1 when it does not say."""
        try:
            socket_path = self.folder / "xmppd.sock"
            answer = await asyncio.to_thread(request, socket_path, "status", {}, seconds=5)
        except (CommandError, OSError):
            return -1
        return int(answer["sessions"])

    def log(self) -> list[dict[str, Any]]:
        """All that it wrote, of every life."""
        lines = (self.folder / "log").read_text(errors="replace").splitlines()
        return [
            json.loads(line) if line.startswith("{") else {"level": "error", "event": line} for line in lines
        ]
