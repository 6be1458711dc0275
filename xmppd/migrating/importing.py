"""`migrate import`: a source into this installation, account by account; it may be killed at any moment."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TextIO, cast

from xmppd.admin.migration import UNDER_WAY
from xmppd.admin.progress import ProgressBar
from xmppd.config import Config
from xmppd.errors import CommandError
from xmppd.migrate.prepare import Limits, OverLimit
from xmppd.migrating.feed import Batch, Feed, Wanted
from xmppd.migrating.report import Report
from xmppd.seeing.spans import step


class Door(Protocol):
    """Where commands are done: in the running server, or on the store alone."""

    def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Run a command; its result, or CommandError."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What an operator asked of an import beside `Wanted`; `rate` in accounts a second (0: no bound)."""

    wanted: Wanted
    conflict: str = "keep"
    live: bool = False
    dry_run: bool = False
    rate: float = 0.0
    workers: int = UNDER_WAY


class Import:
    """One run, new or gone on with. `out` shows how far it is."""

    def __init__(
        self,
        report: Report,
        plan: Plan,
        door: Door,
        out: TextIO,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._report = report
        self._plan = plan
        self._door = door
        self._bar = ProgressBar(out, unit="accounts")
        self._clock = clock
        self._sleep = sleep

    def run(self) -> dict[str, Any]:
        """Read, write and report everything that is not in the report yet; the summary. CommandError where it
        cannot go on: the same run may be resumed.
        """
        report, plan = self._report, self._plan
        folder = report.folder / "scratch"
        shutil.rmtree(folder, ignore_errors=True)  # of an earlier part that was killed
        feed = Feed(replace(plan.wanted, skip=report.done), folder)
        try:
            self._take(feed)
            return report.end(feed.losses)
        finally:
            feed.close()
            report.close()

    def _take(self, feed: Feed) -> None:
        begun, first = self._clock(), self._report.done
        is_shown = False
        for batch in feed:
            if not is_shown:
                self._bar.begin("importing", feed.total, first)
                is_shown = True
            with step("import batch", {"xmppd.accounts": len(batch.rows)}):
                for piece in self._pieces(batch):
                    self._report.add(piece)
                    self._bar.advance(len(piece))
            self._wait(begun, self._report.done - first)
        if is_shown:
            self._bar.end()

    def _pieces(self, batch: Batch) -> Iterator[list[dict[str, Any]]]:
        plan = self._plan
        arguments = {
            "file": str(batch.file),
            "run": self._report.folder.name,
            "conflict": plan.conflict,
            "live": plan.live,
            "dry_run": plan.dry_run,
            "workers": plan.workers,
        }
        outcomes = iter(self._door.call("migrate apply", arguments))
        rows = []
        for row in batch.rows:
            if "done" not in row:
                outcome = next(outcomes)
                lost = [["not-kept-here", text] for text in outcome.pop("lost", ())]
                row |= outcome
                if lost:
                    row["notes"] = [*row.get("notes", ()), *lost]
            rows.append(row)
        yield rows

    def _wait(self, begun: float, done: int) -> None:
        if self._plan.rate > 0 and (early := begun + done / self._plan.rate - self._clock()) > 0:
            self._sleep(early)


def limits_of(config: Config, over: str) -> Limits:
    """The limits of clients of this installation, for what comes from elsewhere."""
    if over not in ("keep", "cut", "refuse"):
        raise CommandError(f"--over-limit is keep, cut or refuse, not {over}")
    limits = config.limits
    return Limits(
        cast(OverLimit, over),
        items=limits.roster_items,
        groups=limits.roster_groups_per_item,
        name_bytes=limits.name_bytes,
    )


def new_name(now: float) -> str:
    """A name for a run: when it began, and something to tell two of one second apart."""
    return f"{datetime.fromtimestamp(now, UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def source_mark(path: Path) -> list[Any]:
    """What shows that a source is still the one that a run began with: size and time of a file; of a folder
    nothing.
    """
    with contextlib.suppress(OSError):
        if path.is_file():
            found = path.stat()
            return [found.st_size, found.st_mtime]
    return []
