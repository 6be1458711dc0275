"""`scripts/run --cluster` shows two nodes that are one server, with the configuration that it is given."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from pathlib import Path
from urllib.request import urlopen

import pytest
from cassandra.cluster import Cluster
from ports import free_ports

from xmppd import ns
from xmppd.admin.client import request

pytestmark = [pytest.mark.own_engine, pytest.mark.asyncio]

SECONDS = 20.0
START_SECONDS = 80.0

SCRIPT = Path(__file__).parents[2] / "scripts" / "run"


async def greet(port: int) -> None:
    """Open a stream, and have it answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    header = f"<stream:stream xmlns='{ns.CLIENT}' xmlns:stream='{ns.STREAM}' to='localhost' version='1.0'>"
    writer.write(header.encode())
    async with asyncio.timeout(SECONDS):
        await reader.readuntil(b"<stream:features>")
    writer.close()


def states(folder: Path) -> list[tuple[str, str]]:
    """The nodes that the first one knows, each with its state."""
    rows = request(folder / "node1" / "xmppd.sock", "node list", {}, seconds=SECONDS)
    return sorted((row["node"], row.get("state", "")) for row in rows)


async def test_two_nodes_begin_and_end(
    tmp_path: Path, cassandra_nodes: list[tuple[str, int]], redis_url: str
) -> None:
    ports, keyspace = free_ports(8), f"xmppd_test_{uuid.uuid4().hex[:12]}"
    settings = {
        "XMPPD_CONFIG": "config/game.yaml",
        "RUN_PORTS": " ".join(map(str, ports)),
        "RUN_DATA": str(tmp_path),
        "XMPPD_TEST_CASSANDRA": ",".join(f"{host}:{port}" for host, port in cassandra_nodes),
        "XMPPD_TEST_REDIS": redis_url,
        "XMPPD__STORE__CASSANDRA__KEYSPACE": keyspace,
        "XMPPD__CACHE__PREFIX": keyspace,
    }
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XMPPD")}
    running = await asyncio.create_subprocess_exec(
        str(SCRIPT), "--cluster", env=environment | settings, stderr=asyncio.subprocess.PIPE
    )
    assert running.stderr is not None
    try:
        said = ""
        async with asyncio.timeout(START_SECONDS):
            while "Both nodes" not in said:
                line = await running.stderr.readline()
                assert line, said
                said += line.decode()
        up = [(f"127.0.0.1:{port}", "up") for port in sorted((ports[2], ports[6]))]
        async with asyncio.timeout(SECONDS):
            while states(tmp_path) != up:  # noqa: ASYNC110 - they meet when both take commands
                await asyncio.sleep(0.1)
        for port in (ports[0], ports[4]):
            await greet(port)
        for port in (ports[3], ports[7]):
            ready = await asyncio.to_thread(urlopen, f"http://127.0.0.1:{port}/readyz", timeout=SECONDS)
            assert ready.status == 200
        for node in ("node1", "node2"):
            plugins = request(tmp_path / node / "xmppd.sock", "plugin list", {}, seconds=SECONDS)
            assert "rich_presence" in str(plugins)
        shown = [(tmp_path / node / "demo-accounts").read_text() for node in ("node1", "node2")]
        assert shown[0] == shown[1]
        assert [line.split()[0] for line in shown[0].splitlines()] == ["alice@localhost", "bob@localhost"]
        running.send_signal(signal.SIGINT)
        await running.stderr.read()
        assert await running.wait() == 0
        assert not [*tmp_path.glob("*/xmppd.sock")]  # noqa: ASYNC240 - nothing else is going on
    finally:
        if running.returncode is None:
            running.send_signal(signal.SIGTERM)
            await running.stderr.read()
        with Cluster(cassandra_nodes, connect_timeout=20) as cluster:
            cluster.connect().execute(f"DROP KEYSPACE IF EXISTS {keyspace}", timeout=60)
