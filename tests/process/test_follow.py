"""What goes on, of a server process: by the command line, by HTTP, until Ctrl-C or the end of the server."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from ports import free_ports

SUM = hashlib.sha256(b"secret-token").hexdigest()


@contextmanager
def following(server, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A command line that goes on."""
    command = [sys.executable, "-m", "xmppd", *words]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=server.folder,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def know(url: str) -> None:
    """Make a context of the name `there`."""
    command = [sys.executable, "-m", "xmppd", "context", "add", "there", url, "--token-stdin"]
    subprocess.run(command, input="secret-token\n", text=True, check=True)


def until(process: subprocess.Popen[str], what: str) -> dict:
    assert process.stdout is not None
    for line in process.stdout:
        record = json.loads(line)
        if record["what"] == what:
            return record
    raise AssertionError(f"no {what}: {process.stderr.read()}")


@pytest.mark.asyncio
async def test_a_trace_takes_the_login_and_ends_by_ctrl_c(serve):
    server = await serve()
    given = ("--config", str(server.file))
    with following(server, "trace", "alice@localhost", "--json", *given) as process:
        await server.until(lambda: server.command("audit list", command="trace")["rows"] != [])
        alice = await server.login("alice")
        assert until(process, "login")["outcome"] == "success"
        assert until(process, "session")["session"] == alice.jid
        await alice.send("<message to='bob@localhost' type='chat' id='m1'><body>hidden</body></message>")
        await alice.ping()
        came = until(process, "in")
        while "id='m1'" not in came["xml"]:
            came = until(process, "in")
        assert "hidden" not in came["xml"]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert "Traceback" not in process.stderr.read()
    ended = server.command("audit list", command="trace")["rows"]
    await server.until(lambda: server.command("audit list", command="trace")["rows"][0]["outcome"] == "done")
    assert ended


@pytest.mark.asyncio
async def test_it_ends_with_the_server_which_does_not_wait(serve):
    server = await serve()
    with following(server, "top", "--json", "--config", str(server.file)) as process:
        assert until(process, "top")["sessions"] == 0
        server.signal(signal.SIGTERM)
        assert until(process, "note")["note"] == "the server stops"
        assert process.wait(10) == 0
        assert await server.ended(10) == 0


@pytest.mark.asyncio
async def test_by_http_from_elsewhere(serve, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    [port] = free_ports(1)
    server = await serve(
        listen={"http": {"address": "127.0.0.1", "port": port}},
        http={"tokens": [{"name": "all", "sha256": SUM, "scopes": ["*"]}]},
    )
    know(f"http://127.0.0.1:{port}")
    with following(server, "top", "--json", "--seconds", "0.5", "--context", "there") as process:
        assert until(process, "top")["cpu"] is None
        assert until(process, "top")["cpu"] is not None
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
