"""Methods that answer for a host of their own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from xmppd.core.iqs import Iqs
from xmppd.core.services import Service
from xmppd.marks import mark, marked

Method = TypeVar("Method", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Serves:
    """What `service` says of a method."""

    name: str
    category: str
    type: str
    title: str
    features: tuple[str, ...]


def service(
    name: str,
    *,
    category: str = "component",
    type: str = "generic",
    title: str = "",
    features: tuple[str, ...] = (),
) -> Callable[[Method], Method]:
    """Marks the method that answers for a host of its own, `name` below each served domain (`plugins.hosts`
    of the configuration may give it another label); shown by service discovery as this identity.

    It takes (origin, stanza, to): stanzas of every kind for any JID of the host, which come from `origin`.
    What it returns for an iq get or set is the payload of the result; StanzaError refuses; it may be `async`.
    """
    return lambda method: mark(method, Serves(name, category, type, title, features))


def hosts_of(
    plugins: Iterable[object], labels: Mapping[str, str], domains: Collection[str], iqs: Iqs
) -> dict[str, Service]:
    """The hosts that plugins answer for."""
    found: dict[str, Service] = {}
    for plugin in plugins:
        for method, serves in marked(plugin, Serves):
            label = labels.get(serves.name, serves.name)
            offered = Service(
                iqs.for_host(method), serves.category, serves.type, serves.title, serves.features
            )
            found |= {f"{label}.{domain}": offered for domain in domains}
    return found
