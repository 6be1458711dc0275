"""vCards (XEP-0054, vcard-temp): everybody may read them, their owner may write them."""

from __future__ import annotations

from collections.abc import Sequence

from xmppd import hooks, ns
from xmppd.plugin import (
    ACCOUNT,
    SERVER,
    Person,
    Plugin,
    PluginConfig,
    PositiveInt,
    Request,
    Session,
    StanzaError,
    Table,
    gives,
    iq_get,
    iq_set,
    serialize,
    takes,
)

VCARD = f"{{{ns.VCARD}}}vCard"


class VCardConfig(PluginConfig):
    """`max_bytes` bounds one vCard with its photo, as XML."""

    max_bytes: PositiveInt = 131_072


class VCard(Plugin):
    """Keeps one vCard for each account, as the bytes that its owner sent."""

    Config = VCardConfig
    cards = Table(partition=("account",), columns={"card": "blob"}, person=Person("account"))

    @iq_get(VCARD, ACCOUNT)
    async def show(self, request: Request) -> bytes:
        """XEP-0054 3.1, 3.3. To others an account without a vCard looks like one that does not exist."""
        row = await self.cards.get(request.target)
        if row is None:
            raise StanzaError("item-not-found" if request.is_own else "service-unavailable")
        card: bytes = row["card"]
        return card

    @iq_set(VCARD, ACCOUNT, SERVER)
    async def change(self, request: Request) -> None:
        """XEP-0054 3.2: the whole vCard is replaced; an empty one deletes it."""
        if not request.is_own:
            raise StanzaError("forbidden", "A vCard is changed by its owner.")
        account = request.target
        card = serialize(request.payload)
        if len(card) > self.config.max_bytes:
            raise StanzaError("policy-violation", f"A vCard has at most {self.config.max_bytes} bytes.")
        session = request.origin if isinstance(request.origin, Session) else None
        async with self.server.writing(account, session) as exists:
            if not exists:
                raise StanzaError("not-allowed", "An anonymous session has no vCard.")
            if len(request.payload) == 0:
                await self.cards.delete(account)
            else:
                await self.cards.put({"account": account, "card": card})

    @gives("vcard", many=True)
    async def give(self, accounts: Sequence[str]) -> list[str | None]:
        """The vCard of each as text."""
        rows = await self.cards.get_many(accounts)
        return [None if row is None else row["card"].decode() for row in rows]

    @takes("vcard")
    async def take(self, account: str, card: str | None) -> None:
        """One that comes with its account."""
        if card is None:
            await self.cards.delete(account)
        else:
            await self.cards.put({"account": account, "card": card.encode()})

    @hooks.account_removed
    async def forget(self, account: str) -> None:
        """A vCard goes with its account."""
        await self.cards.delete(account)
