"""Numbers that are counted where things happen and read when somebody asks: plain integers, no locks."""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from types import CoroutineType
from typing import Any, Final

SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds for times of what may wait."""
SHORT: Final = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25)
"""Upper bounds for times of what does not."""


class Spread:
    """How values are spread over `buckets`: upper bounds that rise. `counts`: how many fell into each alone,
    the last one is for what is above all bounds. `sum`: of all values.
    """

    def __init__(self, buckets: Sequence[float] = SECONDS) -> None:
        self.buckets: tuple[float, ...] = tuple(map(float, buckets))
        self.counts = [0] * (len(self.buckets) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.buckets, value)] += 1
        self.sum += value


class Spreads:
    """One for each name, made when it is first asked for. Names come from the code, never from clients."""

    def __init__(self, buckets: Sequence[float]) -> None:
        self.of: dict[str, Spread] = {}
        self._buckets = buckets

    def __getitem__(self, name: str) -> Spread:
        found = self.of.get(name)
        if found is None:
            found = self.of[name] = Spread(self._buckets)
        return found


def owner_of(method: Callable[..., Any]) -> str:
    """The name of the plugin that a method belongs to, "core" for one of ours."""
    owner = getattr(method, "__self__", None)
    return str(getattr(owner, "name", "core")) if owner is not None else "core"


def timed(method: Callable[..., Any], spread: Spread) -> Callable[..., Any]:
    """The same method, whose calls are observed in seconds: until it returns, or, where that is a coroutine,
    until that is done.
    """

    @functools.wraps(method)
    def call(*arguments: Any, **named: Any) -> Any:
        began = perf_counter()
        try:
            result = method(*arguments, **named)
        except BaseException:
            spread.observe(perf_counter() - began)
            raise
        if result.__class__ is CoroutineType:
            return until(result, spread.observe, began)
        spread.observe(perf_counter() - began)
        return result

    return call


async def until(waiting: Awaitable[Any], done: Callable[[float], None], began: float) -> Any:
    """What is awaited; the seconds since `began` are told when it is done."""
    try:
        return await waiting
    finally:
        done(perf_counter() - began)
