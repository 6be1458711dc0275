"""The certificates of the configuration: for whom, how long, and whether clients know who signed them."""

from __future__ import annotations

import time
from collections.abc import Iterator

from xmppd.config import Config
from xmppd.doctor.advice import Advice
from xmppd.doctor.ports import SOON_DAYS
from xmppd.encryption import believed_or_not, key_pairs
from xmppd.net.certificates import CertificateError, KeyPair, read_certificate
from xmppd.net.coverage import names_of


def look(config: Config) -> Iterator[Advice]:
    """One line for each domain, and for each thing that is wrong."""
    if not config.tls.certificates:
        text = "the server made its certificate itself, which no client believes"
        yield Advice("warning", "certificates", text, "name files in tls.certificates, but for a trial")
        return
    try:
        doubted = list(believed_or_not(config))
        default, by_domain = key_pairs(config)
        rows = [_row(domain, by_domain.get(domain, default)) for domain in config.server.domains]
    except CertificateError as error:
        yield Advice("error", "certificates", str(error), "xmppd check-config shows its place")
        return
    for doubt in doubted:
        yield Advice("error", f"certificate of {doubt.domain}", f"{doubt.reason} ({doubt.file})", "a new one")
    wrong = {doubt.domain for doubt in doubted}
    yield from (row for domain, row in zip(config.server.domains, rows, strict=True) if domain not in wrong)


def _row(domain: str, pair: KeyPair) -> Advice:
    about = f"certificate of {domain}"
    certificate = read_certificate(pair.certificate)
    end = certificate.not_valid_after_utc
    days = int((end.timestamp() - time.time()) // 86400)
    if days < SOON_DAYS:
        return Advice("warning", about, f"ends in {days} days ({pair.certificate})", "renew it")
    if certificate.issuer == certificate.subject:
        text = "signed by itself: clients believe it only if they were told to"
        return Advice("warning", about, text, "have it signed by an authority")
    names = ", ".join(sorted(names_of(certificate)))
    return Advice("ok", about, f"for {names}, until {end:%Y-%m-%d} ({days} days)")
