"""schemathesis asks every command for what its document allows, and for what it does not."""

import hashlib
import re
import subprocess
from pathlib import Path

import pytest
from ports import free_ports

TOOL = Path(__file__).parents[3] / ".tools" / "schemathesis" / "venv" / "bin" / "schemathesis"
TOKEN = "schemathesis"
PLUGINS = "disco ping last vcard private blocking privacy archive offline carbons announce adhoc register"
APART = "/(archive/(export|import)|migrate/apply|plugin/reload|node/drain|trace|top|event/watch)$"
"""They write or read files of the machine, take long each time, or end the server; or they do not end."""
MEANT = "positive_data_acceptance"
"""What is of the right type may be refused all the same: an address that is none, say."""
SECONDS = 300


@pytest.fixture
def url(own_server):
    """Where a server with all plugins takes commands."""
    if not TOOL.exists():
        pytest.fail("schemathesis is not installed: scripts/test installs it")
    [port] = free_ports(1)
    token = {"name": "all", "sha256": hashlib.sha256(TOKEN.encode()).hexdigest(), "scopes": ["*"]}
    server = own_server(
        listen={"http": {"address": "127.0.0.1", "port": port}},
        # It asks many times a second, and often as somebody without a token.
        http={
            "tokens": [token],
            **dict.fromkeys(("rate", "burst", "strangers_rate", "strangers_burst"), 10_000),
        },
        plugins={"enabled": PLUGINS.split()},
    )
    yield f"http://127.0.0.1:{port}/api/v1/openapi.json"
    assert [record for record in server.records if record["level"] == "error"] == []


def test_every_command_keeps_to_the_document(url, tmp_path):
    command = [
        TOOL,
        "run",
        url,
        f"--header=Authorization: Bearer {TOKEN}",
        "--checks=all",
        f"--exclude-checks={MEANT}",
        f"--exclude-path-regex={APART}",
        "--phases=coverage,fuzzing",
        "--max-examples=15",
        "--seed=1",
        "--no-color",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout[-10_000:]
    tested = re.search(r"Tested: (\d+)", done.stdout)
    assert tested is not None and int(tested[1]) >= 50, done.stdout[-2_000:]
