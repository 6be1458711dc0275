"""Random schedules of three nodes; scripts/bench/nodes-model runs more of them."""

from __future__ import annotations

from collections.abc import Iterator

import nodesmodel
import pytest

SEEDS = 100

FOUND = {
    "": (2, 3, 38, 40, 71, 122, 126, 364, 383, 410, 1123, 1341, 10397, 10918, 20082, 20533),
    "kill": (272, 2091, 2242),
    "cut": (13, 35, 116),
}
"""Seeds that found something once."""

MISSED_AT = {
    "R1": (7, "slow"),
    "R2": (55, "kill"),
    "R3": (0, ""),
    "R4": (1, ""),
    "R5": (65, ""),
    "R6": (82, "slow"),
    "R7": (2, ""),
    "R8": (1003, "slow"),
    "HAVE": (0, ""),
    "lock": (3, ""),
    "grace": (2, "drain"),
    "end of grace": (2, "drain"),
}
"""A seed in which it shows that a rule is switched off, and with what faults. When a change of the server led
to other schedules, another one is looked for.
"""


@pytest.fixture(scope="module")
def run() -> Iterator[nodesmodel.Run]:
    with nodesmodel.Run() as run:
        yield run


@pytest.mark.parametrize("faults", nodesmodel.FAULTS)
def test_nothing_is_wrong_when_all_is_quiet(run: nodesmodel.Run, faults: str) -> None:
    wrong = {seed: found for seed in range(SEEDS) if (found := run.wrong(seed, faults))}
    assert not wrong


@pytest.mark.parametrize(("faults", "seed"), [(faults, seed) for faults in FOUND for seed in FOUND[faults]])
def test_what_was_wrong_once(run: nodesmodel.Run, faults: str, seed: int) -> None:
    assert not run.wrong(seed, faults)


@pytest.mark.parametrize("rule", MISSED_AT)
def test_each_rule_is_missed(run: nodesmodel.Run, rule: str) -> None:
    first, faults = MISSED_AT[rule]
    found = next(seed for seed in (first, *range(1000)) if run.wrong(seed, faults, rule))
    assert not run.wrong(found, faults)
