"""Finds plugins, binds them to a server, and reloads them while sessions stay connected."""

from __future__ import annotations

import importlib.util
import inspect
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from xmppd.admin.commands import Command, Commands, commands_of
from xmppd.config import Config
from xmppd.core.iqs import Handler, HandlerKey, Iqs
from xmppd.errors import CommandError, ConfigError
from xmppd.hooks import Hooks
from xmppd.plugin import IQ_MARK, Plugin
from xmppd.server import Server
from xmppd.validation import did_you_mean

log = logging.getLogger(__name__)

ENTRY_POINTS = "xmppd.plugins"
MODULE_PREFIX = "xmppd_plugins."


@dataclass(frozen=True, slots=True)
class Loaded:
    """One plugin at work. `origin` is its file, or its entry point."""

    name: str
    plugin: Plugin
    origin: str
    commands: tuple[Command, ...]


class Loader:
    """The plugins of one server, in the order of the configuration.

    `core_handlers` answer iqs that are not a plugin's matter; they come first. `on_change` is called whenever
    the set of plugins changed, with all of them.
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
        on_change: Callable[[Sequence[Plugin]], None],
    ) -> None:
        self._folders = tuple(folders)
        self._server = server
        self._hooks = hooks
        self._iqs = iqs
        self._commands = commands
        self._core_handlers = tuple(core_handlers)
        self._on_change = on_change
        self._loaded: dict[str, Loaded] = {}

    @property
    def loaded(self) -> Sequence[Loaded]:
        """All plugins at work."""
        return tuple(self._loaded.values())

    def set_folders(self, folders: Sequence[Path]) -> None:
        """Look for plugins elsewhere from now on, the first folder first."""
        self._folders = tuple(folders)

    async def load(self, config: Config) -> list[str]:
        """Load the plugins the configuration names, all anew, and unload the others; the names of those at
        work.

        All or nothing: on ConfigError or CommandError the old ones stay at work.
        """
        fresh = {name: self._make(name, config) for name in config.plugins.enabled}
        await self._replace(fresh)
        return list(fresh)

    async def reload(self, name: str, config: Config) -> list[str]:
        """Load one plugin again from its file; CommandError when it is not at work or cannot be loaded."""
        if name not in self._loaded:
            raise CommandError(f"the plugin {name!r} is not loaded{did_you_mean(name, self._loaded)}")
        await self._replace({**self._loaded, name: self._make(name, config)})
        return [name]

    async def close(self) -> None:
        """Stop all plugins, the last one first."""
        gone, self._loaded = self.loaded, {}
        self._compile({})
        await self._stop(gone)

    # one plugin

    def _make(self, name: str, config: Config) -> Loaded:
        """Import the plugin's file again and bind its class to the server."""
        plugin_class, origin = find_plugin(name, self._folders, config)
        settings = config.plugin(name, plugin_class.Config)
        try:
            plugin = plugin_class(name, self._server, settings)
            return Loaded(name, plugin, origin, tuple(commands_of(plugin, name)))
        except Exception as error:
            raise CommandError(f"{origin}: {type(error).__name__}: {error}") from error

    async def _replace(self, after: dict[str, Loaded]) -> None:
        """Start what is new, let it take the place of what goes, and only then stop that."""
        before = self._loaded
        fresh = [new for name, new in after.items() if before.get(name) is not new]
        gone = [old for name, old in before.items() if after.get(name) is not old]
        self._check_commands(fresh, gone)
        await self._start(fresh)
        try:
            self._compile(after)
        except Exception as error:
            self._compile(before)
            await self._stop(fresh)
            raise CommandError(f"the plugins do not fit together: {error}") from error
        self._loaded = after
        self._commands.remove(*(command.name for old in gone for command in old.commands))
        self._commands.add(*(command for new in fresh for command in new.commands))
        await self._stop(gone)

    async def _start(self, fresh: Sequence[Loaded]) -> None:
        tables = [table for new in fresh for table in type(new.plugin).tables(new.name)]
        if tables:
            await self._server.store.open(tables)
        for index, new in enumerate(fresh):
            try:
                await new.plugin.start()
            except Exception as error:
                await self._stop(fresh[:index])
                raise CommandError(f"the plugin {new.name!r} did not start: {error}") from error

    def _check_commands(self, fresh: Sequence[Loaded], gone: Sequence[Loaded]) -> None:
        """CommandError when a new plugin brings a command that somebody else has."""
        taken = {about["name"] for about in self._commands.describe()}
        taken -= {command.name for old in gone for command in old.commands}
        for new in fresh:
            for command in new.commands:
                if command.name in taken:
                    raise CommandError(f"{new.origin}: there is already a command {command.name!r}")
                taken.add(command.name)

    @staticmethod
    async def _stop(gone: Sequence[Loaded]) -> None:
        """Stop plugins, the last one first."""
        for loaded in reversed(gone):
            try:
                await loaded.plugin.stop()
            except Exception:
                log.exception("plugin-failed-to-stop", extra={"plugin": loaded.name})

    # all plugins

    def _compile(self, at_work: Mapping[str, Loaded]) -> None:
        plugins = [loaded.plugin for loaded in at_work.values()]
        self._hooks.compile(plugins)
        handlers = [pair for plugin in plugins for pair in iq_handlers_of(plugin)]
        self._iqs.compile([*self._core_handlers, *handlers])
        self._server.advertise(feature for plugin in plugins for feature in plugin.features)
        self._on_change(plugins)


