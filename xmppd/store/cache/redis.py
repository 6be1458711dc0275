"""Packed rosters in Redis, shared by all nodes: the port `SharedCache` of `xmppd.core.roster.tier`.

The protocol with its races, and what happens in each outage: docs/design/011-roster-cache.md. What is here
knows bytes and names only. Nothing raises because of Redis: whoever asks while it is away is told "nothing",
and what it missed of writes (`_Debts`) is made up for before anything is taken from it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from redis.exceptions import TimeoutError as RedisTimeout

from xmppd.core.roster.tier import Answer, Listener, Write
from xmppd.store._turns import within
from xmppd.store.cache import scripts
from xmppd.store.cache.bus import RedisBus
from xmppd.store.cache.debts import Debts
from xmppd.store.cache.duties import RedisDuties
from xmppd.store.cache.link import BATCH, FAILURES, Command, Link, LinkDown
from xmppd.store.cache.locks import Locks
from xmppd.store.cache.nodes import RedisNodes
from xmppd.store.cache.notices import Notice, Unreadable, parse
from xmppd.store.cache.url import Place

log = logging.getLogger(__name__)

LEASE_SECONDS = 3.0
"""How long a reader may take to fill what it missed; longer than any read of the store should."""

MARK_SECONDS = 30.0
"""How long a write is waited for: more than every deadline of the store."""

EMPTY_SECONDS = 30.0
"""How long it is known that an account has no roster."""

JITTER = 0.2
"""Lives differ by so much, so that what was cached together does not end together."""

PROBE_SECONDS = (0.05, 1.0)
"""How long Redis is left alone after a failure: at first, and at most."""

STEADY_SECONDS = 10.0
"""After so long without a failure the next one counts as the first."""

PING_SECONDS, DEAF_SECONDS = 1.0, 3.0
"""How often the channel is asked for a sign of life, and how long it may give none."""

UNREADABLE_SECONDS = 60.0
"""How often notices that cannot be read make everything be looked at again, at most."""

SCANNED = 1000
"""Keys looked at in one step when all are to be deleted."""


@dataclass(slots=True)
class CacheStats:
    """What happened so far. `stale`: not used because of a write under way, or turned out to be old."""

    hits: int = 0
    misses: int = 0
    negative_hits: int = 0
    stale: int = 0
    fills: int = 0
    fills_refused: int = 0
    invalidations_sent: int = 0
    invalidations_received: int = 0
    notices_unreadable: int = 0
    skipped: int = 0
    errors: int = 0
    timeouts: int = 0
    channel_losses: int = 0


class RedisCache:
    """One node's use of the shared cache.

    `ttl` is the life of a cached roster in seconds, `timeout` the limit of each step, `connect_timeout` that
    of a connection. Of the bytes it is given it knows the version only: 16 digits behind the first byte.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "xmppd",
        ttl: float = 3600.0,
        timeout: float = 0.1,
        connect_timeout: float = 1.0,
    ) -> None:
        self.stats = CacheStats()
        self._place = Place(url, connect_timeout)
        self._prefix = prefix
        self._channel = f"{prefix}:changes"
        self._node = secrets.token_hex(8)
        self._ttl = ttl
        self._patience = max(connect_timeout, timeout)
        self._link = Link(timeout, self._failed)
        self.locks = Locks(self._link, prefix)
        self.lock = self.locks.hold
        self.duties = RedisDuties(self._link, prefix)
        self._writes: dict[str, set[Write]] = {}
        self._debts = Debts(MARK_SECONDS, time.monotonic)
        self._owing = asyncio.Event()
        self._unreadable = Unreadable(UNREADABLE_SECONDS, time.monotonic)
        self._listener: Listener | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._is_heard = False
        self._pubsub: Any = None
        self._awaited: dict[bytes, asyncio.Future[None]] = {}
        self._number = 0

    async def open(self, listener: Listener) -> None:
        """Begin; Redis need not be there. Returns when it was tried once."""
        self._listener = listener
        listener.lost()
        connected = asyncio.Event()
        for work in (self._link.pump(), self._keep_up(connected), self._listen(connected)):
            self._tasks.append(asyncio.get_running_loop().create_task(work))
        await connected.wait()

    async def close(self) -> None:
        """Say what is owed, if that is possible now, and disconnect."""
        self._link.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._debts:
            try:
                await self._probe()
                await self._pay()
            except Exception as error:  # noqa: BLE001 - nothing raises because of Redis
                _report(error)
                log.warning("cache-not-told", extra={"left_out": len(self._debts)})
        if self._link.client is not None:
            await self._link.client.aclose()

    @property
    def nodes(self) -> RedisNodes:
        """The list of nodes in the same Redis, by the same connections."""
        return RedisNodes(self._link, self._prefix)

    def bus(self) -> RedisBus:
        """A bus by the same Redis, with connections of its own."""
        return RedisBus(self._place, self._prefix, self._patience)

    @property
    def is_heard(self) -> bool:
        """Whether the notices of other nodes arrive."""
        return self._is_heard

    @property
    def counters(self) -> Mapping[str, int]:
        """What happened so far."""
        link = self._link
        return {
            **asdict(self.stats),
            "up": int(link.is_up),
            "heard": int(self._is_heard),
            "owed": len(self._debts),
            "calls": link.calls,
            "mean_microseconds": int(link.seconds / link.calls * 1e6) if link.calls else 0,
        }

    async def erase(self, account: str) -> None:
        """Keep nothing of an account that has gone; what others still say of it ends within a minute."""
        with contextlib.suppress(LinkDown):
            await self._link.call("UNLINK", *self._keys(account))

    async def sounding(self) -> tuple[float, float]:
        """How many seconds it took to answer just now, and by how many its clock is ahead of ours."""
        started, since = time.time(), time.perf_counter()
        try:
            theirs, fraction = await self._link.call("TIME")
        except LinkDown:
            raise TimeoutError("Redis cannot be asked now") from None
        seconds = time.perf_counter() - since
        return seconds, int(theirs) + int(fraction) / 1e6 - (started + seconds / 2)

    # what others may have heard

    @property
    def asked(self) -> int:
        """How often Redis was asked for anything."""
        return self._link.asked

    async def said_all(self) -> None:
        """Done when Redis has every notice that was given so far, if it can be asked at all."""
        with contextlib.suppress(LinkDown):
            await self._link.call("PING")

    async def heard_all(self) -> None:
        """Done when every notice was taken that Redis has by now, if it is heard at all."""
        if self._pubsub is not None:
            token = self._token().encode()
            answered = self._awaited[token] = asyncio.get_running_loop().create_future()
            await self._pubsub.ping(token)
            await answered

    # the port

    async def read(self, account: str, *, fresh: bool = False) -> Answer:
        """What is cached, or the right to fill it."""
        token = self._token()
        notice = self._notice("c", account, "-", -1) if fresh else ""
        self.stats.stale += fresh
        try:
            answer = await self._run(
                scripts.READ, account, token, _ms(LEASE_SECONDS), self._channel if fresh else "", notice
            )
        except LinkDown:
            self.stats.skipped += 1
            if fresh:  # what is there is bad, and must not be seen when Redis is back
                self._owe(account)
            return Answer(None, "")
        if isinstance(answer, bytes):
            self.stats.hits += 1
            self.stats.negative_hits += answer[1:17] == _NEGATIVE
            return Answer(answer, "")
        if answer == scripts.MARKED:
            self.stats.stale += 1
            return Answer(None, "", is_marked=True)
        self.stats.misses += 1
        return Answer(None, token if answer == scripts.LEASED else "")

    async def fill(self, account: str, lease: str, value: bytes, *, empty: bool) -> bool:
        """Cache what was read under the lease, unless a writer took it."""
        seconds = EMPTY_SECONDS if empty else self._life()
        try:
            is_taken: bool = await self._run(scripts.FILL, account, lease, value, _ms(seconds)) == 1
        except LinkDown:
            is_taken = False
        if is_taken:
            self.stats.fills += 1
        else:
            self.stats.fills_refused += 1
        return is_taken

    async def begin(self, account: str) -> Write:
        """Mark the roster as being written."""
        write = Write(account, self._token())
        self._writes.setdefault(account, set()).add(write)
        self._debts.began(account)
        notice = self._notice("b", account, write.token, 0)
        try:
            await self._run(scripts.BEGIN, account, write.token, _ms(MARK_SECONDS), self._channel, notice)
            write.is_marked = True
        except LinkDown:
            self._owe(account)
        except BaseException:
            self.abandon(write)
            raise
        return write

    async def finish(self, write: Write, version: int, value: bytes = b"") -> bool:
        """Take the mark away, and cache the roster if it is the newest."""
        if not write.is_marked:
            self.abandon(write)
            return False
        notice = self._notice("d", write.account, write.token, version)
        self.stats.invalidations_sent += version != 0
        life = _ms(self._life())
        try:
            is_newest: int = await self._run(
                scripts.FINISH, write.account, write.token, version, value, life, self._channel, notice
            )
        except LinkDown:
            self._owe(write.account)
            return False
        finally:
            self._ended(write)
        return is_newest == 1 and write.is_alone and self._is_heard

    def abandon(self, write: Write) -> None:
        """Leave the mark where it is; where there is none, owe one."""
        self._ended(write)
        if not write.is_marked:
            self._owe(write.account)

    def publish_account(self, account: str) -> None:
        """Have other nodes forget what they know about the account."""
        try:
            future = self._link.call("PUBLISH", self._channel, self._notice("a", account, "-", 0))
        except LinkDown:
            self._debts.owe_account(account)
            self._owing.set()
            return
        self.stats.invalidations_sent += 1
        future.add_done_callback(lambda done: self._account_published(done, account))

    def _account_published(self, done: asyncio.Future[Any], account: str) -> None:
        if done.cancelled() or done.exception() is not None:
            self._debts.owe_account(account)
            self._owing.set()

    # what stands between here and Redis

    def _run(self, script: scripts.Script, account: str, *args: Any) -> asyncio.Future[Any]:
        return self._link.run(script, self._keys(account), *args)

    def _keys(self, account: str) -> tuple[str, str, str]:
        # What is in braces decides the slot; it must not be empty, and no JID begins with a space.
        name = f" {account}" if account.startswith("}") else account
        prefix = self._prefix
        return f"{prefix}:roster:{{{name}}}", f"{prefix}:lease:{{{name}}}", f"{prefix}:write:{{{name}}}"

    def _token(self) -> str:
        self._number += 1
        return f"{self._node}.{self._number}"

    def _notice(self, kind: str, account: str, token: str, version: int) -> str:
        return Notice(kind, self._node, token, version, account).text

    def _life(self) -> float:
        return self._ttl * random.uniform(1 - JITTER, 1 + JITTER)

    def _ended(self, write: Write) -> None:
        writes = self._writes.get(write.account)
        if writes is not None:
            writes.discard(write)
            if not writes:
                del self._writes[write.account]

    def _owe(self, account: str) -> None:
        self._debts.owe(account)
        self._owing.set()

    def _failed(self, error: BaseException) -> None:
        """Redis did not do what it was asked. It is left alone until it answers a probe."""
        _report(error)
        if isinstance(error, TimeoutError | RedisTimeout):
            self.stats.timeouts += 1
        else:
            self.stats.errors += 1
        if self._link.is_up:
            self._link.is_up = False
            # What was written just before may be missing there: a replica took over, say.
            self._debts.owe_recent()
            self._owing.set()
            log.warning("cache-lost", extra={"problem": _text(error)})

    async def _keep_up(self, connected: asyncio.Event) -> None:
        """Bring the link up when Redis answers and has been told what it missed; for ever."""
        delay = since = 0.0
        while True:
            try:
                was_up = self._link.is_up
                if not was_up:
                    await asyncio.sleep(delay)
                    await self._probe()
                await self._pay()
                if was_up and not self._link.is_up:
                    continue  # it failed meanwhile
                self._link.is_up = True
                if not was_up:
                    since = time.monotonic()
                    log.info("cache-back" if connected.is_set() else "cache-connected")
            except Exception as error:  # noqa: BLE001 - without this task Redis is never used again
                self._failed(error)
                delay = self._pause(delay, time.monotonic())
                if not connected.is_set():
                    log.warning("cache-lost", extra={"problem": _text(error)})
            connected.set()
            if self._link.is_up:
                await self._owing.wait()
                self._owing.clear()
                delay = self._pause(delay, since)

    def _pause(self, delay: float, since: float) -> float:
        """How long to leave Redis alone after a failure: longer when it worked for a short time only."""
        least, most = PROBE_SECONDS
        if self._link.is_up:
            return delay
        return least if time.monotonic() - since > STEADY_SECONDS else min(max(delay * 2, least), most)

    async def _probe(self) -> None:
        if self._link.client is None:
            self._link.client = await within(self._patience, self._place.commands())
        keys = self._keys("probe")
        await self._link.send([("EVALSHA", scripts.READ, 3, *keys, self._token(), 1, "", "")], self._patience)

    async def _pay(self) -> None:
        """Tell Redis and the other nodes of everything that they missed of this node's writes.

        Nothing waits between the last look at the debts and the return: so when the link comes up, all is
        paid.
        """
        while self._debts:
            if overflows := self._debts.overflows:
                await self._delete_all()
                self._debts.told_of_everything(overflows)
            elif batch := self._debts.take(256):
                await self._pay_some(*batch)

    async def _pay_some(self, rosters: list[str], accounts: list[str]) -> None:
        commands: list[Command] = [self._mark(account) for account in rosters]
        commands += [("PUBLISH", self._channel, self._notice("a", account, "-", 0)) for account in accounts]
        try:
            await self._link.send(commands, self._patience)
        except BaseException:
            self._debts.take_back(rosters, accounts)
            raise
        self.stats.invalidations_sent += len(commands)

    def _mark(self, account: str) -> Command:
        """What was missed is handled like a write that begins now and whose end nobody learns: it may yet be
        under way.
        """
        notice = self._notice("c", account, "-", -1)
        return (
            "EVALSHA", scripts.BEGIN, 3, *self._keys(account),
            self._token(), _ms(MARK_SECONDS), self._channel, notice,
        )  # fmt: skip

    async def _delete_all(self) -> None:
        """Delete all values and leases: more was missed than could be remembered."""
        # What somebody read before the link broke may still be on its way here, until its lease has ended.
        await asyncio.sleep(LEASE_SECONDS)
        client = self._link.client
        for kind in ("lease", "roster"):
            keys: list[Command] = []
            async for key in client.scan_iter(match=f"{self._prefix}:{kind}:*", count=SCANNED):
                keys.append(("UNLINK", key))
                if len(keys) == BATCH:
                    await self._link.send(keys, self._patience)
                    keys.clear()
            if keys:
                await self._link.send(keys, self._patience)
        await self._link.send([("PUBLISH", self._channel, self._notice("e", "-", "-", 0))], self._patience)

    # the channel

    async def _listen(self, connected: asyncio.Event) -> None:
        """Hear what other nodes do, for ever."""
        await connected.wait()
        delay = PROBE_SECONDS[0]
        while True:
            try:
                await self._hear()
            except Exception as error:  # noqa: BLE001 - without this task no notice is ever heard again
                if self._is_heard:
                    delay = PROBE_SECONDS[0]
                self._stopped_hearing(error)
            finally:
                if self._is_heard:
                    self._is_heard = False
                    self._overtake_all()
                    self._tell("lost")
            await asyncio.sleep(delay)
            delay = min(delay * 2, PROBE_SECONDS[1])

    def _stopped_hearing(self, error: Exception) -> None:
        if self._is_heard:
            self.stats.channel_losses += 1
            log.warning("cache-channel-lost", extra={"problem": _text(error)})
        if self._is_heard and self._link.is_up:
            self._failed(error)
        else:
            _report(error)

    async def _hear(self) -> None:
        """Subscribe and listen until that fails."""
        if self._link.client is None:
            raise OSError("not connected yet")
        client = self._place.channel()
        pubsub = client.pubsub()
        try:
            await within(self._patience, pubsub.subscribe(self._channel))
            self._pubsub = pubsub
            last = asked = time.monotonic()
            while True:
                message = await pubsub.get_message(timeout=PING_SECONDS / 4)
                now = time.monotonic()
                if message is not None:
                    last = now
                    self._take(message)
                elif now - last > DEAF_SECONDS:
                    raise TimeoutError("the channel gives no sign of life")
                if now - asked > PING_SECONDS:
                    asked = now
                    await within(self._patience, pubsub.ping())
                    self._tell("tick")
                    self._take_unreadable()
        finally:
            self._pubsub = None
            for answered in self._awaited.values():
                answered.cancel()
            self._awaited.clear()
            with contextlib.suppress(*FAILURES):
                await pubsub.aclose()
                await client.aclose()

    def _take(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "subscribe" and not self._is_heard:
            self._is_heard = True
            log.info("cache-channel-open")
            self._tell("back")
        elif message["type"] == "pong" and (answered := self._awaited.pop(message["data"], None)) is not None:
            answered.set_result(None)
        elif message["type"] == "message":
            try:
                notice = parse(message["data"])
            except ValueError:
                self.stats.notices_unreadable += 1
                self._overtake_all()
                self._unreadable.add(message["data"])
                self._take_unreadable()
            else:
                if notice.node != self._node:
                    self._heed(notice)

    def _heed(self, notice: Notice) -> None:
        self.stats.invalidations_received += 1
        kind, account = notice.kind, notice.account
        if kind in "bc":
            for write in self._writes.get(account, ()):
                write.is_alone = False
        if kind == "b":
            self._tell("roster_begun", account, notice.token)
        elif kind in "cd":
            self._tell("roster_changed", account, notice.version, notice.token)
        elif kind == "a":
            self._tell("account_changed", account)
        else:
            self._overtake_all()
            self._tell("everything_changed")

    def _overtake_all(self) -> None:
        """Others may have begun to change any roster."""
        for writes in self._writes.values():
            for write in writes:
                write.is_alone = False

    def _take_unreadable(self) -> None:
        """A node of another version may have said it, so it is not left out; what it said may be anything."""
        if (taken := self._unreadable.take()) is not None:
            count, notice = taken
            log.warning("notice-unreadable", extra={"count": count, "notice": notice})
            self._tell("everything_changed")

    def _tell(self, method: str, *args: Any) -> None:
        try:
            getattr(self._listener, method)(*args)
        except Exception:  # one notice; the channel stays
            log.exception("notice-failed")


_NEGATIVE = b"%016d" % 0


def _ms(seconds: float) -> int:
    return int(seconds * 1000)


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _report(error: BaseException) -> None:
    """Say it if Redis is not the reason."""
    if not isinstance(error, FAILURES):
        log.error("cache-failed", exc_info=error)
