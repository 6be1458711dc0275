"""One TCP connection as bytes: TLS, back-pressure, and an end that the peer gets to hear of.

Reading goes through one buffer shared by all connections (`asyncio.BufferedProtocol`): an idle connection
holds none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, cast

from xmppd.core.reports import Reports
from xmppd.net.pace import LONGEST_PAUSE, Tempo
from xmppd.net.tls import TlsLayer
from xmppd.stream.link import Carried

if TYPE_CHECKING:
    from xmppd.net.certificates import Certificates

log = logging.getLogger(__name__)

READ_SIZE = 8192
"""Bytes of one read. It is scanned in one piece, so this bounds how long others wait for it."""

LITTLE = 512
"""Bytes of a read of which nobody looks how long they took: they cost little, and there are many such."""

MUCH = 4096
"""Bytes of a read after which a connection does not read again before it is its turn among all such."""


REST_SECONDS = 0.001
"""Who has more than so much before him of what he has to pay in time rests until then."""


@dataclass(frozen=True, slots=True)
class WireRules:
    """Bounds on unsent output, in bytes: above `soft` the peer is not read from, above `hard` it is
    cut off. Of those above `soft` the greediest are cut off when they have more than `together` in sum.
    """

    soft: int = 131_072
    hard: int = 4_194_304
    together: int = 268_435_456


class Unsent:
    """What clogged connections have not sent, in sum. It is counted again only when so much was added that
    there may be too much: what is sent meanwhile is not noticed, and nothing is done for those that are read.
    """

    __slots__ = ("_clogged", "_left")

    def __init__(self) -> None:
        self._clogged: dict[Wire, int] = {}  # with what was unsent when they were looked at
        self._left = 0

    def add(self, wire: Wire) -> None:
        """A connection has become clogged."""
        self._clogged[wire] = wire.unsent

    def remove(self, wire: Wire) -> None:
        """It has drained, or is gone."""
        self._clogged.pop(wire, None)

    @property
    def size(self) -> int:
        """Bytes that all of them have not been sent."""
        return sum(wire.unsent for wire in self._clogged)

    def look(self) -> None:
        """Note who has taken something since the last look: nothing is read from a clogged peer, so that is
        the sign of life it can give.
        """
        for wire, before in self._clogged.items():
            self._clogged[wire] = unsent = wire.unsent
            if unsent < before:
                wire.took()

    def grow(self, size: int, together: int) -> None:
        """So much more is unsent."""
        self._left -= size
        if self._left < 0:
            self._left = max(self._relieve(together), together // 16)

    def _relieve(self, together: int) -> int:
        """Cut off who has most until the rest is no more than `together`; how much is missing to that."""
        sizes = sorted(((wire.unsent, id(wire), wire) for wire in self._clogged), reverse=True)
        total = sum(size for size, _, _ in sizes)
        for size, _, wire in sizes:
            if total <= together:
                break
            log.warning("greedy-client-cut-off", extra={"peer": wire.peer, "unsent": size})
            self.remove(wire)
            wire.cut()
            total -= size
        return together - total


class Shared:
    """What all connections of one loop share: the read buffer, their time, the rules, what they have not
    sent, and the certificates, which are to be set before the first connection comes.
    """

    __slots__ = ("buffer", "certificates", "clock", "reports", "rules", "tempo", "unsent", "view")

    def __init__(self, rules: WireRules, tempo: Tempo, reports: Reports) -> None:
        self.reports = reports
        self.buffer = bytearray(READ_SIZE)
        self.view = memoryview(self.buffer)
        self.rules = rules
        self.tempo = tempo
        self.clock = tempo.clock
        self.unsent = Unsent()
        self.certificates: Certificates


class Wire(asyncio.BufferedProtocol):
    """The link of TCP, with or without TLS. `stream` is to be set before the connection is made."""

    __slots__ = (
        "_is_resting",
        "_paid_until",
        "_shared",
        "_starttls",
        "_tls",
        "clogged",
        "ending_since",
        "heard",
        "peer",
        "stream",
        "transport",
    )

    kind: ClassVar[str] = "tcp"

    def __init__(self, shared: Shared, *, starttls: bool = False) -> None:
        self._shared = shared
        self._starttls = starttls
        self._tls: TlsLayer | None = None
        self._paid_until = 0.0
        self._is_resting = False
        self.transport: asyncio.Transport | None = None
        self.stream: Carried
        self.peer = ""
        self.heard = shared.clock()
        self.clogged = False
        self.ending_since: float | None = None

    # what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own is none by its class
        address = transport.get_extra_info("peername")
        self.peer = str(address[0]) if isinstance(address, tuple) else "local"
        self.transport.set_write_buffer_limits(high=self._shared.rules.soft)
        self.stream.begun()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._shared.view

    def buffer_updated(self, nbytes: int) -> None:
        shared = self._shared
        self.heard = began = shared.clock()
        if self.ending_since is not None:
            return
        data = shared.view[:nbytes].tobytes()
        if self._tls is not None:
            data = self._decrypt(data)
        if data:
            self.stream.received(data)
        if nbytes > LITTLE:
            self._let_others_work(nbytes, began, shared.clock())
        if self._tls is not None and self._tls.is_over:
            self.regulate()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self._shared.unsent.remove(self)
        self.stream.broken()
        del self.stream  # each has the other, and circles are seldom collected

    def pause_writing(self) -> None:
        self.clogged = True
        shared = self._shared
        shared.unsent.add(self)
        shared.unsent.grow(self.unsent, shared.rules.together)
        self.regulate()

    def resume_writing(self) -> None:
        self.clogged = False
        self.took()
        self._shared.unsent.remove(self)
        self.stream.drained()

    def took(self) -> None:
        """The peer has read something: it is alive."""
        self.heard = self._shared.clock()

    def _let_others_work(self, nbytes: int, began: float, now: float) -> None:
        """There may be more to read, but not now: who causes much work rests, so that it has no more than its
        share of the loop; who only reads much waits for its turn, for uvloop would fill the buffer up to 32
        times in one of the loop's.
        """
        transport, tempo = self.transport, self._shared.tempo
        if transport is None or self.ending_since is not None or transport.is_closing():
            return
        self._paid_until = max(self._paid_until, began) + (now - began) / tempo.share
        rest = self._paid_until - now
        if rest > REST_SECONDS:
            self._is_resting = True
            asyncio.get_running_loop().call_later(min(rest, LONGEST_PAUSE), self._go_on)
            transport.pause_reading()
        elif nbytes > MUCH:
            transport.pause_reading()
            tempo.turns.call(self.regulate)

    def _go_on(self) -> None:
        """The rest is over."""
        self._is_resting = False
        self.regulate()

    # what the stream calls (see `Link`)

    def regulate(self) -> None:
        """Read from the peer, or stop, as its output and the stream say."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if self._tls is not None and self._tls.is_over and not self.stream.is_busy:
            self._hang_up()
            return
        may_read = not self.clogged and not self._is_resting and not self.stream.is_busy
        if may_read and not transport.is_reading():
            transport.resume_reading()
        elif not may_read and transport.is_reading():
            transport.pause_reading()

    def write(self, data: bytes) -> None:
        """Send bytes now; a peer that leaves too much unread is cut off."""
        transport = self.transport
        if transport is None or self.ending_since is not None:
            return
        if self._tls is not None:
            try:
                data = self._tls.send(data)
            except ssl.SSLError:
                transport.abort()
                return
        if self.clogged and not self._has_room(transport, len(data)):
            transport.abort()
        else:
            transport.write(data)

    def _has_room(self, transport: asyncio.Transport, size: int) -> bool:
        """Whether so much may be added to what is unsent already. One stanza is never too much by itself."""
        shared = self._shared
        if transport.get_write_buffer_size() + size > shared.rules.hard:
            return False
        shared.unsent.grow(size, shared.rules.together)
        return not transport.is_closing()

    @property
    def unsent(self) -> int:
        """See `Link.unsent`."""
        return self.transport.get_write_buffer_size() if self.transport is not None else 0

    def write_all(self, elements: Sequence[bytes]) -> None:
        """Send several pieces as one."""
        self.write(b"".join(elements))

    def nudge(self) -> None:
        """White space between stanzas."""
        self.write(b" ")

    def finish(self, last: Sequence[bytes]) -> None:
        """Send the last bytes and close; the peer has some seconds to hang up itself, so that it can read
        them.
        """
        if self.transport is None or self.ending_since is not None:
            return
        # In one piece with the goodbye of TLS: a client that reads the end of the stream alone may take it
        # for the answer to a logout, and not come back.
        data = b"".join(last)
        self.transport.write(data if self._tls is None else self._tls.close(data))
        self.ending_since = self._shared.clock()
        if self.clogged and self.transport.get_write_buffer_size() > self._shared.rules.hard:
            self.transport.abort()
        if self.transport.is_closing():
            return
        if not self.transport.is_reading():
            self.transport.resume_reading()
        if self.transport.can_write_eof():
            with contextlib.suppress(OSError):  # the peer has cut the connection already
                self.transport.write_eof()

    def cut(self) -> None:
        """Drop the connection without a word."""
        if self.transport is not None:
            self.transport.abort()

    @property
    def secure(self) -> bool:
        """Whether TLS is in use."""
        return self._tls is not None

    @property
    def security(self) -> str:
        """See `Link.security`."""
        if self._tls is None:
            return "none"
        return "starttls" if self._starttls else "direct"

    @property
    def encryption(self) -> tuple[str, str]:
        """See `Link.encryption`."""
        return self._tls.encryption if self._tls is not None else ("", "")

    @property
    def can_encrypt(self) -> bool:
        """Whether TLS may be begun."""
        return self._starttls and self._tls is None

    @property
    def is_over(self) -> bool:
        """Whether nothing can be sent any more."""
        return self.ending_since is not None or self.transport is None

    def start_tls(self, domain: str = "") -> None:
        """See `Link.start_tls`."""
        self._tls = TlsLayer(self._shared.certificates.context, domain)

    def channel_bindings(self) -> Mapping[str, bytes]:
        """See `Link.channel_bindings`."""
        return self._tls.channel_bindings() if self._tls is not None else {}

    def _decrypt(self, data: bytes) -> bytes:
        assert self._tls is not None and self.transport is not None
        try:
            plain = self._tls.receive(data)
        except ssl.SSLError as error:
            if not self._tls.established:
                reason = (error.reason or "unknown").lower().replace("_", "-")
                self._shared.reports.tell("tls-failed", self.peer, reason=reason)
            self._hang_up()
            return b""
        if output := self._tls.output():
            self.transport.write(output)
        return plain

    def _hang_up(self) -> None:
        """Answer a TLS mistake with an alert, or a goodbye with ours unless it is said already, and close."""
        assert self._tls is not None and self.transport is not None
        if self.ending_since is None:
            self.transport.write(self._tls.close())
            self.ending_since = self._shared.clock()
        self.transport.close()
