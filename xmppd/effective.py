"""A configuration as rows of keys: what each value is, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from xmppd.config import Config
from xmppd.configfile import defaults
from xmppd.document import KeyPath, dotted
from xmppd.plugin import Plugin
from xmppd.section import SecretText, Section, values_of

HIDDEN: Final = "********"
"""What is shown of a secret."""


def rows_of(config: Config, plugins: Iterable[Plugin] = ()) -> list[Mapping[str, Any]]:
    """A row for each key, with `value` and `origin`: `file:line`, `$VARIABLE` or `default`; all settings of
    plugins at work.
    """
    sections = {plugin.name: plugin.config for plugin in plugins}
    return [
        {"key": dotted(path), "value": value, "origin": _origin(config, path)}
        for path, value in _leaves((), {**values_of(config), "plugins": _plugins(config, sections)})
    ]


def differences(running: Config, file: Config, fixed: Iterable[str]) -> list[Mapping[str, Any]]:
    """A row for each key that is not the same in both; secrets are compared, too."""
    now, then = dict(_leaves((), running, is_open=True)), dict(_leaves((), file, is_open=True))
    needs = tuple(fixed)
    return [
        {
            "key": dotted(path),
            "running": _told(path, now.get(path)),
            "file": _told(path, then.get(path)),
            "needs": "restart" if any(_is_in(dotted(path), key) for key in needs) else "reload",
        }
        for path in sorted(now.keys() | then.keys(), key=dotted)
        if now.get(path) != then.get(path)
    ]


def _plugins(config: Config, sections: Mapping[str, Section]) -> Mapping[str, Any]:
    values = values_of(config.plugins)
    return {**values, "config": {**dict.fromkeys(values["config"], HIDDEN), **sections}}


def _origin(config: Config, path: KeyPath) -> str:
    place = config.place_of(path)
    if place is None or Path(place.file) == defaults():
        return "default"
    return f"{place.file}:{place.line}" if place.line else place.file


def _leaves(path: KeyPath, value: Any, *, is_open: bool = False) -> Iterator[tuple[KeyPath, Any]]:
    """All values below one that are no sections, mappings or lists of such, each with its path."""
    if isinstance(value, Section):
        value = values_of(value)
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves((*path, str(name)), inner, is_open=is_open)
    elif isinstance(value, tuple) and any(isinstance(inner, Section) for inner in value):
        for index, inner in enumerate(value):
            yield from _leaves((*path, index), inner, is_open=is_open)
    else:
        yield path, value if is_open else _shown(value)


def _shown(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, SecretText):
        return HIDDEN
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list | frozenset | set):
        shown = [_shown(inner) for inner in value]
        return sorted(shown, key=str) if isinstance(value, frozenset | set) else shown
    if isinstance(value, Mapping):
        return {str(name): _shown(inner) for name, inner in value.items()}
    return str(value)


def _told(path: KeyPath, value: Any) -> Any:
    """As it is shown; which texts of a plugin's settings are secrets is not known here."""
    return HIDDEN if path[:2] == ("plugins", "config") and isinstance(value, str) else _shown(value)


def _is_in(key: str, fixed: str) -> bool:
    return key == fixed or key.startswith((f"{fixed}.", f"{fixed}["))
