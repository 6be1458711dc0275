"""What a table is declared to be as plain data, and which changes of it an engine can follow.

Engine-neutral. Each engine keeps these declarations beside its tables. A column that is no longer declared
stays, with its data, in the table and in the declaration, so that it cannot come back as something else.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from xmppd.errors import StoreBug
from xmppd.store.person import Person, Through
from xmppd.store.table import Table

Declaration = dict[str, Any]
"""`partition`, `cluster`: lists of [column, type]; `columns`, `static`: column -> type; `descending`; `order`
and `person`, which are not there in old ones.
"""


def declared(table: Table) -> Declaration:
    """The declaration of a table as data. Its TTL is not in it: that is a matter of each row."""
    return {
        "partition": [[column, table.type_of(column)] for column in table.partition],
        "cluster": [[column, table.type_of(column)] for column in table.cluster],
        "columns": {column: kind for column, kind in table.columns.items() if column not in table.key},
        "static": dict(table.static),
        "descending": table.descending,
        "order": table.order,
        "person": None if table.person is None else json.loads(json.dumps(asdict(table.person))),
    }


def table_of(name: str, declaration: Declaration) -> Table:
    """A table by its declaration, for who reads and deletes: without what is for those who write new rows."""
    partition, cluster = ([column for column, _ in declaration[part]] for part in ("partition", "cluster"))
    keys = dict([*declaration["partition"], *declaration["cluster"]])
    person = declaration.get("person")
    return Table(
        name,
        tuple(partition),
        tuple(cluster),
        {**{column: kind for column, kind in keys.items() if kind != "text"}, **declaration["columns"]},
        declaration["static"],
        descending=declaration["descending"],
        order=declaration.get("order"),
        person=None if person is None else _person(person),
    )


def _person(data: dict[str, Any]) -> Person:
    through = data["through"]
    if through is not None:
        through = Through(through["table"], tuple(through["numbers"]), through["rest"])
    return Person(**{**data, "through": through})


def merged(table: Table, old: Declaration | None) -> Declaration:
    """What is declared now together with what is only kept; StoreBug that says why if it cannot follow
    `old`.
    """
    new = declared(table)
    if old is None:
        return new
    _refuse_other_keys(table, old, new)
    _refuse_other_columns(table, old, new)
    return {
        **new,
        "columns": {**old["columns"], **new["columns"]},
        "static": {**old["static"], **new["static"]},
    }


def missing(table: Table, old: Declaration | None) -> list[str]:
    """What has to be made of a table recorded as `old`, in words: tables, columns."""
    if old is None:
        return [f"table {table.name}"]
    new = declared(table)
    return [
        f"column {column} of table {table.name}"
        for part in ("columns", "static")
        for column in new[part]
        if column not in old[part]
    ]


def column_names(declaration: Declaration) -> list[str]:
    """All columns, those of the key first."""
    keys = [column for column, _ in (*declaration["partition"], *declaration["cluster"])]
    return [*keys, *declaration["columns"], *declaration["static"]]


def as_text(declaration: Declaration) -> str:
    """The form in which a declaration is kept and compared."""
    return json.dumps(declaration, sort_keys=True)


def _refuse_other_keys(table: Table, old: Declaration, new: Declaration) -> None:
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


def _refuse_other_columns(table: Table, old: Declaration, new: Declaration) -> None:
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
