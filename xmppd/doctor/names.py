"""The records by which clients find the server of a domain (RFC 6120 3.2, XEP-0368), and what they say."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import dns.asyncresolver
import dns.exception
import dns.resolver

from xmppd.doctor.advice import LOOPBACK, Advice, Level
from xmppd.net.certificates import ascii_name

SECONDS = 4.0
"""How long one question may take."""

MOST_TARGETS = 8
"""Of how many targets of one record addresses are asked for."""

STARTTLS, DIRECT = "_xmpp-client", "_xmpps-client"
"""The services that clients ask for: with STARTTLS, with TLS from the first byte."""

OTHER_SERVERS = ("_xmpp-server", "_xmpps-server")

PORT = 5222
"""Where clients go for a domain that has no such record."""

NOT_IN_DNS = (".localhost", ".test", ".invalid", ".example", ".local")
"""Names that no public resolver knows (RFC 6761, RFC 6762)."""


class Unresolved(Exception):
    """A question without an answer, in words."""


class Service(NamedTuple):
    """One SRV record."""

    target: str
    port: int
    priority: int
    weight: int


class Names(Protocol):
    """A resolver. `Unresolved` when it does not answer; an answer that there is nothing is empty."""

    async def services(self, name: str) -> Sequence[Service]:
        """The SRV records of a name."""

    async def addresses(self, name: str) -> tuple[Sequence[str], bool]:
        """The addresses of a name, of both families, and whether it is another's alias."""


