"""`migrate shadow`: a source that goes on serving, read again and again; what it changed is copied.

Both serve meanwhile. What both changed is a conflict: it is told, and the source wins, for until the switch
it is where people are. Accounts that were switched are left alone from then on. Nothing is ever removed.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from xmppd.admin.commands import FAILED
from xmppd.errors import CommandError
from xmppd.migrating.feed import Batch, Feed
from xmppd.migrating.given import Door
from xmppd.migrating.importing import Plan
from xmppd.migrating.report import write_json
from xmppd.migrating.switching import SWITCH_LOCK, SWITCHED, Switched, held

LOCK, SEEN, MARKS = "shadow.lock", "shadow.sqlite", "marks.sqlite"
CHANGES, ROUNDS, GONE, RUN = "changes.jsonl", "rounds.jsonl", "gone.txt", "run.json"
SHOWN = 5
"""Names that a summary shows of one kind."""
TAKEN = ("made", "changed", "unchanged")
PUT_OFF = ("refused", "unreadable", "failed")
"""What keeps an account from coming over."""

Row = dict[str, Any]


class Memory:
    """Which accounts the source had, and in which round last: so it is seen which are gone."""

    def __init__(self, file: Path) -> None:
        self._database = sqlite3.connect(file, isolation_level=None)
        self._database.execute("pragma journal_mode = wal")
        self._database.execute("pragma synchronous = off")
        self._database.execute(
            "create table if not exists seen (account text primary key, round int) without rowid"
        )
        (self.round,) = self._database.execute("select coalesce(max(round), 0) from seen").fetchone()

    def begin(self) -> None:
        """Another round."""
        self.round += 1

    def note(self, rows: Sequence[Row]) -> None:
        """The source has these; those that did not come over are remembered only if they did once."""
        accounts = [(row["account"], self.round) for row in rows if row["done"] in TAKEN]
        others = [
            (self.round, row["account"]) for row in rows if row["done"] not in TAKEN and "account" in row
        ]
        self._database.execute("begin")
        self._database.executemany("replace into seen values (?, ?)", accounts)
        self._database.executemany("update seen set round = ? where account = ?", others)
        self._database.execute("commit")

    def gone(self) -> Iterator[str]:
        """Those that this round has not seen."""
        query = "select account from seen where round < ? order by account"
        return (account for (account,) in self._database.execute(query, (self.round,)))

    def all(self) -> Iterator[str]:
        """All that were ever seen."""
        return (account for (account,) in self._database.execute("select account from seen"))

    def close(self) -> None:
        """Done."""
        self._database.close()


class Marks:
    """Which passwords in plain were given already, as keyed hashes; the reader looks them up. The key is
    never on disk, so that nobody can guess by them.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.key = secrets.token_bytes(32)
        self._database = sqlite3.connect(file, isolation_level=None)
        self._database.execute("pragma journal_mode = wal")
        self._database.execute("pragma synchronous = off")
        self._database.execute(
            "create table if not exists marks (account text primary key, mark text) without rowid"
        )

    def note(self, rows: Sequence[Row]) -> None:
        """What became of accounts whose password was given."""
        self._database.execute("begin")
        for row in rows:
            if row["done"] in PUT_OFF:
                self._database.execute("delete from marks where account = ?", (row["account"],))
            else:
                self._database.execute("replace into marks values (?, ?)", (row["account"], row["mark"]))
        self._database.execute("commit")

    def close(self) -> None:
        """Done."""
        self._database.close()


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a source is read: again so many seconds after a round is over, or only `once`."""

    every: float = 60.0
    once: bool = False


class Shadow:
    """Rounds over one source. `out` is told of each; `stop` ends it after the batch that is under way."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        reach: Callable[[], AbstractContextManager[Door]],
        switched: Switched,
        out: TextIO,
        *,
        stop: threading.Event,
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._reach = reach
        self._switched = switched
        self._out = out
        self._stop = stop
        self._told: set[int] = set()
        self.rounds = self.failed = 0
        self.totals: Counter[str] = Counter()
        self.last: dict[str, Any] = {}

    def run(self, pace: Pace) -> dict[str, Any]:
        """Until it is stopped; the summary. A round that fails is tried again, the first one is not:
        CommandError.
        """
        scratch = self._folder / "scratch"
        scratch.mkdir(mode=0o700)
        with (
            closing(Memory(self._folder.parent / SEEN)) as memory,
            closing(Marks(scratch / MARKS)) as marks,
        ):
            try:
                while not self._stop.is_set():
                    try:
                        self._round(memory, marks, scratch / "round")
                    except CommandError as error:
                        if not self.rounds or pace.once:
                            raise
                        self.failed += 1
                        self._say(f"round failed, and is tried again: {error}")
                    if pace.once or self._stop.wait(pace.every):
                        break
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        summary = {"run": self._folder.name, "rounds": self.rounds, "failed rounds": self.failed}
        summary |= {"in all": dict(sorted(self.totals.items())), "last round": self.last}
        write_json(self._folder / "summary.json", summary)
        return summary

    @property
    def is_clean(self) -> bool:
        """Whether all that the source had in the last round stands here."""
        return not any(self.last.get(word) for word in PUT_OFF)

    def _round(self, memory: Memory, marks: Marks, scratch: Path) -> None:
        begun = time.monotonic()
        counts: Counter[str] = Counter()
        samples: dict[str, list[str]] = {}
        domains: set[str] = set()
        memory.begin()
        wanted = replace(self._plan.wanted, marks=str(marks.file), key=marks.key)
        with ExitStack() as stack:
            door = stack.enter_context(self._reach())
            feed = stack.enter_context(closing(Feed(wanted, scratch, stopped=self._stop.is_set)))
            for batch in feed:
                rows = self._apply(batch, door)
                marks.note([row for row in rows if "mark" in row])
                memory.note(rows)
                domains.update(row["account"].rpartition("@")[2] for row in rows if "account" in row)
                self._count(rows, counts, samples)
                self._wait(begun, counts["accounts"])
                if self._stop.is_set():
                    break
            is_whole = not self._stop.is_set() or feed.is_over
        if is_whole and not wanted.only:
            self._list_gone(memory, domains, counts, samples)
        self.rounds += 1
        self.totals.update({word: counts[word] for word in ("made", "changed", "conflicts")})
        self.last = {"round": self.rounds, **({} if is_whole else {"broken off": True})}
        self.last |= {"accounts": counts.pop("accounts", 0), **dict(sorted(counts.items()))}
        self.last |= {"seconds": round(time.monotonic() - begun, 1)}
        self._append(ROUNDS, [{"at": time.time(), **self.last}])
        self._say(", ".join(f"{word} {value}" for word, value in self.last.items()))
        self.last |= {f"first {word}": names for word, names in samples.items()}

    def _apply(self, batch: Batch, door: Door) -> list[Row]:
        """What became of the accounts of a batch; no switch comes in between."""
        with held(self._folder.parent / SWITCH_LOCK):
            self._switched.refresh()
            self._leave_alone(batch)
            arguments = {
                "file": str(batch.file),
                "run": self._folder.name,
                "conflict": "replace",
                "live": self._plan.live,
                "workers": self._plan.workers,
                "shadow": True,
            }
            is_work = any("done" not in row for row in batch.rows)
            outcomes = iter(door.call("migrate apply", arguments) if is_work else ())
        return [row if "done" in row else row | next(outcomes) for row in batch.rows]

    def _leave_alone(self, batch: Batch) -> None:
        """Take those out of the file that have been switched."""
        if not self._switched.names:
            return
        coming = [row for row in batch.rows if "done" not in row]
        left = [self._switched.has(row["name"], row["account"]) for row in coming]
        for row in batch.rows:
            if "done" in row and self._switched.has(row["name"]):
                row["done"] = "left alone"
        if any(left):
            lines = batch.file.read_bytes().splitlines(keepends=True)
            batch.file.write_bytes(
                b"".join(line for line, is_left in zip(lines, left, strict=True) if not is_left)
            )
            for row, is_left in zip(coming, left, strict=True):
                if is_left:
                    row["done"] = "left alone"
                    row.pop("mark", None)

    def _count(self, rows: Sequence[Row], counts: Counter[str], samples: dict[str, list[str]]) -> None:
        told: list[Row] = []
        for row in rows:
            done = row["done"]
            counts["accounts"] += 1
            counts[done] += 1
            ours = row.pop("ours", ())
            both = sorted(set(ours) & set(row.get("kinds", ())))
            row.pop("mark", None)
            if ours:
                counts["changed here"] += 1
            if both:
                counts["conflicts"] += 1
                row["conflicts"] = both
                note(samples, "conflicts", f"{row['account']}: {', '.join(both)}")
            if done in PUT_OFF:
                note(samples, done, f"{row['name']}: {row.get('why', '')}")
                if (known := hash((row["name"], row.get("why")))) in self._told:
                    continue
                self._told.add(known)
            if done not in ("unchanged", "left alone"):
                told.append({"round": self.rounds + 1, **row})
        self._append(CHANGES, told)

    def _list_gone(
        self, memory: Memory, domains: set[str], counts: Counter[str], samples: dict[str, list[str]]
    ) -> None:
        """The accounts that the source had and has no more, of the domains that it has."""
        with (self._folder / GONE).open("w", encoding="utf-8") as file:
            for account in memory.gone():
                if account.rpartition("@")[2] in domains and not self._switched.has(account):
                    file.write(f"{account}\n")
                    counts["gone there"] += 1
                    note(samples, "gone there", account)

    def _append(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            with (self._folder / name).open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    def _wait(self, begun: float, done: int) -> None:
        if self._plan.rate > 0 and (early := begun + done / self._plan.rate - time.monotonic()) > 0:
            self._stop.wait(early)

    def _say(self, text: str) -> None:
        self._out.write(f"{text}\n")
        self._out.flush()


def note(samples: dict[str, list[str]], word: str, text: str) -> None:
    """One case more, shown if it is among the first."""
    kept = samples.setdefault(word, [])
    if len(kept) < SHOWN:
        kept.append(text)


@contextlib.contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set."""
    event = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: event.set()) for number in signals]
    try:
        yield event
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def run(
    plan: Plan,
    name: str,
    asked: Mapping[str, Any],
    pace: Pace,
    reach: Callable[[], AbstractContextManager[Door]],
    out: TextIO,
) -> tuple[dict[str, Any], int]:
    """Shadow a source in a run of this name until it is stopped; the summary and the exit code."""
    with stopping() as stop:
        with reach() as door:
            runs = Path(door.call("migrate folder", {}))
        with held(runs / LOCK, busy=f"another shadow is at work here: it holds {runs / LOCK}"):
            files = [runs / SWITCHED, *([Path(asked["switched"])] if "switched" in asked else [])]
            switched = Switched(files)
            switched.refresh()
            folder = runs / name
            folder.mkdir(mode=0o700, parents=True)
            write_json(folder / RUN, asked)
            shadow = Shadow(plan, folder, reach, switched, out, stop=stop)
            summary = shadow.run(pace)
    return summary, 0 if shadow.is_clean else FAILED
