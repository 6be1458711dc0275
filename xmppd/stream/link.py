"""What a client's stream stands on: a link carries elements, a framing says how they are read and set apart.

TCP, a WebSocket (RFC 7395) and pairs of HTTP requests (XEP-0124, XEP-0206) are links; they share two
framings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

from xmppd.xml.limits import Limits
from xmppd.xml.scan import Event


class Link(Protocol):
    """Carries one stream. It gives to its stream what comes in, and stops reading while that is busy."""

    kind: ClassVar[str]
    """What carries it, for operators: `tcp`."""
    peer: str
    """The client's address, for operators."""
    clogged: bool
    """Whether more is unsent than should be; the stream is told when that is over."""
    heard: float
    """When something came in last, by the clock of all connections."""
    ending_since: float | None
    """When `finish` was called, or the other side said that this is the end."""

    @property
    def secure(self) -> bool:
        """Whether TLS protects it."""

    @property
    def security(self) -> str:
        """How TLS came to protect it, for operators: `direct`, `starttls` or `none`."""

    @property
    def encryption(self) -> tuple[str, str]:
        """Version and cipher of its TLS, for operators; ("", "") without."""

    @property
    def unsent(self) -> int:
        """Bytes that wait for the client to read others."""

    @property
    def can_encrypt(self) -> bool:
        """Whether TLS may be begun on it (RFC 6120 5)."""

    @property
    def is_over(self) -> bool:
        """Whether nothing can be sent any more."""

    def write(self, data: bytes) -> None:
        """Send one first-level element now; nothing happens when it is over."""

    def write_all(self, elements: Sequence[bytes]) -> None:
        """Send several; the sequence is the caller's again afterwards."""

    def nudge(self) -> None:
        """Send what says nothing, so that a connection that is gone is found out (RFC 6120 4.6.1)."""

    def finish(self, last: Sequence[bytes]) -> None:
        """Send the last elements and close, in a way that lets the client read them."""

    def cut(self) -> None:
        """Drop it without a word."""

    def regulate(self) -> None:
        """Read, or stop, as output and stream say."""

    def start_tls(self, domain: str = "") -> None:
        """What comes in from now on is TLS, and its ClientHello comes first. Clients that name no domain of
        ours there are shown the certificate of `domain` (RFC 6120 5.4.3.1).
        """

    def channel_bindings(self) -> Mapping[str, bytes]:
        """The channel binding data of its TLS by type, the strongest first; none without TLS."""


class Framing(Protocol):
    """Reads what a link brings, and makes what opens and closes a stream."""

    limits: Limits
    stepwise: bool
    """Whether `feed` returns one event at most, so that its consequences come before the next; `feed(b"")`
    goes on.
    """

    def feed(self, data: bytes) -> list[Event]:
        """What these bytes complete, in order. A StreamError is the last element, and the end of reading."""

    def restart(self, *, discard: bool = False) -> None:
        """Expect a new header, in what was taken already or, with `discard`, only in what is to come."""

    def header(self, domain: str, to: str, lang: str) -> bytes:
        """The server's header, with a fresh id of 128 random bits (RFC 6120 4.7.3)."""

    def end(self) -> bytes:
        """What closes the stream."""


class Carried(Protocol):
    """What a link knows of the stream that it carries."""

    @property
    def is_busy(self) -> bool:
        """Whether nothing may be read now."""

    def begun(self) -> None:
        """The link is there; called once, before anything else."""

    def received(self, data: bytes) -> None:
        """Bytes from the client, never empty; with a framing in frames, one whole frame."""

    def drained(self) -> None:
        """Output is not clogged any more."""

    def broken(self) -> None:
        """The link is gone; called once."""
