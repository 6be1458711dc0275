"""Rosters as plugins read and change them; what is done reaches sessions and contacts like anything else."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import replace

from xmppd.core.accounts import Accounts, AccountUnknown
from xmppd.core.contacts import Contacts
from xmppd.core.presence import Presences
from xmppd.core.roster.rosters import Edit, NoRoster, Roster, RosterItem, Rosters
from xmppd.core.roster.subscription import State


class Friendships:
    """Accounts are normalised bare JIDs. Whatever is changed is durable when it returns. AccountUnknown where
    there is none of that name; StanzaError when a roster has no room, or a plugin refuses. The log says who
    it was done `by`.
    """

    def __init__(
        self,
        rosters: Rosters,
        contacts: Contacts,
        presences: Presences,
        accounts: Accounts,
        *,
        by: str = "plugin",
    ) -> None:
        self._by = by
        self._rosters = rosters
        self._contacts = contacts
        self._presences = presences
        self._accounts = accounts

    async def items(self, account: str) -> Sequence[RosterItem]:
        """All items of a roster, by contact, requests that wait included (`hidden` when they are no more)."""
        await self._check(account)
        return await self._rosters.items(account)

    async def item(self, account: str, contact: str) -> RosterItem | None:
        """One item of a roster."""
        await self._check(account)
        return await self._rosters.get_item(account, contact)

    async def followers(self, account: str) -> Sequence[str]:
        """Who sees the account's presence, sorted. As a rule without asking the store."""
        return (await self._roster(account)).followers

    async def following(self, account: str) -> Sequence[str]:
        """Whose presence the account sees, sorted."""
        return (await self._roster(account)).following

    async def set_item(
        self, account: str, contact: str, *, name: str | None = None, groups: Sequence[str] | None = None
    ) -> None:
        """Add a contact, or change what is not None of it (RFC 6121 2.3, 2.4)."""
        self._rosters.check_names(name or "", groups or ())

        def edit(item: RosterItem | None) -> RosterItem:
            before = item or RosterItem(contact)
            return replace(
                before,
                name=before.name if name is None else name,
                groups=before.groups if groups is None else tuple(groups),
                hidden=False,
            )

        await self._check(account)
        await self._contacts.change(account, contact, edit, by=self._by, what="set")

    async def remove_item(self, account: str, contact: str) -> None:
        """Remove a contact, with all subscriptions (RFC 6121 2.5); StanzaError item-not-found."""
        await self._check(account)
        await self._contacts.remove_item(account, contact, self._by)

    async def befriend(self, one: str, other: str) -> None:
        """Let both see each other's presence, without a request. A repeat finishes what a kill cut short, and
        is harmless otherwise. Where one of them is refused, nothing was done.
        """
        if one == other:
            raise ValueError(f"{one} cannot befriend itself")
        pairs = (one, other), (other, one)
        for account, contact in pairs:
            await self._check(account)
            await self._contacts.permit(account, contact, "subscribe")
            await self._rosters.check(account, contact, _befriended(contact))
        changes = [
            await self._contacts.change(account, contact, _befriended(contact), by=self._by, what="befriend")
            for account, contact in pairs
        ]
        for (account, contact), change in zip(pairs, changes, strict=True):
            if change.old is None or not change.old.state.is_followed:
                self._presences.show(account, contact)

    async def part(self, one: str, other: str) -> None:
        """Take each out of the other's roster, with subscriptions and requests. A repeat finishes what a kill
        cut short, and is harmless otherwise, also when one of them does not exist any more.
        """
        for account, contact in ((one, other), (other, one)):
            try:
                await self._contacts.change(account, contact, _parted, by=self._by, what="part")
            except NoRoster:
                continue

    async def _roster(self, account: str) -> Roster:
        await self._check(account)
        roster: Roster | Awaitable[Roster] = self._rosters.load(account)
        return roster if isinstance(roster, Roster) else await roster

    async def _check(self, account: str) -> None:
        exists = self._accounts.exists(account)
        if not (exists if isinstance(exists, bool) else await exists):
            raise AccountUnknown(account)


def _befriended(contact: str) -> Edit:
    def edit(item: RosterItem | None) -> RosterItem:
        item = item or RosterItem(contact)
        return item.moved(State.BOTH, approved=item.approved)

    return edit


def _parted(_item: RosterItem | None) -> None:
    return None
