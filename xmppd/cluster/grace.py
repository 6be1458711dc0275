"""Sessions that ended with their node, when that was told to stop: their clients are expected on other nodes,
and their contacts are not shown the end before the grace is over. If they come in time, it is never shown.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

SESSIONS: Final = 50_000
PAIRS: Final = 250_000
"""How many sessions are expected, and pairs of one and an account or address here. The ends of more are shown
at once.
"""

BACK_SECONDS: Final = 3.0
"""How long who is back has to send directed presence again, before those who had some see that end."""

LOOK_SECONDS: Final = 1.0
"""For how long at least those whose grace is over are gathered."""


class Expected:
    """One session until `deadline`. `accounts` here were shown its presence, `addresses` its directed
    presence, and none of them its end. `successor`: another full JID by which its account has come since.
    """

    __slots__ = ("accounts", "addresses", "deadline", "successor")

    def __init__(self) -> None:
        self.accounts: set[str] = set()
        self.addresses: set[str] = set()
        self.deadline = 0.0
        self.successor = ""

    def __len__(self) -> int:
        return len(self.accounts) + len(self.addresses)

    def names(self, *, is_directed: bool) -> set[str]:
        """Those who were shown the one or the other."""
        return self.addresses if is_directed else self.accounts


class Grace:
    """Those that are expected, by full JID (`sessions`); of `seconds` 0 there are none. `over` is given those
    that did not come, and takes (`take`) one after the other; `is_back` is given one that did, or has a
    successor, and the addresses that were not sent directed presence again.
    """

    def __init__(
        self,
        seconds: float,
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
        over: Callable[[Sequence[str]], None],
        is_back: Callable[[str, Collection[str]], None],
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._call_later = call_later
        self._over = over
        self._is_back = is_back
        self.sessions: dict[str, Expected] = {}
        self._of: dict[str, tuple[str, ...]] = {}  # by account
        self._pairs = 0
        self._is_timed = False

    def __bool__(self) -> bool:
        return bool(self.sessions)

    def __len__(self) -> int:
        """How many pairs are remembered."""
        return self._pairs

    # ends that are not shown

    def hold(self, full: str, name: str, *, is_directed: bool = False) -> bool:
        """A session has ended that an account here was shown, or that sent an address directed presence.
        False: the end has to be shown now.
        """
        is_new = full not in self.sessions
        if not self._seconds or self._pairs >= PAIRS or (is_new and len(self.sessions) >= SESSIONS):
            return False
        expected = self.sessions.pop(full, None) or Expected()
        expected.deadline = self._clock() + self._seconds
        self.sessions[full] = expected  # behind all others, which are due before it
        self._pairs -= len(expected)
        expected.names(is_directed=is_directed).add(name)
        self._pairs += len(expected)
        if is_new:
            account = full.partition("/")[0]
            self._of[account] = (*self._of.get(account, ()), full)
        if not self._is_timed:
            self._look_later(self._seconds)
        return True

    # who came

    def came(self, full: str) -> None:
        """A session has become available, here or elsewhere. If it is not expected itself, those of its
        account that are have a successor.
        """
        if full in self.sessions:
            self._look_back_later(full)
            return
        for other in self._of.get(full.partition("/")[0], ()):
            self.sessions[other].successor = full
            self._look_back_later(other)

    def _look_back_later(self, full: str) -> None:
        expected = self.sessions[full]
        if expected.addresses:
            deadline = expected.deadline
            self._call_later(BACK_SECONDS, lambda: self._look_back(full, deadline))

    def _look_back(self, full: str, deadline: float) -> None:
        """A session came so long ago, if it has not moved again since."""
        expected = self.sessions.get(full)
        if expected is not None and expected.deadline == deadline and expected.addresses:
            addresses, expected.addresses = expected.addresses, set()
            self._pairs -= len(addresses)
            if not len(expected):
                self._drop(full)
            self._is_back(full, addresses)

    def is_about(self, full: str) -> bool:
        """Whether the session is expected, or the successor of one that is."""
        return full in self.sessions or bool(self._replaced(full))

    def _replaced(self, full: str) -> list[str]:
        names = self._of.get(full.partition("/")[0], ())
        return [other for other in names if self.sessions[other].successor == full]

    def shown(self, full: str, account: str) -> Sequence[str]:
        """An account here was shown the presence of a session: that it was away is not shown any more. Those
        whose end has to be shown now, for this one is their successor.
        """
        self.forget(full, account)
        replaced = [other for other in self._replaced(full) if account in self.sessions[other].accounts]
        for other in replaced:
            self.forget(other, account)
        return replaced

    def forget(self, full: str, name: str, *, is_directed: bool = False) -> None:
        """An account or address here knows what became of a session. Harmless if none was expected."""
        expected = self.sessions.get(full)
        if expected is None:
            return
        names = expected.names(is_directed=is_directed)
        if name in names:
            names.remove(name)
            self._pairs -= 1
            if not len(expected):
                self._drop(full)

    def _drop(self, full: str) -> Expected:
        expected = self.sessions.pop(full)
        self._pairs -= len(expected)
        account = full.partition("/")[0]
        left = tuple(other for other in self._of[account] if other != full)
        if left:
            self._of[account] = left
        else:
            del self._of[account]
        return expected

    # who did not come

    def take(self, full: str) -> Expected | None:
        """Expect a session no more if its grace is over."""
        expected = self.sessions.get(full)
        if expected is None or expected.deadline > self._clock():
            return None
        return self._drop(full)

    def _look_later(self, seconds: float) -> None:
        self._is_timed = True
        self._call_later(max(seconds, LOOK_SECONDS), self._look)

    def _look(self) -> None:
        self._is_timed = False
        if late := [*self._late()]:
            self._over(late)
        if (first := next(iter(self.sessions.values()), None)) is not None:
            self._look_later(first.deadline - self._clock())

    def _late(self) -> Iterator[str]:
        now = self._clock()
        for full, expected in self.sessions.items():
            if expected.deadline > now:
                break
            yield full
