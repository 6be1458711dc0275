"""What the client of a managed session was sent and has not acknowledged (XEP-0198 4)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from xmppd.core.cluster import RemoteFellow
from xmppd.core.sessions import Session
from xmppd.xml.stanza import Stanza, read

Fellow = Session | RemoteFellow
"""A session that was sent the same message as another one of its account."""


class Former(NamedTuple):
    """Implements `RemoteFellow`. It is a name that a session has, or had before it moved: whoever asks by it
    does not know where that is now, nor is it known there who asks, so nothing is left to it but what its
    client has acknowledged.
    """

    node: int
    number: int


class Moment(NamedTuple):
    """What was so when the stanzas from number `first` on were sent: the `second` since the epoch, and who
    took messages to the account.
    """

    first: int
    second: int
    takers: tuple[Fellow, ...]


class Unacked(NamedTuple):
    """One stanza that the client may not have, when it was sent, and the other sessions that were sent it if
    it was a message to their account; `is_stored`: it is kept for the account until it was acknowledged.
    """

    raw: bytes
    second: int
    others: tuple[Fellow, ...]
    is_stored: bool = False


class Awaited(NamedTuple):
    """Who is told whether the client has a stanza: with True when it has acknowledged it, with False when
    that is not waited for any more.
    """

    raw: bytes
    told: Callable[[bool], None]
    is_stored: bool


class Outstanding:
    """Stanzas as they were written, `size` bytes in all. There is none for a client that has acknowledged
    everything, as most have most of the time.
    """

    __slots__ = ("_answered", "_moments", "raw", "size")

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        self.size = 0
        self._moments: list[Moment] = []
        self._answered: set[tuple[str, str]] | None = None

    def add(self, stanzas: Sequence[bytes], before: int, second: int, takers: tuple[Fellow, ...]) -> int:
        """More were sent in a second behind `before` others, and to these sessions; how many bytes."""
        moments = self._moments
        if not moments or moments[-1].second != second or moments[-1].takers != takers:
            moments.append(Moment(before, second, takers))
        self.raw += stanzas
        size = sum(map(len, stanzas))
        self.size += size
        return size

    def remove(self, count: int, acked: int) -> int:
        """The first ones were acknowledged, so many in all by now; how many bytes."""
        size = sum(map(len, self.raw[:count]))
        del self.raw[:count]
        self.size -= size
        moments = self._moments
        while len(moments) > 1 and moments[1].first <= acked:
            del moments[0]
        return size

    def answered(self, iq: Stanza) -> None:
        """The client answers a request: so it has that one, though it has not acknowledged it yet."""
        if iq.type not in ("result", "error") or not (iq.to and iq.id):
            return
        if self._answered is None:
            self._answered = set()
        if len(self._answered) < len(self.raw):  # of more than there are it has not
            self._answered.add((iq.to, iq.id))

    def is_answered(self, raw: bytes) -> bool:
        """Whether one of those that are left is a request that the client has answered."""
        if self._answered is None or not raw.startswith(b"<iq"):
            return False
        iq = read(raw)
        return (iq.attrs.get("from", ""), iq.id) in self._answered

    @property
    def second(self) -> int:
        """When the first one was sent."""
        return self._moments[0].second

    def left(self, acked: int, session: Session, stored: Collection[int]) -> Iterator[Unacked]:
        """What is left of a session behind those that were acknowledged, in order; the numbers of those that
        are `stored`.
        """
        moments = iter(self._moments)
        moment = next(moments)
        following = next(moments, None)
        for number, raw in enumerate(self.raw, acked):
            while following is not None and following.first <= number:
                moment, following = following, next(moments, None)
            is_shared = session in moment.takers  # else it was in turn for what was kept, alone
            others = [taker for taker in moment.takers if taker is not session] if is_shared else ()
            yield Unacked(raw, moment.second, tuple(others), number + 1 in stored)
