"""The tables of a server: those of the core, and with those of plugins."""

from __future__ import annotations

from xmppd.access.audit import AUDIT_LOG
from xmppd.access.replays import API_REPLAYS
from xmppd.access.tokens import API_TOKENS
from xmppd.config import Config
from xmppd.core import accounts as account_tables
from xmppd.core.arrival import ARRIVALS
from xmppd.core.blocks import BLOCKS
from xmppd.core.ids import NODE_CLOCK
from xmppd.core.lastseen import LAST_PRESENCE
from xmppd.core.moved import MOVED
from xmppd.core.roster.rosters import ROSTER
from xmppd.core.tokens import TOKENS
from xmppd.errors import CommandError
from xmppd.finding import find_plugin
from xmppd.rules import plugin_folders
from xmppd.store.table import Table

TABLES = (
    *account_tables.TABLES,
    ROSTER,
    LAST_PRESENCE,
    BLOCKS,
    ARRIVALS,
    NODE_CLOCK,
    TOKENS,
    API_TOKENS,
    AUDIT_LOG,
    MOVED,
    API_REPLAYS,
)


def tables_of(*configs: Config) -> list[Table]:
    """The tables of the core, and of all plugins that any of the configurations loads; ConfigError,
    CommandError.
    """
    found = {table.name: table for table in TABLES}
    for config in configs:
        for name in config.plugins.enabled:
            plugin_class, _ = find_plugin(name, plugin_folders(config), config)
            for table in plugin_class.tables(name):
                if found.setdefault(table.name, table) != table:
                    raise CommandError(f"the configurations have different plugins named {name!r}")
    return list(found.values())
