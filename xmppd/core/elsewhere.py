"""What was changed on other nodes, taken over here: their notices arrive by the shared cache's channel.

A notice only ever says that something may have changed. So a lost one must not be missed for long: while the
channel is down nothing is kept in memory, and when it is back every roster in use is looked at again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from xmppd.core.accounts import Accounts
from xmppd.core.blocking import Blocking
from xmppd.core.blocks import Blocks
from xmppd.core.logins import Logins
from xmppd.core.presence import Presences
from xmppd.core.roster.rosters import Roster, Rosters
from xmppd.core.sessions import LiveAccount, Sessions
from xmppd.errors import StoreError
from xmppd.xml import build
from xmppd.xml.roster import changed_items, roster_query

log = logging.getLogger(__name__)

MARK_SECONDS = 30.0
"""How long a write of another node may take before its roster is looked at without having heard of its
end.
"""

UNDERWAY = 10_000
"""How many such writes are remembered; of those beyond the rosters are looked at now."""

RETRY_SECONDS = 1.0


class Elsewhere:
    """Takes over what other nodes did.

    `max_age` bounds, in seconds, how long anything stays in memory unasked: a notice may be lost on its way.
    """

    def __init__(
        self,
        *,
        sessions: Sessions,
        rosters: Rosters,
        accounts: Accounts,
        presences: Presences,
        logins: Logins,
        blocks: Blocks,
        blocking: Blocking,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        clock: Callable[[], float],
        max_age: float,
    ) -> None:
        self._live = sessions.accounts
        self._rosters = rosters
        self._accounts = accounts
        self._presences = presences
        self._logins = logins
        self._blocks = blocks
        self._blocking = blocking
        self._spawn = spawn
        self._clock = clock
        self._max_age = max_age
        self._emptied = clock()
        self._underway: dict[str, tuple[str, float]] = {}
        self._suspects: dict[str, bool] = {}  # whether the account itself is in doubt, not its roster alone
        self._all: deque[str] = deque()  # accounts in doubt, themselves too, that come after the suspects
        self._is_looking = False
        self._pushes = 0

    # notices

    def roster_begun(self, account: str, token: str) -> None:
        """Another node begins to change the roster."""
        self._rosters.forget(account)
        if account in self._live:
            self._expect_end(token, account)

    def roster_changed(self, account: str, version: int, token: str) -> None:
        """Another node changed the roster to this version (0: it did not after all; -1: nobody knows)."""
        self._underway.pop(token, None)
        if not version:
            return
        kept = self._rosters.cached(account)
        if kept is None or not 0 < version <= kept.version:
            self._rosters.forget(account)
        live = self._live.get(account)
        roster = live.roster if live is not None else None
        if roster is not None and (version < 0 or version > roster.version):
            self._look_at(account)

    def roster_marked(self, account: str) -> None:
        """The roster was read while a change is under way whose beginning nobody here may have heard of."""
        self._underway.pop(account, None)  # the dictionary is in the order of what is due
        self._expect_end(account, account)

    def roster_unsure(self, account: str) -> None:
        """Nobody knows what became of a change made here: sessions may hold what is no longer true."""
        self._look_at(account)

    def account_changed(self, account: str) -> None:
        """Another node made, changed or removed the account, or changed its block list."""
        self._accounts.forget(account)
        if self._blocks.doubt(account):
            self._spawn(self._blocking.recall(account))
        self._look_at(account, itself=True)

    def account_unsure(self, account: str) -> None:
        """Nobody knows what became of a change made here."""
        self._look_at(account, itself=True)

    def everything_changed(self) -> None:
        """Another node does not know any more what it changed."""
        self._rosters.forget_all()
        self._accounts.forget_all()
        self._blocks.doubt_all()
        self._all = deque(self._logins.accounts())
        self._look_on()

    def lost(self) -> None:
        """No notices arrive: nothing that others may change is kept in memory from now on."""
        self._rosters.forget_all()
        self._accounts.trust(False)

    def back(self) -> None:
        """Notices arrive again; some were missed."""
        self._accounts.trust(True)
        self.everything_changed()

    def tick(self) -> None:
        """Called about once a second."""
        now = self._clock()
        for token, (account, due) in list(self._underway.items()):
            if due > now:
                break
            del self._underway[token]
            self._look_at(account)
        if now - self._emptied > self._max_age:
            self._emptied = now
            self.everything_changed()  # a node may have ended between a change and its notice
        self.delete_late()

    def delete_late(self) -> None:
        """Called about once a second, also while no notices arrive."""
        for late in self._accounts.late():
            self._spawn(self._accounts.delete_late(late))

    # what they lead to

    def roster_loaded(self, roster: Roster) -> None:
        """A roster was loaded. Sessions that hold an older one are told what is different now."""
        live = self._live.get(roster.account)
        if live is None or live.roster is None or live.roster.version >= roster.version:
            return
        before = live.roster
        self._presences.adopt(live, roster)
        items = changed_items(before.packed, roster.packed)
        for index, item in enumerate(items):
            # Only the last one brings the version: who is cut off before has the old one, and asks again.
            version = roster.version if index == len(items) - 1 else before.version
            self._push(live, roster_query(item, str(version)))

    def _push(self, live: LiveAccount, payload: bytes) -> None:
        self._pushes += 1
        for session in live.sessions:
            if session.has_roster:
                head = build.start_tag("iq", {"type": "set", "id": f"away{self._pushes}", "to": session.full})
                session.send(head + b">" + payload + b"</iq>")

    def _expect_end(self, token: str, account: str) -> None:
        self._underway[token] = (account, self._clock() + MARK_SECONDS)
        if len(self._underway) > UNDERWAY:
            self._look_at(self._underway.pop(next(iter(self._underway)))[0])

    def _look_at(self, account: str, *, itself: bool = False) -> None:
        if not (self._logins.is_here(account) if itself else account in self._live):
            return
        self._suspects[account] = itself or self._suspects.get(account, False)
        self._look_on()

    def _look_on(self) -> None:
        if not self._is_looking:
            self._is_looking = True
            self._spawn(self._look())

    def _next(self) -> tuple[str, bool] | None:
        """Whom to look at next, and whether the account itself is in doubt."""
        if self._suspects:
            account = next(iter(self._suspects))
            return account, self._suspects.pop(account)
        return (self._all.popleft(), True) if self._all else None

    async def _look(self) -> None:
        """Load the rosters that may have changed, one after the other; end the streams of who is shut out."""
        try:
            while (suspect := self._next()) is not None:
                account, itself = suspect
                try:
                    if itself and self._logins.is_here(account):
                        await self._logins.look_at(account)
                    if itself and account in self._live:
                        await self._blocking.look_at(account)
                    if account in self._live:
                        await _result(self._rosters.load(account))
                except StoreError as error:
                    self._look_at(account, itself=itself)
                    log.warning("roster-reload-failed", extra={"jid": account, "problem": str(error)})
                    await asyncio.sleep(RETRY_SECONDS)
                await asyncio.sleep(0)  # what is cached is looked at without waiting
        finally:
            self._is_looking = False


async def _result(answer: Any | Awaitable[Any]) -> Any:
    return await answer if isinstance(answer, Awaitable) else answer
