"""How a cluster of Cassandra is recognised, and we by it."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator

from xmppd.errors import ConfigError, Problem
from xmppd.store.cassandra.options import CassandraOptions


def ssl_context(options: CassandraOptions) -> ssl.SSLContext | None:
    """How Cassandra is recognised, and we by it; None without TLS. ConfigError for files that are no use."""
    if not options.tls:
        return None
    with _told_of("ca", options.tls_ca):
        context = ssl.create_default_context(cafile=options.tls_ca)
    context.check_hostname = options.tls_check_host_name
    if options.tls_certificate is not None:
        with _told_of("certificate", options.tls_certificate, options.tls_key):
            # A key with a password is refused; OpenSSL would ask for it on the terminal.
            context.load_cert_chain(options.tls_certificate, options.tls_key, password="")
    return context


@contextlib.contextmanager
def _told_of(key: str, *files: str | None) -> Iterator[None]:
    """Inside, files that a key of the configuration names are read."""
    try:
        yield
    except OSError as error:
        names = " with ".join(filter(None, files))
        problem = f"{names} cannot be used: {error.strerror or error}"
        raise ConfigError([Problem("the store", 0, 0, f"store.cassandra.tls.{key}", problem)]) from error
