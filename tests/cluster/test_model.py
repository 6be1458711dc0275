"""Random schedules of three nodes; scripts/bench/nodes-model runs more of them."""

from __future__ import annotations

from collections.abc import Iterator

import nodesmodel
import pytest

SEEDS = 30

MISSED_AT = {
    "R1": (73, "slow"),
    "R2": (131, ""),
    "R3": (1, ""),
    "R4": (7, ""),
    "R5": (27, ""),
    "R6": (36, "slow"),
    "R7": (39, ""),
    "R8": (12, "slow"),
    "HAVE": (0, ""),
    "trust": (1, "freeze"),
    "lease": (0, "freeze"),
    "lock": (19, ""),
    "grace": (5, "drain"),
    "end of grace": (5, "drain"),
    "debts": (1, "redis"),
    "back": (12, "redis"),
    "one name": (1, "namesake"),
    "words": (0, ""),
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


@pytest.mark.parametrize("rule", MISSED_AT)
def test_each_rule_is_missed(run: nodesmodel.Run, rule: str) -> None:
    first, faults = MISSED_AT[rule]
    found = next(seed for seed in (first, *range(1000)) if run.wrong(seed, faults, rule))
    assert not run.wrong(found, faults)
