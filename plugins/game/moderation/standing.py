"""Sanctions: what an account may not do, where, and until when."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, Self

Kind = Literal["mute", "chat-limit", "ban"]
KINDS: Final = ("mute", "chat-limit", "ban")
SCOPES: Final = ("all", "direct", "groups")
"""Everything that others may hear; messages to one; messages to rooms."""
MOST: Final = 1_000
"""Sanctions that are remembered of one account; the oldest are not looked at."""


class Sanction(NamedTuple):
    """One of an account. Moments are seconds since the epoch; `until` None: for ever. `by` is who imposed it,
    `note` what is said of an appeal, `case` the report that it comes from ("": none), `lifted` when it was
    ended before its time, by `lifted_by`.
    """

    id: str
    kind: str
    scope: str
    since: float
    until: float | None
    reason: str
    note: str
    by: str
    case: str
    lifted: float | None = None
    lifted_by: str = ""

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Self:
        """As it is kept."""
        return cls(
            row["id"],
            row["kind"],
            row["scope"],
            row["since"],
            row["until"],
            row["reason"] or "",
            row["note"] or "",
            row["by"] or "",
            row["case"] or "",
            row["lifted"],
            row["lifted_by"] or "",
        )

    def row(self, account: str) -> dict[str, Any]:
        """As it is kept."""
        return {"account": account, **self._asdict()}

    def holds(self, now: float) -> bool:
        """Whether it is in force."""
        return self.lifted is None and (self.until is None or self.until > now)


class Standing(tuple[Sanction, ...]):
    """The sanctions of one account that were in force when they were read."""

    __slots__ = ()

    def of(self, kind: str, now: float, scope: str = "") -> Sanction | None:
        """The one of this kind that lasts longest, of those that hold for a scope ("": any)."""
        found = [
            it
            for it in self
            if it.kind == kind and it.holds(now) and (not scope or it.scope in ("all", scope))
        ]
        return max(found, key=lambda it: math.inf if it.until is None else it.until, default=None)

    def is_over(self, now: float) -> bool:
        """Whether nothing of it is in force any more."""
        return not any(it.holds(now) for it in self)

    @property
    def plain(self) -> list[list[Any]]:
        """As JSON can hold it."""
        return [list(it) for it in self]


def standing_of(rows: Iterable[Mapping[str, Any]], now: float) -> Standing:
    """What is in force of what is kept."""
    return Standing(it for it in map(Sanction.of_row, rows) if it.holds(now))


def standing_from(plain: Iterable[Sequence[Any]]) -> Standing:
    """What another node, or an older instance, said by `plain`."""
    return Standing(Sanction(*it) for it in plain)


def is_about(sanction: Sanction, is_group: bool) -> bool:
    """Whether it is about messages of this sort."""
    return sanction.scope == "all" or (sanction.scope == "groups") is is_group
