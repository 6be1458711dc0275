"""Accounts and the store as commands of operators want them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from xmppd.core.accounts import Accounts
from xmppd.server import Server
from xmppd.store.table import Store, Table


class AccountOffice:
    """Accounts as `user` commands want them: what they do reaches sessions and belongings too."""

    def __init__(self, accounts: Accounts, server: Server) -> None:
        self.create = accounts.create
        self.exists = server.account_exists
        self.set_password = accounts.set_password
        self.enable = accounts.enable
        self.disable = accounts.disable
        self.info = accounts.info
        self.list = accounts.list
        self.remove = server.remove_account


class StoreOffice:
    """The store as `store` commands want it. `tables` gives what has to be there."""

    def __init__(self, store: Store, tables: Callable[[], Sequence[Table]]) -> None:
        self.info = store.info
        self._store = store
        self._tables = tables

    async def missing(self) -> Sequence[str]:
        """What is declared and not there."""
        return await self._store.missing(self._tables())

    async def migrate(self) -> Sequence[str]:
        """Make what is missing."""
        return await self._store.migrate(self._tables())
