"""The table of a million sessions, and what the loss of a node takes: the parts `table` and `storm` of
`scripts/bench/cluster`.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

from canary import Canary
from farm import Farm, Server
from figures import Figure
from servers import HERE

CROWDS, SESSIONS = 10, 100_000
"""Simulated nodes, and what each of them has."""
PATIENCE = 120.0
STORM, CONTACTS, WATCHING = 10_000, 20, 10
"""Sessions that lose their node, contacts of each, and of how many one is on another node before."""
FIRST = 2_000
"""The first of their accounts."""
MOST_STORM_SECONDS, MOST_CANARY = 60.0, 2.0

# the table


def waited(until: Callable[[], bool], what: str) -> float:
    """Seconds until it is so; SystemExit when it never is."""
    began = time.monotonic()
    while not until():
        if time.monotonic() - began > PATIENCE:
            raise SystemExit(f"it is never so: {what}")
        time.sleep(0.02)
    return time.monotonic() - began


def table(farm: Farm, rounds: int, *, is_short: bool) -> Iterator[Figure]:
    """Ten nodes with 100,000 sessions each meet one node; then one of them is killed."""
    sessions = SESSIONS // 100 if is_short else SESSIONS
    farm.nodes(0)
    node = farm.cluster[-1]  # those that dial have smaller names
    node.spawn()
    node.wait()
    crowds: list[subprocess.Popen[str]] = []
    try:
        time.sleep(1)
        before, cpu, stored = node.memory(), node.cpu(), farm.stored()
        crowds += [_crowd(farm, node, index, sessions) for index in range(CROWDS)]
        joined = [_joined(crowd) for crowd in crowds]
        whole = CROWDS * sessions
        waited(lambda: node.elsewhere() == whole, "all sessions are known")
        spent = node.cpu() - cpu
        per_session = (node.memory() - before) / whole
        in_redis = (farm.stored() - stored) / whole
        yield Figure(
            "table",
            f"{whole:,} sessions on {CROWDS} other nodes",
            f"{per_session:.0f} bytes each in a node, {in_redis:.2f} in Redis",
            data={"bytes": per_session, "redis": in_redis},
        )
        yield Figure(
            "table",
            f"a node meets the {CROWDS} others at once",
            f"{max(joined):.1f} s until it knows all, {spent:.1f} s of processor time, "
            f"{spent / whole * 1e6:.1f} us a session",
            data={"seconds": max(joined), "cpu": spent},
        )
        with Canary(node.port, "user0", watches_turns=True) as canary:
            lost = crowds.pop()
            lost.kill()
            seconds = waited(lambda: node.elsewhere() == whole - sessions, "the dead are forgotten")
        lost.wait()
        yield Figure(
            "table",
            f"one of them is killed, with {sessions:,} sessions",
            f"all are gone after {seconds:.1f} s, 1 s of them waiting for it to come back; {_felt(canary)}",
            data={"seconds": seconds, "turn": canary.longest_turn},
        )
        with Canary(node.port, "user0", watches_turns=True) as canary:
            crowds.append(_crowd(farm, node, CROWDS - 1, sessions))
            seconds = _joined(crowds[-1])
            waited(lambda: node.elsewhere() == whole, "all sessions are known")
        yield Figure(
            "table",
            "it comes back",
            f"{seconds:.1f} s until all are known; {_felt(canary)}",
            data={"seconds": seconds, "turn": canary.longest_turn},
        )
    finally:
        for crowd in crowds:
            crowd.kill()
            crowd.wait()
        node.stop()


def _felt(canary: Canary) -> str:
    turn, ping = canary.longest_turn * 1e3, max(canary.seconds) * 1e3
    return f"longest turn of the loop {turn:.1f} ms, a ping took at most {ping:.0f} ms"


def _crowd(farm: Farm, node: Server, index: int, sessions: int) -> subprocess.Popen[str]:
    name = f"127.0.0.1:{farm.first_port + 20 + index}"
    command = [sys.executable, HERE / "lodger.py", name, node.name, str(sessions), str(index * sessions)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _joined(crowd: subprocess.Popen[str]) -> float:
    assert crowd.stdout is not None
    word, _, seconds = crowd.stdout.readline().partition(" ")
    if word != "joined":
        raise SystemExit("a simulated node has ended")
    return float(seconds)


# the storm


def storm(farm: Farm, rounds: int, *, is_short: bool) -> Iterator[Figure]:
    """A node of three is killed, and all its clients log in on the two others at once."""
    count = 200 if is_short else STORM
    whole = count + count // WATCHING
    farm.fill(FIRST + whole, f"{FIRST}:{whole}:{CONTACTS}")
    nodes = farm.nodes(3)
    before = "".join(
        "2" if index % (WATCHING + 1) else str(index // (WATCHING + 1) % 2) for index in range(whole)
    )
    after = "".join(str(index % 2) if place == "2" else place for index, place in enumerate(before))
    arguments = f"storm --first {FIRST} --n {whole} --conc 200 --settle 2 --max-login 100 --src-ips 16"
    arguments = f"{arguments} --mech scram-sha-1 --places {before} --moved {after}"
    hurt = threading.Event()
    cpu: list[float] = []

    def kill() -> None:
        cpu.extend(node.cpu() for node in nodes[:2])
        nodes[2].stop(kill=True)
        canary.seconds.clear()
        hurt.set()

    def end() -> None:
        canary.stop()
        cpu.extend(node.cpu() for node in nodes[:2])

    with Canary(nodes[0].port, "user0") as canary:
        report, _ = farm.load(nodes, arguments, {"begin": kill, "end": end})
    seconds, failed = report["storm"]["all_ready_s"], report["login_fail"]
    spent = (cpu[2] + cpu[3] - cpu[0] - cpu[1]) / count
    yield Figure(
        "storm",
        f"{count:,} sessions of a killed node log in on two others",
        f"all online after {seconds:.1f} s, {failed} failed; {spent * 1e3:.2f} ms of processor time each; a "
        f"canary's ping p50 {canary.quantile(0.5) * 1e3:.0f} ms, p99 {canary.quantile(0.99) * 1e3:.0f} ms",
        f"<= {MOST_STORM_SECONDS:.0f} s, p99 <= {MOST_CANARY:.0f} s",
        seconds <= MOST_STORM_SECONDS and not failed and canary.quantile(0.99) <= MOST_CANARY,
        {"seconds": seconds, "p99": canary.quantile(0.99), "cpu": spent},
    )
