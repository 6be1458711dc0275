"""What is in deploy/, as tests read it: its files, and the queries of board and alerts."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yaml"
BOARD = DEPLOY / "grafana" / "xmppd.json"
NAME = re.compile(r"(?<![\w\"=~./-])(?:xmppd|process)_[a-z0-9_]+(?![\w(/])")


class Strict(yaml.SafeLoader):
    """Refuses a key that is there twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"twice: {twice}", node.start_mark)
        return super().construct_mapping(node, deep=deep)


def documents(file: Path) -> list[Any]:
    """All documents of a file of YAML."""
    return list(yaml.load_all(file.read_text(encoding="utf-8"), Strict))


def alerts() -> list[dict[str, Any]]:
    """The rules."""
    return [rule for group in documents(ALERTS)[0]["groups"] for rule in group["rules"]]


def panels() -> Iterator[dict[str, Any]]:
    """The panels of the board that show something."""
    board = json.loads(BOARD.read_text(encoding="utf-8"))
    yield from (panel for panel in board["panels"] if panel["type"] != "row")


def queries() -> dict[str, str]:
    """Every query, by what it is for, without variables of Grafana."""
    found = {f"alert {rule['alert']}": rule["expr"] for rule in alerts()}
    for panel in panels():
        for target in panel["targets"]:
            query = target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")
            found[f"panel {panel['title']} {target['refId']}"] = query
    return found


def names_in(query: str) -> set[str]:
    """The names of metrics that a query uses."""
    return set(NAME.findall(query))
