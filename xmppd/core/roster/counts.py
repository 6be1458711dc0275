"""How many contacts of each kind a roster has, and may have."""

from __future__ import annotations

from typing import NamedTuple

from xmppd.core.roster.cache import Roster
from xmppd.core.roster.item import RosterItem
from xmppd.errors import StanzaError


class RosterCounts(NamedTuple):
    """How many an account sees the presence of, asks for it, and is asked by."""

    following: int
    asking: int
    asked: int


def counts_of(roster: Roster) -> RosterCounts:
    """Those of a roster."""
    return RosterCounts(len(roster.following), roster.asking, len(roster.requests))


def check_counts(
    roster: Roster, old: RosterItem | None, new: RosterItem | None, most: RosterCounts | None
) -> None:
    """StanzaError resource-constraint for an item in place of another by which there would be more of a kind
    than that (None: no bound), whatever there are already.
    """
    if most is None:
        return
    has, had = kinds(new), kinds(old)
    for is_one, was_one, count, bound in zip(has, had, counts_of(roster), most, strict=True):
        if is_one and not was_one and count >= bound:
            raise StanzaError("resource-constraint", "There is no room for more contacts of this kind.")


def kinds(item: RosterItem | None) -> tuple[bool, bool, bool]:
    """Of which kinds an item is, as they are counted."""
    return (False,) * 3 if item is None else (item.state.is_following, item.ask, item.pending_in)
