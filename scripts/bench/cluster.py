"""cluster [--only PARTS] [--rounds N] [--short] [--json]: what it costs that several nodes are one server.

Real servers on loopback, one Cassandra and one Redis (those that XMPPD_TEST_CASSANDRA and XMPPD_TEST_REDIS
name, or its own). Everything shares the same processors, so what counts is the processor time of servers for
a unit, and what is compared is measured in turns. Exit status 1 when something asked for is missed.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import cluster_traffic as traffic
from backend import Backend
from cluster_local import local
from cluster_table import storm, table
from farm import Farm
from figures import Figure, as_json, as_table
from servers import HERE, say

PARTS: dict[str, Callable[..., Iterator[Figure]]] = {
    "chat": traffic.chat,
    "presence": traffic.presence,
    "login": traffic.login,
    "local": local,
    "nodes": traffic.nodes,
    "table": table,
    "storm": storm,
}


def chosen(text: str) -> list[str]:
    """Parts by name; argparse.ArgumentTypeError."""
    if unknown := [name for name in text.split(",") if name not in PARTS]:
        raise argparse.ArgumentTypeError(f"there is no part {unknown[0]}: {', '.join(PARTS)}")
    return [name for name in PARTS if name in text.split(",")]


def rings(parts: Sequence[str], *, is_short: bool) -> str:
    """The rosters for these parts; the short form does without the largest of presence."""
    found: set[str] = set()
    for part in parts:
        needed = traffic.RING_OF.get(part, ())
        found.update(needed[:1] if is_short and part == "presence" else needed)
    return ",".join(sorted(found))


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="cluster"
    )
    parser.add_argument("--only", type=chosen, default=[*PARTS], metavar="PART,...", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=2, help="how often; the table shows medians")
    parser.add_argument("--short", action="store_true", help="to see that all works")
    parser.add_argument("--json", action="store_true", help="figures for programs")
    parser.add_argument("--port", type=int, default=27_200, help="the first of 40")
    return parser.parse_args()


def measured(farm: Farm, options: argparse.Namespace) -> Iterator[Figure]:
    """All that was asked for; how far it is is told beside the table."""
    for name in options.only:
        began = time.monotonic()
        for figure in PARTS[name](farm, options.rounds, is_short=options.short):
            say(f"{figure.part}: {figure.what}: {figure.found}")
            yield figure
        say(f"{name} took {time.monotonic() - began:.0f} s")


def main() -> int:
    """Start what is needed, measure, and print."""
    options = parsed()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # or servers and a keyspace would stay
    subprocess.run([HERE / "loadgen", "--build-only"], check=True, timeout=600)
    backend = Backend("cassandra")
    try:
        backend.start()
        farm = Farm(backend, options.port, 4)
        try:
            farm.fill(traffic.ACCOUNTS, rings(options.only, is_short=options.short))
            figures = list(measured(farm, options))
        finally:
            farm.close()
    finally:
        backend.remove()
    print(as_json(figures) if options.json else as_table(figures))
    return 1 if any(figure.is_held is False for figure in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
