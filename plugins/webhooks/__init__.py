"""Web hooks: back ends of games are told of what happens by signed requests, at least once and in order."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, Final

from xmppd.plugin import (
    Counter,
    Event,
    Gauge,
    Histogram,
    HttpClient,
    Person,
    Plugin,
    StoreError,
    Table,
    cluster_signal,
    every,
    listens,
    nobody,
)

from .commands import WebhookCommands
from .config import WebhooksConfig
from .courier import Courier
from .dead import DeadLetters
from .marks import LOOK_SECONDS, Marks
from .outbox import SEEN_SECONDS, Outbox
from .subscription import GONE, KIND, Subscription, of_row
from .window import Item

LAGS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0)
READ_SECONDS: Final = 5.0
"""How old what a node knows of subscriptions may be."""
BEGIN_SECONDS: Final = 1.0
"""How long after its start a process looks again for what the one before did not tell."""


class Webhooks(WebhookCommands, Plugin):
    """Events go into an outbox in the store, and from there to receivers: one node for each subscription."""

    Config = WebhooksConfig
    subscriptions = Table(
        partition=("kind",),
        cluster=("name",),
        columns={
            "id": "text",
            "url": "text",
            "events": "text",
            "accounts": "text",
            "domains": "text",
            "conditions": "text",
            "bodies": "bool",
            "secrets": "text",
            "state": "text",
            "created": "timestamp",
            "version": "int",
        },
        person=Person(mentions={"accounts": "kept", "conditions": "kept"}),
    )
    outbox = Table(
        partition=("subscription", "writer", "bucket"),
        cluster=("row",),
        columns={"bucket": "int", "row": "int", "events": "text"},
        ttl=7 * 86400.0,
        person=Person(mentions={"events": "kept"}),
    )
    writers = Table(
        partition=("kind",),
        cluster=("writer",),
        columns={"node": "text", "at": "timestamp", "heads": "text"},
        ttl=8 * 86400.0,
        person=nobody("processes of the server"),
    )
    cursors = Table(
        partition=("subscription",),
        cluster=("writer",),
        columns={"row": "int"},
        static={"holder": "text", "node": "text", "epoch": "int", "beat": "int"},
        person=nobody("how far the delivery is"),
    )
    marks = Table(
        partition=("writer",),
        cluster=("slot",),
        columns={"slot": "int", "event": "text"},
        ttl=7 * 86400.0,
        person=Person(mentions={"event": "deleted"}),
    )
    dead = Table(
        partition=("subscription", "day"),
        cluster=("id",),
        columns={"event": "text", "reason": "text", "attempts": "int", "at": "timestamp"},
        ttl=30 * 86400.0,
        person=Person(mentions={"event": "masked"}),
    )
    delivered = Counter("Events that receivers took.")
    failed = Counter("Requests to receivers that came to nothing.")
    lost = Counter("Events that a subscription had no room for: they are not delivered.")
    buried = Counter("Events that receivers did not take: they are dead letters.")
    recovered = Counter("Events of acts that a process did and could not tell any more.")
    lag = Histogram("Seconds from an event to its delivery.", LAGS)
    behind_seconds = Gauge("How old the oldest event is that waits to be delivered by this node.")
    waiting = Gauge("Events of this node that were not delivered yet.")
    open_circuits = Gauge("Receivers that this node cannot deliver to.")

    async def start(self) -> None:
        """Read who wants what."""
        self._client: HttpClient | None = None
        self.boxes = Outbox(self)
        self.boxes.written = self._written
        self.letters = DeadLetters(self)
        self.known: dict[str, Subscription] = {}
        self.couriers: dict[str, Courier] = {}
        self._running: dict[str, asyncio.Task[Any]] = {}
        self._behind: dict[str, float] = {}
        self._meant: dict[str, list[Subscription]] = {}
        self.foreseen = Marks(self)
        self.server.events.keeper = self.foreseen
        await self.read()
        self.call_later(BEGIN_SECONDS, self._recover)

    async def stop(self) -> None:
        """Write what there is, and let others deliver it."""
        if self.server.events.keeper is self.foreseen:
            self.server.events.keeper = None
        await self.foreseen.close()
        await self.boxes.close()
        for courier in self.couriers.values():
            courier.close()
        if self._running:
            await asyncio.wait([*self._running.values()], timeout=self.config.seconds)
        if self._client is not None:
            await self._client.close()

    @property
    def client(self) -> HttpClient:
        """What asks receivers, made when the first one is to be asked."""
        if self._client is None:
            config = self.config
            self._client = self.server.http_client(
                allowed=config.allowed, seconds=config.seconds, ca_file=config.ca_file
            )
        return self._client

    # who wants what

    async def read(self) -> None:
        """Act by what the table says; StoreError."""
        rows = (await self.subscriptions.scan(KIND)).rows
        found = {row["name"]: of_row(row) for row in rows}
        if found == self.known:
            return
        gone = {it.id for it in self.known.values()} - {it.id for it in found.values()}
        self.known = found
        self._meant = {}
        for number in gone:
            self.boxes.forget(number)
        self._employ()
        self.server.events.changed()

    @every(READ_SECONDS)
    def look(self) -> Coroutine[Any, Any, None] | None:
        """Somebody may have changed them elsewhere, where there is an elsewhere."""
        self.open_circuits.set(sum(it.is_open for it in self.couriers.values()))
        return self.read() if self.server.has_other_nodes else None

    @every(SEEN_SECONDS)
    def live(self) -> Coroutine[Any, Any, None] | None:
        """While there is somebody to tell."""
        return self.boxes.say() if any(it.collects for it in self.known.values()) else None

    @every(LOOK_SECONDS)
    def look_after(self) -> Coroutine[Any, Any, None] | None:
        """Of some acts nobody knows what became of them."""
        return self.foreseen.look() if self.foreseen.open else None

    @every(SEEN_SECONDS, once=True)
    async def tidy(self) -> None:
        """One node does, where there are several."""
        if self.known:
            await self.foreseen.recover()
            await self.boxes.tidy()

    def _recover(self) -> None:
        self.spawn(self._recover_mine())

    async def _recover_mine(self) -> None:
        """What the process before this one did and did not tell."""
        while self.known:
            try:
                await self.foreseen.recover()
                break
            except StoreError:
                await self.pause(BEGIN_SECONDS)

    @cluster_signal
    async def changed(self) -> None:
        """They were, on whatever node."""
        await self.read()

    def _employ(self) -> None:
        """A courier for each that is delivered to, and none for others."""
        wanted = {it.id: it for it in self.known.values() if it.collects}
        for number in [number for number in self.couriers if number not in wanted]:
            courier = self.couriers.pop(number)
            self._behind.pop(courier.subscription.name, None)
            courier.close()
        for number, it in wanted.items():
            courier_or_none = self.couriers.get(number)
            if courier_or_none is None:
                courier = self.couriers[number] = Courier(self, it)
                task = self._running[number] = self.spawn(courier.run())
                task.add_done_callback(lambda _, number=number: self._running.pop(number, None))
            else:
                courier_or_none.subscription = it
                courier_or_none.wake()

    def patterns(self) -> Iterable[str]:
        """What all of them want."""
        return {pattern for it in self.known.values() if it.collects for pattern in it.events}

    @listens(lambda self: self.patterns())
    def note(self, event: Event) -> asyncio.Future[None] | None:
        """Keep it for those who want it."""
        waiting = self.put(event)
        if self.foreseen.open:
            self.foreseen.told(event.id, waiting)
        return waiting

    def put(self, event: Event) -> asyncio.Future[None] | None:
        """The same of one that was not foreseen here."""
        texts = {it.id: text for it in self.wanting(event.kind) if (text := it.text(event)) is not None}
        return self.boxes.put(texts) if texts else None

    def wanting(self, kind: str) -> list[Subscription]:
        """Who is told of a kind of events."""
        found = self._meant.get(kind)
        if found is None:
            about = self.server.events.kinds[kind]
            found = self._meant[kind] = [
                it for it in self.known.values() if it.collects and any(map(about.is_meant, it.events))
            ]
        return found

    # between nodes

    def _written(self, number: str) -> None:
        courier = self.couriers.get(number)
        if courier is None:
            return
        if courier.lease.is_held:
            courier.wake()
        elif courier.lease.node in self.server.other_nodes():
            self.more.tell_node(courier.lease.node, number)

    @cluster_signal
    def more(self, number: str) -> None:
        """Another node has written something for a subscription."""
        if (courier := self.couriers.get(number)) is not None:
            courier.wake()

    @cluster_signal
    def rows_delivered(self, writer: str, number: str, row: int) -> None:
        """Rows of a writer up to this one are."""
        if writer == self.boxes.writer:
            self.boxes.delivered(number, row)

    # what couriers ask for

    def behind(self, name: str, seconds: float) -> None:
        """How old the oldest event is that waits for a receiver."""
        self._behind[name] = seconds
        self.behind_seconds.set(max(self._behind.values(), default=0.0))

    async def gone(self, subscription: Subscription) -> None:
        """The receiver said that it is, for ever."""
        self.log.warning("webhook-gone", extra={"subscription": subscription.name})
        try:
            await self.change(subscription.name, lambda it: {"state": GONE})
        except StoreError:
            await self.pause(1.0)

    async def bury(self, subscription: Subscription, item: Item, why: str) -> None:
        """It is a dead letter when this is done; StoreError."""
        await self.letters.bury(subscription, item, why)
        self.buried.inc()
        extra = {"subscription": subscription.name, "event_id": item.id, "reason": why}
        self.log.warning("webhook-dead-letter", extra=extra)

    async def pause(self, seconds: float) -> None:
        """Wait, by the server's clock."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.call_later(seconds, lambda: None if future.done() else future.set_result(None))
        await future
