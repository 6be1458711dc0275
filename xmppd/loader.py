"""Binds plugins to a server, and reloads them while sessions stay connected."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from xmppd.admin.commands import Command, clashes, commands_of
from xmppd.admin.registry import Commands
from xmppd.claims import Claims
from xmppd.config import Config
from xmppd.core.iqs import Handler, HandlerKey, Iqs
from xmppd.errors import CommandError, ConfigError
from xmppd.finding import Source, plugin_modules, put_back, source_of
from xmppd.hooks import Hooks
from xmppd.parts.disco import declared_by
from xmppd.parts.events import checks_of, kinds_of, listeners_of
from xmppd.parts.nodes import signals_of
from xmppd.parts.offers import missing
from xmppd.parts.services import hosts_of
from xmppd.parts.timers import begin_timers, timed_methods_of
from xmppd.plugin import Plugin, PluginConfig, handlers_of
from xmppd.server import Server
from xmppd.validation import did_you_mean

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """One plugin at work: where it came from, and what it was told."""

    name: str
    plugin: Plugin
    source: Source
    settings: PluginConfig
    commands: tuple[Command, ...]

    @property
    def origin(self) -> str:
        """Its file, or its entry point."""
        return self.source.origin

    def is_still(self, source: Source, config: Config) -> bool:
        """Whether loading it from there with this configuration would bring the same; ConfigError."""
        same = (self.origin, self.source.version) == (source.origin, source.version)
        return same and config.plugin(self.name, type(self.plugin).Config) == self.settings


class Loader:
    """The plugins of one server, in the order of the configuration.

    `core_handlers` answer iqs that are not a plugin's matter. `on_change` is called whenever the set of
    plugins changed, with all of them; `prepare` before, which may wait, and refuse. `changing` is held by
    whoever has plugins loaded, or takes over anything else of a configuration.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        *,
        server: Server,
        hooks: Hooks,
        iqs: Iqs,
        commands: Commands,
        core_handlers: Iterable[tuple[HandlerKey, Handler]],
        prepare: Callable[[Sequence[Plugin]], Awaitable[None]],
        on_change: Callable[[Sequence[Plugin]], None],
    ) -> None:
        self._folders = tuple(folders)
        self._server = server
        self._hooks = hooks
        self._iqs = iqs
        self._commands = commands
        self._core_handlers = tuple(core_handlers)
        self._prepare = prepare
        self._on_change = on_change
        self._labels: Mapping[str, str] = {}
        self._loaded: dict[str, Loaded] = {}
        self.changing = asyncio.Lock()

    @property
    def loaded(self) -> Sequence[Loaded]:
        """All plugins at work."""
        return tuple(self._loaded.values())

    def set_folders(self, folders: Sequence[Path]) -> None:
        """Look for plugins elsewhere from now on, the first folder first."""
        self._folders = tuple(folders)

    async def load(self, config: Config) -> list[str]:
        """Load the plugins that the configuration names and unload the others; the names of those that were
        loaded anew, because they are new, their files or what they are told has changed.

        All or nothing: on ConfigError or CommandError the old ones stay at work.
        """
        with self._all_or_nothing():
            after = {name: self._load(name, config) for name in config.plugins.enabled}
            fresh = [name for name, loaded in after.items() if self._loaded.get(name) is not loaded]
            self._labels = config.plugins.hosts
            await self._replace(after)
        return fresh

    async def reload(self, name: str, config: Config) -> list[str]:
        """Load one plugin again from its file; CommandError when it is not at work or cannot be loaded."""
        if name not in self._loaded:
            raise CommandError(f"the plugin {name!r} is not loaded{did_you_mean(name, self._loaded)}")
        with self._all_or_nothing():
            fresh = self._make(name, source_of(name, self._folders, config), config)
            await self._replace({**self._loaded, name: fresh})
        return [name]

    async def close(self) -> None:
        """Stop all plugins, the last one first."""
        gone, self._loaded = self.loaded, {}
        self._compile({})
        await self._stop(gone)

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Put modules, metrics and labels back when new plugins could not be loaded."""
        metrics, labels = dict(self._server.metrics), self._labels
        modules = plugin_modules()
        try:
            yield
        except BaseException:
            put_back(modules)
            self._server.metrics.clear()
            self._server.metrics.update(metrics)
            self._labels = labels
            raise

    # one plugin

    def _load(self, name: str, config: Config) -> Loaded:
        """The plugin as it is at work, or a new one when that would be another."""
        source = source_of(name, self._folders, config)
        old = self._loaded.get(name)
        if old is not None and old.is_still(source, config):
            return old
        return self._make(name, source, config)

    def _make(self, name: str, source: Source, config: Config) -> Loaded:
        """Import the plugin's file again and bind its class to the server."""
        plugin_class = source.load()
        try:
            settings = config.plugin(name, plugin_class.Config)
            plugin = plugin_class(name, self._server, settings)
            timed_methods_of(plugin)
            return Loaded(name, plugin, source, settings, tuple(commands_of(plugin, name)))
        except ConfigError:
            raise
        except Exception as error:
            raise CommandError(f"{source.origin}: {type(error).__name__}: {error}") from error

    async def _replace(self, after: dict[str, Loaded]) -> None:
        """Start what is new, let it take the place of what goes, and only then stop that."""
        before = self._loaded
        fresh = [new for name, new in after.items() if before.get(name) is not new]
        gone = [old for name, old in before.items() if after.get(name) is not old]
        for name, loaded in after.items():
            for problem in missing(type(loaded.plugin), name, after):
                raise CommandError(problem)
        self._check_commands(fresh, gone)
        claims = Claims(self._core_handlers, self._labels, self._server.domains)
        for loaded in after.values():
            claims.add(loaded.plugin, loaded.origin)
        await self._start(fresh)
        try:
            await self._prepare([loaded.plugin for loaded in after.values()])
            self._compile(after)
        except Exception as error:
            self._compile(before)
            await self._stop(fresh)
            raise CommandError(f"the plugins do not fit together: {error}") from error
        self._loaded = after
        self._commands.remove(*(command.name for old in gone for command in old.commands))
        self._commands.add(*(command for new in fresh for command in new.commands))
        for old in gone:
            old.plugin.scope.stop_timers()
        for new in fresh:
            begin_timers(new.plugin, new.name, new.plugin.scope)
        await self._stop(gone)
        self._forget_metrics(after)

    async def _start(self, fresh: Sequence[Loaded]) -> None:
        tables = [table for new in fresh for table in type(new.plugin).tables(new.name)]
        if tables:
            await self._server.store.open(tables)
        for index, new in enumerate(fresh):
            old = self._loaded.get(new.name)
            if old is not None:
                new.plugin.kept = old.plugin.kept
            try:
                await new.plugin.start()
            except BaseException as error:
                await self._stop(fresh[:index])
                await new.plugin.scope.close()
                if isinstance(error, Exception):
                    raise CommandError(f"the plugin {new.name!r} did not start: {error}") from error
                raise

    def _check_commands(self, fresh: Sequence[Loaded], gone: Sequence[Loaded]) -> None:
        """CommandError when a new plugin brings a command that clashes with another."""
        taken = set(self._commands.names - {command.name for old in gone for command in old.commands})
        for new in fresh:
            for command in new.commands:
                if clashes(command.name, taken):
                    raise CommandError(
                        f"{new.origin}: there is already a command {command.name!r}, "
                        "or one that begins or goes on like it"
                    )
                taken.add(command.name)

    @staticmethod
    async def _stop(gone: Sequence[Loaded]) -> None:
        """Stop plugins, the last one first, and what they have running."""
        for loaded in reversed(gone):
            loaded.plugin.scope.stop_timers()
            try:
                await loaded.plugin.stop()
            except Exception:
                log.exception("plugin-failed-to-stop", extra={"plugin": loaded.name})
            await loaded.plugin.scope.close()

    def _forget_metrics(self, at_work: Mapping[str, Loaded]) -> None:
        """What belongs to no plugin any more is not shown any more."""
        metrics = self._server.metrics
        kept = {id(value) for loaded in at_work.values() for value in vars(loaded.plugin).values()}
        for name in [name for name, metric in metrics.items() if id(metric) not in kept]:
            del metrics[name]

    # all plugins

    def _compile(self, at_work: Mapping[str, Loaded]) -> None:
        plugins = [loaded.plugin for loaded in at_work.values()]
        self._listen(plugins)
        handlers = [pair for plugin in plugins for pair in handlers_of(plugin)]
        self._iqs.compile([*self._core_handlers, *handlers])
        signals = {key: it for plugin in plugins for key, it in signals_of(plugin).items()}
        self._server.offers.compile(plugins)
        self._server.nodes.compile(signals, {plugin.name: plugin for plugin in plugins})
        self._server.services.compile(hosts_of(plugins, self._labels, self._server.domains, self._iqs))
        self._server.disco.compile(declared_by(plugins))
        self._on_change(plugins)

    def _listen(self, plugins: Sequence[Plugin]) -> None:
        """Have the hooks asked that plugins use, or the server's own events that they listen to."""
        events = self._server.events
        kinds = [kind for plugin in plugins for kind in kinds_of(plugin)]
        listeners = [pair for plugin in plugins for pair in listeners_of(plugin)]
        checks = {kind: check for plugin in plugins for kind, check in checks_of(plugin).items()}
        events.compile(kinds, listeners, checks)
        self._hooks.compile([*plugins, *events.wanted])
        events.changed = partial(self._listen, plugins)
