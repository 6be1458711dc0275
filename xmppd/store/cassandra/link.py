"""The connection to Cassandra: statements in, rows or StoreErrors out, for one event loop.

Its connections are on the loop, so answers come there (`wire.py`). What is under way is bounded, every
statement has a deadline, and what may be repeated without harm is.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cassandra import ConsistencyLevel, OperationTimedOut, ProtocolVersion
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import (
    EXEC_PROFILE_DEFAULT,
    Cluster,
    ExecutionProfile,
)
from cassandra.policies import (
    ConstantReconnectionPolicy,
    DCAwareRoundRobinPolicy,
    FallthroughRetryPolicy,
    TokenAwarePolicy,
)
from cassandra.query import tuple_factory

from xmppd.errors import StoreError, StoreTimeout, StoreUnavailable
from xmppd.store._breaker import Breaker
from xmppd.store._turns import Slots, Turns, within
from xmppd.store.cassandra.blocking import Blocking
from xmppd.store.cassandra.calls import Conditional, Found, Statement
from xmppd.store.cassandra.encoding import Bound, EncodedBatch, EncodedRow, Plan, Requests, Together
from xmppd.store.cassandra.errors import is_hung_up, is_of_one_partition, met, translated
from xmppd.store.cassandra.nodes import Nodes
from xmppd.store.cassandra.options import CassandraOptions
from xmppd.store.cassandra.straight import Straight, paging_state_of
from xmppd.store.cassandra.tls import ssl_context
from xmppd.store.cassandra.wire import LOOK_SECONDS, Wire, wires_on

log = logging.getLogger(__name__)

SERIAL = "serial"
TEXTS = 1024
"""How many prepared statements are kept."""
PAGE_ROWS = 2000
"""The most rows that Cassandra sends at once; the driver's own default could be gigabytes of messages."""
ATTEMPT = 0.6
"""The part of the whole time that one attempt may take, so that there is time to find out what became of
it.
"""
HEARTBEAT_SECONDS = 1.0
HEARTBEAT_PATIENCE = 2.0 - LOOK_SECONDS
"""A node that is frozen or cut off says nothing. When nothing comes from it, it is asked every second, and
taken for down after two more; what waits for it is then still in time to be asked elsewhere.
"""
TRIES = 4
PAUSE_SECONDS = 0.05

Answer = TypeVar("Answer")


@dataclass(slots=True)
class LinkStats:
    """What was asked of Cassandra."""

    requests: int = 0
    retried: int = 0
    unknown: int = 0
    resolved: int = 0
    completions: int = 0


@dataclass(slots=True)
class _Live:
    """What exists while connected."""

    cluster: Cluster
    session: Straight
    prepared: OrderedDict[str, asyncio.Future[Any]] = field(default_factory=OrderedDict)


