"""Making SQLite's tables from declarations, and moving old ones on.

The table `_schema` keeps what each table was last declared to be. A column that is no longer declared stays,
with its data, in the file and in `_schema`, so that it cannot come back as something else.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from xmppd.errors import StoreBug
from xmppd.store._layout import Layout, SqlTable
from xmppd.store.table import Table

Declaration = dict[str, Any]
"""`partition`, `cluster`: lists of [column, type]; `columns`, `static`: column -> type; `descending`."""


def migrate(cursor: sqlite3.Cursor, tables: Sequence[Table]) -> None:
    """Create or extend `tables` inside the open transaction; StoreBug that says why if one cannot be."""
    cursor.execute(
        "CREATE TABLE IF NOT EXISTS _schema (name TEXT PRIMARY KEY, declaration TEXT NOT NULL) WITHOUT ROWID"
    )
    for table in tables:
        new = _declaration(table)
        found = cursor.execute("SELECT declaration FROM _schema WHERE name = ?", (table.name,)).fetchone()
        if found is None:
            _create(cursor, Layout(table).tables)
            merged = new
        else:
            merged = _extend(cursor, table, json.loads(found[0]), new)
        cursor.execute(
            "INSERT INTO _schema VALUES (?1, ?2) "
            "ON CONFLICT DO UPDATE SET declaration = ?2 WHERE declaration <> ?2",
            (table.name, json.dumps(merged, sort_keys=True)),
        )


def _declaration(table: Table) -> Declaration:
    return {
        "partition": [[column, table.type_of(column)] for column in table.partition],
        "cluster": [[column, table.type_of(column)] for column in table.cluster],
        "columns": {column: kind for column, kind in table.columns.items() if column not in table.key},
        "static": dict(table.static),
        "descending": table.descending,
    }


def _create(cursor: sqlite3.Cursor, parts: Sequence[SqlTable]) -> None:
    for part in parts:
        for statement in part.create():
            cursor.execute(statement)


def _extend(cursor: sqlite3.Cursor, table: Table, old: Declaration, new: Declaration) -> Declaration:
    """Add the new columns; what is declared from now on together with what is only kept."""
    _refuse_changes(table, old, new)
    layout = Layout(table)
    for column in new["columns"]:
        if column not in old["columns"]:
            cursor.execute(layout.rows.add_column(column))
    if layout.static is not None and not old["static"]:
        _create(cursor, [layout.static])
    elif layout.static is not None:
        for column in new["static"]:
            if column not in old["static"]:
                cursor.execute(layout.static.add_column(column))
    return {
        **new,
        "columns": {**old["columns"], **new["columns"]},
        "static": {**old["static"], **new["static"]},
    }


def _refuse_changes(table: Table, old: Declaration, new: Declaration) -> None:
    for part, words in (("partition", "partition key"), ("cluster", "clustering key")):
        if old[part] != new[part]:
            was, wants = (", ".join(f"{c} {kind}" for c, kind in d[part]) or "nothing" for d in (old, new))
            raise StoreBug(
                f"table {table.name}: the {words} was {was} and is now declared as {wants}, "
                "but a key cannot change: declare a table with another name and copy the rows"
            )
    if old["descending"] != new["descending"]:
        raise StoreBug(
            f"table {table.name}: `descending` was {old['descending']}, but the order of rows cannot change: "
            "scan with `reverse`, or declare a table with another name and copy the rows"
        )
    for part, other in (("columns", "static"), ("static", "columns")):
        for column, kind in new[part].items():
            if column in old[other]:
                raise StoreBug(
                    f"table {table.name}: the column {column} cannot become "
                    f"{'static' if part == 'static' else 'plain'}: give the new column another name"
                )
            if (was := old[part].get(column, kind)) != kind:
                raise StoreBug(
                    f"table {table.name}: the column {column} was {was} and is now declared as {kind}, "
                    "but a type cannot change: give the new column another name"
                )
