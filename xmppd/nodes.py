"""The nodes of a cluster as plugins see them: what is told to all, and who is where."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

Signals = Mapping[tuple[str, str], Callable[..., Any]]
"""By the names of plugin and method: what does it here."""


class Nodes:
    """This node, by its `name` ("": it is alone), and the others, which `others` tells, and `other` one of
    them. What a signal raises is its own matter: it must not reach who told it.
    """

    def __init__(self) -> None:
        self._signals: Signals = {}
        self.name = ""
        self.others: Callable[[str, str, str], None] = nobody
        self.other: Callable[[str, str, str, str], None] = nobody

    def compile(self, signals: Signals) -> None:
        """Replace all signals that can be taken."""
        self._signals = signals

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
