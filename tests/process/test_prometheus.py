"""A real Prometheus reads a real server, and every query of board and alerts can be asked."""

import asyncio
import json
import shutil
import signal
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from deployed import ALERTS, queries
from ports import free_ports


@pytest.fixture(autouse=True)
def installed() -> None:
    """What is missing is a failure."""
    for program in ("prometheus", "promtool"):
        if shutil.which(program) is None:
            pytest.fail(f"{program} is not installed: scripts/test installs it")


def test_rules_can_be_read() -> None:
    done = subprocess.run(["promtool", "check", "rules", ALERTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def prometheus(folder: Path, port: int, target: int) -> Iterator[str]:
    """One that scrapes every second, and its address."""
    folder.mkdir()
    rules = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
    (folder / "alerts.yaml").write_text(yaml.safe_dump(rules))
    about = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["alerts.yaml"],
        "scrape_configs": [{"job_name": "xmppd", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(about))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    try:
        yield f"http://127.0.0.1:{port}/api/v1"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        print((folder / "log").read_text()[-3000:])


def ask(address: str, path: str, **fields: str) -> Any:
    """What it answers; OSError while it is not there."""
    query = urllib.parse.urlencode(fields)
    with urllib.request.urlopen(f"{address}/{path}?{query}", timeout=10) as response:
        answer = json.load(response)
    assert answer["status"] == "success", answer
    return answer["data"]


async def until(address: str, query: str, seconds: float = 60.0) -> list[Any]:
    """Wait until a query has an answer."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                if found := (await asyncio.to_thread(ask, address, "query", query=query))["result"]:
                    return found
            except OSError:
                pass
            await asyncio.sleep(0.2)


@pytest.mark.asyncio
async def test_a_real_prometheus_reads_a_real_server(prepared: Any, tmp_path: Path) -> None:
    http, web = free_ports(2)
    server = prepared(listen={"http": {"address": "127.0.0.1", "port": http}})
    await server.start()
    server.add("alice", "bob")
    alice, bob = await server.login("alice"), await server.login("bob")
    for _ in range(10):
        await alice.send(f"<message to='{bob.jid}' type='chat'><body>hi</body></message>")
        await asyncio.sleep(0.2)  # one each 0.1 s is timed
    with prometheus(tmp_path / "prometheus", web, http) as address:
        await until(address, 'up{job="xmppd"} == 1')
        assert [row["value"][1] for row in await until(address, "xmppd_accounts_online == 2")] == ["2"]
        sent = await until(address, 'xmppd_stanzas_total{kind="message"} >= 10')
        assert sent[0]["metric"]["instance"] == f"127.0.0.1:{http}"
        assert await until(address, 'xmppd_routing_seconds_count{kind="message"} >= 2')
        for what, query in queries().items():
            try:
                await asyncio.to_thread(ask, address, "query", query=query)
            except OSError as error:
                raise AssertionError(f"{what}: {query}") from error
        rules = await asyncio.to_thread(ask, address, "rules")
        assert {rule["health"] for group in rules["groups"] for rule in group["rules"]} <= {"ok", "unknown"}
        await server.kill()
        pending = await until(address, 'ALERTS{alertname="XmppdDown"}')
        assert pending[0]["metric"]["alertstate"] in ("pending", "firing")
