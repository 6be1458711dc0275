"""Connections between nodes, whatever carries their bytes: each is a greeting, and then frames.

Of two nodes that with the smaller name dials. Both greet each other, and then there is at most one
connection for each other node: a new one takes the place of the one before, which may have ended unnoticed.
What the frames mean, and what becomes of the trunk when a connection ends, is up to `Neighbours`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from xmppd.cluster.framing import Frames
from xmppd.cluster.hello import Dialer, Greeting, Hello, Listener, Refused
from xmppd.core.reports import Reports
from xmppd.errors import TrunkError

log = logging.getLogger(__name__)

STRANGERS: Final = 64
"""Connections that were taken and have not greeted yet; with one more the oldest is cut."""

KNOCKED: Final = "knocked"
REPLACED: Final = "replaced"
CHANGED: Final = "changed-meanwhile"
OLDER: Final = "superseded"
SLOW: Final = "too-slow"
FAILED: Final = "failed-here"
STOPPED: Final = "stopped"
CLOSED: Final = "closed-there"
"""Why a connection is over, beside the reasons of a greeting and what a TrunkError says."""


class Neighbours(Protocol):
    """This node and the others as it knows them."""

    def hello_of(self, name: str) -> Hello:
        """What to say to the node of this name now; "" where nobody knows who is there."""

    def met(self, peer: Hello) -> None:
        """A node that knows the secret is there, connected or not. It may have this node's own name:
        then it is this node itself, by the incarnation, or the one with the smaller incarnation has
        to stop.
        """

    def connected(self, greeting: Greeting, connection: Connection) -> None:
        """There is a connection. Whatever there was for the same node was told to be over."""

    def received(self, connection: Connection, frame: bytes) -> None:
        """A frame came, without its length; with TrunkError the connection ends."""

    def disconnected(self, connection: Connection, reason: str) -> None:
        """A connection that was told of is over."""

    def failed(self, name: str, reason: str, *, is_refused: bool) -> None:
        """A node that is wanted could not be connected to; it is tried again. `is_refused`: its
        machine answers, and nobody listens there.
        """


class Dialing(Protocol):
    """How `Neighbours` say whom they want a connection with."""

    def want(self, name: str, addresses: Sequence[str]) -> None:
        """Have one with this node from now on, again when it ended; or at other addresses than before."""

    def forget(self, name: str) -> None:
        """No more tries. A connection that is there stays."""


class Carrier(Protocol):
    """What carries the bytes of one connection. `peer`: who is at the other end, for logs. `unsent`:
    bytes written that are still here.
    """

    @property
    def peer(self) -> str: ...

    @property
    def unsent(self) -> int: ...

    def write(self, pieces: Sequence[bytes]) -> None: ...

    def close(self) -> None:
        """Send what was written, and end; nothing more is told of it."""


class Connection:
    """One connection from its first byte to its end. `name`: whose it is, once both have greeted;
    `greeting`: what they said, if it is one for a trunk. `reason`: why it is over.

    `Neighbours` write and close; the carrier calls `begin`, `received`, `ended` and, when
    `GREETING_SECONDS` have passed, `overdue`.
    """

    def __init__(
        self,
        links: Links,
        neighbours: Neighbours,
        carrier: Carrier,
        handshake: Dialer | Listener,
    ) -> None:
        self.name = ""
        self.greeting: Greeting | None = None
        self.peer: Hello | None = None
        self.reason = ""
        self.is_over = False
        self._links = links
        self._neighbours = neighbours
        self._carrier = carrier
        self._handshake: Dialer | Listener | None = handshake
        self._frames = Frames()
        self._when_over: list[Callable[[], None]] = []

    @property
    def unsent(self) -> int:
        """Bytes that were written and are still here."""
        return self._carrier.unsent

    def write(self, pieces: Sequence[bytes]) -> None:
        """Send bytes: whole frames with their lengths."""
        if not self.is_over:
            self._carrier.write(pieces)

    def close(self, reason: str = STOPPED) -> None:
        """End it, once what was written is sent; harmless if repeated."""
        self.ended(reason)

    def when_over(self, callback: Callable[[], None]) -> None:
        """Call this when it is over; at once if it is."""
        if self.is_over:
            callback()
        else:
            self._when_over.append(callback)

    # for the carrier

    def begin(self) -> None:
        """Bytes can be sent now."""
        if isinstance(self._handshake, Dialer):
            self._carrier.write([self._handshake.begin()])

    def received(self, data: bytes) -> None:
        """Bytes came."""
        try:
            if self._handshake is not None:
                data = self._greet(self._handshake, data)
            for frame in self._frames.feed(data) if data else ():
                if self.is_over:
                    break
                self._neighbours.received(self, frame)
        except TrunkError as error:
            self.ended(str(error))
        except Exception:  # whatever it is, it is this connection that has failed
            log.exception("trunk-failed", extra={"node": self.name})
            self.ended(FAILED)

    def overdue(self) -> None:
        """It was given its time to greet."""
        if self._handshake is not None:
            self.ended(SLOW)

    def ended(self, reason: str = CLOSED) -> None:
        """It is over; harmless if repeated."""
        if self.is_over:
            return
        self.is_over = True
        self.reason = reason
        self._carrier.close()
        try:
            self._links.ended(self)
        finally:
            for callback in self._when_over:
                callback()

    def _greet(self, handshake: Dialer | Listener, data: bytes) -> bytes:
        """Go on with the greeting; what came behind it."""
        answer = handshake.feed(data)
        if answer:
            self._carrier.write([answer])
        if handshake.outcome is None:
            return b""
        self._handshake = None
        self._links.greeted(self, handshake.outcome)
        return handshake.rest

    @property
    def address(self) -> str:
        """Where the other end is."""
        return self._carrier.peer


class Links:
    """All connections of this node. `secrets`: those it knows others by, the newest first. `clock`:
    seconds that never jump.
    """

    def __init__(
        self, neighbours: Neighbours, clock: Callable[[], float], secrets: Sequence[bytes] = ()
    ) -> None:
        self.secrets = tuple(secrets)
        self._neighbours = neighbours
        self._clock = clock
        self._reports = Reports(clock)
        self._by_name: dict[str, Connection] = {}
        self._strangers: dict[Connection, None] = {}
        self._is_shut = False

    def of(self, name: str) -> Connection | None:
        """The connection with the node of this name."""
        return self._by_name.get(name)

    def dialed(self, carrier: Carrier, name: str, *, is_knock: bool) -> Connection:
        """A connection that begins here; to find out who is there, if that is all."""
        handshake = Dialer(
            self._neighbours.hello_of(name), name, self.secrets, self._clock, is_knock=is_knock
        )
        return Connection(self, self._neighbours, carrier, handshake)

    def accepted(self, carrier: Carrier) -> Connection:
        """A connection that somebody began."""
        handshake = Listener(self._neighbours.hello_of, self.secrets, self._clock)
        connection = Connection(self, self._neighbours, carrier, handshake)
        if len(self._strangers) >= STRANGERS:
            next(iter(self._strangers)).close(SLOW)
        self._strangers[connection] = None
        return connection

    def shut(self) -> None:
        """Greet nobody any more; who has greeted stays."""
        self._is_shut = True
        for connection in [*self._strangers]:
            connection.close()

    def close(self) -> None:
        """End all connections."""
        for connection in (*self._strangers, *self._by_name.values()):
            connection.close()

    # for connections

    def greeted(self, connection: Connection, outcome: Greeting | Refused) -> None:
        """The greeting has ended, in one way or the other."""
        is_dialed = connection not in self._strangers
        self._strangers.pop(connection, None)
        if outcome.peer is not None:
            connection.peer = outcome.peer
            self._neighbours.met(outcome.peer)
        if isinstance(outcome, Refused):
            if not is_dialed and outcome.peer is None:
                self._reports.tell("trunk-refused", connection.address, reason=outcome.reason)
            connection.close(outcome.reason)
        elif outcome.is_knock:
            connection.close(KNOCKED)
        elif not connection.is_over:
            self._enter(connection, outcome)

    def _enter(self, connection: Connection, greeting: Greeting) -> None:
        name = greeting.peer.name
        own = self._neighbours.hello_of(name)
        if self._is_shut:
            connection.close(STOPPED)
            return
        if (own.incarnation, own.trunk) != (greeting.own.incarnation, greeting.own.trunk):
            connection.close(CHANGED)
            return
        if (before := self._by_name.get(name)) is not None:
            assert before.greeting is not None
            if before.greeting.peer.incarnation > greeting.peer.incarnation:
                connection.close(OLDER)  # it stood still until another had its name, and has to stop
                return
            before.close(REPLACED)
        connection.name, connection.greeting = name, greeting
        self._by_name[name] = connection
        log.info("trunk-connected", extra={"node": name, "address": connection.address})
        self._neighbours.connected(greeting, connection)

    def ended(self, connection: Connection) -> None:
        """It is over."""
        self._strangers.pop(connection, None)
        if connection.greeting is not None:
            del self._by_name[connection.name]
            log.info("trunk-disconnected", extra={"node": connection.name, "reason": connection.reason})
            self._neighbours.disconnected(connection, connection.reason)
