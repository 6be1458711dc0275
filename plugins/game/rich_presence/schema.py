"""What may be said of a game: a subset of JSON Schema (2020-12), compiled once to functions.

Known are `type`, `enum`, `const`, `minimum`, `maximum`, `minLength`, `maxLength`, `pattern`, `items`,
`minItems`, `maxItems`, `properties`, `required`, and `title` and `description`, which say nothing. Nothing is
allowed that is not named: an object has no other properties, and what has no length has one of ours. A
property of the whole may have `by: server`: only the back end says it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

LENGTH: Final = 100
"""Characters of a text that has no `maxLength`, and"""
LENGTH_MOST: Final = 4096
"""those that one may have;"""
PATTERN_MOST: Final = 200
"""one with a `pattern`."""
ITEMS: Final = 20
ITEMS_MOST: Final = 1000
DEPTH: Final = 8
REMARKS: Final = frozenset(("title", "description", "by"))
KEYWORDS: Final[Mapping[str, frozenset[str]]] = {
    "object": frozenset(("properties", "required")),
    "array": frozenset(("items", "minItems", "maxItems")),
    "string": frozenset(("minLength", "maxLength", "pattern")),
    "integer": frozenset(("minimum", "maximum")),
    "number": frozenset(("minimum", "maximum")),
    "boolean": frozenset(),
}
"""What may stand beside each type, besides `enum`, `const` and remarks."""

Check = Callable[[Any], None]


class Mistake(ValueError):
    """A value that may not be there. `path` is a JSON pointer (RFC 6901) to it, "" for the whole."""

    def __init__(self, why: str, *names: str) -> None:
        super().__init__(why)
        self.why = why
        self._names = [*names]

    def within(self, name: str) -> Mistake:
        """The same, seen from one step above."""
        self._names.insert(0, name)
        return self

    @property
    def path(self) -> str:
        """Where it is."""
        return "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in self._names)

    def __str__(self) -> str:
        return f"{self.path or 'the whole'}: {self.why}"


class Schema:
    """What a client may say of a game, and what the back end may. ValueError for a schema that is none.

    `client` and `server` are the names of the properties that each of them says.
    """

    def __init__(self, given: object) -> None:
        self.given = given
        try:
            if not isinstance(given, dict) or given.get("type", "object") != "object":
                raise Mistake("must describe an object", "type")
            properties = _mapping(given.get("properties", {}), "properties")
            required = _required(given, properties)
            by = {name: _by(one, name) for name, one in properties.items()}
            _known(given, "object")
            checks = {name: _compiled_at(one, name, 1) for name, one in properties.items()}
        except Mistake as mistake:
            raise ValueError(f"is no schema: {mistake}") from None
        self.client = frozenset(name for name, who in by.items() if who != "server")
        self.server = frozenset(name for name, who in by.items() if who == "server")
        self._client = _object(checks, self.client, required & self.client, self.server)
        self._server = _object(checks, self.server, frozenset(), self.client)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and other.given == self.given

    __hash__ = None  # type: ignore[assignment]

    def check(self, value: Any, *, is_server: bool = False) -> None:
        """Mistake for what may not be said, by a client or by the back end."""
        (self._server if is_server else self._client)(value)


def read(text: str, most: int) -> Any:
    """A text as JSON (RFC 8259), of so many bytes in UTF-8 at most; Mistake."""
    data = text.encode(errors="replace")
    if len(data) > most:
        raise Mistake(f"is longer than {most} bytes")
    try:
        return _READ(data)
    except RecursionError:
        raise Mistake("is too deep") from None
    except msgspec.MsgspecError:
        raise Mistake("is no JSON") from None


def written(value: Any) -> str:
    """A value as it is shown: one text for what is the same."""
    return _WRITTEN(value).decode()


_READ: Final = msgspec.json.Decoder().decode
_WRITTEN: Final = msgspec.json.Encoder(order="sorted").encode


# compiling


def _compiled_at(given: object, name: str, depth: int) -> Check:
    try:
        return _compiled(given, depth)
    except Mistake as mistake:
        raise mistake.within(name).within("properties") from None


def _compiled(given: object, depth: int) -> Check:
    if not isinstance(given, dict):
        raise Mistake("must be a section")
    if depth > DEPTH:
        raise Mistake(f"is deeper than {DEPTH}")
    kind = given.get("type")
    if kind is None and ("enum" in given or "const" in given):
        _known(given, "boolean")
        return _among(given, _nothing)
    if kind not in KEYWORDS:
        raise Mistake(f"must be one of {', '.join(KEYWORDS)}", "type")
    _known(given, str(kind))
    return _among(given, MAKERS[str(kind)](given, depth))


def _known(given: Mapping[str, Any], kind: str) -> None:
    for name in given:
        if name not in ("type", "enum", "const") and name not in REMARKS and name not in KEYWORDS[kind]:
            raise Mistake("is no keyword here", str(name))


def _by(given: object, name: str) -> str:
    who = given.get("by", "client") if isinstance(given, dict) else "client"
    if who not in ("client", "server"):
        raise Mistake("must be client or server", "properties", name, "by")
    return str(who)


def _mapping(given: object, name: str) -> Mapping[str, Any]:
    if not isinstance(given, dict) or not all(isinstance(key, str) for key in given):
        raise Mistake("must be a section", name)
    return given


def _required(given: Mapping[str, Any], properties: Mapping[str, Any]) -> frozenset[str]:
    names = given.get("required", [])
    if not isinstance(names, list) or not all(name in properties for name in names):
        raise Mistake("must list properties", "required")
    return frozenset(names)


def _bound(given: Mapping[str, Any], name: str, default: int, most: int) -> int:
    value = given.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise Mistake(f"must be a whole number up to {most}", name)
    return value


def _among(given: Mapping[str, Any], inner: Check) -> Check:
    """With `enum` and `const`, if they are there."""
    if "const" not in given and "enum" not in given:
        return inner
    values = [given["const"]] if "const" in given else given["enum"]
    if not isinstance(values, list) or not values:
        raise Mistake("must be a list of values", "enum")
    known = frozenset(map(written, values))
    said = ", ".join(map(str, values))[:200]

    def check(value: Any) -> None:
        inner(value)
        if written(value) not in known:
            raise Mistake(f"must be one of {said}")

    return check


def _nothing(value: Any) -> None:
    """Anything goes."""


def _object_of(given: Mapping[str, Any], depth: int) -> Check:
    properties = _mapping(given.get("properties", {}), "properties")
    for name, one in properties.items():
        if isinstance(one, dict) and "by" in one:
            raise Mistake("is said of properties of the whole", "properties", name, "by")
    checks = {name: _compiled_at(one, name, depth + 1) for name, one in properties.items()}
    return _object(checks, frozenset(checks), _required(given, properties), frozenset())


def _object(
    checks: Mapping[str, Check], allowed: frozenset[str], required: frozenset[str], others: frozenset[str]
) -> Check:
    """An object of the allowed ones of these properties; `others` are said by somebody else."""
    known = {name: check for name, check in checks.items() if name in allowed}

    def check_object(value: Any) -> None:
        if type(value) is not dict:
            raise Mistake("must be an object")
        for name, inner in value.items():
            check = known.get(name)
            if check is None:
                raise Mistake("is said by somebody else" if name in others else "is unknown", name)
            try:
                check(inner)
            except Mistake as mistake:
                raise mistake.within(name) from None
        for name in required:
            if name not in value:
                raise Mistake("is missing", name)

    return check_object


def _array(given: Mapping[str, Any], depth: int) -> Check:
    least = _bound(given, "minItems", 0, ITEMS_MOST)
    most = _bound(given, "maxItems", ITEMS, ITEMS_MOST)
    try:
        check = _compiled(given.get("items"), depth + 1)
    except Mistake as mistake:
        raise mistake.within("items") from None

    def check_array(value: Any) -> None:
        if type(value) is not list:
            raise Mistake("must be an array")
        if not least <= len(value) <= most:
            raise Mistake(f"must have from {least} to {most} items")
        for index, item in enumerate(value):
            try:
                check(item)
            except Mistake as mistake:
                raise mistake.within(str(index)) from None

    return check_array


def _string(given: Mapping[str, Any], depth: int) -> Check:
    least = _bound(given, "minLength", 0, LENGTH_MOST)
    pattern = given.get("pattern")
    bound = LENGTH_MOST if pattern is None else PATTERN_MOST
    most = _bound(given, "maxLength", LENGTH, bound)
    try:
        search = re.compile(pattern).search if pattern is not None else None
    except (re.error, TypeError):
        raise Mistake("is no regular expression", "pattern") from None

    def check(value: Any) -> None:
        if type(value) is not str:
            raise Mistake("must be a text")
        if not least <= len(value) <= most:
            raise Mistake(f"must have from {least} to {most} characters")
        if search is not None and search(value) is None:
            raise Mistake("does not have the right form")

    return check


def _number_of(is_whole: bool) -> Callable[[Mapping[str, Any], int], Check]:
    def make(given: Mapping[str, Any], depth: int) -> Check:
        least = _limit(given, "minimum", -(2**53) if is_whole else -math.inf)
        most = _limit(given, "maximum", 2**53 if is_whole else math.inf)
        said = "a whole number" if is_whole else "a number"

        def check(value: Any) -> None:
            if type(value) is not int and (is_whole or type(value) is not float):
                raise Mistake(f"must be {said}")
            if not least <= value <= most or value in (math.inf, -math.inf):
                raise Mistake(f"must be {said} from {least:.15g} to {most:.15g}")

        return check

    return make


def _limit(given: Mapping[str, Any], name: str, default: float) -> float:
    value = given.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise Mistake("must be a number", name)
    return value


def _boolean(given: Mapping[str, Any], depth: int) -> Check:
    def check(value: Any) -> None:
        if type(value) is not bool:
            raise Mistake("must be true or false")

    return check


MAKERS: Final[Mapping[str, Callable[[Mapping[str, Any], int], Check]]] = {
    "object": _object_of,
    "array": _array,
    "string": _string,
    "integer": _number_of(True),
    "number": _number_of(False),
    "boolean": _boolean,
}
