"""Methods that are called by the clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from xmppd.marks import mark, marked
from xmppd.scope import Scope

Method = TypeVar("Method", bound=Callable[..., Any])
Seconds = float | Callable[[Any], float]
"""How many, or what says it of an instance: `lambda self: self.config.minutes * 60`."""


@dataclass(frozen=True, slots=True)
class Timed:
    """One use of the clock on a method."""

    seconds: Seconds
    again: bool

    def of(self, plugin: Any) -> float:
        """How many seconds for this instance; ValueError unless there are some."""
        seconds = self.seconds(plugin) if callable(self.seconds) else self.seconds
        if not seconds > 0:
            raise ValueError(f"a method cannot be called every {seconds} seconds")
        return seconds


def every(seconds: Seconds) -> Callable[[Method], Method]:
    """Marks a method, plain or async, that is called again and again while the plugin is at work, first after
    so many seconds. It is never called while its last call goes on.
    """
    return lambda method: mark(method, Timed(seconds, again=True))


def after(seconds: Seconds) -> Callable[[Method], Method]:
    """Marks a method, plain or async, that is called once, so many seconds after the plugin went to work."""
    return lambda method: mark(method, Timed(seconds, again=False))


def timed_methods_of(plugin: object) -> list[tuple[float, bool, Callable[..., Any]]]:
    """Seconds, whether again and again, and the bound method, of each that is marked; ValueError."""
    return [(timed.of(plugin), timed.again, method) for method, timed in marked(plugin, Timed)]


def begin_timers(plugin: object, scope: Scope) -> None:
    """Start the clock for all of them."""
    for seconds, again, method in timed_methods_of(plugin):
        if again:
            scope.repeat(seconds, method)
        else:
            scope.call_later(seconds, method)
