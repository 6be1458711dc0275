"""Long commands in short calls: each returns one page, and the command line joins them and shows progress.

So a run over all accounts works through the socket like any other command, one call at a time, and what was
done is done when it is interrupted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from xmppd.admin.render import render, table

BAR = 24
"""Letters of the bar."""


def page(
    rows: Sequence[Mapping[str, Any]],
    counts: Mapping[str, int],
    *,
    total: int | None = None,
    after: str | None = None,
    exit_code: int = 0,
) -> dict[str, Any]:
    """What a paged command returns: rows, counts to be added up, and the token to go on `after`, None at
    the end. The first of the counts says how far it is; `total` is what it comes to, if known, in the first
    page.
    """
    return {
        "rows": list(map(dict, rows)),
        "counts": dict(counts),
        "total": total,
        "after": after,
        "exit_code": exit_code,
    }


class Pages:
    """The pages of one command as they come in; `out` shows progress if it is a terminal."""

    def __init__(self, out: TextIO = sys.stderr, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._started = clock()
        self._rows: list[Any] = []
        self._counts: dict[str, int] = {}
        self._total: int | None = None
        self.after: str | None = None
        self.exit_code = 0

    def add(self, page: Mapping[str, Any]) -> bool:
        """Take over one page; whether there are more."""
        self._rows += page["rows"]
        for name, count in page["counts"].items():
            self._counts[name] = self._counts.get(name, 0) + count
        self._total = page["total"] or self._total
        self.after = page["after"]
        self.exit_code = max(self.exit_code, page["exit_code"])
        if self._out.isatty():
            self._out.write(f"\r\x1b[K{self.progress() if self.after is not None else ''}")
            self._out.flush()
        return self.after is not None

    def interrupted(self) -> None:
        """Say how to go on."""
        if self._out.isatty():
            self._out.write("\n")
        if self.after is not None:
            self._out.write(f"xmppd: interrupted; go on with --after {self.after}\n")

    @property
    def result(self) -> dict[str, Any]:
        """Everything together, for programs."""
        return {"rows": self._rows, **self._counts}

    @property
    def text(self) -> str:
        """Everything together, for people."""
        counts = render(self._counts)
        return f"{table(self._rows)}\n\n{counts}" if self._rows else counts

    def progress(self) -> str:
        """How far it is, on one line."""
        (name, done), *others = self._counts.items()
        seconds = max(self._clock() - self._started, 0.001)
        parts = [f"{done:,} {name}", f"{done / seconds:,.0f}/s", *(f"{n:,} {word}" for word, n in others)]
        if self._total and done:
            share = min(done / self._total, 1.0)
            filled = int(share * BAR)
            parts[0] = f"{done:,} of {self._total:,} {name}"
            left = int(seconds / done * max(self._total - done, 0))
            parts.append(f"{left // 60}:{left % 60:02} left")
            return f"[{'#' * filled}{'.' * (BAR - filled)}] {share:4.0%}  {'  '.join(parts)}"
        return "  ".join(parts)
