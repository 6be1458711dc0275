"""What a section of a configuration is made of: frozen classes whose fields have kinds, rules and defaults.

    class DiceConfig(Section):
        sides: Annotated[int, at_least(2)] = 6

A section made by its class is taken as it is. `xmppd.validation` makes one of what stands in a file, and
knows these kinds: `int`, `float`, `bool`, `str`, `Literal`, tuples, lists, sets, mappings, sections, a kind
`| None`, and any class that is made of one text, as `Path` and `SecretText` are.
docs/design/017-configuration-models.md says why this is no library.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, NamedTuple, Self, TypeVar, dataclass_transform, get_origin

Rule = Callable[[Any], Any]
"""Stands in `Annotated` behind a kind: takes a value of this kind, gives the one to use; or ValueError, whose
text goes behind the name of the key ("must be ...").
"""


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Section:
    """The root of all sections. The fields are the annotations of the class; those without a default must be
    given. Names that begin with `_` are none, and a field of one's own may have any other.
    """

    _kinds: ClassVar[Mapping[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        own = inspect.get_annotations(cls, eval_str=True)
        fields = {name: kind for name, kind in own.items() if not _is_apart(name, kind)}
        cls._kinds = {**cls._kinds, **fields}

    def __init__(self, **values: Any) -> None:
        for name in values.keys() - self._kinds.keys():
            raise TypeError(f"{type(self).__name__} has no field {name!r}")
        for name in self._kinds:
            if name not in values and not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__} needs the field {name!r}")
        vars(self).update(values)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name!r} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name!r} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other) or not isinstance(other, Section):
            return NotImplemented
        return values_of(self) == values_of(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in values_of(self).items())
        return f"{type(self).__name__}({shown})"

    def __replace__(self, **values: Any) -> Self:
        fresh = type(self)(**{**values_of(self), **values})
        vars(fresh).update({name: value for name, value in vars(self).items() if name not in self._kinds})
        return fresh


Made = TypeVar("Made", bound=Section)


def fields_of(section: type[Section]) -> Mapping[str, Any]:
    """The kinds of its fields, with their rules, by name."""
    return section._kinds


def values_of(section: Section) -> dict[str, Any]:
    """The values of its fields, by name."""
    return {name: getattr(section, name) for name in fields_of(type(section))}


def changed(section: Made, **values: Any) -> Made:
    """The same section with other values."""
    return section.__replace__(**values)


def _is_apart(name: str, kind: Any) -> bool:
    return name.startswith("_") or kind is ClassVar or get_origin(kind) is ClassVar


# kinds


class SecretText:
    """A text that is shown to nobody by accident; `value` is the text. For a field NAME of this kind a
    configuration may have `NAME_file` instead.
    """

    __slots__ = ("value",)

    def __init__(self, value: str) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretText) and other.value == self.value

    def __hash__(self) -> int:
        return hash(self.value)

    def __repr__(self) -> str:
        return "SecretText('********')"


class Parsed(NamedTuple):
    """Stands in `Annotated` behind a kind that is read from text by a function of its own, which may raise
    ValueError.
    """

    parse: Callable[[str], Any]


# rules


class Beside(NamedTuple):
    """A rule about a field and those before it, which are given as a mapping, as far as they are right. It
    holds for a default, too.
    """

    check: Callable[[Any, Mapping[str, Any]], Any]


class Below(ValueError):
    """A value below that of the field `other` beside it: one of the two is wrong."""

    def __init__(self, other: str) -> None:
        super().__init__(f"must not be smaller than {other}")
        self.other = other


def not_below(other: str) -> Beside:
    """A number not below that of the field `other`."""

    def check(value: float, before: Mapping[str, Any]) -> float:
        if value < before.get(other, value):
            raise Below(other)
        return value

    return Beside(check)


def at_least(bound: float) -> Rule:
    """A number not below this."""

    def check(value: float) -> float:
        if value < bound:
            raise ValueError(f"must be at least {bound:.10g}")
        return value

    return check


def more_than(bound: float) -> Rule:
    """A number above this."""

    def check(value: float) -> float:
        if value <= bound:
            raise ValueError(f"must be more than {bound:.10g}")
        return value

    return check


def at_most(bound: float) -> Rule:
    """A number not above this."""

    def check(value: float) -> float:
        if value > bound:
            raise ValueError(f"must be at most {bound:.10g}")
        return value

    return check


def matching(pattern: str) -> Rule:
    """A text that matches as a whole."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"does not have the right form ({pattern})")
        return text

    return check


def some(values: Any) -> Any:
    """A text or a collection that is not empty."""
    if not values:
        raise ValueError("must not be empty")
    return values


def unique(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """A list that names nothing twice."""
    for index, value in enumerate(values):
        if value in values[:index]:
            raise ValueError(f"names {value} twice")
    return values


PositiveInt = Annotated[int, at_least(1)]
PositiveFloat = Annotated[float, more_than(0)]
NonNegativeInt = Annotated[int, at_least(0)]
NonNegativeFloat = Annotated[float, at_least(0)]
