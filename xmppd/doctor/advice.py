"""What was looked at, how it is, and what to do about it."""

from __future__ import annotations

from typing import Literal, NamedTuple

Level = Literal["ok", "note", "warning", "error"]
"""`note`: may be meant so. `warning`: some will suffer. `error`: nobody gets in, or anybody does."""

LEVELS: tuple[Level, ...] = ("error", "warning", "note", "ok")

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
"""Where only this machine gets to."""


class Advice(NamedTuple):
    """One finding: of what it is, in a sentence, and what to do, "" where nothing is to be done."""

    level: Level
    about: str
    found: str
    do: str = ""
