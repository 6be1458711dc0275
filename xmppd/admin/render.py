"""Results of commands as text for a terminal: tables for rows, one line for each key of a mapping."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from xmppd.text import escape


def render(result: Any) -> str:
    """The text for any JSON-like data, without a line end; empty for None. Controls become escapes."""
    if result is None:
        return ""
    if isinstance(result, Mapping):
        width = max(map(len, result), default=0) + 1
        return "\n".join(f"{key + ':':<{width}} {cell(value)}" for key, value in result.items())
    if isinstance(result, list) and result and all(isinstance(row, Mapping) for row in result):
        return table(result)
    if isinstance(result, list):
        return "\n".join(map(cell, result))
    return "\n".join(map(cell, result.split("\n"))) if isinstance(result, str) else cell(result)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Columns in the order in which the rows first name them, under a headline."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [[name.upper() for name in names], *([cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def line_of(record: Mapping[str, Any]) -> str:
    """One record of what is followed: when, where, what, all else by name; a stanza on its own line."""
    first = [cell(record[name]) for name in ("at", "node", "what") if record.get(name)]
    others = (name for name in record if name not in ("at", "node", "what", "xml"))
    rest = [f"{name}={cell(record[name])}" for name in others if record[name] not in (None, "", [], {})]
    line = "  ".join([*first, " ".join(rest)])
    return f"{line}\n    {cell(record['xml'])}" if record.get("xml") else line


def cell(value: Any) -> str:
    """One value on one line."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and all(isinstance(item, Mapping) and "name" in item for item in value):
        return ", ".join(cell(item["name"]) for item in value) or "-"
    if isinstance(value, list) and not any(isinstance(item, list | Mapping) for item in value):
        return ", ".join(map(cell, value)) or "-"
    if isinstance(value, list | Mapping):
        return json.dumps(value)
    return escape(str(value))
