"""One change of a roster undone: the item is put back as it was, by what its owner could do itself."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace

from xmppd.core.accounts import Accounts
from xmppd.core.contacts import Contacts
from xmppd.core.roster.rosters import Edit, LogEntry, RosterItem, Rosters
from xmppd.core.roster.subscription import State
from xmppd.errors import CommandError


class RosterUndo:
    """Takes changes back that the log still holds, each as new changes with pushes to both accounts."""

    def __init__(self, rosters: Rosters, contacts: Contacts, accounts: Accounts) -> None:
        self._rosters = rosters
        self._contacts = contacts
        self._accounts = accounts

    async def undo(self, account: str, version: int, by: str) -> str:
        """Put the item that `version` changed back as it was before; its contact. CommandError when that
        cannot be done: the log has it no more, or it was the contact's own decision.

        A subscription comes back by asking and granting in the name of both, which both once did. What the
        contact took back is not given again.
        """
        entry = await self._entry(account, version)
        now = _state(await self._rosters.get_item(account, entry.contact))
        await self._allow(account, entry, now)
        await self._lose(account, entry, now, by)
        await self._contacts.change(account, entry.contact, _put_back(entry), by=by, what=f"undo {version}")
        await self._gain(account, entry, by)
        return entry.contact

    async def _entry(self, account: str, version: int) -> LogEntry:
        found = await self._rosters.log(account, after=version - 1, limit=1)
        if not found or found[0].version != version:
            raise CommandError(f"the log of {account} has no change {version} (any more)")
        if not found[0].contact:
            raise CommandError(f"that changed the whole roster: {found[0].by} (see `xmppd migrate undo`)")
        if not found[0].is_whole:
            raise CommandError(f"the change {version} was too long for the log to keep the item")
        return found[0]

    async def _allow(self, account: str, entry: LogEntry, now: State) -> None:
        then, contact = _state(entry.old), entry.contact
        is_more = _follows(then) > _follows(now) or _shows(then) > _shows(now)
        if not is_more:
            return
        if entry.what.startswith("received "):
            raise CommandError(
                f"{contact} decided that: look for it in the log of {contact}, and undo it there"
            )
        exists = self._accounts.exists(contact)
        if not (await exists if isinstance(exists, Awaitable) else exists):
            raise CommandError(f"there is no account {contact}")

    async def _lose(self, account: str, entry: LogEntry, now: State, by: str) -> None:
        then, contact = _state(entry.old), entry.contact
        if _follows(then) < _follows(now):
            await self._contacts.send(account, contact, "unsubscribe", by=by)
        if _shows(then) < _shows(now):
            await self._contacts.send(account, contact, "unsubscribed", by=by)

    async def _gain(self, account: str, entry: LogEntry, by: str) -> None:
        then, contact = _state(entry.old), entry.contact
        now = _state(await self._rosters.get_item(account, contact))
        if _follows(then) > _follows(now):
            await self._contacts.send(account, contact, "subscribe", by=by)
            if then.is_following:
                await self._contacts.send(contact, account, "subscribed", by=by)
        if _shows(then) > _shows(now):
            request = entry.old.request if entry.old is not None else b""
            await self._contacts.send(contact, account, "subscribe", request, by=by)
            if then.is_followed:
                await self._contacts.send(account, contact, "subscribed", by=by)


def _put_back(entry: LogEntry) -> Edit:
    """All of the old item but its subscription; without one, the item goes."""
    old = entry.old

    def edit(item: RosterItem | None) -> RosterItem | None:
        if old is None or (old.hidden and item is None):
            return None  # a request makes its own hidden item
        item = item or RosterItem(entry.contact)
        hidden = old.hidden and item.state in (State.NONE, State.NONE_IN)
        return replace(item, name=old.name, groups=old.groups, approved=old.approved, hidden=hidden)

    return edit


def _state(item: RosterItem | None) -> State:
    return item.state if item is not None else State.NONE


def _follows(state: State) -> int:
    """How much the owner has of the contact's presence: nothing, a request, a subscription."""
    return 2 if state.is_following else int(state.ask)


def _shows(state: State) -> int:
    """The same of the contact."""
    return 2 if state.is_followed else int(state.pending_in)
