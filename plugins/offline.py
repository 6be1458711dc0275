"""Offline messages (XEP-0160): kept while nobody takes them, delivered in order, with a stamp (XEP-0203)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Mapping, Sequence
from weakref import WeakValueDictionary

from xmppd import hooks, ns
from xmppd.plugin import (
    Counter,
    Delete,
    Later,
    NonNegativeInt,
    Plugin,
    PluginConfig,
    Session,
    Stanza,
    StanzaError,
    Table,
    Value,
    begun,
    delay,
    gives,
    insert_child,
    takes,
)

PAGE = 100
SETTLED_SECONDS = 60.0
"""How far the clocks of two nodes may be apart, with the time that a write takes."""
PATIENCE_SECONDS = 5.0
"""How long what a client sends after its presence waits for the client to read what was kept for it."""
COUNTED = 2048
"""Of how many accounts it is remembered what they hold, so that it need not be read for each message."""
Kept = Stanza | hooks.Drop | Later
"""What becomes of a message that nobody takes: it is not for us, dropped or kept, or about to be on disk."""
CHAT_STATE = f"{{{ns.CHAT_STATES}}}"
THREAD = f"{{{ns.CLIENT}}}thread"
NO_STORE = f"{{{ns.HINTS}}}no-store"


class OfflineConfig(PluginConfig):
    """How many messages are kept for one account, and how many bytes of them."""

    max_messages: NonNegativeInt = 1000
    max_bytes: NonNegativeInt = 2_097_152


class Queue:
    """What this node knows of the messages of one account, and who is at work there.

    `last` is the newest id; `put` and `gone` count messages and bytes since the queue was last empty, both
    None until they were read. Any number may write; nobody does while `gate` is held and `writing` is 0.
    Whoever delivers holds `lock`, and lets the gate go while his client has to read.
    """

    __slots__ = ("__weakref__", "gate", "gone", "last", "lock", "put", "settled", "writing")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.gate = asyncio.Lock()
        self.writing = 0
        self.settled: asyncio.Future[None] | None = None
        self.last = 0
        self.put: tuple[int, int] | None = None
        self.gone = (0, 0)

    @property
    def is_open(self) -> bool:
        """Whether a message may be put behind the others now."""
        return self.put is not None and not self.gate.locked()

    def empty(self) -> None:
        """Nothing is kept now."""
        self.put = self.gone = (0, 0)

    def wrote(self) -> None:
        """A write is done; who holds the gate may be waiting for the last one."""
        self.writing -= 1
        if not self.writing and self.settled is not None and not self.settled.done():
            self.settled.set_result(None)

    async def quiet(self) -> None:
        """Wait until nobody writes. For who holds the gate."""
        if self.writing:
            self.settled = asyncio.get_running_loop().create_future()
            await self.settled
            self.settled = None


class Offline(Plugin):
    """One partition for each account, one row for each message, written once and deleted when delivered.

    No write has a condition, so storing is cheap on every engine. Ids are microseconds and a mark of the
    node; rows hold running totals, so the newest and the oldest tell how much there is. Nodes that write to
    one queue at once do not see each other's, so the bounds then hold for each of them.

    Storing goes on side by side, but takes turns with flushing. So one of two resources that become available
    at once is given everything; and a message is either stored before a flush, or finds its receiver online.
    While a flush goes on its receiver takes no other messages: they are stored behind those that wait, so
    order holds, nothing piles up in memory, and a client that reads slowly holds up nobody.
    """

    Config = OfflineConfig
    features = (ns.OFFLINE,)
    queue = Table(
        partition=("account",),
        cluster=("id",),
        columns={"stanza": "blob", "messages": "int", "bytes": "int"},
        heap=True,
    )
    stored = Counter("Messages kept for an account that was offline.")
    delivered = Counter("Kept messages that were delivered.")
    refused = Counter("Messages refused because the queue of their receiver was full.")

    async def start(self) -> None:
        """Nobody stores or flushes yet."""
        self._node = secrets.token_hex(4)
        self._queues: WeakValueDictionary[str, Queue] = WeakValueDictionary()
        self._counted: dict[str, Queue] = {}
        self._waiting: set[Session] = set()  # for another one's flush, or for their own last one

    # keeping

    @hooks.message_unclaimed.at(hooks.FILTER, hooks.LATE)
    def keep(self, account: str, message: Stanza) -> Kept | Awaitable[Kept]:
        """Store a message durably, unless it is one of those that XEP-0160 3 and XEP-0334 4.3 leave out."""
        return begun(self._keep(account, message))

    async def _keep(self, account: str, message: Stanza) -> Kept:
        if is_chat_state(message):
            return hooks.DROP  # nobody wants an error for having begun to type
        if names(message, ns.HINTS) and message.xml.find(NO_STORE) is not None:
            return message
        queue = self._queue(account)
        for _ in range(2):
            if not await self._is_due(account, message.to, queue):
                return message
            row = self._row(account, queue, self._stamped(account, message))
            if row is not None:
                return self._written(queue, row)
            queue.put = None  # somebody else may have delivered some: look again
        self.refused.inc()
        raise StanzaError("service-unavailable", "Too many messages wait for this account already.")

    def _stamped(self, account: str, message: Stanza) -> bytes:
        """The message with our stamp."""
        return insert_child(message.raw, "message", delay(account.rpartition("@")[2], self.now()))

    async def _is_due(self, account: str, to: str | None, queue: Queue) -> bool:
        """Whether a message to that address is to be stored. If so, nobody flushes and how much is kept is
        known, as long as who asks does not wait.
        """
        while True:
            exists = await self.server.account_exists(account)
            if queue.is_open:
                session = self.server.session(to) if to else None
                takes = self.server.takes_messages(account) if session is None else session.takes_messages
                return exists and not takes
            async with queue.gate:
                if queue.put is None:
                    await self._count(account, queue)

    async def _count(self, account: str, queue: Queue) -> None:
        """Read how much is kept. For who holds the lock."""
        await queue.quiet()
        newest = (await self.queue.scan(account, limit=1, reverse=True)).rows
        oldest = (await self.queue.scan(account, limit=1)).rows
        queue.empty()
        if newest and oldest:
            queue.last = int(newest[0]["id"][:16], 16)
            queue.put = newest[0]["messages"], newest[0]["bytes"]
            queue.gone = oldest[0]["messages"] - 1, oldest[0]["bytes"] - len(oldest[0]["stanza"])
        self._counted[account] = queue
        if len(self._counted) > COUNTED:
            del self._counted[next(iter(self._counted))]

    def _row(self, account: str, queue: Queue, stanza: bytes) -> Mapping[str, Value] | None:
        """The row of a message, behind those that are there; None when more would be kept than may be.

        Ids go on from the last one, so that a clock that jumps back changes no order.
        """
        assert queue.put is not None
        messages, size = queue.put[0] + 1, queue.put[1] + len(stanza)
        gone_messages, gone_bytes = queue.gone
        if messages - gone_messages > self.config.max_messages or size - gone_bytes > self.config.max_bytes:
            return None
        queue.put = messages, size
        queue.last = max(queue.last + 1, int(self.now() * 1_000_000))
        number = f"{queue.last:016x}{self._node}"
        return {"account": account, "id": number, "stanza": stanza, "messages": messages, "bytes": size}

    def _written(self, queue: Queue, row: Mapping[str, Value]) -> Later | hooks.Drop:
        """The write of a row, under way: those of one sender need not wait for each other. It ends by itself,
        and not when its sender's turn comes: others may wait for that.
        """
        writing = begun(self._write(queue, row))
        if isinstance(writing, hooks.Drop):
            return writing
        end: asyncio.Future[hooks.Drop] = asyncio.get_running_loop().create_future()
        self.server.spawn(finish(writing, end))
        return Later(end)

    async def _write(self, queue: Queue, row: Mapping[str, Value]) -> hooks.Drop:
        queue.writing += 1
        try:
            await self.queue.put(row)
        except BaseException:
            queue.put = None  # whether it is there is seen by reading
            raise
        finally:
            queue.wrote()
        self.stored.inc()
        return hooks.KEPT

    # delivering

    @hooks.session_available
    def flush(self, session: Session) -> Awaitable[None] | None:
        """Nearly all who log in have nothing waiting, and so nothing to wait for. For the others a task of
        the server does it, which a reload of this plugin does not end: the answer to their next stanza comes
        after all that was kept, unless they read too slowly for that.
        """
        if session.is_anonymous or session in self._waiting:
            return None  # nothing is ever kept for an account that is made up
        going_on: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        flushing = begun(self._flush(session, going_on))
        if flushing is None:
            return None
        self.server.spawn(flushing)
        return going_on

    @hooks.messages_kept
    def flush_more(self, session: Session) -> Awaitable[None] | None:
        """What another node stored while the session came, or somebody else did not take after all, is
        delivered now, before what comes; if this goes on, behind that.
        """
        if session in self._waiting:
            session.hold_messages()
        return self.flush(session)

    async def _flush(self, session: Session, going_on: asyncio.Future[None]) -> None:
        """Hand everything to the first resource that takes messages; another one that comes meanwhile is
        given what is left, if the first one breaks off. `going_on` is done when this is, or has to wait long
        for somebody who reads.
        """
        queue = self._queue(session.account)
        if queue.lock.locked():
            let_go(going_on)
        else:
            session.hold_messages()
        self._waiting.add(session)
        is_done = True
        async with queue.lock:
            self._waiting.remove(session)
            session.hold_messages()
            try:
                if not await self._is_empty(session.account, queue):
                    is_done = False
                if not is_done and takes_messages(session):
                    asyncio.get_running_loop().call_later(PATIENCE_SECONDS, let_go, going_on)
                    async with self.server.lock(f"flush:{session.account}"), queue.gate:
                        is_done = await self._deliver(session, queue)
            finally:
                if session not in self._waiting:  # else it is to look again before anything else comes
                    session.release_messages()
                let_go(going_on)
        if not is_done:
            self.server.messages_left(session.account)

    async def _is_empty(self, account: str, queue: Queue) -> bool:
        """Whether nothing is kept."""
        async with queue.gate:
            await queue.quiet()
            if (await self.queue.scan(account, limit=1)).rows:
                return False
            queue.empty()
            return True

    async def _deliver(self, session: Session, queue: Queue) -> bool:
        """Give the client page after page, as it reads. What others send to it meanwhile is stored, and so
        comes after that (RFC 6120 10.1). Nothing is sent twice: where the clocks of an engine's nodes differ,
        a deletion may have no effect, and what is left by it comes again at the next login. Whether that was
        all: else the client takes no more.
        """
        start = None
        while takes_messages(session):
            await queue.quiet()
            page = await self.queue.scan(session.account, start=start, limit=PAGE)
            if not page.rows:
                break
            if not takes_messages(session):
                return False
            reading = session.give([row["stanza"] for row in page.rows])
            if reading is not None:
                await self._read(queue, reading)
            ids = [row["id"] for row in page.rows]
            if not await self._delete(session, queue, ids):
                return False
            if page.next is None and reading is None:
                break
            start = (f"{ids[-1]}!",)  # nothing is between
        else:
            return False
        if (start is None and not page.rows) or not (await self.queue.scan(session.account, limit=1)).rows:
            queue.empty()
        return True

    async def _read(self, queue: Queue, reading: Awaitable[None]) -> None:
        """Wait until a client has read; others may write, and it may itself when it takes long."""
        queue.gate.release()
        try:
            await reading
        finally:
            await queue.gate.acquire()

    async def _delete(self, session: Session, queue: Queue, ids: Sequence[str]) -> bool:
        """Delete what was written, unless the receiver has gone: better twice than never."""
        await asyncio.sleep(0)  # a broken connection shows in the next turn of the loop
        if not takes_messages(session):
            return False
        await queue.quiet()
        queue.put = None
        await self.queue.batch(session.account, writes=self._removal(ids))
        self.delivered.inc(len(ids))
        return True

    def _removal(self, ids: Sequence[str]) -> list[Delete]:
        """The deletes of the first messages of a queue: all through one of them at once, for on some engines
        each delete of a single row makes later reads slower. Another node may still add to the last moments
        before now, so from those only what was delivered is deleted.
        """
        settled = f"{max(int((self.now() - SETTLED_SECONDS) * 1_000_000), 0):016x}"
        end = min(ids[-1], settled)
        return [Delete((end,), through=True), *(Delete((number,)) for number in ids if number > end)]

    # moving

    @gives("offline", many=True)
    async def give(self, accounts: Sequence[str]) -> list[list[list[str | float]] | None]:
        """The messages that wait for each, with the moment in which each was taken in, oldest first."""
        found = await self.queue.scan_many(accounts)
        return [
            [[row["stanza"].decode(), int(row["id"][:16], 16) / 1_000_000] for row in rows] or None
            for rows in found
        ]

    @takes("offline")
    async def take(self, account: str, messages: Sequence[tuple[str, float | None]] | None) -> None:
        """Messages that come with their account: these wait now, in this order, and no others."""
        queue = self._queue(account)
        async with queue.lock, queue.gate:
            await queue.quiet()
            await self.queue.delete(account)
            queue.empty()
            queue.last = 0
            for stanza, at in messages or ():
                put = queue.put or (0, 0)
                queue.put = put[0] + 1, put[1] + len(stanza.encode())
                queue.last = max(queue.last + 1, int((self.now() if at is None else at) * 1_000_000))
                number = f"{queue.last:016x}{self._node}"
                row = {"account": account, "id": number, "stanza": stanza.encode()}
                await self.queue.put({**row, "messages": queue.put[0], "bytes": queue.put[1]})
            queue.put = None  # counted anew by who needs it

    @hooks.account_removed
    async def forget(self, account: str) -> None:
        """Nobody inherits messages with a name."""
        queue = self._queue(account)
        async with queue.lock, queue.gate:
            await queue.quiet()
            await self.queue.delete(account)
            queue.empty()

    def _queue(self, account: str) -> Queue:
        queue = self._queues.get(account)
        if queue is None:
            queue = self._queues[account] = Queue()
        return queue


async def finish(writing: Awaitable[hooks.Drop], end: asyncio.Future[hooks.Drop]) -> None:
    """Await a write, and tell who waits for its end, if somebody does, what became of it."""
    try:
        kept = await writing
    except Exception as error:  # noqa: BLE001 - it is told to the sender
        if not end.done():
            end.set_exception(error)
    else:
        if not end.done():
            end.set_result(kept)


def let_go(waiting: asyncio.Future[None]) -> None:
    """Nobody waits for this any more; harmless if repeated."""
    if not waiting.done():
        waiting.set_result(None)


def takes_messages(session: Session) -> bool:
    """Whether the session is there still, available, and not by a negative priority out of the way."""
    return not session.is_over and session.presence is not None and session.priority >= 0


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
