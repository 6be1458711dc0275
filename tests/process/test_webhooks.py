"""kill -9 while a receiver of web hooks fails half of the time: no event of anything acknowledged is lost."""

import os
import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.own_engine

BENCH = Path(__file__).parents[2] / "scripts" / "bench" / "webhooks"


@pytest.mark.parametrize(("store", "nodes", "kills", "within"), [("sqlite", 1, 3, 2), ("cassandra", 2, 2, 4)])
def test_no_event_of_anything_acknowledged_is_lost(free_ports, request, store, nodes, kills, within):
    environ = dict(os.environ)
    if store == "cassandra":
        points = request.getfixturevalue("cassandra_nodes")
        environ["XMPPD_TEST_CASSANDRA"] = ",".join(f"{host}:{port}" for host, port in points)
        environ["XMPPD_TEST_REDIS"] = request.getfixturevalue("redis_url")
    how = (
        "--store",
        store,
        "--nodes",
        nodes,
        "--kills",
        kills,
        "--within",
        within,
        "--port",
        free_ports(25)[0],
    )
    done = subprocess.run([BENCH, *map(str, how)], env=environ, check=False, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stdout
    [refused] = re.findall(r'"500": (\d+)', done.stdout)
    assert int(refused) > 10, "the receiver hardly failed"
