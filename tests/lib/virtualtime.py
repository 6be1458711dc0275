"""A loop whose time passes at once when there is nothing else to do."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any


class NoSelector(selectors.BaseSelector):
    """Nothing ever happens on a socket: waiting is time that passes at once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._map: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = self._map[fileobj] = selectors.SelectorKey(fileobj, 0, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._map.pop(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everybody waits for something that never comes"
        if timeout > 0:
            self.seconds += timeout
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._map


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time passes when there is nothing else to do."""

    def __init__(self) -> None:
        self._passing = NoSelector()
        super().__init__(self._passing)

    def time(self) -> float:
        return self._passing.seconds
