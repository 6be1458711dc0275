"""Who here is shown an account elsewhere that his own roster does not list: since a kill came between the
halves of a subscription, since the account's node has not heard what changed, or until his half is written.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection
from typing import Final

from xmppd.cluster.member import Member
from xmppd.core.sessions import LiveAccount

MOST: Final = 100_000
"""Pairs that are remembered."""


class Strangers:
    """By node and viewer, accounts of which sessions there were shown to him. The end of a node is shown to
    whoever follows its sessions; these find out by what is kept here, until they leave.
    """

    def __init__(self) -> None:
        self._by_node: dict[Member, dict[str, set[str]]] = {}
        self._size = 0

    def __len__(self) -> int:
        """How many pairs are remembered."""
        return self._size

    def look(self, member: Member, live: LiveAccount, account: str) -> None:
        """Sessions of a viewer are shown one of an account there."""
        following = live.roster.following if live.roster is not None else ()
        index = bisect_left(following, account)  # `Roster.is_following`, for each copy
        if index == len(following) or following[index] != account:
            self.note(member, live, account)

    def note(self, member: Member, live: LiveAccount, account: str) -> None:
        """He may be shown them, and his roster does not list the account, or not any more."""
        if live.account == account or not live.available or self._size >= MOST:
            return
        accounts = self._by_node.setdefault(member, {}).setdefault(live.account, set())
        self._size += account not in accounts
        accounts.add(account)

    def of(self, member: Member, viewer: str) -> Collection[str]:
        """The accounts that he was shown sessions of, which that node has or had."""
        return self._by_node[member].get(viewer, ()) if member in self._by_node else ()

    def left(self, viewer: str) -> None:
        """No session of his is available here any more."""
        for member, viewers in [*self._by_node.items()]:
            self._size -= len(viewers.pop(viewer, ()))
            if not viewers:
                del self._by_node[member]

    def lost(self, member: Member) -> None:
        """Whoever was shown its sessions has seen them end."""
        self._size -= sum(map(len, self._by_node.pop(member, {}).values()))
