"""Service discovery (XEP-0030), with the contact addresses of the server (XEP-0128, XEP-0157)."""

from __future__ import annotations

from xmppd import ns
from xmppd.plugin import (
    ACCOUNT,
    SERVER,
    SERVICE,
    DiscoIdentity,
    DiscoInfo,
    DiscoItem,
    Element,
    Plugin,
    Request,
    StanzaError,
    disco_info,
    disco_items,
    element,
    form,
    iq_get,
)

INFO = f"{{{ns.DISCO_INFO}}}query"
ITEMS = f"{{{ns.DISCO_ITEMS}}}query"


class Disco(Plugin):
    """Answers with what all plugins declare; of accounts only to those who may see their presence."""

    @iq_get(INFO, SERVER, SERVICE)
    async def info(self, request: Request) -> Element:
        """XEP-0030 3."""
        return await self.server.disco.info(request)

    @iq_get(INFO, ACCOUNT)
    async def account_info(self, request: Request) -> Element:
        """XEP-0030 8: an account that may not be seen looks like one that does not exist."""
        if not await self.server.may_see(request.origin.account, request.target):
            raise StanzaError("service-unavailable")
        return await self.server.disco.info(request)

    @iq_get(ITEMS, SERVER, SERVICE)
    async def items(self, request: Request) -> Element:
        """XEP-0030 4."""
        return await self.server.disco.items(request)

    @iq_get(ITEMS, ACCOUNT)
    async def account_items(self, request: Request) -> Element:
        """XEP-0030 8: nothing, not an error, for those who may not see them."""
        if await self.server.may_see(request.origin.account, request.target):
            return await self.server.disco.items(request)
        node = request.payload.get("node")
        return element(ITEMS, {} if node is None else {"node": node})

    # what nobody else declares

    @disco_info(SERVER)
    def server_itself(self, request: Request) -> DiscoInfo:
        """Its name, and whom to turn to (XEP-0157 2.2)."""
        given = {f"{role}-addresses": uris for role, uris in self.server.contact_addresses.items() if uris}
        forms = (form(ns.CONTACT_INFO, given),) if given else ()
        return DiscoInfo((DiscoIdentity("server", "im", self.server.name),), forms=forms)

    @disco_info(ACCOUNT)
    async def account_itself(self, request: Request) -> DiscoInfo:
        """Whether it is one that lasts."""
        exists = await self.server.account_exists(request.target)
        return DiscoInfo((DiscoIdentity("account", "registered" if exists else "anonymous"),))

    @disco_items(SERVER)
    def hosts(self, request: Request) -> list[DiscoItem]:
        """The hosts of services."""
        found = self.server.services.below(request.target)
        return [DiscoItem(host, service.title) for host, service in found]

    @disco_items(ACCOUNT)
    def resources(self, request: Request) -> list[DiscoItem]:
        """Those that are available, and look so."""
        if self.server.appears_offline(request.target, request.origin.account):
            return []
        return [DiscoItem(target.full) for target in self.server.locate(request.target)]
