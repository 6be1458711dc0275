"""The recipe of docs/operations.md for a backup of Cassandra, done with a real one: all is there again."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cassandra.cluster import Cluster

from engines import Engines

pytestmark = pytest.mark.own_engine

PLUGINS = ["ping", "offline"]


@pytest.fixture
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """A node of Cassandra that `nodetool` may ask."""
    made = Engines(tmp_path_factory.mktemp("engines"), 1, redis=False, jmx=True, tied=True)
    made.start()
    yield made
    made.remove()


def xmppd(file: Path, *words: str) -> Any:
    command = [sys.executable, "-m", "xmppd", "--config", str(file), "--json", *words]
    done = subprocess.run(command, cwd=file.parent, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout or "null")


def digest(file: Path) -> dict[str, tuple[int, str]]:
    """Entries and sum of each table; but not of the audit log, where the making of tables stands, too."""
    rows = xmppd(file, "store", "digest")["rows"]
    return {row["table"]: (row["entries"], row["sum"]) for row in rows if row["table"] != "audit_log"}


@pytest.mark.asyncio
async def test_a_snapshot_is_restored_into_a_new_keyspace(
    engines: Engines, prepared: Any, tmp_path: Path
) -> None:
    host, port = engines.contact_points[0]
    cassandra = {"contact_points": [f"{host}:{port}"], "keyspace": "game", "migrate": "check"}
    server = prepared(store={"engine": "cassandra", "cassandra": cassandra}, plugins={"enabled": PLUGINS})
    xmppd(server.file, "store", "migrate", "--create")
    await server.start()
    server.add("alice", "bob", "carol")
    server.command("roster befriend", one="alice@localhost", other="bob@localhost")
    alice = await server.login("alice")
    for number in range(30):
        await alice.send(f"<message to='bob@localhost' type='chat'><body>{number}</body></message>")
    await alice.ping()
    server.command("user remove", account="carol@localhost")
    await server.stop()
    before = digest(server.file)
    assert before["offline_queue"][0] == 30

    engines.nodetool("cassandra1", "snapshot", "-t", "nightly", "game")
    data = engines.folder / "cassandra1" / "data" / "game"
    backup = tmp_path / "backup"
    for snapshot in data.glob("*/snapshots/nightly"):
        table, _, number = snapshot.parent.parent.name.rpartition("-")
        assert len(number) == 32
        shutil.copytree(snapshot, backup / table)

    with Cluster([host], port=port) as cluster:
        cluster.connect().execute("DROP KEYSPACE game", timeout=30)
    xmppd(server.file, "store", "migrate", "--create")
    full = sorted(folder for folder in backup.iterdir() if [*folder.glob("*-Data.db")])
    assert {"account", "roster", "xmppd_schema"} <= {folder.name for folder in full}
    for folder in full:
        engines.nodetool("cassandra1", "import", "--copy-data", "game", folder.name, str(folder))
    xmppd(server.file, "store", "check")
    assert digest(server.file) == before

    await server.start()
    assert [row["account"] for row in server.command("user list")] == ["alice@localhost", "bob@localhost"]
    bob = await server.login("bob")
    assert await bob.bodies() == [str(number) for number in range(30)]
    assert [contact for contact, _ in await bob.roster()] == ["alice@localhost"]
    server.add("dora")
    server.command("roster befriend", one="dora@localhost", other="bob@localhost")
    await server.stop()
