"""Commands on the store alone, while no server runs."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from xmppd import log as logs
from xmppd.admin.builtin import StoreCommands
from xmppd.admin.commands import UNAVAILABLE, Commands, commands_of
from xmppd.app import App
from xmppd.checks import refuse_store
from xmppd.config import Config
from xmppd.engines import TABLES, prepare_folder, store_of, tables_of
from xmppd.errors import CommandError, ConfigError
from xmppd.offices import StoreOffice
from xmppd.section import changed
from xmppd.store.table import Store

log = logging.getLogger(__name__)


class Parts(Protocol):
    """The parts of a server that work on the store alone."""

    @property
    def commands(self) -> Commands: ...


class Offline:
    """The commands of the parts, one call at a time, for a caller that waits for each."""

    def __init__(self, commands: Commands, run: Callable[..., Any]) -> None:
        self._commands = commands
        self._run = run

    def call(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Run a command; its result, or CommandError."""
        return self._run(self._commands.call(name, arguments))

    def check(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Only look at the arguments, without secrets; CommandError."""
        self._run(self._commands.check(name, arguments))


class StoreAlone:
    """The commands of a store that is not open; only one of them makes anything."""

    def __init__(self, store: Store, config: Config, *, create: bool) -> None:
        office = StoreOffice(store, lambda: tables_of(config))
        self._migrate = office.migrate
        self.info, self.missing = office.info, office.missing
        self._prepare = functools.partial(prepare, config, store, create=create)
        self.commands = Commands(commands_of(StoreCommands(self)))

    async def migrate(self) -> Sequence[str]:
        """Make what is missing in a store that is there, or may be made."""
        await self._prepare()
        return await self._migrate()


@contextlib.contextmanager
def offline(config: Config, *, store_only: bool = False, create: bool = False) -> Iterator[Offline]:
    """The commands that need no server; with `store_only` those about the tables, on a store that is not
    opened. ConfigError for what it cannot work with; CommandError for a store that is not there yet, unless
    told to `create` it.
    """
    refuse_store(config)
    logs.configure(changed(config.log, level="warning"))
    with asyncio.Runner() as runner, contextlib.ExitStack() as undo:
        parts = with_store(config, create=create) if store_only else open_offline(config, create=create)
        yield Offline(_entered(parts, runner, undo).commands, runner.run)


def _entered(
    parts: AbstractAsyncContextManager[Parts], runner: asyncio.Runner, undo: contextlib.ExitStack
) -> Parts:
    entered = runner.run(parts.__aenter__())
    undo.callback(lambda: runner.run(parts.__aexit__(None, None, None)))
    return entered


@contextlib.asynccontextmanager
async def with_store(config: Config, *, create: bool) -> AsyncIterator[StoreAlone]:
    """The store of the configuration, not opened, for commands about its tables."""
    store = store_of(config)
    try:
        yield StoreAlone(store, config, create=create)
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def open_offline(config: Config, *, create: bool) -> AsyncIterator[App]:
    """The server without listeners, for commands while none is running; without plugins that cannot be
    loaded.
    """
    app = App(config)
    try:
        await prepare(config, app.store, create=create)
        try:
            await app.open()
        except (ConfigError, CommandError):  # of a plugin: the store raises others
            await load_what_works(app, config)
        yield app
    finally:
        await app.close()


async def prepare(config: Config, store: Store, *, create: bool) -> None:
    """Make the data folder for a store that is there, or may be made; else CommandError."""
    if create:
        prepare_folder(config)
        return
    if config.store.engine == "sqlite":
        is_there, what = config.store_path.exists(), f"database at {config.store_path.absolute()}"
    else:
        is_there = not any(thing.startswith("keyspace ") for thing in await store.missing(TABLES))
        what = f"keyspace {config.store.cassandra.keyspace} on Cassandra"
    if not is_there:
        raise CommandError(
            f"there is no {what} ({config.source.absolute()}), and no server of this configuration runs: "
            "--create makes an empty one",
            UNAVAILABLE,
        )
    prepare_folder(config)


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
