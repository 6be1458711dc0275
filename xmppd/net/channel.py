"""What a TLS connection can be bound to (RFC 5929, 9266).

The ssl module exports no keying material. On TLS 1.3 OpenSSL tells the secret behind it to a key log, here a
file in memory, and the rest is two HMACs (docs/design/012-channel-binding.md).
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import re
import ssl
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509

EXPORTER_LABEL = b"EXPORTER-Channel-Binding"
EXPORTER_LENGTH = 32

LOG_BYTES = 65536
"""The key log begins anew behind this; it is blanked after each look."""

_HASHES = {32: "sha256", 48: "sha384"}
"""Length of a secret of TLS 1.3 -> the hash of its cipher suite; there are no others."""

_EXPORTER = re.compile(rb"^EXPORTER_SECRET [0-9a-f]+ ([0-9a-f]+)$", re.MULTILINE)


class KeyLog:
    """The file in memory to which OpenSSL tells the secrets of handshakes; nobody else sees it. OSError.

    A handshake runs without a pause between two calls of `take`, so what is found there is its own.
    """

    __slots__ = ("_end", "_file")

    def __init__(self) -> None:
        if not hasattr(os, "memfd_create"):
            raise OSError(errno.ENOSYS, "this Python has no memfd_create")
        self._end = 0
        self._file = os.memfd_create("keys", os.MFD_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def attach(self, context: ssl.SSLContext) -> None:
        """Let connections of this context tell their secrets from now on; takes one descriptor. OSError."""
        context.keylog_filename = f"/proc/self/fd/{self._file}"

    def take(self) -> bytes:
        """The exporter secret told since the last call, b"" for none; all that was told is blanked."""
        secret = b""
        while lines := os.pread(self._file, 8192, self._end):
            os.pwrite(self._file, bytes(len(lines)), self._end)
            self._end += len(lines)
            if found := _EXPORTER.search(lines):
                secret = bytes.fromhex(found[1].decode())
        if self._end > LOG_BYTES:
            os.ftruncate(self._file, 0)
            self._end = 0
        return secret


class DomainContext(ssl.SSLContext):
    """A server context that knows what its certificate means to channel binding, and when it ends.

    `leaf` is that certificate, `end_point` the data of tls-server-end-point, `expires` is in seconds since
    the epoch.
    """

    leaf: x509.Certificate
    end_point: bytes = b""
    expires: float = 0.0
    key_log: KeyLog | None = None


def channel_bindings(connection: ssl.SSLObject, exporter_secret: bytes) -> dict[str, bytes]:
    """The channel binding data of a finished handshake, by type, the strongest first; without
    `exporter_secret` (b"") none on TLS 1.3.

    All or none: clients that cannot choose take the type of their TLS version (RFC 5802 6.1, RFC 9266 3), and
    do not get in where -PLUS is offered without it.
    """
    context = connection.context
    if not isinstance(context, DomainContext):
        return {}
    version = connection.version()
    if version == "TLSv1.3" and exporter_secret:
        bindings = {"tls-exporter": tls_exporter(exporter_secret)}
    elif version == "TLSv1.2" and not connection.session_reused:
        # Only behind a resumption can somebody in between have the same one on both sides (RFC 7627 1).
        unique = connection.get_channel_binding("tls-unique")
        bindings = {"tls-unique": unique} if unique else {}
    else:
        bindings = {}
    return {**bindings, "tls-server-end-point": context.end_point} if bindings else {}


def tls_exporter(secret: bytes) -> bytes:
    """The data of tls-exporter (RFC 9266 2) from the exporter secret of TLS 1.3 (RFC 8446 7.5)."""
    algorithm = _HASHES[len(secret)]
    nothing = hashlib.new(algorithm).digest()
    derived = _expand(algorithm, secret, EXPORTER_LABEL, nothing, len(secret))
    return _expand(algorithm, derived, b"exporter", nothing, EXPORTER_LENGTH)


def _expand(algorithm: str, secret: bytes, label: bytes, context: bytes, length: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446 7.1) of at most one block."""
    label = b"tls13 " + label
    info = length.to_bytes(2, "big") + bytes((len(label),)) + label + bytes((len(context),)) + context
    return hmac.digest(secret, info + b"\1", algorithm)[:length]
