"""From nothing to a server at work; and each way to fail, with one clear sentence and an exit code."""

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sqlite3
import stat
import sys
import time
from pathlib import Path

import pytest
from patience import PATIENCE

from xmppd.net.certificates import development_certificate

DAC_OVERRIDE, DAC_READ_SEARCH, NET_BIND_SERVICE = 1, 2, 10
PR_CAPBSET_DROP = 24
FIRST_FREE_PORT = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())


def as_nobody_special():
    """In the child: root keeps its files, and loses its power over closed ones and over low ports."""
    if os.geteuid() == 0:
        for capability in (DAC_OVERRIDE, DAC_READ_SEARCH, NET_BIND_SERVICE):
            assert ctypes.CDLL(None, use_errno=True).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0


def allocator_of(server):
    settings = Path(f"/proc/{server.process.pid}/environ").read_bytes().split(b"\0")
    return [setting for setting in settings if setting.startswith(b"PYTHONMALLOC=")]


@pytest.mark.asyncio
async def test_memory_is_managed_by_the_c_library_unless_told_otherwise(prepared):
    server = prepared()
    await server.start()
    assert allocator_of(server) == [b"PYTHONMALLOC=malloc"]
    assert server.command("status")["heap"]["used"] > 10_000_000
    await server.stop()
    await server.start(environ={"PYTHONMALLOC": "pymalloc"})
    assert allocator_of(server) == [b"PYTHONMALLOC=pymalloc"]
    assert server.command("status")["heap"]["used"] < 20_000_000


async def refusal(server, *arguments, prepare=None, environ=None):
    """Start a process that must fail; its exit code and the one sentence that it says."""
    before = len(server.log)
    server.spawn(*arguments, prepare=prepare, environ=environ)
    code = await server.ended()
    said = server.log[before:]
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if '"level": "info"' not in line]
    assert len(lines) == 1, said
    return code, lines[0]


@pytest.mark.asyncio
async def test_from_an_empty_folder_to_the_first_login(prepared, record_property):
    server = prepared()
    server.file.unlink()
    environ = {
        "XMPPD__LISTEN__C2S": "[{port: 0, tls: none}]",
        "XMPPD__AUTH__PLAIN_WITHOUT_TLS": "true",
        "XMPPD__LOG__LEVEL": "debug",
    }
    started = time.monotonic()
    await server.start(environ=environ)
    ready = time.monotonic()
    server.add("alice")
    alice = await server.login("alice")
    took = time.monotonic() - started
    record_property("seconds_to_ready", round(ready - started, 3))
    record_property("seconds_to_first_login", round(took, 3))
    print(f"from nothing: ready after {ready - started:.2f} s, first login after {took:.2f} s")
    await alice.ping()

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in server.data.iterdir()}
    assert stat.S_IMODE(server.data.stat().st_mode) == 0o700
    assert modes["xmppd.sock"] == modes["xmppd.sqlite"] == modes["development.key"] == 0o600
    assert modes["development.crt"] == 0o644
    assert stat.S_ISSOCK((server.data / "xmppd.sock").stat().st_mode)
    with contextlib.closing(sqlite3.connect(server.data / "xmppd.sqlite")) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.asyncio
async def test_ready_is_said_when_clients_can_come(prepared):
    server = prepared()
    server.configure({"listen": {"c2s": [{"port": 0, "tls": "none"}, {"port": 0, "tls": "direct"}]}})
    server.spawn()
    said = (await server.notified()).split("\n")
    assert said[0] == "READY=1"
    for address in said[1].removeprefix("STATUS=listening on ").split(", "):
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()


@pytest.mark.asyncio
async def test_localhost_may_be_several_addresses(prepared):
    server = prepared(listen={"c2s": [{"address": "localhost", "port": 0, "tls": "none"}]})
    await server.start()
    await (await server.connect()).open()


# what is in the way


@pytest.mark.own_engine
@pytest.mark.asyncio
async def test_a_store_that_is_a_folder(prepared):
    server = prepared()
    (server.data / "xmppd.sqlite").mkdir(parents=True)
    code, sentence = await refusal(server)
    assert code == 69
    assert "xmppd.sqlite" in sentence


