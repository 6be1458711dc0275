"""What plugins offer each other: methods that others may call, and views of the plugin that has them."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

from xmppd.marks import mark, marked
from xmppd.parts.part import Part, parts_of

if TYPE_CHECKING:
    from xmppd.server import Server

Method = TypeVar("Method", bound=Callable[..., Any])
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Offered:
    """What `offered` says of a method."""


def offered(method: Method) -> Method:
    """Marks a method, plain or async, that other plugins may call (`Uses`)."""
    return mark(method, Offered())


class Offers:
    """What the plugins at work on one server offer, by the plugin's name and the method's."""

    def __init__(self) -> None:
        self.at_work: Mapping[str, Mapping[str, Callable[..., Any]]] = {}

    def compile(self, plugins: Iterable[Any]) -> None:
        """Replace all that is offered."""
        self.at_work = {
            plugin.name: {method.__name__: method for method, _ in marked(plugin, Offered)}
            for plugin in plugins
        }


class View:
    """A plugin of some name as another one sees it: what it offers, by whichever instance is at work now.
    False while there is none.
    """

    __slots__ = ("_name", "_offers")

    def __init__(self, name: str, offers: Offers) -> None:
        self._name = name
        self._offers = offers

    def __bool__(self) -> bool:
        return self._name in self._offers.at_work

    def __getattr__(self, method: str) -> Callable[..., Any]:
        found = self._offers.at_work.get(self._name)
        if found is None:
            raise AttributeError(f"the plugin {self._name!r} is not at work here, which has {method!r}")
        try:
            return found[method]
        except KeyError:
            raise AttributeError(f"the plugin {self._name!r} offers no {method!r}") from None


class Uses(Part, Generic[T]):
    """A plugin that another one makes use of: an attribute with the `View` of it, which has the methods of T,
    a protocol. `needed`: who says so is not loaded without that plugin.
    """

    def __init__(self, plugin: str, *, needed: bool = False) -> None:
        self.plugin = plugin
        self.needed = needed

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> Self | T:
        """For who checks types: an instance at work has the view in the place of this."""
        if instance is None:
            return self
        raise AttributeError(f"what uses the plugin {self.plugin!r} is not bound to a server")

    def bind(self, plugin: str, attribute: str, server: Server) -> Any:
        """The view, on one server."""
        return View(self.plugin, server.offers)


def missing(plugin_class: type, name: str, others: Container[str]) -> Iterator[str]:
    """What is wrong where a plugin needs others that are not there: a sentence for each."""
    for attribute, part in parts_of(plugin_class).items():
        if isinstance(part, Uses) and part.needed and part.plugin not in others:
            where = f"{plugin_class.__name__}.{attribute}"
            yield (
                f"the plugin {name!r} needs the plugin {part.plugin!r} ({where}): "
                "name that in plugins.enabled, too"
            )
