"""Long commands in pages: joined, shown as they go, interrupted and gone on with."""

import asyncio
import contextlib
import io
import json
import threading
from pathlib import Path

import pytest

from tests.admin.conftest import Terminal
from xmppd.admin import cli
from xmppd.admin.commands import commands_of, page
from xmppd.admin.pages import Pages
from xmppd.admin.registry import Commands
from xmppd.admin.rosters import RosterCommands
from xmppd.config import load
from xmppd.errors import CommandError, XmppdError
from xmppd.offline import Offline


class Rosters:
    """The port behind `roster` commands: 7 accounts, of which 2 have faults."""

    def __init__(self):
        self.calls = []
        self.fail_at = None

    async def count(self):
        return 7

    async def repair_one(self, account, *, mend):
        return [self.fault(account, mend)]

    async def repair_some(self, after, rate, *, mend):
        start = int(after or b"0")
        self.calls.append((start, rate, mend))
        if start == self.fail_at:
            raise XmppdError("the store has gone")
        end = min(start + 3, 7)
        rows = [self.fault(f"user{n}@localhost", mend) for n in range(start, end) if n in (1, 5)]
        return end - start, rows, None if end == 7 else str(end).encode()

    def fault(self, account, mend):
        return {"account": account, "problem": "p", "mended": "yes" if mend else "not yet"}


class App:
    def __init__(self):
        self.rosters = Rosters()
        self.opened = 0

    load = staticmethod(load)

    @contextlib.contextmanager
    def offline(self, config, *, needs, create):
        self.opened += 1
        with asyncio.Runner() as runner:
            yield Offline(Commands(commands_of(RosterCommands(self.rosters))), runner.run)


@pytest.fixture
def app():
    return App()


@pytest.fixture(autouse=True)
def config(tmp_path, monkeypatch):
    path = tmp_path / "xmppd.yaml"
    path.write_text(f"server: {{data_folder: {tmp_path}}}\n")
    monkeypatch.setenv("XMPPD_CONFIG", str(path))


def test_pages_are_joined_without_a_server(app, capsys):
    assert cli.main(["roster", "check", "--all"], app) == 1
    out, err = capsys.readouterr()
    assert [line.split() for line in out.splitlines()] == [
        ["ACCOUNT", "PROBLEM", "MENDED"],
        ["user1@localhost", "p", "not", "yet"],
        ["user5@localhost", "p", "not", "yet"],
        [],
        ["accounts:", "7"],
        ["faults:", "2"],
        ["mended:", "0"],
    ]
    assert err.startswith("roster check: 7 accounts  100%")
    assert app.rosters.calls == [(0, 100.0, False), (3, 100.0, False), (6, 100.0, False)]
    assert app.opened == 1


def test_repair_for_programs(app, capsys):
    assert cli.main(["roster", "repair", "--all", "--rate", "5", "--json"], app) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["accounts"], shown["faults"], shown["mended"]) == (7, 2, 2)
    assert [row["account"] for row in shown["rows"]] == ["user1@localhost", "user5@localhost"]
    assert app.rosters.calls[0] == (0, 5.0, True)


def test_a_dry_run_mends_nothing(app, capsys):
    assert cli.main(["roster", "repair", "a@localhost", "--dry-run"], app) == 1
    assert "not yet" in capsys.readouterr().out


def test_what_is_done_is_not_done_again(app, capsys):
    app.rosters.fail_at = 3
    assert cli.main(["roster", "repair", "--all"], app) == 1
    err = capsys.readouterr().err
    assert "the store has gone" in err
    token = err.partition("--after ")[2].split()[0]
    app.rosters.fail_at = None
    app.rosters.calls.clear()
    assert cli.main(["roster", "repair", "--all", "--after", token], app) == 0
    assert [call[0] for call in app.rosters.calls] == [3, 6]


def test_an_interrupt_says_how_to_go_on(app, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    run_some = app.rosters.repair_some

    async def once(after, rate, *, mend):
        return interrupt() if after else await run_some(after, rate, mend=mend)

    monkeypatch.setattr(app.rosters, "repair_some", once)
    assert cli.main(["roster", "repair", "--all"], app) == cli.INTERRUPTED
    assert "go on with --after" in capsys.readouterr().err


class Clock:
    def __init__(self):
        self.time = 100.0

    def __call__(self):
        return self.time


def test_progress_on_a_terminal():
    out, clock = Terminal(), Clock()
    pages = Pages("roster check", out, clock=clock)
    assert pages.add(page([], {"accounts": 25, "faults": 1}, total=100, after="x"))
    clock.time += 2
    assert pages.add(page([], {"accounts": 25, "faults": 0}, after="y"))
    shown = out.getvalue().rpartition("\x1b[K")[2]
    assert shown == "roster check: [############............]  50 accounts  50%  25 accounts/s  0:02 left"
    assert not pages.add(page([{"a": 1}], {"accounts": 50, "faults": 0}, exit_code=1))
    assert out.getvalue().endswith("100 accounts  100%  50 accounts/s\n")
    assert pages.result == {"rows": [{"a": 1}], "accounts": 100, "faults": 1}
    assert pages.exit_code == 1


def test_one_page_shows_no_progress():
    out = Terminal()
    assert not Pages("x", out).add(page([], {"accounts": 1}, total=1))
    assert out.getvalue() == ""


def test_pages_through_the_socket(app, capsys, monkeypatch):
    commands = Commands(commands_of(RosterCommands(app.rosters)))
    asked = []

    def answer(path, name, arguments):
        asked.append((name, dict(arguments)))
        result = []
        thread = threading.Thread(target=lambda: result.append(_run(commands, name, arguments)))
        thread.start()
        thread.join()
        return result[0]

    monkeypatch.setattr(cli, "request", answer)
    monkeypatch.setattr(cli, "find_server", lambda document, is_named: Path("xmppd.sock"))
    assert cli.main(["roster", "check", "--all"], app) == 1
    assert [arguments.get("after") for _, arguments in asked] == [None, "Mw==", "Ng=="]
    assert "faults:" in capsys.readouterr().out
    assert app.opened == 0


def _run(commands, name, arguments):
    return asyncio.run(commands.call(name, arguments))


def test_a_server_that_goes_away_in_between_is_not_replaced_by_the_store(app, capsys, monkeypatch):
    answers = [page([], {"accounts": 1}, after="Mw==")]

    def answer(path, name, arguments):
        if answers:
            return answers.pop()
        raise cli.NoServer(path)

    monkeypatch.setattr(cli, "request", answer)
    monkeypatch.setattr(cli, "find_server", lambda document, is_named: Path("xmppd.sock"))
    assert cli.main(["roster", "check", "--all"], app) == 69
    assert "--after Mw==" in capsys.readouterr().err
    assert app.opened == 0


def test_a_page_for_people_with_no_rows():
    pages = Pages("x", io.StringIO())
    pages.add(page([], {"accounts": 2}))
    assert pages.text == "accounts: 2"


def test_a_bad_token():
    with pytest.raises(CommandError, match="token"):
        _run(Commands(commands_of(RosterCommands(Rosters()))), "roster check", {"all": True, "after": "%"})
