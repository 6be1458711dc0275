"""instructions BASE [SCENARIO...]: instructions of the server a unit, beside another checkout.

The server of each checkout runs below callgrind on a seed of its own, and the generator asks the same of
both. What is counted lies between two moments at which nothing is under way, after as much again to warm up:
all threads, in user space. Other work on the machine changes only what comes together in a turn.
The profiles are kept: `callgrind_annotate FOLDER/base/chat.callgrind`.
"""

import argparse
import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from servers import WORK, say

HERE = Path(__file__).resolve().parent
OURS = HERE.parent.parent
SEED = ("localhost", "4000", "0:100:50,200:250:200")
"""Domain, accounts and rosters: smaller rings than those of `run`, with as many contacts."""
REST_SECONDS, REST_TICKS = 0.6, 3
"""A server is at rest when it takes no more ticks of the processor than so in so many seconds."""
PATIENCE = 1200.0
TOTALS = re.compile(r"^totals: (\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Counted:
    """A call of the load generator with a number of units; `warm_up` is one more before it, uncounted.
    `profile`: the only one of `start` that has what is asked for ("": each has).
    """

    unit: str
    units: int
    arguments: str
    warm_up: str = ""
    profile: str = ""


SCRAM = "--mech scram-sha-1"
BACK = "storm --first 0 --n 100 --settle 1 --carbons 1"
"""All of a ring come back at once, each with 50 contacts in it, carbons and stream management."""
COUNTED = {
    "chat": Counted("message", 3000, f"chat --first 1000 --n 100 --window 4 --count 3000 {SCRAM}"),
    "tls-chat": Counted(
        "message", 3000, f"chat --first 1200 --n 100 --window 4 --count 3000 --tls starttls {SCRAM}"
    ),
    "presence50": Counted(
        "copy", 50_000, f"presence --first 0 --n 100 --R 50 --slots 16 --settle 1 --count 1000 {SCRAM}"
    ),
    "rich-presence50": Counted(
        "copy",
        50_000,
        f"presence --rich bench --first 0 --n 100 --R 50 --slots 16 --settle 1 --count 1000 {SCRAM}",
        profile="games",
    ),
    "presence200": Counted(
        "copy", 48_000, f"presence --first 200 --n 250 --R 200 --slots 8 --settle 1 --count 240 {SCRAM}"
    ),
    "roster200": Counted("get", 2000, f"roster --first 200 --n 40 --count 2000 {SCRAM}"),
    "login-scram": Counted(
        "login",
        200,
        f"login --first 1500 --n 200 --conc 64 --settle 1 {SCRAM}",
        f"login --first 1400 --n 100 --conc 64 --settle 1 {SCRAM}",
    ),
    "login-again": Counted("login", 200, f"storm --first 1600 --n 200 --settle 1 {SCRAM}"),
    "login-fast": Counted("login", 200, "storm --first 1600 --n 200 --settle 1 --mech fast"),
    "resume-scram": Counted("login", 200, f"storm --first 1800 --n 200 --settle 1 --resume 1 {SCRAM}"),
    "resume-fast": Counted("login", 200, "storm --first 1600 --n 200 --settle 1 --resume 1 --mech fast"),
    "storm": Counted("login", 100, "storm --first 0 --n 100 --settle 1"),
    "storm-full": Counted("login", 100, f"{BACK} --acks 1 {SCRAM}"),
    "storm-resume": Counted("login", 100, f"{BACK} --resume 1 {SCRAM}"),
    "storm-fast": Counted("login", 100, f"{BACK} --acks 1 --mech fast"),
    "storm-fast-resume": Counted("login", 100, f"{BACK} --resume 1 --mech fast"),
    "offline": Counted(
        "store", 4000, f"offline --first 2000 --n 40 --to-first 3000 --targets 1000 --count 400 {SCRAM}"
    ),
    "mam": Counted(
        "page of 50", 1000, f"mam --first 2100 --n 40 --prefill 100 --count 1000 {SCRAM}", profile="full"
    ),
}
"""The scenarios of `run`, with the same stanzas."""


def wait_until_idle(pid: int) -> None:
    """Return when a process has nothing left to do."""

    def ticks() -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    end, now = time.monotonic() + PATIENCE, ticks()
    while time.monotonic() < end:
        time.sleep(REST_SECONDS)
        before, now = now, ticks()
        if now - before <= REST_TICKS:
            return
    raise SystemExit("the server does not come to rest")


def mark(pid: int, when: str) -> None:
    """The hook of the generator: count from zero, or write down what was counted."""
    wait_until_idle(pid)
    command = {"begin": "zero", "end": "dump"}[when]
    subprocess.run(["vgdb", f"--pid={pid}", command], check=True, stderr=subprocess.DEVNULL)


class Tree:
    """A checkout, and its server below callgrind."""

    def __init__(self, root: Path, folder: Path, port: int, profile: str, command: str = "") -> None:
        self.name = folder.name
        self._command = command
        self._profile = profile
        self._root = root
        self._folder = folder
        self._port = port

    def count(self, keys: Sequence[str]) -> Iterator[float]:
        """Instructions a unit of each scenario, on a fresh server."""
        shutil.rmtree(self._folder, ignore_errors=True)
        data = self._folder / "data"
        data.mkdir(parents=True)
        scripts = self._root / "scripts/bench"
        self._run([scripts / "seed", data, str(self._port), *SEED])
        # Once in life: it writes the configuration and makes a certificate.
        self._run([scripts / "start", data, str(self._port), self._profile])
        self._run([HERE / "peers/stop.sh", data])
        with self._serving(data) as pid:
            if self._command:
                xmppd = [self._root / ".venv/bin/xmppd", "--config", data / "xmppd.yaml"]
                self._run([*xmppd, *shlex.split(self._command)])
            for number, key in enumerate(keys, 1):
                self._load(pid, COUNTED[key])
                dump = self._folder / f"{key}.callgrind"
                (self._folder / f"dump.{number}").rename(dump)
                found = TOTALS.search(dump.read_text())
                assert found is not None, f"{dump} has no totals"
                yield int(found[1]) / COUNTED[key].units

    @contextlib.contextmanager
    def _serving(self, data: Path) -> Iterator[int]:
        """The server, at rest: its pid."""
        # The generator comes first, or what comes together in a turn would hang on the rest of the machine.
        command = [
            "nice",
            "-n",
            "10",
            "valgrind",
            "--tool=callgrind",
            f"--callgrind-out-file={self._folder / 'dump'}",
        ]
        command += [str(self._root / ".venv/bin/python"), str(HERE / "ticking.py")]
        # PYTHONMALLOC: as in life, where the server begins anew to have it; callgrind would be gone then.
        fixed = {"PYTHONHASHSEED": "1", "PYTHONMALLOC": "malloc", "XMPPD_CONFIG": str(data / "xmppd.yaml")}
        with (self._folder / "server.log").open("wb") as log:
            server = subprocess.Popen(command, cwd=data, env={**os.environ, **fixed}, stdout=log, stderr=log)
        try:
            self._wait_for(server)
            yield server.pid
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=PATIENCE)
        finally:
            server.kill()

    def _wait_for(self, server: "subprocess.Popen[bytes]") -> None:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and server.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self._port)).close()
                wait_until_idle(server.pid)
                return
            time.sleep(0.2)
        raise SystemExit(f"the server does not start: {self._folder / 'server.log'}")

    def _load(self, pid: int, counted: Counted) -> None:
        always = ["--port", str(self._port), "--label", self.name, "--max-login", str(int(PATIENCE))]
        if counted.warm_up:
            self._run([HERE / "loadgen", *counted.warm_up.split(), *always])
        hook = ["--hook", f"{sys.executable} {__file__} --mark {pid}"]
        self._run([HERE / "loadgen", *counted.arguments.split(), *always, *hook, "--server-pid", str(pid)])

    def _run(self, command: Sequence[str | Path]) -> None:
        with (self._folder / "load.log").open("ab") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log, timeout=PATIENCE)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="instructions"
    )
    parser.add_argument("base", type=Path, metavar="BASE", help="the other checkout, set up")
    parser.add_argument("keys", nargs="*", metavar="SCENARIO", help=", ".join(COUNTED))
    parser.add_argument("--profile", default="bare", help="of `start`")
    parser.add_argument("--base-profile", help="where the other checkout has another one")
    parser.add_argument("--command", default="", help="for our server once it runs: webhook add ...")
    parser.add_argument("--rounds", type=int, default=1, help="how often, each on fresh servers")
    parser.add_argument("--folder", type=Path, default=WORK / "instructions", help="for data and profiles")
    parser.add_argument("--port", type=int, default=17_600, help="the first of two")
    options = parser.parse_args()
    if unknown := set(options.keys) - set(COUNTED):
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    known = [key for key, it in COUNTED.items() if it.profile in ("", options.profile.partition("+")[0])]
    if wrong := set(options.keys) - set(known):
        parser.error(f"not with this profile: {', '.join(sorted(wrong))}")
    options.keys = options.keys or known
    return options


