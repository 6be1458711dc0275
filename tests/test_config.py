"""Configuration: search order, overrides, secrets, and each kind of mistake with its exact place."""

import re
import socket
from pathlib import Path
from typing import Literal

import pytest

from xmppd import configfile
from xmppd.config import Config, check, load
from xmppd.configfile import shipped
from xmppd.document import read_document
from xmppd.errors import ConfigError
from xmppd.section import SecretText, Section, changed, values_of
from xmppd.settings import ListenerConfig
from xmppd.systemd import notify

CONFIG_FILES = sorted(shipped("config").glob("*.yaml"))


@pytest.fixture
def write(tmp_path):
    def write(text, name="xmppd.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def mistakes(path, environ=None):
    """What is wrong with a file, each as `line:column: path: message`."""
    return [str(problem).removeprefix(f"{path}:").lstrip() for problem in check(path, environ or {})]


def test_an_empty_file_is_the_defaults(write):
    assert load(write(""), {}) == Config()
    assert load(write("# nothing\n"), {}) == Config()


def test_the_shipped_file_says_what_the_defaults_are():
    defaults = load(shipped("config") / "xmppd.yaml", {})
    assert defaults == Config()
    assert Config().server.domains == ("localhost",)


def test_the_shipped_file_names_every_key():
    def keys(section, path=()):
        for name, value in values_of(section).items():
            yield (*path, name)
            if isinstance(value, Section):
                yield from keys(value, (*path, name))

    written = read_document((shipped("config") / "xmppd.yaml").read_text(), "xmppd.yaml")
    assert [key for key in keys(Config()) if key not in written.keys] == []


@pytest.mark.parametrize("path", CONFIG_FILES, ids=lambda path: path.name)
def test_every_file_in_config_loads(path):
    assert check(path, {}) == []


def test_the_cluster_differs_from_a_single_node_in_its_engines_alone():
    """Every key of the engines is there, with its default; two lines have addresses of engines."""
    path = shipped("config") / "cluster.yaml"
    cluster, single = load(path, {}), Config()
    assert cluster.store.engine == "cassandra"
    assert cluster.store.cassandra == single.store.cassandra
    assert cluster.cache.redis == "redis://127.0.0.1:6379/0"
    assert changed(cluster.cache, redis=None) == single.cache
    named = read_document(path.read_text(), "cluster.yaml").keys
    assert {("store", "cassandra", key) for key in values_of(cluster.store.cassandra)} <= set(named)
    assert {("cache", key) for key in values_of(cluster.cache)} <= set(named)
    assert {("cluster", key) for key in values_of(cluster.cluster)} <= set(named)
    assert cluster.cluster.listen == "0.0.0.0:5290"
    assert changed(cluster.cluster, listen=None) == single.cluster
    same = {"store", "cache", "cluster", "log"}
    others = {name: value for name, value in values_of(cluster).items() if name not in same}
    assert others == {name: value for name, value in values_of(single).items() if name not in same}
    lines = [line for line in path.read_text().splitlines() if re.match(r"[^#]*(:9042|:6379)", line)]
    assert [line.split(":")[0].strip() for line in lines] == ["contact_points", "redis"]


def test_values_are_typed_and_frozen(write):
    path = write(
        "server: {domains: [Chat.Example], data_folder: /srv/x}\nlisten: {c2s: [{port: 5300, tls: none}]}\n"
    )
    loaded = load(path, {})
    assert loaded.source == path
    assert loaded.server.domains == ("chat.example",)
    assert loaded.store_path == Path("/srv/x/xmppd.sqlite")
    assert loaded.socket_path == Path("/srv/x/xmppd.sock")
    assert loaded.listen.c2s[0] == ListenerConfig(port=5300, tls="none")
    with pytest.raises(AttributeError, match="frozen"):
        loaded.server.name = "other"


def test_a_section_whose_keys_are_all_commented_out_is_its_defaults(write):
    path = write("auth:\n#  attempts: 3\nplugins:\n  config:\n    ping:\n")
    assert load(path, {}) == Config()


def test_an_unquoted_version_of_tls_will_do(write):
    assert load(write("tls: {minimum_version: 1.3}"), {}).tls.minimum_version == "1.3"


def test_numbers_may_be_grouped(write):
    assert load(write("limits: {stanza_bytes: 500_000}"), {}).limits.stanza_bytes == 500_000


SCRAMS = (f"SCRAM-SHA-{size}{plus}" for size in (512, 256, 1) for plus in ("-PLUS", ""))
MECHANISMS = ", ".join((*SCRAMS, "PLAIN"))
CLIENTS_REACH = "must be an address that clients can reach"
REACHABLE = "must be an address that the other nodes can reach"

MISTAKES = {
    "unknown key": ("server:\n  domain: [a]\n", ["2:3: server.domain: unknown key (did you mean domains?)"]),
    "unknown section": ("sevrer: {}\n", ["1:1: sevrer: unknown key (did you mean server?)"]),
    "unlike any key": ("auth:\n  zzzzzz: 1\n", ["2:3: auth.zzzzzz: unknown key"]),
    "unknown key in a list": (
        "listen:\n  c2s:\n    - port: 1\n      prot: 2\n",
        ["4:7: listen.c2s[0].prot: unknown key (did you mean port?)"],
    ),
    "unknown key in a mapping": (
        'tls:\n  certificates:\n    "*": {certificate: a, key: b, kye: c}\n',
        ["3:35: tls.certificates.*.kye: unknown key (did you mean key?)"],
    ),
    "missing key": ("listen:\n  c2s:\n  - tls: none\n", ["3:5: listen.c2s[0].port: is missing"]),
    "text for a number": ("auth:\n  attempts: many\n", ["2:13: auth.attempts: must be a whole number"]),
    "quoted number": ('auth:\n  attempts: "5"\n', ["2:13: auth.attempts: must be a whole number"]),
    "octal-looking number": ("auth: {attempts: 010}\n", ["1:18: auth.attempts: must be a whole number"]),
    "decimal for a number": ("auth: {attempts: 2.5}\n", ["1:18: auth.attempts: must be a whole number"]),
    "yes for true": ("tls:\n  required: yes\n", ["2:13: tls.required: must be true or false"]),
    "number for text": ("server: {name: 5}\n", ["1:16: server.name: must be text (put it in quotes)"]),
    "date for a number": ("auth: {attempts: 2026-01-01}\n", ["1:18: auth.attempts: must be a whole number"]),
    "nothing for a number": ("auth:\n  attempts:\n", ["2:12: auth.attempts: must be a whole number"]),
    "text for a list": ("server:\n  domains: a.example\n", ["2:12: server.domains: must be a list"]),
    "text for a section": ("server: x\n", ["1:9: server: must be a section (keys and values below it)"]),
    "text for the whole": ("server\n", ["1:1: must be sections (`name:` and keys below)"]),
    "too small": ("limits:\n  stanza_bytes: 9999\n", ["2:17: limits.stanza_bytes: must be at least 10000"]),
    "too large": ("listen: {c2s: [{port: 65536}]}", ["1:23: listen.c2s[0].port: must be at most 65535"]),
    "not positive": ("auth: {login_seconds: 0}", ["1:23: auth.login_seconds: must be more than 0"]),
    "not a number": ("auth: {login_seconds: .nan}", ["1:23: auth.login_seconds: must be a number"]),
    "no entry": ("server: {domains: []}", ["1:19: server.domains: must not be empty"]),
    "unknown word": (
        "sessions:\n  conflict: replaec\n",
        ["2:13: sessions.conflict: must be one of replace, rename (did you mean replace?)"],
    ),
    "wrong case": (
        "log:\n  level: INFO\n",
        ["2:10: log.level: must be one of debug, info, warning, error (did you mean info?)"],
    ),
    "unknown mechanism": (
        "auth:\n  mechanisms:\n    - PLAIN\n    - SCRAM-SHA1\n",
        [f"4:7: auth.mechanisms[1]: must be one of {MECHANISMS} (did you mean SCRAM-SHA-1?)"],
    ),
    "no network": (
        "auth: {brake: {exempt: [10.0.0.0/8, 10.0.0.1/8]}}",
        ["1:37: auth.brake.exempt[1]: 10.0.0.1/8 has host bits set"],
    ),
    "two spellings of one domain": (
        "tls: {certificates: {a.example: {certificate: a, key: b}, A.example: {certificate: c, key: d}}}",
        ["1:21: tls.certificates: names the same twice: a.example and A.example"],
    ),
    "one word twice": ("auth: {mechanisms: [PLAIN, PLAIN]}", ["1:20: auth.mechanisms: names PLAIN twice"]),
    "whole address for a domain": (
        "server: {domains: [a@b.example]}",
        ["1:20: server.domains[0]: must be a host name, not a whole address"],
    ),
    "whole address for a certificate": (
        "tls:\n  certificates:\n    a@b.example: {certificate: a, key: b}\n",
        ["3:5: tls.certificates.a@b.example: must be a host name, not a whole address"],
    ),
    "no URI": (
        "server: {contact: {admin: [me]}}",
        [r"1:28: server.contact.admin[0]: does not have the right form (^[A-Za-z][A-Za-z0-9+.-]*:\S+$)"],
    ),
    "bounds in the wrong order": (
        "limits:\n  write_buffer_soft: 100\n  write_buffer_hard: 99\n",
        ["3:22: limits.write_buffer_hard: must not be smaller than write_buffer_soft"],
    ),
    "bound above the default of the other": (
        "limits:\n  write_buffer_soft: 5000000\n",
        ["2:3: limits.write_buffer_hard: must not be smaller than write_buffer_soft"],
    ),
    "settings of a plugin that are no section": (
        "plugins: {config: {ping: 5}}",
        ["1:26: plugins.config.ping: must be a section (keys and values below it)"],
    ),
    "duplicate key": (
        "server:\n  name: a\n  language: de\n  name: b\n",
        ["4:3: server.name: is given twice (first in line 2)"],
    ),
    "duplicate section": ("log: {}\nlog: {}\n", ["2:1: log: is given twice (first in line 1)"]),
    "tag": (
        "server:\n  name: !!python/name:os.system x\n",
        ["2:9: server.name: tags are not supported (tag:yaml.org,2002:python/name:os.system)"],
    ),
    "harmless tag": (
        "server:\n  name: !!int 5\n",
        ["2:9: server.name: tags are not supported (tag:yaml.org,2002:int)"],
    ),
    "list for a key": ("server:\n  ? [a]\n  : b\n", ["2:5: server: a key must be plain text"]),
    "no port for trunks": (
        "cluster: {listen: 10.0.0.1}",
        ["1:19: cluster.listen: must have a port: host:port or [IPv6 address]:port"],
    ),
    "any port for trunks": (
        "cluster: {listen: '10.0.0.1:0'}",
        ["1:19: cluster.listen: must have a port from 1 to 65535"],
    ),
    "no address for trunks": (
        "cluster: {listen: 'a b:1'}",
        ["1:19: cluster.listen: must be an IP address or a host name, with a port behind it"],
    ),
    "another host without brackets": (
        "cluster: {see_other_host: 'fd00::1'}",
        ["1:27: cluster.see_other_host: must be a host, host:port or [IPv6 address]:port"],
    ),
    "no other host": (
        "cluster: {see_other_host: '0.0.0.0:5222'}",
        [f"1:27: cluster.see_other_host: {CLIENTS_REACH}: 0.0.0.0 stands for all there are"],
    ),
    "what nobody can dial": (
        "cluster: {advertise: '[::]:5290', seeds: ['a:1', '0.0.0.0:1']}",
        [
            f"1:22: cluster.advertise: {REACHABLE}: :: stands for all there are",
            f"1:50: cluster.seeds[1]: {REACHABLE}: 0.0.0.0 stands for all there are",
        ],
    ),
    "a seed twice": ("cluster: {seeds: ['a:1', 'a:1']}", ["1:18: cluster.seeds: names a:1 twice"]),
    "a short secret": (
        "cluster: {secret: fifteen letters}",
        ["1:19: cluster.secret: must have 16 or more characters (openssl rand -hex 32 makes some)"],
    ),
    "merge key": ("log: &a {level: info}\nsessions: {<<: *a}\n", ["2:12: sessions.<<: unknown key"]),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_has_its_place(write, case):
    text, expected = MISTAKES[case]
    assert mistakes(write(text)) == expected


def test_all_mistakes_are_reported_at_once_in_the_order_of_lines(write):
    path = write(
        "auth: {attempts: x}\nlog: {level: loud}\nserver: {name: a, name: b}\nlimits: {depth: 1, dept: 2}\n"
    )
    assert mistakes(path) == [
        "1:18: auth.attempts: must be a whole number",
        "2:14: log.level: must be one of debug, info, warning, error",
        "3:19: server.name: is given twice (first in line 3)",
        "4:17: limits.depth: must be at least 8",
        "4:20: limits.dept: unknown key (did you mean depth?)",
    ]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("server:\n\tname: x\n", "2:1"),
        ("server: {name: [}\n", "1:17"),
        ("a: b: c\n", "1:5"),
        ("log: {}\n---\nlog: {}\n", "2:1"),
        ("log: *nowhere\n", "1:6"),
        ("log: {}\n\nserver: {name: a\x07b}\n", "3:17"),
    ],
)
def test_broken_yaml_has_its_place(write, text, place):
    path = write(text)
    [problem] = check(path, {})
    assert str(problem).startswith(f"{path}:{place}: not valid YAML: ")


