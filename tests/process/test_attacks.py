"""The short form of `scripts/bench/attack`, and what becomes of logins when there are too many at once."""

import asyncio
import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest

ATTACK = Path(__file__).parents[2] / "scripts" / "bench" / "attack"
NAMES = (
    "storm of 300",
    "slow reader",
    "flood",
    "half-open",
    "slow loris",
    "200 sessions",
    "presence bomb",
)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    file = tmp_path_factory.mktemp("attack") / "results.json"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("XMPPD")}
    # On a busy machine a delay says little; a server that serves one before all others takes seconds.
    command = [ATTACK, "--short", "--floor", "1000", "--json", file]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=110, check=False)
    print(done.stdout, done.stderr)
    return {row["name"]: row for row in json.loads(file.read_text())}


@pytest.mark.own_engine
@pytest.mark.parametrize("name", NAMES)
def test_others_hardly_notice_an_attack(results, name):
    row = results[name]
    assert row["did"] > 0
    assert row["wrong"] == []


# logins, when there is no room for all


@pytest.mark.asyncio
async def test_newcomers_wait_while_too_many_log_in(serve):
    server = await serve(limits={"connections_before_login": 3})
    slow = [await server.connect() for _ in range(3)]
    waiting = [asyncio.create_task(server.login("alice")) for _ in range(9)]
    await server.until(lambda: server.command("status")["connections"] == 3)
    await slow[0].login("bob")
    slow[1].cut()
    for client in await asyncio.gather(*waiting):
        await client.ping()
    await slow[2].login("carol")


@pytest.mark.asyncio
async def test_who_takes_long_to_log_in_makes_room(serve):
    server = await serve(limits={"connections_before_login": 2}, auth={"login_seconds": 300})
    idle = [await server.connect() for _ in range(2)]
    started = time.monotonic()
    alice = await server.login("alice")
    assert time.monotonic() - started > 3, "they had some seconds"
    await alice.ping()
    assert await idle[0].end() == "connection-timeout"
    await idle[1].login("bob")
    assert not re.search(r"resource-constraint|accepting-paused", server.log)
