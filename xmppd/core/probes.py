"""Presence probes (RFC 6121 4.3)."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence

from xmppd.core.begun import begun
from xmppd.core.lastseen import LastSeen
from xmppd.core.origin import Origin
from xmppd.core.roster.rosters import Roster
from xmppd.core.sessions import LiveAccount, Session, Sessions, to_stamp
from xmppd.core.visibility import Visibility
from xmppd.jid import Jid
from xmppd.xml import build


class Probes:
    """Answers those who ask for somebody's presence."""

    def __init__(self, sessions: Sessions, visibility: Visibility, last_seen: LastSeen) -> None:
        self._sessions = sessions
        self._live = sessions.accounts
        self._visibility = visibility
        self._last_seen = last_seen

    def answer(self, origin: Origin, to: Jid) -> Awaitable[None] | None:
        """A probe by a client as a rule. Who may not see is told the same of everybody (4.3.2), and who is
        blocked is told nothing (XEP-0191 3.3).
        """
        return begun(self._answer(origin, to))

    async def _answer(self, origin: Origin, to: Jid) -> None:
        blocks = self._visibility.blocks
        if await blocks.will_bar(to.bare, origin.full):
            return
        roster = await self._visibility.roster(to.bare)
        away: Sequence[bytes] = ()
        if (seeking := self._sessions.cluster.seek(origin, to)) is not None:
            away = await seeking
        shown = self.shown(origin, to, roster)
        if shown == [] and not away:
            last = await self._last_seen.words(to)
            # It may have come meanwhile, or let this viewer see it no more.
            shown = self.shown(origin, to, roster)
            if shown == []:
                shown = [last.head + to_stamp(origin.account) + last.tail]
        if away:
            shown = [*(shown or ()), *away]
        if shown is None:
            unsubscribed = {"type": "unsubscribed", "from": to.bare, "to": origin.account}
            shown = [build.start_tag("presence", unsubscribed) + b"/>"]
        if blocks.bars(to.bare, origin.full):
            return  # since we asked
        for presence in shown:
            is_own = to.bare == origin.account
            for seen in (presence,) if is_own else self._visibility.filtered(origin.account, presence):
                origin.send(seen)

    def shown(self, origin: Origin, to: Jid, roster: Roster | None) -> list[bytes] | None:
        """What the sender may see of who is there; None where that is nothing at all, not even that nobody
        is.
        """
        viewer, live = origin.account, self._live.get(to.bare)
        if live is not None and live.roster is not None:
            held = live.roster
            roster = held if roster is None or held.version > roster.version else roster
        is_follower = roster is not None and roster.is_follower(viewer)
        may_see = viewer == to.bare or (is_follower and self._visibility.permits(viewer, to.bare))
        shown = self._broadcasts(viewer, to, live) if may_see and live is not None else []
        if live is not None:
            for session in live.sessions:
                if to.resource in ("", session.resource) and not (may_see and session.presence is not None):
                    shown += self._directed(origin, session)
        return shown if shown or may_see else None

    def _broadcasts(self, viewer: str, to: Jid, live: LiveAccount) -> list[bytes]:
        stamp = to_stamp(viewer)
        return [
            target.presence.head + stamp + target.presence.tail
            for target in live.available
            if target.presence is not None
            and (not to.resource or target.full == to.full)
            and self._visibility.allows(viewer, target.full)
        ]

    def _directed(self, origin: Origin, session: Session) -> list[bytes]:
        """What the sender was shown by directed presence, once more (4.6.3)."""
        if session.directed is None or not self._visibility.allows(origin.account, session.full):
            return []
        return [stanza for _, stanza in session.directed_to(origin.full)]
