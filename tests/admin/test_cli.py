"""The command line from arguments to output and exit code: with a server, the store alone, and neither."""

import io
import json

import pytest

from tests.admin.conftest import Terminal
from xmppd import __version__
from xmppd.admin.commands import Command


def test_version(run, capsys):
    with pytest.raises(SystemExit) as caught:
        run("--version")
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"xmppd {__version__}\n"


def test_the_store_is_checked_and_migrated_without_being_opened(run, app):
    assert run("store", "info") == (0, "engine: memory\ntables: -\n", "")
    exit_code, out, err = run("store", "check")
    assert (exit_code, out) == (1, "")
    assert "missing" in err
    assert "  table a\n  column x of table b\n" in err
    assert run("store", "migrate") == (0, "made: table a, column x of table b\n", "")
    assert run("store", "check")[0] == 0
    assert run("store", "migrate")[1] == "made: nothing: everything was there\n"
    assert app.opened == 0


LISTED = """\
ACCOUNT          CREATED  DISABLED  MECHANISMS
alice@localhost  -        no        SCRAM-SHA-1, SCRAM-SHA-256
"""
COUNTED = """\
MECHANISM      ACCOUNTS  IMPORTED  LACKING
SCRAM-SHA-256  1         0         1
SCRAM-SHA-1    2         1         0
SCRAM-SHA-512  0         0         2
-              1         1         -
"""
SHOWN = """\
account:    alice@localhost
created:    1970-01-01T00:00:00Z
disabled:   no
mechanisms: SCRAM-SHA-1, SCRAM-SHA-256
imported:   no
"""


def test_help_lists_what_there_is(run, capsys):
    with pytest.raises(SystemExit):
        run("--help")
    out = capsys.readouterr().out
    assert all(word in out for word in ("serve", "check-config", "status", "commands", "list, reload"))
    assert "add, passwd, disable, enable, remove, list, keys, show" in out


class TestUsers:
    """`user ...` means the same with a server and without."""

    @pytest.fixture(params=["online", "offline"], autouse=True)
    def way(self, request):
        if request.param == "online":
            request.getfixturevalue("server")
        return request.param

    def test_the_life_of_an_account(self, run, app, way):
        assert run("user", "add", "Alice@localhost", "--password", "p") == (0, "added: alice@localhost\n", "")
        assert run("user", "list") == (
            0,
            LISTED,
            "",
        )
        assert run("user", "show", "alice@localhost") == (
            0,
            SHOWN,
            "",
        )
        assert run("user", "passwd", "alice@localhost", "--password", "q")[:2] == (
            0,
            "changed: alice@localhost\n",
        )
        assert app.accounts.passwords == {"alice@localhost": "q"}
        assert run("user", "disable", "alice@localhost")[:2] == (0, "disabled: alice@localhost\n")
        assert "disabled:   yes" in run("user", "show", "alice@localhost")[1]
        assert run("user", "enable", "alice@localhost")[:2] == (0, "enabled: alice@localhost\n")
        assert "disabled:   no" in run("user", "show", "alice@localhost")[1]
        assert run("user", "remove", "alice@localhost")[:2] == (0, "removed: alice@localhost\n")
        assert run("user", "list") == (0, "", "")
        assert app.opened == (0 if way == "online" else 10)

    def test_who_lacks_which_keys(self, run, app):
        app.accounts.keys = {
            "old@localhost": ("SCRAM-SHA-1",),
            "new@localhost": ("SCRAM-SHA-256", "SCRAM-SHA-1"),
            "reset@localhost": (),
        }
        app.accounts.imported = {"old@localhost", "reset@localhost"}
        for name in app.accounts.keys:
            run("user", "add", name, "--password", "p")

        def listed(*argv):
            return [row["account"] for row in json.loads(run("--json", "user", "list", *argv)[1])]

        assert listed() == ["new@localhost", "old@localhost", "reset@localhost"]
        assert listed("--without-password") == ["reset@localhost"]
        assert listed("localhost", "--lacking", "SCRAM-SHA-256") == ["old@localhost"]
        assert listed("--lacking", "scram-sha-256-plus") == ["old@localhost"]
        assert listed("--lacking", "SCRAM-SHA-512") == ["new@localhost", "old@localhost"]
        assert listed("--lacking", "SCRAM-SHA-1") == []
        assert run("user", "keys") == (0, COUNTED, "")
        assert json.loads(run("--json", "user", "keys", "localhost")[1])[-1]["accounts"] == 1
        assert "imported:   yes" in run("user", "show", "old@localhost")[1]

    def test_json(self, run):
        run("user", "add", "a@localhost", "--password", "p")
        for argv in (
            ("--json", "user", "list"),
            ("user", "list", "--json"),
            ("user", "list", "localhost", "--json"),
        ):
            exit_code, out, _ = run(*argv)
            assert exit_code == 0
            row = {"account": "a@localhost", "created": None, "disabled": False}
            assert json.loads(out) == [{**row, "mechanisms": ["SCRAM-SHA-1", "SCRAM-SHA-256"]}]
        assert json.loads(run("user", "list", "LOCALHOST", "--json")[1])[0]["account"] == "a@localhost"

    @pytest.mark.parametrize(
        ("argv", "exit_code", "sentence"),
        [
            (("user", "add", "a@localhost", "--password", "p"), 1, "the account a@localhost exists already"),
            (("user", "remove", "b@localhost"), 1, "there is no account b@localhost"),
            (
                ("user", "add", "a@elsewhere", "--password", "p"),
                1,
                "elsewhere is not a domain of this server (localhost)",
            ),
            (("user", "list", "elsewhere"), 1, "elsewhere is not a domain of this server (localhost)"),
            (("user", "list", "a@localhost"), 2, "a@localhost is not a domain"),
            (("user", "keys", "elsewhere"), 1, "elsewhere is not a domain of this server (localhost)"),
            (
                ("user", "list", "--lacking", "PLAIN"),
                2,
                "PLAIN is not a mechanism with keys (SCRAM-SHA-256, SCRAM-SHA-1, SCRAM-SHA-512)",
            ),
            (("user", "show", "localhost"), 2, "localhost is not the address of an account (name@domain)"),
            (
                ("user", "show", "a@localhost/r"),
                2,
                "a@localhost/r is not the address of an account (name@domain)",
            ),
        ],
    )
    def test_refusals_are_one_sentence(self, run, argv, exit_code, sentence):
        run("user", "add", "a@localhost", "--password", "p")
        assert run(*argv) == (exit_code, "", f"xmppd: {sentence}\n")


