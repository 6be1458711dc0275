"""Servers elsewhere: the file of contexts, and the command line by HTTP against a real listener."""

import asyncio
import hashlib
import json
import stat
import threading
from typing import ClassVar

import pytest
from ports import free_ports

from tests.admin.conftest import Terminal
from xmppd.admin.cli import Local
from xmppd.admin.commands import commands_of
from xmppd.admin.contexts import Contexts
from xmppd.errors import CommandError
from xmppd.net.http.door import Door
from xmppd.store.sqlite.store import SqliteStore
from xmppd.testing import World

TOKENS = [
    {"name": name, "sha256": hashlib.sha256(name.encode()).hexdigest(), "scopes": scopes}
    for name, scopes in {"all": ["*"], "reader": ["*:read"]}.items()
]
GAME = """
from xmppd.plugin import CommandError, Plugin, command, result_page

class Game(Plugin):
    @command("Add up", reads=True)
    def add(self, *, number: list[int], twice: bool = False) -> int:
        return sum(number) * (2 if twice else 1)

    @command("Count", paged=True)
    def count(self, *, after: str = "") -> dict:
        first = int(after or 0)
        return result_page([{"n": first}], {"counted": 1}, after=str(first + 1) if first < 2 else None)

    @command("Refuse")
    def refuse(self) -> None:
        raise CommandError("not today")
"""


class Apart(World):
    """It has no part in shared engines, being in a thread of its own."""

    common: ClassVar[dict[str, dict[str, object]]] = {}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("XMPPD_CONTEXT", raising=False)
    return tmp_path / "config" / "xmppd" / "contexts.json"


@pytest.fixture
def port(tmp_path):
    """Where a server takes commands by HTTP, in a thread of its own."""
    (tmp_path / "game.py").write_text(GAME)
    [number] = free_ports(1)
    ready, loop, stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def serve():
        settings = {"http": {"tokens": TOKENS}}
        store = SqliteStore(":memory:")
        async with Apart(
            plugins=("game",), plugin_folders=(tmp_path,), settings=settings, store=store
        ) as world:
            door = Door(world.app.routes, 16, world.app.jobs.spawn)
            await door.open("127.0.0.1", number, 10)
            ready.set()
            await stop.wait()
            await door.close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(30)
    yield number
    loop.call_soon_threadsafe(stop.set)
    thread.join(30)
    loop.close()


def add(run, name, port, token):
    assert run("context", "add", name, f"http://127.0.0.1:{port}", "--token", token) == (
        0,
        f"added: {name}\n",
        "",
    )


def test_a_context_is_remembered_for_nobody_else(run, home):
    add(run, "prod", 1, "secret")
    add(run, "stage", 2, "other")
    assert stat.S_IMODE(home.stat().st_mode) == 0o600 and stat.S_IMODE(home.parent.stat().st_mode) == 0o700
    out = run("context", "list")[1]
    assert "prod   http://127.0.0.1:1" in out and "secret" not in out
    assert run("context", "remove", "prod") == (0, "removed: prod\n", "")
    assert list(json.loads(home.read_text())) == ["stage"]
    exit_code, _, err = run("--context", "prod", "user", "list")
    assert exit_code == 2 and "there is no context 'prod': there are stage" in err


def test_a_file_that_others_may_read_is_not_used(run, home):
    add(run, "prod", 1, "secret")
    home.chmod(0o640)
    exit_code, _, err = run("--context", "prod", "user", "list")
    assert exit_code == 77 and "chmod 600" in err


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', '{"a": {"url": "x"}}'])
def test_a_file_that_is_none_is_said(run, home, text):
    home.parent.mkdir(parents=True)
    home.write_text(text)
    home.chmod(0o600)
    exit_code, _, err = run("context", "list")
    assert exit_code == 1 and "is not a file of contexts" in err


@pytest.mark.parametrize(
    ("name", "url", "sentence"),
    [
        ("a b", "https://x.example", "a name has letters"),
        ("a", "x.example", "is not an address"),
        ("a", "ftp://x.example", "is not an address"),
        ("a", "https://x.example/api", "is not an address"),
        ("a", "http://x.example", "use https"),
    ],
)
def test_what_cannot_be_a_context(name, url, sentence):
    with pytest.raises(CommandError, match=sentence):
        Local(commands_of(Contexts())).call("context add", {"name": name, "url": url, "token": "t"})


def test_commands_of_the_server_elsewhere(run, port, home):
    add(run, "prod", port, "all")
    assert "alice@localhost" in run("--context", "prod", "user", "list")[1]
    assert run("--context", "prod", "user", "add", "zoe@localhost", "--password", "p")[0] == 0
    exit_code, _, err = run("--context", "prod", "user", "add", "zoe@localhost", "--password", "p")
    assert exit_code == 1 and "exists already" in err
    # those of its plugins, with all kinds of values, and in parts
    assert run("--context", "prod", "game", "add", "--number", "2", "--number", "3", "--twice")[1] == "10\n"
    assert json.loads(run("game", "count", "--context", "prod", "--json")[1])["counted"] == 3
    exit_code, _, err = run("--context", "prod", "game", "refuse")
    assert (exit_code, err) == (1, "xmppd: not today\n")


def test_a_context_by_the_environment(run, port, monkeypatch):
    add(run, "prod", port, "reader")
    monkeypatch.setenv("XMPPD_CONTEXT", "prod")
    assert "alice@localhost" in run("user", "list")[1]
    exit_code, _, err = run("user", "disable", "alice@localhost")
    assert exit_code == 77 and "no scope user:disable" in err


def test_what_is_done_where_the_server_is(run, port):
    add(run, "prod", port, "all")
    for words in (("serve",), ("check-config",), ("cluster", "restart", "--rolling")):
        exit_code, _, err = run("--context", "prod", *words)
        assert exit_code == 2 and "is done where the server is" in err


def test_a_server_that_does_not_answer(run):
    [number] = free_ports(1)
    add(run, "gone", number, "all")
    exit_code, _, err = run("--context", "gone", "user", "list")
    assert exit_code == 69 and "did not answer" in err


def test_a_wrong_token(run, port):
    add(run, "prod", port, "guess")
    exit_code, _, err = run("--context", "prod", "user", "list")
    assert exit_code == 77 and "token" in err


def test_a_token_is_asked_for_without_echo(run, home, monkeypatch):
    monkeypatch.setattr("getpass.getpass", lambda prompt: "typed")
    assert run("context", "add", "prod", "https://chat.example.org", stdin=Terminal())[0] == 0
    assert json.loads(home.read_text())["prod"]["token"] == "typed"
