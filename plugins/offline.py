"""Offline messages (XEP-0160): kept while nobody takes them, delivered in order, with a stamp (XEP-0203)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

from pydantic import NonNegativeInt

from xmppd import hooks, ns
from xmppd.plugin import (
    Counter,
    Delete,
    Plugin,
    PluginConfig,
    Put,
    Session,
    Stanza,
    StanzaError,
    Table,
    delay,
    element,
    insert_child,
    serialize,
)

PAGE = 100
COUNTS = 2048
"""Of how many accounts it is remembered what they hold, so that it need not be read for each message."""
CHAT_STATE = f"{{{ns.CHAT_STATES}}}"
THREAD = f"{{{ns.CLIENT}}}thread"
DELAY = f"{{{ns.DELAY}}}delay"
NO_STORE = f"{{{ns.HINTS}}}no-store"


class OfflineConfig(PluginConfig):
    """How many messages are kept for one account, and how many bytes of them.

    All of them may be sent in one go, so keep `max_bytes` well below `limits.write_buffer_hard`.
    """

    max_messages: NonNegativeInt = 1000
    max_bytes: NonNegativeInt = 2_097_152


class Offline(Plugin):
    """One partition for each account, one row for each message; what it holds is counted by compare-and-set.

    Storing and flushing take turns by a lock for each account. So one of two resources that become available
    at once is given everything; and a message is either stored before a flush, or finds its receiver online.
    """

    Config = OfflineConfig
    features = (ns.OFFLINE,)
    queue = Table(
        partition=("account",),
        cluster=("id",),
        columns={"stanza": "blob"},
        static={"messages": "int", "bytes": "int", "last": "int"},
    )
    stored = Counter("Messages kept for an account that was offline.")
    delivered = Counter("Kept messages that were delivered.")
    refused = Counter("Messages refused because the queue of their receiver was full.")

    async def start(self) -> None:
        """Nobody stores or flushes yet."""
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._counts: dict[str, Mapping[str, Any]] = {}

    # keeping

    @hooks.message_unclaimed.at(hooks.FILTER, hooks.LATE)
    async def keep(self, account: str, message: Stanza) -> Stanza | hooks.Drop:
        """Store a message durably, unless it is one of those that XEP-0160 3 and XEP-0334 4.3 leave out."""
        if is_chat_state(message):
            return hooks.DROP  # nobody wants an error for having begun to type
        if names(message, ns.HINTS) and message.xml.find(NO_STORE) is not None:
            return message
        async with self._lock(account):
            if self.server.takes_messages(account) or not await self.server.account_exists(account):
                return message
            if not await self._store(account, self._stamped(account, message)):
                self.refused.inc()
                raise StanzaError("service-unavailable", "Too many messages wait for this account already.")
        self.stored.inc()
        return hooks.DROP

    def _stamped(self, account: str, message: Stanza) -> bytes:
        """The message with our stamp, and without any that only pretends to be ours (XEP-0203 6)."""
        raw = message.raw
        if names(message, ns.DELAY):
            tree = message.xml
            honest = [c for c in tree if c.tag != DELAY or c.get("from") not in self.server.domains]
            raw = serialize(element(tree.tag, tree.attrib, tree.text, *honest))
        return insert_child(raw, "message", delay(account.rpartition("@")[2], self.now()))

    async def _store(self, account: str, stanza: bytes) -> bool:
        """Write a message behind those that are there; False when more would be kept than may be.

        Ids are microseconds, but go on from the last one, so that a clock that jumps back changes no order.
        """
        while True:
            remembered = self._counts.pop(account, None)
            held = remembered or await self.queue.get_static(account) or {}
            total, size = (held.get("messages") or 0) + 1, (held.get("bytes") or 0) + len(stanza)
            if total > self.config.max_messages or size > self.config.max_bytes:
                if remembered is None:
                    return False
                continue  # somebody else may have delivered some
            last = max((held.get("last") or 0) + 1, int(self.now() * 1_000_000))
            put = Put({"id": f"{last:016x}", "stanza": stanza})
            counts = {"messages": total, "bytes": size, "last": last}
            if await self._write(account, [put], held, counts):
                return True

    # delivering

    @hooks.session_available
    async def flush(self, session: Session) -> None:
        """Hand everything to the first resource that takes messages; delete a page when it was written."""
        account = session.account
        async with self._lock(account):
            while rows := (await self.queue.scan(account, limit=PAGE)).rows:
                if not takes_messages(session):
                    return
                for row in rows:
                    session.send(row["stanza"])
                await asyncio.sleep(0)  # the bytes are written at the end of this turn of the loop
                if not takes_messages(session):
                    return  # better twice than never
                await self._discard(account, rows)
                self.delivered.inc(len(rows))

    @hooks.account_removed
    async def forget(self, account: str) -> None:
        """Nobody inherits messages with a name."""
        async with self._lock(account):
            self._counts.pop(account, None)
            await self.queue.delete(account)

    # both

    def _lock(self, account: str) -> asyncio.Lock:
        return self._locks.setdefault(account, asyncio.Lock())

    async def _discard(self, account: str, rows: Sequence[Mapping[str, Any]]) -> None:
        gone, size = [Delete((row["id"],)) for row in rows], sum(len(row["stanza"]) for row in rows)
        while True:
            held = self._counts.pop(account, None) or await self.queue.get_static(account) or {}
            counts = {
                "messages": (held.get("messages") or 0) - len(rows),
                "bytes": (held.get("bytes") or 0) - size,
            }
            if await self._write(account, gone, held, counts):
                return

    async def _write(
        self, account: str, writes: Sequence[Put | Delete], held: Mapping[str, Any], counts: dict[str, int]
    ) -> bool:
        """Write and count, unless somebody else has counted since `held` was read; remember the counts."""
        expect = {name: held.get(name) for name in counts}
        if not await self.queue.batch(account, writes=writes, static=counts, expect=expect):
            return False
        if len(self._counts) >= COUNTS:
            del self._counts[next(iter(self._counts))]
        self._counts[account] = {**held, **counts}
        return True


def takes_messages(session: Session) -> bool:
    """Whether the session is there still, available, and not by a negative priority out of the way."""
    return session.connection is not None and session.presence is not None and session.priority >= 0


def names(message: Stanza, namespace: str) -> bool:
    """Whether the namespace may occur in the bytes: as it is, or written with character references."""
    return namespace.encode() in message.raw or b"&#" in message.raw


def is_chat_state(message: Stanza) -> bool:
    """Whether a message tells a chat state and nothing else (XEP-0085 5.1)."""
    if ns.CHAT_STATES.encode() not in message.raw:
        return False
    return all(
        child.tag.startswith(CHAT_STATE) or child.tag == THREAD or child.tag.endswith("}no-store")
        for child in message.xml
    )
