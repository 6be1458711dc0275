"""Privacy lists (XEP-0016) for old clients, as another way to the block list: there is one list, `blocklist`,
each of whose items denies one address everything. It is the default list (XEP-0191 4), and nobody is without
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from xmppd import hooks, ns
from xmppd.plugin import (
    SELF,
    BlockChange,
    Element,
    Jid,
    JidError,
    Plugin,
    Request,
    Session,
    SessionSlot,
    StanzaError,
    element,
    iq_get,
    iq_set,
    serialize,
)

NAME: Final = "blocklist"
IQ: Final = f"{{{ns.CLIENT}}}iq"
QUERY: Final = f"{{{ns.PRIVACY}}}query"
LIST: Final = f"{{{ns.PRIVACY}}}list"
ITEM: Final = f"{{{ns.PRIVACY}}}item"
ACTIVE: Final = f"{{{ns.PRIVACY}}}active"
DEFAULT: Final = f"{{{ns.PRIVACY}}}default"
KINDS: Final = frozenset(
    f"{{{ns.PRIVACY}}}{kind}" for kind in ("message", "presence-in", "presence-out", "iq")
)
MOST_ORDER: Final = 2**32 - 1


class Privacy(Plugin):
    """Reads and replaces the block list of an account as a privacy list. Lists that say anything else than
    whom to deny everything are refused.
    """

    features = (ns.PRIVACY,)
    is_active = SessionSlot(False)
    uses_lists = SessionSlot(False)

    async def start(self) -> None:
        """Nothing was pushed yet."""
        self._pushes = 0

    @iq_get(QUERY, SELF)
    async def show(self, request: Request) -> Element:
        """XEP-0016 2.3: the name of the list, or what is in it. A list of nobody is none. Some ask for the
        active or the default one as they would set it.
        """
        session = request.session
        self.uses_lists[session] = True
        asked = list(request.payload)
        if len(asked) > 1 or (asked and asked[0].tag not in (ACTIVE, DEFAULT, LIST)):
            raise StanzaError("bad-request", "Ask for one list.")
        addresses = await self.server.blocks.of(session.account)
        if asked and asked[0].tag == LIST:
            if asked[0].get("name") != NAME or not addresses:
                raise StanzaError("item-not-found")
            return element(QUERY, None, element(LIST, {"name": NAME}, *items_of(addresses)))
        if not addresses:
            return element(QUERY)
        named = [ACTIVE] if self.is_active[session] else []
        return element(QUERY, None, *(element(tag, {"name": NAME}) for tag in (*named, DEFAULT, LIST)))

    @iq_set(QUERY, SELF)
    async def change(self, request: Request) -> None:
        """XEP-0016 2.4 to 2.8: one list is made active or default, replaced, or removed."""
        asked = list(request.payload)
        if len(asked) != 1 or asked[0].tag not in (ACTIVE, DEFAULT, LIST):
            raise StanzaError("bad-request", "Change one thing at a time.")
        self.uses_lists[request.session] = True
        if asked[0].tag == LIST:
            await self._replace(request, asked[0])
        else:
            await self._choose(request, asked[0])

    async def _choose(self, request: Request, choice: Element) -> None:
        """The list is the default one for as long as there is one, so what a client may choose is to have it
        active as well.
        """
        session, name = request.session, choice.get("name")
        if name is None:
            if choice.tag == DEFAULT and await self.server.blocks.of(session.account):
                raise StanzaError("feature-not-implemented", "To block nobody, remove the list.")
            self.is_active[session] = False
        elif name != NAME or not await self.server.blocks.of(session.account):
            raise StanzaError("item-not-found")
        elif choice.tag == ACTIVE:
            self.is_active[session] = True

    async def _replace(self, request: Request, wanted: Element) -> None:
        session, blocks = request.session, self.server.blocks
        if wanted.get("name") != NAME:
            is_removal = len(wanted) == 0
            raise StanzaError(
                "item-not-found" if is_removal else "feature-not-implemented",
                "" if is_removal else f"There is one list, {NAME}.",
            )
        addresses = blocked_by(wanted)
        async with self.server.writing(session.account, session) as exists:
            if not exists:
                raise StanzaError("not-allowed", "An anonymous session keeps no list.")
            if len(wanted) == 0:
                if not await blocks.of(session.account):
                    raise StanzaError("item-not-found")
                if any(other.full != session.full for other in self._others(session)):
                    raise StanzaError("conflict", "The list applies to another client.")
            await blocks.replace(session.account, addresses)

    def _others(self, session: Session) -> Sequence[Any]:
        """The sessions of an account to which its default list applies."""
        return (*self.server.sessions(session.account), *self.server.locate(session.account))

    @hooks.blocks_changed
    def push(self, account: str, change: BlockChange) -> None:
        """Tell the sessions that use privacy lists that theirs is another one (XEP-0016 2.2)."""
        for session in self.server.sessions(account):
            if self.uses_lists[session]:
                self._pushes += 1
                attrs = {"type": "set", "id": f"privacy{self._pushes}", "to": session.full}
                payload = element(QUERY, None, element(LIST, {"name": NAME}))
                session.send(serialize(element(IQ, attrs, payload)))


def items_of(addresses: Sequence[str]) -> list[Element]:
    """The items of a list that denies these everything."""
    return [
        element(ITEM, {"type": "jid", "value": address, "action": "deny", "order": str(order)})
        for order, address in enumerate(addresses, 1)
    ]


def blocked_by(wanted: Element) -> list[str]:
    """The addresses that a list denies everything. Behind its items one may allow everybody everything: that
    is so without it. StanzaError feature-not-implemented for a list that says anything else.
    """
    items: dict[int, Element] = {}
    for item in wanted:
        order = item.get("order", "")
        is_number = item.tag == ITEM and order.isascii() and order.isdigit() and len(order) <= 10
        if not is_number or int(order) > MOST_ORDER or int(order) in items:
            raise StanzaError("bad-request", "Each item has an order of its own.")
        if item.get("action") not in ("allow", "deny"):
            raise StanzaError("bad-request", "An item allows or denies.")
        items[int(order)] = item
    addresses: dict[str, None] = {}
    in_order = [items[order] for order in sorted(items)]
    for number, item in enumerate(in_order):
        if number == len(in_order) - 1 and is_open(item):
            break
        if item.get("action") != "deny" or item.get("type") != "jid" or not is_whole(item):
            raise StanzaError("feature-not-implemented", "An item denies an address everything.")
        try:
            addresses[Jid.parse(item.get("value", "")).full] = None
        except JidError as error:
            raise StanzaError("jid-malformed", str(error)) from None
    return list(addresses)


def is_whole(item: Element) -> bool:
    """Whether it is about all kinds of stanzas."""
    return len(item) == 0 or {child.tag for child in item} == KINDS


def is_open(item: Element) -> bool:
    """Whether it allows everybody everything."""
    return item.get("action") == "allow" and item.get("type") is None and is_whole(item)