@pytest.mark.own_engine
@pytest.mark.asyncio
async def test_a_store_that_is_no_database(prepared):
    server = prepared()
    server.data.mkdir()
    (server.data / "xmppd.sqlite").write_bytes(b"something else " * 1000)
    code, sentence = await refusal(server)
    assert code == 69
    assert "is no SQLite database" in sentence
    assert not (server.data / "xmppd.sock").exists()


@pytest.mark.own_engine
@pytest.mark.asyncio
async def test_a_store_that_may_not_be_read(prepared):
    server = prepared()
    server.data.mkdir()
    (server.data / "xmppd.sqlite").touch(0o000)
    code, sentence = await refusal(server, prepare=as_nobody_special)
    assert code == 69
    assert "xmppd.sqlite" in sentence


@pytest.mark.own_engine
@pytest.mark.asyncio
async def test_a_store_in_no_folder(prepared):
    server = prepared(store={"path": "nowhere/xmppd.sqlite"})
    code, sentence = await refusal(server)
    assert code == 69
    assert "nowhere/xmppd.sqlite" in sentence


@pytest.mark.asyncio
async def test_a_key_that_may_not_be_read(prepared):
    server = prepared()
    pair = development_certificate(server.folder / "pair", ["localhost"])
    pair.key.chmod(0o000)
    files = {"certificate": str(pair.certificate), "key": str(pair.key)}
    server.configure({"tls": {"certificates": {"*": files}}})
    code, sentence = await refusal(server, prepare=as_nobody_special)
    assert code == 77
    assert sentence == f"xmppd: {pair.key}: Permission denied"


@pytest.mark.asyncio
async def test_a_data_folder_that_may_not_be_made(prepared):
    server = prepared(server={"data_folder": "closed/data"})
    (server.folder / "closed").mkdir(0o500)
    code, sentence = await refusal(server, prepare=as_nobody_special)
    assert code == 77
    assert sentence == "xmppd: closed/data: Permission denied"


@pytest.mark.asyncio
@pytest.mark.skipif(FIRST_FREE_PORT <= 1, reason="here everybody may listen on every port")
async def test_a_port_for_root_only(prepared):
    server = prepared(listen={"c2s": [{"port": FIRST_FREE_PORT - 1}]})
    code, sentence = await refusal(server, prepare=as_nobody_special)
    assert code == 77
    assert sentence == f"xmppd: no right to listen on 127.0.0.1:{FIRST_FREE_PORT - 1}"


@pytest.mark.asyncio
@pytest.mark.parametrize("uvloop", [True, False])
async def test_a_port_in_use(prepared, uvloop):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listeners = [{"port": 0}, {"port": port}]
        server = prepared(listen={"c2s": listeners}, loop={"uvloop": uvloop})
        code, sentence = await refusal(server)
    assert code == 1
    assert sentence == f"xmppd: cannot listen on 127.0.0.1:{port}: Address already in use"
    assert not (server.data / "xmppd.sock").exists(), "a failed start leaves no socket behind"


@pytest.mark.asyncio
async def test_an_address_that_is_not_here(prepared):
    server = prepared(listen={"c2s": [{"address": "nobody.invalid", "port": 0}]})
    code, sentence = await refusal(server)
    assert code == 1
    assert sentence.startswith("xmppd: cannot listen on nobody.invalid:0: ")
    assert "Errno" not in sentence


@pytest.mark.asyncio
async def test_another_server_in_the_same_folder(serve):
    server = await serve()
    first = server.process
    server.log_file = server.folder / "log of the second"
    try:
        code, sentence = await refusal(server)
    finally:
        server.process = first
    assert code == 1
    assert "another server is running here" in sentence
    assert "pid" in server.command("status"), "the first one keeps its socket"
    await (await server.login("alice")).ping()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("text", "code", "sentence"),
    [
        ("limits:\n  depht: 3\n", 78, "xmppd.yaml:2:3: limits.depht: unknown key (did you mean depth?)"),
        ("plugins:\n  enabled: [disko]\n", 78, "disco"),
        ("tls:\n  certificates:\n    '*': {certificate: no.pem, key: no.pem}\n", 78, "no.pem"),
        ("a: [", 78, "xmppd.yaml:1:"),
    ],
)
async def test_a_bad_configuration(prepared, text, code, sentence):
    server = prepared()
    server.file.write_text(text)
    found, said = await refusal(server)
    assert found == code
    assert sentence in said


