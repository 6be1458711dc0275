"""A reconnect storm, and six attacks beside 100 well-behaved pairs: what others notice, and what it takes.

usage: attack [--short] [--only storm,slow-reader,...] [--seconds N] [--sessions N]
              [--floor MS] [--json FILE]

The server runs on the first core it may have, everything else on the others. A process of its own holds the
pairs, so that the attacker's work is not in their latency, which `pairs.py` says how to read; it also tries a
login each second. Prints Markdown; the exit code is 1 when a bound was broken: the pairs' p99 may double, or
be at most --floor ms.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pairs import Seen, Watch, quantile
from swarm import Client, Swarm
from villains import (
    ATTACKS,
    BOMB,
    CONNECTION_KIB,
    CONTACTS,
    FREE_MIB,
    HARD,
    SESSION_KIB,
    SOFT,
    Attack,
)

ROOT = Path(__file__).resolve().parents[2]
PAIRS = 100
STORM = 1000
"""The first user of the storm."""
STORM_CONTACTS = 20
FLOOR_MS = 1.0
"""A p99 that is fine in any case: three slices of the server's loop. On an idle machine it is 0.4."""
CANARY_MS = 2000.0
STORM_SECONDS = 120.0


class Server:
    """The server under attack, on one core, in a folder of its own."""

    def __init__(self, folder: Path, users: int, rings: str, core: int, *, crowd: bool) -> None:
        self.folder = folder
        self.port = self.tls_port = 0
        seed = [sys.executable, str(ROOT / "scripts/bench/seed.py"), str(folder), "0", "localhost"]
        subprocess.run([*seed, str(users), rings], check=True)
        (folder / "xmppd.yaml").write_text(json.dumps(settings(folder, crowd=crowd)))
        environment = {**os.environ, "XMPPD_CONFIG": str(folder / "xmppd.yaml")}
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                ["taskset", "-c", str(core), sys.executable, "-m", "xmppd", "serve"],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=log,
            )

    def wait(self) -> None:
        """Until it listens."""
        while not self.port:
            if self.process.poll() is not None:
                raise SystemExit((self.folder / "log").read_text())
            for line in (self.folder / "log").read_text().splitlines():
                record = json.loads(line)
                if record["event"] == "listening":
                    ports = record["addresses"].split(",")
                    self.port, self.tls_port = (int(port.rpartition(":")[2]) for port in ports)
            time.sleep(0.02)

    def memory(self) -> float:
        """PSS in MiB."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return int(re.findall(r"^Pss:\s+(\d+)", text, re.MULTILINE)[0]) / 1024

    def cpu(self) -> float:
        """Seconds burnt."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def errors(self) -> list[str]:
        """What it logged that it should not have."""
        text = (self.folder / "log").read_text()
        return [line for line in text.splitlines() if '"level": "error"' in line or "Traceback" in line]

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def settings(folder: Path, *, crowd: bool) -> dict[str, Any]:
    """Defaults, but for what a `crowd` needs: many sessions of one account, many that do not log in."""
    return {
        "server": {"data_folder": str(folder)},
        "listen": {"c2s": [{"port": 0, "tls": "none"}, {"port": 0, "tls": "direct"}]},
        "auth": {"iterations": 4096},
        "limits": {
            "write_buffer_soft": SOFT,
            "write_buffer_hard": HARD,
            **({"sessions_per_account": 250, "connections_before_login": 4000} if crowd else {}),
        },
        "log": {"level": "info", "format": "json"},
    }


@dataclass
class Times:
    """Seconds of each part, and messages a second of each pair."""

    quiet: float
    attack: float
    settle: float
    after: float
    rate: float


LONG = Times(8, 60, 4, 6, 1)
SHORT = Times(0.5, 2, 0.5, 0.5, 10)


