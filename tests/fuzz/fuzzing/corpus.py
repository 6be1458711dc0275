"""Kept cases: small text files of operations, one a line as JSON, with remarks behind `#`."""

from __future__ import annotations

import json
from pathlib import Path

from fuzzing.arena import Op

FOLDER = Path(__file__).parents[1] / "corpus"


def read(path: Path) -> list[Op]:
    """The operations in a file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line and not line.startswith("#")]


def write(path: Path, ops: list[Op], remarks: list[str]) -> None:
    """Keep operations in a file."""
    head = [f"# {line}" for remark in remarks for line in remark.splitlines()]
    path.write_text("\n".join([*head, *map(json.dumps, ops)]) + "\n", encoding="utf-8")