def test_what_is_not_utf8_is_refused(write):
    assert mistakes(write(b"server: {name: \xff}")) == ["is not UTF-8 (byte 15)"]


def test_a_byte_order_mark_is_ignored(write):
    assert load(write(b"\xef\xbb\xbfserver: {name: x}"), {}).server.name == "x"


def test_aliases_work(write):
    assert (
        load(write("server: {name: &a game}\nplugins: {config: {x: {y: *a}}}"), {}).plugins.config["x"]["y"]
        == "game"
    )


def test_aliases_of_aliases_cannot_blow_a_file_up(write):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert any("make this too large" in line for line in mistakes(write("\n".join(lines))))


def test_an_alias_of_itself_is_refused(write):
    assert any("make this too large" in line for line in mistakes(write("plugins: &a {config: {x: *a}}")))


@pytest.mark.parametrize("text", ["[" * 100_000, "x" * 2_000_000], ids=["deep", "long"])
def test_absurd_files_are_refused(write, text):
    assert len(mistakes(write(text))) == 1


def test_a_missing_file_is_a_mistake(tmp_path):
    assert mistakes(tmp_path / "nowhere.yaml") == ["cannot be read: No such file or directory"]


class TestSearch:
    """--config, $XMPPD_CONFIG, ./xmppd.yaml, XDG, /etc, the built-in defaults."""

    @pytest.fixture
    def here(self, tmp_path, monkeypatch):
        (tmp_path / "cwd").mkdir()
        monkeypatch.chdir(tmp_path / "cwd")
        return {"HOME": str(tmp_path / "home")}

    def test_order(self, here, write):
        # From the last resort to the first choice: each one wins over all before.
        if not Path("/etc/xmppd/xmppd.yaml").exists():
            assert load(None, here).source == shipped("config") / "xmppd.yaml"
        dot_config = write("", "home/.config/xmppd/xmppd.yaml")
        assert load(None, here).source == dot_config
        xdg = write("", "xdg/xmppd/xmppd.yaml")
        here["XDG_CONFIG_HOME"] = str(xdg.parent.parent)
        assert load(None, here).source == xdg
        write("", "cwd/xmppd.yaml")
        assert load(None, here).source == Path("xmppd.yaml")
        named = write("", "named.yaml")
        here["XMPPD_CONFIG"] = str(named)
        assert load(None, here).source == named
        given = write("", "given.yaml")
        assert load(given, here).source == given

    def test_a_named_file_that_is_missing_is_not_passed_over(self, here):
        with pytest.raises(ConfigError, match=r"/nowhere\.yaml: cannot be read"):
            load(None, {**here, "XMPPD_CONFIG": "/nowhere.yaml"})


