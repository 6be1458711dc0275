"""Service discovery (XEP-0030), with the contact addresses of the server (XEP-0128, XEP-0157)."""

from __future__ import annotations

from collections.abc import Iterable

from xmppd import ns
from xmppd.plugin import ACCOUNT, SERVER, SERVICE, Element, Plugin, Request, StanzaError, element, iq_get

INFO = f"{{{ns.DISCO_INFO}}}query"
ITEMS = f"{{{ns.DISCO_ITEMS}}}query"


class Disco(Plugin):
    """Says what the server is and can do, and answers for accounts to those who may see their presence."""

    @iq_get(INFO, SERVER)
    def server_info(self, request: Request) -> Element:
        """XEP-0030 3; there are no nodes here."""
        refuse_nodes(request)
        identity = {"category": "server", "type": "im", "name": self.server.name}
        return info(identity, self.server.features(SERVER), self._contacts())

    @iq_get(INFO, ACCOUNT)
    async def account_info(self, request: Request) -> Element:
        """XEP-0030 8: an account that may not be seen looks like one that does not exist."""
        if not await self.server.may_see(request.origin.account, request.target):
            raise StanzaError("service-unavailable")
        refuse_nodes(request)
        exists = await self.server.account_exists(request.target)
        identity = {"category": "account", "type": "registered" if exists else "anonymous"}
        return info(identity, self.server.features(ACCOUNT))

    @iq_get(INFO, SERVICE)
    def service_info(self, request: Request) -> Element:
        """XEP-0030 3, for the host of a service."""
        refuse_nodes(request)
        service = self.server.services[request.target]
        identity = {"category": service.category, "type": service.type, "name": service.title}
        return info(identity, sorted({*service.features, *self.server.features(SERVICE)}))

    @iq_get(ITEMS, SERVER)
    def server_items(self, request: Request) -> Element:
        """XEP-0030 4: the hosts of services."""
        refuse_nodes(request)
        hosts = self.server.services.below(request.target)
        items = (
            element(f"{{{ns.DISCO_ITEMS}}}item", {"jid": host, "name": service.title})
            for host, service in hosts
        )
        return element(ITEMS, None, *items)

    @iq_get(ITEMS, ACCOUNT)
    async def account_items(self, request: Request) -> Element:
        """The available resources; XEP-0030 8: nothing, not an error, for those who may not see them."""
        node = request.payload.get("node")
        query = element(ITEMS, {} if node is None else {"node": node})
        if await self.server.may_see(request.origin.account, request.target):
            refuse_nodes(request)
            available = [s for s in self.server.sessions(request.target) if s.presence is not None]
            query.extend(element(f"{{{ns.DISCO_ITEMS}}}item", {"jid": s.full}) for s in available)
        return query

    def _contacts(self) -> Element | None:
        """The form of XEP-0157 2.2, if there is anybody to turn to."""
        given = {f"{role}-addresses": uris for role, uris in self.server.contact_addresses.items() if uris}
        if not given:
            return None
        form_type = field("FORM_TYPE", [ns.CONTACT_INFO], type="hidden")
        fields = [field(name, uris) for name, uris in given.items()]
        return element(f"{{{ns.DATA_FORM}}}x", {"type": "result"}, form_type, *fields)


def info(identity: dict[str, str], features: Iterable[str], form: Element | None = None) -> Element:
    """A result of disco#info."""
    found = (element(f"{{{ns.DISCO_INFO}}}feature", {"var": feature}) for feature in features)
    return element(INFO, None, element(f"{{{ns.DISCO_INFO}}}identity", identity), *found, form)


def field(var: str, values: Iterable[str], **attrs: str) -> Element:
    """One field of a data form (XEP-0004 3.2)."""
    shown = (element(f"{{{ns.DATA_FORM}}}value", None, value) for value in values)
    return element(f"{{{ns.DATA_FORM}}}field", {"var": var, **attrs}, *shown)


def refuse_nodes(request: Request) -> None:
    """StanzaError item-not-found for a node, as there is none (XEP-0030 7)."""
    if "node" in request.payload.attrib:
        raise StanzaError("item-not-found")
