"""Servers on loopback: seeded once, started from a fresh copy of their seed, measured, and stopped."""

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
WORK = Path(tempfile.gettempdir(), "xmppd-bench")
HASHED = {"AUTH": "internal_hashed", "AUTHFMT": "scram"}
"""What makes the peers keep hashed passwords; ours knows nothing else."""


@dataclass(frozen=True, slots=True)
class Server:
    """How to seed and start one. `start DATADIR PORT PROFILE` prints `PID n` once it accepts connections."""

    name: str
    start: str
    seed: str
    port: int


@dataclass(frozen=True, slots=True)
class Running:
    """A server at work."""

    name: str
    profile: str
    pid: int
    port: int
    data: Path


def known_servers(first_port: int = 17_400) -> dict[str, Server]:
    """Ours and its peers."""
    peers = HERE / "peers"
    commands = {
        "xmppd": (HERE / "start", HERE / "seed"),
        "ejabberd": (peers / "ejabberd/start.sh", peers / "ejabberd/seed.sh"),
        "prosody": (peers / "prosody/start.sh", peers / "prosody/seed.py"),
    }
    return {
        name: Server(name, str(start), str(seed), first_port + 10 * index)
        for index, (name, (start, seed)) in enumerate(commands.items())
    }


def say(text: str) -> None:
    """Tell how far it is, beside the table."""
    print(f"# {text}", file=sys.stderr, flush=True)


def _sources(server: Server) -> str:
    """A checksum of what a seed is made by: a seed of other tables is of no use."""
    files = [Path(shlex.split(server.seed)[0])]
    if server.name == "xmppd":
        package = HERE.parent.parent / "xmppd"
        files += [HERE / "seed.py", *sorted(package.glob("core/*.py")), *sorted(package.glob("store/*.py"))]
    return f"{zlib.crc32(b''.join(file.read_bytes() for file in files)):08x}"


class Bench:
    """Seeds, starts and measures servers below one folder; no two measurements at once on a machine."""

    def __init__(self, work: Path, nice: int = 0) -> None:
        self._work = work
        self._nice = ["nice", "-n", str(nice)] if nice else []
        self._lock = Path(tempfile.gettempdir(), "xmppd-bench.lock")
        self._group = nice
        raise_priority(os.getpid(), nice)

    def build(self) -> None:
        """Build the generator, so that no measurement waits for it."""
        subprocess.run([HERE / "loadgen", "--build-only"], check=True, timeout=600)

    def seed(self, server: Server, accounts: int, rings: str, *, hashed: bool) -> Path:
        """The folder with what the server has at the start of each measurement."""
        form = "hashed" if hashed and server.name != "xmppd" else "plain"
        name = f"{server.name}-{form}-{accounts}-{rings.replace(':', '_').replace(',', '+')}"
        folder, sources = self._work / name / "seed", _sources(server)
        mark = folder / ".seeded"
        if mark.exists() and mark.read_text() == sources:
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        began = time.monotonic()
        command = [
            *shlex.split(server.seed),
            str(folder),
            str(server.port),
            "localhost",
            str(accounts),
            rings,
        ]
        environ = {**os.environ, **(HASHED if hashed else {})}
        subprocess.run(command, check=True, timeout=600, env=environ, stdout=subprocess.DEVNULL)
        mark.write_text(sources)
        say(f"seeded {server.name} in {time.monotonic() - began:.0f} s")
        return folder

    @contextlib.contextmanager
    def fresh(self, server: Server, seed: Path, profile: str, *, hashed: bool = False) -> Iterator[Running]:
        """The server on a fresh copy of its seed; stopped in the end."""
        live = seed.parent / "live"
        # By commands: a copy by Python would take seconds for the thousands of files of a peer.
        subprocess.run(["rm", "-rf", live], check=True)
        subprocess.run(["cp", "-a", seed, live], check=True)
        environ = {**os.environ, **(HASHED if hashed else {})}
        command = [*self._nice, "setsid", server.start, str(live), str(server.port), profile]
        try:
            done = subprocess.run(
                command, check=False, stdout=subprocess.PIPE, text=True, timeout=900, env=environ
            )
            pids = [int(line[4:]) for line in done.stdout.splitlines() if line.startswith("PID ")]
            if not pids:
                raise SystemExit(f"{server.name} did not start")
            raise_priority(pids[0], self._group)
            time.sleep(1.5)
            yield Running(server.name, profile, pids[0], server.port, live)
        finally:
            subprocess.run([HERE / "peers/stop.sh", live], timeout=60, check=False)

    def measure(self, running: Running, arguments: str) -> dict[str, Any] | None:
        """What the generator reports, or None after it has said why there is nothing."""
        label = f"{running.name}:{running.profile}"
        options = ["--label", label, "--port", str(running.port), "--server-pid", str(running.pid)]
        command = [*self._nice, str(HERE / "loadgen"), *arguments.split(), *options]
        with self._lock.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, timeout=240)
            except subprocess.TimeoutExpired:
                say(f"{label} took too long: {arguments}")
                return None
        lines = done.stdout.strip().splitlines()
        if not lines:
            say(f"{label} has no result: {arguments}")
            return None
        found: dict[str, Any] = json.loads(lines[-1])
        return {**found, "server": running.name, "profile": running.profile, "when": time.time()}


def raise_priority(pid: int, nice: int) -> None:
    """Where the kernel groups processes by session, nice alone does not reach across sessions."""
    if nice:
        with contextlib.suppress(OSError):
            Path(f"/proc/{pid}/autogroup").write_text(str(nice))


def descendants(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def own_kib(pid: int) -> int:
    """Memory that a process and all below it share with nobody, in KiB: without libraries and programs. How
    much of these is counted in PSS hangs on what else runs.
    """
    total = 0
    for member in descendants(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
                if line.startswith("Anonymous:"):
                    total += int(line.split()[1])
    return total
