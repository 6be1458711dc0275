"""Events of plugins' own, and methods that listen to events of all."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

from xmppd.core.events import EventField, EventKind, Events
from xmppd.marks import mark, marked
from xmppd.parts.part import Part, parts_of

if TYPE_CHECKING:
    from xmppd.server import Server

Method = TypeVar("Method", bound=Callable[..., Any])
Patterns = Iterable[str] | Callable[[Any], Iterable[str]]


class Emitter(Part):
    """A kind of event that the plugin tells: `await self.added.emit(account, field=...)`. See `EventKind`."""

    def __init__(
        self,
        name: str,
        help: str,
        *,
        fields: Mapping[str, EventField] | None = None,
        example: Mapping[str, Any] | None = None,
        version: int = 1,
        is_asked: bool = False,
    ) -> None:
        self.kind = EventKind(name, help, fields or {}, example or {}, version, is_asked)
        self._events: Events

    def bind(self, plugin: str, attribute: str, server: Server) -> Self:
        """The emitter of one server."""
        bound = copy.copy(self)
        bound._events = server.events
        return bound

    @property
    def is_wanted(self) -> bool:
        """Whether anybody listens; otherwise nothing has to be found out for it."""
        return self._events.wants(self.kind)

    async def emit(self, account: str, **data: Any) -> None:
        """It happened to an account ("": to none). Done when all who keep events have it safe, so emit before
        you acknowledge what happened. ValueError for data of another shape.
        """
        self.kind.check(data)
        told = self._events.tell(self.kind, account, data)
        if told is not None:
            await told


@dataclass(frozen=True, slots=True)
class Listens:
    """What `listens` says of a method."""

    patterns: Patterns


def listens(*patterns: str | Callable[[Any], Iterable[str]]) -> Callable[[Method], Method]:
    """Marks the method that is told of events by their kinds: names, or beginnings with a star (`account.*`).
    A function of the instance in their place says which now; where its answer changes
    `server.events.changed()` is to be called.

    The method takes an Event and is quick. It returns None, or a future that is done when the event is safe:
    who acknowledges what happened waits for that.
    """
    first = patterns[0] if patterns else ""
    if callable(first):
        return lambda method: mark(method, Listens(first))
    names = tuple(one for one in patterns if isinstance(one, str))
    return lambda method: mark(method, Listens(names))


def kinds_of(plugin: Any) -> list[EventKind]:
    """What a plugin may tell."""
    return [part.kind for part in parts_of(type(plugin)).values() if isinstance(part, Emitter)]


def listeners_of(plugin: Any) -> list[tuple[Callable[..., Any], Iterable[str]]]:
    """Its methods that listen, each with what to."""
    return [
        (method, found.patterns(plugin) if callable(found.patterns) else found.patterns)
        for method, found in marked(plugin, Listens)
    ]
