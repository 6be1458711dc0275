"""What a plugin keeps: with each session, and from one instance of it to the next."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

from xmppd.core.sessions import Session
from xmppd.parts.part import Part

if TYPE_CHECKING:
    from xmppd.server import Server

T = TypeVar("T")
NOTHING: Any = object()


class SessionSlot(Part, Generic[T]):
    """A value that a plugin keeps with each session: `slot[session]`. It goes with the session, and survives
    reloads. Of a `factory` each session is given a value of its own when it is first asked for.
    """

    @overload
    def __init__(self, default: T) -> None: ...
    @overload
    def __init__(self, *, factory: Callable[[], T]) -> None: ...
    def __init__(self, default: T = NOTHING, *, factory: Callable[[], T] | None = None) -> None:
        if (default is NOTHING) is (factory is None):
            raise TypeError("a SessionSlot has either a default or a factory")
        self.default = default
        self.factory = factory
        self._key = ""

    def bind(self, plugin: str, attribute: str, server: Server) -> Self:
        """The slot under a name of its own."""
        bound = copy.copy(self)
        bound._key = f"{plugin}.{attribute}"
        return bound

    def __getitem__(self, session: Session) -> T:
        slots = session.slots
        value: T = NOTHING if slots is None else slots.get(self._key, NOTHING)
        if value is not NOTHING:
            return value
        if self.factory is None:
            return self.default
        value = self.factory()
        self[session] = value
        return value

    def __setitem__(self, session: Session, value: T) -> None:
        if session.slots is None:
            session.slots = {}
        session.slots[self._key] = value


class Kept(Generic[T]):
    """An attribute of a plugin that the next instance takes over when the plugin is loaded again: the value
    itself, not a copy. The first instance has what `factory` makes.
    """

    def __init__(self, factory: Callable[[], T]) -> None:
        self._factory = factory
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Any, owner: type) -> T: ...
    def __get__(self, instance: Any, owner: type) -> Self | T:
        if instance is None:
            return self
        kept: dict[str, Any] = instance.kept
        try:
            value: T = kept[self._name]
        except KeyError:
            value = kept[self._name] = self._factory()
        return value

    def __set__(self, instance: Any, value: T) -> None:
        instance.kept[self._name] = value