class TestOverrides:
    """XMPPD__SECTION__KEY."""

    def test_values_are_yaml(self, write):
        environ = {
            "XMPPD__SERVER__DOMAINS": "[a.example, b.example]",
            "XMPPD__TLS__REQUIRED": "false",
            "XMPPD__LISTEN__C2S": "[{port: 5300, tls: none}]",
            "XMPPD__LIMITS__DEPTH": "32",
            "XMPPD__PLUGINS__CONFIG__PING__TEXT": '"5"',
            "UNRELATED": "x",
        }
        loaded = load(write("tls: {required: true}\nlimits: {depth: 16, attributes: 16}\n"), environ)
        assert loaded.server.domains == ("a.example", "b.example")
        assert loaded.tls.required is False
        assert [listener.port for listener in loaded.listen.c2s] == [5300]
        assert (loaded.limits.depth, loaded.limits.attributes) == (32, 16)
        assert loaded.plugins.config == {"ping": {"text": "5"}}

    def test_mistakes_name_the_variable(self, write):
        environ = {
            "XMPPD__AUTH__ATTEMPTS": "many",
            "XMPPD__AUTH__ATEMPTS": "5",
            "XMPPD__LISTEN__C2S": "[{port: 1}, {port: x}, {tls: none}]",
        }
        text = "auth: {attempts: 3}\nlisten: {c2s: [{port: 1}, {port: 2}, {port: 3}]}\n"
        assert sorted(mistakes(write(text), environ)) == [
            "$XMPPD__AUTH__ATEMPTS: auth.atempts: unknown key (did you mean attempts?)",
            "$XMPPD__AUTH__ATTEMPTS: auth.attempts: must be a whole number",
            "$XMPPD__LISTEN__C2S: listen.c2s[1].port: must be a whole number",
            "$XMPPD__LISTEN__C2S: listen.c2s[2].port: is missing",
        ]

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("XMPPD__", "1", "must be named XMPPD__SECTION__KEY"),
            ("XMPPD__LOG__", "1", "must be named XMPPD__SECTION__KEY"),
            ("XMPPD__SERVER__NAME__X", "1", "server.name.x: server.name is not a section"),
            ("XMPPD__SERVER__NAME", "[", "not valid YAML"),
        ],
    )
    def test_bad_names_and_values(self, write, name, value, message):
        assert any(
            line.startswith(f"${name}: {message}")
            for line in mistakes(write("server: {name: x}"), {name: value})
        )


