"""Rosters in memory, for tests of them."""

from typing import Any

from xmppd.core.roster.rosters import Roster, Rosters

ALICE = "alice@localhost"


def rosters_on(store: Any, **options: Any) -> Rosters:
    """Rosters with a clock that stands still, so that versions count from 1."""
    return Rosters(store, **{"now": lambda: 0.0, **options})


async def load(rosters: Rosters, account: str = ALICE) -> Roster:
    """The roster of an account."""
    roster = rosters.load(account)
    return roster if isinstance(roster, Roster) else await roster
