"""`check-config` finds, with its place, what a server would die of, or serve nobody with."""

import socket
import sys
import time
from types import ModuleType

import pytest

from xmppd.checks import check, check_compaction, refuse_fatal
from xmppd.config import load
from xmppd.encryption import warn_of_certificates
from xmppd.errors import ConfigError
from xmppd.net.certificates import development_certificate
from xmppd.net.coverage import is_covered
from xmppd.rules import node_name


@pytest.fixture
def loaded(tmp_path):
    """Loads a configuration: text in which `HERE` is a folder that has `file`, `folder` and certificates."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()

    def make(text, environ=None):
        path = tmp_path / "xmppd.yaml"
        if "server:" not in text:
            text = f"server: {{data_folder: HERE/data}}\n{text}"
        path.write_text(text.replace("HERE", str(tmp_path)))
        values = {name: value.replace("HERE", str(tmp_path)) for name, value in (environ or {}).items()}
        return load(path, values)

    return make


def said(problems, tmp_path):
    return [str(problem).replace(str(tmp_path), "HERE") for problem in problems]


def certificate(folder, *domains, now=time.time):
    pair = development_certificate(folder / "-".join(domains), domains, now=now)
    return f"{{certificate: {pair.certificate}, key: {pair.key}}}"


SHARED = "store: {engine: cassandra}\ncache: {redis: 'redis://127.0.0.1'}\n"
UNSHARED = "listen: '127.0.0.1:1', seeds: ['a:1'], secret: 0123456789abcdef"

FATAL = {
    "no listener": ("listen: {c2s: []}", "2:15: listen.c2s: names no listener"),
    "one place twice": (
        "listen: {c2s: [{port: 6300}, {port: 6300, tls: direct}]}",
        "2:37: listen.c2s[1].port: 127.0.0.1:6300 is taken by listen.c2s[0]",
    ),
    "in another spelling": (
        "listen: {c2s: [{address: '::1', port: 1}, {address: '[0:0::1]', port: 1}]}",
        "2:71: listen.c2s[1].port: [::1]:1 is taken by listen.c2s[0]",
    ),
    "one beside all": (
        "listen: {c2s: [{port: 6300}, {address: 0.0.0.0, port: 6300}]}",
        "2:55: listen.c2s[1].port: 0.0.0.0:6300 is taken by listen.c2s[0]",
    ),
    "the port of another protocol": (
        "listen: {c2s: [{port: 6300}], http: {port: 6300}}",
        "2:44: listen.http.port: 127.0.0.1:6300 is taken by listen.c2s[0]",
    ),
    "the port of trunks": (
        f"{SHARED}cluster: {{listen: '127.0.0.1:5223'}}",
        "cluster.listen: 127.0.0.1:5223 is taken by listen.c2s[1]",
    ),
    "a cluster with a store for each node": (
        "cache: {redis: 'redis://127.0.0.1'}\ncluster: {listen: '127.0.0.1:1'}",
        "3:19: cluster.listen: needs a store that all nodes share: store.engine must be cassandra",
    ),
    "a cluster in which nobody finds anybody": (
        "store: {engine: cassandra}\ncluster: {listen: '127.0.0.1:1', secret: 0123456789abcdef}",
        "3:19: cluster.listen: needs cache.redis, in which nodes find each other, or cluster.seeds",
    ),
    "a cluster without a secret": (
        "store: {engine: cassandra}\ncluster: {listen: '127.0.0.1:1', seeds: ['a:1']}",
        "3:34: cluster.seeds: need cluster.secret beside them: ",
    ),
    "a carrier that is not there": (
        f"store: {{engine: cassandra}}\ncluster: {{{UNSHARED}, carrier: redis}}",
        "cluster.carrier: needs cache.redis, which is to carry what nodes tell each other",
    ),
    "ciphers that nobody knows": ("tls: {ciphers: NOPE}", "2:16: tls.ciphers: selects no cipher"),
    "a certificate that is not there": (
        "tls: {certificates: {'*': {certificate: HERE/no, key: HERE/no}}}",
        "tls.certificates.*.certificate: HERE/no: No such file or directory",
    ),
    "a certificate that is none": (
        "tls: {certificates: {'*': {certificate: HERE/file, key: HERE/file}}}",
        "tls.certificates.*.certificate: HERE/file: it holds no PEM certificate",
    ),
    "a plugin folder that is not there": (
        "plugins: {folders: [HERE/nowhere]}",
        "2:21: plugins.folders[0]: HERE/nowhere is no folder",
    ),
    "a data folder that is a file": (
        "server: {data_folder: HERE/file}",
        "1:23: server.data_folder: cannot be made: HERE/file: Not a directory",
    ),
    "a data folder in a file": (
        "server: {data_folder: HERE/file/a/b}",
        "1:23: server.data_folder: cannot be made: HERE/file/a/b: Not a directory",
    ),
    "a file that Cassandra's driver cannot use": (
        "store: {engine: cassandra, cassandra: {tls: {ca: HERE/file}}}",
        "2:50: store.cassandra.tls.ca: HERE/file cannot be used: ",
    ),
    "an option that redis-py does not know": (
        "cache: {redis: 'redis://127.0.0.1/0?nonsense=1'}",
        "2:16: cache.redis: cannot be used: ",
    ),
    "a file that redis-py would miss": (
        "cache: {redis: 'rediss://127.0.0.1/0?ssl_ca_certs=HERE/no'}",
        "2:16: cache.redis: cannot be used: ssl_ca_certs: HERE/no cannot be read",
    ),
}


@pytest.mark.parametrize(("text", "sentence"), FATAL.values(), ids=FATAL)
def test_what_no_server_could_work_with(loaded, tmp_path, text, sentence):
    config = loaded(text)
    problems = check(config)
    assert len(problems) == 1
    assert sentence in said(problems, tmp_path)[0]
    with pytest.raises(ConfigError) as caught:
        refuse_fatal(config)
    assert caught.value.problems == problems


OTHER = {
    "an address of another machine": (
        "listen: {c2s: [{address: 192.0.2.1, port: 1}]}",
        "2:26: listen.c2s[0].address: 192.0.2.1 is no address of this machine",
    ),
    "a name without an address": (
        "listen: {c2s: [{address: nobody.invalid, port: 1}]}",
        "2:26: listen.c2s[0].address: nobody.invalid cannot be resolved to an address",
    ),
    "a certificate of a domain that is not served": (
        "tls: {certificates: {'*': GOOD, locahost: GOOD}}",
        "tls.certificates.locahost: locahost is not among server.domains (did you mean localhost?)",
    ),
    "a store in no folder": ("store: {path: HERE/no/x.sqlite}", "2:15: store.path: HERE/no is no folder"),
    "a store that is a folder": ("store: {path: HERE/folder}", "2:15: store.path: HERE/folder is no file"),
    "a store that is none": ("store: {path: HERE/file}", "2:15: store.path: HERE/file is no SQLite database"),
    "a plugin that is not there": (
        "plugins: {enabled: [pin]}",
        "2:21: plugins.enabled[0]: there is no plugin",
    ),
    "a plugin that cannot be loaded": (
        "plugins: {enabled: [ping, xmppd], folders: [HERE]}",
        "2:27: plugins.enabled[1]: HERE/xmppd.py: ",
    ),
    "what no plugin is told": (
        "plugins: {config: {offlin: {x: 1}}}",
        "2:20: plugins.config.offlin: there is no plugin 'offlin' (did you mean offline?)",
    ),
    "trunks at an address of another machine": (
        f"{SHARED}cluster: {{listen: '192.0.2.1:1'}}",
        "cluster.listen: 192.0.2.1 is no address of this machine",
    ),
    "seeds that nothing leads to": (
        f"{SHARED}cluster: {{listen: '127.0.0.1:1', carrier: redis, seeds: ['a:1']}}",
        "cluster.seeds: are of no use with cluster.carrier: redis",
    ),
    "what a single node has no use for": (
        "cluster: {seeds: ['a:1']}",
        "2:11: cluster.seeds: is of no use without cluster.listen: this node has no cluster",
    ),
    "a table of nobody": (
        "store: {engine: cassandra, cassandra: {compaction: {tables: {rosterr: {class: X}}}}}",
        "store.cassandra.compaction.tables.rosterr: there is no table rosterr (did you mean roster?)",
    ),
}


@pytest.mark.parametrize(("text", "sentence"), OTHER.values(), ids=OTHER)
def test_what_a_server_would_find_out_later(loaded, tmp_path, text, sentence):
    (tmp_path / "xmppd.py").write_text("import nothing_of_this_name\n")
    config = loaded(text.replace("GOOD", certificate(tmp_path, "localhost")))
    problems = said(check(config), tmp_path)
    assert len(problems) == 1
    assert sentence in problems[0]
    refuse_fatal(config)


COUNTED = """
import sys
from xmppd.plugin import Plugin
class Counted(Plugin):
    "Counts."
