"""From whom an account hides, and since when it looks gone to them: plain values, without a server.

Whoever it hides from sees it leave at that moment, and nothing newer: so `since` never moves for somebody as
long as anything hides from him, whatever other rules come and go meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

ALL: Final = "all"
GROUP: Final = "group"
FRIEND: Final = "friend"
KINDS: Final = (ALL, GROUP, FRIEND)

Groups = Mapping[str, tuple[str, ...]]
"""The contacts of an account, each with the groups that it has him in."""


class Rule(NamedTuple):
    """`since`: seconds since the epoch, 0.0: it was never there. One that is not `is_on` only says since when
    a friend sees nothing whom another rule is about.
    """

    since: float
    is_on: bool = True


Key = tuple[str, str]
"""The kind of a rule and whom it names, "" for all."""


@dataclass(frozen=True, slots=True)
class Away:
    """Since when an account looks gone: to `others` (None: not at all), and to those that are `named`."""

    others: float | None = None
    named: Mapping[str, float] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.others is not None or bool(self.named)

    def since(self, viewer: str) -> float | None:
        """To one account; None: it looks as it is."""
        return self.named.get(viewer, self.others)


def away_of(rules: Mapping[Key, Rule], groups: Groups) -> Away:
    """What rules come to."""
    of_all = rules.get((ALL, ""))
    others = of_all.since if of_all is not None and of_all.is_on else None
    named = {}
    viewers = {*groups, *(name for kind, name in rules if kind == FRIEND)}
    for viewer in viewers:
        since = _since(rules, viewer, groups.get(viewer, ()), others)
        if since is not None and since != others:
            named[viewer] = since
    return Away(others, named)


def _since(
    rules: Mapping[Key, Rule], viewer: str, groups: Iterable[str], others: float | None
) -> float | None:
    own = rules.get((FRIEND, viewer))
    found = [rule.since for name in groups if (rule := rules.get((GROUP, name))) is not None and rule.is_on]
    if others is not None:
        found.append(others)
    if own is not None and (own.is_on or found):
        return own.since
    return min(found, default=None)


def changed(
    rules: Mapping[Key, Rule], groups: Groups, wanted: Iterable[Key], after: Groups, gone: float
) -> dict[Key, Rule]:
    """The rules when those that are `wanted` hold and no others, and the contacts are in the groups `after`.
    `gone`: since when somebody sees it gone who did not before.
    """
    before = away_of(rules, groups)
    now: dict[Key, Rule] = {}
    for kind, name in wanted:
        held = rules.get((kind, name))
        if held is not None and held.is_on:
            now[kind, name] = held
        elif kind == FRIEND:
            since = before.since(name)
            now[kind, name] = Rule(gone if since is None else since)
        else:
            now[kind, name] = Rule(gone)
    then = away_of(now, after)
    viewers = {*groups, *after, *before.named, *(name for kind, name in now if kind == FRIEND)}
    for viewer in viewers:
        since = then.since(viewer)
        if since is None:
            continue
        was = before.since(viewer)
        due = gone if was is None else was
        if due != since:
            key = FRIEND, viewer
            now[key] = Rule(due, key in now and now[key].is_on)
    return now


def differing(one: Away, other: Away, viewers: Iterable[str]) -> tuple[list[str], list[str]]:
    """Of some accounts those to whom it looks gone by the other alone, and those by the one alone."""
    gone: list[str] = []
    back: list[str] = []
    for viewer in viewers:
        was, is_now = one.since(viewer) is not None, other.since(viewer) is not None
        if was != is_now:
            (gone if is_now else back).append(viewer)
    return gone, back
