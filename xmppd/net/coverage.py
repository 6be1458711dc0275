"""Which certificate the clients of a domain are shown, and whether they will believe it (RFC 9525)."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509

from xmppd.net.certificates import KeyPair, ascii_name, read_certificate

XMPP_ADDRESS = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.5")
SERVICE_NAME = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.7")
SERVICE = "_xmpp-client."


class Doubt(NamedTuple):
    """Why clients of a domain may refuse to log in: a sentence about the certificate in that file."""

    domain: str
    file: Path
    reason: str


def doubts(
    default: KeyPair, by_domain: Mapping[str, KeyPair], domains: Sequence[str], now: float
) -> Iterator[Doubt]:
    """What is wrong with what the clients of each domain are shown. CertificateError."""
    for domain in domains:
        file = by_domain.get(domain, default).certificate
        certificate = read_certificate(file)
        names = names_of(certificate)
        if not is_covered(domain, names):
            shown = ", ".join(sorted(names)) or "nobody"
            reason = f"clients of {domain} are shown a certificate that is for {shown} only"
            yield Doubt(domain, file, reason)
        if reason := out_of_date(certificate, now):
            yield Doubt(domain, file, reason)


def out_of_date(certificate: x509.Certificate, now: float) -> str:
    """A sentence when it has ended, or has not begun; else ""."""
    at = dt.datetime.fromtimestamp(now, dt.UTC)
    if at > certificate.not_valid_after_utc:
        return f"the certificate ended on {certificate.not_valid_after_utc:%Y-%m-%d}"
    if at < certificate.not_valid_before_utc:
        return f"the certificate begins on {certificate.not_valid_before_utc:%Y-%m-%d}"
    return ""


def names_of(certificate: x509.Certificate) -> set[str]:
    """The domains and addresses it is for, as they stand in its alternative names, in lower case."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    names = {str(name).lower() for name in found.get_values_for_type(x509.DNSName)}
    names |= {str(address) for address in found.get_values_for_type(x509.IPAddress)}
    for other in found.get_values_for_type(x509.OtherName):
        # DER: a tag, a length below 128, the text.
        text = other.value[2:].decode("utf-8", "replace").lower()
        if other.type_id == XMPP_ADDRESS:
            names.add(ascii_name(text))
        elif other.type_id == SERVICE_NAME and text.startswith(SERVICE):
            names.add(text.removeprefix(SERVICE))
    return names


def is_covered(domain: str, names: set[str]) -> bool:
    """Whether a certificate for these names is one for the domain; `*` stands for one label."""
    name = ascii_name(domain)
    try:
        return str(ipaddress.ip_address(name.strip("[]"))) in names
    except ValueError:
        return name in names or f"*.{name.partition('.')[2]}" in names
