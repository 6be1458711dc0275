"""Memory of idle sessions: 10,000 logins, what they hold, and what is left when they have gone."""

import time
from typing import Any

from scenarios import IDLE_SESSIONS, RINGS, Idle
from servers import Bench, Server, own_kib

QUICK_SESSIONS = 2_000
PATIENCE = 30.0
"""Seconds in which a server may tidy up after all have left."""
STEADY = 10
"""Seconds without change after which it has."""


def settled_kib(pid: int) -> int:
    """The memory of its own once that does not change any more."""
    end = time.monotonic() + PATIENCE
    last, same = own_kib(pid), 0
    while same < STEADY and time.monotonic() < end:
        time.sleep(1)
        now = own_kib(pid)
        same = same + 1 if abs(now - last) < 64 else 0
        last = now
    return last


def measure_idle(bench: Bench, server: Server, case: Idle, *, quick: bool) -> dict[str, Any]:
    """KiB of the server's own memory for each session, and MiB of it at the start and after all have left."""
    sessions = QUICK_SESSIONS if quick else IDLE_SESSIONS
    seed = bench.seed(server, 14_000 if case.rings == RINGS else 10_000, case.rings, hashed=False)
    arguments = (
        f"login --first {case.first} --n {sessions} --conc 64 --settle 3 --max-login 150 --mech scram-sha-1"
    )
    if case.tls:
        arguments += " --tls starttls"
    if case.managed:
        arguments += " --sm 1"
    with bench.fresh(server, seed, "bare") as running:
        before = own_kib(running.pid)
        found = bench.measure(running, arguments)
        after = settled_kib(running.pid)
    if found is None:
        raise SystemExit(f"{case.key}: the sessions did not come online")
    memory = found["mem_mib"]
    return {
        "key": case.key,
        "server": server.name,
        "profile": "bare",
        "sessions": found["ready"],
        "kib_per_session": (memory["own_online"] * 1024 - before) / found["ready"],
        "own_start": before / 1024,
        "own_online": memory["own_online"],
        "own_left": after / 1024,
        "noise_cores": found["noise_cores"],
    }
