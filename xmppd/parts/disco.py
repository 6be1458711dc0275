"""What a plugin declares for service discovery."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from xmppd.core.disco import Declared, DiscoIdentity, Tell
from xmppd.core.iqs import Address
from xmppd.marks import mark, marked

Method = TypeVar("Method", bound=Callable[..., Any])
T = TypeVar("T")

ByAddress = Sequence[T] | Mapping[Address, Sequence[T]]
"""For the domains of the server, or for each kind of address."""


@dataclass(frozen=True, slots=True)
class Tells:
    """One use of a method: for info, or for items, at an address and a node."""

    is_info: bool
    at: Address
    node: str | None


def disco_info(*at: Address, node: str | None = "") -> Callable[[Method], Method]:
    """Marks the method, plain or async, that takes a Request and returns a DiscoInfo: more about the
    addresses `at` (the server without any), or about a node of them.

    A method for all nodes (None) returns None for those that it does not know.
    """
    return _tells(True, at, node)


def disco_items(*at: Address, node: str | None = "") -> Callable[[Method], Method]:
    """The same for a method that returns DiscoItems: what belongs to the addresses, or to a node of them."""
    return _tells(False, at, node)


def _tells(is_info: bool, at: tuple[Address, ...], node: str | None) -> Callable[[Method], Method]:
    def tells(method: Method) -> Method:
        for address in at or (Address.SERVER,):
            mark(method, Tells(is_info, address, node))
        return method

    return tells


def declared_by(plugins: Iterable[Any]) -> Declared:
    """What all of them declare, in their order."""
    identities: dict[Address, list[DiscoIdentity]] = defaultdict(list)
    features: dict[Address, list[str]] = defaultdict(list)
    infos: dict[tuple[Address, str | None], list[Tell]] = defaultdict(list)
    items: dict[tuple[Address, str | None], list[Tell]] = defaultdict(list)
    for plugin in plugins:
        for at, given in by_address(plugin.identities).items():
            identities[at].extend(given)
        for at, names in by_address(plugin.features).items():
            features[at].extend(names)
        for method, tells in marked(plugin, Tells):
            (infos if tells.is_info else items)[tells.at, tells.node].append(method)
    return Declared(dict(identities), dict(features), dict(infos), dict(items))


def by_address(values: ByAddress[T]) -> Mapping[Address, Sequence[T]]:
    """What is declared for each kind of address."""
    return values if isinstance(values, Mapping) else {Address.SERVER: values}
