"""Requests that go straight to a connection of the driver's, and answers that come straight from it.

The driver makes a future, locks, a timer and a plan of hosts for each request, and has Cassandra repeat with
each answer what its columns are. Of all that a request takes a stream of the connection here, and one alarm
keeps the time of all. Whatever is unusual is left to the driver: no connection at hand, a statement that
Cassandra has forgotten, an error to be understood, a piece of many rows.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from math import inf
from typing import Any, Final

from cassandra import ConsistencyLevel, OperationTimedOut
from cassandra.cluster import EXEC_PROFILE_DEFAULT, ResultSet, Session
from cassandra.connection import ConnectionException, ConnectionShutdown
from cassandra.policies import HostDistance
from cassandra.protocol import ErrorMessage, PreparedQueryNotFound, ResultMessage

from xmppd.store.cassandra.encoding import Bound, Plan, Requests
from xmppd.store.cassandra.wire import Alarm, Wire

EXECUTE: Final = 0x0A
BATCH: Final = 0x0D
RESULT: Final = 0x08
VOID, ROWS = 1, 2
"""Kinds of results."""
HAS_MORE, NO_METADATA = 2, 4
"""Flags of rows."""
CELLS: Final = 100
"""Of more values than so the driver makes rows in less time."""
VERSION: Final = 5

_envelope = struct.Struct(">BBhBi").pack
_int = struct.Struct(">i").unpack_from
_rows = struct.Struct(">iii").unpack_from
_BODY = 9
"""Where the body of an envelope begins."""


class Asked:
    """One request, and who is told of its answer: with the interface of the driver's own that is used here.
    What it is called with is an answer as the driver understands it, or why there is none.
    """

    __slots__ = (
        "_answered", "_failed", "_how", "_instead", "_paging_state", "_plan", "_pool", "_session",
        "_statement", "_stream", "_wire", "warnings",
    )  # fmt: skip

    def __init__(self, session: Straight, statement: Any, how: tuple[Any, ...], pool: Any) -> None:
        self._session = session
        self._statement = statement
        self._how = how
        self._pool = pool
        self._plan: Plan | None = statement.plan if type(statement) is Bound else None
        self._paging_state: bytes | None = None
        self._instead: Any = None
        self._wire: Any = None
        self._stream = -1
        self.warnings: list[str] | None = None

    def add_callbacks(
        self,
        callback: Callable[..., object],
        errback: Callable[..., object],
        callback_args: tuple[Any, ...] = (),
        errback_args: tuple[Any, ...] = (),
    ) -> None:
        """Whom to tell of the rows (None: there are none to speak of), or of the error."""
        self._answered = callback, callback_args
        self._failed = errback, errback_args

    @property
    def has_more_pages(self) -> bool:
        """Whether this was a part of the rows."""
        return self.paging_state is not None

    @property
    def paging_state(self) -> bytes | None:
        """How to go on behind it."""
        return self._paging_state if self._instead is None else paging_state_of(self._instead)

    def send(self, wire: Wire, body: bytes, opcode: int) -> bool:
        """Send it; False if the connection has no room."""
        with wire.lock:
            if wire.in_flight >= wire.max_request_id:
                return False
            wire.in_flight += 1
            stream = wire.get_request_id()
        self._wire, self._stream = wire, stream
        wire._requests[stream] = (self, Requests.decode_message, self._plan and self._plan.columns)
        wire.straight[stream] = self
        wire.push_envelope(_envelope(VERSION, 0, stream, opcode, len(body)) + body)
        return True

    def take(self, envelope: memoryview) -> bool:
        """Take an answer without an error or warnings if it is a usual one."""
        kind, flags, columns = _rows(envelope, _BODY) if len(envelope) >= _BODY + 12 else (VOID, 0, 0)
        if kind == ROWS:
            if flags & NO_METADATA and self._plan is not None and columns == len(self._plan.decoders):
                found = self._plan.rows(bytes(envelope[_BODY + 8 :]), flags & HAS_MORE != 0, CELLS)
                if found is None:
                    return False
                self._paging_state, rows = found
            elif columns == 1 and self._statement.is_conditional:
                rows = [(envelope[-1] == 1,)]  # `[applied]` alone
            else:
                return False
        elif kind == VOID:
            rows = None
        else:
            return False
        self._wire.release(self._stream, self._pool)
        self._session.deadlines.pop(self, None)
        callback, more = self._answered
        callback(rows, *more)
        return True

    def __call__(self, response: Any) -> None:
        """The same of any answer, by whatever thread."""
        wires = self._session.wires
        if not wires.is_here():
            wires.on_loop(self, response)
            return
        self._wire.straight.pop(self._stream, None)
        self._pool.return_connection(self._wire)
        if self._session.deadlines.pop(self, None) is None:
            return  # it was late already
        self.warnings = getattr(response, "warnings", None)
        if isinstance(response, PreparedQueryNotFound):
            self._ask_again()
        elif isinstance(response, ResultMessage):
            self._paging_state = response.paging_state
            callback, more = self._answered
            callback(response.parsed_rows if response.kind == ROWS else None, *more)
        else:
            if isinstance(response, ConnectionException) and not isinstance(response, ConnectionShutdown):
                self._wire.defunct(response)
            is_told = isinstance(response, ErrorMessage) and hasattr(response, "to_exception")
            self._fail(response.to_exception() if is_told else response)

    def _ask_again(self) -> None:
        """Have the driver prepare what Cassandra has forgotten, and ask."""
        try:
            self._instead = self._session.by_driver(self._statement, *self._how)
        except Exception as error:  # noqa: BLE001 - who asked is told
            self._fail(error)
            return
        callback, more = self._answered
        errback, others = self._failed
        self._instead.add_callbacks(callback, errback, callback_args=more, errback_args=others)

    def _fail(self, error: BaseException) -> None:
        errback, more = self._failed
        errback(error, *more)

    def is_late(self) -> None:
        """No answer has come in time: its stream is not used again before one comes."""
        wire, stream = self._wire, self._stream
        wire.straight.pop(stream, None)
        if wire._requests.pop(stream, None) is not None and not self._pool.is_shutdown:
            with wire.lock:
                wire.orphaned_request_ids.add(stream)
                if len(wire.orphaned_request_ids) >= wire.orphaned_threshold:
                    wire.orphaned_threshold_reached = True
            self._pool.return_connection(wire, stream_was_orphaned=True)
        self._fail(OperationTimedOut({str(wire.endpoint): "no answer in time"}, wire.endpoint))


class Straight:
    """A session of the driver's that sends what is usual by itself. For the thread of the loop, but for
    what it has of the driver's.
    """

    def __init__(self, session: Session, wires: type[Wire], page_rows: int) -> None:
        self.wires = wires
        self.deadlines: dict[Asked, float] = {}
        """Who waits for an answer, and until when by the clock of the loop."""
        self._session = session
        self._metadata = session.cluster.metadata
        self._policy = session.cluster.profile_manager.default.load_balancing_policy
        self._alarm: Alarm | None = None
        self._rings = inf
        short, serial = struct.Struct(">H").pack, ConsistencyLevel.LOCAL_SERIAL
        self._page = struct.pack(">i", page_rows)
        self._serial = short(serial)
        self._batch_end = struct.pack(">HiH", ConsistencyLevel.LOCAL_QUORUM, 0x10, serial)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def execute_async(
        self,
        statement: Any,
        *,
        timeout: float,
        execution_profile: Any = EXEC_PROFILE_DEFAULT,
        paging_state: bytes | None = None,
    ) -> Any:
        """Ask; the answer is told by `add_callbacks`."""
        how = timeout, execution_profile, paging_state
        if execution_profile is EXEC_PROFILE_DEFAULT:
            pool = self._pool_for(statement.keyspace, statement.routing_key)
            if pool is not None:
                asked = Asked(self, statement, how, pool)
                if type(statement) is Bound:
                    body, opcode = self._execution(statement, paging_state), EXECUTE
                else:
                    body, opcode = b"".join((*statement.body, self._batch_end)), BATCH
                if asked.send(pool._connection, body, opcode):
                    self._wait(asked, timeout)
                    return asked
        return self.by_driver(statement, *how)

    def by_driver(self, statement: Any, timeout: float, profile: Any, state: bytes | None) -> Any:
        """Have the driver ask."""
        return self._session.execute_async(
            statement.for_driver(), timeout=timeout, execution_profile=profile, paging_state=state
        )

    def _execution(self, bound: Bound, state: bytes | None) -> bytes:
        head = bound.plan.head if state is None else bound.plan.head_of_page
        more = () if state is None else (struct.pack(">i", len(state)), state)
        return b"".join((head, *bound.values, self._page, *more, self._serial))

    def _pool_for(self, keyspace: str | None, key: bytes | None) -> Any:
        """That of the first node in the driver's order, whose connection is ready; None: there is none."""
        pools: dict[Any, Any] = self._session._pools
        if len(pools) == 1:
            [hosts] = [list(pools)]
        elif key is None or keyspace is None:
            hosts = self._policy.make_query_plan(keyspace, None)
        else:
            hosts = [
                host
                for host in self._metadata.get_replicas(keyspace, key)
                if host.is_up and self._policy.distance(host) == HostDistance.LOCAL
            ]
        for host in hosts:
            pool = pools.get(host)
            if pool is not None and not pool.is_shutdown and _is_ready(pool._connection):
                return pool
        return None

    # time

    def _wait(self, asked: Asked, seconds: float) -> None:
        now = self.wires.loop.time()
        self.deadlines[asked] = due = now + seconds
        if due < self._rings:
            self._ring_at(due, now)

    def _ring_at(self, due: float, now: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._rings = due
        self._alarm = Alarm(self.wires, max(due - now, 0.0), self._ring)

    def _ring(self) -> None:
        self._alarm, self._rings = None, inf
        now = self.wires.loop.time()
        for asked in [asked for asked, due in self.deadlines.items() if due <= now]:
            if self.deadlines.pop(asked, None) is not None:
                asked.is_late()
        if self.deadlines:
            self._ring_at(min(self.deadlines.values()), now)


def _is_ready(wire: Any) -> bool:
    """Whether a connection is there to be written to."""
    return (
        wire is not None
        and not (wire.is_closed or wire.is_defunct or wire.orphaned_threshold_reached)
        and wire.has_segments
    )


def paging_state_of(response: Any) -> bytes | None:
    """How to go on behind a piece of rows, whoever asked for them."""
    if isinstance(response, Asked):
        return response.paging_state
    state: bytes | None = ResultSet(response, []).paging_state
    return state
