"""Certificates and TLS contexts: one per domain, chosen by SNI, replaced while the server runs (RFC 7590)."""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import logging
import os
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import idna
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from xmppd.errors import CommandError
from xmppd.net.channel import DomainContext, KeyLog
from xmppd.net.tls import CIPHERS, Connection

log = logging.getLogger(__name__)

RENEWAL_SECONDS = 7 * 86400
"""A development certificate with less time to live than this is made anew."""

_DEVELOPMENT_DAYS = 365

_EXIT_NO_PERMISSION = 77
_EXIT_BAD_CONFIG = 78

_SSL_REASONS = {
    "KEY_VALUES_MISMATCH": "the key belongs to another certificate",
    None: "it holds no PEM key",
}


class CertificateError(CommandError):
    """A certificate or key that cannot be used, with the file and the reason. Exit code 77 or 78."""


class KeyPair(NamedTuple):
    """The PEM files of a certificate (with its chain) and of its private key; both may be one file."""

    certificate: Path
    key: Path


def server_context(
    certificate: Path,
    key: Path,
    *,
    minimum_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
    ciphers: str = CIPHERS,
    alpn: Sequence[str] = ("xmpp-client",),
) -> DomainContext:
    """A context for one certificate, without renegotiation, compression and resumption. CertificateError."""
    context = _bare_context(minimum_version, ciphers, alpn)
    leaf = read_certificate(certificate)

    def refuse() -> str:
        # Called for an encrypted key only; without a callback OpenSSL asks on the terminal.
        raise CertificateError(f"{key}: the key is encrypted; store it without a password", _EXIT_BAD_CONFIG)

    try:
        context.load_cert_chain(certificate, key, password=refuse)
    except OSError as error:
        # OpenSSL does not say which file it means; the certificate was read before, so it is the key.
        raise _unusable(key, error) from None
    context.leaf = leaf
    context.end_point = end_point(leaf)
    context.expires = leaf.not_valid_after_utc.timestamp()
    return context


class Shown(NamedTuple):
    """A certificate that clients are shown, and the file that it was read from."""

    file: Path
    certificate: x509.Certificate


class Certificates:
    """The contexts of all domains behind the one `context` that listeners use.

    A TLS connection is moved to the context of its server name, else of its stream's domain, else of the
    default certificate, when the client's hello arrives, and keeps that one. So after a reload connections in
    the middle of their handshake still bind to the certificate that they were shown.
    """

    def __init__(
        self,
        default: KeyPair,
        domains: Mapping[str, KeyPair] | None = None,
        *,
        minimum_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
        ciphers: str = CIPHERS,
        alpn: Sequence[str] = ("xmpp-client",),
    ) -> None:
        self._minimum_version = minimum_version
        self._ciphers = ciphers
        self._alpn = alpn
        self._key_log = _key_log()
        self._choice = _Choice()
        self.load(default, domains or {})
        self.context: ssl.SSLContext = _bare_context(minimum_version, ciphers, alpn)
        self.context.sslobject_class = Connection
        self.context.sni_callback = self._choice.make

    def load(self, default: KeyPair, domains: Mapping[str, KeyPair]) -> None:
        """Use these files from now on. After a CertificateError everything is as before."""
        pairs = {default, *domains.values()}
        contexts = {pair: self._context(pair) for pair in pairs}
        self._choice.default = contexts[default]
        self._choice.by_domain = {domain: contexts[pair] for domain, pair in domains.items()}
        self._choice.by_name = {ascii_name(domain): contexts[pair] for domain, pair in domains.items()}
        self._contexts = contexts
        self._pairs = {"": default, **domains}

    def expiries(self) -> dict[Path, float]:
        """Certificate file -> its end, in seconds since the epoch."""
        return {pair.certificate: context.expires for pair, context in self._contexts.items()}

    def shown(self, domain: str) -> Shown:
        """What clients of a domain are shown."""
        return self._shown(self._pairs.get(domain, self._pairs[""]))

    def all_shown(self) -> list[Shown]:
        """All that are at work, each once."""
        return [self._shown(pair) for pair in dict.fromkeys(self._pairs.values())]

    def _shown(self, pair: KeyPair) -> Shown:
        return Shown(pair.certificate, self._contexts[pair].leaf)

    def _context(self, pair: KeyPair) -> DomainContext:
        context = server_context(
            *pair, minimum_version=self._minimum_version, ciphers=self._ciphers, alpn=self._alpn
        )
        if self._key_log is not None:
            try:
                self._key_log.attach(context)
                context.key_log = self._key_log
            except OSError as error:
                _warn_of_no_exporter(error)
        return context


