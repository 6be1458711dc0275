"""What several nodes cost: the short form of `scripts/bench/cluster`."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.own_engine

BENCH = Path(__file__).parents[2] / "scripts" / "bench"


@pytest.mark.timeout(200)
def test_every_figure_is_found(cassandra_nodes: Any, redis_url: str, free_ports: Any) -> None:
    """What it says of frames is the same on every machine; of times only that there are some."""
    environ = {
        **os.environ,
        "XMPPD_TEST_CASSANDRA": ",".join(f"{host}:{port}" for host, port in cassandra_nodes),
        "XMPPD_TEST_REDIS": redis_url,
    }
    command = [BENCH / "cluster", "--short", "--json", "--rounds", "1", "--only", "chat,presence"]
    command += ["--port", str(free_ports(40)[0])]
    done = subprocess.run(command, env=environ, check=False, capture_output=True, text=True, timeout=190)
    print(done.stderr)
    figures = {(figure["part"], figure["what"]): figure for figure in json.loads(done.stdout)}
    assert {part for part, _ in figures} == {"chat", "presence"}
    alone = figures["chat", "1 under way"]["data"]
    assert 0.8 <= alone["in_frame"] <= 1.2
    assert alone["sender"] > 0
    assert alone["receiver"] > 0
    change = figures["presence", "one with 50 contacts over 4 nodes, 1 changes at once"]
    assert 2.5 < change["data"]["frames"] < 3.5
