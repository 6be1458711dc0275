"""Rosters as an operator sees them: plain data."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from xmppd.core.accounts import Accounts, AccountUnknown
from xmppd.core.roster.rosters import LogEntry, RosterItem, Rosters
from xmppd.moments import utc_stamp


@dataclass(frozen=True, slots=True)
class RosterView:
    """What `roster` commands need that only look."""

    rosters: Rosters
    accounts: Accounts

    async def show(self, account: str) -> Sequence[Mapping[str, Any]]:
        """The items of a roster, requests that wait included."""
        await self.check(account)
        return [_row_of(item) for item in await self.rosters.items(account)]

    async def version(self, account: str) -> int:
        """The version of a roster: another one after each change."""
        await self.check(account)
        return await self.rosters.version(account)

    async def log(self, account: str, contact: str, limit: int) -> Sequence[Mapping[str, Any]]:
        """The newest changes of a roster, oldest first; with `contact` those of its item."""
        await self.check(account)
        lines: list[Mapping[str, Any]] = []
        async with aclosing(self.rosters.log_backwards(account)) as entries:
            async for entry in entries:
                if contact in ("", entry.contact):
                    lines.insert(0, _line_of(entry))
                if len(lines) == limit:
                    break
        return lines

    async def check(self, account: str) -> None:
        """AccountUnknown when there is no such account."""
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
    at = utc_stamp(entry.at, to="milliseconds")
    return {
        "version": entry.version,
        "at": at,
        "by": entry.by,
        "what": entry.what,
        "contact": entry.contact,
        "before": describe(entry.old) if entry.is_whole else "(not kept)",
        "after": describe(entry.new) if entry.is_whole else "(not kept)",
    }
