"""What was stored for somebody who came meanwhile on another node: whoever stored tells that node, and
there it is looked for once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from xmppd.cluster.member import Member
from xmppd.cluster.mesh import Mesh
from xmppd.cluster.records import Hint
from xmppd.core.sessions import Sessions

STORED_SECONDS: Final = 30.0
"""How long it is remembered for whom something was stored, so that who comes is told."""

STORED: Final = 10_000
"""Of how many accounts."""

YOUNG_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 6.0
"""When a node is lost, sessions that are younger are looked at again so much later: what that node stored for
them, and did not tell, is there by then.
"""


class Hints:
    """`look` has what is stored for an account looked for, for its sessions here, before anything else that
    comes for them.
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
        self._stored: dict[str, float] = {}

    def kept(self, account: str) -> None:
        """See `Cluster.kept`."""
        self._stored.pop(account, None)
        self._stored[account] = self._clock() + STORED_SECONDS
        self._forget()
        self._tell(account)

    def _forget(self) -> None:
        """Those whose time is over, and those that are too many."""
        now = self._clock()
        while self._stored:
            account, until = next(iter(self._stored.items()))
            if until > now and len(self._stored) <= STORED:
                break
            del self._stored[account]

    def _tell(self, account: str) -> None:
        """The session that would take messages, or its node, if there is any."""
        live = self._sessions.accounts.get(account)
        here = [s.priority for s in live.available if s.priority >= 0] if live is not None else ()
        best, index = max(here, default=-1), 0
        for place in self._mesh.places(account):
            if place.priority is not None and place.priority > best:
                best, index = place.priority, place.node
        if index:
            self._mesh.send(self._mesh.member(index), Hint(account), len(account) + 16)
        elif best >= 0:
            self._look(account)

    def is_open(self, member: Member, account: str) -> None:
        """A session there takes messages: it may have come too late to be seen by who stored."""
        until = self._stored.get(account)
        if until is not None and until > self._clock():
            self._mesh.send(member, Hint(account), len(account) + 16)

    def take(self, member: Member, record: Hint) -> None:
        """Something was stored for an account that is here, or was: then whoever is elsewhere is told."""
        if self._is_here(record.account):
            self._look(record.account)
        else:
            self._tell(record.account)

    def _is_here(self, account: str) -> bool:
        live = self._sessions.accounts.get(account)
        return live is not None and any(s.priority >= 0 for s in live.available)

    def met(self, member: Member) -> None:
        """Its places tell for whom hints are due."""

    def joined(self, member: Member) -> None:
        """Nothing more."""

    def lost(self, member: Member) -> Iterator[None]:
        """Its last hints are lost, too."""
        since = self._now() - YOUNG_SECONDS
        young: dict[str, None] = {}
        for number, session in enumerate([*self._sessions.by_full.values()]):
            if session.since > since:
                young[session.account] = None
            if number % 64 == 63:
                yield
        if young:
            self._call_later(LOOK_SECONDS, lambda: self._look_again(young))

    def _look_again(self, accounts: Iterable[str]) -> None:
        for account in accounts:
            if self._is_here(account):
                self._look(account)
