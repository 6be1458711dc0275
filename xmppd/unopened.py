"""The commands about tables, on a store that is not open, while no server runs."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import AsyncIterator, Sequence

from xmppd.access.audit import AUDIT_LOG, Afterwards
from xmppd.admin.builtin import StoreCommands
from xmppd.admin.commands import commands_of
from xmppd.admin.registry import Commands
from xmppd.config import Config
from xmppd.engines import prepare_store, store_of
from xmppd.offices import StoreOffice
from xmppd.store.table import Store
from xmppd.tables import TABLES, tables_of


class StoreAlone:
    """The commands of a store that is not open; only one of them makes anything."""

    def __init__(self, store: Store, config: Config, *, create: bool) -> None:
        office = StoreOffice(store, lambda: tables_of(config))
        self._migrate = office.migrate
        self.info, self.missing = office.info, office.missing
        self._prepare = functools.partial(prepare_store, config, store, TABLES, create=create)
        self.commands = Commands(commands_of(StoreCommands(self)))
        ready = functools.partial(store.open, [AUDIT_LOG])
        self.commands.witness = Afterwards(store, ready, time.time, config.audit.days)

    async def migrate(self) -> Sequence[str]:
        """Make what is missing in a store that is there, or may be made."""
        await self._prepare()
        return await self._migrate()


@contextlib.asynccontextmanager
async def parts(config: Config, *, create: bool) -> AsyncIterator[StoreAlone]:
    """The store of the configuration, not opened, for commands about its tables."""
    store = store_of(config)
    try:
        yield StoreAlone(store, config, create=create)
    finally:
        await store.close()
