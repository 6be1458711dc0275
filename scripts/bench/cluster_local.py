"""What local traffic costs on a node that knows another one, which has sessions of nobody's contacts, beside
a server without a cluster: the part `local` of `scripts/bench/cluster`. Instructions below callgrind, as in
`instructions`, since it is about 2 %.

The clocks that pace work go on by looks and not by the time that passes, on both nodes: so neither gives the
other up while it is slow. What a server does by itself meanwhile is counted where nobody asks anything of it,
and taken off.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cluster_traffic import ACCOUNTS, SCRAM
from farm import Farm, Server
from figures import Figure
from instructions import COUNTED, TOTALS, wait_until_idle
from servers import HERE

MOST = 1.02
IDLE_SECONDS = 4.0
REST_SECONDS = 1.0
"""How long a server is given for what is left to do after the last unit."""
PATIENCE = 600.0
PLACES = {"chat": 700, "presence50": 0}
"""The first account of each scenario, as `cluster_traffic` has them."""
STRANGERS = 1000
"""Sessions of the other node."""
TICKING = HERE / "ticking.py"


@dataclass(frozen=True, slots=True)
class Weighed:
    """Instructions between two marks, and seconds of the wall clock."""

    instructions: int
    seconds: float


class Scale:
    """A server below callgrind, and what was counted of it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._dumps = 0
        self._began = 0.0

    def start(self) -> None:
        """Begin it. PYTHONMALLOC as in life, where the server begins anew to have it."""
        environ = ["env", "PYTHONHASHSEED=1", "PYTHONMALLOC=malloc"]
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no"]
        dump = f"--callgrind-out-file={self.server.folder / 'dump'}"
        self.server.spawn([*environ, *valgrind, dump, sys.executable, str(TICKING)])
        self.server.wait(PATIENCE)
        wait_until_idle(self.server.pid)

    def begin(self) -> None:
        """Count from zero. All before goes faster, because nothing is counted."""
        wait_until_idle(self.server.pid)
        self._tell("instrumentation on", "zero")
        self._began = time.monotonic()

    def end(self) -> Weighed:
        """What there was since."""
        time.sleep(REST_SECONDS)
        seconds = time.monotonic() - self._began
        self._tell("dump", "instrumentation off")
        self._dumps += 1
        found = TOTALS.search(Path(self.server.folder / f"dump.{self._dumps}").read_text())
        assert found is not None, "a dump has no totals"
        return Weighed(int(found[1]), seconds)

    def _tell(self, *commands: str) -> None:
        for command in commands:
            vgdb = ["vgdb", f"--pid={self.server.pid}", command]
            subprocess.run(vgdb, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def idle(self) -> float:
        """Instructions a second while nobody asks anything."""
        self.begin()
        time.sleep(IDLE_SECONDS)
        found = self.end()
        return found.instructions / found.seconds

    def count(self, farm: Farm, key: str, share: int) -> float:
        """Instructions for a unit of a scenario, of which only every `share`th is done."""
        counted = COUNTED[key]
        words = counted.arguments.split()
        words[words.index("--first") + 1] = str(PLACES[key])
        place = words.index("--count") + 1
        words[place] = str(int(words[place]) // share)
        weighed: list[Weighed] = []
        at = {"begin": self.begin, "end": lambda: weighed.append(self.end())}
        farm.load([self.server], " ".join([*words, "--max-login", str(int(PATIENCE))]), at)
        own = self.idle() * weighed[0].seconds
        return (weighed[0].instructions - own) / (counted.units // share)


def local(farm: Farm, rounds: int, *, is_short: bool) -> Iterator[Figure]:
    """Chat and presence of one node's own sessions, with the cluster and without."""
    farm.stop()
    node, other = farm.cluster[:2]
    count = STRANGERS // 10 if is_short else STRANGERS
    strangers = f"login --first {ACCOUNTS - count} --n {count} --conc 16 --settle 86400 {SCRAM}"
    other.spawn([sys.executable, str(TICKING)])
    other.wait()
    scales = [Scale(farm.alone), Scale(node)]
    try:
        with ThreadPoolExecutor(len(scales)) as pool:
            list(pool.map(Scale.start, scales))
            meet(node)
        with farm.background([other], strangers, "0" * count):
            hear(node, count)
            for key in ("chat",) if is_short else ("chat", "presence50"):
                without, with_cluster = _counts(farm, scales, key, 10 if is_short else 1)
                ratio = with_cluster / without
                yield Figure(
                    "local",
                    f"{key} (a {COUNTED[key].unit}) of one node's own sessions, {count} others elsewhere",
                    f"{without:,.0f} instructions without a cluster, {with_cluster:,.0f} with it, "
                    f"**{ratio:.3f}**",
                    f"<= {MOST}",
                    ratio <= MOST,
                    {"without": without, "with": with_cluster, "ratio": ratio},
                )
    finally:
        for server in (farm.alone, node, other):
            server.stop(kill=True)


def meet(node: Server) -> None:
    """Wait until it knows the other one."""
    end = time.monotonic() + PATIENCE
    while len(node.nodes()) < 2:
        if time.monotonic() > end:
            raise SystemExit("the nodes do not find each other")
        time.sleep(0.5)


def hear(node: Server, count: int) -> None:
    """Wait until it knows of so many sessions of the other one."""
    end = time.monotonic() + PATIENCE
    while node.elsewhere() < count:
        if time.monotonic() > end:
            raise SystemExit(f"{node.elsewhere()} of {count} sessions came elsewhere")
        time.sleep(0.5)


def _counts(farm: Farm, scales: Sequence[Scale], key: str, share: int) -> list[float]:
    return [scale.count(farm, key, share) for scale in scales]
