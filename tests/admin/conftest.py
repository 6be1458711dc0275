"""A command line with a made-up application, and a server behind its socket."""

import asyncio
import contextlib
import io
import os
import threading
from dataclasses import dataclass
from typing import Annotated

import pytest

from xmppd.admin import cli
from xmppd.admin.builtin import ServerCommands, StoreCommands, UserCommands
from xmppd.admin.commands import Secret, command, commands_of
from xmppd.admin.registry import Commands
from xmppd.admin.socket import AdminSocket
from xmppd.config import load
from xmppd.errors import XmppdError
from xmppd.offline import Offline


@dataclass(frozen=True)
class Info:
    """One account as it is shown."""

    account: str
    created: float | None
    disabled: bool
    mechanisms: tuple[str, ...]
    imported: bool = False


class Terminal(io.StringIO):
    """Input that says it is a terminal."""

    def isatty(self):
        return True


class Accounts:
    """The port behind `user` commands, in memory."""

    def __init__(self):
        self.passwords = {}
        self.disabled = set()
        self.keys = {}
        self.imported = set()

    async def create(self, account, password):
        if account in self.passwords:
            raise XmppdError(f"the account {account} exists already")
        self.passwords[account] = password

    async def exists(self, account):
        return account in self.passwords

    async def set_password(self, account, password, *, keep_sessions=None):
        self._existing(account)
        self.passwords[account] = password

    async def disable(self, account):
        self._existing(account)
        self.disabled.add(account)

    async def enable(self, account):
        self._existing(account)
        self.disabled.discard(account)

    async def remove(self, account):
        self._existing(account)
        del self.passwords[account]

    async def info(self, account):
        self._existing(account)
        return self._info(account, 0.0)

    async def list(self):
        for account in self.passwords:
            yield self._info(account, None)

    def _info(self, account, created):
        keys = self.keys.get(account, ("SCRAM-SHA-1", "SCRAM-SHA-256"))
        return Info(account, created, account in self.disabled, keys, account in self.imported)

    def _existing(self, account):
        if account not in self.passwords:
            raise XmppdError(f"there is no account {account}")


class Server:
    """The port behind the other commands."""

    def status(self):
        return {"version": "1", "sessions": 2}

    def plugins(self):
        return [{"name": "ping", "version": "1"}, {"name": "disco", "version": "2"}]

    async def reload_plugin(self, name):
        return [name] if name else ["ping", "disco"]


class Game:
    """Commands that a plugin brings."""

    @command("Stop a player 100% from chatting")
    def mute(self, player: str, minutes: int = 5, *, quiet: bool = False, json_lines: float = 1.0) -> dict:
        return {"player": player, "minutes": minutes, "quiet": quiet, "json_lines": json_lines}

    @command("Kick a player", confirm="Kick {player} for {minutes} minutes?")
    def kick(self, player: str, minutes: int = 5) -> dict:
        return {"kicked": player}

    @command("Set the key", name="user key")
    def key(self, token: Annotated[str, Secret("the key")]) -> None: ...


class Store:
    """The port behind `store` commands."""

    def __init__(self):
        self.lacking = ["table a", "column x of table b"]

    async def info(self):
        return {"engine": "memory", "tables": []}

    async def missing(self):
        return self.lacking

    async def migrate(self):
        made, self.lacking = self.lacking, []
        return made


class App:
    """What `xmppd.app` offers, with accounts in memory."""

    def __init__(self):
        self.accounts = Accounts()
        self.served = []
        self.opened = 0
        self.failure = None
        self.problems = []
        self.store = Store()

    def serve(self, load, *, guide):
        self.guide = guide
        if self.failure:
            raise self.failure
        self.served.append(load())
        return 0

    def supervise(self, load, count):
        self.served.append((load(), count))
        return 75

    load = staticmethod(load)

    @contextlib.contextmanager
    def offline(self, config, *, needs, create):
        if self.failure:
            raise self.failure
        self.opened += needs != "tables"
        users = UserCommands(self.accounts, config.server.domains)
        with asyncio.Runner() as runner:
            parts = StoreCommands(self.store) if needs == "tables" else users
            yield Offline(Commands(commands_of(parts)), runner.run)

    def check(self, config):
        return self.problems


@pytest.fixture
def app():
    return App()


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A configuration of its own for each test, found by $XMPPD_CONFIG."""
    for name in list(os.environ):
        if name.startswith("XMPPD_"):
            monkeypatch.delenv(name)
    (tmp_path / "data").mkdir()
    path = tmp_path / "xmppd.yaml"
    path.write_text(f"server: {{data_folder: {tmp_path}/data}}\n")
    monkeypatch.setenv("XMPPD_CONFIG", str(path))
    return path


@pytest.fixture
def run(app, config, capsys, monkeypatch):
    """Runs one command line; gives exit code, stdout and stderr."""

    def run(*argv, stdin=None):
        monkeypatch.setattr("sys.stdin", stdin or io.StringIO())
        exit_code = cli.main(argv, app)
        return (exit_code, *capsys.readouterr())

    return run


@pytest.fixture
def server(app, config):
    """A running server: the same registry behind its socket."""
    commands = Commands(
        [
            *commands_of(UserCommands(app.accounts, ("localhost",))),
            *commands_of(ServerCommands(Server())),
            *commands_of(Game(), "game"),
        ]
    )
    ready, loop = threading.Event(), asyncio.new_event_loop()
    admin = AdminSocket(config.parent / "data" / "xmppd.sock", commands)

    def serve():
        loop.run_until_complete(admin.start())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(admin.close())
        loop.close()

    thread = threading.Thread(target=serve)
    thread.start()
    ready.wait()
    yield admin
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
