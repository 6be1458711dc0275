"""compare: scenarios side by side in one profile, with everything that the generator reports of each server.

    compare --only chat,muc50 --profile full --rounds 3
    compare --add 'other=PATH/start PATH/seed' --servers xmppd,other

A server that is added is started by `start DATADIR PORT PROFILE`, which prints `PID n` once it accepts
connections on 127.0.0.1:PORT for the domain localhost, and seeded while stopped by `seed DATADIR PORT DOMAIN
N RINGS`: accounts user0..userN-1 with the password `secret`, and for each ring `first:count:contacts` mutual
contacts. One server is used for all scenarios of a round.
"""

import argparse
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scenarios import ACCOUNTS, HISTORY, OTHERS, RINGS, SCENARIOS, Scenario
from servers import WORK, Bench, Server, known_servers
from table import number

ALL = {**SCENARIOS, **HISTORY, **OTHERS}
HEAD = (
    "| scenario | server | units/s | p50 / p95 / p99 ms | CPU us | cores | generator us | PSS MiB | noise |"
)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="compare"
    )
    parser.add_argument("--servers", default="xmppd,ejabberd,prosody")
    parser.add_argument("--add", action="append", default=[], metavar="NAME=START SEED")
    parser.add_argument("--only", default="chat,presence50,roster200", help=", ".join(ALL))
    parser.add_argument("--profile", default="full", choices=("bare", "full"))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--nice", type=int, default=0)
    parser.add_argument("--work", type=Path, default=WORK / "work")
    parser.add_argument("--port", type=int, default=17_400)
    return parser.parse_args()


def servers_of(options: argparse.Namespace) -> list[Server]:
    """The servers to measure."""
    known = known_servers(options.port)
    for place, added in enumerate(options.add):
        name, _, commands = added.partition("=")
        start, seed = commands.split()
        known[name] = Server(name, start, seed, options.port + 100 + 10 * place)
    return [known[name] for name in options.servers.split(",")]


def measured(bench: Bench, server: Server, profile: str, wanted: list[Scenario]) -> Iterator[dict[str, Any]]:
    """One round of one server; those with hashed passwords apart."""
    for hashed in (False, True):
        scenarios = [scenario for scenario in wanted if scenario.hashed == hashed]
        if not scenarios:
            continue
        seed = bench.seed(server, ACCOUNTS, RINGS, hashed=hashed)
        with bench.fresh(server, seed, profile, hashed=hashed) as running:
            for scenario in scenarios:
                if (found := bench.measure(running, scenario.arguments)) is not None:
                    yield {**found, "key": scenario.key}


def line(rows: list[dict[str, Any]]) -> str:
    """The medians of one scenario on one server."""

    def median(*path: str) -> float:
        values = []
        for row in rows:
            value: Any = row
            for part in path:
                value = value[part]
            values.append(value)
        return statistics.median(values)

    latency = " / ".join(number(median("latency_ms", quantile)) for quantile in ("p50", "p95", "p99"))
    figures = [
        number(median(*path))
        for path in (
            ("server_cpu_us",),
            ("server_cores",),
            ("gen_cpu_us",),
            ("mem_mib", "pss_end"),
            ("noise_cores",),
        )
    ]
    first = rows[0]
    cells = [first["key"], first["server"], number(median("throughput")), latency, *figures]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure, and print the table."""
    options = parsed()
    servers, wanted = servers_of(options), [ALL[key] for key in options.only.split(",")]
    bench = Bench(options.work, options.nice)
    bench.build()
    rows: list[dict[str, Any]] = []
    for order in range(options.rounds):
        for server in servers[::-1] if order % 2 else servers:
            rows += measured(bench, server, options.profile, wanted)
    print(HEAD)
    print("|---" * 9 + "|")
    for scenario in wanted:
        for server in servers:
            own = [row for row in rows if (row["key"], row["server"]) == (scenario.key, server.name)]
            if own:
                print(line(own))


if __name__ == "__main__":
    main()