class TestPasswords:
    """A password never has to be an argument."""

    def test_from_stdin(self, run, app):
        assert (
            run(
                "user", "add", "a@localhost", "--password-stdin", stdin=io.StringIO("s p\u00e4ce \r\nmore\n")
            )[0]
            == 0
        )
        assert app.accounts.passwords == {"a@localhost": "s p\u00e4ce "}

    def test_made_up(self, run, app):
        _, out, _ = run("user", "add", "a@localhost", "--generate")
        password = app.accounts.passwords["a@localhost"]
        assert len(password) == 20
        assert out == f"added:    a@localhost\npassword: {password}\n"
        run("user", "passwd", "a@localhost", "--generate")
        assert app.accounts.passwords["a@localhost"] != password

    def test_asked_for_without_echo(self, run, app, monkeypatch):
        answers = iter(["secret", "secret", "one", "other"])
        monkeypatch.setattr("getpass.getpass", lambda prompt: next(answers))
        assert run("user", "add", "a@localhost", stdin=Terminal())[0] == 0
        assert app.accounts.passwords == {"a@localhost": "secret"}
        assert run("user", "passwd", "a@localhost", stdin=Terminal()) == (
            2,
            "",
            "xmppd: the two are not the same\n",
        )

    @pytest.mark.parametrize(
        ("argv", "sentence"),
        [
            (("user", "add", "x@@y"), "account: 'x@@y' is not an address: "),
            (("user", "add", "a@elsewhere"), "elsewhere is not a domain of this server (localhost)"),
            (("user", "add", "a@localhost"), "the account a@localhost exists already"),
            (("user", "passwd", "b@localhost"), "there is no account b@localhost"),
        ],
    )
    @pytest.mark.parametrize("way", ["server", "app"])
    def test_nobody_is_asked_in_vain(self, run, app, request, monkeypatch, argv, sentence, way):
        request.getfixturevalue(way)
        app.accounts.passwords["a@localhost"] = "old"
        monkeypatch.setattr("getpass.getpass", lambda prompt: pytest.fail("asked"))
        exit_code, out, err = run(*argv, stdin=Terminal())
        assert (exit_code in (1, 2), out) == (True, "")
        assert err.startswith(f"xmppd: {sentence}")

    @pytest.mark.parametrize(
        ("argv", "sentence"),
        [
            ((), "no terminal to ask for the password: use --password-stdin or --generate"),
            (("--password-stdin",), "the password must not be empty"),
            (("--password", ""), "the password must not be empty"),
        ],
    )
    def test_without_one(self, run, app, argv, sentence):
        assert run("user", "add", "a@localhost", *argv) == (2, "", f"xmppd: {sentence}\n")
        assert app.accounts.passwords == {}

    def test_only_one_way(self, run):
        exit_code, _, err = run("user", "add", "a@localhost", "--generate", "--password", "p")
        assert exit_code == 2
        assert "not allowed with" in err


