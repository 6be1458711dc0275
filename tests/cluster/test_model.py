"""Random schedules of three nodes; scripts/bench/nodes-model runs more of them."""

from __future__ import annotations

from collections.abc import Iterator

import nodesmodel
import pytest

SEEDS = 30

MISSED_AT = {
    "R1": (23, "slow"),
    "R2": (19, ""),
    "R3": (1, ""),
    "R4": (0, ""),
    "R5": (16, ""),
    "R6": (446, "slow"),
    "R7": (6, ""),
    "R8": (20, "slow"),
    "HAVE": (0, ""),
    "trust": (0, "freeze"),
    "lease": (1, "freeze"),
    "lock": (33, ""),
    "grace": (0, "drain"),
    "end of grace": (0, "drain"),
    "debts": (6, "redis"),
    "back": (7, "redis"),
    "one name": (0, "namesake"),
    "words": (1, ""),
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
