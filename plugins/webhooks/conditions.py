"""Conditions on events: what stands at a path of the JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from xmppd.plugin import CommandError

_PATH: Final = re.compile(
    r"(?:\$\.)?([A-Za-z_][\w-]*(?:\.[A-Za-z_][\w-]*|\[\d{1,4}\])*)(?:(!=|\^=|=)(.*))?", re.DOTALL
)
_STEP: Final = re.compile(r"[A-Za-z_][\w-]*|\[\d+\]")
LONGEST: Final = 500


@dataclass(frozen=True, slots=True)
class Condition:
    """`PATH`: there is a value that is not null, false or empty; `PATH=VALUE`, `PATH!=VALUE`; `PATH^=VALUE`:
    the text begins with that. A path is like `data.after.groups[0]`.
    """

    text: str
    path: tuple[str | int, ...]
    operator: str
    value: str

    def holds(self, event: Mapping[str, Any]) -> bool:
        """Whether it does of an event as JSON has it."""
        found: Any = event
        for step in self.path:
            if isinstance(step, int):
                found = found[step] if isinstance(found, Sequence) and step < len(found) else None
            else:
                found = found.get(step) if isinstance(found, Mapping) else None
        if not self.operator:
            return bool(found)
        told = found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
        if self.operator == "^=":
            return isinstance(found, str) and told.startswith(self.value)
        return (told == self.value) is (self.operator == "=")


def condition(text: str) -> Condition:
    """The condition that somebody wrote; CommandError."""
    found = _PATH.fullmatch(text) if len(text) <= LONGEST else None
    if found is None:
        raise CommandError(
            f"{text[:100]!r} is no condition: that is like data.type=chat", field="where", rule="parameter"
        )
    steps = tuple(int(step[1:-1]) if step[0] == "[" else step for step in _STEP.findall(found[1]))
    return Condition(text, steps, found[2] or "", found[3] or "")
