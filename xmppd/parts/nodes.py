"""Methods that are called on every node of a cluster at once."""

from __future__ import annotations

import functools
import json
import types
from collections.abc import Callable
from typing import Any, Concatenate, Generic, ParamSpec, Self, overload

from xmppd.marks import members_of

P = ParamSpec("P")


class ClusterSignal(Generic[P]):
    """What `cluster_signal` makes of a method. Called as usual it does its work here and nowhere else."""

    def __init__(self, function: Callable[Concatenate[Any, P], Any]) -> None:
        self.__doc__ = function.__doc__
        self.function = function
        self.name = function.__name__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Any, owner: type) -> BoundSignal[P]: ...
    def __get__(self, instance: Any, owner: type) -> Self | BoundSignal[P]:
        return self if instance is None else BoundSignal(self, instance)


class BoundSignal(Generic[P]):
    """The method of one plugin."""

    def __init__(self, signal: ClusterSignal[P], plugin: Any) -> None:
        self._signal = signal
        self._plugin = plugin

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Do it here."""
        return self._signal.function(self._plugin, *args, **kwargs)

    def tell(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Have it done on every node, on this one at once, by the plugin of this name that is at work there.

        Arguments are what JSON can hold; TypeError for others. Nobody says whether another node was reached.
        """
        data = json.dumps([args, kwargs], ensure_ascii=False)
        self._plugin.server.nodes.tell(self._plugin.name, self._signal.name, data)

    def tell_node(self, node: str, *args: P.args, **kwargs: P.kwargs) -> None:
        """Have it done on the node of this name alone, which is another one."""
        data = json.dumps([args, kwargs], ensure_ascii=False)
        self._plugin.server.nodes.other(node, self._plugin.name, self._signal.name, data)


def cluster_signal(method: Callable[Concatenate[Any, P], Any]) -> ClusterSignal[P]:
    """Marks a method, plain or async, that `self.method.tell(...)` calls on every node; what it returns is
    ignored, what it raises logged.
    """
    return ClusterSignal(method)


def signals_of(plugin: Any) -> dict[tuple[str, str], Callable[..., Any]]:
    """The plugin's cluster signals, by its name and theirs."""
    return {
        (plugin.name, member.name): functools.partial(
            plugin.scope.call, types.MethodType(member.function, plugin)
        )
        for member in members_of(type(plugin)).values()
        if isinstance(member, ClusterSignal)
    }
