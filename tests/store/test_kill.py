"""kill -9 at any moment loses no acknowledged write, and leaves nothing of one partition half done."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from xmppd.store.cassandra.store import CassandraStore
from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Store, Table

ROOT = Path(__file__).parents[2]
WRITER = Path(__file__).with_name("writer_until_killed.py")
ROWS = Table("rows", ("run",), ("number",), {"number": "int", "text": "text"})
TRIPLES = Table(
    "triples", ("part",), ("place",), {"place": "int", "version": "int"}, static={"version_now": "int"}
)
PAIRS = Table("pairs", ("part",), ("place",), {"place": "int", "stanza": "blob"}, heap=True)
KILLS = 60
KILLS_ON_CASSANDRA = 8


def kill_one(place: str, run: int, lines: int) -> list[list[str]]:
    """Kill a writer when it has acknowledged so many writes; all it acknowledged."""
    command = [sys.executable, str(WRITER), place, str(run)]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert writer.stdout is not None
    with writer.stdout as output:
        said = b""
        while said.count(b"\n") < lines:
            part = os.read(output.fileno(), 65536)
            assert part, "the writer died by itself"
            said += part
        writer.send_signal(signal.SIGKILL)
        while part := os.read(output.fileno(), 65536):
            said += part
    assert writer.wait() == -signal.SIGKILL
    complete, _, _ = said.rpartition(b"\n")
    return [line.split() for line in complete.decode().splitlines()]


async def check(store: Store, run: int, acknowledged: list[list[str]]) -> None:
    found = {row["number"]: row["text"] for row in (await store.scan(ROWS, (str(run),))).rows}
    for number in (int(line[1]) for line in acknowledged if line[0] == "row"):
        assert found[number] == "x" * (number % 2000)
    await check_writes(store, run, {int(line[1]) for line in acknowledged if line[0] == "write"})
    versions = {line[1]: int(line[2]) for line in acknowledged if line[0] == "batch"}
    started = max(map(int, versions), default=0) + 20
    for number in range(started):
        part = f"{run}/{number}"
        rows = (await store.scan(TRIPLES, (part,))).rows
        seen = {(row["version"], row["version_now"]) for row in rows}
        assert (len(rows), len(seen)) in ((0, 0), (3, 1)), f"batch {part} is half done: {rows}"
        version = next(iter(seen), (0, 0))
        assert version[0] == version[1] >= versions.get(str(number), 0)


async def check_writes(store: Store, run: int, acknowledged: set[int]) -> None:
    """Of each write of three partitions each is whole or not there, and all are once that was said. SQLite
    has them in the order of the calls.
    """
    whole: dict[int, int] = {}
    for number in range(max(acknowledged, default=0) + 40):
        lengths = []
        for part in range(3):
            found = (await store.scan(PAIRS, (f"{run}/{number}/{part}",))).rows
            assert [row["place"] for row in found] in ([], [0, 1]), f"write {number} is half done: {found}"
            assert {len(row["stanza"]) for row in found} <= {number % 2000}
            lengths.append(len(found))
        whole[number] = lengths.count(2)
    assert all(whole[number] == 3 for number in acknowledged)
    if isinstance(store, SqliteStore):
        assert list(whole.values()) == sorted(whole.values(), reverse=True)
        assert set(whole.values()) <= {0, 3}


@pytest.mark.asyncio
@pytest.mark.timeout(300)
async def test_kill_at_any_moment_on_cassandra(keyspace):
    chance = random.Random(keyspace.name)
    [(host, port), *_] = keyspace.options.contact_points
    place = f"{host}:{port}/{keyspace.name}"
    store = CassandraStore(keyspace.options)
    await store.open([ROWS, TRIPLES, PAIRS])
    for run in range(KILLS_ON_CASSANDRA):
        told = kill_one(place, run, chance.randint(1, 500))
        await check(store, run, told)
    await store.close()


@pytest.mark.asyncio
@pytest.mark.timeout(300)
async def test_kill_at_any_moment(path):
    chance = random.Random(path.name)
    told = {}
    for run in range(KILLS):
        told[run] = kill_one(str(path), run, chance.randint(1, chance.choice([10, 100, 1000])))
        store = SqliteStore(path)
        await store.open([ROWS, TRIPLES, PAIRS])
        await check(store, run, told[run])
        await store.close()
    assert sum(map(len, told.values())) > 20 * KILLS
    store = SqliteStore(path)
    await store.open([ROWS, TRIPLES, PAIRS])
    for run, acknowledged in told.items():
        await check(store, run, acknowledged)
    await store.close()
