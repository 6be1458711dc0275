"""Last activity (XEP-0012): how long the server has been up, and how long ago an account logged out."""

from __future__ import annotations

from collections.abc import Sequence

from xmppd import hooks, ns
from xmppd.plugin import (
    ACCOUNT,
    Element,
    Person,
    Plugin,
    Request,
    Session,
    StanzaError,
    Table,
    element,
    gives,
    iq_get,
    offered,
    takes,
)

QUERY = f"{{{ns.LAST}}}query"


class Last(Plugin):
    """Notes when the last session of an account goes, and tells those who may see its presence."""

    logouts = Table(partition=("account",), columns={"at": "timestamp"}, person=Person("account"))

    async def start(self) -> None:
        """Nobody is about to leave."""
        self._leaving: dict[str, float] = {}

    @iq_get(QUERY)
    def uptime(self, request: Request) -> Element:
        """XEP-0012 5: seconds since the server was started."""
        return self._answer(self.server.started)

    @iq_get(QUERY, ACCOUNT)
    async def last(self, request: Request) -> Element:
        """XEP-0012 3: 0 for an account that is connected; forbidden to those who may not see its presence. To
        whom it looks offline it is gone since it began to.
        """
        account = request.target
        if not await self.server.may_see(request.origin.account, account):
            raise StanzaError("forbidden")
        since = await self.server.away_since(account, request.origin.account)
        if since is None and self.server.is_connected(account):
            return self._answer(self.now())
        if since:
            return self._answer(since)
        if since is None and account in self._leaving:
            return self._answer(self._leaving[account])
        row = await self.logouts.get(account) if since is None else None
        if row is None:
            raise StanzaError("item-not-found", "This account has never logged out.")
        return self._answer(row["at"])

    def _answer(self, since: float) -> Element:
        return element(QUERY, {"seconds": str(max(0, int(self.now() - since)))})

    @hooks.session_closed
    async def note(self, session: Session) -> None:
        """Anonymous accounts, and one whose removal closed this session, leave nothing behind. Each node
        keeps when it lost the last one it had: that counts while no node has any.
        """
        account, at = session.account, self.now()
        if session.is_anonymous or self.server.sessions(account):
            return
        self._leaving[account] = at  # friends may ask before the row is written
        try:
            async with self.server.writing(account, session) as exists:
                if exists:
                    await self.logouts.put({"account": account, "at": at})
        finally:
            self._leaving.pop(account, None)

    @offered
    async def logouts_of(self, accounts: Sequence[str]) -> dict[str, float]:
        """When those of some accounts logged out last who ever did, in seconds since the epoch: for who knows
        that they are away, and who may know that.
        """
        stored = zip(accounts, await self.give(accounts), strict=True)
        return {account: at for account, at in stored if at is not None} | {
            account: self._leaving[account] for account in accounts if account in self._leaving
        }

    @gives("last", many=True)
    async def give(self, accounts: Sequence[str]) -> list[float | None]:
        """When each logged out last, in seconds since the epoch."""
        rows = await self.logouts.get_many(accounts)
        return [None if row is None else row["at"] for row in rows]

    @takes("last")
    async def take(self, account: str, at: float | None) -> None:
        """A logout of before it came here."""
        if at is None:
            await self.logouts.delete(account)
        else:
            await self.logouts.put({"account": account, "at": at})

    @hooks.account_removed
    async def forget(self, account: str) -> None:
        """Whoever takes the name next starts anew."""
        await self.logouts.delete(account)
