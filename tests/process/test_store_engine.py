"""The engine of the store as an operator meets it: chosen by the configuration, looked at by commands."""

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cassandra.cluster import Cluster

from xmppd.config import load
from xmppd.errors import ConfigError

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.own_engine

WITHOUT_DRIVER = """
import sys
class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "cassandra":
            raise ModuleNotFoundError("No module named 'cassandra'", name="cassandra")
sys.meta_path.insert(0, Nowhere())
sys.argv[0] = "xmppd"
from xmppd.__main__ import main
main()
"""


@pytest.fixture
def keyspace(cassandra_nodes: list[tuple[str, int]]) -> Iterator[str]:
    name = f"xmppd_test_{uuid.uuid4().hex[:12]}"
    yield name
    cluster = Cluster(cassandra_nodes)
    cluster.connect().execute(f"DROP KEYSPACE IF EXISTS {name}", timeout=30)
    cluster.shutdown()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(*words: str, store: str = "{}", program: str | None = None) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "xmppd.yaml"
        file.write_text(f"server: {{data_folder: {tmp_path}/data}}\nstore: {store}\n")
        start = ["-c", program] if program else ["-m", "xmppd"]
        command = [sys.executable, *start, *words, "--config", str(file)]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    return run


def on(nodes: list[tuple[str, int]], keyspace: str, more: str = "") -> str:
    points = ", ".join(f'"{host}:{port}"' for host, port in nodes)
    return f"{{engine: cassandra, cassandra: {{contact_points: [{points}], keyspace: {keyspace}{more}}}}}"


def test_the_default_loads_no_other_driver():
    loaded = "print([name for name in sys.modules if name.partition('.')[0] in ('cassandra', 'redis')])"
    code = f"import sys, xmppd.serve, xmppd.admin.cli; {loaded}"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("words", [("serve",), ("user", "list"), ("store", "check")])
def test_a_missing_driver_is_one_sentence(run, words):
    done = run(*words, store="{engine: cassandra}", program=WITHOUT_DRIVER)
    assert done.returncode == 78
    assert "pip install 'xmppd[cassandra]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_cluster_that_is_not_there_is_a_sentence(run):
    done = run("store", "info", store=on([("127.0.0.1", 1)], "nowhere", ", connect_timeout: 1"))
    assert done.returncode == 69
    last = done.stderr.splitlines()[-1]  # the driver has logged it before
    assert last.startswith("xmppd: Cassandra cannot be asked: 127.0.0.1:1")


@pytest.mark.parametrize("engine", ["sqlite", "cassandra"])
def test_tables_are_checked_and_made_by_commands(run, request, engine):
    store = "{}"
    if engine == "cassandra":
        nodes, keyspace = (request.getfixturevalue(name) for name in ("cassandra_nodes", "keyspace"))
        store = on(nodes, keyspace, ", migrate: check")
    done = run("store", "check", store=store)
    assert done.returncode == 1
    assert "  table account\n" in done.stderr
    assert "  table offline_queue\n" in done.stderr
    if engine == "cassandra":
        refused = run("user", "list", store=store)
        assert refused.returncode == 69
        assert "there is no keyspace" in refused.stderr
    assert run("store", "migrate", store=store).returncode == 69
    made = run("store", "migrate", "--create", store=store)
    assert (made.returncode, made.stderr) == (0, "")
    assert "table roster" in made.stdout
    assert run("store", "check", store=store).returncode == 0
    assert "everything was there" in run("store", "migrate", store=store).stdout
    info = run("store", "info", store=store)
    assert f"engine:      {engine}" in info.stdout or f"engine:  {engine}" in info.stdout
    assert "account" in info.stdout
    added = run("user", "add", "alice@localhost", "--password", "secret", "--create", store=store)
    assert (added.returncode, added.stderr) == (0, "")
    assert "alice@localhost" in run("user", "list", store=store).stdout


@pytest.mark.parametrize(
    ("keys", "column", "message"),
    [
        ("keyspace: Upper", 5, "does not have the right form"),
        ("contact_points: []", 5, "must not be empty"),
        ("contact_points: [a, a]", 5, "twice"),
        ('contact_points: ["host:0"]', 22, "port from 1 to 65535"),
        ('contact_points: ["::1"]', 22, r"IPv6 address"),
        ("in_flight: 0", 5, "at least 1"),
        ("replication: {dc1: 0}", 19, "at least 1"),
        ("migrate: never", 5, "must be one of auto, check"),
        ("password_file: /nowhere", 5, "cannot be read"),
        ("tls: {cert: x}", 11, "unknown key"),
        ("tls: {key: x}", 16, "needs the certificate"),
        ("keyspaces: x", 5, "did you mean keyspace"),
    ],
)
def test_mistakes_have_a_place(tmp_path, keys, column, message):
    file = tmp_path / "xmppd.yaml"
    file.write_text(f"store:\n  engine: cassandra\n  cassandra:\n    {keys}\n")
    with pytest.raises(ConfigError, match=message) as caught:
        load(file, {})
    (problem,) = caught.value.problems
    assert problem.line == 4


def test_all_keys_are_taken(tmp_path):
    (tmp_path / "secret").write_text("hidden\n")
    file = tmp_path / "xmppd.yaml"
    file.write_text(
        "store:\n  engine: cassandra\n  cassandra:\n"
        "    contact_points: [a.example, 'b.example:9142', '[::1]:9042', '[::2]', 10.0.0.1]\n"
        f"    password_file: {tmp_path}/secret\n    username: me\n    replication: {{dc1: 3, dc2: 2}}\n"
        "    compaction: {lasting: {class: LeveledCompactionStrategy}}\n"
    )
    from_file = load(file, {}).store.cassandra
    assert from_file.password is not None
    assert from_file.password.value == "hidden"
    assert "hidden" not in repr(from_file)
