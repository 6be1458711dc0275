"""What nodes tell each other on the channel, as text; and what to make of a notice that cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

KINDS = frozenset("abcde")

SHOWN = 100
"""Bytes of an unreadable notice that the log shows."""


class Notice(NamedTuple):
    """What a node did.

    `kind`: a, the account was changed; b, a write of its roster begins; c, it was changed and nobody knows
    how; d, the write ended with this version; e, anything may have changed.
    """

    kind: str
    node: str
    token: str
    version: int
    account: str

    @property
    def text(self) -> str:
        """What `parse` reads."""
        return f"{self.kind} {self.node} {self.token} {self.version} {self.account}"


def parse(data: bytes) -> Notice:
    """The notice; ValueError if it is none that is known here."""
    kind, node, token, version, account = data.decode().split(" ", 4)
    if kind not in KINDS:
        raise ValueError(f"no notice is of the kind {kind!r}")
    return Notice(kind, node, token, int(version), account)


class Unreadable:
    """Notices that could not be read: anything may have changed. That is costly to follow, so they are taken
    together, at most once in so many `seconds`; the first one at once, and none is left out.
    """

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._due = clock()
        self._count = 0
        self._last = b""

    def add(self, data: bytes) -> None:
        """There is one more."""
        self._count += 1
        self._last = data[:SHOWN]

    def take(self) -> tuple[int, str] | None:
        """How many there were since the last time, and the beginning of the last one in ASCII; None if there
        were none, or it is not time yet.
        """
        now = self._clock()
        if not self._count or now < self._due:
            return None
        self._due = now + self._seconds
        count, self._count = self._count, 0
        return count, repr(self._last)[2:-1]