@dataclass
class Result:
    """A row of the table: milliseconds, MiB, counts."""

    name: str
    quiet_p99: float = 0
    attack_p99: float = 0
    after_p99: float = 0
    attack_worst: float = 0
    quiet_felt: float = 0
    attack_felt: float = 0
    login_p99: float = 0
    logins_failed: int = 0
    pairs_lost: int = 0
    missing: int = 0
    memory_before: float = 0
    memory_peak: float = 0
    memory_after: float = 0
    memory_bound: float = 0
    server_cores: float = 0
    did: int = 0
    ended: int = 0
    seconds: float = 0
    wrong: list[str] = field(default_factory=list)

    def note(self, quiet: Seen, loud: Seen, calm: Seen) -> None:
        """Take over the latencies of before, during and after."""
        self.quiet_p99, self.attack_p99 = quantile(quiet.latencies, 0.99), quantile(loud.latencies, 0.99)
        self.after_p99, self.attack_worst = quantile(calm.latencies, 0.99), quantile(loud.latencies, 1)
        self.quiet_felt, self.attack_felt = quantile(quiet.felt, 0.99), quantile(loud.felt, 0.99)

    def judge(self, *rules: tuple[bool, str]) -> None:
        """Note each rule that does not hold."""
        self.wrong += [text for holds, text in rules if not holds]


def sampled(swarm: Swarm, server: Server, seconds: float, is_done: Callable[[], bool]) -> float:
    """Work for so long, or until it is done; the most memory the server had."""
    peak, end = server.memory(), time.monotonic() + seconds
    while time.monotonic() < end and not is_done():
        swarm.run(min(0.5, max(0.0, end - time.monotonic())), is_done)
        peak = max(peak, server.memory())
    return peak


def attack(
    kind: type[Attack], swarm: Swarm, server: Server, watch: Watch, times: Times, floor: float
) -> Result:
    """Quiet, attack, and quiet again."""
    result = Result(kind.name)
    villain = kind(swarm, server.port, server.tls_port)
    result.memory_before = server.memory()
    villain.prepare()
    watch.take()
    swarm.run(times.quiet)
    quiet = watch.take()
    burnt, started = server.cpu(), time.monotonic()
    villain.start()
    result.memory_peak = sampled(swarm, server, times.attack, lambda: False)
    loud = watch.take()
    result.server_cores = (server.cpu() - burnt) / (time.monotonic() - started)
    result.did, result.ended = villain.did, villain.ended
    villain.stop()
    swarm.run(times.settle)
    late = watch.take()
    swarm.run(times.after)
    calm = watch.take()
    result.memory_after = server.memory()
    result.note(quiet, loud, calm)
    result.login_p99 = quantile(loud.logins, 0.99)
    parts = (quiet, loud, late, calm)
    result.logins_failed = sum(part.failed for part in parts)
    result.pairs_lost = sum(part.lost for part in parts)
    result.missing = sum(part.missing for part in parts)
    result.memory_bound = result.memory_before + villain.bound()
    allowed = max(2 * result.quiet_p99, floor)
    result.judge(
        (bool(loud.latencies), "the pairs heard nothing"),
        (result.attack_p99 <= allowed, f"p99 {result.attack_p99:.2f} ms, allowed {allowed:.2f} ms"),
        (result.after_p99 <= allowed, f"p99 stays at {result.after_p99:.2f} ms"),
        (result.memory_peak <= result.memory_bound, "memory above the bound"),
        (result.memory_after <= 1.25 * result.memory_before + 32, "memory does not come back"),
        (not result.missing, f"{result.missing} messages are missing"),
        (not result.pairs_lost, f"{result.pairs_lost} of the pairs were cut off"),
        (not result.logins_failed, f"{result.logins_failed} logins failed"),
        (villain.did > 0, "there was no attack"),
    )
    return result


