"""Fuzz the server: stanzas and stream openings, races, or SASL exchanges; or repeat a kept case."""

from __future__ import annotations

import argparse
import asyncio
import logging
import resource
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from fuzzing import corpus
from fuzzing.arena import Finding
from fuzzing.episode import explore, replay, shrink
from fuzzing.races import race
from fuzzing.sasl import exchanges

Run = Callable[[int, int], Awaitable[tuple[Counter[str], Finding | None]]]

EPISODE = 20_000
"""Stanzas that one server lives for; the next one starts from the next seed."""


def megabytes() -> float:
    """How much memory this process takes now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 1e6


class Tally:
    """What was done so far, and how fast."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._since = time.monotonic()

    def show(self, label: str, unit: str) -> None:
        """One line."""
        seconds = time.monotonic() - self._since
        shown = ", ".join(f"{count} {name}" for name, count in sorted(self.counts.items()))
        print(f"{label}: {shown}; {self.counts[unit] / seconds:.0f}/s, {megabytes():.0f} MB", flush=True)


async def keep(seed: int, ops: list[list[object]], finding: Finding) -> Path:
    """Write down what failed, whole and then as short as possible; where the short form is."""
    folder = Path.cwd()
    corpus.write(folder / f"fuzz-{seed}-whole.txt", ops, [f"seed {seed}", str(finding)])
    short = await shrink(ops, finding.kind)
    again = await replay(short)
    path = folder / f"fuzz-{seed}.txt"
    corpus.write(path, short, [f"seed {seed}", str(again or finding)])
    return path


async def fuzz_stanzas(seed: int, count: int) -> int:
    """Episodes until so many stanzas and openings were sent; 1 at the first finding."""
    tally = Tally()
    while tally.counts["stanzas"] + tally.counts["openings"] < count:
        left = count - tally.counts["stanzas"] - tally.counts["openings"]
        outcome = await explore(seed, min(EPISODE, left))
        tally.counts += outcome.counts
        tally.show(f"seed {seed}", "stanzas")
        if outcome.finding is not None:
            print(f"seed {seed}: {outcome.finding}")
            print(f"kept in {await keep(seed, outcome.ops, outcome.finding)}")
            return 1
        seed += 1
    return 0


async def fuzz_others(run: Run, unit: str, seed: int, count: int) -> int:
    """The same for exchanges and races."""
    tally = Tally()
    while tally.counts[unit] < count:
        counts, finding = await run(seed, min(EPISODE, count - tally.counts[unit]))
        tally.counts += counts
        tally.show(f"seed {seed}", unit)
        if finding is not None:
            print(f"seed {seed}: {finding}")
            return 1
        seed += 1
    return 0


async def repeat(path: Path) -> int:
    """A kept case; 1 if it still fails."""
    finding = await replay(corpus.read(path))
    print(finding or "nothing found")
    return 1 if finding else 0


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("stanzas", "races", "sasl"):
        command = commands.add_parser(name)
        command.add_argument("count", type=int)
        command.add_argument("--seed", type=int, default=int(time.time()))
    commands.add_parser("replay").add_argument("file", type=Path)
    given = parser.parse_args()
    logging.getLogger("xmppd").setLevel(logging.ERROR)
    logging.lastResort = None
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if given.command == "replay":
            return runner.run(repeat(given.file))
        if given.command == "stanzas":
            return runner.run(fuzz_stanzas(given.seed, given.count))
        run, unit = (race, "stanzas") if given.command == "races" else (exchanges, "exchanges")
        return runner.run(fuzz_others(run, unit, given.seed, given.count))


if __name__ == "__main__":
    sys.exit(main())