def spread(values: Sequence[float]) -> str:
    """The median, and behind it the least and the most of several rounds."""
    median = f"{statistics.median(values):,.0f}"
    return median if len(values) == 1 else f"{median} ({min(values):,.0f}-{max(values):,.0f})"


def main() -> None:
    """Count, and print the table."""
    if sys.argv[1:2] == ["--mark"]:
        mark(int(sys.argv[2]), sys.argv[3])
        return
    options = parsed()
    places = (("base", options.base.resolve()), ("ours", OURS))
    profiles = {"base": options.base_profile or options.profile, "ours": options.profile}
    commands = {"ours": options.command}
    trees = [
        Tree(root, options.folder / name, options.port, profiles[name], commands.get(name, ""))
        for name, root in places
    ]
    found: dict[tuple[str, str], list[float]] = {}
    for _ in range(options.rounds):
        for tree in trees:
            for key, value in zip(options.keys, tree.count(options.keys), strict=True):
                found.setdefault((tree.name, key), []).append(value)
                say(f"{tree.name} {key} {value:,.0f}")
    print("| what | base | ours | ratio |\n|---|---|---|---|")
    for key in options.keys:
        base, ours = found["base", key], found["ours", key]
        ratio = statistics.median(ours) / statistics.median(base)
        print(f"| {key} (a {COUNTED[key].unit}) | {spread(base)} | {spread(ours)} | **{ratio:.3f}** |")


if __name__ == "__main__":
    main()