class Door(Section):
    """What a plugin could ask for."""

    colour: Literal["red", "green"] = "red"
    width: int = 1
    token: SecretText | None = None


class Doors(Section):
    """A plugin with several of them."""

    main: Door = Door()
    others: tuple[Door, ...] = ()


class TestPlugins:
    """What plugins were told is checked by their own models, with places."""

    def test_defaults_without_a_word_in_the_file(self, write):
        assert load(write(""), {}).plugin("door", Door) == Door()

    def test_values(self, write):
        loaded = load(
            write("plugins: {config: {door: {width: 5}}}"), {"XMPPD__PLUGINS__CONFIG__DOOR__COLOUR": "green"}
        )
        assert loaded.plugin("door", Door) == Door(width=5, colour="green")

    def test_mistakes_have_their_places(self, write):
        path = write("plugins:\n  config:\n    door:\n      colour: gren\n      widht: 5\n      width: x\n")
        with pytest.raises(ConfigError) as caught:
            load(path, {}).plugin("door", Door)
        assert str(caught.value).split("\n") == [
            f"{path}:4:15: plugins.config.door.colour: must be one of red, green (did you mean green?)",
            f"{path}:5:7: plugins.config.door.widht: unknown key (did you mean width?)",
            f"{path}:6:14: plugins.config.door.width: must be a whole number",
        ]

    def test_others_can_report_mistakes_with_places(self, write):
        path = write("plugins:\n  enabled:\n    - disco\n    - dicso2\n")
        problem = load(path, {}).problem(("plugins", "enabled", 1), "there is no such plugin")
        assert str(problem) == f"{path}:4:7: plugins.enabled[1]: there is no such plugin"


