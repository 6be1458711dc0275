"""Rosters as an operator sees and changes them: plain data; what is done reaches sessions and contacts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from xmppd.core.accounts import Accounts, AccountUnknown
from xmppd.core.contacts import Contacts
from xmppd.core.roster.repair import Fault, RosterRepair
from xmppd.core.roster.rosters import LogEntry, RosterItem, Rosters
from xmppd.core.roster.undo import RosterUndo
from xmppd.errors import CommandError, StanzaError

BY = "admin"
"""Who the log says it was."""

SLICE_SECONDS = 1.0
SLICE_ACCOUNTS = 100
"""How long one call of `repair` may take about, and how many accounts it looks at."""

COUNT_PAGE = 1000
COUNT_LIMIT = 200_000
"""How far accounts are counted to show how much is left; more are not worth the time."""


@dataclass(frozen=True, slots=True)
class RosterOffice:
    """What `roster` commands need, on the parts of one server."""

    rosters: Rosters
    contacts: Contacts
    accounts: Accounts
    repairs: RosterRepair

    async def show(self, account: str) -> Sequence[Mapping[str, Any]]:
        """The items of a roster, requests that wait included."""
        await self._check(account)
        return [_row_of(item) for item in await self.rosters.items(account)]

    async def log(self, account: str, contact: str, limit: int) -> Sequence[Mapping[str, Any]]:
        """The newest changes of a roster, oldest first; with `contact` those of its item."""
        await self._check(account)
        lines: list[Mapping[str, Any]] = []
        async with aclosing(self.rosters.log_backwards(account)) as entries:
            async for entry in entries:
                if contact in ("", entry.contact):
                    lines.insert(0, _line_of(entry))
                if len(lines) == limit:
                    break
        return lines

    async def add(
        self, account: str, contact: str, name: str | None, groups: Sequence[str] | None
    ) -> Mapping[str, Any]:
        """Put a contact into a roster, or give it another name and other groups; what is None stays. What was
        done: added, changed or unchanged.
        """
        await self._check(account)
        self.rosters.check_names(name or "", groups or ())

        def edit(item: RosterItem | None) -> RosterItem:
            before = item or RosterItem(contact)
            return replace(
                before,
                name=before.name if name is None else name,
                groups=before.groups if groups is None else tuple(groups),
                hidden=False,
            )

        change = await self.contacts.change(account, contact, edit, by=BY, what="set")
        is_new = change.old is None or change.old.hidden
        done = "unchanged" if change.new == change.old else "added" if is_new else "changed"
        return {"account": account, done: contact, "item": describe(change.new)}

    async def remove(self, account: str, contact: str) -> None:
        """Take a contact out of a roster, with all subscriptions."""
        await self._check(account)
        try:
            await self.contacts.remove_item(account, contact, BY)
        except StanzaError as error:
            if error.condition != "item-not-found":
                raise
            raise CommandError(f"{contact} is not in the roster of {account}") from None

    async def undo(self, account: str, version: int) -> Mapping[str, Any]:
        """Put an item back as it was before that version; how it stands now."""
        await self._check(account)
        contact = await RosterUndo(self.rosters, self.contacts, self.accounts).undo(account, version, BY)
        item = await self.rosters.get_item(account, contact)
        return {"account": account, "contact": contact, "item": describe(item)}

    async def count(self) -> int | None:
        """How many accounts there are; None when they are very many."""
        total, token = 0, None
        while total < COUNT_LIMIT:
            names, token = await self.accounts.page(token, COUNT_PAGE)
            total += len(names)
            if token is None:
                return total
            await asyncio.sleep(0)
        return None

    async def repair_one(self, account: str, *, mend: bool) -> Sequence[Mapping[str, Any]]:
        """Find, and mend, the faults between an account and its contacts."""
        await self._check(account)
        return await self._repair(account, every=False, mend=mend)

    async def repair_some(
        self, after: bytes | None, rate: float, *, mend: bool
    ) -> tuple[int, Sequence[Mapping[str, Any]], bytes | None]:
        """Do so for some accounts, `rate` of them a second (0: as fast as it goes): how many, their faults,
        and the token to go on with.
        """
        limit = min(SLICE_ACCOUNTS, max(1, int(rate * SLICE_SECONDS))) if rate else SLICE_ACCOUNTS
        names, token = await self.accounts.page(after, limit)
        loop, rows = asyncio.get_running_loop(), []
        begun_at = loop.time()
        for number, name in enumerate(names, 1):
            rows += await self._repair(name, every=True, mend=mend)
            await asyncio.sleep(begun_at + number / rate - loop.time() if rate else 0)
        return len(names), rows, token

    async def _repair(self, account: str, *, every: bool, mend: bool) -> list[Mapping[str, Any]]:
        faults = await self.repairs.check(account, every=every)
        return [await self._treat(fault, mend=mend) for fault in faults]

    async def _treat(self, fault: Fault, *, mend: bool) -> Mapping[str, Any]:
        done = "not yet"
        if mend:
            try:
                done = "yes" if await self.repairs.mend(fault) else "was gone"
            except StanzaError as error:
                done = f"no: {error}"
        row = {"account": fault.account, "contact": fault.contact, "problem": fault.problem}
        return {**row, "remedy": fault.remedy.value, "mended": done}

    async def _check(self, account: str) -> None:
        exists = self.accounts.exists(account)
        if not (await exists if isinstance(exists, Awaitable) else exists):
            raise AccountUnknown(account)


def describe(item: RosterItem | None) -> str:
    """An item in a few words; "" for none."""
    if item is None:
        return ""
    flags = (("ask", item.ask), ("pending", item.pending_in), ("approved", item.approved))
    words = [item.subscription, *(word for word, is_set in flags if is_set)]
    words += [repr(item.name)] if item.name else []
    return " ".join([*words, f"[{', '.join(item.groups)}]"] if item.groups else words)


def _row_of(item: RosterItem) -> dict[str, Any]:
    return {
        "contact": item.contact,
        "subscription": item.subscription,
        "ask": item.ask,
        "pending": item.pending_in,
        "approved": item.approved,
        "name": item.name,
        "groups": list(item.groups),
    }


def _line_of(entry: LogEntry) -> dict[str, Any]:
    at = datetime.fromtimestamp(entry.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "version": entry.version,
        "at": at,
        "by": entry.by,
        "what": entry.what,
        "contact": entry.contact,
        "before": describe(entry.old) if entry.is_whole else "(not kept)",
        "after": describe(entry.new) if entry.is_whole else "(not kept)",
    }
