"""Making SQLite's tables from declarations, and moving old ones on.

The table `_schema` keeps what each table was last declared to be.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from xmppd.store._declaration import Declaration, as_text, column_names, merged, missing
from xmppd.store.sqlite.layout import Layout, SqlTable
from xmppd.store.table import Table


def migrate(cursor: sqlite3.Cursor, tables: Sequence[Table]) -> list[str]:
    """Create or extend `tables` inside the open transaction, and say what was made, in words.

    StoreBug that says why if one cannot be.
    """
    cursor.execute(
        "CREATE TABLE IF NOT EXISTS _schema (name TEXT PRIMARY KEY, declaration TEXT NOT NULL) WITHOUT ROWID"
    )
    done = []
    for table in tables:
        old = recorded(cursor, table.name)
        wanted = merged(table, old)
        done += missing(table, old)
        if old is None:
            _create(cursor, Layout(table).tables)
        else:
            _extend(cursor, table, old)
        cursor.execute(
            "INSERT INTO _schema VALUES (?1, ?2) "
            "ON CONFLICT DO UPDATE SET declaration = ?2 WHERE declaration <> ?2",
            (table.name, as_text(wanted)),
        )
    return done


def recorded(cursor: sqlite3.Cursor, name: str) -> Declaration | None:
    """What the table was last declared to be; None when there is no such table."""
    found = cursor.execute("SELECT declaration FROM _schema WHERE name = ?", (name,)).fetchone()
    return None if found is None else dict(json.loads(found[0]))


def lacking(cursor: sqlite3.Cursor, tables: Sequence[Table]) -> list[str]:
    """What `migrate` would make, in words; StoreBug for what cannot be made."""
    has_schema = cursor.execute("SELECT 1 FROM sqlite_schema WHERE name = '_schema'").fetchone()
    found = []
    for table in tables:
        old = recorded(cursor, table.name) if has_schema else None
        merged(table, old)
        found += missing(table, old)
    return found


def described(cursor: sqlite3.Cursor) -> list[dict[str, Any]]:
    """Every table ever declared, with its columns."""
    found = cursor.execute("SELECT name, declaration FROM _schema ORDER BY name").fetchall()
    return [{"name": name, "columns": column_names(json.loads(text))} for name, text in found]


def _create(cursor: sqlite3.Cursor, parts: Sequence[SqlTable]) -> None:
    for part in parts:
        for statement in part.create():
            cursor.execute(statement)


def _extend(cursor: sqlite3.Cursor, table: Table, old: Declaration) -> None:
    layout = Layout(table)
    for column in layout.rows.plain:
        if column not in old["columns"]:
            cursor.execute(layout.rows.add_column(column))
    if layout.static is not None and not old["static"]:
        _create(cursor, [layout.static])
    elif layout.static is not None:
        for column in layout.static.plain:
            if column not in old["static"]:
                cursor.execute(layout.static.add_column(column))
