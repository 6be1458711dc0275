"""Events of plugins' own, whether those happened that a kill came before, and methods that listen to all."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

from xmppd.core.events import EventField, EventKind, Events
from xmppd.core.intents import Happened, Intent, around
from xmppd.marks import mark, marked
from xmppd.parts.part import Part, parts_of

if TYPE_CHECKING:
    from xmppd.server import Server

Method = TypeVar("Method", bound=Callable[..., Any])
Patterns = Iterable[str] | Callable[[Any], Iterable[str]]


class Emitter(Part):
    """A kind of event that the plugin tells: `await self.added.emit(account, field=...)`. See `EventKind`;
    where nothing else is said the `key` is all fields.
    """

    def __init__(
        self,
        name: str,
        help: str,
        *,
        fields: Mapping[str, EventField] | None = None,
        example: Mapping[str, Any] | None = None,
        version: int = 1,
        is_asked: bool = False,
        key: Iterable[str] | None = None,
    ) -> None:
        fields = fields or {}
        found = tuple(fields if key is None else key)
        self.kind = EventKind(name, help, fields, example or {}, version, is_asked, found)
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

    def intent(self, account: str, **data: Any) -> Intent | None:
        """The same as `around` for who makes several attempts: `await intent.begin(about)` before each. In
        the end it is told, or its `drop` or `doubt` called. None where nobody keeps such.
        """
        return self._events.intent(self.kind, account, data)

    @asynccontextmanager
    async def around(
        self, account: str, about: Mapping[str, Any] | None = None, /, **data: Any
    ) -> AsyncIterator[None]:
        """Around something durable, and the `emit` that tells of it: written down before, so that it is told
        after a kill in between, too. What is not emitted within did not happen. `about` is what shows later
        whether it did, as a method marked by `happened` looks; as JSON has it. StoreError: do nothing.
        """
        async with around(self.intent(account, **data), about or {}):
            yield


@dataclass(frozen=True, slots=True)
class FindsOut:
    """What `happened` says of a method."""

    kinds: tuple[str, ...]


def happened(*kinds: str) -> Callable[[Method], Method]:
    """Marks the coroutine (account, data, about) that finds out by the store whether an event of these kinds
    happened before a process was killed that was about to tell it (`Emitter.around`). Where nobody can say it
    did. What it raises but StoreError counts as that.
    """
    return lambda method: mark(method, FindsOut(kinds))


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


def checks_of(plugin: Any) -> dict[str, Happened]:
    """By kind, what finds out whether one happened."""
    return {kind: _found_by(method) for method, found in marked(plugin, FindsOut) for kind in found.kinds}


def _found_by(method: Callable[..., Any]) -> Happened:
    async def find(kind: EventKind, account: str, data: Mapping[str, Any], about: Mapping[str, Any]) -> Any:
        return data if await method(account, data, about) else None

    return find