class TestConfirmation:
    """What cannot be undone is asked about, if there is somebody to ask."""

    @pytest.mark.parametrize("answer", ["n", "", "nonsense"])
    def test_no(self, run, app, answer):
        app.accounts.passwords["a@localhost"] = "p"
        assert run("user", "remove", "a@localhost", stdin=Terminal(f"{answer}\n")) == (
            1,
            "",
            "Delete a@localhost and all it owns? [y/N] xmppd: nothing was done\n",
        )
        assert app.accounts.passwords == {"a@localhost": "p"}

    @pytest.mark.parametrize("way", ["server", "app"])
    def test_yes(self, run, app, request, way):
        request.getfixturevalue(way)
        app.accounts.passwords["a@localhost"] = "p"
        exit_code, out, _ = run("user", "remove", "a@localhost", stdin=Terminal("yes\n"))
        assert (exit_code, out) == (0, "removed: a@localhost\n")
        app.accounts.passwords["a@localhost"] = "p"
        assert run("user", "remove", "a@localhost", "--yes", stdin=Terminal()) == (
            0,
            "removed: a@localhost\n",
            "",
        )

    def test_what_was_not_given_is_its_default(self, run, server):
        _, out, err = run("game", "kick", "bob", stdin=Terminal("y\n"))
        assert (out, err) == ("kicked: bob\n", "Kick bob for 5 minutes? [y/N] ")

    def test_about_nothing_nobody_is_asked(self, run):
        assert run("user", "remove", "a@localhost", stdin=Terminal("y\n")) == (
            1,
            "",
            "xmppd: there is no account a@localhost\n",
        )


class TestServerCommands:
    """`status` and `plugin` need a running server."""

    @pytest.mark.parametrize(
        ("argv", "out"),
        [
            (("status",), "server\n  version  1\n\nsessions\n  sessions  2\n"),
            (("plugin", "list"), "NAME   VERSION\nping   1\ndisco  2\n"),
            (("plugin", "reload"), "reloaded: ping, disco\n"),
            (("plugin", "reload", "ping"), "reloaded: ping\n"),
        ],
    )
    def test_with_one(self, run, server, argv, out):
        assert run(*argv) == (0, out, "")

    @pytest.mark.parametrize(
        "argv", [("status",), ("plugin", "list"), ("plugin", "reload", "x"), ("commands",)]
    )
    def test_without_one(self, run, app, config, argv):
        path = config.parent / "data" / "xmppd.sock"
        sentence = f"xmppd: no server is running here (nobody answers at {path})\n"
        assert run(*argv) == (69, "", sentence)
        assert app.opened == 0

    def test_commands_of_plugins(self, run, server):
        exit_code, out, err = run("game", "mute", "bob", "7", "--quiet", "--json-lines", "2", "--json")
        assert (exit_code, err) == (0, "")
        assert json.loads(out) == {"player": "bob", "minutes": 7, "quiet": True, "json_lines": 2.0}
        assert json.loads(run("--json", "game", "mute", "bob")[1])["minutes"] == 5
        assert run("user", "key", "--token", "x") == (0, "", "")
        assert "game mute" in run("commands")[1]

    @pytest.mark.parametrize("argv", [("game", "--help"), ("game", "mute", "--help")])
    def test_help_of_commands_of_plugins(self, run, server, capsys, argv):
        with pytest.raises(SystemExit):
            run(*argv)
        assert "Stop a player 100% from chatting" in capsys.readouterr().out

    def test_commands_of_plugins_that_clash_with_our_own_are_left_out(self, run, server):
        server.commands.add(Command("serve more", "x"), Command("check-config", "x"))
        assert run("game", "mute", "bob")[0] == 0

    def test_commands_of_plugins_without_a_server_are_unknown(self, run):
        exit_code, out, err = run("game", "mute", "bob")
        assert (exit_code, out) == (2, "")
        assert "'game'" in err
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    "argv",
    [
        (),
        ("user",),
        ("nonsense",),
        ("user", "nonsense"),
        ("user", "show"),
        ("--nonsense",),
        ("status", "x"),
        ("--config",),
    ],
)
def test_wrong_usage_is_one_sentence(run, argv):
    exit_code, out, err = run(*argv)
    assert (exit_code, out) == (2, "")
    assert err.startswith("xmppd: ")
    assert err.count("\n") == 1


def test_wrong_types_are_wrong_usage(run, server):
    assert run("game", "mute", "bob", "many")[0] == 2
