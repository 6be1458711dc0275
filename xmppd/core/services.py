"""Hosts that are not accounts: rooms, components, other servers. Asked when an address is on none of our
domains.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from xmppd.core.origin import Host, Origin
from xmppd.errors import StanzaError
from xmppd.jid import Jid
from xmppd.xml import build
from xmppd.xml.stanza import Stanza, parse

Take = Callable[[Origin, Stanza, Jid], Awaitable[None] | None]
"""Takes a stanza of any kind for an address on the host; StanzaError refuses it."""


@dataclass(frozen=True, slots=True)
class Service:
    """Who answers for a host, and how service discovery shows it (XEP-0030 3): `category`, `type`, `title`
    of its identity, and its `features`.
    """

    take: Take
    category: str = "component"
    type: str = "generic"
    title: str = ""
    features: tuple[str, ...] = ()


class Services:
    """The hosts of this server by name; a `Container` of them. `spawn` runs a coroutine in the background."""

    def __init__(self, spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        self._spawn = spawn
        self._hosts: dict[str, Service] = {}

    def __contains__(self, host: object) -> bool:
        return host in self._hosts

    def __len__(self) -> int:
        return len(self._hosts)

    def __getitem__(self, host: str) -> Service:
        return self._hosts[host]

    def get(self, host: str) -> Service | None:
        """Who answers for this host."""
        return self._hosts.get(host)

    def below(self, domain: str) -> Iterable[tuple[str, Service]]:
        """The hosts below a domain with their services, for disco#items."""
        return [(host, found) for host, found in self._hosts.items() if host.endswith(f".{domain}")]

    def compile(self, hosts: Mapping[str, Service]) -> None:
        """Replace all of them; streams and routing keep this object."""
        self._hosts = dict(hosts)

    def take(self, origin: Origin, stanza: Stanza, to: Jid) -> Awaitable[None] | None:
        """Hand over a stanza; StanzaError remote-server-not-found where nobody answers for the host (RFC 6120
        10.4).
        """
        service = self._hosts.get(to.domain)
        if service is None:
            raise StanzaError("remote-server-not-found")
        return service.take(origin, stanza, to)

    def tell(self, origin: Origin, data: bytes, to: str) -> None:
        """Hand over a whole stanza that nobody waits for: the service may refuse it, or be gone by now."""
        self._spawn(self._tell(origin, build.stanza_of(parse(data)), Jid.parse(to)))

    async def _tell(self, origin: Origin, stanza: Stanza, to: Jid) -> None:
        with contextlib.suppress(StanzaError):
            waiting = self.take(origin, stanza, to)
            if waiting is not None:
                await waiting


class Guest(Host):
    """The origin of what a service sends: what answers it is handed to the service."""

    __slots__ = ("_services",)

    def __init__(self, full: str, services: Services) -> None:
        super().__init__(full)
        self._services = services

    def send(self, data: bytes) -> None:
        """Hand it over."""
        sender = parse(data).get("from", "")
        self._services.tell(Host(sender), data, self.full)


class Hosts:
    """The domains that are served, and the hosts of services: all whose word is ours."""

    __slots__ = ("_domains", "_services")

    def __init__(self, domains: frozenset[str], services: Services) -> None:
        self._domains = domains
        self._services = services

    def __contains__(self, host: object) -> bool:
        return host in self._domains or host in self._services
