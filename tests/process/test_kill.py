"""kill -9 under load, again and again: what was answered is there afterwards, and nothing is there twice."""

import os
import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.own_engine

KILL = Path(__file__).parents[2] / "scripts" / "bench" / "kill"


def run(request, *arguments):
    """Run it, on the engines of the tests; it has to pass."""
    environ = dict(os.environ)
    if "cassandra" in arguments:
        nodes = request.getfixturevalue("cassandra_nodes")
        environ["XMPPD_TEST_CASSANDRA"] = ",".join(f"{host}:{port}" for host, port in nodes)
        environ["XMPPD_TEST_REDIS"] = request.getfixturevalue("redis_url")
    command = [KILL, *map(str, arguments)]
    done = subprocess.run(command, env=environ, check=False, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stdout
    return done


def test_what_managed_clients_had_not_acknowledged_comes_from_the_archive(free_ports, request):
    """Messages between clients with stream management, some of which ask their archives."""
    port, _ = free_ports(2)
    done = run(request, "--archived", "--store", "sqlite", "--kills", 6, "--within", 2, "--port", port)
    [late] = re.findall(r"clients without an archive: .*came late (\d+)", done.stdout)
    assert int(late) > 0, "nothing was lost on its way to clients that never ask"


def test_what_was_acknowledged_outlives_one_of_two_nodes_and_is_there_once(free_ports, request):
    """The same on two nodes, whose sessions are resumed on the other one: what is sent again is known."""
    how = "--archived", "--store", "cassandra", "--nodes", 2, "--kills", 4, "--within", 3, "--rate", 40
    done = run(request, *how, "--seed", 61, "--port", free_ports(25)[0])
    [acknowledged] = re.findall(r"acknowledged: (\d+)", done.stdout)
    assert int(acknowledged) > 200, "hardly anything was said"


@pytest.mark.parametrize(("store", "kills", "within"), [("sqlite", 6, 0.75), ("cassandra", 4, 2)])
def test_nothing_answered_is_lost_and_nothing_is_there_twice(free_ports, request, store, kills, within):
    """Rosters, friendships, offline messages, vCards, private XML, passwords, accounts that come and go."""
    (port,) = free_ports(1)
    done = run(request, "--store", store, "--kills", kills, "--within", within, "--port", port)
    assert len(re.findall(r"^answered, ", done.stdout, re.MULTILINE)) == 6, "all kinds of load"


@pytest.mark.asyncio
async def test_an_answer_comes_after_the_write(serve):
    """A roster set that was answered is in the file even when the very next thing is SIGKILL."""
    server = await serve()
    alice = await server.login("alice", presence=False)
    for number in range(3):
        assert (await alice.put_contact(f"c{number}@localhost", "")).get("type") == "result"
        await server.kill()
        await server.start()
        alice = await server.login("alice", presence=False)
        assert len(await alice.roster()) == number + 1
