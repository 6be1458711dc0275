"""`xmppd top` for people: the last snapshot of each node, by `rich` where that is installed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from typing import Any, Final, TextIO

from xmppd.admin.render import line_of, table

BUSIEST: Final = 10
"""Accounts of all nodes that are shown."""


class View:
    """What was last said by each node; one that is lost is shown no more."""

    def __init__(self) -> None:
        self.nodes: dict[str, Mapping[str, Any]] = {}
        self.note = ""

    def add(self, record: Mapping[str, Any]) -> None:
        """A record came."""
        node = record.get("node", "")
        if record["what"] == "top":
            self.nodes[node] = record
        else:
            self.note = line_of(record)
            if record["what"] == "note":
                self.nodes.pop(node, None)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each node."""
        return [_row(node, self.nodes[node]) for node in sorted(self.nodes)]

    def busiest(self) -> list[dict[str, Any]]:
        """The busiest accounts of all nodes."""
        found = [
            {"account": it["account"], "stanzas/s": it["per_second"], **({"node": node} if node else {})}
            for node, record in self.nodes.items()
            for it in record["busiest"]
        ]
        return sorted(found, key=lambda row: (-row["stanzas/s"], row["account"]))[:BUSIEST]


def _row(node: str, record: Mapping[str, Any]) -> dict[str, Any]:
    rates, cpu = record["stanzas_per_second"], record["cpu"]
    return {
        **({"node": node} if node else {}),
        "sessions": f"{record['sessions']:,}",
        "accounts": f"{record['accounts']:,}",
        **{f"{kind}/s": rates[kind] for kind in rates},
        "cpu": None if cpu is None else f"{cpu:.0%}",
        "lag": f"{record['lag_ms']} ms",
        "memory": f"{record['memory_mib']:,} MiB",
    }


def show(records: Iterable[Mapping[str, Any]], out: TextIO | None = None) -> None:
    """Show records until there are no others: on a terminal in one place, else one below the other."""
    stream = sys.stdout if out is None else out
    if stream.isatty() and importlib.util.find_spec("rich") is not None:
        _live(records, stream)
        return
    view = View()
    for record in records:
        view.add(record)
        tables = [table(rows) for rows in (view.rows(), view.busiest()) if rows]
        note = [view.note] if view.note else []
        stream.write("\n\n".join([record.get("at", ""), *tables, *note]) + "\n\n")
        stream.flush()


def _live(records: Iterable[Mapping[str, Any]], stream: TextIO) -> None:
    console = importlib.import_module("rich.console")
    live = importlib.import_module("rich.live")
    view = View()
    with live.Live(console=console.Console(file=stream), screen=True, auto_refresh=False) as shown:
        for record in records:
            view.add(record)
            parts = [_rich(view.rows(), "nodes"), _rich(view.busiest(), "busiest accounts"), view.note]
            shown.update(console.Group(*parts), refresh=True)


def _rich(rows: list[dict[str, Any]], title: str) -> Any:
    text = importlib.import_module("rich.text")
    found = importlib.import_module("rich.table").Table(title=title, expand=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        found.add_column(name, justify="left" if name in ("node", "account") else "right")
    for row in rows:
        # What is no markup of ours is none: names are what people choose.
        found.add_row(*(text.Text("-" if row.get(name) is None else str(row[name])) for name in names))
    return found
