"""Accounts that come and go, as the `migrate` commands of a server want them: whole files at a time."""

from __future__ import annotations

import asyncio
import importlib
from collections import deque
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from xmppd.core.accounts import ACCOUNT, Accounts, AccountUnknown
from xmppd.core.arrival import ARRIVALS, Arrival, Conflict, Outcome, Terms
from xmppd.core.arrivals import Arrivals
from xmppd.errors import StoreTimeout, StoreUnavailable
from xmppd.store.table import Row, Store

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds to wait, each time the store fails for an account, before it is asked again."""

AGAIN = (AccountUnknown, StoreUnavailable, StoreTimeout)
"""What an account is taken again after; it came or went while it was looked at, or the store failed."""

TOGETHER = 16
"""The most accounts that are looked up, and marked, together. Several such groups are under way: while one
waits for the store, another is worked on.
"""

NAMES = 1000
PAGE = 20
"""Names that one call gives, and accounts that one gives or takes back."""


class MigrateOffice:
    """What `migrate` commands need, on the parts of one server; `folder` is where runs are kept."""

    def __init__(self, accounts: Accounts, arrivals: Arrivals, store: Store, folder: Path) -> None:
        self.folder = folder
        self._accounts = accounts
        self._arrivals = arrivals
        self._store = store

    async def apply(
        self,
        file: Path,
        *,
        run: str,
        conflict: Conflict,
        live: bool,
        dry: bool,
        shadows: bool,
        under_way: int,
    ) -> list[dict[str, Any]]:
        """Take the accounts of a file of `Arrival` as JSON Lines, so many at a time, by these `Terms`; what
        became of each, in their order. Two that are one account here come one after the other.
        """
        # The JSON that it reads takes a tenth of a command to load; only what moves accounts needs it.
        arriving = importlib.import_module("xmppd.arriving")
        terms = Terms(run, conflict, live, dry, shadows)
        outcomes: list[dict[str, Any]] = []
        running: deque[asyncio.Task[list[Outcome]]] = deque()
        names: deque[set[str]] = deque()
        size = max(1, min(TOGETHER, under_way // 4))
        try:
            async for group in groups_of(arriving.arrivals_in(file), size):
                these = {arrival.account for arrival in group}
                while len(running) >= under_way // size or any(map(these.intersection, names)):
                    outcomes += map(row_of, await running.popleft())
                    names.popleft()
                running.append(asyncio.create_task(self._take(group, terms)))
                names.append(these)
            while running:
                outcomes += map(row_of, await running.popleft())
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        return outcomes

    async def _take(self, arrivals: Sequence[Arrival], terms: Terms) -> list[Outcome]:
        try:
            found = await self._arrivals.take_all(arrivals, terms)
        except AGAIN as error:
            found = [error] * len(arrivals)
        again = (self._outcome(arrival, terms, it) for arrival, it in zip(arrivals, found, strict=True))
        return await asyncio.gather(*again)

    async def _outcome(self, arrival: Arrival, terms: Terms, found: Outcome | BaseException) -> Outcome:
        """What became of an account in the end: one that failed is taken again, after a while if it was the
        store.
        """
        for pause in PAUSES:
            if isinstance(found, Outcome):
                return found
            if not isinstance(found, AGAIN):
                raise found
            await asyncio.sleep(0 if isinstance(found, AccountUnknown) else pause)
            try:
                found = await self._arrivals.take(arrival, terms)
            except AGAIN as error:
                found = error
        if isinstance(found, AccountUnknown):
            return Outcome(arrival.account, "failed", why="somebody else makes and removes it all the while")
        if isinstance(found, BaseException):
            raise found
        return found

    async def give(
        self, after: bytes | None, names: Sequence[str]
    ) -> tuple[list[dict[str, Any]], bytes | None]:
        """Some accounts with all that they have, and the token of those that follow; only `names`, if any."""
        if names:
            rows = [row for row in await self._store.get_many(ACCOUNT, names) if row is not None]
            token = None
        else:
            page = await self._store.scan_all(ACCOUNT, limit=PAGE, page=after)
            rows, token = page.rows, page.next
        rows = [row for row in rows if not row["leaving"]]
        found = [row["account"] for row in rows]
        marks, given = await asyncio.gather(
            self._store.get_many(ARRIVALS, found), self._arrivals.give_many(found)
        )
        return [await self._given(*it) for it in zip(rows, marks, given, strict=True)], token

    async def names(self, after: bytes | None) -> tuple[list[str], bytes | None]:
        """The names of some accounts, and the token of those that follow."""
        page = await self._store.scan_all(ACCOUNT, limit=NAMES, page=after)
        return [row["account"] for row in page.rows if not row["leaving"]], page.next

    async def states(self, names: Sequence[str]) -> dict[str, str]:
        """The state of each of these accounts that is here: another one after each change of its keys or its
        roster.
        """
        rows = await self._store.get_many(ACCOUNT, names)
        here = [row for row in rows if row is not None and not row["leaving"]]
        versions = await asyncio.gather(*(self._arrivals.version(row["account"]) for row in here))
        return {row["account"]: state_of(row, it) for row, it in zip(here, versions, strict=True)}

    async def _given(self, row: Row, mark: Row | None, known: tuple[int, dict[str, Any]]) -> dict[str, Any]:
        version, parts = known
        ours = await self._arrivals.changed_here(row, mark, known)
        return {
            "account": row["account"],
            "created": row["created"],
            "disabled": bool(row["disabled"]),
            "credentials": {
                name: row[name] for name in ACCOUNT.columns if name.startswith("scram_") and row[name]
            },
            "parts": parts,
            "state": state_of(row, version),
            "run": mark["run"] if mark is not None else None,
            "ours": list(ours) if ours is not None else None,
        }

    async def undo(
        self, run: str, after: bytes | None, *, dry: bool
    ) -> tuple[list[dict[str, Any]], bytes | None]:
        """Take back what a run did to some accounts, and the token of those that follow."""
        page = await self._store.scan_all(ARRIVALS, limit=PAGE, page=after)
        ours = [row for row in page.rows if row["run"] == run]
        return [row_of(await self._arrivals.undo(row, dry=dry)) for row in ours], page.next

    async def runs(self) -> dict[str, dict[str, int]]:
        """How many accounts each run brought, by what became of them."""
        found: dict[str, dict[str, int]] = {}
        async for row in self._marks():
            states = found.setdefault(str(row["run"]), {})
            states[str(row["state"])] = states.get(str(row["state"]), 0) + 1
        return found

    async def _marks(self) -> AsyncIterator[Row]:
        page: bytes | None = None
        while True:
            found = await self._store.scan_all(ARRIVALS, page=page)
            for row in found.rows:
                yield row
            if (page := found.next) is None:
                return


def state_of(row: Row, version: int) -> str:
    """What is another one after each change of an account's keys or roster."""
    return f"{row['changed']} {version}"


async def groups_of(arrivals: AsyncIterator[Arrival], size: int) -> AsyncIterator[list[Arrival]]:
    """They, so many at a time, and those of one name never in one group."""
    group: dict[str, Arrival] = {}
    async for arrival in arrivals:
        if len(group) == size or arrival.account in group:
            yield [*group.values()]
            group.clear()
        group[arrival.account] = arrival
    if group:
        yield [*group.values()]


def row_of(outcome: Outcome) -> dict[str, Any]:
    """What became of an account, as JSON: only what there is to say."""
    row: dict[str, Any] = {"account": outcome.account, "done": outcome.done}
    if outcome.kinds:
        row["kinds"] = list(outcome.kinds)
    if outcome.why:
        row["why"] = outcome.why
    if outcome.ours:
        row["ours"] = list(outcome.ours)
    if outcome.notes:
        row["lost"] = list(outcome.notes)
    return row
