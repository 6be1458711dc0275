"""The whole server without listeners, for commands that change something while none is running."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator

from xmppd.app import App
from xmppd.config import Config
from xmppd.engines import prepare_store
from xmppd.errors import CommandError, ConfigError
from xmppd.section import changed
from xmppd.tables import TABLES

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def parts(config: Config, *, create: bool) -> AsyncIterator[App]:
    """The server, opened, without plugins that cannot be loaded."""
    app = App(config)
    try:
        await prepare_store(config, app.store, TABLES, create=create)
        try:
            await app.open()
        except (ConfigError, CommandError):  # of a plugin: the store raises others
            await load_what_works(app, config)
        yield app
    finally:
        await app.close()


async def load_what_works(app: App, config: Config) -> None:
    """Load the plugins that can be loaded, one more each time; say which cannot."""
    working: list[str] = []
    for name in config.plugins.enabled:
        plugins = changed(config.plugins, enabled=(*working, name))
        try:
            await app.loader.load(changed(config, plugins=plugins))
            working.append(name)
        except (ConfigError, CommandError) as error:
            log.warning("plugin-not-loaded", extra={"plugin": name, "problem": str(error)})
