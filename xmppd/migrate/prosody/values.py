"""Values as Prosody keeps them in SQL (mod_storage_sql): a type, and a text that is of it.

JSON has no tables with other keys than texts, so util.json writes those as lists: `__array` has what is under
1, 2, 3 and so on, `__hash` has all others as key, value, key, value. A list alone is `__array` alone.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from xmppd.migrate.prosody.lua import DEEPEST, Flag, Key, Table, Value
from xmppd.migrate.prosody.stanza import Xml

ARRAY, HASH = "__array", "__hash"


class BadValue(ValueError):
    """The text is not of its type."""


def value_of(kind: str, text: str) -> Value:
    """What one row holds. BadValue."""
    if kind == "json":
        return _of_json(text)
    if kind == "string":
        return text
    if kind == "xml":
        return Xml(text)
    if kind == "number":
        return _number(text)
    if kind == "boolean" and text in ("true", "false"):
        return text == "true"
    raise BadValue("no boolean" if kind == "boolean" else "of a type that is not known")


def _number(text: str) -> int | float:
    try:
        number = float(text)
    except ValueError:
        raise BadValue("no number") from None
    if not math.isfinite(number):
        raise BadValue("no number")
    return int(number) if number.is_integer() and abs(number) < 1 << 53 else number


def _of_json(text: str) -> Value:
    try:
        found = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise BadValue(f"more than {DEEPEST} levels") from None
    except ValueError:
        raise BadValue("not well-formed JSON") from None
    value = _converted(found, 1)
    if value is None:
        raise BadValue("nothing")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _converted(found: Any, depth: int) -> Value | None:
    if isinstance(found, dict):
        return _table(found, depth)
    if isinstance(found, list):
        table: Table = {}
        _fill(table, found, depth)
        return table
    return found  # type: ignore[no-any-return]


def _table(found: dict[str, Any], depth: int) -> Table:
    if depth > DEEPEST:
        raise BadValue(f"more than {DEEPEST} levels")
    table: Table = {}
    for key, inner in found.items():
        if key not in (ARRAY, HASH) and (value := _converted(inner, depth + 1)) is not None:
            table[key] = value
    if ARRAY in found:
        _fill(table, found[ARRAY], depth)
    if HASH in found:
        pairs = _listed(found[HASH])
        for key, inner in zip(pairs[::2], pairs[1::2], strict=False):
            if (value := _converted(inner, depth + 1)) is not None:
                table[_key(key)] = value
    return table


def _fill(table: Table, found: Any, depth: int) -> None:
    if depth > DEEPEST:
        raise BadValue(f"more than {DEEPEST} levels")
    for position, inner in enumerate(_listed(found), 1):
        if (value := _converted(inner, depth + 1)) is not None:
            table[position] = value


def _listed(found: Any) -> list[Any]:
    if not isinstance(found, list):
        raise BadValue(f"{ARRAY} or {HASH} that is no list")
    return found


def _key(found: Any) -> Key:
    if isinstance(found, bool):
        return Flag.TRUE if found else Flag.FALSE
    if not isinstance(found, str | int | float):
        raise BadValue("a key that is none")
    return found
