"""The certificates at work, as operators see them and have them read again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from xmppd.config import Config
from xmppd.encryption import key_pairs, warn_of_certificates
from xmppd.everywhere import Everywhere
from xmppd.net.certificates import CertificateError, Shown, read_certificate
from xmppd.net.coverage import names_of
from xmppd.net.wire import Shared

log = logging.getLogger(__name__)

LIST: Final = "certificate list"
RELOAD: Final = "certificate reload"
THE_SAME: Final = "the same"

Rows = Sequence[Mapping[str, Any]]


class CertificateOffice:
    """Certificates as `certificate` commands want them. `changing` is held by whoever takes over another
    configuration.
    """

    def __init__(
        self, config: Callable[[], Config], shared: Shared, everywhere: Everywhere, changing: asyncio.Lock
    ) -> None:
        self._config = config
        self._shared = shared
        self._everywhere = everywhere
        self._changing = changing
        everywhere.serve(LIST, self._list)
        everywhere.serve(RELOAD, self._reload)

    async def rows(self, *, everywhere: bool) -> Rows:
        """See `xmppd.admin.certificates`."""
        return await self._on(LIST, self._list, everywhere=everywhere)

    async def reload(self, *, everywhere: bool) -> Rows:
        """See `xmppd.admin.certificates`."""
        return await self._on(RELOAD, self._reload, everywhere=everywhere)

    async def _on(self, name: str, here: Callable[[Mapping[str, Any]], Any], *, everywhere: bool) -> Rows:
        rows: Rows = await (self._everywhere.rows(name, {}) if everywhere else here({}))
        return rows

    async def _list(self, arguments: Mapping[str, Any]) -> Rows:
        certificates = self._shared.certificates
        shown = [(domain, certificates.shown(domain)) for domain in self._config().server.domains]
        return await asyncio.to_thread(lambda: [_row(domain, one) for domain, one in shown])

    async def _reload(self, arguments: Mapping[str, Any]) -> Rows:
        async with self._changing:
            config, certificates = self._config(), self._shared.certificates
            before = {_mark(one.certificate) for one in certificates.all_shown()}
            certificates.load(*key_pairs(config))
            warn_of_certificates(config)
            now = certificates.all_shown()
        changed = [str(one.file) for one in now if _mark(one.certificate) not in before]
        log.info("certificates-reloaded", extra={"changed": changed})
        return [
            {"file": str(one.file), "sha256": _mark(one.certificate), "changed": str(one.file) in changed}
            for one in now
        ]


def _row(domain: str, shown: Shown) -> Mapping[str, Any]:
    certificate = shown.certificate
    end = certificate.not_valid_after_utc
    return {
        "domain": domain,
        "file": str(shown.file),
        "names": sorted(names_of(certificate)),
        "issuer": certificate.issuer.rfc4514_string(),
        "begins": f"{certificate.not_valid_before_utc:%Y-%m-%d}",
        "ends": f"{end:%Y-%m-%d}",
        "days_left": int((end.timestamp() - time.time()) // 86400),
        "sha256": _mark(certificate),
        "on_disk": _on_disk(shown),
    }


def _on_disk(shown: Shown) -> str:
    """What the file has beside what is at work."""
    try:
        found = read_certificate(shown.file)
    except CertificateError as error:
        return f"cannot be used: {error}"
    if found == shown.certificate:
        return THE_SAME
    return f"another one, from {found.not_valid_before_utc:%Y-%m-%d} to {found.not_valid_after_utc:%Y-%m-%d}"


def _mark(certificate: x509.Certificate) -> str:
    """Its SHA-256 fingerprint, as OpenSSL shows it."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()
