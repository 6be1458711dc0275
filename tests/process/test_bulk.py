"""Accounts by the thousand, through the command line."""

import asyncio
import json
import subprocess
import sys

import pytest


@pytest.mark.asyncio
async def test_a_file_on_stdin_becomes_accounts(prepared) -> None:
    server = prepared()
    await server.start()
    server.add("user7")
    text = "".join(
        json.dumps({"account": f"user{number}@localhost", "password": server.password}) + "\n"
        for number in range(600)
    )
    command = [sys.executable, "-m", "xmppd", "--config", str(server.file), "--json"]
    command += ["user", "add-many", "--accounts", "-"]
    done = await asyncio.to_thread(
        subprocess.run, command, input=text, cwd=server.folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout) == {
        "rows": [
            {"line": 8, "account": "user7@localhost", "refused": "the account user7@localhost exists already"}
        ],
        "done": 599,
        "refused": 1,
    }
    client = await server.login("user599")
    await client.ping()
    assert server.password not in json.dumps(server.command("audit list"))
