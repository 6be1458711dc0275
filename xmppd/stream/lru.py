"""A bounded map that forgets what was not used for the longest time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Lru(Generic[K, V]):
    """At most `limit` entries. (`functools.lru_cache` can neither drop one nor hold an awaited value.)"""

    __slots__ = ("_entries", "_limit")

    def __init__(self, limit: int) -> None:
        self._entries: OrderedDict[K, V] = OrderedDict()
        self._limit = limit

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        """The value, which counts as a use of it; None when unknown."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def put(self, key: K, value: V) -> None:
        """Remember `value`, never None; the entry unused for the longest time may go."""
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > self._limit:
            self._entries.popitem(last=False)

    def items(self) -> Iterator[tuple[K, V]]:
        """All entries by now, the one unused for the longest time first; that is no use of them."""
        return iter([*self._entries.items()])

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()

    def retain(self, keys: Container[K]) -> None:
        """Forget every entry but those of `keys`."""
        self._entries = OrderedDict(item for item in self._entries.items() if item[0] in keys)

    def drop(self, key: K) -> None:
        """Forget one entry, if it is there."""
        self._entries.pop(key, None)
