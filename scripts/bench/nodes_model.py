"""Random schedules of nodes under a virtual clock; see `nodes-model`."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "lib"))

import nodesmodel


def main() -> int:
    """Run the seeds; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="nodes-model", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000, help="how many runs (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: %(default)s)")
    parser.add_argument("--faults", default="", choices=nodesmodel.FAULTS, help="what goes wrong in them")
    parser.add_argument("--off", default="", choices=("", *nodesmodel.RULES), help="a rule to switch off")
    parser.add_argument("--show", type=int, default=5, help="how many wrong runs are shown in full")
    parser.add_argument("--until-wrong", action="store_true", help="end at the first wrong run")
    options = parser.parse_args()
    logging.getLogger("xmppd").setLevel(logging.ERROR)
    logging.getLogger("xmppd").propagate = False
    started, kinds, bad, count = time.process_time(), Counter[str](), 0, 0
    with nodesmodel.Run() as run:
        for seed in range(options.first, options.first + options.seeds):
            count += 1
            wrong = run.wrong(seed, options.faults, options.off)
            if wrong:
                bad += 1
                kinds.update({line.split()[0] for line in wrong})
                if bad <= options.show:
                    print(f"{seed}: " + "; ".join(wrong))
                if options.until_wrong:
                    break
    seconds = (time.process_time() - started) / count
    name = f"faults: {options.faults or 'none'}, off: {options.off or 'nothing'}"
    print(f"{count} runs ({name}): {bad} wrong {dict(kinds)}, {seconds:.3f} s of CPU each")
    return 1 if bad else 0


sys.exit(main())
