"""What was stored for somebody who came meanwhile on another node: whoever stored tells that node, and
there it is looked for once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from xmppd.cluster.member import Member
from xmppd.cluster.mesh import Mesh
from xmppd.cluster.records import Hint
from xmppd.core.sessions import Sessions
from xmppd.errors import StanzaError

STORED_SECONDS: Final = 30.0
"""How long it is remembered for whom something was stored, so that who comes is told."""

STORED: Final = 10_000
"""Of how many accounts."""

YOUNG_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 6.0
"""When a node is lost, sessions that are younger are looked at: at once, for what that node stored for them
and did not tell comes before what is sent now; and so much later, when what it was about to store is there.
"""

CUT_SECONDS: Final = 86_400.0
"""For how long a node that fell silent may be one that is cut off: what is stored meanwhile is remembered
until it is met again.
"""
UNMET_SECONDS: Final = 600.0
"""The same of one that was never met, since it was last seen on the list: others may have met it."""

LOOKS: Final = 100
LOOKS_SECONDS: Final = 0.1
"""How many accounts are looked at in so long, where all have to be: each look reads the store once."""


class Told:
    """The letter of a hint to `count` nodes: `end` is done when each has it. Where one is lost, its messages
    go elsewhere, and so does the hint.
    """

    __slots__ = ("_again", "count", "end")

    def __init__(self, again: Callable[[Told], None]) -> None:
        self._again = again
        self.count = 0
        self.end: asyncio.Future[None] | None = None

    def opened(self) -> None:
        """No hint is in a queue."""

    def settled(self) -> None:
        """A node has it."""
        self.count -= 1
        if not self.count and self.end is not None and not self.end.done():
            self.end.set_result(None)

    def missed(self, error: StanzaError) -> None:
        """A node is lost."""
        self._again(self)
        self.settled()


class Hints:
    """`look` has what is stored for an account looked for, for its sessions here, before anything else that
    comes for them.

    `_stored`: until when it is remembered for whom something was stored. While a node is cut off nobody is
    forgotten, unless there are too many (`_has_forgotten`); `_cut` are lives of such nodes, and of those that
    were not met yet, by name and incarnation, with the time until which each counts. `is_listed` says whether
    this life of a node, by name and incarnation, is said to be there: then others may reach it that is cut
    off from here.
    """

    def __init__(
        self,
        mesh: Mesh,
        sessions: Sessions,
        look: Callable[[str], None],
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
        now: Callable[[], float],
    ) -> None:
        self._mesh = mesh
        self._sessions = sessions
        self._look = look
        self._clock = clock
        self._call_later = call_later
        self._now = now
        self.is_listed: Callable[[str, int], bool] = lambda name, incarnation: True
        self._stored: dict[str, float] = {}
        self._cut: dict[tuple[str, int], float] = {}
        self._has_forgotten = False

    def kept(self, account: str, resource: str = "") -> asyncio.Future[None] | None:
        """See `Cluster.kept`."""
        self._stored.pop(account, None)
        self._stored[account] = self._clock() + STORED_SECONDS
        self._forget()
        if self._cut or self._mesh.quiet:
            for member in self._between():  # nobody waits for that: there may be much to store just then
                self._mesh.send(member, Hint(account), len(account) + 16)
        return self._tell(account, resource)

    def listed(self, name: str, incarnation: int) -> None:
        """This life of a node is there: until it is met it may be one that is cut off from here."""
        member = self._mesh.members.get(name)
        is_met = member is not None and member.incarnation == incarnation
        if not (is_met or self._mesh.has_ended(incarnation)):
            life = name, incarnation  # beside one that was cut off: what that one stored is not told
            self._cut[life] = max(self._cut.get(life, 0.0), self._clock() + UNMET_SECONDS)

    def _between(self) -> Sequence[Member]:
        """All who may reach one that is cut off from here."""
        quiet = self._mesh.quiet
        if not quiet and not any(self.is_listed(*life) for life in self._cut):
            return ()
        return [member for member in self._mesh.present() if member not in quiet]

    def _forget(self) -> None:
        """Those whose time is over, and those that are too many."""
        now = self._clock()
        for life in [life for life, until in self._cut.items() if until < now]:
            del self._cut[life]
        while self._stored:
            account, until = next(iter(self._stored.items()))
            is_over = until <= now and not self._cut
            if not is_over and len(self._stored) <= STORED:
                break
            self._has_forgotten = bool(self._cut)
            del self._stored[account]

    def _tell(self, account: str, resource: str = "") -> asyncio.Future[None] | None:
        """Done when all that messages to the account go to know, and the resource that one is for; None where
        they do.
        """
        told = Told(lambda told: self._tell_there(account, resource, told))
        self._tell_there(account, resource, told)
        if told.count:
            told.end = asyncio.get_running_loop().create_future()
        return told.end

    def _tell_there(self, account: str, resource: str, told: Told) -> None:
        for node in self._tell_here(account, resource):
            told.count += 1
            self._mesh.post(self._mesh.member(node), Hint(account), len(account) + 16, told)

    def _tell_here(self, account: str, resource: str) -> list[int]:
        """All that messages to the account go to now are told, for what is stored comes before those; the
        nodes where that is still to be done. Messages do not go to who is being given what is stored, but he
        may be the one that it is for.
        """
        live = self._sessions.accounts.get(account)
        here = max((s.priority for s in live.available), default=-1) if live is not None else -1
        taking = max((s.priority for s in live.open_to), default=-1) if live is not None else -1
        places = {
            place: place.priority
            for place in self._mesh.places(account)
            if place.priority is not None and place.priority >= 0
        }
        top = max(places.values(), default=-1)
        if here >= max(top, 0) or f"{account}/{resource}" in self._sessions.by_full:
            self._look(account)
        told = (
            p.node for p, priority in places.items() if priority == top >= taking or p.resource == resource
        )
        return [*dict.fromkeys(told)]

    def is_open(self, member: Member, account: str) -> None:
        """A session there takes messages: it may have come too late to be seen by who stored."""
        until = self._stored.get(account)
        if until is not None and (self._cut or until > self._clock()):
            self._mesh.send(member, Hint(account), len(account) + 16)

    def ceded(self, account: str) -> None:
        """A session leaves the messages of its account to others: these may not know of what was stored
        behind what it was being given, and newer ones go to them from now on.
        """
        until = self._stored.get(account)
        if until is not None and (self._cut or until > self._clock()):
            self._tell(account)

    def take(self, member: Member, record: Hint) -> None:
        """Something was stored for an account that is here, or was: then whoever is elsewhere is told. ""
        stands for more accounts than were remembered.
        """
        if not record.account:
            self._look_on([*self._sessions.accounts])
        elif self._is_here(record.account):
            self._look(record.account)
        else:
            self._tell(record.account)

    def _is_here(self, account: str) -> bool:
        live = self._sessions.accounts.get(account)
        return live is not None and any(s.priority >= 0 for s in live.available)

    def met(self, member: Member) -> None:
        """Its places tell for whom hints are due."""

    def joined(self, member: Member) -> None:
        """Its sessions were told of what was stored while it was cut off, if that is what it was. What it
        stored for those here it tells by itself, unless it began anew.
        """
        lives = [life for life in self._cut if life[0] == member.name]
        for life in lives:
            del self._cut[life]
        if self._has_forgotten:
            self._mesh.send(member, Hint(""))
        if not self._cut:
            self._has_forgotten = False
            self._forget()
        if any(incarnation != member.incarnation for _, incarnation in lives):
            self._look_on([*self._sessions.accounts])

    def _look_on(self, accounts: list[str]) -> None:
        """Look at all of these, some at a time."""
        self._look_again(accounts[:LOOKS])
        if left := accounts[LOOKS:]:
            self._call_later(LOOKS_SECONDS, lambda: self._look_on(left))

    def lost(self, member: Member) -> Iterator[None]:
        """Its last hints are lost, too. If it fell silent it may be there, and cut off from here."""
        if member.was_silent:
            self._cut[member.name, member.incarnation] = self._clock() + CUT_SECONDS
        since = self._now() - YOUNG_SECONDS
        young: dict[str, None] = {}
        for number, session in enumerate([*self._sessions.by_full.values()]):
            if session.since > since:
                young[session.account] = None
            if number % 64 == 63:
                yield
        if young:
            self._look_on([*young])
            self._call_later(LOOK_SECONDS, lambda: self._look_on([*young]))

    def _look_again(self, accounts: Iterable[str]) -> None:
        for account in accounts:
            if self._is_here(account):
                self._look(account)
