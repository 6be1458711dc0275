"""Accounts and rosters without a server around them, for commands that only look while none is running.

It takes half of what the whole server would to load, and no plugin has a part in these commands.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from xmppd.admin.builtin import LOOKS, UserCommands
from xmppd.admin.commands import commands_of
from xmppd.admin.registry import Commands
from xmppd.admin.rosters import RosterCommands
from xmppd.config import Config
from xmppd.core.accounts import TABLES, Accounts
from xmppd.core.roster.rosters import ROSTER, Rosters
from xmppd.core.roster.view import RosterView
from xmppd.engines import prepare_store, store_of


class Looking:
    """The commands that only look."""

    def __init__(self, accounts: Accounts, view: RosterView, config: Config) -> None:
        offices: tuple[Any, Any] = (accounts, view)  # who looks needs no more of them
        users, rosters = UserCommands(offices[0], config.server.domains), RosterCommands(offices[1])
        found = [*commands_of(users), *commands_of(rosters)]
        self.commands = Commands([command for command in found if command.name in LOOKS])


@contextlib.asynccontextmanager
async def parts(config: Config, *, create: bool) -> AsyncIterator[Looking]:
    """What is in the store of the configuration, past all caches."""
    store = store_of(config)
    accounts = Accounts(store)
    try:
        tables = (*TABLES, ROSTER)
        await prepare_store(config, store, tables, create=create)
        await store.open(tables)
        yield Looking(accounts, RosterView(Rosters(store), accounts), config)
    finally:
        accounts.close()
        await store.close()
