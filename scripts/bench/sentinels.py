"""A Redis with a replica, and three Sentinels that let the replica take over; for `nemesis.py`."""

import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

sys.path.insert(0, str(Path(__file__).parents[1] / "lib"))

from engines.install import redis_server
from engines.ports import find_free
from engines.process import Process, spawn, stop_all

HOST = "127.0.0.1"
SERVICE = "main"
SILENT_MS = 1000
"""After so long without an answer a Sentinel takes a server for gone."""
PATIENCE = 30.0


class Watched:
    """Processes that end with the thread that called `start`. All methods block; TimeoutError when what was
    asked for does not come true.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._servers: dict[int, Process] = {}
        self._sentinels: dict[int, Process] = {}

    @property
    def url(self) -> str:
        """For `cache.redis`."""
        hosts = ",".join(f"{HOST}:{port}" for port in self._sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}"

    def start(self) -> None:
        """A primary, a replica and three Sentinels that know both."""
        first, second, *watching = find_free([HOST], 5)
        self._serve(first)
        self._until(lambda: bool(self._ask(first, "PING")))
        self._serve(second, follows=first)
        self._until(lambda: self._follows(second))
        for port in watching:
            folder = self._made(port)
            (folder / "sentinel.conf").write_text(
                f"bind {HOST}\nport {port}\ndir {folder}\nprotected-mode no\n"
                f"sentinel monitor {SERVICE} {HOST} {first} 2\n"
                f"sentinel down-after-milliseconds {SERVICE} {SILENT_MS}\n"
                f"sentinel failover-timeout {SERVICE} 5000\n"
            )
            command = [redis_server(), folder / "sentinel.conf", "--sentinel"]
            self._sentinels[port] = spawn(command, folder / "log", tied=True)
        self._until(lambda: all(map(self._knows_all, watching)))

    def fail_over(self) -> float:
        """Kill the primary; after how many seconds the Sentinels name another. What was killed is started
        again then, and follows.
        """
        old, began = self._primary(), time.monotonic()
        self._servers[old].send(signal.SIGKILL)
        stop_all([self._servers[old]], 0.0)
        self._until(lambda: self._primary() not in (0, old))
        seconds = time.monotonic() - began
        self._serve(old, follows=self._primary())
        self._until(lambda: self._follows(old))
        return seconds

    def stop(self) -> None:
        """End all."""
        for process in (*self._sentinels.values(), *self._servers.values()):
            process.send(signal.SIGKILL)
        stop_all([*self._sentinels.values(), *self._servers.values()], 0.0)

    def _made(self, port: int) -> Path:
        folder = self._folder / str(port)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _serve(self, port: int, *, follows: int = 0) -> None:
        folder = self._made(port)
        command = [redis_server(), "--bind", HOST, "--port", str(port), "--dir", folder, "--save", ""]
        command += ["--repl-diskless-sync-delay", "0", "--protected-mode", "no"]
        command += ["--replicaof", f"{HOST} {follows}"] if follows else []
        self._servers[port] = spawn(command, folder / "log", tied=True)

    def _primary(self) -> int:
        for port in self._sentinels:
            if found := self._ask(port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE):
                return int(found[1])
        return 0

    def _knows_all(self, port: int) -> bool:
        is_followed = self._ask(port, "SENTINEL", "REPLICAS", SERVICE)
        others = self._ask(port, "SENTINEL", "SENTINELS", SERVICE)
        return bool(is_followed) and len(others or ()) == 2

    def _follows(self, port: int) -> bool:
        return (self._ask(port, "INFO", "replication") or {}).get("master_link_status") == "up"

    @staticmethod
    def _ask(port: int, *command: str) -> Any:
        with Redis(host=HOST, port=port, socket_timeout=2.0) as client, suppress(RedisError):
            return client.execute_command(*command)

    @staticmethod
    def _until(is_so: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not is_so():
            if time.monotonic() > end:
                raise TimeoutError("Redis and its Sentinels do not do what they should")
            time.sleep(0.05)
