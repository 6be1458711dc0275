"""run [--quick] [--only KEYS] [--rounds N]: one table of all figures, ours beside the peers.

Every scenario runs on a server that was started for it from a fresh copy of its seed, in the profile `bare`,
those of `history` in `full`. KEYS are names of the first column, with commas between them; `peers`, `idle`,
`start`, `features`, `games`, `history`, `engines`, `history-cassandra` are whole groups. Rows are kept in
--out, so that a long run may be done in parts: what is there already is part of the table, until --new.
"""

import argparse
import json
import platform
import signal
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from idle import measure_idle
from scenarios import (
    ACCOUNTS,
    FEATURES,
    GAMES,
    HISTORY,
    IDLE,
    SCENARIOS,
    TIERED,
    Beside,
    Scenario,
    shortened,
)
from servers import WORK, Bench, Server, known_servers, say
from startup import import_table, measure_start
from table import ON_CASSANDRA, table
from tiers import Logins, places, seed_on_cassandra

Row = dict[str, Any]
OURS = "xmppd"


def build_of_python() -> str:
    """The interpreter the server runs on, and how it was built."""
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    found = [name for name, option in (("PGO", "optimizations"), ("LTO", "with-lto")) if option in arguments]
    base = Path(sys.executable).resolve()
    build = " and ".join(found) or "a plain build"
    if base.is_relative_to("/usr/bin") and Path("/etc/debian_version").exists():
        build = "Debian's build: PGO and LTO"  # made with flags that it does not keep
    return f"{platform.python_implementation()} {platform.python_version()} ({base}, {build})"