@pytest.mark.asyncio
async def test_a_bad_command_line(prepared):
    code, sentence = await refusal(prepared(), "serve", "--prot", "5222")
    assert code == 2
    assert "--prot" in sentence


@pytest.mark.asyncio
async def test_a_plugin_that_does_not_start(prepared):
    server = prepared(plugins={"enabled": ["broken"], "folders": ["."]})
    server.write_plugin("broken", 'async def start(self) -> None:\n    raise RuntimeError("no luck today")\n')
    code, sentence = await refusal(server)
    assert code == 1
    assert sentence == "xmppd: the plugin 'broken' did not start: no luck today"


@pytest.mark.asyncio
async def test_a_certificate_that_nobody_will_believe_is_warned_of(prepared):
    server = prepared()
    pair = development_certificate(server.folder / "pair", ["example.org"])
    files = {"certificate": str(pair.certificate), "key": str(pair.key)}
    server.configure({"tls": {"certificates": {"*": files}}})
    await server.start()
    [line] = await server.logged("certificate-doubtful")
    assert (line["domain"], line["file"]) == ("localhost", str(pair.certificate))
    assert line["reason"] == "clients of localhost are shown a certificate that is for example.org only"
    server.signal(signal.SIGHUP)
    assert len(await server.logged("certificate-doubtful", 2)) == 2


@pytest.mark.asyncio
async def test_where_it_listens_reads_well_with_ipv6(prepared):
    server = prepared(listen={"c2s": [{"address": "[::1]", "port": 0, "tls": "none"}]})
    await server.start()
    [line] = await server.logged("listening", 1)
    assert line["addresses"] == f"[::1]:{server.port}"


# commands without a server


@pytest.mark.asyncio
async def test_accounts_can_be_managed_while_plugins_cannot_be_loaded(prepared):
    server = prepared(
        plugins={"enabled": ["ping", "broken", "vcard"], "folders": ["."], "config": {"vcard": {"max": "x"}}}
    )
    (server.folder / "broken.py").write_text("import nothing_of_this_name\n")
    server.spawn("user", "add", "alice@localhost", "--password", "pw-of-alice", "--json", "--create")
    assert await server.ended() == 0, server.log
    warnings = [line for line in server.log.splitlines() if "plugin-not-loaded" in line]
    assert len(warnings) == 2
    assert "nothing_of_this_name" in warnings[0]
    assert "vcard" in warnings[1]

    before = len(server.log)
    server.spawn("user", "list")
    assert await server.ended() == 0
    assert "alice@localhost" in server.log[before:]


async def ran(server, *arguments, folder=None):
    """A process beside the server, ended: its exit code and what it said."""
    environ = {**os.environ, "HOME": str(server.folder)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=folder or server.folder, env=environ, stdout=-1, stderr=-1
    )
    said = await process.communicate()
    return process.returncode, *(text.decode() for text in said)


@pytest.mark.asyncio
async def test_a_running_server_is_found_from_any_folder(prepared, tmp_path):
    server = prepared(server={"data_folder": "data"})
    await server.start()
    server.add("alice")
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    command = ("-m", "xmppd", "--config", str(server.file), "user", "list", "LocalHost")
    code, out, err = await ran(server, *command, folder=folder)
    assert (code, err) == (0, "")
    assert "alice@localhost" in out
    await server.stop()
    if not server.engines:
        assert (await ran(server, *command, folder=folder))[0] == 69
        assert list(folder.iterdir()) == []


