"""Whether the engines answer, how fast, and whether their clocks agree with ours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from xmppd.doctor.advice import Advice, Level
from xmppd.store.table import Sounding

SLOW_SECONDS = 0.05
"""An engine beside a server answers in a tenth of that."""

AWAY_SECONDS, FAR_SECONDS = 1.0, 30.0
"""From where on a clock disturbs what is compared by it, and is wrong."""


def judged(soundings: Iterable[Sounding]) -> Iterator[Advice]:
    """One line for each."""
    for one in soundings:
        if one.problem:
            yield Advice("error", one.name, one.problem, "see the table of outages in docs/operations.md")
            continue
        text = f"answers in {one.seconds * 1000:.1f} ms"
        if one.ahead is not None and (off := abs(one.ahead) - one.seconds / 2) > AWAY_SECONDS:
            where = "ahead of" if one.ahead > 0 else "behind"
            level: Level = "error" if off > FAR_SECONDS else "warning"
            text = f"its clock is {abs(one.ahead):.1f} s {where} ours"
            yield Advice(level, one.name, text, "run chrony or systemd-timesyncd on both")
        elif one.seconds > SLOW_SECONDS:
            yield Advice("warning", one.name, text, "each login and message waits for that: look at its load")
        else:
            clock = "" if one.ahead is None else f", clocks agree to {max(abs(one.ahead), 0.001):.3f} s"
            yield Advice("ok", one.name, text + clock)
