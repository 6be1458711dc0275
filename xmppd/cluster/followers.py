"""Who may see whom since a moment ago. Two rosters say so, which are written one after the other, and a node
may know one of them already and the other one not yet: what nobody was shown between is shown a little later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from xmppd.cluster.lately import Lately, Order
from xmppd.cluster.member import Member
from xmppd.cluster.mesh import Mesh
from xmppd.cluster.records import Probe
from xmppd.core.sessions import Session, Sessions

LATELY_SECONDS: Final = 15.0
LATELY: Final = 10_000
"""How long it is remembered, and of how many pairs, that an account follows another one since then, and of
how many sessions when they came: by then what was under way has come, or the node is given up.
"""

LISTED_SECONDS: Final = 1.0
"""How soon after a session became available its probe is there, which lists whom it follows; and how soon
after a roster lists somebody new, that one was shown by whoever granted it.
"""

ShowHere = Callable[[Session, Sequence[str]], None]
ShowThere = Callable[[Member, str, Sequence[str]], None]


class Followers:
    """A new follower is shown an account's sessions by the node they are on, when it sees by the account's
    roster that he may see them (`granted`); and by his probe, if his own roster says so by then. Left are
    two cases:

    - He becomes available when they were shown, by a roster that does not list them yet (`came`). He is shown
      them when his probe must have come that does not ask for them.
    - They came when their roster said so already, and he behind them, or his node met theirs, by one that did
      not: no node had anything to show. They are asked for when his roster says so (`followed`).

    `show_here` shows a session what it may see of accounts here, `show_there` does that for a full JID of
    another node. `awaited`: by session, the accounts that it was not shown yet and may ask for.
    """

    def __init__(self, mesh: Mesh, sessions: Sessions, show_here: ShowHere, show_there: ShowThere) -> None:
        self._mesh = mesh
        self._sessions = sessions
        self._show_here = show_here
        self._show_there = show_there
        self._granted = Lately(mesh.clock, LATELY_SECONDS, LATELY)
        self._order = Order(mesh.clock, LATELY_SECONDS, LATELY)
        self.awaited: dict[tuple[Member | None, str], set[str]] = {}

    def granted(self, account: str, contact: str) -> None:
        """See `Cluster.granted`."""
        self._granted.note(contact, account)

    def came(self, member: Member | None, account: str, full: str) -> None:
        """A session became available, here if there is no member."""
        if member is None or member.is_joined:
            self._order.note(full)
        else:  # it was before, and shown to nobody here
            self._order.drop(full)
        if granted := self._granted.of(account):
            self.awaited[member, full] = set(granted)
            self._mesh.call_later(LISTED_SECONDS, lambda: self._show(member, full))

    def came_here(self, full: str) -> None:
        """A session became available here, which is shown at once whom its roster lists."""
        session = self._sessions.by_full[full]
        self.came(None, session.account, full)
        if self.awaited and session.live.roster is not None:
            self.asked(None, full, session.live.roster.following)

    def asked(self, member: Member | None, full: str, accounts: Iterable[str]) -> None:
        """It is shown these now."""
        if (awaited := self.awaited.get((member, full))) is not None:
            awaited.difference_update(accounts)

    def _show(self, member: Member | None, full: str) -> None:
        accounts = sorted(self.awaited.pop((member, full), ()))
        viewer = self._sessions.by_full.get(full)
        if accounts and member is None and viewer is not None and viewer.presence is not None:
            self._show_here(viewer, accounts)
        elif accounts and member is not None and not member.is_gone:
            self._show_there(member, full, accounts)

    def followed(self, account: str, contacts: Sequence[str]) -> None:
        """See `Cluster.followed`."""
        live = self._sessions.accounts.get(account)
        if live is not None and live.available:
            viewers = tuple(live.available)
            self._mesh.call_later(LISTED_SECONDS, lambda: self._ask(viewers, account, contacts))

    def _ask(self, viewers: Sequence[Session], account: str, contacts: Sequence[str]) -> None:
        for viewer in viewers:
            if viewer.presence is None:
                continue
            came, order = self._order.of(viewer.full), self._order
            here: list[str] = []
            there: dict[int, list[str]] = {}
            for contact in contacts:
                live = self._sessions.accounts.get(contact)
                if live is not None and any(order.of(seen.full) <= came for seen in live.available):
                    here.append(contact)
                for place in self._mesh.places(contact):
                    if place.priority is not None and order.of(f"{contact}/{place.resource}") <= came:
                        there.setdefault(place.node, []).append(contact)
            self._show_here(viewer, self.unshown(account, here))
            for node, accounts in there.items():
                record = Probe(viewer.full, [*dict.fromkeys(accounts)], is_late=True)
                self._mesh.send(self._mesh.member(node), record, sum(map(len, accounts)) + 64)

    def unshown(self, viewer: str, accounts: Sequence[str]) -> Sequence[str]:
        """Those of some accounts that were not shown to a new follower, wherever he was by then."""
        granted = self._granted.of(viewer)
        return [account for account in accounts if account not in granted] if granted else accounts
