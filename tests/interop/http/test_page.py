"""The ten minutes with curl of docs/http-api.md, as they stand there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from ports import free_ports

ROOT = Path(__file__).parents[3]
SECONDS = 120


def test_what_the_page_says_works(own_server, tmp_path):
    [port] = free_ports(1)
    server = own_server(listen={"http": {"address": "127.0.0.1", "port": port}})
    text = (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8")
    script = "".join(re.findall(r"^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)).replace(
        "5280", str(port)
    )
    assert script.count("post ") > 8
    program = tmp_path / "bin" / "xmppd"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m xmppd --config {server.file} "$@"\n'
    )
    program.chmod(0o755)
    environ = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=environ,
        cwd=server.folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {row["account"] for row in server.run("user", "list")} == {"kiva@localhost", "mo@localhost"}
    assert [row["contact"] for row in server.run("roster", "show", "kiva@localhost")] == ["mo@localhost"]
    deeds = server.run("audit", "list", "--who", "backend")["rows"]
    assert [row["command"] for row in deeds].count("roster add") == 1
    assert "correct-horse" not in json.dumps(deeds)