@pytest.mark.own_engine
@pytest.mark.asyncio
@pytest.mark.parametrize(
    "arguments",
    [("user", "add", "a@localhost", "--generate"), ("user", "list"), ("roster", "show", "a@localhost")],
)
async def test_no_empty_store_is_made_by_accident(prepared, arguments):
    server = prepared()
    code, sentence = await refusal(server, *arguments)
    assert code == 69
    assert sentence == (
        f"xmppd: there is no database at {server.data}/xmppd.sqlite ({server.file}), and no server of this "
        "configuration runs: --create makes an empty one"
    )
    assert not server.data.exists()


@pytest.mark.own_engine
@pytest.mark.asyncio
@pytest.mark.parametrize("command", [("serve",), ("check-config",), ("user", "list"), ("store", "info")])
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"server": {"data_folder": "xmppd.yaml/data"}},
            "server.data_folder: cannot be made: xmppd.yaml/data: ",
        ),
        ({"cache": {"redis": "redis://127.0.0.1?nonsense=1"}}, "cache.redis: cannot be used: "),
        ({"limits": {"depth": 1}}, "limits.depth: must be at least 8"),
    ],
)
async def test_a_mistake_in_the_configuration_is_the_same_everywhere(prepared, command, settings, sentence):
    server = prepared(**settings)
    code, said = await refusal(server, *command)
    assert code == 78
    assert said.startswith("xmppd.yaml:")
    assert sentence in said


@pytest.mark.own_engine
@pytest.mark.asyncio
async def test_tables_are_looked_at_without_making_them(prepared):
    server = prepared()
    server.spawn("store", "info")
    assert await server.ended() == 0, server.log
    server.spawn("store", "check")
    assert await server.ended() == 1, server.log
    assert not server.data.exists()
    server.spawn("store", "migrate")
    assert await server.ended() == 69, server.log
    assert not server.data.exists()
    server.spawn("store", "migrate", "--create")
    assert await server.ended() == 0, server.log
    assert (server.data / "xmppd.sqlite").exists()


@pytest.mark.asyncio
async def test_a_command_that_the_server_answers_loads_none_of_its_code(prepared):
    server = prepared()
    await server.start()
    code = (
        "import sys\nfrom xmppd.__main__ import main\nsys.argv[1:] = ['status', '--json']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "sys.stderr.write(' '.join(sys.modules))"
    )
    code, _, loaded = await ran(server, "-c", code)
    assert code == 0
    heavy = {"asyncio", "uvloop", "cryptography", "sqlite3", "cassandra", "ssl", "logging"}
    assert heavy & set(loaded.split()) == set()


# stuck?


@pytest.mark.asyncio
@pytest.mark.parametrize("uvloop", [True, False])
async def test_usr1_shows_threads_and_tasks(prepared, uvloop):
    server = prepared(loop={"uvloop": uvloop}, plugins={"enabled": ["busy"], "folders": ["."]})
    server.write_plugin(
        "busy",
        """
        async def start(self) -> None:
            self.server.spawn(self.look_for_something())

        async def look_for_something(self) -> None:
            await asyncio.Event().wait()
        """,
    )
    await server.start()
    server.signal(signal.SIGUSR1)
    await server.until(lambda: '"event": "task"' in server.log)
    assert "most recent call first" in server.log
    assert "look_for_something" in server.log
    assert "locks.py" in server.log, "the innermost wait is shown too"
    assert await (await server.connect()).open() is not None, "it goes on"


SLOW = """
    async def start(self) -> None:
        await asyncio.sleep(1)

    @hooks.account_created
    def note(self, account: str) -> None:
        self.log.info("noted", extra={"jid": account})
"""


@pytest.mark.asyncio
async def test_a_command_that_comes_early_waits_for_plugins(prepared):
    server = prepared(plugins={"enabled": ["slow"], "folders": ["."]})
    path = server.write_plugin("slow", SLOW)
    path.write_text(
        path.read_text().replace("import asyncio\n", "import asyncio\n\nfrom xmppd import hooks\n")
    )
    starting = asyncio.create_task(server.start())
    await server.until((server.data / "xmppd.sock").exists)
    await asyncio.to_thread(server.command, "user add", account="zoe@localhost", password="secret")
    await starting
    [line] = await server.logged("noted")
    assert line["jid"] == "zoe@localhost"
