"""What became of messages that were not simply delivered: a memory of the last hour, for who asks why."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from xmppd.xml.stanza import Stanza

SECONDS: Final = 3600.0
"""How long it is remembered."""
MOST: Final = 10_000
MOST_BYTES: Final = 4_194_304
"""How much is, at most: of more the oldest is forgotten."""
CHARACTERS: Final = 300
"""Of one text."""
MOST_IDS: Final = 4
OVERHEAD: Final = 400
"""Bytes that an entry takes beside its texts."""

REFUSED, DROPPED, KEPT = "refused", "dropped", "kept"
"""What may become of a message; KEPT: for later, by whom the rule names."""

_IDS: Final = re.compile(rb"<[\w.:-]*(?:stanza|origin)-id\s[^>]*?\bid\s*=\s*(?:'([^']*)'|\"([^\"]*)\")")


class Fate(NamedTuple):
    """What became of one message, at a moment in seconds since the epoch: by which rule, and why. Its ids are
    that of the stanza, of its sender (`origin-id`) and of archives (`stanza-id`). No body is kept.
    """

    at: float
    ids: tuple[str, ...]
    sender: str
    to: str
    type: str
    fate: str
    rule: str
    reason: str


class Fates:
    """The memory of one node. `heard` is told each one as well, for who follows an account; None: nobody."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.heard: Callable[[Fate], None] | None = None
        self._now = now
        self._began = now()
        self._entries: deque[Fate] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def since(self) -> float:
        """From when on all is remembered, in seconds since the epoch."""
        return max(self._began, self._now() - SECONDS)

    def note(self, stanza: Stanza, fate: str, rule: str, reason: str = "", *, sender: str = "") -> None:
        """Remember this of a message. `sender`: its origin, where it may have no `from` yet."""
        entry = Fate(
            self._now(),
            ids_of(stanza),
            (stanza.attrs.get("from") or sender)[:CHARACTERS],
            (stanza.to or "")[:CHARACTERS],
            (stanza.type or "normal")[:CHARACTERS],
            fate,
            rule,
            reason[:CHARACTERS],
        )
        self._entries.append(entry)
        self._bytes += _size(entry)
        self._forget(entry.at)
        if self.heard is not None:
            self.heard(entry)

    def _forget(self, now: float) -> None:
        entries = self._entries
        while entries and (len(entries) > MOST or self._bytes > MOST_BYTES or entries[0].at < now - SECONDS):
            gone = entries.popleft()
            self._bytes -= _size(gone)
            self._began = max(self._began, gone.at)

    def of(self, id: str, sender: str, to: str) -> list[Fate]:
        """What is remembered of messages with this id, of this sender and to this address (bare or full; "":
        any), the oldest first.
        """
        self._forget(self._now())
        return [
            entry
            for entry in self._entries
            if id in entry.ids and _fits(entry.sender, sender) and _fits(entry.to, to)
        ]


def _fits(address: str, wanted: str) -> bool:
    return wanted in ("", address, address.partition("/")[0])


def _size(entry: Fate) -> int:
    texts = len(entry.sender) + len(entry.to) + len(entry.rule) + len(entry.reason)
    return OVERHEAD + texts + sum(map(len, entry.ids))


def ids_of(stanza: Stanza) -> tuple[str, ...]:
    """All that a message may be known by."""
    found = [stanza.id] if stanza.id else []
    if not stanza.is_plain and stanza.raw.find(b"-id") >= 0:
        for one, other in _IDS.findall(stanza.raw):
            found.append((one or other).decode("utf-8", "replace"))
            if len(found) >= MOST_IDS:
                break
    return tuple(text[:CHARACTERS] for text in found)
