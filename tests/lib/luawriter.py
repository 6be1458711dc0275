"""Tables written as Prosody writes them (util.serialization), for readers to be held against."""

from __future__ import annotations

import re

from xmppd.migrate.prosody.lua import Flag, Table, Value

NAMED = {7: "a", 8: "b", 9: "t", 10: "n", 11: "v", 12: "f", 13: "r", 34: '"', 39: "'", 92: "\\"}


def dat(table: Table) -> bytes:
    """A `.dat` file."""
    return b"return " + written(table).encode("ascii") + b";\n"


def item(table: Table) -> bytes:
    """One item of a `.list` file."""
    return b"item(" + written(table).encode("ascii") + b");\n"


def written(value: Value | Flag, depth: int = 1) -> str:
    """One value."""
    if isinstance(value, Flag):
        return value.value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return string(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return format(value, ".18g")
    out, position = ["{"], 1
    for key, inner in value.items():
        out.append("\n" + "\t" * depth)
        if key == position and not isinstance(key, str | Flag):
            position += 1
        else:
            out.append(f"[{written(key)}] = ")
        out.append(written(inner, depth + 1) + ";")
    if value:
        out.append("\n" + "\t" * (depth - 1))
    return "".join(out) + "}"


def string(text: str) -> str:
    """A string: printable ASCII as it is, all else escaped byte by byte."""
    data = text.encode("utf-8", "surrogateescape")
    escaped = re.sub(rb"[\x00-\x1f\"'\\\x7f-\xff]", lambda found: _escape(found[0][0]), data)
    return f'"{escaped.decode("ascii")}"'


def _escape(code: int) -> bytes:
    return f"\\{NAMED.get(code, format(code, '03d'))}".encode()
