"""Each place of the layer of games that refuses something, and which of them a run of tests has come to."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from xmppd.errors import StanzaError

ROOT: Final = Path(__file__).parents[2]
PLUGINS: Final = ROOT / "plugins" / "game"
come_to: Final[set[tuple[str, int]]] = set()
"""Files and lines at which refusals were made."""


class Refusal(NamedTuple):
    """Where a StanzaError is made: a file, from which line to which, and how."""

    file: str
    first: int
    last: int
    how: str

    @property
    def is_provoked(self) -> bool:
        """Whether any test came here."""
        return any((self.file, line) in come_to for line in range(self.first, self.last + 1))

    @property
    def name(self) -> str:
        """The file, below the plugins for games, and how it is made."""
        return f"{self.file.removeprefix('plugins/game/')}: {self.how}"

    def __str__(self) -> str:
        return f"{self.file}:{self.first}: {self.how}"


def refusals() -> Iterator[Refusal]:
    """All of the plugins for games."""
    for place in sorted(PLUGINS.rglob("*.py")):
        tree = ast.parse(place.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == StanzaError.__name__:
                last = node.end_lineno or node.lineno
                made = ast.unparse(node).removeprefix("StanzaError(").removesuffix(")")
                yield Refusal(str(place.relative_to(ROOT)), node.lineno, last, made)


def record() -> None:
    """Note from now on where each is made."""
    make = StanzaError.__init__

    def noted(self: StanzaError, *args: Any, **named: Any) -> None:
        caller = sys._getframe(1)
        place = Path(caller.f_code.co_filename)
        if PLUGINS in place.parents:
            come_to.add((str(place.relative_to(ROOT)), caller.f_lineno))
        make(self, *args, **named)

    StanzaError.__init__ = noted  # type: ignore[method-assign]
