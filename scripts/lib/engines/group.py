"""The engines of one folder: started, looked at, killed and stopped by what its state file says."""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engines.errors import EngineError
from engines.install import last_lines, locked
from engines.node import CassandraNode, Node, RedisServer, address_of
from engines.ports import answers, find_free, is_free
from engines.process import POLL, Process, spawn, stop_all
from engines.ring import wait_until_agreed

HEAP = 320
"""MiB for each node of Cassandra."""
SYNCED: Mapping[str, Any] = {"commitlog_sync": "batch", "commitlog_sync_period": None}
"""Settings by which a node acknowledges only what is on its disk; else kill -9 costs its last 100 ms."""
PATIENCE = 90.0
"""Seconds for one engine to accept connections."""
GRACE = 30.0
"""Seconds from TERM to KILL."""


class Engines:
    """Cassandra on `nodes` nodes (0, 1 or 3) and, by `redis`, one Redis, in a folder of their own.

    What a folder holds is decided by the first start; later ones, of any process, find it again with the same
    ports and data. Names are `cassandra1` to `cassandra3` and `redis`. Every method may raise EngineError.
    """

    def __init__(
        self,
        folder: Path,
        nodes: int = 1,
        *,
        redis: bool = True,
        heap: int | None = None,
        settings: Mapping[str, Any] | None = None,
        jmx: bool = False,
        tied: bool = False,
    ) -> None:
        """A tied engine ends with this thread. `settings` go into cassandra.yaml; None removes a key. With
        `jmx` nodes of Cassandra answer to `nodetool`.
        """
        self.folder = folder.absolute()
        self._wanted: dict[str, Any] = {
            "nodes": nodes,
            "redis": redis,
            "heap": heap,
            "settings": dict(settings or {}),
            "jmx": jmx,
        }
        self._tied = tied

    @property
    def contact_points(self) -> list[tuple[str, int]]:
        """Host and port for CQL of each node."""
        return [(node.address, node.port) for node in self.nodes() if isinstance(node, CassandraNode)]

    @property
    def redis_url(self) -> str:
        """Where Redis is."""
        for node in self.nodes():
            if isinstance(node, RedisServer):
                return f"redis://{node.address}:{node.port}/0"
        raise EngineError(f"there is no Redis in {self.folder}")

    def nodes(self) -> list[Node]:
        """All engines of the folder, up or not; none before the first start."""
        state = self._read()
        found: list[Node] = [RedisServer(self.folder / "redis", state["redis"])] if state.get("redis") else []
        found += [
            CassandraNode(
                folder=self.folder / f"cassandra{index + 1}",
                index=index,
                count=state["nodes"],
                port=state["port"],
                storage_port=state["storage_port"],
                heap=state["heap"],
                settings=state["settings"],
                jmx_port=state["jmx"] + index if state.get("jmx") else None,
            )
            for index in range(state.get("nodes", 0))
        ]
        return found

    def process(self, name: str) -> Process | None:
        """The process of an engine, when it is up."""
        known = self._read().get("processes", {}).get(name)
        process = Process(*known) if known else None
        return process if process and process.is_up() else None

    def start(self) -> None:
        """Start those that are down; returns when all accept connections and the nodes know each other.

        When one does not, those that were started now are killed, and EngineError says why.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / "lock"):
            self._decide()
            self._start(self.nodes())

    def nodetool(self, name: str, *words: str) -> str:
        """What a node of Cassandra says to a command of `nodetool`."""
        node = self._node(name)
        if not isinstance(node, CassandraNode) or node.jmx_port is None:
            raise EngineError(f"{name} has no port for nodetool")
        done = subprocess.run(
            node.nodetool(*words), capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        if done.returncode:
            raise EngineError(f"nodetool {' '.join(words)}:\n{last_lines(done.stdout + done.stderr)}")
        return done.stdout

    def start_node(self, name: str) -> None:
        """Start one that is down, with the data and ports it had."""
        with locked(self.folder / "lock"):
            self._start([self._node(name)])

    def kill(self, name: str) -> None:
        """End one with SIGKILL; returns when it is gone."""
        self._node(name)
        if process := self.process(name):
            process.send(signal.SIGKILL)
            stop_all([process], 0.0)

    def stop(self) -> None:
        """End all, and wait until they are gone; nothing happens to those that are."""
        if not self.folder.is_dir():
            return
        with locked(self.folder / "lock"):
            stop_all(filter(None, (self.process(node.name) for node in self.nodes())), GRACE)

    def remove(self) -> None:
        """Kill all, and remove their folder with all data."""
        for node in self.nodes():
            self.kill(node.name)
        if self._file.exists():
            shutil.rmtree(self.folder)

    @property
    def _file(self) -> Path:
        return self.folder / "engines.json"

    def _read(self) -> dict[str, Any]:
        try:
            state: dict[str, Any] = json.loads(self._file.read_text())
        except FileNotFoundError:
            return {}
        return state

    def _write(self, state: dict[str, Any]) -> None:
        new = self.folder / "engines.json.new"
        new.write_text(json.dumps(state, indent=1))
        new.replace(self._file)

    def _decide(self) -> None:
        """What the folder holds: as it was, or as wanted when it is new."""
        state, wanted = self._read(), self._wanted
        if state:
            if state["nodes"] != wanted["nodes"]:
                raise EngineError(
                    f"{self.folder} holds {state['nodes']} node(s) of Cassandra, not {wanted['nodes']}: "
                    "use another folder, or remove it with: scripts/engines stop --remove"
                )
            self._write({**state, "heap": wanted["heap"] or state["heap"]})
            return
        addresses = [address_of(index) for index in range(wanted["nodes"])]
        port, storage_port, _ssl = find_free(addresses, 3)
        (redis_port,) = find_free([RedisServer.address], 1)
        jmx = (
            find_free([RedisServer.address], wanted["nodes"])[0]
            if wanted["jmx"] and wanted["nodes"]
            else None
        )
        self._write(
            {
                "nodes": wanted["nodes"],
                "port": port,
                "storage_port": storage_port,
                "heap": wanted["heap"] or HEAP,
                "settings": wanted["settings"],
                "redis": redis_port if wanted["redis"] else None,
                "jmx": jmx,
                "processes": {},
            }
        )

    def _node(self, name: str) -> Node:
        for node in self.nodes():
            if node.name == name:
                return node
        raise EngineError(f"there is no engine {name} in {self.folder}")

    def _log(self, node: Node) -> Path:
        return node.folder / "output.log"

    def _start(self, nodes: Sequence[Node]) -> None:
        started: list[Process] = []
        try:
            for node in nodes:
                if not self.process(node.name):
                    started.append(self._spawn(node))
                    self._wait_until_ready(node, started[-1])
            if started:
                wait_until_agreed(self._points_up(), PATIENCE)
        except BaseException:
            stop_all(started, 0.0)
            raise

    def _points_up(self) -> list[tuple[str, int]]:
        cassandras = [node for node in self.nodes() if isinstance(node, CassandraNode)]
        return [(node.address, node.port) for node in cassandras if self.process(node.name)]

    def _spawn(self, node: Node) -> Process:
        for port in node.ports:
            if not is_free(node.address, port):
                raise EngineError(
                    f"{node.name} cannot start: another process has port {port} of {node.address}"
                )
        command = node.prepare()
        process = spawn(command, self._log(node), tied=self._tied)
        state = self._read()
        state["processes"][node.name] = [process.pid, process.born]
        self._write(state)
        return process

    def _wait_until_ready(self, node: Node, process: Process) -> None:
        deadline = time.monotonic() + PATIENCE
        while not answers(node.address, node.port):
            if not process.is_up():
                problem = "ended"
            elif time.monotonic() > deadline:
                problem = f"accepted no connection for {PATIENCE:.0f} s"
            else:
                time.sleep(POLL)
                continue
            said = self._log(node).read_text(errors="replace")
            raise EngineError(f"{node.name} {problem}; the end of {self._log(node)}:\n{last_lines(said)}")