sys.runs.append(1)
"""


@pytest.mark.parametrize(("tables", "runs"), [("{}", 0), ("{roster: {class: X}}", 1)])
def test_plugins_at_work_are_left_alone(loaded, tmp_path, monkeypatch, tables, runs):
    (tmp_path / "counted.py").write_text(COUNTED)
    monkeypatch.setattr(sys, "runs", [], raising=False)
    monkeypatch.setitem(sys.modules, "xmppd_plugins.counted", at_work := ModuleType("xmppd_plugins.counted"))
    config = loaded(
        f"store: {{engine: cassandra, cassandra: {{compaction: {{tables: {tables}}}}}}}\n"
        "plugins: {enabled: [counted], folders: [HERE]}\n"
    )
    refuse_fatal(config)
    assert sys.runs == [], "what would not keep a server from working is not looked for"
    assert list(check_compaction(config)) == []
    assert len(sys.runs) == runs
    assert sys.modules["xmppd_plugins.counted"] is at_work


@pytest.mark.parametrize(
    "text",
    [
        f"{SHARED}cluster: {{listen: '0.0.0.0:5290'}}",
        f"{SHARED}cluster: {{listen: '192.0.2.1:5223', carrier: redis}}",
        "store: {engine: cassandra}\ncluster: {listen: '[::1]:1', seeds: ['a:1'], secret: 0123456789abcdef}",
    ],
)
def test_a_good_cluster(loaded, text):
    assert check(loaded(text)) == []


@pytest.mark.parametrize(
    ("cluster", "name"),
    [
        ("{}", ""),
        ("{advertise: 'a:1'}", ""),
        ("{listen: '10.0.0.1:5290'}", "10.0.0.1:5290"),
        ("{listen: '[fd00::1]:5290'}", "[fd00::1]:5290"),
        ("{listen: '0.0.0.0:5290'}", "machine:5290"),
        ("{listen: '[::]:5290'}", "machine:5290"),
        ("{listen: '[::]:5290', advertise: 'a.example:5291'}", "a.example:5291"),
    ],
)
def test_what_a_node_is_called(loaded, monkeypatch, cluster, name):
    monkeypatch.setattr(socket, "gethostname", lambda: "machine")
    assert node_name(loaded(f"cluster: {cluster}")) == name


def test_a_good_one(loaded, tmp_path):
    pair = certificate(tmp_path, "localhost", "*.example.org")
    text = (
        "server: {data_folder: HERE/new/data, domains: [localhost, a.example.org]}\n"
        f"tls: {{certificates: {{localhost: {pair}}}}}\n"
        "listen: {c2s: [{port: 0}, {port: 0}, {address: '[::1]', port: 1}, {address: localhost, port: 2}]}\n"
    )
    assert check(loaded(text)) == []


def test_clients_have_to_believe_what_they_are_shown(loaded, tmp_path):
    pair = certificate(tmp_path, "localhost")
    text = f"server: {{domains: [localhost, b.example]}}\ntls: {{certificates: {{localhost: {pair}}}}}\n"
    [problem] = said(check(loaded(text)), tmp_path)
    assert (
        "2:21: tls.certificates: clients of b.example are shown a certificate that is for 127.0.0.1, "
        in problem
    )
    refuse_fatal(loaded(text))


@pytest.mark.parametrize(("days", "sentence"), [(-400, "the certificate ended on "), (9, "begins on ")])
def test_a_certificate_has_its_time(loaded, tmp_path, days, sentence):
    pair = certificate(tmp_path, "localhost", now=lambda: time.time() + days * 86400)
    config = loaded(f"tls: {{certificates: {{localhost: {pair}}}}}")
    [problem] = check(config)
    assert problem.path == "tls.certificates.localhost.certificate"
    assert sentence in problem.message


def test_doubts_are_logged_too(loaded, tmp_path, caplog):
    pair = certificate(tmp_path, "a.example")
    warn_of_certificates(loaded(f"tls: {{certificates: {{localhost: {pair}}}}}"))
    assert [record.message for record in caplog.records] == ["certificate-doubtful"]
    caplog.clear()
    warn_of_certificates(loaded(""))
    assert caplog.records == []


@pytest.mark.parametrize(
    ("domain", "name", "holds"),
    [
        ("a.example", "a.example", True),
        ("a.example", "*.example", True),
        ("a.b.example", "*.example", False),
        ("example", "*.example", False),
        ("xn--bcher-kva.example", "xn--bcher-kva.example", True),
        ("b\u00fccher.example", "xn--bcher-kva.example", True),
        ("[::1]", "::1", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "*.0.0.1", False),
    ],
)
def test_a_wildcard_is_one_label(domain, name, holds):
    assert is_covered(domain, {name}) is holds


BLAMED = {
    "a bound": (
        {"XMPPD__LIMITS__STANZA_BYTES_BEFORE_LOGIN": "300000"},
        "must not be larger than stanza_bytes",
    ),
    "an unknown section": ({"XMPPD__LIMIST__DEPTH": "9"}, "limist: unknown key (did you mean limits?)"),
    "a section with a wrong key": ({"XMPPD__LOG__LEVLE": "debug"}, "log.levle: unknown key"),
    "a certificate": (
        {"XMPPD__TLS__CERTIFICATES": "{'*': {certificate: HERE/no, key: HERE/no}}"},
        "HERE/no: No such file or directory",
    ),
    "half a certificate": (
        {"XMPPD__TLS__CERTIFICATES__LOCALHOST__KEY": "HERE/no"},
        "tls.certificates.localhost.certificate: is missing",
    ),
    "ciphers": ({"XMPPD__TLS__CIPHERS": "NOPE"}, "tls.ciphers: selects no cipher"),
    "listeners": (
        {"XMPPD__LISTEN__C2S": "[{port: 1}, {port: 1}]"},
        "listen.c2s[1].port: 127.0.0.1:1 is taken",
    ),
    "a folder": ({"XMPPD__SERVER__DATA_FOLDER": "HERE/file"}, "server.data_folder: cannot be made"),
    "plugins": ({"XMPPD__PLUGINS__ENABLED": "[disko]"}, "plugins.enabled[0]: there is no plugin"),
    "an engine": (
        {"XMPPD__STORE__ENGINE": "cassandra", "XMPPD__STORE__CASSANDRA__TLS__CA": "HERE/no"},
        "store.cassandra.tls.ca: HERE/no cannot be used",
    ),
}


@pytest.mark.parametrize(("environ", "sentence"), BLAMED.values(), ids=BLAMED)
def test_the_environment_is_blamed_for_its_own_mistakes(loaded, tmp_path, environ, sentence):
    text = "server:\n  data_folder: HERE/data\nlimits:\nlog:\n  level: info\n"
    try:
        problems = check(loaded(text, environ))
    except ConfigError as error:
        problems = error.problems
    [problem] = said(problems, tmp_path)
    assert problem.startswith(f"${list(environ)[-1]}: ")
    assert sentence in problem
