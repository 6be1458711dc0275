"""What the client of a managed session was sent and has not acknowledged (XEP-0198 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from xmppd.core.cluster import RemoteFellow
from xmppd.core.sessions import Session

Fellow = Session | RemoteFellow
"""A session that was sent the same message as another one of its account."""


class Moment(NamedTuple):
    """What was so when the stanzas from number `first` on were sent: the `second` since the epoch, and who
    took messages to the account.
    """

    first: int
    second: int
    takers: tuple[Fellow, ...]


class Unacked(NamedTuple):
    """One stanza that the client may not have, when it was sent, and the other sessions that were sent it if
    it was a message to their account.
    """

    raw: bytes
    second: int
    others: tuple[Fellow, ...]


class Outstanding:
    """Stanzas as they were written, `size` bytes in all, and whom to tell when the client has one of them.
    There is none for a client that has acknowledged everything, as most have most of the time.
    """

    __slots__ = ("_moments", "_told", "raw", "size")

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        self.size = 0
        self._moments: list[Moment] = []
        self._told: list[tuple[int, Callable[[], None]]] | None = None

    def add(self, stanzas: Sequence[bytes], before: int, second: int, takers: tuple[Fellow, ...]) -> int:
        """More were sent in a second behind `before` others, and to these sessions; how many bytes."""
        moments = self._moments
        if not moments or moments[-1].second != second or moments[-1].takers != takers:
            moments.append(Moment(before, second, takers))
        self.raw += stanzas
        size = sum(map(len, stanzas))
        self.size += size
        return size

    def tell(self, number: int, told: Callable[[], None]) -> None:
        """Tell when this one was acknowledged, which is the last so far."""
        if self._told is None:
            self._told = []
        self._told.append((number, told))

    def remove(self, count: int, acked: int) -> int:
        """The first ones were acknowledged, so many in all by now; how many bytes."""
        size = sum(map(len, self.raw[:count]))
        del self.raw[:count]
        self.size -= size
        moments = self._moments
        while len(moments) > 1 and moments[1].first <= acked:
            del moments[0]
        return size

    def told(self, acked: int | None = None) -> Iterator[Callable[[], None]]:
        """Whom to tell now that so many were acknowledged, or None waits any more."""
        told = self._told
        while told and (acked is None or told[0][0] <= acked):
            yield told.pop(0)[1]

    def is_from(self, second: int) -> bool:
        """Whether the first one was sent after that second."""
        return self._moments[0].second > second

    def left(self, acked: int, session: Session) -> Iterator[Unacked]:
        """What is left of a session behind those that were acknowledged, in order."""
        moments = iter(self._moments)
        moment = next(moments)
        following = next(moments, None)
        for number, raw in enumerate(self.raw, acked):
            while following is not None and following.first <= number:
                moment, following = following, next(moments, None)
            is_shared = session in moment.takers  # else it was in turn for what was kept, alone
            others = [taker for taker in moment.takers if taker is not session] if is_shared else ()
            yield Unacked(raw, moment.second, tuple(others))
