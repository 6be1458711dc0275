"""Random schedules of nodes under a virtual clock; see `nodes-model`."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "lib"))

import nodesmodel

PIECE = 50
"""Seeds that one process runs before it tells what it found."""


def wrong_in(
    seeds: Iterable[int], faults: str, off: str, *, until_wrong: bool
) -> list[tuple[int, list[str]]]:
    """What is wrong in the runs of some seeds."""
    logging.getLogger("xmppd").setLevel(logging.ERROR)
    logging.getLogger("xmppd").propagate = False
    found = []
    with nodesmodel.Run() as run:
        for seed in seeds:
            found.append((seed, run.wrong(seed, faults, off)))
            if until_wrong and found[-1][1]:
                break
    return found


def results(options: argparse.Namespace, faults: str) -> Iterator[tuple[int, list[str]]]:
    """Each seed with what is wrong, in order."""
    end = options.first + options.seeds
    pieces = [range(start, min(start + PIECE, end)) for start in range(options.first, end, PIECE)]
    work = partial(wrong_in, faults=faults, off=options.off, until_wrong=options.until_wrong)
    if options.jobs == 1:
        for piece in pieces:
            yield from work(piece)
        return
    with multiprocessing.Pool(options.jobs) as pool:
        for found in pool.imap(work, pieces):
            yield from found


def run(options: argparse.Namespace, faults: str) -> int:
    """Run the seeds with some kind of faults; how many are wrong."""
    started, kinds, bad, count = seconds_used(), Counter[str](), 0, 0
    for seed, wrong in results(options, faults):
        count += 1
        if wrong:
            bad += 1
            kinds.update({line.split()[0] for line in wrong})
            if bad <= options.show:
                print(f"{faults or 'none'} {seed}: " + "; ".join(wrong), flush=True)
            if options.until_wrong:
                break
    seconds = (seconds_used() - started) / count
    name = f"faults: {faults or 'none'}, off: {options.off or 'nothing'}"
    print(
        f"{count} runs from {options.first} ({name}): {bad} wrong {dict(kinds)}, {seconds:.3f} s of CPU each"
    )
    sys.stdout.flush()
    return bad


def seconds_used() -> float:
    """CPU time of this process and of those that it had."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def main() -> int:
    """Run the seeds; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="nodes-model", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000, help="how many runs (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: %(default)s)")
    parser.add_argument(
        "--faults", default="", choices=(*nodesmodel.FAULTS, "all"), help="what goes wrong in them"
    )
    parser.add_argument("--off", default="", choices=("", *nodesmodel.RULES), help="a rule to switch off")
    parser.add_argument("--show", type=int, default=5, help="how many wrong runs are shown in full")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--until-wrong", action="store_true", help="end at the first wrong run")
    options = parser.parse_args()
    chosen = nodesmodel.FAULTS if options.faults == "all" else (options.faults,)
    return 1 if sum([run(options, faults) for faults in chosen]) else 0


if __name__ == "__main__":
    sys.exit(main())
