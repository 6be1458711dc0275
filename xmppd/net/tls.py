"""TLS inside the protocol: an `ssl.MemoryBIO` pair between the transport and the scanner.

Cheaper than the event loop's own layer (half of uvloop's cost, a fifteenth of asyncio's memory) because whole
turns of output become one send, and because nothing is buffered per connection.
"""

from __future__ import annotations

import contextlib
import ssl

from xmppd.net.channel import DomainContext, channel_bindings

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption only. TLS 1.3 has no others."""

READ_SIZE = 65536

PIECE = 2048
"""Bytes of plaintext in a record at most: OpenSSL's buffer between us grows to the longest and stays so. Half
as much as 4096 saves 2.6 KiB for each session, and costs about 1 us for each record more.
"""


class Connection(ssl.SSLObject):
    """A TLS connection whose certificate is chosen by the `domain` of the stream that it protects when the
    client's hello does not say (RFC 6120 5.4.3.1); "" where that is not known.
    """

    domain = ""


class TlsLayer:
    """The server's side of one TLS connection, without a socket. `domain` as in `Connection`."""

    __slots__ = ("_exporter_secret", "_incoming", "_object", "_outgoing", "established", "is_over")

    def __init__(self, context: ssl.SSLContext, domain: str = "") -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        if isinstance(self._object, Connection):
            self._object.domain = domain
        self._exporter_secret = b""
        self.established = False
        self.is_over = False

    def receive(self, data: bytes) -> bytes:
        """Feed bytes from the wire; the plaintext that came out of them. ssl.SSLError on a broken or closed
        connection.
        """
        self._incoming.write(data)
        if not self.established:
            try:
                self._object.do_handshake()
            except ssl.SSLWantReadError:
                return b""
            finally:
                self._take_secret()
            self.established = True
        return self._read()

    def _take_secret(self) -> None:
        context = self._object.context  # that of the certificate from the client's hello on
        if isinstance(context, DomainContext) and context.key_log is not None:
            self._exporter_secret = context.key_log.take() or self._exporter_secret

    def channel_bindings(self) -> dict[str, bytes]:
        """What an established connection can be bound to, by type."""
        return channel_bindings(self._object, self._exporter_secret)

    @property
    def encryption(self) -> tuple[str, str]:
        """Version and cipher of an established connection; ("", "") before."""
        cipher = self._object.cipher()
        return ("", "") if cipher is None else (self._object.version() or "", cipher[0])

    def _read(self) -> bytes:
        pieces = []
        read = self._object.read
        try:
            while piece := read(READ_SIZE):
                pieces.append(piece)
            self.is_over = True  # the peer has said goodbye
        except ssl.SSLWantReadError:
            pass
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def send(self, data: bytes) -> bytes:
        """Plaintext to bytes for the wire."""
        if len(data) <= PIECE:
            self._object.write(data)
            return self._outgoing.read()
        records = []
        for start in range(0, len(data), PIECE):
            self._object.write(data[start : start + PIECE])
            records.append(self._outgoing.read())
        return b"".join(records)

    def output(self) -> bytes:
        """Bytes for the wire that are due without anything said: handshake, alerts, tickets."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def close(self, last: bytes = b"") -> bytes:
        """Bytes that say `last`, where a handshake has made that possible, and goodbye (close_notify)."""
        records = b""
        with contextlib.suppress(ssl.SSLError):  # the peer's own is not here yet, and not waited for
            if last and self.established:
                records = self.send(last)
            self._object.unwrap()
        return records + self.output()
