"""What is under way to the sessions of an account on other nodes: each message, and all that was sent."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

from xmppd.core.delivery import KEEPABLE
from xmppd.core.later import Told
from xmppd.core.outcomes import outcome_of
from xmppd.core.sessions import Session
from xmppd.errors import StanzaError
from xmppd.hooks import Drop, Outcome
from xmppd.jid import Jid
from xmppd.xml.stanza import Stanza

TRIES: Final = 3
"""How often a message is sent before it is stored, though somebody seems to be there."""

FLUSHING: Final = "resource-constraint"
"""Why a message is missed that has to be stored behind those that its receiver is just being given."""


class Sending(Protocol):
    """Who sends parcels."""

    def settled(self, parcel: Parcel) -> None:
        """A copy was taken."""

    def missed(self, parcel: Parcel) -> None:
        """Nobody took a copy."""

    def lost(self, parcel: Parcel) -> None:
        """The node is lost where a session had its only copy, and its client not."""

    def second(self) -> int:
        """The whole seconds since the epoch."""


class Parcel(Told):
    """One message of `sender` on its way to one account: the letter of each of its copies, and what its
    sender need not wait for. `left`: copies that are neither settled nor missed; `together`: see `UnderWay`.
    `is_due`: it has to be stored, whoever is there; `is_unkept`: that was tried, and nobody keeps it;
    `is_back`: it was not stored, and is to be looked at again; `is_slow`: too much is on its way where it
    goes, so its sender has to wait for it; `opened_at`: since when a session has its only copy whose client
    has not acknowledged it, 0: none has. `gone_to`: to whom it was sent here, and to which nodes, if others
    of the account may want copies of it (XEP-0280); `was_copied`: they have had them.
    """

    __slots__ = (
        "gone_to",
        "is_back",
        "is_due",
        "is_slow",
        "is_unkept",
        "kind",
        "left",
        "number",
        "opened_at",
        "sender",
        "sending",
        "stanza",
        "to",
        "together",
        "tries",
        "was_copied",
        "was_taken",
    )

    def __init__(self, sending: Sending, stanza: Stanza, to: Jid, kind: str, number: int) -> None:
        self.size = len(stanza.raw)
        self.is_over = False
        self.outcome = self.error = self.refuse = self.on_end = self._line = self._future = None
        self.sending = sending
        self.stanza = stanza
        self.sender = stanza.attrs.get("from", "")
        self.to = to
        self.kind = kind
        self.number = number
        self.left = 0
        self.together = 0
        self.tries = 0
        self.opened_at = 0
        self.was_taken = False
        self.was_copied = False
        self.gone_to: tuple[tuple[Session, ...], set[int]] | None = None
        self.is_due = False
        self.is_slow = False
        self.is_unkept = False
        self.is_back = False

    @property
    def is_tired(self) -> bool:
        """Whether it is to be stored, though somebody seems to be there."""
        is_due = self.is_due or self.tries >= TRIES
        return is_due and not self.is_unkept and self.kind in KEEPABLE

    def opened(self) -> None:
        """A session has it; it is kept here until its client has it, too."""
        self.opened_at = self.sending.second()
        self.sending.settled(self)

    def settled(self) -> None:
        """A session has a copy, or the client of one that had it already."""
        if not self.opened_at:
            self.sending.settled(self)

    def stored(self, end: asyncio.Future[Outcome | Drop]) -> None:
        """It is stored, and whoever came meanwhile has heard of it; or it is not."""
        if end.cancelled():
            return
        error = end.exception()
        if error is None:
            self.ended(outcome_of(end.result()))
        elif isinstance(error, Exception):
            self.failed(error)

    def missed(self, error: StanzaError) -> None:
        """No session has it."""
        if self.opened_at:
            self.sending.lost(self)
            return
        if error.condition == FLUSHING:
            self.is_due = True
        self.sending.missed(self)


class Detour:
    """Messages for one account wait in `waiting` until all copies under way are settled or missed
    (`must_wait`), and all that is to be stored is; what was `missed` goes before them. `idle` is done when
    nothing is under way.
    """

    __slots__ = ("idle", "is_draining", "missed", "must_wait", "waiting")

    def __init__(self) -> None:
        self.must_wait = True
        self.is_draining = False
        self.missed: list[Parcel] = []
        self.waiting: deque[Parcel] = deque()
        self.idle: asyncio.Future[None] | None = None

    @property
    def first(self) -> Parcel | None:
        """Whose turn it is."""
        if self.missed:
            return min(self.missed, key=_number)
        return self.waiting[0] if self.waiting else None

    def becomes_idle(self) -> asyncio.Future[None]:
        """Done when nothing is under way."""
        self.idle = asyncio.get_running_loop().create_future()
        return self.idle


class UnderWay:
    """What was sent to one account's sessions on other nodes, and what is being stored for it: `count` in
    all, of which so many are `storing`. New messages take the `detour` while there is one. While something
    `is_kept_by_force` nobody counts as there. `takers` are those that took messages here when the first of
    these was sent; `latest`: by sender, the last of his messages, which knows how many of his are `together`
    among these, all to one address of the account, bare or full.
    """

    __slots__ = ("count", "detour", "is_kept_by_force", "latest", "storing", "takers")

    def __init__(self) -> None:
        self.count = self.storing = 0
        self.detour: Detour | None = None
        self.is_kept_by_force = False
        self.takers: tuple[Session, ...] = ()
        self.latest: dict[str, Parcel] = {}

    def add(self, parcel: Parcel) -> None:
        """The first copy of one is sent."""
        before = self.latest.get(parcel.sender)
        parcel.together = 1 if before is None else before.together + 1
        self.latest[parcel.sender] = parcel

    def drop(self, parcel: Parcel) -> None:
        """All copies have come back."""
        latest = self.latest[parcel.sender]
        latest.together -= 1
        if not latest.together:
            del self.latest[parcel.sender]

    def is_ahead(self, parcel: Parcel) -> bool:
        """Whether something by this sender is under way that takes another way."""
        latest = self.latest.get(parcel.sender)
        return latest is not None and latest.to.full != parcel.to.full


def _number(parcel: Parcel) -> int:
    return parcel.number
