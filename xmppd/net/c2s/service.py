"""What all client connections of a server share, and the one sweep that looks after their silence."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from xmppd.core.binding import Binding
from xmppd.core.network import network_of
from xmppd.core.reports import Reports
from xmppd.core.router import Router
from xmppd.core.sessions import Session
from xmppd.errors import StreamError
from xmppd.net.ebb import Ebb
from xmppd.net.pace import SLICE_SECONDS, Tempo, breathe
from xmppd.stream.rows import Rows
from xmppd.xml.scan import Engine, Limits

if TYPE_CHECKING:
    from xmppd.net.c2s.stream import Stream

log = logging.getLogger(__name__)

T = TypeVar("T")

SWEEP_SECONDS = 1.0

LINGER_SECONDS = 3.0
"""How long a closed stream waits for the peer to hang up before the connection is cut."""

STEP_SECONDS = 0.1
"""How often some sessions are ended where not all are at once."""

PATIENCE_SECONDS = 5.0
"""How long a login may take while others wait for its place."""

MAX_REFUSED = 100
"""How many that were refused may take their time to hang up; one more cuts the oldest."""


@dataclass(frozen=True, slots=True)
class ServiceRules:
    """How clients are treated. Seconds and counts; 0 turns a limit off (RFC 6120 4.6, 13.12)."""

    must_encrypt: bool = True
    attempts: int = 5
    login_seconds: float = 30.0
    whitespace_after: float = 60.0
    ping_after: float = 180.0
    ping_timeout: float = 60.0
    connections: int = 0
    connections_before_login: int = 1000
    connections_before_login_per_address: int = 0
    stanza_rate: float = 0.0
    stanza_burst: int = 100
    limits: Limits = Limits()
    limits_before_login: Limits = Limits()


class Service:
    """The c2s service: makes what a connection needs, and counts connections. `other_host`: where clients are
    sent when this one ends, "" for nowhere.
    """

    def __init__(
        self,
        rules: ServiceRules,
        *,
        tempo: Tempo,
        engine: Engine,
        domains: frozenset[str],
        default_domain: str,
        lang: str,
        rows: Rows,
        mark: Callable[[], int],
        binding: Binding,
        router: Router,
        reports: Reports,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self.tempo = tempo
        self.engine = engine
        self.domains = domains
        self.default_domain = default_domain
        self.lang = lang
        self.binding = binding
        self.reports = reports
        self.looks: list[Callable[[], None]] = []
        """What else is to be looked at once a second."""
        self.depart: Callable[[Session, StreamError], None] = binding.end
        self.departed: Callable[[], Awaitable[None]] = nothing
        """How a session ends when this node stops, and what is waited for then."""
        self.route = router.take
        self.spawn = spawn
        self.rows = rows
        self.mark = mark
        self.connections: set[Stream] = set()
        self.bound: Counter[tuple[str, str]] = Counter()
        """How many streams have bound a resource: by what carries them, and how that is secured."""
        self._strangers: dict[Stream, float] = {}
        self._per_network: dict[str, int] = {}
        self._refused: dict[Stream, None] = {}
        self._pings = 0
        self.ebb = Ebb()
        self.draining = False
        self.other_host = ""
        self.apply(rules)

    def apply(self, rules: ServiceRules) -> None:
        """Take over new rules; connections that are open keep their scanner's limits."""
        self.rules = rules
        self.limits = rules.limits
        self.limits_before_login = rules.limits_before_login

    # the life of connections

    def has_room(self, coming: int) -> bool:
        """Whether one more may be taken when so many are on their way: there is room before login, or there
        will be, because `admit` ends a login that takes too long.
        """
        limit = self.rules.connections_before_login
        over = len(self._strangers) + coming - limit
        if not limit or over < 0:
            return True
        since = next(islice(self._strangers.values(), over, None), None)
        return since is not None and self._is_late(since)

    def _is_late(self, since: float) -> bool:
        return since < self.tempo.clock() - PATIENCE_SECONDS

    def _make_room(self) -> bool:
        """End the oldest login when it is late; whether it was."""
        oldest, since = next(iter(self._strangers.items()))
        if not self._is_late(since):
            return False
        self.logged_in(oldest)  # it is counted no more, though its end may take some seconds
        oldest.fail(StreamError("connection-timeout", "The login took too long."))
        return True

    def admit(self, connection: Stream) -> StreamError | None:
        """Count a new connection; what to refuse it with, if at all: then it takes nobody's place."""
        refusal = self._refusal(connection)
        self.connections.add(connection)
        if refusal is None:
            network = network_of(connection.peer)
            self._strangers[connection] = self.tempo.clock()
            self._per_network[network] = self._per_network.get(network, 0) + 1
            return None
        if self.draining:  # nobody else comes: the number of those that waited has a bound in the kernel
            return refusal
        if len(self._refused) >= MAX_REFUSED:
            oldest = next(iter(self._refused))
            del self._refused[oldest]
            oldest.link.cut()
        self._refused[connection] = None
        return refusal

    def _refusal(self, connection: Stream) -> StreamError | None:
        if self.draining:
            return self._farewell()
        rules = self.rules
        here = self._per_network.get(network_of(connection.peer), 0)
        if (
            0 < rules.connections <= len(self.connections)
            or 0 < rules.connections_before_login_per_address <= here
            # Last, because it ends a login for who is let in.
            or (0 < rules.connections_before_login <= len(self._strangers) and not self._make_room())
        ):
            self.reports.tell("connection-refused", connection.peer, reason="resource-constraint")
            return StreamError("resource-constraint", "Too many connections.")
        return None

    @property
    def strangers(self) -> int:
        """How many connections have not logged in."""
        return len(self._strangers)

    def logged_in(self, connection: Stream) -> None:
        """A connection has a session now."""
        if self._strangers.pop(connection, None) is not None:
            network = network_of(connection.peer)
            left = self._per_network.pop(network) - 1
            if left:
                self._per_network[network] = left

    def has_bound(self, connection: Stream) -> None:
        """A connection has bound a resource, for as long as it lasts."""
        self.bound[connection.link.kind, connection.link.security] += 1
        self.logged_in(connection)

    def forget(self, connection: Stream) -> None:
        """A connection is gone."""
        if connection.is_bound:
            self.bound[connection.link.kind, connection.link.security] -= 1
        self.logged_in(connection)
        self._refused.pop(connection, None)
        self.connections.discard(connection)

    def release(self) -> None:
        """Give up the room of those who have gone: a set keeps the table of its greatest size."""
        self.connections = set(self.connections)
        self._strangers = dict(self._strangers)

    async def shut_down(self, pace: float = 0.0) -> None:
        """Send every client away, newcomers too, with system-shutdown or to `other_host` (RFC 6120 4.9.3.19,
        4.9.3.22). Sessions that are there end `pace` a second, 0: all at once.
        """
        self.draining = True
        if pace:
            await self._end_sessions(pace)
        await self._each(self.connections, lambda connection: connection.depart(self._farewell()))
        # Those that are left are detached.
        await self._each(self.binding.sessions(), lambda session: self.depart(session, self._farewell()))
        await self.departed()

    def _farewell(self) -> StreamError:
        if self.other_host:
            return StreamError("see-other-host", content=self.other_host)
        return StreamError("system-shutdown")

    async def _end_sessions(self, pace: float) -> None:
        bound = [connection for connection in self.connections if connection.session is not None]
        step = max(1, int(pace * STEP_SECONDS))
        for start in range(0, len(bound), step):
            if start:
                await breathe(step / pace)
            for connection in bound[start : start + step]:
                connection.depart(self._farewell())

    async def cut_off(self) -> None:
        """Drop whoever is still there."""
        await self._each(self.connections, lambda connection: connection.link.cut())

    async def _each(self, them: Iterable[T], work: Callable[[T], None]) -> None:
        """Do something with all of them, in slices of the loop's time."""
        slice = self.tempo.slice
        slice.begin()
        for one in list(them):
            work(one)
            if slice.spent():
                await breathe()
                slice.begin()

    def unbound(self, account: str | None) -> list[Stream]:
        """Those who have logged in to the account (None: to any) and not bound a resource."""
        return [
            one
            for one in self._strangers
            if (one.account == account if account else one.account) and one.link.ending_since is None
        ]

    # silence

    def sweep(self) -> None:
        """Look at every connection once: late logins, silent clients, peers that do not hang up. Call each
        SWEEP_SECONDS. What takes long is spread over turns.
        """
        self.ebb.look(len(self.connections))
        for look in self.looks:
            look()
        self._sweep_on(self._sweeping(self.tempo.clock()))

    def _sweep_on(self, steps: Iterator[None]) -> None:
        end = time.perf_counter() + SLICE_SECONDS
        for _ in steps:
            if time.perf_counter() > end:
                self.tempo.turns.call(lambda: self._sweep_on(steps))
                return

    def _sweeping(self, now: float) -> Iterator[None]:
        deadline = now - self.rules.login_seconds
        for connection, since in list(self._strangers.items()):
            yield
            if since >= deadline:
                break
            if connection.link.ending_since is None and connection.session is None:
                connection.fail(StreamError("connection-timeout", "The login took too long."))
        for connection in list(self.connections):
            yield
            link = connection.link
            if link.ending_since is not None:
                if now - link.ending_since > LINGER_SECONDS:
                    link.cut()
            elif connection.session is not None:
                self._look_after(connection, now - link.heard)

    def _look_after(self, connection: Stream, silence: float) -> None:
        """White space first, then a ping that wants an answer, then the end (XEP-0199, RFC 6120 4.6.1)."""
        rules = self.rules
        if rules.ping_after and silence > rules.ping_after:
            if not connection.pinged:
                connection.pinged = True
                self._pings += 1
                connection.ping(f"ping{self._pings}")
            elif silence > rules.ping_after + rules.ping_timeout:
                log.info("silent-client-closed", extra={"peer": connection.peer})
                connection.unheard()
        elif rules.whitespace_after and silence > rules.whitespace_after and not connection.nudged:
            connection.nudged = True
            connection.link.nudge()


async def nothing() -> None:
    """Nothing is waited for."""
