"""What the addresses of this server are and can do (XEP-0030, XEP-0128), as it was declared."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import Element

from xmppd import ns
from xmppd.core.iqs import Address, Iqs, Request
from xmppd.core.services import Services
from xmppd.errors import StanzaError
from xmppd.xml.build import element

INFO, ITEMS = f"{{{ns.DISCO_INFO}}}query", f"{{{ns.DISCO_ITEMS}}}query"
STREAM_FEATURES = frozenset((ns.BIND, ns.SESSION))
"""Answered as iqs, but offered by the stream and not by service discovery."""
LISTED = (Address.SERVER, Address.ACCOUNT, Address.SERVICE)


@dataclass(frozen=True, slots=True)
class DiscoIdentity:
    """What something is (XEP-0030 3.1): a category and type of the registry, and a name for people."""

    category: str
    type: str
    name: str = ""

    def xml(self) -> Element:
        """The <identity/>."""
        name = {"name": self.name} if self.name else {}
        return element(f"{{{ns.DISCO_INFO}}}identity", {"category": self.category, "type": self.type, **name})


@dataclass(frozen=True, slots=True)
class DiscoInfo:
    """What an address, or a node of it, is and can do; `forms` are of XEP-0128."""

    identities: tuple[DiscoIdentity, ...] = ()
    features: tuple[str, ...] = ()
    forms: tuple[Element, ...] = ()

    def xml(self, node: str = "") -> Element:
        """The payload of a result of disco#info."""
        identities = (identity.xml() for identity in dict.fromkeys(self.identities))
        features = (
            element(f"{{{ns.DISCO_INFO}}}feature", {"var": name}) for name in sorted(set(self.features))
        )
        return element(INFO, {"node": node} if node else None, *identities, *features, *self.forms)


@dataclass(frozen=True, slots=True)
class DiscoItem:
    """One thing that belongs to an address (XEP-0030 4)."""

    jid: str
    name: str = ""
    node: str = ""

    def xml(self) -> Element:
        """The <item/>."""
        named = {key: value for key, value in (("node", self.node), ("name", self.name)) if value}
        return element(f"{{{ns.DISCO_ITEMS}}}item", {"jid": self.jid, **named})


Tell = Callable[[Request], Any]
"""What an info method or items method is: for a request, or None when the node is not its own."""


@dataclass(frozen=True, slots=True)
class Declared:
    """What all plugins declare: identities and features by address, methods by address and node.

    A node of None stands for all nodes; no node is "".
    """

    identities: Mapping[Address, Sequence[DiscoIdentity]] = field(default_factory=dict)
    features: Mapping[Address, Sequence[str]] = field(default_factory=dict)
    infos: Mapping[tuple[Address, str | None], Sequence[Tell]] = field(default_factory=dict)
    items: Mapping[tuple[Address, str | None], Sequence[Tell]] = field(default_factory=dict)


class Disco:
    """Answers for the domains, the accounts, and the hosts of services."""

    def __init__(self, iqs: Iqs, services: Services) -> None:
        self._iqs = iqs
        self._services = services
        self._declared = Declared()

    def compile(self, declared: Declared) -> None:
        """Replace what is declared."""
        self._declared = declared

    async def info(self, request: Request) -> Element:
        """XEP-0030 3: what the address of a request, or the node that it names, is and can do; StanzaError
        item-not-found for a node that nobody knows.
        """
        at, node = self._address(request.target), request.payload.get("node", "")
        told = [each async for each in self._told(self._declared.infos, at, node, request)]
        if node and not told:
            raise StanzaError("item-not-found")
        if not node:
            told.insert(0, self._own(at, request.target))
        identities = tuple(identity for each in told for identity in each.identities)
        features = tuple(feature for each in told for feature in each.features)
        return DiscoInfo(identities, features, tuple(form for each in told for form in each.forms)).xml(node)

    async def items(self, request: Request) -> Element:
        """XEP-0030 4: what belongs to the address of a request or to its node, in the same way."""
        at, node = self._address(request.target), request.payload.get("node", "")
        told = [each async for each in self._told(self._declared.items, at, node, request)]
        if node and not told:
            raise StanzaError("item-not-found")
        items = (item.xml() for each in told for item in each)
        return element(ITEMS, {"node": node} if node else None, *items)

    def features(self, at: Address) -> list[str]:
        """The namespaces of the iq handlers of an address, and those declared for it."""
        asked = (at, Address.SELF) if at is Address.ACCOUNT else (at,)
        found = {payload[1:].partition("}")[0] for where, _, payload in self._iqs.keys if where in asked}
        return sorted(found.union(self._declared.features.get(at, ())) - STREAM_FEATURES)

    def _address(self, target: str) -> Address:
        if "@" in target:
            return Address.ACCOUNT
        return Address.SERVICE if target in self._services else Address.SERVER

    def _own(self, at: Address, target: str) -> DiscoInfo:
        identities, features = tuple(self._declared.identities.get(at, ())), self.features(at)
        if at is not Address.SERVICE:
            return DiscoInfo(identities, tuple(features))
        service = self._services[target]
        itself = DiscoIdentity(service.category, service.type, service.title)
        return DiscoInfo((itself, *identities), (*features, *service.features))

    @staticmethod
    async def _told(
        methods: Mapping[tuple[Address, str | None], Sequence[Tell]],
        at: Address,
        node: str,
        request: Request,
    ) -> Any:
        """What each method for the address and node says, but None."""
        keys = ((at, node), (at, None)) if node else ((at, ""),)
        for tell in (tell for key in keys for tell in methods.get(key, ())):
            said = tell(request)
            if isinstance(said, Awaitable):
                said = await said
            if said is not None:
                yield said


def form(kind: str, fields: Mapping[str, Iterable[str]]) -> Element:
    """A form of results (XEP-0004, XEP-0068): `kind` is its FORM_TYPE, then each field with its values."""
    shown = [_field("FORM_TYPE", (kind,), type="hidden"), *(_field(name, fields[name]) for name in fields)]
    return element(f"{{{ns.DATA_FORM}}}x", {"type": "result"}, *shown)


def _field(var: str, values: Iterable[str], **attrs: str) -> Element:
    shown = (element(f"{{{ns.DATA_FORM}}}value", None, value) for value in values)
    return element(f"{{{ns.DATA_FORM}}}field", {"var": var, **attrs}, *shown)
