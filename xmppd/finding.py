"""Where plugins come from: files in folders, and installed packages."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from xmppd.config import Config
from xmppd.errors import CommandError, ConfigError
from xmppd.parts.part import parts_of
from xmppd.parts.tables import wrong_in
from xmppd.plugin import Plugin, hidden_by
from xmppd.validation import did_you_mean

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINTS = "xmppd.plugins"
MODULE_PREFIX = "xmppd_plugins."


@dataclass(frozen=True, slots=True)
class Source:
    """What a plugin is loaded from. `origin` is its file or entry point, `version` another text whenever
    something else would be loaded; `load` runs its file anew and gives its class, or raises CommandError.
    """

    origin: str
    version: str
    load: Callable[[], type[Plugin]]


def source_of(name: str, folders: Sequence[Path], config: Config) -> Source:
    """Where a plugin is; the first folder that has it counts, then packages. ConfigError when nobody knows
    the name, CommandError when its files cannot be read.
    """
    for folder in folders:
        for path in (folder / f"{name}.py", folder / name / "__init__.py"):
            try:
                if path.is_file():
                    return file_source(name, path)
            except OSError as error:
                raise CommandError(f"{error.filename or path}: {error.strerror or error}") from None
    # Takes 8 ms to load, and the built-in plugins are files.
    metadata = importlib.import_module("importlib.metadata")
    for entry in metadata.entry_points(group=ENTRY_POINTS, name=name):
        return package_source(name, entry)
    hint = did_you_mean(name, names_in(folders))
    message = f"there is no plugin {name!r} in {', '.join(map(str, folders))}{hint}"
    raise ConfigError([config.problem(("plugins", "enabled", config.plugins.enabled.index(name)), message)])


def names_in(folders: Sequence[Path]) -> set[str]:
    """The plugins that are files, or folders with an `__init__.py`, in some folders."""
    files = {path.stem for folder in folders for path in folder.glob("[a-z]*.py")}
    return files | {path.parent.name for folder in folders for path in folder.glob("[a-z]*/__init__.py")}


def find_plugin(name: str, folders: Sequence[Path], config: Config) -> tuple[type[Plugin], str]:
    """The plugin's class, its file run anew, and where it came from; ConfigError, CommandError."""
    source = source_of(name, folders, config)
    return source.load(), source.origin


def file_source(name: str, path: Path) -> Source:
    """A plugin that is a file, or a folder with an `__init__.py`; all files of that count. OSError."""
    files = files_below(path.parent) if path.name == "__init__.py" else iter((path,))
    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file} {len(content)} ".encode() + content)

    def load() -> type[Plugin]:
        return checked(plugin_class_of(import_file(name, path), name), name, str(path))

    return Source(str(path), digest.hexdigest(), load)


def files_below(folder: Path) -> Iterator[Path]:
    """All files that may be a part of a plugin's folder, in order."""
    found = (file for file in folder.rglob("*") if "__pycache__" not in file.parts and file.is_file())
    return iter(sorted(found))


def package_source(name: str, entry: EntryPoint) -> Source:
    """A plugin of an installed package, which Python imports once: with the package's version."""
    origin = f"{entry.value} ({ENTRY_POINTS})"

    def load() -> type[Plugin]:
        try:
            found = entry.load()
        except Exception as error:
            raise CommandError(f"{origin}: {type(error).__name__}: {error}") from error
        if not (isinstance(found, type) and issubclass(found, Plugin)):
            raise CommandError(f"{origin}: {name!r} must name a class that derives from Plugin")
        return checked(found, name, origin)

    return Source(origin, f"{entry.value} {entry.dist.version if entry.dist else ''}", load)


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


def plugin_modules() -> dict[str, ModuleType]:
    """The modules that plugins were run as, by name."""
    return {name: module for name, module in sys.modules.items() if name.startswith(MODULE_PREFIX)}


def put_back(modules: Mapping[str, ModuleType]) -> None:
    """Make these the only modules of plugins again."""
    for name in plugin_modules():
        del sys.modules[name]
    sys.modules.update(modules)


def plugin_class_of(module: ModuleType, name: str) -> type[Plugin]:
    """The one class in a plugin's module that derives from Plugin and from which no other one there does."""
    own = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Plugin) and value.__module__ == module.__name__
    ]
    found = [value for value in own if not any(value in other.__bases__ for other in own)]
    if len(found) != 1:
        raise CommandError(
            f"the file of the plugin {name!r} must have one class that derives from Plugin, not {len(found)}"
        )
    return found[0]


PERSON_HINT = "say person=Person('account'), or person=nobody('why there is none'): docs/plugins.md, Tables"


def checked(plugin_class: type[Plugin], name: str, origin: str) -> type[Plugin]:
    """The class itself; CommandError when it hides what every plugin has, or has a table of which nobody
    knows whom it is about.
    """
    if problem := wrong_in(parts_of(plugin_class), name):
        raise CommandError(f"{problem}: {PERSON_HINT}")
    for hidden in hidden_by(plugin_class):
        where = f"{origin}: {plugin_class.__name__}.{hidden}"
        raise CommandError(f"{where} would hide the {hidden!r} that every plugin has: give it another name")
    return plugin_class
