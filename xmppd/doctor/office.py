"""All that is looked at, by topics."""

from __future__ import annotations

import asyncio
import importlib
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from xmppd.admin.commands import USAGE
from xmppd.config import Config
from xmppd.core.roster.tier import SharedCache
from xmppd.doctor import clocks, dangers, keys, machine, papers
from xmppd.doctor.advice import LEVELS, Advice
from xmppd.doctor.ports import Place, knock
from xmppd.errors import CommandError
from xmppd.everywhere import Everywhere
from xmppd.settings import EVERYWHERE, address_of
from xmppd.store.table import Sounding, Store

if TYPE_CHECKING:
    from xmppd.doctor.names import Names

WORK = "doctor"
"""What other nodes are asked for: all but names and ports, which are the same for all."""

MOST_KNOCKS = 32
TOPICS = ("names", "ports", "certificates", "clocks", "keys", "machine", "settings")
OWN = ("certificates", "clocks", "keys", "machine", "settings")
"""Those that differ from node to node."""

Rows = Sequence[Mapping[str, Any]]


class Doctor:
    """Looks at one server and what it stands on. `config` gives the configuration at work."""

    def __init__(
        self, config: Callable[[], Config], store: Store, cache: SharedCache | None, everywhere: Everywhere
    ) -> None:
        self._config = config
        self._store = store
        self._cache = cache
        self._everywhere = everywhere
        everywhere.serve(WORK, self._asked)

    async def examine(self, topics: Sequence[str], resolver: str, *, everywhere: bool) -> Rows:
        """A row for each finding, the worst first: `level`, `about`, `found`, `advice`; with `node` where all
        nodes were asked. CommandError for a topic or a resolver that is none.
        """
        for topic in topics:
            if topic not in TOPICS:
                raise CommandError(f"{topic} is none of {', '.join(TOPICS)}", USAGE, field="topic")
        asked = tuple(topics) or TOPICS
        dns = _resolver(resolver)
        found = [] if {"names", "ports"}.isdisjoint(asked) else await self._outside(asked, dns)
        rows: list[Mapping[str, Any]] = [_row(one) for one in found]
        if own := [topic for topic in asked if topic in OWN]:
            if everywhere:
                rows += await self._everywhere.rows(WORK, {"topics": own})
            else:
                rows += [_row(one) for one in await self._own(own)]
        return sorted(rows, key=lambda row: LEVELS.index(row.get("level", "error")))

    async def _asked(self, arguments: Mapping[str, Any]) -> Rows:
        return [_row(one) for one in await self._own(arguments["topics"])]

    async def _own(self, topics: Sequence[str]) -> list[Advice]:
        config = self._config()
        work: dict[str, Callable[[], Awaitable[list[Advice]]]] = {
            "certificates": lambda: asyncio.to_thread(lambda: [*papers.look(config)]),
            "clocks": self._clocks,
            "keys": lambda: keys.look(config),
            "machine": lambda: asyncio.to_thread(lambda: [*machine.look(config)]),
            "settings": lambda: asyncio.to_thread(lambda: [*dangers.look(config)]),
        }
        return [advice for topic in topics for advice in await work[topic]()]

    async def _clocks(self) -> list[Advice]:
        soundings = await self._store.soundings()
        if self._cache is not None:
            try:
                soundings.append(Sounding("Redis", *await self._cache.sounding()))
            except Exception as error:  # noqa: BLE001 - whatever keeps it from answering is the finding
                soundings.append(Sounding("Redis", problem=str(error) or type(error).__name__))
        return [*clocks.judged(soundings)]

    async def _outside(self, topics: Sequence[str], dns: Names) -> list[Advice]:
        """The way of clients from a name to a port."""
        config = self._config()
        listeners = [one for one in config.listen.c2s if one.tls != "none"]
        ports = [(one.port, one.tls == "direct") for one in listeners]
        look = _names().look
        looked = await asyncio.gather(*(look(domain, dns, ports) for domain in config.server.domains))
        advice = [one for it in looked for one in it.advice] if "names" in topics else []
        if "ports" not in topics:
            return advice
        places = [
            Place(target.domain, address, target.port, target.direct)
            for it in looked
            for target in it.targets
            for address in target.addresses
        ]
        domain = config.server.domains[0]
        is_real = bool(config.tls.certificates)
        places += [
            Place(domain, _to_knock(one.address), one.port, one.tls == "direct", is_real)
            for one in listeners
            if one.port
        ]
        trust = await asyncio.to_thread(_trusted)
        knocks = (knock(place, trust) for place in dict.fromkeys(places[:MOST_KNOCKS]))
        return [*advice, *await asyncio.gather(*knocks)]


def _row(advice: Advice) -> dict[str, Any]:
    level, about, found, do = advice
    return {"level": level, "about": about, "found": found, "advice": do or None}


def _to_knock(address: str) -> str:
    """Where to find a listener that is at all addresses."""
    if address not in EVERYWHERE:
        return address
    return "::1" if ":" in address else "127.0.0.1"


def _trusted() -> ssl.SSLContext:
    """Whom the system trusts, as clients do."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["xmpp-client"])
    return context


def _names() -> Any:
    """What asks the DNS, which is seldom needed."""
    return importlib.import_module("xmppd.doctor.names")


def _resolver(text: str) -> Names:
    try:
        server, port = address_of(text, 53) if text else ("", 0)
        if server:
            ip_address(server)
    except ValueError:
        message = f"resolver must be an IP address, or one with a port: not {text}"
        raise CommandError(message, USAGE, field="resolver") from None
    dns: Names = _names().Dns(server, port)
    return dns
