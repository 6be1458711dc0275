"""Regular expressions that a text is held against, for a time that is bounded: an expression may be such that
a short text keeps it busy for years, and neither operators nor players are to find out which.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from time import process_time
from typing import Any, Final, NamedTuple

from .words import ACTIONS, BadList

MOST: Final = 50
"""Places in one text."""


class Pattern(NamedTuple):
    """One expression, compiled, and what is done about a text that has it."""

    compiled: Any
    action: str


class TooLong(Exception):
    """A text took too long."""


def patterns_of(lines: Iterable[str], name: str, action: str, engine: Any) -> Iterator[Pattern]:
    """The expressions of a file, one a line, below `[ACTION]` and between `# remarks`; BadList. `engine` is
    the module that knows them.
    """
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if text[1:-1] in ACTIONS and text == f"[{text[1:-1]}]":
            action = text[1:-1]
            continue
        try:
            yield Pattern(engine.compile(text, engine.IGNORECASE), action)
        except engine.error as error:
            raise BadList(f"{name}:{number}: {error}") from None


def found(patterns: Sequence[Pattern], text: str, seconds: float) -> list[tuple[int, int, str]]:
    """Where they match, and what is done about it, within so many seconds of the processor; TooLong."""
    places: list[tuple[int, int, str]] = []
    end = process_time() + seconds
    for pattern in patterns:
        left = end - process_time()
        if left <= 0:
            raise TooLong
        try:
            for match in pattern.compiled.finditer(text, timeout=left):
                places.append((*match.span(), pattern.action))
                if len(places) > MOST:
                    raise TooLong
        except TimeoutError:
            raise TooLong from None
    return places