class Run:
    """What was asked for on the command line, being measured."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.bench = Bench(options.work, options.nice)
        self.servers = known_servers(options.port)
        self.chosen = [self.servers[name] for name in options.servers.split(",")]
        self.only = {key for key in options.only.split(",") if key}

    def is_wanted(self, key: str, group: str) -> bool:
        """Whether a row is to be measured."""
        return not self.only or key in self.only or group in self.only

    def keep(self, row: Row) -> None:
        """Append a row to the results."""
        row.setdefault("python", build_of_python())
        row.setdefault("when", time.time())
        row["quick"] = self.options.quick
        self.options.out.parent.mkdir(parents=True, exist_ok=True)
        with self.options.out.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def measure(self, server: Server, scenario: Scenario, profile: str) -> None:
        """One scenario on one server."""
        seed = self.bench.seed(server, ACCOUNTS, scenario.rings, hashed=scenario.hashed)
        arguments = shortened(scenario.arguments) if self.options.quick else scenario.arguments
        with self.bench.fresh(server, seed, profile, hashed=scenario.hashed) as running:
            if (found := self.bench.measure(running, arguments)) is not None:
                self.keep({**found, "key": scenario.key})

    def side_by_side(self, order: int) -> None:
        """Every server in turn for one scenario, then for the next; the order is turned round each round."""
        servers = self.chosen[::-1] if order % 2 else self.chosen
        for scenario in SCENARIOS.values():
            for server in servers:
                if self.is_wanted(scenario.key, "peers"):
                    self.measure(server, scenario, "bare")

    def features(self, order: int) -> None:
        """Ours with and without what a real installation has switched on, turn by turn."""
        for beside in FEATURES:
            self.beside(beside, "features", order)

    def games(self, order: int) -> None:
        """The same with and without the layer of games, and rich presence with and without games."""
        for beside in GAMES:
            self.beside(beside, "games", order)

    def beside(self, beside: Beside, group: str, order: int) -> None:
        """Both of a pair; the order is turned round each round."""
        pair = [
            (beside.profile, beside.scenario, False),
            (beside.base_profile, beside.base or beside.scenario, True),
        ]
        for profile, scenario, is_base in pair[::-1] if order % 2 else pair:
            if self.is_wanted(beside.key, group):
                key = f"{beside.key} base" if is_base else beside.key
                renamed = Scenario(key, scenario.unit, scenario.arguments)
                self.measure(self.servers[OURS], renamed, profile)

    def history(self, order: int) -> None:
        """Every server in turn with everything on, one scenario after the other."""
        servers = self.chosen[::-1] if order % 2 else self.chosen
        for scenario in HISTORY.values():
            for server in servers:
                if self.is_wanted(scenario.key, "history") and (server.name == OURS or not scenario.alone):
                    self.measure(server, scenario, "full")

    def history_on_cassandra(self) -> None:
        """Ours once more, with its store in Cassandra."""
        wanted = [
            scenario
            for scenario in HISTORY.values()
            if scenario.cassandra is not None
            and self.is_wanted(f"{scenario.key}-cassandra", "history-cassandra")
        ]
        if not wanted:
            return
        self.options.work.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix="engines-", dir=self.options.work) as folder,
            places(Path(folder)) as where,
        ):
            seed = seed_on_cassandra(Path(folder), where, self.servers[OURS].port, ACCOUNTS)
            for scenario in wanted * self.options.rounds:
                with self.bench.fresh(self.servers[OURS], seed, "full") as running:
                    found = self.bench.measure(running, scenario.arguments)
                if found is not None:
                    self.keep({**found, "key": scenario.key, "server": ON_CASSANDRA})

    def idle(self, order: int) -> None:
        """Memory of idle sessions, in the first round only."""
        for case in IDLE.values():
            if not order and self.is_wanted(case.key, "idle"):
                self.keep(measure_idle(self.bench, self.servers[OURS], case, quick=self.options.quick))

    def start(self, order: int) -> None:
        """The time to the first login."""
        if self.is_wanted("start", "start"):
            seed = self.bench.seed(self.servers[OURS], 10_000, "", hashed=False)
            self.keep(measure_start(seed, self.options.port + 50))

    def engines(self) -> None:
        """Logins on SQLite, on Cassandra, and on Cassandra behind Redis, turn by turn."""
        wanted = [case for case in TIERED.values() if self.is_wanted(case.key, "engines")]
        if not wanted:
            return
        self.options.work.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix="engines-", dir=self.options.work) as folder,
            places(Path(folder)) as where,
        ):
            cases = [case.quick for case in wanted] if self.options.quick else wanted
            logins = Logins(self.bench, self.servers[OURS], Path(folder), where, cases)
            for order in range(self.options.rounds):
                for row in logins.measure(backwards=order % 2 > 0):
                    self.keep(row)

    def parts(self) -> Iterator[Callable[[int], None]]:
        """What makes up a round."""
        yield self.start
        yield self.side_by_side
        yield self.features
        yield self.games
        yield self.history
        yield self.idle


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="run"
    )
    parser.add_argument(
        "--quick", action="store_true", help="short windows and few idle sessions: to see that all works"
    )
    parser.add_argument("--only", default="", metavar="KEYS", help="measure only these rows or groups")
    parser.add_argument("--rounds", type=int, default=1, help="how often; the table shows medians")
    parser.add_argument("--servers", default="xmppd,ejabberd,prosody", help="whom to measure side by side")
    parser.add_argument(
        "--nice", type=int, default=0, help="nice level of servers and generator, such as -15"
    )
    parser.add_argument("--out", type=Path, default=WORK / "run.jsonl", help="where rows are kept")
    parser.add_argument("--new", action="store_true", help="forget the rows kept before")
    parser.add_argument("--table", action="store_true", help="measure nothing, print what is there")
    parser.add_argument(
        "--imports", action="store_true", help="print the dearest imports of a start, nothing else"
    )
    parser.add_argument("--work", type=Path, default=WORK / "work", help="folder for seeds and servers")
    parser.add_argument("--port", type=int, default=17_400, help="the first of 60 ports")
    return parser.parse_args()


def main() -> None:
    """Measure what is asked for, and print the table."""
    options = parsed()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # or servers and a keyspace would stay
    run = Run(options)
    if options.imports:
        print(import_table(run.bench.seed(run.servers[OURS], 10_000, "", hashed=False), options.port + 50))
        return
    if options.new:
        options.out.unlink(missing_ok=True)
    if not options.table:
        run.bench.build()
        for order in range(options.rounds):
            for part in run.parts():
                part(order)
        run.engines()
        run.history_on_cassandra()
        say(f"rows are in {options.out}")
    rows = [json.loads(line) for line in options.out.read_text().splitlines()]
    print(table(rows))


if __name__ == "__main__":
    main()
