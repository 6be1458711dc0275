"""Rosters as plugins read and change them; what is done reaches sessions and contacts like anything else."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

from xmppd import ns
from xmppd.core.accounts import Accounts, AccountUnknown
from xmppd.core.contacts import Contacts
from xmppd.core.roster.counts import RosterCounts, counts_of
from xmppd.core.roster.rosters import Edit, NoRoster, Roster, RosterItem, Rosters
from xmppd.core.roster.subscription import State
from xmppd.xml.build import element, serialize

Relation = Literal["none", "asking", "asked", "both"]
"""What is between two accounts, seen from one of them."""

_STATES: Mapping[Relation, State] = MappingProxyType(
    {"none": State.NONE, "asking": State.NONE_OUT, "asked": State.NONE_IN, "both": State.BOTH}
)
_MIRRORED: Mapping[Relation, Relation] = MappingProxyType(
    {"none": "none", "asking": "asked", "asked": "asking", "both": "both"}
)


class Friendships:
    """Accounts are normalised bare JIDs. Whatever is changed is durable when it returns. AccountUnknown where
    there is none of that name; StanzaError when a roster has no room, or a plugin refuses. The log says who
    it was done `by`.
    """

    def __init__(
        self,
        rosters: Rosters,
        contacts: Contacts,
        accounts: Accounts,
        *,
        by: str = "plugin",
    ) -> None:
        self._by = by
        self._rosters = rosters
        self._contacts = contacts
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
        hold = self._accounts.hold_many((one, other))  # neither goes between the two halves
        with self._contacts.showing() as late:
            async with hold as there:
                for account in {one, other}.difference(there):
                    raise AccountUnknown(account)
                for account, contact in pairs:
                    edit = _befriended(contact)
                    await self._contacts.change(
                        account, contact, edit, by=self._by, what="befriend", late=late
                    )

    async def relate(
        self, one: str, other: str, relation: Relation, *, status: str = "", most: RosterCounts | None = None
    ) -> None:
        """Make this what is between two accounts, in both rosters, whatever it was: `both`, each sees the
        other; `asking`, one asks the other for that, with `status` for reasons; `asked`, the other way round;
        `none`, there are no items. Nobody is asked whether it may be. A request is shown at once to clients
        that have asked for their roster, to others when they come next. Nobody has more than `most` of a kind
        by it, however many such things are done at once, on whatever nodes.

        A repeat is harmless, and finishes what was left half done by a kill, or by a StanzaError:
        resource-constraint where a roster has no room. NoRoster without one of the accounts, and then
        nothing is done; who is not there can be parted from.
        """
        halves = (one, other, relation), (other, one, _MIRRORED[relation])
        asked: list[tuple[str, bytes]] = []
        hold = self._accounts.hold_many((one, other))  # neither goes between the two halves
        with self._contacts.showing() as late:
            async with hold as there:
                if relation != "none" and len(there) < len(halves):
                    raise NoRoster("not-allowed", "There is no account that could keep contacts.")
                for account, contact, half in halves:
                    if account not in there:
                        continue
                    request = _request(contact, account, status) if half == "asked" else b""
                    edit = _related(contact, half, request)
                    change = await self._contacts.change(
                        account, contact, edit, by=self._by, what=half, most=most, late=late
                    )
                    if _is_asked(change.new) and not _is_asked(change.old):
                        asked.append((account, request))
        for account, request in asked:
            self._contacts.hand_over(account, request, to_interested=True)

    async def permit(self, account: str, contact: str, kind: Literal["subscribe", "subscribed"]) -> None:
        """StanzaError when a plugin refuses that the account asks the contact, or grants it what it asks."""
        await self._contacts.permit(account, contact, kind)

    async def counts(self, account: str) -> RosterCounts:
        """How many contacts of each kind an account has. As a rule without asking the store."""
        roster = await self._roster(account)
        return counts_of(roster)

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


def _is_asked(item: RosterItem | None) -> bool:
    return item is not None and item.state.pending_in


def _related(contact: str, relation: Relation, request: bytes) -> Edit:
    def edit(item: RosterItem | None) -> RosterItem | None:
        if relation == "none":
            return None
        item = item or RosterItem(contact, hidden=relation == "asked")
        hidden = item.hidden and relation == "asked"
        return replace(item.moved(_STATES[relation], approved=False, request=request), hidden=hidden)

    return edit


def _request(sender: str, to: str, status: str) -> bytes:
    """The request that one account makes of another."""
    attrs = {"type": "subscribe", "from": sender, "to": to}
    said = [element(f"{{{ns.CLIENT}}}status", None, status)] if status else []
    return serialize(element(f"{{{ns.CLIENT}}}presence", attrs, *said), ns.CLIENT)


def _befriended(contact: str) -> Edit:
    def edit(item: RosterItem | None) -> RosterItem:
        item = item or RosterItem(contact)
        return item.moved(State.BOTH, approved=item.approved)

    return edit


def _parted(_item: RosterItem | None) -> None:
    return None
