"""What a benchmark of several nodes has found: figures, beside what is asked of some of them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `is_held` is None where nothing is asked; `data` are the numbers themselves."""

    part: str
    what: str
    found: str
    asked: str = ""
    is_held: bool | None = None
    data: dict[str, float] = field(default_factory=dict)


def as_table(figures: Iterable[Figure]) -> str:
    """All of them, as Markdown has it."""
    lines = ["| part | what | found | asked |", "|---|---|---|---|"]
    for figure in figures:
        verdict = {None: "", True: ": held", False: ": **missed**"}[figure.is_held]
        lines.append(f"| {figure.part} | {figure.what} | {figure.found} | {figure.asked}{verdict} |")
    return "\n".join(lines)


def as_json(figures: Iterable[Figure]) -> str:
    """The same for programs."""
    return json.dumps([asdict(figure) for figure in figures], indent=1)


def middle(values: Sequence[float]) -> float:
    """The median of what several rounds found."""
    return statistics.median(values)


def us(seconds: float) -> str:
    """A time in microseconds."""
    value = seconds * 1e6
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
