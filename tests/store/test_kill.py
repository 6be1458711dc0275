"""kill -9 at any moment loses no acknowledged write and leaves no batch half done."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from xmppd.store.sqlite.store import SqliteStore
from xmppd.store.table import Table

ROOT = Path(__file__).parents[2]
WRITER = Path(__file__).with_name("writer_until_killed.py")
ROWS = Table("rows", ("run",), ("number",), {"number": "int", "text": "text"})
TRIPLES = Table(
    "triples", ("part",), ("place",), {"place": "int", "version": "int"}, static={"version_now": "int"}
)
KILLS = 60


def kill_one(database: Path, run: int, lines: int) -> list[list[str]]:
    """Kill a writer when it has acknowledged so many writes; all it acknowledged."""
    command = [sys.executable, str(WRITER), str(database), str(run)]
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


async def check(store: SqliteStore, run: int, acknowledged: list[list[str]]) -> None:
    found = {row["number"]: row["text"] for row in (await store.scan(ROWS, (str(run),))).rows}
    for number in (int(line[1]) for line in acknowledged if line[0] == "row"):
        assert found[number] == "x" * (number % 2000)
    versions = {line[1]: int(line[2]) for line in acknowledged if line[0] == "batch"}
    started = max(map(int, versions), default=0) + 20
    for number in range(started):
        part = f"{run}/{number}"
        rows = (await store.scan(TRIPLES, (part,))).rows
        seen = {(row["version"], row["version_now"]) for row in rows}
        assert (len(rows), len(seen)) in ((0, 0), (3, 1)), f"batch {part} is half done: {rows}"
        version = next(iter(seen), (0, 0))
        assert version[0] == version[1] >= versions.get(str(number), 0)


@pytest.mark.asyncio
@pytest.mark.timeout(300)
async def test_kill_at_any_moment(path):
    chance = random.Random(path.name)
    told = {}
    for run in range(KILLS):
        told[run] = kill_one(path, run, chance.randint(1, chance.choice([10, 100, 1000])))
        store = SqliteStore(path)
        await store.open([ROWS, TRIPLES])
        await check(store, run, told[run])
        await store.close()
    assert sum(map(len, told.values())) > 20 * KILLS
    store = SqliteStore(path)
    await store.open([ROWS, TRIPLES])
    for run, acknowledged in told.items():
        await check(store, run, acknowledged)
    await store.close()
