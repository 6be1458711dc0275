"""A game in ten minutes, as the README has it: the key, the configuration, the back end and its clients."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ports import free_ports

from xmppd.admin.client import request
from xmppd.configfile import shipped

ROOT = Path(__file__).parents[3]
SECONDS = 60.0
EMPTY = "  config: {}\n"
PART = (
    (ROOT / "README.md")
    .read_text(encoding="utf-8")
    .partition("## A game in ten minutes")[2]
    .partition("\n## ")[0]
)


def lines(word: str) -> list[str]:
    """What is typed that has this in it."""
    return [line.strip() for line in PART.splitlines() if line.startswith("    ") and word in line]


def configuration(port: int) -> dict[str, dict[str, object]]:
    """config/game.yaml as the reader is told to change it, but for the ports."""
    file = (shipped("config") / "game.yaml").read_text(encoding="utf-8")
    assert file.endswith(EMPTY)
    [told] = re.findall(r"```yaml\n(.*?)```", PART, re.DOTALL)
    document = yaml.safe_load(file.removesuffix(EMPTY) + told)
    assert document["listen"]["http"]["address"] == "127.0.0.1"
    return {"plugins": document["plugins"], "listen": {"http": {"address": "127.0.0.1", "port": port}}}


def typed(line: str, folder: Path) -> str:
    """Run it, in this folder; what it prints."""
    done = subprocess.run(
        ["bash", "-c", line], cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.asyncio
async def test_the_game_of_the_readme(prepared_server):
    [port] = free_ports(1)
    server = prepared_server(**configuration(port))
    for line in lines("openssl"):
        typed(line, server.folder)
    server.start()
    [secret], [play] = lines("secret=$("), lines("play.py")
    python, config = Path(sys.executable), f"--config {server.file}"
    secret = secret.replace(".venv/bin/xmppd", f"{python} -m xmppd {config}")
    play = play.replace(".venv/bin/python docs", f"{python} {ROOT}/docs")
    ports = f"{server.ports['starttls']} {port}"
    said = await asyncio.to_thread(typed, f"{secret}\n{play} {ports}", server.folder)
    for heard in (
        "bob is told: kiva@localhost is asked",
        "kiva is told: bob@localhost is friend",
        'bob sees kiva@localhost play chess: {"mode":"blitz"}',
        "'reached': 2",
        'bob is told of match/7: {"map": "rift"}',
        'kiva is told of match/7: {"map": "rift"}',
    ):
        assert heard in said, said
    friends = request(server.folder / "data" / "xmppd.sock", "friend list", {"player": "kiva@localhost"})
    assert [(row["friend"], row["state"]) for row in friends] == [("bob@localhost", "friend")]
