"""The command line without commands: `serve`, `check-config`, and what ends badly."""

import json
import subprocess
import sys

import pytest

from xmppd.errors import ConfigError, Problem, StoreUnavailable


class TestServe:
    """`serve` hands over to the application."""

    def test_with_the_configuration(self, run, app, config, tmp_path):
        assert run("serve") == (0, "", "")
        other = tmp_path / "other.yaml"
        other.write_text("")
        assert run("serve", "--config", str(other))[0] == 0
        assert run("--config", str(other), "serve")[0] == 0
        assert [served.source for served in app.served] == [config, other, other]

    def test_with_workers(self, run, app, config):
        assert run("serve", "--workers", "3")[0] == 75
        [(served, count)] = app.served
        assert (served.source, count) == (config, 3)

    def test_a_bad_configuration(self, run, config):
        config.write_text("auth: {attempts: x}\nlgo: {}\n")
        exit_code, out, err = run("serve")
        assert (exit_code, out) == (78, "")
        assert err.split("\n") == [
            f"{config}:1:18: auth.attempts: must be a whole number",
            f"{config}:2:1: lgo: unknown key (did you mean log?)",
            "",
        ]

    @pytest.mark.parametrize(
        ("failure", "exit_code", "sentence"),
        [
            (StoreUnavailable("cannot open the store"), 69, "xmppd: cannot open the store"),
            (PermissionError(13, "Permission denied", "/key.pem"), 77, "xmppd: /key.pem: Permission denied"),
            (PermissionError("no right to bind"), 77, "xmppd: no right to bind"),
            (OSError(98, "Address already in use"), 1, "xmppd: Address already in use"),
            (
                RuntimeError("bug"),
                1,
                "xmppd: internal error: RuntimeError('bug') (XMPPD_DEBUG=1 shows where)",
            ),
            (KeyboardInterrupt(), 130, ""),
        ],
    )
    def test_failures(self, run, app, failure, exit_code, sentence):
        app.failure = failure
        assert run("serve") == (exit_code, "", f"{sentence}\n" if sentence else "")

    def test_debugging_shows_where(self, run, app, monkeypatch):
        monkeypatch.setenv("XMPPD_DEBUG", "1")
        app.failure = RuntimeError("bug")
        with pytest.raises(RuntimeError):
            run("serve")

    def test_a_store_that_cannot_be_opened(self, run, app):
        app.failure = StoreUnavailable("cannot open the store")
        assert run("user", "list") == (69, "", "xmppd: cannot open the store\n")


class TestCheckConfig:
    """`check-config` needs nothing but the file."""

    def test_a_good_one(self, run, config):
        assert run("check-config") == (0, f"{config}: no mistakes\n", "")
        assert json.loads(run("check-config", "--json")[1]) == {"problems": []}

    def test_a_bad_one(self, run, config):
        config.write_text("auth: {attempts: x}\n")
        message = "must be a whole number"
        assert run("check-config") == (78, "", f"{config}:1:18: auth.attempts: {message}\n")
        exit_code, out, _ = run("check-config", "--json")
        assert exit_code == 78
        assert json.loads(out)["problems"] == [
            {"file": str(config), "line": 1, "column": 18, "path": "auth.attempts", "message": message}
        ]

    def test_what_plugins_were_told_is_checked_too(self, run, app):
        app.problems = [Problem("f", 1, 2, "plugins.config.x", "no")]
        assert run("check-config") == (78, "", "f:1:2: plugins.config.x: no\n")
        assert json.loads(run("check-config", "--json")[1])["problems"][0]["path"] == "plugins.config.x"

    def test_when_the_plugins_cannot_even_be_loaded(self, run, app, monkeypatch):
        def check(config):
            raise ConfigError([Problem("f", 1, 2, "plugins.enabled[0]", "there is no such plugin")])

        monkeypatch.setattr(app, "check", check)
        assert run("check-config") == (78, "", "f:1:2: plugins.enabled[0]: there is no such plugin\n")


def test_a_closed_pipe_is_no_traceback(config):
    code = (
        "import sys\n"
        "from xmppd.admin import cli\nfrom xmppd.config import load\n"
        "class App:\n    check = staticmethod(lambda config: [])\n"
        "    load = staticmethod(load)\n"
        "sys.stdin.read()\n"
        "sys.exit(cli.main(['check-config'], App()))\n"
    )
    pipe = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, stderr=-1)
    pipe.stdout.close()
    pipe.stdin.close()
    assert pipe.stderr.read() == b""
    assert pipe.wait() == 1
    pipe.stderr.close()
