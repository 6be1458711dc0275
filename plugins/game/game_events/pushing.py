"""One event on its way: kept, given to who is there on each node, and counted."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from xmppd.plugin import CommandError

from .stanzas import Event

if TYPE_CHECKING:
    from . import GameEvents

SLICE: Final = 200
"""Players that are seen to in one go."""
AT_ONCE: Final = 32
"""Pushes that are under way on a node; others wait for them."""
TRY_LATER: Final = 69
"""The exit code of a command that may be repeated; by HTTP that is 503."""


@dataclass
class Outcome:
    """What became of an event."""

    recipients: int = 0
    unknown: int = 0
    kept: int = 0
    stale: int = 0
    sessions: int = 0
    reached: set[str] = field(default_factory=set)


class Call:
    """What other nodes were asked and have not answered: pieces of each."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.pieces: dict[tuple[str, int], Sequence[str]] = {}
        self.left: Counter[str] = Counter()
        self.all_told = asyncio.Event()


class Pushes:
    """Those of this node."""

    def __init__(self, plugin: GameEvents) -> None:
        self._plugin = plugin
        self._room = asyncio.Semaphore(AT_ONCE)
        self._numbers = itertools.count(1)
        self._calls: dict[int, Call] = {}
        self._tokens = float(plugin.config.burst)
        self._filled = plugin.scope.clock()
        self._row = plugin.held.writer(("account", "resource", "node", "version", "payload", "at"))

    @property
    def waits_for(self) -> set[str]:
        """The nodes that were asked and have not answered."""
        return {node for call in self._calls.values() for node, _ in call.pieces}

    def admit(self, count: int) -> None:
        """CommandError when there were too many recipients lately."""
        config = self._plugin.config
        if not config.rate:
            return
        now = self._plugin.scope.clock()
        self._tokens = min(config.burst, self._tokens + (now - self._filled) * config.rate)
        self._filled = now
        if self._tokens < min(count, config.burst):
            raise CommandError("too many players were told of events just now", TRY_LATER, rule="rate")
        self._tokens -= count

    async def push(self, accounts: Sequence[str], event: Event, *, keeps: bool) -> tuple[Outcome, list[str]]:
        """Tell accounts of an event, and the nodes that did not say whom they reached; StoreError: some may
        have been told. A repeat does no harm.
        """
        outcome = Outcome(len(accounts))
        call = Call(outcome)
        try:
            async with self._room:
                for start in range(0, len(accounts), SLICE):
                    some = accounts[start : start + SLICE]
                    if keeps:
                        await self._keep_and_tell(call, some, event)
                    else:
                        self._tell(call, some, event)
                        await asyncio.sleep(0)
            return outcome, await self._answers(call)
        finally:
            for _, number in call.pieces:
                self._calls.pop(number, None)

    async def _keep_and_tell(self, call: Call, accounts: Sequence[str], event: Event) -> None:
        async with self._plugin.server.writing_many(accounts) as there, self._turn(there, event.resource):
            call.outcome.unknown += len(accounts) - len(there)
            self._tell(call, await self._keep(there, event, call.outcome), event)

    async def _keep(self, accounts: Sequence[str], event: Event, outcome: Outcome) -> list[str]:
        """Write it for those who have nothing newer; who is to be told."""
        plugin = self._plugin
        found = await plugin.held.scan_many(accounts, start=(event.resource,), end=(event.resource,))
        rows, right, now, node = [], [], plugin.now(), plugin.server.node
        for account, known in zip(accounts, found, strict=True):
            last = max((row["version"] for row in known), default=-1)
            if last > event.version:
                outcome.stale += 1
                continue
            right.append(account)
            if last < event.version:
                rows.append((account, event.resource, node, event.version, event.payload, now))
        if rows:
            await plugin.held.write([self._row.rows(rows)], ttl=plugin.config.keep_hours * 3600.0)
        outcome.kept += len(right)
        return right

    @asynccontextmanager
    async def _turn(self, accounts: Sequence[str], resource: str) -> AsyncIterator[None]:
        """Be the only one of this node that writes this resource of theirs: each node has one row for it, of
        which the version must never fall.
        """
        busy = self._plugin.busy
        while waiting := {it for account in accounts if (it := busy.get((account, resource))) is not None}:
            await asyncio.wait(waiting)
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for account in accounts:
            busy[account, resource] = mine
        try:
            yield
        finally:
            for account in accounts:
                del busy[account, resource]
            mine.set_result(None)

    # nodes

    def _tell(self, call: Call, accounts: Sequence[str], event: Event) -> None:
        """All nodes, whoever is known to be where: a session that is being bound on one of them looks at what
        is kept after that, and was bound before.
        """
        if not accounts:
            return
        plugin = self._plugin
        places, copies = plugin.deliver(accounts, event)
        _count(call.outcome, accounts, places, copies)
        for node in plugin.server.other_nodes():
            if plugin.server.runs(node, plugin.name):
                number = next(self._numbers)
                self._calls[number] = call
                call.pieces[node, number] = accounts
                call.left[node] += 1
                call.all_told.clear()
                plugin.deliver_for.tell_node(node, plugin.server.node, number, [*accounts], [*event])

    def answered(self, node: str, number: int, places: Sequence[int], copies: int) -> None:
        """A node has told what it reached by one piece."""
        call = self._calls.pop(number, None)
        if call is None or (accounts := call.pieces.pop((node, number), None)) is None:
            return
        _count(call.outcome, accounts, places, copies)
        call.left[node] -= 1
        self._look(call)

    def lost(self, node: str) -> None:
        """It answers nothing more, and has nobody to reach."""
        for number, call in [*self._calls.items()]:
            if call.pieces.pop((node, number), None) is not None:
                del self._calls[number]
                call.left.pop(node, None)
                self._look(call)

    @staticmethod
    def _look(call: Call) -> None:
        if not call.pieces:
            call.all_told.set()

    async def _answers(self, call: Call) -> list[str]:
        """Wait for the other nodes, for some seconds; those that are silent."""
        if not call.pieces:
            return []
        timer = self._plugin.call_later(self._plugin.config.answer, call.all_told.set)
        try:
            await call.all_told.wait()
        finally:
            timer.cancel()
        return sorted(node for node, count in call.left.items() if count)


def _count(outcome: Outcome, accounts: Sequence[str], places: Sequence[int], copies: int) -> None:
    outcome.reached.update([accounts[place] for place in places if place < len(accounts)])
    outcome.sessions += copies


def shown(outcome: Outcome, silent: list[str]) -> dict[str, Any]:
    """For a caller."""
    return {
        "recipients": outcome.recipients,
        "unknown": outcome.unknown,
        "kept": outcome.kept,
        "stale": outcome.stale,
        "reached": len(outcome.reached),
        "sessions": outcome.sessions,
        "silent": silent,
    }
