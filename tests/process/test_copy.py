"""`xmppd store copy` as operators run it: killed at any moment, run again, refused where it would do harm."""

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from cassandra.cluster import Cluster

from xmppd.core.accounts import ACCOUNT
from xmppd.core.lastseen import LAST_PRESENCE
from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Stored, Table

pytestmark = pytest.mark.own_engine

OLD = Table("gone_things", partition=("name",), columns={"value": "text"})
VCARDS = Table("vcard_cards", partition=("account",), columns={"card": "blob"})
ACCOUNTS = 12_000
FEWER = 3_000
END = time.time() + 1e8


class Places:
    """Two configurations in a folder, and the program."""

    def __init__(self, folder: Path, **folders: Path) -> None:
        self.folder = folder
        for name in ("a", "b"):
            data = folders.get(name, folder / name)
            data.mkdir(exist_ok=True)
            (folder / f"{name}.yaml").write_text(f"server: {{data_folder: {data}}}\n")

    def database(self, name: str) -> Path:
        return self.folder / name / "xmppd.sqlite"

    async def fill(self, accounts: int, *more: Table) -> None:
        """An installation with so many accounts, each with a vCard and last words that end some day."""
        store = SqliteStore(self.database("a"))
        await store.open([ACCOUNT, LAST_PRESENCE, VCARDS, *more])
        names = [(f"u{number}@localhost",) for number in range(accounts)]
        for at in range(0, accounts, 500):
            part = names[at : at + 500]
            await store.restore(ACCOUNT, [Stored(name, {"created": 1.0, "disabled": False}) for name in part])
            await store.restore(VCARDS, [Stored(name, {"card": b"<vCard/>"}) for name in part])
            await store.restore(
                LAST_PRESENCE, [Stored(name, {"head": b"<", "at": 1.0}, END) for name in part]
            )
        for table in more:
            await store.put(table, {"name": "x", "value": "y"})
        await store.close()

    def command(self, *options: str, source: str = "a", target: str = "b") -> list[str]:
        files = [str(self.folder / f"{name}.yaml") for name in (source, target)]
        return [
            sys.executable,
            "-m",
            "xmppd",
            "store",
            "copy",
            "--from",
            files[0],
            "--to",
            files[1],
            *options,
        ]

    def run(self, *options: str, **places: str) -> subprocess.CompletedProcess[str]:
        command = self.command(*options, **places)
        return subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=120, env=environ()
        )

    def kill(self, seconds: float, **places: str) -> int:
        """Run it, and kill it after a while; its exit code."""
        process = subprocess.Popen(
            self.command(**places), env=environ(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            return process.wait()

    def contents(self, name: str) -> dict[str, list[tuple[object, ...]]]:
        """Every row of every table of a database, as SQLite has it; but for who copied it when, which the
        source of that has too.
        """
        with sqlite3.connect(self.database(name)) as connection:
            names = [
                row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            ]
            tables = {table: connection.execute(f'SELECT * FROM "{table}"').fetchall() for table in names}
        connection.close()
        return {
            table: rows for table, rows in tables.items() if rows and table not in ("_schema", "audit_log")
        }

    def log(self, name: str) -> list[tuple[object, ...]]:
        """The rows of its audit log, as SQLite has them."""
        with contextlib.closing(sqlite3.connect(self.database(name))) as connection:
            return connection.execute("SELECT * FROM audit_log").fetchall()


def environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("XMPPD_")}


@pytest.fixture
def places(tmp_path):
    return Places(tmp_path)


@pytest.mark.timeout(300)
@pytest.mark.asyncio
async def test_killed_at_random_moments_it_goes_on_and_nothing_is_missing(places):
    await places.fill(ACCOUNTS)
    chance = random.Random(5)
    ends = [places.kill(chance.uniform(0.3, 1.2)) for _ in range(10)]
    assert ends.count(-signal.SIGKILL) >= 5
    if 0 not in ends:
        done = places.run("--json")
        assert done.returncode == 0, done.stderr
        rows = {row["table"]: row for row in json.loads(done.stdout)}
        assert rows["account"] == {
            "table": "account", "entries": ACCOUNTS, "missing": 0, "different": 0, "extra": 0,
        }  # fmt: skip
    assert places.contents("b") == places.contents("a")
    [copied] = places.log("a")
    assert "store copy" in copied and places.log("b") == [copied]


@pytest.fixture
def cassandra(places, cassandra_nodes):
    """Makes `c.yaml` mean a keyspace of its own, where tables are made by commands only."""
    name = f"xmppd_test_{uuid.uuid4().hex[:12]}"
    points = [f"{host}:{port}" for host, port in cassandra_nodes]
    (places.folder / "c.yaml").write_text(
        f"server: {{data_folder: {places.folder / 'c'}}}\n"
        "store:\n  engine: cassandra\n"
        f"  cassandra: {{contact_points: {json.dumps(points)}, keyspace: {name}, migrate: check}}\n"
    )
    yield
    cluster = Cluster(cassandra_nodes)
    cluster.connect().execute(f"DROP KEYSPACE IF EXISTS {name}", timeout=30)
    cluster.shutdown()


@pytest.mark.timeout(300)
@pytest.mark.asyncio
@pytest.mark.usefixtures("cassandra")
async def test_to_cassandra_killed_on_the_way_and_back(places):
    await places.fill(FEWER)
    chance = random.Random(6)
    ends = [places.kill(chance.uniform(0.8, 2.5), target="c") for _ in range(5)]
    assert -signal.SIGKILL in ends
    if 0 not in ends:
        done = places.run(target="c")
        assert done.returncode == 0, done.stderr
    assert places.run(target="c", source="a").returncode == 1  # it has rows, and no copy is under way
    done = places.run("--json", source="c", target="b")
    assert done.returncode == 0, done.stderr
    assert {row["table"]: row["entries"] for row in json.loads(done.stdout)}["vcard_cards"] == FEWER
    mine, theirs = places.contents("a"), places.contents("b")
    ends_at = [row[-1] for row in theirs.pop("last_presence")]
    assert max(abs(end - row[-1]) for end, row in zip(ends_at, mine.pop("last_presence"), strict=True)) < 10
    assert theirs == mine


@pytest.mark.asyncio
async def test_back_and_forth(places):
    await places.fill(100)
    before = places.contents("a")
    assert places.run().returncode == 0
    places.database("a").unlink()
    assert places.run(source="b", target="a").returncode == 0
    assert places.contents("a") == before


@pytest.mark.asyncio
async def test_what_it_says(places):
    await places.fill(100)
    done = places.run()
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].split() == ["TABLE", "ENTRIES", "MISSING", "DIFFERENT", "EXTRA"]
    assert re.search(r"^vcard_cards +100 +0 +0 +0$", done.stdout, re.MULTILINE)
    assert done.stderr.splitlines() == [
        "counting: 300 rows",
        "copying: 300 rows  100%",
        "comparing: 300 rows  100%",
        "looking for more in the target: 300 rows  100%",
    ]


