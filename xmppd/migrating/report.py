"""What a run did, account by account: the report, which is the run's memory too.

A run has a folder of its own: `run.json` with what was asked for, `report.jsonl` with a line for each account
of the source in its order, on disk after the store has what it speaks of, and at the end `summary.json` and
`must-reset.txt`, a list of accounts without keys. So
who goes on with a run that was killed skips as many accounts as there are lines.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from xmppd.errors import CommandError

RUN, LINES, SUMMARY, RESETS = "run.json", "report.jsonl", "summary.json", "must-reset.txt"
SAMPLES = 5
"""How many cases of one kind the summary shows."""


class Report:
    """The report of one run in its folder. `done` is how many accounts of the source are in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done = 0
        self.outcomes: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self.samples: dict[str, list[str]] = {}
        self.contacts = 0
        self._file = None if not (folder / RUN).exists() else self._reopened()

    @staticmethod
    def begin(folder: Path, asked: Mapping[str, Any]) -> Report:
        """A new run; CommandError where there is one of that name."""
        try:
            folder.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            raise CommandError(f"{folder} is there already: --resume goes on with that run") from None
        write_json(folder / RUN, asked)
        return Report(folder)

    @property
    def asked(self) -> dict[str, Any]:
        """What was asked for when the run began; CommandError where there is no such run."""
        return read_json(self.folder / RUN)

    def _reopened(self) -> Any:
        """Read what is there, and cut off a line that was being written when the run ended."""
        path = self.folder / LINES
        file = path.open("a+b")
        file.seek(0)
        whole = 0
        for line in file:
            if not line.endswith(b"\n"):
                break
            self._count(json.loads(line))
            whole += len(line)
        file.truncate(whole)
        file.seek(0, os.SEEK_END)
        return file

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """The next accounts; on disk when this returns. A row has `name` (in the source), `done`, and what
        there is to say of `account`, `kinds`, `contacts`, `notes`, `why`, `where`.
        """
        assert self._file is not None
        for row in rows:
            self._count(row)
            text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
            self._file.write(text.encode("utf-8", "backslashreplace") + b"\n")
        self._file.flush()
        os.fdatasync(self._file.fileno())

    def _count(self, row: Mapping[str, Any]) -> None:
        self.done += 1
        self.outcomes[row["done"]] += 1
        self.contacts += row.get("contacts", 0)
        for kind, detail in row.get("notes", ()):
            self.note(kind, f"{row.get('account') or row['name']}: {detail}" if detail else row["name"])
        if row["done"] in ("refused", "failed", "unreadable"):
            self.note(row["done"], f"{row['name']}: {row.get('why', '')}")

    def note(self, kind: str, sample: str) -> None:
        """Count one case."""
        self.notes[kind] += 1
        kept = self.samples.setdefault(kind, [])
        if len(kept) < SAMPLES:
            kept.append(sample)

    @property
    def is_clean(self) -> bool:
        """Whether every account of the source stands here now, as far as it can."""
        return not any(self.outcomes[word] for word in ("refused", "failed", "unreadable"))

    def end(self, losses: Mapping[str, Any]) -> dict[str, Any]:
        """Write the summary, and return it; `losses` is what the reader could not take over, by kind."""
        summary = {
            "run": self.folder.name,
            "accounts": self.done,
            "contacts": self.contacts,
            **dict(sorted(self.outcomes.items())),
            "notes": dict(sorted(self.notes.items())),
            "lost": {kind: loss["count"] for kind, loss in sorted(losses.items())},
            "report": str(self.folder / LINES),
        }
        self._list_resets()
        write_json(self.folder / SUMMARY, {**summary, "samples": self.samples, "losses": losses})
        return summary

    def _list_resets(self) -> None:
        """The accounts that nobody can log in to until they have a new password, one on each line."""
        lines, resets = self.folder / LINES, self.folder / RESETS
        with lines.open("rb") as rows, resets.open("w", encoding="utf-8") as file:
            for line in rows:
                if b"must-reset" in line and has_note(row := json.loads(line), "must-reset"):
                    file.write(f"{row['account']}\n")

    def close(self) -> None:
        """Let go of the file; harmless if repeated."""
        if self._file is not None:
            self._file.close()


def has_note(row: Mapping[str, Any], kind: str) -> bool:
    """Whether a line of the report has a note of this kind."""
    return any(found == kind for found, _ in row.get("notes", ()))


def write_json(path: Path, value: Any) -> None:
    """Write a file so that it is whole or not there."""
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """A file of ours; CommandError."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CommandError(f"there is no run in {path.parent}") from None
    except (OSError, ValueError) as error:
        raise CommandError(f"{path}: {error}") from None
    return found