class _Choice:
    """Which context a connection gets. Apart from `Certificates`, so that no cycle keeps old ones open."""

    __slots__ = ("by_domain", "by_name", "default")

    default: DomainContext
    by_domain: Mapping[str, DomainContext]
    by_name: Mapping[str, DomainContext]

    def make(self, connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        """Called by OpenSSL for each client hello, also for one without a server name."""
        found = self.by_name.get((name or "").lower())
        if found is None and isinstance(connection, Connection):
            found = self.by_domain.get(connection.domain)
        connection.context = found or self.default


def _key_log() -> KeyLog | None:
    try:
        return KeyLog()
    except OSError as error:
        _warn_of_no_exporter(error)
        return None


def _warn_of_no_exporter(error: OSError) -> None:
    """Logins on TLS 1.3 go without channel binding then."""
    log.warning("tls-exporter-unavailable", extra={"reason": error.strerror or str(error)})


def development_certificate(
    folder: Path, domains: Iterable[str], *, now: Callable[[], float] = time.time
) -> KeyPair:
    """A self-signed certificate for these domains, made unless `folder` has one good for a week more."""
    pair = KeyPair(folder / "development.crt", folder / "development.key")
    names = _alternative_names(domains)
    if not _fits(pair, names, now()):
        folder.mkdir(parents=True, exist_ok=True)
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _self_sign(key, names, now())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        # A crash in between leaves two files that do not belong together; the next start sees that.
        _write(pair.key, private, 0o600)
        _write(pair.certificate, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return pair


def ascii_name(domain: str) -> str:
    """A domain as it stands in certificates and in SNI (RFC 5890: A-labels); lower case."""
    return domain.lower() if domain.isascii() else idna.encode(domain, uts46=True).decode("ascii")


def _bare_context(minimum_version: ssl.TLSVersion, ciphers: str, alpn: Sequence[str]) -> DomainContext:
    context = DomainContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = minimum_version
    context.set_ciphers(ciphers)
    context.set_alpn_protocols(list(alpn))
    context.options |= (
        ssl.OP_NO_RENEGOTIATION
        | ssl.OP_NO_COMPRESSION
        | ssl.OP_CIPHER_SERVER_PREFERENCE
        | ssl.OP_SINGLE_DH_USE
        | ssl.OP_SINGLE_ECDH_USE
        | ssl.OP_NO_TICKET
    )
    # Clients stay for hours: a ticket each costs 0.3 ms and is hardly ever used.
    context.num_tickets = 0
    return context


def read_certificate(path: Path) -> x509.Certificate:
    """The server's own certificate, the first; its chain is read too, so that a mistake there is found."""
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())[0]
    except (OSError, ValueError) as error:
        raise _unusable(path, error) from None


def end_point(certificate: x509.Certificate) -> bytes:
    """The data of tls-server-end-point (RFC 5929 4.1): a hash of the certificate.

    The hash is that of the certificate's signature, but SHA-256 instead of MD5 and SHA-1. For signatures
    without exactly one hash (Ed25519, Ed448) the RFC defines nothing; SHA-256 is what other servers and
    clients take.
    """
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        algorithm = None
    name = algorithm.name.replace("-", "_") if algorithm else "sha256"
    if name in ("md5", "sha1"):
        name = "sha256"
    return hashlib.new(name, certificate.public_bytes(serialization.Encoding.DER)).digest()


def _unusable(path: Path, error: OSError | ValueError) -> CertificateError:
    code = _EXIT_NO_PERMISSION if isinstance(error, PermissionError) else _EXIT_BAD_CONFIG
    if isinstance(error, ssl.SSLError):
        reason = _SSL_REASONS.get(error.reason, error.reason or str(error))
    elif isinstance(error, OSError):
        reason = error.strerror or str(error)
    else:
        reason = "it holds no PEM certificate"
    return CertificateError(f"{path}: {reason}", code)


def _alternative_names(domains: Iterable[str]) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = []
    for domain in sorted({ascii_name(domain) for domain in domains}):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(domain.strip("[]"))))
        except ValueError:
            names.append(x509.DNSName(domain))
        if domain == "localhost":
            names += [x509.IPAddress(ipaddress.ip_address(own)) for own in ("127.0.0.1", "::1")]
    return names


def _fits(pair: KeyPair, names: list[x509.GeneralName], now: float) -> bool:
    try:
        server_context(*pair)
    except CertificateError:
        return False
    certificate = read_certificate(pair.certificate)
    if certificate.not_valid_after_utc.timestamp() - now < RENEWAL_SECONDS:
        return False
    present = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return list(present.value) == names


def _self_sign(
    key: ec.EllipticCurvePrivateKey, names: list[x509.GeneralName], now: float
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "xmppd development certificate")])
    start = dt.datetime.fromtimestamp(now, dt.UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - dt.timedelta(hours=1))
        .not_valid_after(start + dt.timedelta(days=_DEVELOPMENT_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
        .sign(key, hashes.SHA256())
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    """Replace the file as a whole, readable by nobody else at any moment when `mode` says so."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