class Link:
    """Connects at `connect`, after any fork. Every error is a StoreError."""

    def __init__(self, options: CassandraOptions, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.stats = LinkStats()
        self.breaker = Breaker(clock)
        self.slots = Slots(options.in_flight, options.waiting)
        self.preparing = 0
        self._options = options
        self._tls = ssl_context(options)
        self._clock = clock
        self._turns = Turns()
        self._live: _Live | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wires = Wire
        self._threads: Blocking | None = None
        self._asked: set[asyncio.Future[Any]] = set()
        self._under_way = 0
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    # connecting

    @property
    def is_connected(self) -> bool:
        """Whether `connect` has succeeded and `close` was not called."""
        return self._live is not None

    async def connect(self) -> None:
        """Connect to the cluster; StoreUnavailable, or ConfigError for a file that cannot be used."""
        self._loop = asyncio.get_running_loop()
        self._wires = wires_on(self._loop)
        cluster = self._cluster()
        threads = self._threads = Blocking(self._loop)
        try:
            session = await threads.do(cluster.connect)
        except Exception as error:
            await threads.do(cluster.shutdown)
            threads.end()
            failed = translated(error)
            if is_hung_up(error):
                failed = StoreUnavailable(f"{failed} (is store.cassandra.tls as it wants?)")
            raise failed from error
        cluster.register_listener(Nodes())
        # The clocks of Cassandra decide which write is the last one, not ours: theirs are fewer.
        session.use_client_timestamp = False
        session.default_fetch_size = PAGE_ROWS
        session.client_protocol_handler = Requests
        self._live = _Live(cluster, Straight(session, self._wires, PAGE_ROWS))

    def _cluster(self) -> Cluster:
        options = self._options
        auth = None
        if options.username is not None:
            auth = PlainTextAuthProvider(options.username, options.password or "")
        local = DCAwareRoundRobinPolicy(options.local_dc)
        # Without shuffling all nodes of ours ask the same coordinator for a partition while it is up: its
        # clock alone orders plain and conditional writes, and conditional ones meet in one place.
        quorum = ExecutionProfile(
            load_balancing_policy=TokenAwarePolicy(local, shuffle_replicas=False),
            retry_policy=FallthroughRetryPolicy(),
            consistency_level=ConsistencyLevel.LOCAL_QUORUM,
            serial_consistency_level=ConsistencyLevel.LOCAL_SERIAL,
            request_timeout=options.request_timeout,
            row_factory=tuple_factory,
        )
        serial = ExecutionProfile(
            load_balancing_policy=quorum.load_balancing_policy,
            retry_policy=quorum.retry_policy,
            consistency_level=ConsistencyLevel.LOCAL_SERIAL,
            request_timeout=options.request_timeout,
            row_factory=tuple_factory,
        )
        return Cluster(
            contact_points=list(options.contact_points),
            protocol_version=ProtocolVersion.V5,
            execution_profiles={EXEC_PROFILE_DEFAULT: quorum, SERIAL: serial},
            auth_provider=auth,
            ssl_context=self._tls,
            connect_timeout=options.connect_timeout,
            control_connection_timeout=options.connect_timeout,
            reconnection_policy=ConstantReconnectionPolicy(1.0, max_attempts=None),
            # A node that hangs would hold up every new statement; it is told when it is first asked.
            prepare_on_all_hosts=False,
            idle_heartbeat_interval=HEARTBEAT_SECONDS,
            idle_heartbeat_timeout=HEARTBEAT_PATIENCE,
            connection_class=self._wires,
            compression=False,
            application_name="xmppd",
        )

    async def close(self) -> None:
        """Let everything under way end, then disconnect. What is late by more than its deadline was given up
        by whoever asked.
        """
        with contextlib.suppress(TimeoutError):
            await within(2 * self._options.request_timeout, self._is_idle.wait())
        live, self._live = self._live, None
        if live is not None and self._threads is not None:
            await self._threads.do(live.cluster.shutdown)
            self._threads.end()

    @property
    def cluster(self) -> Cluster:
        """The driver's cluster, for what it knows of nodes; StoreUnavailable when not connected."""
        return self._connected().cluster

    async def in_thread(self, ask: Callable[[Any], Answer]) -> Answer:
        """Something that blocks, done with the session: making tables."""
        live = self._connected()
        assert self._threads is not None
        self.begin()
        try:
            return await self._threads.do(ask, live.session)
        except Exception as error:
            raise translated(error) from error
        finally:
            self.end()

    # asking

    async def read(self, statement: Statement, *, serial: bool = False) -> list[Found]:
        """All rows of a SELECT, in as many pieces as it takes."""
        self.check()
        began, failed = self._clock(), None
        try:
            if not serial and (quick := self._try_read(statement)) is not None:
                response, answer = quick
                rows = await answer or []
                if not response.has_more_pages:
                    self.breaker.succeeded()
                    return rows
        except Exception as error:  # noqa: BLE001 - it is raised unless another try is better
            failed = met(error)
        return await self._guarded(
            lambda end: self._repeated(lambda: self._rows(statement, end, serial), end, failed), began
        )

    async def write(self, statements: Sequence[Statement]) -> None:
        """Do statements on one partition together. They may be done twice."""
        self.check()
        began, failed = self._clock(), None
        try:
            if (answer := self._try_batch(statements)) is not None:
                await answer
                self.breaker.succeeded()
                return
        except Exception as error:  # noqa: BLE001 - it is raised unless another try is better
            failed = met(error)
        await self._guarded(
            lambda end: self._repeated(lambda: self._batch(statements, end), end, failed), began
        )

    def _try_batch(
        self, statements: Sequence[Statement], *, conditional: bool = False
    ) -> asyncio.Future[Any] | None:
        """Begin to do statements together, as `_try_read` begins to read."""
        live = self._connected()
        plans = [self._at_hand(live, text) for text, _ in statements]
        seconds = self._options.request_timeout * ATTEMPT
        if None in plans or not seconds or not self.slots.try_take():
            return None
        try:
            together = _together(plans, statements, conditional)
        except BaseException:
            self.slots.give()
            raise
        return self._start(together, seconds, conditional=conditional)[1]

    def _try_read(self, statement: Statement) -> tuple[Any, asyncio.Future[Any]] | None:
        """Begin to read what takes no waiting, as nearly all reads are; None if there is something to wait
        for first.
        """
        text, values = statement
        prepared = self._at_hand(self._connected(), text)
        if prepared is None or not self.slots.try_take():
            return None
        try:
            bound = Bound(prepared, values)
        except BaseException:
            self.slots.give()
            raise
        return self._start(bound, self._options.request_timeout * ATTEMPT)

    def check(self) -> None:
        """StoreUnavailable when not connected, or when Cassandra is known to be dead."""
        self._connected()
        self.breaker.check()

    def try_write(self, rows: Sequence[EncodedRow]) -> asyncio.Future[Any] | None:
        """Begin to write rows in one batch; None if there is something to wait for first.

        `error_of` says how it ended; StoreError if it could not begin.
        """
        live = self._connected()
        prepared: dict[str, Any] = {}
        for row in rows:
            if row.text not in prepared:
                if (at_hand := self._at_hand(live, row.text)) is None:
                    return None
                prepared[row.text] = at_hand
        if not self.slots.try_take():
            return None
        _, answer = self._start(EncodedBatch(prepared, rows), self._options.request_timeout * ATTEMPT)
        return answer

    def error_of(self, answer: asyncio.Future[Any]) -> StoreError | None:
        """How a batch of `try_write` failed; None: it did not."""
        error = answer.exception()
        if error is None:
            self.breaker.succeeded()
            return None
        return translated(error)

    async def write_encoded(self, rows: Sequence[EncodedRow]) -> None:
        """Write rows in one batch, as `write` does. They may be written twice."""
        await self._guarded(lambda end: self._repeated(lambda: self._encoded(rows, end), end))

    async def write_if(self, write: Conditional) -> bool:
        """Do a conditional write; whether it was applied. StoreTimeout when that cannot be found out."""
        self.check()
        began, failed = self._clock(), None
        if not self._turns.try_take(write.turn):
            return await self._guarded(lambda end: self._in_turn(write, end), began)
        try:
            try:
                if (answer := self._try_batch(write.statements, conditional=True)) is not None:
                    found = await answer
                    self.breaker.succeeded()
                    return bool(found[0][0])
            except Exception as error:  # noqa: BLE001 - what became of it is found out
                failed = met(error, conditional=True)
            return await self._guarded(lambda end: self._conditional(write, end, failed), began)
        finally:
            self._turns.give(write.turn)

    async def _guarded(self, ask: Callable[[float], Awaitable[Answer]], began: float | None = None) -> Answer:
        """One call of the port, from its deadline to its last word; it begins now, or `began` when it was
        checked.
        """
        if began is None:
            self.check()
            began = self._clock()
        self.begin()
        try:
            answer = await ask(began + self._options.request_timeout)
        except (StoreUnavailable, StoreTimeout) as error:
            if _is_cassandras(error):
                self.breaker.failed(error)
            raise
        finally:
            self.end()
        self.breaker.succeeded()
        return answer

    async def _repeated(
        self, ask: Callable[[], Awaitable[Answer]], end: float, failed: StoreError | None = None
    ) -> Answer:
        """Try several times within the deadline what can be repeated without harm; the first time may have
        `failed`.

        StoreTimeout also when the last try was refused: one before it may have been done.
        """
        pause = PAUSE_SECONDS
        unknown: StoreTimeout | None = None
        for tries in range(1, TRIES + 1):
            try:
                if failed is not None:
                    error, failed = failed, None
                    raise error
                return await ask()
            except (StoreUnavailable, StoreTimeout) as error:
                unknown = error if isinstance(error, StoreTimeout) else unknown
                worst = unknown or error
                if tries == TRIES or self._clock() + pause >= end or not _is_cassandras(error):
                    raise worst from worst.__cause__
            self.stats.retried += 1
            await asyncio.sleep(pause)
            pause *= 3
        raise AssertionError("the last try returns or raises")

    async def _in_turn(self, write: Conditional, end: float) -> bool:
        # Two at once on one partition would only make Paxos start over.
        async with self._turns.turn(write.turn, end - self._clock()):
            return await self._conditional(write, end)

    async def _conditional(self, write: Conditional, end: float, failed: StoreError | None = None) -> bool:
        """Do it until it is known what became of it; the first time may have `failed`."""
        problem: StoreError | None = None
        pause = PAUSE_SECONDS
        while True:
            try:
                if failed is not None:
                    error, failed = failed, None
                    raise error
                found = await self._batch(write.statements, end, conditional=True)
            except StoreTimeout as late:
                self.stats.unknown += 1
                problem = late
            except StoreUnavailable:
                if problem is None:
                    raise
            else:
                if found[0][0]:
                    return True
                if problem is None:
                    return False
            # An attempt may have been applied, and not only when this one was refused.
            assert problem is not None
            if await self._was_applied(write, problem, end):
                return True
            if self._clock() + pause >= end:
                raise problem
            await asyncio.sleep(pause)
            pause *= 2

    async def _was_applied(self, write: Conditional, problem: StoreError, end: float) -> bool:
        """Ask what became of a conditional write. True: applied. False: not applied, and it may be tried
        again.

        A serial read ends every proposal that is under way before it answers. StoreTimeout if it cannot tell.
        """
        try:
            found = await self._repeated(lambda: self._rows(write.look, end, True), end)
        except (StoreTimeout, StoreUnavailable):
            raise StoreTimeout(str(problem)) from problem
        if write.is_applied(found):
            self.stats.resolved += 1
            return True
        if write.holds(found):
            self.stats.resolved += 1
            return False
        raise StoreTimeout(f"{problem}; what it was to change has changed since") from problem

    # one request

    async def _rows(self, statement: Statement, end: float, serial: bool) -> list[Found]:
        text, values = statement
        bound = Bound(await self._prepared(text, end), values)
        rows: list[Found] = []
        state = None
        while True:
            response, piece = await self._ask(bound, end, serial=serial, state=state)
            rows = rows + piece if rows else piece
            state = paging_state_of(response)
            if state is None:
                return rows

    async def _batch(
        self, statements: Sequence[Statement], end: float, *, conditional: bool = False
    ) -> list[Found]:
        plans = [await self._prepared(text, end) for text, _ in statements]
        asked = _together(plans, statements, conditional)
        return (await self._ask(asked, end, conditional=conditional))[1]

    async def _encoded(self, rows: Sequence[EncodedRow], end: float) -> None:
        prepared = {text: await self._prepared(text, end) for text in {row.text for row in rows}}
        await self._ask(EncodedBatch(prepared, rows), end)

    @staticmethod
    def _at_hand(live: _Live, text: str) -> Any:
        """The statement of a text if Cassandra has taken it in, None if not."""
        preparing = live.prepared.get(text)
        if preparing is None or not preparing.done() or preparing.exception() is not None:
            return None
        live.prepared.move_to_end(text)
        return preparing.result()

    async def _prepared(self, text: str, end: float) -> Any:
        """The statement that Cassandra has taken in. Nothing but the text was sent: StoreUnavailable."""
        live = self._connected()
        preparing = live.prepared.get(text)
        if preparing is None:
            preparing = self._prepare(live, text)
        else:
            live.prepared.move_to_end(text)
        if not preparing.done():
            # The driver's own patience is longer, and others may wait for this text with more time left.
            await asyncio.wait({preparing}, timeout=max(end - self._clock(), 0))
        try:
            if not preparing.done():
                raise OperationTimedOut
            return preparing.result()
        except Exception as error:
            failed = translated(error)
            raise StoreUnavailable(str(failed)) if isinstance(failed, StoreTimeout) else failed from error

    def _prepare(self, live: _Live, text: str) -> asyncio.Future[Any]:
        assert self._threads is not None
        preparing: asyncio.Future[Any] = self._threads.do(lambda: Plan(live.session.prepare(text)))
        live.prepared[text] = preparing
        self.preparing += 1
        if len(live.prepared) > TEXTS:
            live.prepared.popitem(last=False)

        def ended(done: asyncio.Future[Any]) -> None:
            self.preparing -= 1
            if (done.cancelled() or done.exception() is not None) and live.prepared.get(text) is done:
                del live.prepared[text]

        preparing.add_done_callback(ended)
        return preparing

    async def _ask(
        self,
        statement: Any,
        end: float,
        *,
        serial: bool = False,
        conditional: bool = False,
        state: bytes | None = None,
    ) -> tuple[Any, list[Found]]:
        await self.slots.take(end - self._clock())
        if self._clock() >= end:
            self.slots.give()
            raise StoreUnavailable("the store is busy: a request had no time left")
        seconds = max(min(end - self._clock(), self._options.request_timeout * ATTEMPT), 0.001)
        response, answer = self._start(
            statement, seconds, serial=serial, conditional=conditional, state=state
        )
        try:
            return response, await answer or []
        except Exception as error:
            raise translated(error, conditional=conditional) from error

    def _start(
        self,
        statement: Any,
        seconds: float,
        *,
        serial: bool = False,
        conditional: bool = False,
        state: bytes | None = None,
    ) -> tuple[Any, asyncio.Future[Any]]:
        """Send something for which there is a slot; what the driver says of it, and the rows or its error."""
        live = self._connected()
        assert self._loop is not None
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._asked.add(answer)
        self.stats.requests += 1
        self.begin()
        try:
            response = live.session.execute_async(
                statement,
                timeout=seconds,
                execution_profile=SERIAL if serial else EXEC_PROFILE_DEFAULT,
                paging_state=state,
            )
            response.add_callbacks(
                self._answered, self._failed, callback_args=(answer,), errback_args=(answer,)
            )
        except Exception as error:
            self._asked.discard(answer)
            self.slots.give()
            self.end()
            raise translated(error, conditional=conditional) from error
        return response, answer

    # completions: on the loop, but for errors that threads of the driver find out

    def _answered(self, rows: Any, answer: asyncio.Future[Any]) -> None:
        self._complete(answer, rows, None)

    def _failed(self, error: BaseException, answer: asyncio.Future[Any]) -> None:
        self._complete(answer, None, error)

    def _complete(self, answer: asyncio.Future[Any], rows: Any, error: BaseException | None) -> None:
        if not self._wires.is_here():
            self._wires.on_loop(self._complete, answer, rows, error)
            return
        if answer not in self._asked:
            return  # the driver may say two things of one request: a timeout, and its broken connection
        self._asked.remove(answer)
        self.stats.completions += 1
        self.slots.give()
        self.end()
        if answer.done():
            return  # nobody waits any more
        if error is None:
            answer.set_result(rows)
        else:
            answer.set_exception(error)

    # what is under way

    def _connected(self) -> _Live:
        if self._live is None:
            raise StoreUnavailable("the store is not open")
        return self._live

    def begin(self) -> None:
        """Something is under way that `close` has to wait for."""
        self._under_way += 1
        self._is_idle.clear()

    def end(self) -> None:
        """It has ended."""
        self._under_way -= 1
        if self._under_way == 0:
            self._is_idle.set()


def _is_cassandras(error: StoreError) -> bool:
    """Whether Cassandra failed as a whole, and not we who refused (too many requests, or at the end)."""
    return error.__cause__ is not None and not is_of_one_partition(error)


def _together(plans: Sequence[Plan], statements: Sequence[Statement], conditional: bool) -> Bound | Together:
    """Statements with their values, as one request."""
    pairs = zip(plans, statements, strict=True)
    bound = [Bound(plan, values, is_conditional=conditional) for plan, (_, values) in pairs]
    return bound[0] if len(bound) == 1 else Together(bound, is_conditional=conditional)
