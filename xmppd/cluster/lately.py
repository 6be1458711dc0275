"""What happened lately, remembered for as long as something that was under way then may come."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence


class Lately:
    """Pairs of names, each for some `seconds`; of more than `most` the oldest are forgotten."""

    __slots__ = ("_by_key", "_clock", "_most", "_order", "_seconds")

    def __init__(self, clock: Callable[[], float], seconds: float, most: int) -> None:
        self._clock = clock
        self._seconds = seconds
        self._most = most
        self._order: deque[tuple[float, str, str]] = deque()
        self._by_key: dict[str, dict[str, float]] = {}

    def __len__(self) -> int:
        return len(self._order)

    def note(self, key: str, value: str) -> None:
        """It happened now."""
        now = self._clock()
        self._order.append((now, key, value))
        self._by_key.setdefault(key, {})[value] = now
        self._forget(now)

    def of(self, key: str) -> Sequence[str]:
        """The values that were noted for a key, in the order in which they first were."""
        if not self._order:
            return ()
        self._forget(self._clock())
        return tuple(self._by_key.get(key, ()))

    def _forget(self, now: float) -> None:
        order = self._order
        while order and (order[0][0] < now - self._seconds or len(order) > self._most):
            at, key, value = order.popleft()
            values = self._by_key.get(key)
            if values is None or values.get(value) != at:
                continue  # it was noted again, maybe at the same moment
            del values[value]
            if not values:
                del self._by_key[key]


class Order:
    """In which order names were noted, each for some `seconds` at least; of more than `most` the oldest are
    forgotten.
    """

    __slots__ = ("_clock", "_most", "_noted", "_number", "_seconds")

    def __init__(self, clock: Callable[[], float], seconds: float, most: int) -> None:
        self._clock = clock
        self._seconds = seconds
        self._most = most
        self._number = 0
        self._noted: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._noted)

    def note(self, name: str) -> None:
        """It comes behind all others now."""
        now, noted = self._clock(), self._noted
        self._number += 1
        noted[name] = self._number, now
        noted.move_to_end(name)
        while len(noted) > self._most or now - next(iter(noted.values()))[1] > self._seconds:
            noted.popitem(last=False)

    def drop(self, name: str) -> None:
        """Forget it; harmless if it was not noted."""
        self._noted.pop(name, None)

    def of(self, name: str) -> int:
        """A number that is greater the later it was noted; 0: not lately."""
        found = self._noted.get(name)
        return found[0] if found is not None else 0