class Dns:
    """A resolver of this machine, or the one at `server` (an address, or address:port)."""

    def __init__(self, server: str = "", port: int = 53) -> None:
        self._resolver = dns.asyncresolver.Resolver(configure=not server)
        if server:
            self._resolver.nameservers = [server]
            self._resolver.port = port
        self._resolver.lifetime = SECONDS

    async def services(self, name: str) -> Sequence[Service]:
        """The SRV records of a name."""
        answer = await self._ask(name, "SRV")
        found = [Service(str(it.target).rstrip("."), it.port, it.priority, it.weight) for it in answer or ()]
        return sorted(found, key=lambda one: (one.priority, -one.weight, one.target))

    async def addresses(self, name: str) -> tuple[Sequence[str], bool]:
        """The addresses of a name, of both families, and whether it is another's alias."""
        answers = [it for it in await asyncio.gather(self._ask(name, "A"), self._ask(name, "AAAA")) if it]
        is_alias = any(str(it.canonical_name).rstrip(".").lower() != name.lower() for it in answers)
        return [str(record) for answer in answers for record in answer], is_alias

    async def _ask(self, name: str, kind: Literal["SRV", "A", "AAAA"]) -> dns.resolver.Answer | None:
        try:
            return await self._resolver.resolve(f"{name}.", kind, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return None
        except (dns.exception.DNSException, OSError) as error:
            reason = str(error) or type(error).__name__
            raise Unresolved(f"no answer about {name} ({kind}): {reason}") from None


@dataclass(frozen=True)
class Target:
    """Where clients of a domain are sent: `direct` with TLS from the first byte."""

    domain: str
    host: str
    port: int
    direct: bool
    addresses: tuple[str, ...] = ()


class Looked(NamedTuple):
    """What the records of a domain are, and where they send clients."""

    advice: Sequence[Advice]
    targets: Sequence[Target]


async def look(domain: str, names: Names, ports: Sequence[tuple[int, bool]]) -> Looked:
    """The records of one domain. `ports` are those that this server listens at, with whether TLS comes first
    there.
    """
    about = f"DNS of {domain}"
    if reason := _not_in_dns(domain):
        return Looked([Advice("note", about, reason, "clients elsewhere must be told host and port")], ())
    try:
        return await _records(domain, names, ports, about)
    except Unresolved as error:
        return Looked([Advice("error", about, str(error), "look at the resolver of this machine")], ())


def _not_in_dns(domain: str) -> str:
    name = ascii_name(domain)
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        if name == "localhost" or name.endswith(NOT_IN_DNS) or "." not in name:
            return "a name that is not in the DNS: clients find this server on this machine only"
        return ""
    return "an IP address has no records"


async def _records(domain: str, names: Names, ports: Sequence[tuple[int, bool]], about: str) -> Looked:
    name = ascii_name(domain)
    kinds = (STARTTLS, DIRECT, *OTHER_SERVERS)
    records = await asyncio.gather(*(names.services(f"{kind}._tcp.{name}") for kind in kinds))
    found = dict(zip(kinds, records, strict=True))
    advice: list[Advice] = []
    targets: list[Target] = []
    for kind, direct in ((STARTTLS, False), (DIRECT, True)):
        for service in found[kind][:MOST_TARGETS]:
            if not service.target:
                text = f"{kind}._tcp says that clients get no service here"
                advice.append(Advice("error", about, text, "replace the record whose target is a dot"))
                continue
            target = Target(domain, service.target, service.port, direct)
            looked = await _addresses(target, names, f"{kind}._tcp.{domain}")
            advice += looked.advice
            targets += looked.targets
            advice += _fit(service, kind, direct, ports)
    if not found[STARTTLS] and not found[DIRECT]:
        looked = await _addresses(Target(domain, name, PORT, False), names, domain)
        targets += looked.targets
        level: Level = "note" if looked.targets else "error"
        text = "no SRV records" + (f": clients try {domain}:{PORT}" if looked.targets else ", and no address")
        rest = looked.advice if looked.targets else ()
        advice += [Advice(level, about, text, _wanted(name, ports)), *rest]
    elif targets:
        where = ", ".join(f"{target.host}:{target.port}" for target in targets)
        advice.insert(0, Advice("ok", about, f"clients are sent to {where}"))
    if any(service.target for kind in OTHER_SERVERS for service in found[kind]):
        text = "other servers are sent here, and this one talks to none"
        advice.append(Advice("note", about, text, "remove _xmpp-server and _xmpps-server"))
    return Looked(advice, targets)


def _wanted(name: str, ports: Sequence[tuple[int, bool]]) -> str:
    """The records that would lead to these ports."""
    lines = [
        f"{DIRECT if direct else STARTTLS}._tcp.{name}. SRV 0 5 {port} <host>." for port, direct in ports
    ]
    return "add " + ", ".join(lines) if lines else ""


def _fit(service: Service, kind: str, direct: bool, ports: Sequence[tuple[int, bool]]) -> list[Advice]:
    """Whether this server listens where a record leads; it need not, with a proxy or NAT before it."""
    if (service.port, direct) in ports:
        return []
    about, where = f"{kind}._tcp", f"{service.target}:{service.port}"
    if (service.port, not direct) in ports:
        wanted = "TLS from the first byte" if direct else "STARTTLS"
        text = f"{where} is announced for {wanted}, and the listener at {service.port} does the other"
        return [Advice("error", about, text, f"announce it by {STARTTLS if direct else DIRECT}._tcp")]
    text = f"{where}: this server does not listen at {service.port}"
    return [Advice("note", about, text, "right only if something before it leads there")]


async def _addresses(target: Target, names: Names, about: str) -> Looked:
    addresses, is_alias = await names.addresses(ascii_name(target.host))
    if not addresses:
        text = f"{target.host} has no address"
        return Looked([Advice("error", about, text, "add its A and AAAA records")], ())
    advice = []
    if is_alias and about != target.domain:
        text = f"{target.host} is an alias (CNAME), which RFC 2782 forbids for a target"
        advice.append(Advice("warning", about, text, "name the host itself"))
    inner = [address for address in addresses if not ipaddress.ip_address(address).is_global]
    if inner and not LOOPBACK.issuperset(addresses):
        text = f"{target.host} is {', '.join(inner)}, where clients outside cannot get to"
        advice.append(Advice("warning", about, text, "right only if all clients are inside"))
    full = Target(target.domain, target.host, target.port, target.direct, tuple(addresses))
    return Looked(advice, [full])
