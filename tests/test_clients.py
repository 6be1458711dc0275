"""On several nodes a test of one client alone runs on one."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import stores
from clients import Clients

from xmppd.testing import World


def run(clients: Clients, name: str, connections: int) -> int:
    """Have it run a test that connects so often; on how many nodes."""
    running = clients.pytest_runtest_protocol(SimpleNamespace(nodeid=name))  # type: ignore[arg-type]
    next(running)
    nodes = clients.nodes
    for _ in range(connections):
        World.connect(SimpleNamespace(apps=[None], clients=[]), node=None)  # type: ignore[arg-type]
    with pytest.raises(StopIteration):
        running.send(None)
    return nodes


@pytest.fixture(autouse=True)
def no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(World, "connect", lambda *_, **__: None)


def test_what_was_counted_on_one_node_decides_on_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "NODES", 1)
    counting = Clients(tmp_path)
    counts = {"nobody": 0, "one": 1, "two": 2, "many": 7}
    assert {run(counting, name, count) for name, count in counts.items()} == {1}
    counting.pytest_sessionfinish()
    assert [json.loads(file.read_text()) for file in tmp_path.iterdir()] == [counts]

    monkeypatch.setattr(stores, "NODES", 2)
    knowing = Clients(tmp_path)
    assert {name: run(knowing, name, 0) for name in [*counts, "new"]} == {
        "nobody": 1,
        "one": 1,
        "two": 2,
        "many": 2,
        "new": 2,
    }
    knowing.pytest_sessionfinish()
    assert len([*tmp_path.iterdir()]) == 1


def test_what_was_not_counted_runs_on_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "NODES", 3)
    assert run(Clients(tmp_path), "one", 0) == 3
