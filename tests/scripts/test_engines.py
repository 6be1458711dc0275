"""`scripts/engines`: engines start, are found again, come back with their data, and leave nothing behind."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cassandra import ConsistencyLevel
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, Session
from cassandra.policies import RoundRobinPolicy

from engines import EngineError, Engines, install
from engines.process import Process, read_stat, spawn

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "engines"
LIBRARY = SCRIPT.parent / "lib"
KEYSPACE = "CREATE KEYSPACE k WITH replication = {'class': 'NetworkTopologyStrategy', 'datacenter1': %d}"


def run(command: str, folder: Path, *arguments: str) -> tuple[int, str]:
    """The exit code of the script and what it printed, with its complaints when it failed."""
    done = subprocess.run(
        [SCRIPT, command, "--folder", folder, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stdout + (done.stderr if done.returncode else "")


def processes_of(folder: Path) -> list[int]:
    """Every process that has to do with the folder."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder) in link.read_text() and int(link.parent.name) != os.getpid():
                found.append(int(link.parent.name))
        except OSError:
            continue
    return found


def session(points: list[tuple[str, int]]) -> Session:
    profile = ExecutionProfile(
        RoundRobinPolicy(), consistency_level=ConsistencyLevel.QUORUM, request_timeout=20
    )
    return Cluster(
        [host for host, _ in points],
        port=points[0][1],
        protocol_version=5,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
    ).connect()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "engines"
    Engines(tmp_path / "engines").remove()


def test_one_node_from_start_to_stop(folder: Path) -> None:
    code, addresses = run("start", folder, "--nodes", "1")
    assert code == 0, addresses
    engines = Engines(folder)
    ((host, port),) = engines.contact_points
    assert addresses.splitlines() == [
        f"XMPPD_TEST_CASSANDRA={host}:{port}",
        f"XMPPD_TEST_REDIS={engines.redis_url}",
    ]
    before = run("status", folder)
    assert before[0] == 0
    assert before[1].count(" up, pid ") == 2

    # Who starts them again gets those that run.
    pids = {name: engines.process(name) for name in ("cassandra1", "redis")}
    assert run("start", folder) == (0, addresses)
    assert pids == {name: engines.process(name) for name in ("cassandra1", "redis")}

    database = session(engines.contact_points)
    database.execute(KEYSPACE % 1)
    database.execute("CREATE TABLE k.t (id int PRIMARY KEY)")
    database.execute("INSERT INTO k.t (id) VALUES (42)")
    database.cluster.shutdown()
    time.sleep(1)  # of the last moments before a kill nothing is promised here (commitlog_sync: periodic)

    # One that was killed comes back where it was, with its data, and no other is touched.
    assert run("kill", folder, "cassandra1") == (0, "")
    code, status = run("status", folder)
    assert code == 1
    assert status.count(" up, pid ") == 1
    assert run("start", folder) == (0, addresses)
    assert engines.process("redis") == pids["redis"]
    database = session(engines.contact_points)
    assert [row.id for row in database.execute("SELECT id FROM k.t")] == [42]
    database.cluster.shutdown()

    running = [process for name in pids if (process := engines.process(name))]
    assert run("stop", folder) == (0, "")
    assert len(running) == 2
    assert not any(process.is_up() for process in running)
    assert not processes_of(folder)
    assert run("status", folder)[0] == 1
    assert run("stop", folder) == (0, "")
    assert run("stop", folder, "--remove") == (0, "")
    assert not folder.exists()


def test_ring_works_without_one_and_takes_it_back(cassandra_ring: Engines) -> None:
    assert len(cassandra_ring.contact_points) == 3
    database = session(cassandra_ring.contact_points[:1])
    database.execute(KEYSPACE % 3)
    database.execute("CREATE TABLE k.t (id int PRIMARY KEY)")
    database.execute("INSERT INTO k.t (id) VALUES (1)")
    cassandra_ring.kill("cassandra3")
    assert cassandra_ring.process("cassandra3") is None
    database.execute("INSERT INTO k.t (id) VALUES (2)")
    cassandra_ring.start_node("cassandra3")
    assert cassandra_ring.process("cassandra3")
    every = database.prepare("SELECT id FROM k.t")
    every.consistency_level = ConsistencyLevel.ALL
    assert {row.id for row in database.execute(every)} == {1, 2}
    database.cluster.shutdown()


def redis_in(folder: Path) -> Engines:
    return Engines(folder, 0)


def test_what_a_folder_holds_does_not_change(folder: Path) -> None:
    redis_in(folder).start()
    code, said = run("start", folder, "--nodes", "3")
    assert code == 1
    assert "holds 0 node(s) of Cassandra, not 3" in said


