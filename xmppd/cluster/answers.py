"""What sessions of this node show one of another node that may see them (RFC 6121 4.3.2)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Final

from xmppd.cluster.member import Member
from xmppd.cluster.mesh import Mesh
from xmppd.cluster.records import Shown
from xmppd.core.sessions import Sessions, to_stamp
from xmppd.core.visibility import Visibility

SHOWN_BYTES: Final = 32_768
"""What one record of `Shown` has, about."""

MOST: Final = 128
"""Presences that are made before they are sent, about."""


class Answers:
    """Presence for one session there goes in one record: whole stanzas, so that nothing is left to be done
    with each of them.
    """

    def __init__(self, mesh: Mesh, sessions: Sessions, visibility: Visibility) -> None:
        self._mesh = mesh
        self._sessions = sessions
        self._visibility = visibility

    def show(self, member: Member, full: str, asked: Sequence[str]) -> None:
        """Show a session there what it may see of these accounts."""
        viewer = full.partition("/")[0]
        names: list[str] = []
        stanzas: list[bytes] = []
        to, allows, accounts = to_stamp(viewer), self._visibility.allows, self._sessions.accounts
        is_open = self._visibility.is_open_to(accounts.get(viewer))
        for live in map(accounts.get, asked):
            if live is None or not live.available:
                continue
            if viewer != live.account:
                followers = live.roster.followers if live.roster is not None else ()
                index = bisect_left(followers, viewer)  # `Roster.is_follower`
                if index == len(followers) or followers[index] != viewer:
                    continue
            is_shown = is_open and not live.blocks
            for seen in live.available:
                presence = seen.presence
                if presence is not None and (is_shown or allows(viewer, seen.full)):
                    names.append(seen.full)
                    stanzas.append(presence.head + to + presence.tail)
            if len(stanzas) >= MOST:
                self.tell(member, full, names, stanzas)
                names, stanzas = [], []
        if stanzas:
            self.tell(member, full, names, stanzas)

    def show_those(self, member: Member, full: str, those: Iterable[str]) -> None:
        """Show a session there those of some sessions here, by their full JIDs, that it may see."""
        viewer = full.partition("/")[0]
        names: list[str] = []
        stanzas: list[bytes] = []
        for name in those:
            seen = self._sessions.by_full.get(name)
            if seen is None or (presence := seen.presence) is None or name == full:
                continue
            roster = seen.live.roster
            is_shown = seen.account == viewer or (roster is not None and roster.is_follower(viewer))
            if is_shown and self._visibility.allows(viewer, name):
                names.append(name)
                stanzas.append(presence.head + to_stamp(viewer) + presence.tail)
        if stanzas:
            self.tell(member, full, names, stanzas, is_listed=False)

    def tell(
        self,
        member: Member,
        full: str,
        names: list[str],
        stanzas: list[bytes],
        *,
        is_listed: bool = True,
    ) -> None:
        """Send a session there the presence of sessions by their full JIDs, in as many records as it takes;
        b"" where there is nothing to be seen.
        """
        size = sum(map(len, stanzas)) + sum(map(len, names)) + 64
        if size > SHOWN_BYTES and len(names) > 1:
            half = len(names) // 2
            self.tell(member, full, names[:half], stanzas[:half], is_listed=is_listed)
            self.tell(member, full, names[half:], stanzas[half:], is_listed=is_listed)
        else:
            self._mesh.send(member, Shown(full, "\n".join(names), stanzas, is_listed), size)
