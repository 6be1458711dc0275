"""Rosters as an operator changes them, in plain data: what is done reaches sessions and contacts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xmppd.core.contacts import Contacts
from xmppd.core.roster.repair import Fault, RosterRepair
from xmppd.core.roster.rosters import RosterItem
from xmppd.core.roster.undo import RosterUndo
from xmppd.core.roster.view import RosterView, describe
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
class RosterOffice(RosterView):
    """What all `roster` commands need, on the parts of one server."""

    contacts: Contacts
    repairs: RosterRepair

    async def add(
        self, account: str, contact: str, name: str | None, groups: Sequence[str] | None
    ) -> Mapping[str, Any]:
        """Put a contact into a roster, or give it another name and other groups; what is None stays. What was
        done: added, changed or unchanged.
        """
        await self.check(account)
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
        await self.check(account)
        try:
            await self.contacts.remove_item(account, contact, BY)
        except StanzaError as error:
            if error.condition != "item-not-found":
                raise
            raise CommandError(f"{contact} is not in the roster of {account}") from None

    async def undo(self, account: str, version: int) -> Mapping[str, Any]:
        """Put an item back as it was before that version; how it stands now."""
        await self.check(account)
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
        await self.check(account)
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
