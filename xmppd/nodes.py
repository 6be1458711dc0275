"""The nodes of a cluster as plugins see them: what is told to all, and who is where."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

Signals = Mapping[tuple[str, str], Callable[..., Any]]
"""By the names of plugin and method: what does it here."""


class Nodes:
    """This node, by its `name` ("": it is alone), and the others, which `others` tells, and `other` one of
    them. What a signal raises is its own matter: it must not reach who told it. `changed` is told which
    plugins went to work, whenever others are at work than before.
    """

    def __init__(self) -> None:
        self._signals: Signals = {}
        self._plugins: Mapping[str, object] = {}
        self.name = ""
        self.others: Callable[[str, str, str], None] = nobody
        self.other: Callable[[str, str, str, str], None] = nobody
        self.changed: Callable[[Collection[str]], None] = unheard

    def compile(self, signals: Signals, plugins: Mapping[str, object]) -> None:
        """Replace all signals that can be taken, and the plugins at work, by name."""
        before, self._plugins, self._signals = self._plugins, plugins, signals
        anew = [name for name, plugin in plugins.items() if before.get(name) is not plugin]
        if anew or plugins.keys() != before.keys():
            self.changed(anew)

    def plugins(self) -> Collection[str]:
        """The names of the plugins at work here."""
        return self._plugins.keys()

    def tell(self, plugin: str, method: str, data: str) -> None:
        """Have a signal done on every node; `data` are its arguments as JSON."""
        self.take(plugin, method, data)
        self.others(plugin, method, data)

    def take(self, plugin: str, method: str, data: str) -> None:
        """Do here what this node or another one told; nothing when the plugin is not at work here."""
        signal = self._signals.get((plugin, method))
        if signal is not None:
            arguments, named = json.loads(data)
            signal(*arguments, **named)


def nobody(*signal: str) -> None:
    """There are no others."""


def unheard(plugins: Collection[str]) -> None:
    """There are no others."""
