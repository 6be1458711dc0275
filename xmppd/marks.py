"""What decorators leave on methods, and how whoever binds a class to a server finds it again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

MARKS: Final = "__xmppd_marks__"

Method = TypeVar("Method", bound=Callable[..., Any])
Mark = TypeVar("Mark")


def mark(method: Method, value: object) -> Method:
    """The method itself, with one more mark."""
    setattr(method, MARKS, (*getattr(method, MARKS, ()), value))
    return method


def members_of(owner: type) -> dict[str, Any]:
    """What a class and its ancestors declare, as it stands in their bodies; ancestors come first."""
    members: dict[str, Any] = {}
    for ancestor in reversed(owner.__mro__):
        members.update(vars(ancestor))
    return members


def marked(instance: object, kind: type[Mark]) -> list[tuple[Callable[..., Any], Mark]]:
    """The bound methods of an instance that carry a mark of this kind, each with it, in the order of their
    declaration. Nothing else is looked at: a property is not asked for its value.
    """
    return [
        (getattr(instance, name), found)
        for name, member in members_of(type(instance)).items()
        for found in getattr(member, MARKS, ())
        if isinstance(found, kind)
    ]
