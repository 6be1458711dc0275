"""The certificates of a configuration: ready for connections, or what is wrong with them."""

from __future__ import annotations

import contextlib
import logging
import ssl
import time
from collections.abc import Iterator, Sequence

from xmppd.admin.commands import BAD_CONFIG
from xmppd.config import Config
from xmppd.document import KeyPath
from xmppd.errors import CommandError, Finding
from xmppd.net.certificates import (
    CertificateError,
    Certificates,
    KeyPair,
    development_certificate,
    server_context,
)
from xmppd.net.coverage import Doubt, doubts
from xmppd.net.tls import CIPHERS

log = logging.getLogger(__name__)


def certificates(config: Config) -> Certificates:
    """The certificates of all domains; CertificateError when one cannot be used."""
    default, domains = key_pairs(config)
    version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[config.tls.minimum_version]
    return Certificates(default, domains, minimum_version=version, ciphers=config.tls.ciphers or CIPHERS)


def key_pairs(config: Config) -> tuple[KeyPair, dict[str, KeyPair]]:
    """The default certificate's files, and those of single domains; the development certificate where none is
    named.
    """
    named = {name: KeyPair(pair.certificate, pair.key) for name, pair in config.tls.certificates.items()}
    default = named.pop("*", None) or next(iter(named.values()), None)
    if default is None:
        default = development_certificate(config.server.data_folder, config.server.domains)
    return default, named


def check_files(config: Config) -> Iterator[Finding]:
    """Certificates and keys that OpenSSL does not take."""
    for name, pair in config.tls.certificates.items():
        try:
            server_context(pair.certificate, pair.key)
        except CertificateError as error:
            is_key = str(error).startswith(f"{pair.key}: ")
            if pair.key == pair.certificate:
                is_key = "key" in str(error).removeprefix(str(pair.key))
            part = "key" if is_key else "certificate"
            problem = config.problem(("tls", "certificates", name, part), str(error))
            yield Finding(problem, is_fatal=error.exit_code == BAD_CONFIG)


def check_belief(config: Config) -> Iterator[Finding]:
    """Certificates that clients will not believe."""
    with contextlib.suppress(CertificateError):  # found by `check_files`
        for doubt in believed_or_not(config):
            path: KeyPath = ("tls", "certificates")
            if doubt.domain in config.tls.certificates:
                path = (*path, doubt.domain, "certificate")
            yield Finding(config.problem(path, f"{doubt.reason} ({doubt.file})"))


def warn_of_certificates(config: Config) -> None:
    """Log each domain whose clients will not believe the certificate that they are shown."""
    with contextlib.suppress(CommandError):
        for doubt in believed_or_not(config):
            extra = {"domain": doubt.domain, "file": str(doubt.file), "reason": doubt.reason}
            log.warning("certificate-doubtful", extra=extra)


def believed_or_not(config: Config) -> Sequence[Doubt]:
    """Why clients may not believe the certificates; none where the server makes them itself.
    CertificateError.
    """
    if not config.tls.certificates:
        return ()
    default, by_domain = key_pairs(config)
    pairs = {name: KeyPair(*pair) for name, pair in by_domain.items()}
    return list(doubts(default, pairs, config.server.domains, time.time()))
