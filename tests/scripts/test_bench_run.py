"""`scripts/bench/run`: what it measures stands in one table, and the table says what is held."""

import contextlib
import json
import random
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parent.parent.parent / "scripts" / "bench"
Cells = dict[str, list[str]]


def printed(*arguments: object) -> Cells:
    """The lines of the table by the first word of what they are about."""
    done = subprocess.run(
        [BENCH / "run", *map(str, arguments)], stdout=subprocess.PIPE, text=True, timeout=240, check=True
    )
    lines = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("|")]
    return {re.split(r"[ (,]", cells[0])[0]: [cell.strip() for cell in cells] for cells in lines}


def row(server: str, key: str, cpu: float = 10.0, p99: float = 5.0, profile: str = "bare") -> dict[str, Any]:
    """What `run` keeps of one scenario."""
    return {
        "server": server,
        "profile": profile,
        "key": key,
        "server_cpu_us": cpu,
        "latency_ms": {"p99": p99},
        "throughput": 1000.0,
        "noise_cores": 0.1,
        "python": "CPython",
        "quick": False,
    }


def first_port() -> int:
    """The first of the ports that `run` counts on, below those that the kernel gives to clients."""
    for port in random.sample(range(20_000, 30_000, 100), 50):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for offset in (0, 1, 50):
                listener = stack.enter_context(socket.socket())
                listener.bind(("127.0.0.1", port + offset))
            return port
    raise AssertionError("there are no free ports")


@pytest.fixture
def kept(tmp_path: Path) -> Callable[..., Cells]:
    """The table of rows that were kept."""

    def table(*rows: dict[str, Any]) -> Cells:
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return printed("--table", "--out", file)

    return table


def test_ratio_is_to_the_better_peer(kept: Callable[..., Cells]) -> None:
    cells = kept(row("xmppd", "chat", 10), row("ejabberd", "chat", 40), row("prosody", "chat", 50))["chat"]
    assert cells[3:6] == ["ejabberd **0.25**", "<= 0.33 (aim 0.2)", "ok"]


def test_median_of_the_rounds_counts(kept: Callable[..., Cells]) -> None:
    ours = [row("xmppd", "roster200", cpu) for cpu in (10, 90, 20)]
    cells = kept(*ours, row("prosody", "roster200", 200))["roster200"]
    assert cells[1] == "20.0 (10.0-90.0)"
    assert cells[3:6] == ["prosody **0.10**", "<= 0.33 (aim 0.1)", "ok, aim reached"]


def test_latency_is_compared_where_that_is_asked(kept: Callable[..., Cells]) -> None:
    cells = kept(row("xmppd", "chat@300", 1, p99=6), row("prosody", "chat@300", 99, p99=5))["chat@300"]
    assert cells[3:6] == ["prosody **1.20**", "<= 1", "**over**"]


def test_login_with_plain_passwords_is_only_reported(kept: Callable[..., Cells]) -> None:
    cells = kept(row("xmppd", "login", 90), row("prosody", "login", 50))["login"]
    assert cells[3:6] == ["prosody **1.80**", "reported only", ""]


def test_cost_of_features(kept: Callable[..., Cells]) -> None:
    key = "features-chat"
    cells = kept(row("xmppd", f"{key} base", 10), row("xmppd", key, 12, profile="features"))[key]
    assert cells[3:6] == ["**1.20**", "<= 1.15", "**over**"]


def test_login_on_each_engine(kept: Callable[..., Cells]) -> None:
    tiers = {"SQLite": 100.0, "Cassandra cold": 210.0, "Cassandra + Redis warm": 150.0}
    rows = [{**row("xmppd", "login50", cpu), "tier": tier} for tier, cpu in tiers.items()]
    cells = kept(*rows)["login50"]
    assert cells[1] == "SQLite 100"
    assert cells[2] == "Cassandra cold 210, Cassandra + Redis warm 150"
    assert cells[3] == "**2.10**, **1.50**"


def test_what_is_left_of_idle_sessions(kept: Callable[..., Cells], tmp_path: Path) -> None:
    idle = {
        **row("xmppd", "idle-tls"),
        "sessions": 10_000,
        "kib_per_session": 23.0,
        "own_start": 30.0,
        "own_online": 260.0,
        "own_left": 40.0,
    }
    kept(idle)
    table = subprocess.run(
        [BENCH / "run", "--table", "--out", tmp_path / "rows.jsonl"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    assert "| idle-tls (KiB for each of 10,000) | 23.0 | | | <= 26 (aim 22) | ok |" in table
    assert "| **1.33** | <= 1.2 | **over** |" in table


def test_scenario_and_start_are_measured(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    options = ("--servers", "xmppd", "--out", out, "--work", tmp_path / "work", "--port", first_port())
    table = printed("--quick", "--only", "chat,start", *options)
    assert {"chat", "start"} == {key for key in table if key.isalpha()} - {"what"}
    assert float(table["chat"][1]) > 0
    assert 0 < float(table["start"][1]) < 30
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    (chat,) = (row for row in rows if row["key"] == "chat")
    assert chat["ready"] == 100
    assert chat["login_fail"] == chat["dead"] == chat["lost"] == 0
    assert chat["count"] > 1000


@pytest.mark.timeout(300)
def test_logins_are_measured_on_real_engines(
    tmp_path: Path, cassandra_nodes: list[tuple[str, int]], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XMPPD_TEST_CASSANDRA", ",".join(f"{host}:{port}" for host, port in cassandra_nodes))
    monkeypatch.setenv("XMPPD_TEST_REDIS", redis_url)
    out = tmp_path / "out.jsonl"
    options = ("--out", out, "--work", tmp_path / "work", "--port", first_port())
    table = printed("--quick", "--only", "login50", *options)
    assert all(tier in table["login50"][2] for tier in ("Cassandra cold", "Cassandra + Redis warm"))
    for measured in map(json.loads, out.read_text().splitlines()):
        assert measured["ready"] == 200
        assert measured["login_fail"] == measured["dead"] == 0
