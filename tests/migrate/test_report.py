"""The report of a run, which is its memory."""

from pathlib import Path

import pytest

from xmppd.errors import CommandError
from xmppd.migrating.report import Report

ROWS = [
    {"name": "a@x", "account": "a@x", "done": "made", "contacts": 3, "kinds": ["roster"]},
    {"name": "b@x", "done": "refused", "why": "it cannot be"},
    {"name": "c@x", "account": "c@x", "done": "made", "notes": [["must-reset", "no keys"]]},
]


def test_a_run_is_gone_on_with_behind_its_last_whole_line(tmp_path: Path) -> None:
    report = Report.begin(tmp_path / "run", {"source": "s"})
    report.add(ROWS[:2])
    report.close()
    path = tmp_path / "run" / "report.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"name": "c@x", "do')
    again = Report(tmp_path / "run")
    assert (again.done, again.contacts, dict(again.outcomes)) == (2, 3, {"made": 1, "refused": 1})
    assert path.read_bytes() == whole
    again.add(ROWS[2:])
    summary = again.end({"pep-node": {"count": 2, "samples": []}})
    assert summary == {
        "run": "run",
        "accounts": 3,
        "contacts": 3,
        "made": 2,
        "refused": 1,
        "notes": {"must-reset": 1, "refused": 1},
        "lost": {"pep-node": 2},
        "report": str(path),
    }
    assert not again.is_clean
    assert (tmp_path / "run" / "must-reset.txt").read_text() == "c@x\n"


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    Report.begin(tmp_path / "run", {})
    with pytest.raises(CommandError, match="--resume"):
        Report.begin(tmp_path / "run", {})


def test_there_is_no_such_run(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no run"):
        _ = Report(tmp_path / "nothing").asked


def test_it_is_nobody_elses_business(tmp_path: Path) -> None:
    Report.begin(tmp_path / "run", {})
    assert (tmp_path / "run").stat().st_mode & 0o077 == 0
