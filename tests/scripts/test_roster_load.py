"""`scripts/bench/roster-load` in its short form, on the Cassandra that tests share."""

import subprocess
from pathlib import Path

from cassandra.cluster import Cluster

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "bench" / "roster-load"
SHORT = "--accounts 300 --contacts 20 --large 202 --reads 40".split()


def load(nodes: list[tuple[str, int]], *more: str) -> subprocess.CompletedProcess[str]:
    points = ",".join(f"{host}:{port}" for host, port in nodes)
    command = [SCRIPT, *SHORT, "--cassandra", points, *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def keyspaces(nodes: list[tuple[str, int]]) -> set[str]:
    cluster = Cluster(nodes)
    try:
        rows = cluster.connect().execute("SELECT keyspace_name FROM system_schema.keyspaces")
        return {row.keyspace_name for row in rows if row.keyspace_name.startswith("xmppd_load_")}
    finally:
        cluster.shutdown()


def test_rosters_are_written_and_read(cassandra_nodes: list[tuple[str, int]]) -> None:
    done = load(cassandra_nodes, "--at-least", "1")
    assert done.returncode == 0, done.stderr
    lines = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    written = {cells[0]: cells[1] for cells in lines if "rosters of" in cells[0]}
    assert written == {"300 rosters of 20": "6,000", "202 rosters of 200": "40,400"}
    reads = [(cells[0], int(cells[1])) for cells in lines if cells[0] in ("cold", "next", "warm")]
    assert sorted(reads) == sorted((when, size) for when in ("cold", "next", "warm") for size in (20, 200))
    assert keyspaces(cassandra_nodes) == set()


def test_too_slow_is_a_failure(cassandra_nodes: list[tuple[str, int]]) -> None:
    done = load(cassandra_nodes, "--at-least", "1e9")
    assert done.returncode == 1
    assert "fewer than 1,000,000,000 rows/s" in done.stderr