@pytest.mark.asyncio
async def test_tables_of_plugins_that_are_not_loaded_are_named(places):
    await places.fill(10, OLD)
    done = places.run()
    assert done.returncode == 0
    assert (
        "warning: not copied, for no plugin of the configurations declares them: gone_things\n" in done.stderr
    )
    assert "gone_things" not in places.contents("b")


@pytest.mark.asyncio
async def test_a_full_target_is_refused(places):
    await places.fill(10)
    assert places.run().returncode == 0
    again = places.run()
    assert (again.returncode, again.stdout) == (1, "")
    assert "the target has rows already (table account)" in again.stderr


@pytest.mark.asyncio
async def test_a_change_after_copying_is_found(places):
    await places.fill(10)
    assert places.run().returncode == 0
    assert places.run("--compare").returncode == 0
    store = SqliteStore(places.database("a"))
    await store.open([ACCOUNT])
    await store.put(ACCOUNT, {"account": "u3@localhost", "disabled": True})
    await store.delete(ACCOUNT, ("u4@localhost",))
    await store.close()
    found = places.run("--compare")
    assert (found.returncode, found.stdout) == (1, "")
    assert "account: 0 missing, 1 different, 1 too many" in found.stderr
    assert "account ('u3@localhost',) differs in disabled" in found.stderr


@pytest.mark.asyncio
async def test_half_a_copy_is_no_source(places):
    await places.fill(ACCOUNTS)
    seconds = 0.4
    while not places.database("b").exists() or "store_copy" not in places.contents("b"):
        assert places.kill(seconds) != 0
        seconds *= 1.2  # a busy machine takes longer to begin
    refused = places.run(source="b", target="a")
    assert refused.returncode == 1
    assert "the source is an unfinished copy of sqlite" in refused.stderr


def test_what_is_not_there_or_is_the_same_is_refused(places):
    missing = places.run()
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
    assert "there is no store to copy" in missing.stderr
    assert not places.database("b").exists()
    assert "both configurations have the same store" in places.run(target="a").stderr
    assert places.run(source="nothing").returncode == 78
    assert places.run("--never").returncode == 2


@pytest.mark.asyncio
async def test_a_store_that_cannot_be_opened(places):
    await places.fill(1)
    places.database("b").mkdir()
    assert places.run().returncode == 69


@pytest.mark.asyncio
async def test_a_running_server_is_in_the_way(serve, tmp_path):
    server = await serve()
    places = Places(tmp_path, a=server.data)
    refused = await asyncio.to_thread(places.run)
    assert refused.returncode == 1
    assert f"the server of the source is running (it answers at {server.data}/xmppd.sock)" in refused.stderr
    done = await asyncio.to_thread(places.run, "--allow-running")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^account +4 +0 +0 +0$", done.stdout, re.MULTILINE)
