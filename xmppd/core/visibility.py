"""Who may see whom: the one predicate behind broadcasts, probes, last words and iqs."""

from __future__ import annotations

from xmppd.core.accounts import Accounts
from xmppd.core.blocks import Blocks
from xmppd.core.roster.rosters import Roster, Rosters
from xmppd.core.sessions import LiveAccount, Session
from xmppd.hooks import Hooks
from xmppd.xml.stanza import parse


class Visibility:
    """By rosters (RFC 6121 4.1), by directed presence (4.6), by whom either has blocked (`blocks`), by what
    plugins forbid (`hooks.sees`), and by whom accounts look offline to (`hidden`).
    """

    def __init__(self, accounts: Accounts, rosters: Rosters, blocks: Blocks, hooks: Hooks) -> None:
        self.blocks = blocks
        self.hidden = blocks.hidden
        self._accounts = accounts
        self._rosters = rosters
        self._hooks = hooks

    def allows(self, viewer: str, owner: str) -> bool:
        """Whether an account may see an account or a session (its full JID) as it is: it may know of it
        (`permits`), and is none of those to whom it looks offline.
        """
        if self.hidden and self.hidden.has(owner.partition("/")[0], viewer):
            return False
        return self.permits(viewer, owner)

    def permits(self, viewer: str, owner: str) -> bool:
        """Whether neither has blocked the other, by what is known here, and no plugin forbids the one to see
        the other. To whom it looks offline it does so as to all who may know of it.
        """
        if self.blocks.has_between(viewer, owner):
            return False
        sees = self._hooks.sees
        return sees is None or viewer == owner.partition("/")[0] or sees(viewer, owner)

    def is_all_shown(self, one: LiveAccount, other: LiveAccount) -> bool:
        """Whether `allows` and `filtered` hold nothing back between two accounts with sessions here."""
        hooks = self._hooks
        return not (one.blocks or other.blocks or hooks.presence_for_filter) and hooks.sees is None

    def is_open_to(self, viewer: LiveAccount | None) -> bool:
        """Whether `allows` forbids an account, None: one without sessions here, to see nobody but who bars
        somebody.
        """
        return (viewer is None or not viewer.blocks) and self._hooks.sees is None

    @property
    def has_filters(self) -> bool:
        """Whether `filtered` may give anything else than it was given, to an account that bars nobody."""
        return bool(self._hooks.presence_for_filter)

    def filtered(self, account: str, presence: bytes) -> tuple[bytes, ...]:
        """A presence of somebody else's as the block list of an account and its filters leave it; nothing
        when one ends it.
        """
        if self.blocks.known(account) and self.blocks.bars(account, parse(presence).get("from", "")):
            return ()
        if not self._hooks.presence_for_filter:
            return (presence,)
        shown = self._hooks.shown(account, presence)
        return (shown,) if shown else ()

    def is_told(self, session: Session, account: str) -> bool:
        """Whether broadcasts of the session go to this account now."""
        if session.presence is None:
            return False
        roster = session.live.roster
        is_follower = roster is not None and roster.is_follower(account)
        return account == session.account or (is_follower and self.allows(account, session.full))

    def knows(self, account: str, session: Session) -> bool:
        """Whether the account was told of this session: its own, by subscription, or by directed presence
        (RFC 6121 8.5.3.1).
        """
        if account == session.account or self.is_told(session, account):
            return True
        was_told = session.directed is not None and len(session.directed.of(account)) > 0
        return was_told and self.allows(account, session.full)

    async def roster(self, account: str) -> Roster | None:
        """The roster of an account; None, and nothing is read or kept, where there is none of that name."""
        exists = self._accounts.exists(account)
        if not (exists if isinstance(exists, bool) else await exists):
            return None
        roster = self._rosters.load(account)
        return roster if isinstance(roster, Roster) else await roster

    async def may_see(self, viewer: str, account: str) -> bool:
        """Whether `viewer` may know of the account's presence, or that it looks offline: itself, or one
        subscribed from/both.
        """
        if viewer == account:
            return True
        roster = await self.roster(account)
        if roster is None or not roster.is_follower(viewer) or await self.blocks.will_bar(account, viewer):
            return False
        return self.permits(viewer, account)
