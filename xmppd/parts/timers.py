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
    """One use of the clock on a method; `once`: on one node of all."""

    seconds: Seconds
    again: bool
    once: bool = False

    def of(self, plugin: Any) -> float:
        """How many seconds for this instance; ValueError unless there are some."""
        seconds = self.seconds(plugin) if callable(self.seconds) else self.seconds
        if not seconds > 0:
            raise ValueError(f"a method cannot be called every {seconds} seconds")
        return seconds


def every(seconds: Seconds, *, once: bool = False) -> Callable[[Method], Method]:
    """Marks a method, plain or async, that is called again and again while the plugin is at work, first after
    so many seconds. It is never called while its last call goes on. With `once` by one node of all each time.
    """
    return lambda method: mark(method, Timed(seconds, again=True, once=once))


def after(seconds: Seconds) -> Callable[[Method], Method]:
    """Marks a method, plain or async, that is called once, so many seconds after the plugin went to work."""
    return lambda method: mark(method, Timed(seconds, again=False))


def timed_methods_of(plugin: object) -> list[tuple[float, Timed, Callable[..., Any]]]:
    """Seconds, how it is marked, and the bound method, of each that is; ValueError."""
    return [(timed.of(plugin), timed, method) for method, timed in marked(plugin, Timed)]


def begin_timers(plugin: object, name: str, scope: Scope) -> None:
    """Start the clock for all of them; `name` is that of the plugin."""
    for seconds, timed, method in timed_methods_of(plugin):
        if timed.once:
            scope.repeat_once(seconds, f"{name}:{method.__name__}", method)
        elif timed.again:
            scope.repeat(seconds, method)
        else:
            scope.call_later(seconds, method)