def test_taken_port_is_named(folder: Path) -> None:
    engines = redis_in(folder)
    engines.start()
    engines.stop()
    with socket.socket() as other:
        (node,) = engines.nodes()
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((node.address, *node.ports))
        other.listen()
        with pytest.raises(EngineError, match=f"another process has port {node.ports[0]} of 127.0.0.1"):
            engines.start()


def test_start_that_fails_tells_why_and_leaves_nothing(folder: Path) -> None:
    engines = Engines(folder, settings={"no_such_setting": 1})
    with pytest.raises(EngineError, match=r"cassandra1 ended; the end of (.|\n)*no_such_setting"):
        engines.start()
    assert not processes_of(folder)
    assert engines.process("redis") is None


def test_heap_that_is_too_small_is_told(folder: Path) -> None:
    code, said = run("start", folder, "--heap", "1")
    assert code == 1
    assert "Too small maximum heap" in said
    assert not processes_of(folder)


def test_pid_of_somebody_else_is_left_alone() -> None:
    stat = read_stat(os.getpid())
    assert stat is not None
    assert Process(os.getpid(), int(stat[19])).is_up()
    stranger = Process(os.getpid(), int(stat[19]) - 1)
    assert not stranger.is_up()
    stranger.send(signal.SIGKILL)


def test_killed_child_is_no_zombie(tmp_path: Path) -> None:
    child = spawn(["sleep", "60"], tmp_path / "log", tied=False)
    assert child.is_up()
    child.send(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while child.is_up():
        assert time.monotonic() < deadline
    assert not Path(f"/proc/{child.pid}").exists()


def test_tied_engines_end_with_who_started_them(folder: Path) -> None:
    code = (
        "import os, pathlib, sys, engines, signal\n"
        "engines.Engines(pathlib.Path(sys.argv[1]), 0, tied=True).start()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, folder],
        env={**os.environ, "PYTHONPATH": str(LIBRARY)},
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert (folder / "engines.json").exists()
    deadline = time.monotonic() + 10
    while Engines(folder).process("redis"):
        assert time.monotonic() < deadline


@pytest.fixture
def maven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a Maven of our own before the real one: a piece of bash that knows `$jars`; empties the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def put(body: str) -> Path:
        program = tmp_path / "mvn"
        find = (
            'for word; do case $word in -DoutputDirectory=*) jars=${word#*=};; esac; done; mkdir -p "$jars"'
        )
        program.write_text(f"#!/bin/bash\n{find}\n{body}\n")
        program.chmod(0o755)
        return tmp_path

    return put


MAKE_JAR = f'touch "$jars/cassandra-all-{install.CASSANDRA}.jar"'


@pytest.mark.parametrize("body", [f"{MAKE_JAR}; echo no route; exit 1", "echo no route; exit 0"])
def test_half_a_download_is_none(maven: Callable[[str], Path], body: str) -> None:
    maven(body)
    with pytest.raises(EngineError, match=r"could not fetch Cassandra(.|\n)*no route"):
        install.cassandra_jars()
    assert [path.name for path in install.cache_folder().iterdir()] == ["lock"]
    maven(MAKE_JAR)
    assert list(install.cassandra_jars().iterdir())


def test_of_two_callers_one_fetches(maven: Callable[[str], Path]) -> None:
    folder = maven(f'echo >>"$(dirname "$0")/calls"; sleep 1; {MAKE_JAR}')
    code = "from engines import install; print(install.cassandra_jars())"
    environ = {**os.environ, "PYTHONPATH": str(LIBRARY)}
    callers = [
        subprocess.Popen([sys.executable, "-c", code], env=environ, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = {caller.communicate(timeout=60)[0] for caller in callers}
    assert said == {f"{install.cassandra_jars()}\n"}
    assert (folder / "calls").read_text() == "\n"


def test_engine_that_cannot_be_had_is_one_sentence(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "cat", "cksum", "cut", "dirname", "mkdir", "flock"):
        (programs / name).symlink_to(shutil.which(name) or name)
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(EngineError) as caught:
        redis_in(folder).start()
    assert str(caught.value) == "redis-server is missing: install it (Debian: apt-get install redis-server)"
    assert not processes_of(folder)


def test_shared_engines_answer(cassandra_nodes: list[tuple[str, int]], redis_url: str) -> None:
    database = session(cassandra_nodes)
    assert database.execute("SELECT release_version FROM system.local").one().release_version
    database.cluster.shutdown()
    host, port = redis_url.removeprefix("redis://").removesuffix("/0").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as redis:
        redis.sendall(b"PING\r\n")
        assert redis.recv(100) == b"+PONG\r\n"
