"""Engines fail under real servers and load: the short forms of `scripts/bench/faults`."""

import os
import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.own_engine

FAULTS = Path(__file__).parents[2] / "scripts" / "bench" / "faults"


@pytest.fixture
def faults(free_ports):
    """Runs the script, and gives what it said."""

    def run(*arguments, seconds, **environ):
        port = str(free_ports(8)[0])
        command = [FAULTS, *arguments, "--port", port]
        done = subprocess.run(
            command,
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        print(done.stdout, done.stderr)
        assert done.returncode == 0, done.stdout
        return done.stdout

    return run


@pytest.mark.timeout(360)
def test_nodes_of_a_ring_are_killed(faults):
    """One is not missed; without two or all nothing is acknowledged; everything goes on, and nothing is lost,
    when they are back.
    """
    said = faults("cassandra", "ring", "--seconds", "5", "--pace", "2", seconds=340)
    for outage in ("killed too", "all nodes killed"):
        assert re.search(rf"{outage}: .* refused \{{.*'message: wait resource-constraint'", said)
    assert said.count("everybody was served after") == 2


@pytest.mark.timeout(200)
def test_redis_fails(faults, cassandra_nodes):
    """Killed, restarted empty, slow, full: nobody is refused anything, every roster is that of the store."""
    points = ",".join(f"{host}:{port}" for host, port in cassandra_nodes)
    said = faults("redis", "--seconds", "2", seconds=180, XMPPD_TEST_CASSANDRA=points)
    assert said.count("rosters: 12 accounts, as 4 servers show them") >= 5