def find_plugin(name: str, folders: Sequence[Path], config: Config) -> tuple[type[Plugin], str]:
    """The plugin's class, its file run anew, and where it came from; ConfigError when nobody knows
    the name.
    """
    for folder in folders:
        for path in (folder / f"{name}.py", folder / name / "__init__.py"):
            if path.is_file():
                return plugin_class_of(import_file(name, path), name), str(path)
    for entry in entry_points(group=ENTRY_POINTS, name=name):
        found = entry.load()
        if isinstance(found, type) and issubclass(found, Plugin):
            return found, f"{entry.value} ({ENTRY_POINTS})"
    known = {path.stem for folder in folders for path in folder.glob("[a-z]*.py")}
    message = f"there is no plugin {name!r} in {', '.join(map(str, folders))}{did_you_mean(name, known)}"
    raise ConfigError([config.problem(("plugins", "enabled", config.plugins.enabled.index(name)), message)])


def import_file(name: str, path: Path) -> ModuleType:
    """Run a plugin's file as a module of its own, submodules anew; CommandError says where it fails."""
    spec = importlib.util.spec_from_file_location(MODULE_PREFIX + name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = forget_modules(spec.name)
    sys.modules[spec.name] = module
    try:
        # Not by its loader, whose cache of bytecode may take a file changed within a second for the old one.
        exec(compile(path.read_bytes(), path, "exec"), module.__dict__)
    except Exception as error:
        forget_modules(spec.name)
        sys.modules.update(before)
        raise CommandError(f"{path}: {type(error).__name__}: {error}") from error
    return module


def forget_modules(name: str) -> dict[str, ModuleType]:
    """Take a module and its submodules out of `sys.modules`; those that were there."""
    found = [known for known in sys.modules if known == name or known.startswith(f"{name}.")]
    return {known: sys.modules.pop(known) for known in found}


def plugin_class_of(module: ModuleType, name: str) -> type[Plugin]:
    """The one class in a plugin's module that derives from Plugin."""
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Plugin) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise CommandError(
            f"the file of the plugin {name!r} must have one class that derives from Plugin, not {len(found)}"
        )
    return found[0]


def iq_handlers_of(plugin: Plugin) -> list[tuple[HandlerKey, Handler]]:
    """The plugin's marked iq handlers, bound."""
    methods: list[tuple[str, Any]] = inspect.getmembers(plugin, inspect.ismethod)
    return [(key, method) for _, method in methods for key in getattr(method, IQ_MARK, ())]
