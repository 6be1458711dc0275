"""Completion of words, and `xmppd shell`."""

import io
import os
import pty
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xmppd.admin.cli import BUILT_IN
from xmppd.admin.completion import SHELLS, candidates

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["ros"], ["roster"]),
        (["roster", "bef"], ["befriend", "befriend-many"]),
        (["--config", "x", "roster", "bef"], ["befriend", "befriend-many"]),
        (["--json", "node", ""], ["drain", "list"]),
        (["user", "add", "a@b", "--pass"], ["--password", "--password-stdin"]),
        (["user", "remove", "--y"], ["--yes"]),
        (["roster", "add", "a@b", "c@d", "--gr"], ["--group"]),
        (["user", "list", "--without"], ["--without-password"]),
        (["nonsense", ""], []),
        (["user", "list", "--context", "p"], ["prod"]),
        (["--con"], ["--config", "--context"]),
    ],
)
def test_what_may_come_next(words, found):
    assert candidates(words, BUILT_IN, ["prod", "stage"]) == found
    assert candidates([], BUILT_IN)[:1] == ["account"]


def test_commands_of_plugins_are_completed(run, server):
    assert "game" in run("--complete", "ga")[1].split() and run("--complete", "game", "")[1].split() != []


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_reads_what_is_for_it(run, shell):
    exit_code, out, _ = run("completion", shell)
    assert exit_code == 0 and "xmppd --complete" in out
    if shutil.which(shell):
        subprocess.run(
            [shell, "-n", "-c", out] if shell != "fish" else [shell, "-n"], input=out, text=True, check=True
        )
    assert run("completion", "cmd")[0] == 2


def test_bash_completes(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/xmppd").write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m xmppd "$@"\n')
    (tmp_path / "bin/xmppd").chmod(0o755)
    asked = 'COMP_WORDS=(xmppd roster bef); COMP_CWORD=2; _xmppd; echo "${COMPREPLY[@]}"'
    environ = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run(
        ["bash", "-c", f"{SHELLS['bash']}\n{asked}"], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["befriend", "befriend-many"]


def test_lines_are_commands(run, server):
    lines = (
        "user add a@localhost --password x # with a reason\n\nuser list\nuser show 'b@localhost\nuser dance\n"
    )
    exit_code, out, err = run("shell", stdin=io.StringIO(lines))
    assert "added: a@localhost" in out and "a@localhost" in out.splitlines()[-1]
    assert "No closing quotation" in err and "dance" in err
    assert exit_code == 2
    assert run("shell", stdin=io.StringIO("user list\nexit\nuser dance\n"))[0] == 0


def test_a_terminal_has_history_and_completion_and_keeps_no_secret(home):
    master, slave = pty.openpty()
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb"}
    command = [sys.executable, "-m", "xmppd", "shell"]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, cwd=home, env=environ)
    os.close(slave)

    def until(text: str) -> str:
        seen, end = "", time.monotonic() + 30
        while text not in seen:
            assert time.monotonic() < end, seen
            seen += os.read(master, 4096).decode()
        return seen

    until("xmppd> ")
    os.write(master, b"completion fi\t")
    os.write(master, b"sh\n")
    until("complete -c xmppd")
    os.write(master, b"cont\tli\t\n")
    until("context list")
    os.write(master, b"context add a ftp://x --token geheim\n")
    until(":5281\r\nxmppd> ")
    os.write(master, b"\x04")
    assert process.wait(30) == 2
    os.close(master)
    history = (home / "xmppd" / "history").read_text()
    assert "context list" in history and "geheim" not in history
