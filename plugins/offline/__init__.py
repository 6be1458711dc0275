"""Offline messages (XEP-0160): kept while nobody takes them, delivered in order, with a stamp (XEP-0203)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from xmppd import hooks, ns
from xmppd.plugin import (
    CommandError,
    Counter,
    Delete,
    Later,
    Person,
    Put,
    Session,
    SessionSlot,
    Stanza,
    StanzaError,
    StoreError,
    Table,
    Value,
    begun,
    gives,
    removal,
    stamped,
    takes,
)

from .counting import Counting, OfflineConfig
from .queue import BATCH, PAGE, Queue, size_of
from .rows import (
    LIVE,
    NO_STORE,
    Given,
    address,
    dated,
    id_of,
    in_order_of,
    is_chat_state,
    is_live,
    names,
    rows_of_missed,
    with_older,
)
from .turns import Look, Turn, let_go, takes_messages

PATIENCE_SECONDS = 5.0
"""How long a client that reads slowly what was kept for it keeps others waiting: what it sends after its
presence, and other resources of its account.
"""
AGAIN_SECONDS = 0.25, 2.0
"""How soon it is looked again for what could not be read, at first and at most."""
STUBBORN_SECONDS = 10.0
"""How long whom it is for is given nothing newer meanwhile; without a store for longer, chat goes on."""
OTHERS_SECONDS = 10.0
"""When it is looked again whether those were there that what is left was for."""
PART = 16
"""Of so many parts of a full queue the oldest is forgotten at once, if the archive has it."""
Kept = Stanza | hooks.Drop | Later
"""What becomes of a message that nobody takes: it is not for us, dropped or kept, or about to be on disk."""
Until = Callable[[asyncio.Future[Any]], None]


class Offline(Counting):
    """One partition for each account, one row for each message, written once and deleted when delivered: when
    its receiver has acknowledged it, where he does that.

    No write has a condition, so storing is cheap on every engine. Ids are microseconds of a clock that all
    nodes follow, and a mark of the node.

    Storing takes turns with flushing. So one of two resources that become available at once is given all;
    and a message is either stored before a flush, or finds its receiver online.
    While a flush goes on no resource that came takes other messages: they are stored behind those that wait.
    """

    Config = OfflineConfig
    features = (ns.OFFLINE,)
    queue = Table(
        partition=("account",),
        cluster=("id",),
        columns={"stanza": "blob", "ref": "text", "messages": "int", "bytes": "int"},
        heap=True,
        person=Person("account", mentions={"stanza": "kept"}),
    )
    given = SessionSlot(factory=Given)
    stored = Counter("Messages kept for an account that was offline.")
    delivered = Counter("Kept messages that were delivered.")
    refused = Counter("Messages refused because the queue of their receiver was full.")

    async def start(self) -> None:
        """Nobody stores or flushes yet."""
        await super().start()
        self._flushing: dict[Session, bool] = {}  # whether they look (again)
        self.server.watch_unrecorded(is_on=self.config.until_acknowledged)

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
        writing = self.server.writing(account)
        async with writing as exists:
            return await self._store(account, message, writing.until) if exists else message

    async def _store(self, account: str, message: Stanza, until: Until) -> Kept:
        """The same as far as there is room; what is being written has the account there `until` it is."""
        queue, has_looked = self._queue(account), False
        ref = id_of(message, account) if self.server.recalls else ""
        stanza = b"" if ref else stamped(message, account.rpartition("@")[2], self.now())
        while await self._is_due(account, message, queue):
            row = self._row(queue, stanza, ref)
            if row is not None:
                self._tell(account, size_of(row))
                is_left = self._is_hidden(account, message)
                end = self._written(account, queue, row, is_left=is_left)
                until(end)
                return Later(end)
            if not (has_looked or self._is_counted(queue)):
                has_looked = True  # somebody else may have delivered some
                await self._count_again(account, queue)
            elif not ref:
                self.refused.inc()
                raise StanzaError("service-unavailable", "Too many messages wait for this account already.")
            elif not await self._make_room(account, queue, len(ref)):
                return hooks.KEPT  # in the archive alone
        return message

    async def keep_live(self, account: str, stanza: bytes) -> str:
        """Store a message that is about to be given to somebody; the id of its row, "" for no room."""
        async with self.server.writing(account) as exists:
            queue = self._queue(account)
            while not queue.is_open:
                async with queue.gate:
                    if queue.put is None:
                        await self._count(account, queue)
            row = self._row(queue, stanza, "")
            if row is None or not exists:
                return ""
            row["id"] = LIVE
            self._tell(account, size_of(row))
            await self._written(account, queue, row)
            return str(row["id"])

    async def _make_room(self, account: str, queue: Queue, size: int) -> bool:
        """Forget the oldest of the messages that are in the archive, some at once, unless there is room for
        so many bytes by now; whether there were any.
        """
        async with queue.lock, self.server.lock(f"flush:{account}"), queue.gate:
            await queue.quiet()
            if queue.put is None:
                await self._count_all(account, queue)
            if self._has_room(queue, size):
                return True
            settled = self.server.ids.settled()
            rows = (await self.oldest(account, PAGE)).rows
            first = next((index for index, row in enumerate(rows) if not row["ref"]), len(rows))
            oldest = rows[:first] or [row for row in rows if row["ref"]]
            oldest = oldest[: 1 + self.config.max_messages // PART]
            if not oldest:
                return False
            ids = [row["id"] for row in oldest]
            await self.queue.batch(account, writes=removal(ids, settled if first else 0))
            queue.gone = queue.gone[0] + len(ids), queue.gone[1] + sum(map(size_of, oldest))
            self._tell_deleted(account)
            return True

    async def _is_due(self, account: str, message: Stanza, queue: Queue) -> bool:
        """Whether a message is to be stored. If so, nobody flushes and how much is kept is known, as long as
        who asks does not wait.
        """
        while True:
            exists = await self.server.account_exists(account)
            if queue.is_open:
                to = message.to
                session = self.server.session(to) if to else None
                takes = self.server.takes_messages(account) if session is None else session.takes_messages
                return exists and not (takes and not self._is_hidden(account, message))
            async with queue.gate:
                if queue.put is None:
                    await self._count(account, queue)

    def _is_hidden(self, account: str, message: Stanza) -> bool:
        """Whether the account looks offline to the sender, and is to be given the message when it is kept."""
        return self.server.appears_offline(account, message.attrs.get("from", "").partition("/")[0])

    def _written(
        self, account: str, queue: Queue, row: dict[str, Value], *, is_left: bool = False
    ) -> asyncio.Future[hooks.Drop]:
        """The write of a row, under way. It ends by itself, whoever waits for it, and when. If it `is_left`
        somebody who is there is given it then.
        """
        end: asyncio.Future[hooks.Drop] = asyncio.get_running_loop().create_future()
        if is_left:
            end.add_done_callback(lambda _: self.server.messages_left(account))
        queue.fresh.append((row, end))
        queue.writing += 1
        if not queue.is_at_work:
            queue.is_at_work = True
            self.server.spawn(self._write(account, queue))
        return end

    async def _write(self, account: str, queue: Queue) -> None:
        """Write what comes, one batch after the other: whoever reads, on whatever node, finds no message of
        this node without those that it stored before.
        """
        try:
            while queue.fresh:
                rows = queue.batch()
                try:
                    await self._put(account, queue, [row for row, _ in rows])
                except Exception as error:  # noqa: BLE001 - their senders are told
                    queue.put = None  # whether they are there is seen by reading
                    for _, end in rows:
                        end.set_exception(error)
                else:
                    self.stored.inc(len(rows))
                    for _, end in rows:
                        end.set_result(hooks.KEPT)
                queue.wrote(len(rows))
                await asyncio.sleep(0)  # who waited for these sends on
        finally:
            queue.is_at_work = False

    async def _put(self, account: str, queue: Queue, rows: Sequence[dict[str, Value]]) -> None:
        """Write rows behind all that are there. Those that took too long may be deleted unread, as settled:
        they are replaced by others with newer ids, for twice is better than never.
        """
        late: Sequence[Delete] = ()
        while True:
            since = await self.server.ids.begin()
            writes = []
            for row in rows:
                queue.last = self.server.ids.time.next(after=queue.last)
                row["id"] = f"{queue.last:016x}{self._node}{LIVE if is_live(row) else ''}"
                writes.append(Put({**row}))
            await self.queue.batch(account, writes=[*late, *writes])
            if not self.server.ids.is_overdue(since):
                return
            late = [Delete((write.row["id"],)) for write in writes]

    async def _keep_missed(
        self, session: Session, queue: Queue, messages: Sequence[tuple[str, int]], at: Callable[[str], int]
    ) -> None:
        """Store messages that a session was handed, as it seemed, and that did not arrive, in the order in
        which they were taken in, and so before what came later; those that wait already as well, and what
        waits that is older, but for what another session has, which missed the same. For who holds the lock.
        """
        account = session.account
        async with self.server.writing(account), self.server.lock(f"flush:{account}"), queue.gate:
            await queue.quiet()
            [waiting] = await self.queue.scan_many([account], start=self.floors.of(account))
            held = {row["id"] for row in waiting if self.holder(account, row["id"]) not in (None, session)}
            messages = with_older(messages, [row for row in waiting if row["id"] not in held], at)
            refs = {ref for ref, _ in messages}
            others = [row for row in waiting if row["ref"] not in refs or row["id"] in held]
            room = max(0, self.config.max_messages - len(others))
            queue.put = None
            writes = rows_of_missed(messages[max(0, len(messages) - room) :], session.resource, others)
            if writes:
                self.lower(account, str(writes[0].row["id"]))
            for start in range(0, len(writes), BATCH):
                await self.queue.batch(account, writes=writes[start : start + BATCH])
            written = {write.row["id"] for write in writes}
            again = [row["id"] for row in waiting if row["ref"] in refs and row["id"] not in written | held]
            if again:
                await self.queue.batch(account, writes=[Delete((id,)) for id in again])
            self._tell_deleted(account)

    # delivering

    @hooks.session_available.at(hooks.SIGNAL, hooks.EARLY)
    @hooks.messages_kept
    def flush(self, session: Session) -> Awaitable[None] | None:
        """Give a session that takes messages what is stored, before what comes now: so it is told first.
        `messages_kept`: another node stored something while it came, or somebody else did not take it after
        all.

        Nearly all who log in have nothing waiting, and so nothing to wait for. For the others a task of
        the server does it, which a reload of this plugin does not end: the answer to their next stanza comes
        after all that was kept, unless they read too slowly for that.
        """
        if session.is_anonymous:
            return None  # nothing is ever kept for an account that is made up
        if session in self._flushing:
            self._flushing[session] = True
            return None
        looking: Look = None
        if session.account not in self._queues and not session.login.sought:  # nobody is at work there
            with suppress(StoreError):  # it is looked again
                page = begun(self.oldest(session.account, 1))
                if isinstance(page, Awaitable):
                    looking = page
                elif not page.rows:
                    return None
        going_on: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        flushing = begun(self._flush(session, going_on, looking))
        if flushing is None:
            return None
        self.server.spawn(flushing)
        return going_on

    async def _flush(self, session: Session, going_on: asyncio.Future[None], looking: Look) -> None:
        """Have it take turns with other resources of its account until nothing is left for it. All are
        held meanwhile, so none of them is given something newer than what it may be given yet. `going_on` is
        done when this is, or has to wait for others, long for somebody who reads, or for the store.
        `looking` reads the first message already, where nobody is at work on the queue.
        """
        queue, turn, pause = self._queue(session.account), Turn.DONE, AGAIN_SECONDS[0]
        until = asyncio.get_running_loop().time() + STUBBORN_SECONDS
        self._flushing[session] = True
        session.hold_messages()
        try:
            while self._flushing[session]:
                if queue.lock.locked():
                    let_go(going_on)
                async with queue.lock:
                    self._flushing[session] = False
                    turn = await self._take_turn(session, queue, going_on, looking)
                    looking = None
                if turn is Turn.OVER:
                    self._flushing[session] = True
                    let_go(going_on)
                    if (reading := self.given[session].reading) is not None:
                        await reading
                elif turn is Turn.FAILED:
                    self._flushing[session] = True
                    let_go(going_on)
                    if asyncio.get_running_loop().time() > until:
                        session.release_messages()
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, AGAIN_SECONDS[1])
        finally:
            del self._flushing[session]
            session.release_messages()
            let_go(going_on)
        if turn is Turn.LEFT:
            self.server.messages_left(session.account)
        elif turn is Turn.OTHERS:
            self.given[session].look_again(self.call_later(OTHERS_SECONDS, self.flush, session))

    async def _take_turn(
        self, session: Session, queue: Queue, going_on: asyncio.Future[None], looking: Look
    ) -> Turn:
        try:
            if session.login.sought:
                await self.server.missed(session, partial(self._keep_missed, session, queue))
            if await self._is_empty(session.account, queue, looking):
                return Turn.DONE
            if not takes_messages(session):
                return Turn.LEFT
            session.hold_messages()
            asyncio.get_running_loop().call_later(PATIENCE_SECONDS, let_go, going_on)
            async with self.server.lock(f"flush:{session.account}"), queue.gate:
                return await self._deliver(session, queue)
        except StoreError:  # somebody has to look again, for nobody else will
            return Turn.FAILED if takes_messages(session) else Turn.LEFT

    async def _is_empty(self, account: str, queue: Queue, looking: Look = None) -> bool:
        """Whether nothing is kept."""
        async with queue.gate:
            await queue.quiet()
            if (await (looking or self.oldest(account, 1))).rows:
                return False
            queue.empty()
            return True

    async def _deliver(self, session: Session, queue: Queue) -> Turn:
        """Give the client page after page, as it reads. What others send to it meanwhile is stored, and so
        comes after that (RFC 6120 10.1). If that takes long, others have their turn: what it did not draw is
        theirs, and what it drew and did not read comes to them as well, for it may have gone without a word.
        It is itself given nothing twice: what a delete without effect left comes again at the next login.
        """
        loop, given = asyncio.get_running_loop(), self.given[session]
        until = loop.time() + PATIENCE_SECONDS
        start, settled, end = None, self.server.ids.settled(), Turn.DONE  # first, before anything is read
        young = f"{settled + 1:016x}"  # among what has this id or a larger one more may be written
        while takes_messages(session):
            await queue.quiet()
            page = await self.oldest(session.account, PAGE, start)
            if not page.rows:
                break
            if not takes_messages(session):
                return Turn.LEFT
            free = [row for row in page.rows if self.holder(session.account, row["id"]) is None]
            rows = self._his(session, await self._whole(session, free))
            is_new = any(row["id"] not in given.ids for row in rows)
            if len(rows) < len(page.rows):
                settled = 0
            if len(rows) < len(free):
                end = Turn.OTHERS
            admitted = self.server.blocks.admitted(session.account, given.draw(rows))
            reading = session.give(self.noted(session, rows, admitted))
            if reading is not None and not await self._read(queue, reading, until - loop.time()):
                given.stop(reading)
                return Turn.OVER
            self.tell_held(session, rows)
            seen = sorted(row["id"] for row in rows if self.holder(session.account, row["id"]) is None)
            if len(seen) < len(rows):
                settled = 0
            if not await self._delete(session, queue, seen, settled):
                return Turn.LEFT
            if page.next is None and reading is None:
                break
            if loop.time() > until:
                return Turn.OVER
            behind = f"{page.rows[-1]['id']}!"
            start = (min(behind, young) if is_new else behind,)
        else:
            return Turn.LEFT
        if (start is None and not page.rows) or not (await self.oldest(session.account, 1)).rows:
            queue.empty()
            given.ids.clear()
            return Turn.DONE
        return end

    async def _whole(
        self, session: Session, rows: Sequence[Mapping[str, Any]]
    ) -> Sequence[Mapping[str, Any]]:
        """The same with what the archive has of them, in the order in which it has it: two nodes may have
        stored some at one moment. The stanza of one that the session has read there, or that is not there any
        more, is None. While there is no archive they wait for it.
        """
        rows = [dated(row, session.account) if is_live(row) else row for row in rows]
        refs = [row["ref"] for row in rows if row["ref"]]
        if not refs:
            return rows
        if not self.server.recalls:
            return [row for row in rows if not row["ref"]]
        found = await self.server.recall(session.account, refs, session)
        return in_order_of(found, rows)

    def _his(self, session: Session, rows: Sequence[Mapping[str, Value]]) -> Sequence[Mapping[str, Value]]:
        """Those that are for no resource that waits for its turn, or may elsewhere (RFC 6121 8.5.3.1); nor,
        for a while, for one that is there and may be about to be available as it was on another node.
        """
        account = session.account
        resources = self.server.resources(account) - {session.resource}
        if not resources:
            return rows
        shown = {one.full: one for one in self.server.locate(account) if one.full != session.full}
        own = [one for one in self.server.sessions(account) if one is not session]
        here = {one.full for one in own if one in self._flushing or one.is_flushing}
        there = {full for full, one in shown.items() if not isinstance(one, Session) and one.priority >= 0}
        coming = {f"{account}/{name}" for name in resources} - {one.full for one in own} - shown.keys()
        since = f"{self.server.ids.time.read() - int(OTHERS_SECONDS * 1_000_000):016x}"
        others, young = here | there, here | there | coming
        if not young:
            return rows
        return [
            row
            for row in rows
            if not row["stanza"]
            or address(row["stanza"]) not in (young if str(row["id"]) > since else others)
        ]

    async def _read(self, queue: Queue, reading: asyncio.Future[None], seconds: float) -> bool:
        """Whether a client has read within so many seconds; others may write meanwhile, and so may it."""
        async with queue.ajar():
            await asyncio.wait((reading,), timeout=max(seconds, 0.0))
        return reading.done()

    async def _delete(self, session: Session, queue: Queue, ids: Sequence[str], settled: int) -> bool:
        """Delete what was written, unless the receiver has gone: twice is better than never."""
        await asyncio.sleep(0)  # a broken connection shows in the next turn of the loop
        if not takes_messages(session):
            return False
        if ids:
            await queue.quiet()
            queue.put = None
            await self.queue.batch(session.account, writes=removal(ids, settled))
            self._tell_deleted(session.account)
            self.delivered.inc(len(ids))
        return True

    # moving

    @gives("offline", many=True)
    async def give(self, accounts: Sequence[str]) -> list[list[list[str | float]] | None]:
        """The messages that wait for each, with the moment in which each was taken in, oldest first.
        CommandError when some are in an archive and none is at work.
        """
        found = await self.queue.scan_many(accounts)
        return [
            await self._given(account, rows) or None for account, rows in zip(accounts, found, strict=True)
        ]

    async def _given(self, account: str, rows: Sequence[Mapping[str, Any]]) -> list[list[str | float]]:
        refs = [row["ref"] for row in rows if row["ref"]]
        if refs and not self.server.recalls:
            raise CommandError(f"What waits for {account} is in its archive: enable the plugin archive.")
        recalled = await self.server.recall(account, refs) if refs else {}
        stanzas = ((row["stanza"] or recalled.get(row["ref"]), row["id"]) for row in rows)
        return [[stanza.decode(), int(id[:16], 16) / 1_000_000] for stanza, id in stanzas if stanza]

    @takes("offline")
    async def take(self, account: str, messages: Sequence[tuple[str, float | None]] | None) -> None:
        """Messages that come with their account: these wait now, in this order, and no others."""
        queue = self._queue(account)
        async with queue.lock, self.server.lock(f"flush:{account}"), queue.gate:
            await queue.quiet()
            await self.queue.delete(account)
            self._tell_deleted(account)
            queue.empty()
            queue.last = 0
            self.lower(account, "")
            for stanza, at in messages or ():
                put = queue.put or (0, 0)
                queue.put = put[0] + 1, put[1] + len(stanza.encode())
                queue.last = max(queue.last + 1, int((self.now() if at is None else at) * 1_000_000))
                row = {"account": account, "id": f"{queue.last:016x}{self._node}", "stanza": stanza.encode()}
                await self.queue.put({**row, "messages": queue.put[0], "bytes": queue.put[1]})
            queue.put = None  # counted anew by who needs it

    @hooks.account_removed
    async def forget(self, account: str) -> None:
        """Nobody inherits messages with a name."""
        queue = self._queue(account)
        async with queue.lock, queue.gate:
            await queue.quiet()
            await self.queue.delete(account)
            self._tell_deleted(account)
            queue.empty()

    def _queue(self, account: str) -> Queue:
        queue = self._queues.get(account)
        if queue is None:
            queue = self._queues[account] = Queue()
        return queue