def storm(count: int, swarm: Swarm, server: Server, watch: Watch, times: Times) -> Result:
    """All drop at once and come back at once."""
    result = Result(f"storm of {count:,}")
    result.memory_before = server.memory()
    failures: list[str] = []

    def client(number: int) -> Client:
        made = Client(swarm, server.port, f"user{STORM + number}", source=1 + number % 8)
        made.lost = lambda: failures.append(made.user)
        return made

    clients: list[Client] = []
    while len(clients) < count:
        clients += [client(number) for number in range(len(clients), min(count, len(clients) + 100))]
        latest = clients[-100:]
        swarm.run(60, lambda latest=latest: all(made.is_ready or made.is_over for made in latest))
    watch.take()
    swarm.run(times.quiet)
    quiet = watch.take()
    online, burnt = server.memory(), server.cpu()
    started = time.monotonic()
    for made in clients:
        made.cut()
    clients = [client(number) for number in range(count)]
    waiting = list(clients)

    def is_done() -> bool:
        while waiting and (waiting[-1].is_ready or waiting[-1].is_over):
            waiting.pop()
        return not waiting

    result.memory_peak = sampled(swarm, server, STORM_SECONDS, is_done)
    result.seconds = time.monotonic() - started
    result.server_cores = (server.cpu() - burnt) / result.seconds
    swarm.run(0.5)
    loud = watch.take()
    swarm.run(times.settle)
    calm = watch.take()
    result.memory_after = server.memory()
    for made in clients:
        made.cut()
    result.did, result.ended = sum(made.is_ready for made in clients), len(failures)
    result.note(quiet, loud, calm)
    result.login_p99 = quantile([made.took * 1e3 for made in clients], 0.99)
    result.memory_bound = online + FREE_MIB + count * (SESSION_KIB + CONNECTION_KIB) / 1024
    result.memory_before = online
    result.missing, result.pairs_lost = loud.missing, loud.lost
    result.judge(
        (result.did == count, f"{count - result.did} are not online after {result.seconds:.0f} s"),
        (not failures, f"{len(failures)} were refused or cut off"),
        (result.attack_p99 <= CANARY_MS, f"the canary waited {result.attack_p99:.0f} ms"),
        (result.memory_peak <= result.memory_bound, "memory above the bound"),
        (not loud.missing and not loud.lost, "the canary lost messages"),
    )
    return result


def table(results: list[Result]) -> str:
    """Markdown."""
    head = (
        "| attack | p99 before / during / after ms | worst ms | noticed, p99 before / during ms "
        "| login p99 ms | PSS before / peak / after MiB | bound MiB | server cores | verdict |"
    )
    lines = [head, "|---" * 9 + "|"]
    lines += [
        f"| {r.name} | {r.quiet_p99:.2f} / {r.attack_p99:.2f} / {r.after_p99:.2f} | {r.attack_worst:.1f} | "
        f"{r.quiet_felt:.1f} / {r.attack_felt:.1f} | {r.login_p99:.0f} | "
        f"{r.memory_before:.0f} / {r.memory_peak:.0f} / {r.memory_after:.0f} | "
        f"{r.memory_bound:.0f} | {r.server_cores:.2f} | "
        f"{'; '.join(r.wrong) or 'holds'} ({r.did:,} done, {r.ended:,} ended"
        f"{f', {r.seconds:.1f} s' if r.seconds else ''}) |"
        for r in results
    ]
    return "\n".join(lines)


def run(names: list[str], times: Times, count: int, floor: float) -> list[Result]:
    """A server for the storm, and one for all attacks."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[1:] or cores)
    results = []
    for storming in (True, False):
        kinds = [ATTACKS[name] for name in names if name != "storm"]
        if not ("storm" in names if storming else kinds):
            continue
        with tempfile.TemporaryDirectory() as name:
            ring = f"{STORM}:{count}:{STORM_CONTACTS}" if storming else f"{BOMB}:{CONTACTS + 1}:{CONTACTS}"
            server = Server(
                Path(name), STORM + count if storming else STORM, ring, cores[0], crowd=not storming
            )
            try:
                server.wait()
                watch = Watch(server.port, 1 if storming else PAIRS, 10 if storming else times.rate)
                if not storming or not results:
                    os.nice(5 if not results else 0)  # the pairs come first
                swarm = Swarm()
                if storming:
                    results.append(storm(count, swarm, server, watch, times))
                else:
                    for kind in kinds:
                        results.append(attack(kind, swarm, server, watch, times, floor))
                        print(f"# {results[-1]}", file=sys.stderr, flush=True)
                watch.stop()
                results[-1].judge(*((False, line) for line in server.errors()[:3]))
            finally:
                server.stop()
    return results


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--only", default=",".join(["storm", *ATTACKS]))
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--sessions", type=int)
    parser.add_argument("--floor", type=float, default=FLOOR_MS)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    times = SHORT if options.short else LONG
    if options.seconds:
        times.attack = options.seconds
    results = run(
        options.only.split(","), times, options.sessions or (300 if options.short else 10_000), options.floor
    )
    print(table(results))
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in results]))
    sys.exit(any(result.wrong for result in results))


if __name__ == "__main__":
    main()