class TestSecrets:
    """A secret NAME can be given as NAME_file."""

    def test_from_a_file(self, write, tmp_path):
        write("s3cret\n", "token")
        loaded = load(write(f"plugins: {{config: {{door: {{token_file: {tmp_path}/token}}}}}}"), {})
        door = loaded.plugin("door", Door)
        assert door.token is not None
        assert door.token.value == "s3cret"
        assert "s3cret" not in repr(door)

    def test_inside_sections_lists_and_the_environment(self, write, tmp_path):
        write("one", "1")
        write("two", "2")
        path = write(
            f"plugins: {{config: {{doors: {{others: [{{width: 2}}, {{token_file: {tmp_path}/1}}]}}}}}}"
        )
        loaded = load(path, {"XMPPD__PLUGINS__CONFIG__DOORS__MAIN__TOKEN_FILE": f"{tmp_path}/2"})
        doors = loaded.plugin("doors", Doors)
        assert doors.main.token == SecretText("two")
        assert [door.token for door in doors.others] == [None, SecretText("one")]

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            (
                "{token_file: /nowhere}",
                "1:39: {}.token_file: /nowhere cannot be read: No such file or directory",
            ),
            ("{token_file: 5}", "1:39: {}.token_file: must be the name of a file"),
            (
                "{token: a, token_file: b}",
                "1:49: {}.token_file: is given beside the secret itself: keep one of the two",
            ),
            ("{tokn_file: b}", "1:27: {}.tokn_file: unknown key (did you mean token_file?)"),
            ("{colour_file: b}", "1:27: {}.colour_file: unknown key (did you mean colour?)"),
        ],
    )
    def test_mistakes(self, write, text, expected):
        path = write(f"plugins: {{config: {{door: {text}}}}}")
        with pytest.raises(ConfigError) as caught:
            load(path, {}).plugin("door", Door)
        [problem] = caught.value.problems
        assert str(problem).removeprefix(f"{path}:").startswith(expected.format("plugins.config.door"))


def test_shipped_folders_are_found_beside_the_package_or_inside_it(tmp_path, monkeypatch):
    package = tmp_path / "xmppd"
    monkeypatch.setattr(configfile, "__file__", str(package / "configfile.py"))
    assert shipped("plugins") == tmp_path / "plugins"
    (package / "_data" / "plugins").mkdir(parents=True)
    assert shipped("plugins") == package / "_data" / "plugins"


class TestNotify:
    """sd_notify."""

    def test_tells_the_service_manager(self, tmp_path):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(tmp_path / "n"))
            assert notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "n")})
            assert manager.recv(100) == b"READY=1"

    def test_an_abstract_address(self, tmp_path):
        name = f"xmppd-test-{tmp_path}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(f"\0{name}")
            assert notify("STOPPING=1", {"NOTIFY_SOCKET": f"@{name}"})
            assert manager.recv(100) == b"STOPPING=1"

    @pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
    def test_nobody_listens(self, environ):
        assert not notify("READY=1", environ)
