"""What clients with stream management (XEP-0198) were given: it is kept until they have acknowledged it, and
nobody else is given it as long as they may.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import takewhile
from typing import Any, Final

from xmppd import hooks
from xmppd.plugin import (
    Counter,
    Delete,
    Kept,
    Session,
    Stanza,
    StoreError,
    Table,
    cluster_signal,
    removal,
)

from .floors import Floored
from .queue import PAGE, Queue
from .rows import id_of

MOVED_SECONDS: Final = 15.0
"""How long what a session was given that moved to another node is kept for it: that tells that it has it."""
AGAIN_SECONDS: Final = 2.0
"""How soon what was acknowledged is deleted again that could not be."""


class Held:
    """In the place of sessions that hold something together."""


class Moved(Held):
    """In the place of a session that is on another node by now."""


Holder = Session | Held | str
"""Who was given something: sessions of this node, or one of the node of this name."""


class Unacknowledged(Floored):
    """`held` has the rows by account and id that somebody was given who has not acknowledged them, on this
    node or, as far as these have told, on others.
    """

    held: Kept[dict[str, dict[str, Holder]]] = Kept(dict)
    had: Kept[dict[str, list[str]]] = Kept(dict)
    """Those of them that were acknowledged and are to be deleted."""
    queue: Table
    delivered: Counter
    _counted: dict[str, Queue]

    async def start(self) -> None:
        """The timers of an instance before this one are gone."""
        await super().start()
        for account, held in [*self.held.items()]:
            self._let_go(account, [row for row, holder in held.items() if isinstance(holder, Moved)])

    def _queue(self, account: str) -> Queue:
        raise NotImplementedError

    def _tell_deleted(self, account: str) -> None:
        raise NotImplementedError

    @hooks.account_moved
    async def moved(self, old: str, new: str) -> None:
        """What is known of the messages of both names is counted anew."""
        for account in (old, new):
            self.floors.lower(account, "")
            self.held.pop(account, None)
            queue = self._queue(account)
            async with queue.lock, queue.gate:
                await queue.quiet()
                queue.empty()
                queue.put, queue.counted_at = None, None
                self._counted.pop(account, None)

    def holder(self, account: str, id: str) -> Holder | None:
        """Who was given a row, and may acknowledge it."""
        return self.held.get(account, {}).get(id)

    def noted(
        self, session: Session, rows: Sequence[Mapping[str, Any]], stanzas: Iterable[bytes]
    ) -> Iterator[bytes]:
        """The stanzas of some rows that the session is given; those that it will acknowledge are held."""
        ids = {id(row["stanza"]): row["id"] for row in rows}
        for stanza in stanzas:
            row = ids[id(stanza)]
            if self.server.when_had(session, stanza, partial(self._told, session, row)):
                self.held.setdefault(session.account, {})[row] = session
            yield stanza

    def tell_held(self, session: Session, rows: Iterable[Mapping[str, Any]]) -> None:
        """Other nodes should know what this one holds of some rows."""
        if self.server.has_other_nodes:
            account = session.account
            ids = [row["id"] for row in rows if self.holder(account, row["id"]) is session]
            if ids:
                self.holds.tell(self.server.node, account, ids)

    # what becomes of them

    def _told(self, session: Session, row: str, is_had: bool) -> None:
        account = session.account
        if is_had:
            self.was_had(account, row)
        elif self.holder(account, row) is session:
            rows = [row for row, holder in self.held[account].items() if holder is session]
            self.forsaken(session, [row for row in rows if row not in self.had.get(account, ())], session)

    def was_had(self, account: str, row: str) -> None:
        """Somebody has acknowledged it."""
        had = self.had.setdefault(account, [])
        had.append(row)
        if len(had) == 1:
            self.server.spawn(self._delete_had(account))

    def forsaken(self, session: Session, rows: Sequence[str], holder: Holder) -> None:
        """The last of those that hold some rows, a session will not acknowledge anything any more."""
        account = session.account
        if self.server.has_moved(session):
            moved = Moved()
            self.held[account].update(dict.fromkeys(rows, moved))
            self.call_later(MOVED_SECONDS, self._free, account, rows, moved)
        else:
            self._free(account, rows, holder)

    def _free(self, account: str, rows: Sequence[str], holder: Holder) -> None:
        """Others may be given what it held still."""
        left = [row for row in rows if self.holder(account, row) == holder]
        if left:
            self._let_go(account, left)
            self.server.messages_left(account)

    def _let_go(self, account: str, rows: Iterable[str]) -> None:
        held = self.held.get(account, {})
        gone = [row for row in rows if held.pop(row, None) is not None]
        if not held:
            self.held.pop(account, None)
        if gone and self.server.has_other_nodes:
            self.lets_go.tell(self.server.node, account, gone)

    async def _delete_had(self, account: str) -> None:
        """Delete what was acknowledged, as soon as the store does it."""
        rows: list[str] = []
        while True:
            try:
                rows = await self._delete_these(account)
                break
            except StoreError:
                await asyncio.sleep(AGAIN_SECONDS)
        self.delivered.inc(len(rows))
        self._let_go(account, rows)
        self._tell_deleted(account)

    async def _delete_these(self, account: str) -> list[str]:
        queue = self._queue(account)
        async with queue.lock, self.server.lock(f"flush:{account}"), queue.gate:
            await queue.quiet()
            settled = self.server.ids.settled()  # before anything is read
            count = len(self.had.get(account, ()))
            if not count:
                return []  # what could not be deleted was, with what came behind it
            is_old = int(min(self.had[account])[:16], 16) <= settled  # else each is deleted by itself
            oldest = (await self.oldest(account, min(PAGE, count))).rows if is_old else ()
            rows = dict.fromkeys(sorted(self.had.pop(account)))
            first = [row["id"] for row in takewhile(lambda row: row["id"] in rows, oldest)]
            writes = [*removal(first, settled), *(Delete((row,)) for row in rows if row not in first)]
            queue.put = None
            try:
                for start in range(0, len(writes), PAGE):
                    await self.queue.batch(account, writes=writes[start : start + PAGE])
            except StoreError:
                self.had[account] = [*rows, *self.had.get(account, ())]
                raise
            return [*rows]

    # other nodes

    @hooks.session_resumed
    async def take_over(self, session: Session) -> None:
        """A session of another node goes on here: its client may acknowledge what it was given there."""
        account, stored = session.account, self.server.stored(session)
        if not stored:
            return
        rows: dict[bytes | str, list[str]] = {}
        [waiting] = await self.queue.scan_many([account], start=self.floors.of(account))
        for row in waiting:
            rows.setdefault(row["ref"] or row["stanza"], []).append(row["id"])
        for number, stanza in stored.items():
            found = rows.get(stanza) or rows.get(id_of(Stanza("message", {}, stanza), account))
            if found:
                row = found.pop(0)
                self.held.setdefault(account, {})[row] = session
                self.server.when_stored_had(session, number, partial(self._told, session, row))
        self.tell_held(session, waiting)

    @cluster_signal
    def holds(self, node: str, account: str, rows: list[str]) -> None:
        """A session of that node was given these, and has not acknowledged them."""
        if node != self.server.node:
            self.held.setdefault(account, {}).update(dict.fromkeys(rows, node))

    @cluster_signal
    def lets_go(self, node: str, account: str, rows: list[str]) -> None:
        """They are deleted, or others may be given them."""
        if node != self.server.node and (held := self.held.get(account)) is not None:
            for row in rows:
                if held.get(row) == node:
                    del held[row]
            if not held:
                del self.held[account]

    @hooks.node_lost
    def free_those_of(self, node: str) -> None:
        """Whom its sessions were given something is there is no more."""
        for account, held in [*self.held.items()]:
            rows = [row for row, holder in held.items() if holder == node]
            self._free(account, rows, node)
